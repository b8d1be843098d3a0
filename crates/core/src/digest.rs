//! BLAKE3 digests: the identity of values and chunks.

use std::fmt;

/// 256 bits of BLAKE3: the root hash of a whole value, or the chaining value of one chunk at its offset.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// The first 128 bits of a chunk's digest: its address in every tier and on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 16]);

impl Digest {
    /// The address of the chunk that has this digest.
    pub fn chunk_id(self) -> ChunkId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        ChunkId(id)
    }

    /// Lower-case hexadecimal, as `b3sum` prints it.
    pub fn to_hex(self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }

    /// Reads 64 lower-case hexadecimal digits; anything else is `None`.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex().iter().try_for_each(|&c| fmt::Write::write_char(f, char::from(c)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_there_and_back_and_only_in_lower_case() {
        let digest = Digest(*blake3::hash(b"elcache").as_bytes());
        let hex = digest.to_string();
        assert_eq!(hex, blake3::hash(b"elcache").to_hex().as_str());
        assert_eq!(Digest::from_hex(hex.as_bytes()), Some(digest));
        assert_eq!(Digest::from_hex(hex.to_uppercase().as_bytes()), None);
        assert_eq!(Digest::from_hex(&hex.as_bytes()[1..]), None);
    }
}
