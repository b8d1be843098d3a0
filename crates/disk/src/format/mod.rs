//! What stands on the disk, as plain functions between bytes and types. `docs/disk-format.md` is the authority.
//!
//! - `check`: the seeded checks.
//! - `identity`: whose directory it is.
//! - `segment`: header and footer of a log.
//! - `record`: what a log consists of.
//! - `entries`: the content of index records.
//! - `extent`: heads and sums of large payloads.
//! - `staged`: names of the records of drafts.
//!
//! Whatever is read may be anything at all: decoding returns an error and never panics.

pub(crate) mod check;
pub(crate) mod entries;
pub(crate) mod extent;
pub(crate) mod identity;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod staged;

pub(crate) use check::{Seeds, Spot};

/// The version of the format that this code writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// A block.
pub(crate) const BLOCK: usize = crate::io::BLOCK;
/// Where the records of a log begin.
pub(crate) const LOG_START: u64 = BLOCK as u64;
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: usize = 8;
/// The longest record that carries its own payload.
pub(crate) const MAX_PACKED: usize = 32 << 10;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl From<bytes::TryGetError> for Damaged {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

/// Splits the next `len` bytes off.
pub(crate) fn take<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], Damaged> {
    from.split_off(..len).ok_or(Damaged)
}

/// Splits the next bytes off as an array.
pub(crate) fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], Damaged> {
    take(from, N)?.first_chunk().copied().ok_or(Damaged)
}

/// A block whose last four bytes check the others.
pub(crate) fn close_block(mut bytes: Vec<u8>, seed: u32) -> Vec<u8> {
    bytes.resize(BLOCK - 4, 0);
    let check = crc32c::crc32c_append(seed, &bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes
}

/// What is in a block that [`close_block`] made.
pub(crate) fn open_block(block: &[u8], seed: u32) -> Result<&[u8], Damaged> {
    let (content, check) = block.get(..BLOCK).and_then(|block| block.split_last_chunk()).ok_or(Damaged)?;
    if crc32c::crc32c_append(seed, content) == u32::from_le_bytes(*check) {
        Ok(content)
    } else {
        Err(Damaged)
    }
}
