//! Keys: 1 to 8192 bytes of any value. A key is never a file path.

use std::fmt;

use bytes::Bytes;

/// The longest key, in bytes.
pub const MAX_KEY_LEN: usize = 8192;

/// A key of 1 to [`MAX_KEY_LEN`] bytes. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

/// Why some bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is nothing in it.
    Empty,
    /// It has this many bytes, more than [`MAX_KEY_LEN`].
    TooLong(usize),
}

impl Key {
    /// Checks the length and takes the bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_KEY_LEN => Ok(Self(bytes)),
            len => Err(KeyError::TooLong(len)),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The hash that names the key wherever the key itself would be too long. It is the first half of the key's
    /// BLAKE3, because pages are addressed by it and a collision made on purpose must not be possible.
    pub fn hash(&self) -> KeyHash {
        let digest = blake3::hash(&self.0);
        let mut half = [0; 16];
        half.copy_from_slice(&digest.as_bytes()[..16]);
        KeyHash(half)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(\"{}\")", self.0.escape_ascii())
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the key is empty; a key has 1 to 8192 bytes"),
            Self::TooLong(len) => write!(f, "the key has {len} bytes; a key has 1 to {MAX_KEY_LEN}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// The first 128 bits of the key's BLAKE3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_to_8192_bytes() {
        assert_eq!(Key::new(Vec::new()), Err(KeyError::Empty));
        assert_eq!(Key::new(vec![7; 8193]), Err(KeyError::TooLong(8193)));
        assert!(Key::new(vec![0]).is_ok());
        assert!(Key::new(vec![0xff; 8192]).is_ok());
    }

    #[test]
    fn debug_output_escapes_what_a_terminal_would_interpret() {
        let key = Key::new(&b"a\x1b[2J\n"[..]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(\"a\\x1b[2J\\n\")");
    }
}
