//! Values that many writers put together, range by range.
//!
//! # Layout
//! - [`map`]: what of a value is written, and where its bytes are; [`chunk`] the same of one chunk, [`runs`] disjoint ranges;
//! - [`draft`]: one upload at work: its map, its locks, what it takes of memory and of its home;
//! - [`range`]: a range on its way in; [`write`]: how it comes to count;
//! - [`combine`]: fragments become chunks, chunks become pages;
//! - [`finish`]: the end of an upload, good or bad;
//! - [`read`]: what is written is read, for a client or to be combined;
//! - [`registry`]: all uploads; [`keeper`]: those that a restart finds, that nobody uses any more, or that have lost something;
//! - [`ledger`]: the room that uploads take together.
//!
//! # Invariants
//! - What a map is told has been made durable before; what a map gives back is let go of afterwards.
//! - A map is a function of the fragments, fillings and pages that it has been told of, in whatever order.
//! - Where something is lost, nothing older counts in its place.
//! - Locks are taken in this order: promises of room, [`draft::Draft::state`], a chunk's lock, a permit to combine. Nobody holds two
//!   chunks' locks. The map's own lock is held for a moment, and never over an await.

mod chunk;
mod combine;
mod draft;
mod finish;
mod keeper;
mod ledger;
mod map;
mod range;
mod read;
pub(crate) mod registry;
mod runs;
mod write;

use std::sync::Arc;

use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::staging::Opening;
use elcache_core::value::{OperationId, Version};

use self::draft::Draft;
pub use self::keeper::Keeper;
pub use self::map::Missing;
pub use self::range::Range;
pub(crate) use self::read::SpanReader;
use crate::engine::{Engine, may_have, to_the_end};
use crate::outcome::{PutOptions, Stored, WriteError};
use crate::reader::Reader;

/// Why something could not be done with an upload by ranges. What was written before is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SparseError {
    /// No upload of this key is open.
    NoUpload,
    /// Another one is open than the one that was named.
    OtherUpload,
    /// One is open already.
    AlreadyOpen,
    /// As many are open as may be.
    TooManyUploads,
    /// What is written consists of more separate ranges than can be kept track of.
    TooManyRanges,
    /// The range does not lie within the value.
    OutOfBounds,
    /// Not every byte is written.
    Incomplete(Missing),
    /// As with any write.
    Write(WriteError),
}

impl From<WriteError> for SparseError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The value's length in bytes.
    pub size: u64,
    /// Bytes of it that are written.
    pub written: u64,
    /// What is missing.
    pub missing: Missing,
}

impl Status {
    /// How much of it is written, in percent, floored; nothing of nothing is all of it.
    pub fn percent(&self) -> u8 {
        percent(self.written, self.size)
    }
}

fn percent(written: u64, size: u64) -> u8 {
    (u128::from(written) * 100).checked_div(u128::from(size)).unwrap_or(100) as u8
}

/// What all uploads take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SparseUsage {
    /// Uploads that are open.
    pub open: u64,
    /// Bytes that are staged for them.
    pub staged_bytes: u64,
    /// Bytes of memory that say what is written of them.
    pub map_bytes: u64,
}

impl Engine {
    /// Opens an upload of a value of `size` bytes; its id. The condition, the length and the digest of the options mean nothing here.
    pub async fn sparse_open(
        self: &Arc<Self>,
        key: Key,
        size: u64,
        options: PutOptions,
    ) -> Result<Version, SparseError> {
        if size > options.value_limit {
            return Err(WriteError::OverLimit.into());
        }
        self.uploads.restored(self.config.room_wait).await?;
        let engine = Arc::clone(self);
        to_the_end(async move { engine.open_upload(key, size, options).await }).await
    }

    async fn open_upload(
        self: &Arc<Self>,
        key: Key,
        size: u64,
        options: PutOptions,
    ) -> Result<Version, SparseError> {
        let operation = options.operation.as_ref();
        if let Some(open) = self.uploads.find(&key)
            && operation.is_some()
            && open.opening.operation.as_ref() == operation
        {
            return Ok(open.opening.draft);
        }
        let claim = self.uploads.claim(&key, self.config.uploads)?;
        if operation.is_some()
            && let Some(current) = self.current(&key).await?
            && let (Some(draft), true) = (current.draft, current.operation.as_ref() == operation)
        {
            return Ok(draft);
        }
        let version = self.reserve().await?;
        let (home, barred) = self.home_of_upload(&options)?;
        let opening = Opening {
            key,
            draft: version,
            size,
            touched_ms: self.clock().now_ms(),
            ttl_seconds: options.ttl_seconds,
            flags: options.flags,
            no_memory: options.no_memory,
            no_disk: options.no_disk,
            no_cluster: options.no_cluster,
            operation: options.operation,
            headers: options.headers,
        };
        let draft = Draft::new(&self.uploads, home, barred, opening).ok_or(WriteError::Busy)?;
        self.uploads.prepare_combining(self).await?;
        draft.staging()?.open(&draft.opening).get().await.map_err(crate::engine::refused)?;
        let id = draft.opening.draft;
        claim.opened(draft);
        self.metrics().uploads.opened.inc();
        Ok(id)
    }

    /// The slowest tier that may have the value; where none may, the fastest, and nothing can be written.
    fn home_of_upload(&self, options: &PutOptions) -> Result<(usize, bool), WriteError> {
        let stages = |place: &usize| self.tiers()[*place].staging().is_some();
        let may = |place: &usize| may_have(options, self.tiers()[*place].name());
        let Some(home) = (0..self.tiers().len()).rev().filter(stages).find(may) else {
            return (0..self.tiers().len()).find(stages).map(|home| (home, true)).ok_or(WriteError::Failed);
        };
        if self.tiers()[home].takes_values() { Ok((home, false)) } else { Err(WriteError::Failed) }
    }

    /// The open upload of a key, which has this id if one is given.
    pub async fn sparse(
        self: &Arc<Self>,
        key: &Key,
        id: Option<Version>,
    ) -> Result<Arc<Sparse>, SparseError> {
        self.uploads.restored(self.config.room_wait).await?;
        let draft = self.uploads.find(key).ok_or(SparseError::NoUpload)?;
        if id.is_some_and(|id| id != draft.opening.draft) {
            return Err(SparseError::OtherUpload);
        }
        Ok(Arc::new(Sparse { engine: Arc::clone(self), draft }))
    }

    /// Makes what was written the key's value, if every byte is and the condition holds. Again, with the same id: the first answer.
    pub async fn sparse_finalize(
        self: &Arc<Self>,
        key: &Key,
        id: Option<Version>,
        condition: Condition,
        operation: Option<OperationId>,
    ) -> Result<Stored, SparseError> {
        let sparse = match self.sparse(key, id).await {
            Err(error @ (SparseError::NoUpload | SparseError::OtherUpload)) => {
                let current = self.current(key).await?;
                let current = current.filter(|meta| id.is_some() && meta.draft == id).ok_or(error)?;
                return Ok(Stored { created: current.created, digest: current.digest });
            }
            found => found?,
        };
        to_the_end(async move { sparse.finalize(condition, operation).await }).await
    }

    /// Gives an upload up.
    pub async fn sparse_abort(self: &Arc<Self>, key: &Key, id: Option<Version>) -> Result<(), SparseError> {
        let sparse = self.sparse(key, id).await?;
        to_the_end(async move { sparse.abort().await }).await
    }

    /// What all uploads take.
    pub fn sparse_usage(&self) -> SparseUsage {
        self.uploads.usage()
    }
}

/// An open upload.
pub struct Sparse {
    engine: Arc<Engine>,
    draft: Arc<Draft>,
}

impl Sparse {
    /// Its id.
    pub fn id(&self) -> Version {
        self.draft.opening.draft
    }

    /// The value's length in bytes.
    pub fn size(&self) -> u64 {
        self.draft.opening.size
    }

    /// Begins to write a range from this offset on, of this length if it is known. Waits for its turn.
    pub async fn range(
        self: &Arc<Self>,
        from: u64,
        len: Option<u64>,
        sha256: Option<[u8; 32]>,
    ) -> Result<Range, SparseError> {
        let range = Range::new(self, from, len, sha256).await;
        range.inspect_err(|_| self.engine.metrics().uploads.ranges_refused.inc())
    }

    /// How far it is, with at most so many missing ranges from this offset on.
    pub fn status(&self, from: u64, most: usize) -> Status {
        let tracked = self.draft.tracked.lock();
        let (size, written) = (tracked.map.size(), tracked.map.written());
        Status { size, written, missing: tracked.map.missing(from, most) }
    }

    /// Whether every byte of the span is written.
    pub fn covers(&self, span: Span) -> bool {
        self.draft.tracked.lock().map.covers(span)
    }

    /// What of the span is not written.
    pub fn missing_in(&self, span: Span, most: usize) -> Missing {
        self.draft.tracked.lock().map.missing_in(span, most)
    }

    /// Reads a span, all of which is written.
    pub fn reader(self: &Arc<Self>, span: Span) -> Reader {
        Reader::of_upload(Arc::clone(&self.engine), SpanReader::new(Arc::clone(&self.draft), span))
    }
}
