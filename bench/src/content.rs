//! The bytes of the values: one endless pseudo-random stream, addressable by position.
//!
//! A value is a window on the stream that begins at its *origin*. Any range of any value can therefore be made
//! or checked without keeping a copy, and two values, or two places of one value, never look alike: a server that
//! answers with the wrong key, the wrong offset or an older version is caught.

const WORD: usize = 8;

/// SplitMix64's output function: one multiplication chain per word, no state carried between words.
pub fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Writes the stream's bytes from `position` on.
pub fn fill(position: u64, out: &mut [u8]) {
    let skip = (position % WORD as u64) as usize;
    let mut index = position / WORD as u64;
    let (head, rest) = out.split_at_mut(out.len().min((WORD - skip) % WORD));
    if !head.is_empty() {
        let word = mix(index).to_le_bytes();
        head.copy_from_slice(&word[skip..skip + head.len()]);
        index += 1;
    }
    for piece in rest.chunks_mut(WORD) {
        piece.copy_from_slice(&mix(index).to_le_bytes()[..piece.len()]);
        index = index.wrapping_add(1);
    }
}

/// Where `bytes` first differ from the stream at `position`.
pub fn mismatch(position: u64, bytes: &[u8]) -> Option<usize> {
    let mut expected = [0; 4096];
    for (number, piece) in bytes.chunks(expected.len()).enumerate() {
        let start = number * expected.len();
        let expected = &mut expected[..piece.len()];
        fill(position.wrapping_add(start as u64), expected);
        if piece != expected {
            return piece.iter().zip(expected).position(|(got, want)| got != want).map(|at| start + at);
        }
    }
    None
}

/// A small xorshift generator: which key and which offset come next.
pub struct Random(u64);

impl Random {
    /// The same seed gives the same requests.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed) | 1)
    }

    /// A number below `limit`; the bias of the multiplication is far below anything a bench could see.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(limit)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_window_of_the_stream_equals_the_same_bytes_made_at_once() {
        let mut whole = vec![0; 5000];
        fill(40, &mut whole);
        for (from, length) in [(0, 5000), (1, 7), (3, 2), (7, 1), (8, 8), (13, 4096), (4999, 1), (5000, 0)] {
            let mut window = vec![0; length];
            fill(40 + from as u64, &mut window);
            assert_eq!(window, whole[from..from + length], "{length} bytes from {from}");
        }
    }

    #[test]
    fn the_first_wrong_byte_is_named_wherever_it_is() {
        let mut bytes = vec![0; 10_000];
        fill(77, &mut bytes);
        assert_eq!(mismatch(77, &bytes), None);
        for at in [0, 1, 4095, 4096, 9999] {
            bytes[at] ^= 1;
            assert_eq!(mismatch(77, &bytes), Some(at));
            bytes[at] ^= 1;
        }
        assert!(mismatch(78, &bytes).is_some(), "a shifted window is another content");
    }

    #[test]
    fn random_numbers_stay_below_their_limit_and_reach_all_of_it() {
        let mut random = Random::new(1);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[random.below(10) as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
