//! Bytes that can be checked anywhere without being kept: each follows from a seed and its offset.

use crate::random::mix;

/// Content without end, a different one for each seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u64);

impl Content {
    /// What belongs to this seed.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5eed))
    }

    /// What the write of this number puts under this key.
    pub fn of_write(key: u64, number: u64) -> Self {
        Self::new(mix(key).wrapping_add(number))
    }

    /// Fills `out` with the bytes from `offset` on.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let skip = usize::try_from(offset % 8).expect("below 8");
        let (first, rest) = out.split_at_mut(((8 - skip) % 8).min(out.len()));
        let mut word = offset / 8;
        if !first.is_empty() {
            first.copy_from_slice(&self.word(word)[skip..skip + first.len()]);
            word += 1;
        }
        for eight in rest.chunks_mut(8) {
            eight.copy_from_slice(&self.word(word)[..eight.len()]);
            word += 1;
        }
    }

    /// The first `length` bytes.
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.fill(0, &mut out);
        out
    }

    /// Whether these are the bytes from `offset` on.
    pub fn is(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut expected = [0; 16 << 10];
        let mut at = offset;
        bytes.chunks(expected.len()).all(|chunk| {
            let expected = &mut expected[..chunk.len()];
            self.fill(at, expected);
            at += chunk.len() as u64;
            expected == chunk
        })
    }

    fn word(&self, number: u64) -> [u8; 8] {
        mix(self.0.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }
}

/// Content that costs its sender next to nothing: the same random bytes again and again, with a stamp in every 64 KiB, so that no
/// two chunks of any values are equal.
#[derive(Clone, Debug)]
pub struct Stamped(Vec<u8>);

impl Stamped {
    /// Values are made in pieces of so many bytes.
    pub const PIECE: u64 = 1 << 20;
    const BLOCK: usize = 64 << 10;

    /// The piece of this number of this key's value, as if the value had no end.
    pub fn piece(&mut self, key: u64, number: u64) -> &[u8] {
        let blocks = Self::PIECE / Self::BLOCK as u64;
        for (block, at) in self.0.chunks_mut(Self::BLOCK).zip(number * blocks..) {
            block[..8].copy_from_slice(&mix(mix(key).wrapping_add(at)).to_le_bytes());
        }
        &self.0
    }

    /// Whether these are the bytes of this key's value from `offset` on.
    pub fn is(&mut self, key: u64, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = &self.piece(key, offset / Self::PIECE)[(offset % Self::PIECE) as usize..];
            let (now, later) = bytes.split_at(piece.len().min(bytes.len()));
            if now != &piece[..now.len()] {
                return false;
            }
            offset += now.len() as u64;
            bytes = later;
        }
        true
    }
}

impl Default for Stamped {
    fn default() -> Self {
        Self(Content::new(0).bytes(Self::PIECE as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_from_wherever_it_is_read() {
        let content = Content::new(7);
        let all = content.bytes(100);
        for start in 0..40 {
            for end in start..100 {
                assert!(content.is(start as u64, &all[start..end]));
            }
        }
        assert!(!content.is(1, &all[..50]) && !Content::new(8).is(0, &all));
    }

    #[test]
    fn stamped_content_is_the_same_from_wherever_it_is_read_and_no_other_is_like_it() {
        let mut stamped = Stamped::default();
        let all = [stamped.piece(7, 0).to_vec(), stamped.piece(7, 1).to_vec()].concat();
        for (from, to) in
            [(0, 1), (0, all.len()), (65_530, 65_550), (1 << 20, all.len()), ((1 << 20) - 3, 1_100_000)]
        {
            assert!(stamped.is(7, from as u64, &all[from..to]));
        }
        assert!(!stamped.is(7, 1, &all[..50]) && !stamped.is(8, 0, &all[..50]));
        let blocks: std::collections::HashSet<_> = all.chunks(64 << 10).collect();
        assert_eq!(blocks.len(), 32);
    }
}
