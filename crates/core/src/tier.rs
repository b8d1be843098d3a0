//! What the coordinator asks of a tier.
//!
//! The border is crossed once a request or once a chunk, never once a byte. Every answer is a [`Reply`]: there at
//! once (memory) or later (disk, peers), so that the quick tier pays nothing for the slow ones.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::Digest;
use crate::key::{Key, KeyHash};
use crate::payload::{Filled, Payload};
use crate::staging::Staging;
use crate::value::{Metadata, Version};

/// An answer that is there, or a future of it.
pub enum Reply<'a, T> {
    /// Here it is.
    Ready(T),
    /// It has to be waited for.
    Later(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<T> Reply<'_, T> {
    /// What is there at once; `None` when it has to be waited for.
    pub fn now(self) -> Option<T> {
        match self {
            Self::Ready(answer) => Some(answer),
            Self::Later(_) => None,
        }
    }

    /// Waits, where there is something to wait for.
    pub async fn get(self) -> T {
        match self {
            Self::Ready(answer) => answer,
            Self::Later(future) => future.await,
        }
    }
}

/// The tiers, fastest first. A value's hit is named after the slowest that took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TierName {
    /// Memory of this node.
    Memory,
    /// Disks of this node.
    Disk,
    /// Other nodes.
    Cluster,
}

impl TierName {
    /// As it stands in headers, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Cluster => "cluster",
        }
    }
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub enum Lookup<T> {
    /// It is here.
    Hit(T),
    /// It is not here.
    Miss,
    /// The tier cannot say now; ask again later.
    Busy,
}

impl<T> Lookup<T> {
    /// Applies a function to what was found.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Hit(found) => Lookup::Hit(f(found)),
            Self::Miss => Lookup::Miss,
            Self::Busy => Lookup::Busy,
        }
    }

    /// What was found.
    pub fn hit(self) -> Option<T> {
        if let Self::Hit(found) = self { Some(found) } else { None }
    }
}

/// Whether something is in a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is here.
    Here,
    /// It is not here.
    Absent,
    /// If it is here, then in a part that cannot be read at the moment.
    OutOfReach,
}

/// Why a tier did not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is larger than the tier could ever hold.
    TooLarge,
    /// There was no room within the time that a request may wait.
    Full,
    /// It could not be written.
    Failed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "larger than the tier can hold",
            Self::Full => "no room at the moment",
            Self::Failed => "it could not be written",
        })
    }
}

/// Keeps something alive, or something reserved, until it is dropped. What it is only the tier knows.
pub type Hold = Box<dyn Any + Send + Sync>;

/// A value's root: its metadata, and where its bytes are.
pub struct Root {
    /// What is known of the value.
    pub meta: Metadata,
    /// Its bytes.
    pub body: Body,
}

/// Where the bytes of a value are.
pub enum Body {
    /// All of them, at most one chunk.
    Here(Payload),
    /// At most one chunk, to be read.
    Apart(Arc<dyn Apart>),
    /// In chunks. What keeps those from being dropped because the value is replaced or deleted; they may still be evicted.
    Chunks(Option<Hold>),
}

/// The bytes of a value of at most one chunk that are not read yet.
pub trait Apart: Send + Sync {
    /// Reads the bytes `from..to`.
    fn read(&self, from: u32, to: u32) -> Reply<'_, Lookup<Part>>;

    /// Reads them all, into a buffer of their own.
    fn read_whole(&self) -> Reply<'_, Lookup<Filled>>;
}

/// Some bytes of a chunk.
#[derive(Clone, Debug)]
pub struct Part {
    /// The bytes.
    pub bytes: Payload,
    /// As many bytes have been asked of this chunk as it is long: it is worth having in a faster tier.
    pub hot: bool,
}

impl From<Payload> for Part {
    fn from(bytes: Payload) -> Self {
        Self { bytes, hot: false }
    }
}

/// One chunk of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its chaining value.
    pub digest: Digest,
    /// Its number in the value.
    pub number: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// One write of one key: the address of its pages, and what its chunks are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The key's hash.
    pub key: KeyHash,
    /// Which write of the key.
    pub version: Version,
}

/// One page of a value's manifest: up to 2048 chunk digests, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRef {
    /// The value.
    pub owner: Owner,
    /// The page's number in the manifest.
    pub number: u64,
}

impl PageRef {
    /// The name of a page as tiers store it: key hash, view, sequence and number, little-endian.
    pub fn to_bytes(self) -> [u8; 40] {
        let mut name = [0; 40];
        name[..16].copy_from_slice(&self.owner.key.0);
        name[16..24].copy_from_slice(&self.owner.version.view.to_le_bytes());
        name[24..32].copy_from_slice(&self.owner.version.sequence.to_le_bytes());
        name[32..].copy_from_slice(&self.number.to_le_bytes());
        name
    }

    /// The page of a name.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        let (key, rest) = name.split_first_chunk()?;
        let (view, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let version = Version { view: u64::from_le_bytes(*view), sequence: u64::from_le_bytes(*sequence) };
        let number = u64::from_le_bytes(rest.try_into().ok()?);
        Some(Self { owner: Owner { key: KeyHash(*key), version }, number })
    }
}

/// A chunk that has arrived and is kept for a value that is not committed yet.
pub struct Staged {
    /// Which chunk.
    pub chunk: ChunkRef,
    /// Where the tier has it. Dropping it gives the chunk up.
    pub hold: Hold,
}

/// A page of a value that is not committed yet, and what keeps it and all of its chunks.
pub struct StagedPage {
    /// Which page.
    pub page: PageRef,
    /// Where the tier has it. Dropping it gives up the page and its chunks, without waiting for that.
    pub hold: Hold,
}

/// The bytes of a value to be committed.
pub enum NewBody<'a> {
    /// At most one chunk, lying somewhere else: the tier copies it.
    Borrowed(&'a [u8]),
    /// At most one chunk, in a buffer: a tier that keeps buffers takes it over.
    Filled(Filled),
    /// More than one chunk: all pages, in order. They are of the draft that the metadata names.
    Pages(Vec<StagedPage>),
    /// More than one chunk, which with their pages are in a slower tier.
    Elsewhere,
    /// More than one chunk: those of the draft that the metadata names, all of whose pages the tier's [`Staging`] has.
    Draft,
}

/// What a tier is about to evict.
#[derive(Clone, Copy, Debug)]
pub enum Leaving<'a> {
    /// The value, or the root, of this key.
    Value(&'a [u8]),
    /// A page.
    Page(PageRef),
    /// The chunk with this digest.
    Chunk(Digest),
}

/// What a tier has evicted.
#[derive(Clone, Debug)]
pub enum Evicted {
    /// A value of at most one chunk.
    Value(Key, Metadata, Payload),
    /// The root of a larger one.
    Root(Key, Metadata),
    /// A page and its digests.
    Page(PageRef, Payload),
    /// A chunk and its bytes.
    Chunk(ChunkRef, Payload),
}

/// Takes what a tier evicts to a slower one.
pub trait Below: Send + Sync + 'static {
    /// Whether it would take this, which has been `asked_for` since it came or has not, with what it wants to be told then. Asked
    /// while the tier still has it, and under its locks: the answer has to be quick.
    fn wants(&self, leaving: Leaving<'_>, asked_for: &dyn Fn() -> bool) -> Option<u64>;

    /// Takes it, or lets it go.
    fn take(&self, evicted: Evicted, told: u64);
}

/// A faster tier, for a slower one that is about to drop something.
pub trait Above: Send + Sync + 'static {
    /// Whether it has this. Quick.
    fn holds(&self, leaving: Leaving<'_>) -> bool;
}

/// How full a tier is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Values.
    pub entries: u64,
    /// Bytes in use, bookkeeping included.
    pub size_bytes: u64,
    /// Bytes that may be in use.
    pub capacity_bytes: u64,
    /// Bytes of `size_bytes` that are bookkeeping.
    pub index_bytes: u64,
    /// Bytes of `size_bytes` that unfinished uploads count on, where the tier tells them apart.
    pub staged_bytes: u64,
    /// Entries that had to go to make room, since the start.
    pub evicted_for_room: u64,
    /// Entries that went because their time was over, since the start.
    pub evicted_expired: u64,
    /// What is under it, where that is a device.
    pub device: Option<DeviceUsage>,
}

/// What a tier does to its device, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUsage {
    /// What drives it: `io_uring`, `threads`.
    pub engine: &'static str,
    /// Bytes of values that the tier was given.
    pub stored_bytes: u64,
    /// Bytes that it wrote for them.
    pub written_bytes: u64,
    /// Bytes of these that were there before, and were written again because they are in use.
    pub rewritten_bytes: u64,
    /// Bytes that it would write in a day if it went on as in the past hour.
    pub projected_bytes_per_day: u64,
    /// Bytes that it read only to verify them.
    pub scrubbed_bytes: u64,
    /// Bytes that the present pass over everything has still to look at.
    pub scrub_left_bytes: u64,
    /// Bytes that it read, heads and sums included.
    pub read_bytes: u64,
    /// Operations that failed.
    pub io_errors: u64,
    /// Records that did not verify.
    pub damaged: u64,
    /// Why it takes no writes any more, if it does not.
    pub trouble: Option<&'static str>,
    /// What is on it has not all been found yet.
    pub recovering: bool,
}

/// One of the directories that a tier is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryUsage {
    /// Where it is.
    pub path: String,
    /// Whether it is read and written.
    pub in_service: bool,
    /// Bytes in use.
    pub size_bytes: u64,
    /// Bytes that may be in use.
    pub capacity_bytes: u64,
    /// Operations that failed, since the start.
    pub errors: u64,
}

/// A level of the cache. Answers may be out of date the moment they are given: whoever needs more asks again.
pub trait Tier: Send + Sync + 'static {
    /// Which one it is.
    fn name(&self) -> TierName;

    /// Waits, as long as a request may, until it can take writes in their order; the highest version that it knows.
    fn ready(&self) -> Reply<'_, Result<Version, Refusal>>;

    /// Looks a key up, and counts that as a use. Values that have expired are misses.
    fn root(&self, key: &Key) -> Reply<'_, Lookup<Root>>;

    /// Reads a page of a manifest.
    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>>;

    /// Reads the bytes `from..to` of a chunk, and counts that as a use of the chunk.
    fn chunk(&self, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Part>>;

    /// Reads a whole chunk into a buffer of its own, for a faster tier to keep.
    fn chunk_whole(&self, chunk: &ChunkRef) -> Reply<'_, Lookup<Filled>>;

    /// Whether it has a chunk, without counting it as a use.
    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool>;

    /// Which of these chunks it has, in their order, without counting a use: one call for those of a page instead of one for each.
    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>>;

    /// Rises whenever chunks or pages may have gone from it, or out of reach. As long as it has not, it has all that it had.
    fn shrunk(&self) -> u64;

    /// Promises that `bytes` more of unfinished uploads will find room. Waits for its turn, bounded by the time
    /// that a request may wait.
    fn admit(&self, bytes: u64) -> Reply<'_, Result<Hold, Refusal>>;

    /// The most bytes that it could ever promise one upload.
    fn largest_admission(&self) -> u64;

    /// Takes a chunk that has arrived whole, for a value that is not committed yet.
    fn stage(&self, chunk: ChunkRef, data: Filled) -> Reply<'_, Result<Staged, Refusal>>;

    /// Takes a page of a value that is not committed yet, and what keeps the chunks that it lists. When it is refused, those are given up.
    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>>;

    /// Makes a value the value of its key, at once and whole. The caller orders the writes of a key.
    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>>;

    /// Removes a key's value; false when there was none. The caller orders the writes of a key.
    fn remove<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<bool, Refusal>>;

    /// Keeps a copy of a chunk that a slower tier has, and gives its bytes back; `None` when there is no room for them.
    fn keep_chunk(&self, chunk: &ChunkRef, data: Filled) -> Option<Payload>;

    /// Keeps a copy of a page that a slower tier has.
    fn keep_page(&self, page: &PageRef, digests: &[u8]);

    /// Whether it could take this from a faster tier and has it not. Quick.
    fn lacks(&self, leaving: Leaving<'_>) -> bool;

    /// Takes what a faster tier has evicted. The caller orders the writes of a key.
    fn demote(&self, evicted: Evicted) -> Reply<'_, Result<(), Refusal>>;

    /// How full it is.
    fn usage(&self) -> Usage;

    /// The directories that it is in, if it is in any.
    fn directories(&self) -> Vec<DirectoryUsage> {
        Vec::new()
    }

    /// Whether it takes values at the moment. One that does not still knows what it has: of that it lets nothing be replaced or deleted,
    /// which [`Tier::remove`] refuses.
    fn takes_values(&self) -> bool {
        true
    }

    /// Where it keeps drafts, if it does.
    fn staging(&self) -> Option<&dyn Staging> {
        None
    }

    /// Whether more has been written to it lately than should be.
    fn is_overused(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pages_name_says_which_page_it_is() {
        let owner = Owner { key: KeyHash([9; 16]), version: Version { view: 3, sequence: 4 } };
        let page = PageRef { owner, number: 5 };
        assert_eq!(PageRef::from_bytes(&page.to_bytes()), Some(page));
        assert_eq!(PageRef::from_bytes(&page.to_bytes()[..39]), None);
        assert_eq!(PageRef::from_bytes(&[0; 41]), None);
    }
}
