//! What tiers keep of a draft: a value that many writers put together and that is not committed yet.
//!
//! Every write of a draft has a serial, above those of all earlier writes of the same chunk. Of a chunk counts the filling,
//! or the entry of a page, with the highest serial, and above it the fragments with higher serials, the highest on top.

use std::num::NonZeroU64;

use bytes::Bytes;

use crate::digest::Digest;
use crate::key::Key;
use crate::payload::Payload;
use crate::tier::{ChunkRef, Lookup, Owner, PageRef, Refusal, Reply, Staged};
use crate::value::{KeptHeaders, OperationId, Version};

/// What has to be kept of an upload so that it is open still after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The key that the value will have.
    pub key: Key,
    /// The version that is reserved for the draft: the upload's id.
    pub draft: Version,
    /// The value's length in bytes.
    pub size: u64,
    /// When it was last in use, in milliseconds since 1970.
    pub touched_ms: u64,
    /// Seconds that the value will live, from the commit on.
    pub ttl_seconds: Option<NonZeroU64>,
    /// The client's own 32 bits.
    pub flags: u32,
    /// Keep the value out of memory.
    pub no_memory: bool,
    /// Keep it off the disk.
    pub no_disk: bool,
    /// Keep it on this node.
    pub no_cluster: bool,
    /// The id of the request that opened it.
    pub operation: Option<OperationId>,
    /// Headers to give back with the value.
    pub headers: KeptHeaders,
}

impl Opening {
    /// What its pages, chunks and fragments are addressed by.
    pub fn owner(&self) -> Owner {
        Owner { key: self.key.hash(), version: self.draft }
    }
}

/// What a restart has found of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUpload {
    /// As it was kept last.
    pub opening: Opening,
    /// Its pages. Their chunks, but for the lost ones, are held for it.
    pub pages: Vec<FoundPage>,
    /// Its fillings, also those that newer ones or pages have overtaken.
    pub fillings: Vec<Filling>,
    /// Its fragments, also those that something newer covers.
    pub fragments: Vec<Fragment>,
}

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

/// What a tier keeps for drafts. Nothing that it has taken is evicted before it is told to forget it.
pub trait Staging: Send + Sync + 'static {
    /// Keeps that an upload is open, or, told again, that it is in use still. One a key: the caller sees to that.
    fn open<'a>(&'a self, opening: &'a Opening) -> Reply<'a, Result<(), Refusal>>;

    /// Keeps, for good, that it is open no more. What was staged for it may go from then on, [`Staging::end`] sees to that.
    fn close<'a>(&'a self, key: &'a Key, draft: Version) -> Reply<'a, Result<(), Refusal>>;

    /// Keeps a fragment.
    fn write(&self, fragment: Fragment, bytes: Payload) -> Reply<'_, Result<(), Refusal>>;

    /// Reads the bytes `from..to` of the chunk, all of which are the fragment's.
    fn read<'a>(&'a self, fragment: &'a Fragment, from: u32, to: u32) -> Reply<'a, Lookup<Payload>>;

    /// Makes a staged chunk the draft's, and holds it for the filling.
    fn fill(&self, filling: Filling, chunk: Staged) -> Reply<'_, Result<(), Refusal>>;

    /// Reads the bytes `from..to` of a chunk of the draft.
    fn read_chunk(&self, draft: Owner, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Payload>>;

    /// Keeps a page of a draft of a value of `size` bytes, all of whose chunks are there, and holds those for it; what an older
    /// record of the page held is given up. Every write of its chunks up to `serial` is in it.
    fn put_page(
        &self,
        page: PageRef,
        size: u64,
        serial: u64,
        digests: Bytes,
    ) -> Reply<'_, Result<(), Refusal>>;

    /// Reads a page of a draft.
    fn read_page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>>;

    /// Lets go of what the draft counts on no more. Quick.
    fn forget(&self, draft: Owner, what: &[Gone]);

    /// Lets go of all pages of a draft and of the chunks that they name, in the background. Of everything else it is told by
    /// [`Staging::forget`]. What was committed stays where it is, as any value does.
    fn end(&self, draft: Owner, size: u64);

    /// Bytes that a write of this length takes of the tier, bookkeeping included.
    fn footprint(&self, len: u32) -> u64;

    /// Whether it has this still. Quick.
    fn has(&self, draft: Owner, what: &Gone) -> bool;

    /// The uploads that a restart, or the return of a directory, has found since this was last asked. Waits until it can be said.
    fn found(&self) -> Reply<'_, Result<Vec<FoundUpload>, Refusal>>;

    /// Whether it keeps still that the upload is open: not when whatever had that is gone for good. Quick.
    fn keeps(&self, _draft: Owner) -> bool {
        true
    }

    /// Rises when something that was staged may be lost, and when [`Staging::found`] has news.
    fn generation(&self) -> u64;
}
