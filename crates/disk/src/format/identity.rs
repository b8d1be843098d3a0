//! `IDENTITY`: whose directory it is.

use bytes::{Buf, BufMut};

use super::{BLOCK, Damaged, FORMAT_VERSION, close_block, open_block, take, take_array};

const MAGIC: &[u8; 8] = b"ELCDISK\0";
/// The longest name of a node that is kept.
const MAX_NAME: usize = 255;

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) directory: [u8; 16],
    pub(crate) node: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) secret: [u8; 16],
    pub(crate) created_ms: u64,
    pub(crate) node_name: String,
    /// The directories that took part in this epoch.
    pub(crate) siblings: Vec<[u8; 16]>,
}

/// Why a directory's identity is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is of another version of the format.
    Version(u32),
    /// It does not verify.
    Damaged,
}

impl Identity {
    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(0);
        out.put_slice(&self.directory);
        out.put_slice(&self.node);
        out.put_u64_le(self.epoch);
        out.put_slice(&self.secret);
        out.put_u64_le(self.created_ms);
        let name = self.node_name.as_bytes().get(..MAX_NAME).unwrap_or(self.node_name.as_bytes());
        out.put_u16_le(name.len() as u16);
        out.put_slice(name);
        out.put_u16_le(self.siblings.len() as u16);
        self.siblings.iter().for_each(|id| out.put_slice(id));
        let mut block = close_block(out, 0);
        block.extend_from_within(..);
        block
    }

    /// From the file's bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unusable> {
        Self::decode_block(bytes)
            .or_else(|first| Self::decode_block(bytes.get(BLOCK..).unwrap_or(&[])).map_err(|_| first))
    }

    /// The version is looked at first: another one may check itself differently.
    fn decode_block(bytes: &[u8]) -> Result<Self, Unusable> {
        let mut head = bytes;
        let magic = take(&mut head, 8).map_err(|Damaged| Unusable::Damaged)?;
        let version = head.try_get_u32_le().map_err(|_| Unusable::Damaged)?;
        if magic != MAGIC {
            return Err(Unusable::Damaged);
        }
        if version != FORMAT_VERSION {
            return Err(Unusable::Version(version));
        }
        open_block(bytes, 0).and_then(Self::read).map_err(|Damaged| Unusable::Damaged)
    }

    fn read(mut content: &[u8]) -> Result<Self, Damaged> {
        take(&mut content, 16)?;
        Ok(Self {
            directory: take_array(&mut content)?,
            node: take_array(&mut content)?,
            epoch: content.try_get_u64_le()?,
            secret: take_array(&mut content)?,
            created_ms: content.try_get_u64_le()?,
            node_name: {
                let len = content.try_get_u16_le()?;
                let name = take(&mut content, usize::from(len))?;
                String::from_utf8(name.to_vec()).map_err(|_| Damaged)?
            },
            siblings: {
                let count = content.try_get_u16_le()?;
                (0..count).map(|_| take_array(&mut content)).collect::<Result<_, _>>()?
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            directory: [1; 16],
            node: [2; 16],
            epoch: 3,
            secret: [4; 16],
            created_ms: 5,
            node_name: "n1".to_owned(),
            siblings: vec![[1; 16], [6; 16]],
        }
    }

    #[test]
    fn it_comes_back_from_either_of_its_blocks_and_no_flipped_bit_goes_unnoticed() {
        let bytes = identity().encode();
        assert_eq!(bytes.len(), 2 * BLOCK);
        for bit in 0..BLOCK * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&flipped), Ok(identity()), "bit {bit}");
            assert!(Identity::decode(&flipped[..BLOCK]).is_err(), "bit {bit}");
        }
        assert_eq!(Identity::decode(&bytes[..4000]), Err(Unusable::Damaged));
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = identity().encode();
        bytes[8] = 9;
        bytes[BLOCK + 8] = 9;
        assert_eq!(Identity::decode(&bytes), Err(Unusable::Version(9)));
    }
}
