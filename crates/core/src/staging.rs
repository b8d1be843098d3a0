//! What tiers keep of a draft: a value that many writers put together and that is not committed yet.
//!
//! Every write of a draft has a serial, above those of all earlier writes of the same chunk. Of a chunk counts the filling,
//! or the entry of a page, with the highest serial, and above it the fragments with higher serials, the highest on top.

use crate::digest::Digest;
use crate::tier::{ChunkRef, Owner};

/// The bytes `from..to` of a chunk of a draft, in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// The draft.
    pub draft: Owner,
    /// The chunk's number in it.
    pub chunk: u64,
    /// Its place in the order of writes, from 1 on.
    pub serial: u64,
    /// First byte within the chunk.
    pub from: u32,
    /// Behind the last byte within the chunk.
    pub to: u32,
}

/// A chunk of a draft that is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Filling {
    /// The draft.
    pub draft: Owner,
    /// The chunk's number in it.
    pub chunk: u64,
    /// Every write of the chunk up to this is in it.
    pub serial: u64,
    /// The chunk's digest.
    pub digest: Digest,
}

/// A page of a draft, all of whose chunks were there when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPage {
    /// The page's number in the manifest.
    pub number: u64,
    /// Every write of its chunks up to this is in it.
    pub serial: u64,
    /// Its digests, merged.
    pub merged: Digest,
    /// Places of chunks in it that are not there any more.
    pub lost: Vec<u16>,
}

/// Something that a draft counts on no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// A fragment.
    Fragment(Fragment),
    /// The record of the filling of the chunk with this number. There is one a chunk: a newer one takes its place.
    Filling(u64),
    /// What a filling held of its chunk.
    Chunk(ChunkRef),
}
