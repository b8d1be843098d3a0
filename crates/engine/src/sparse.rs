//! Values that many writers put together, range by range: what is written of one that is not committed yet.
//!
//! # Layout
//! - [`map`]: what of the whole value is written, and where its bytes are;
//! - [`chunk`]: the same of one chunk: a base, and layers on it;
//! - [`runs`]: disjoint ranges;
//! - [`ledger`]: room that all uploads hold together.
//!
//! # Invariants
//! - None of it does I/O or waits. Whoever changes a map has made durable before what the map is told, and lets go afterwards
//!   of what the map gives back.
//! - A map is a function of the fragments, fillings and pages that it has been told of, in whatever order.
//! - Where something is lost, nothing older counts in its place.
#![allow(dead_code, unused_variables, clippy::todo, clippy::unused_async)]

mod chunk;
mod ledger;
mod map;
mod runs;

use std::sync::Arc;

use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::value::{OperationId, Version};

pub use self::map::Missing;
use crate::engine::Engine;
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

impl Engine {
    /// Opens an upload of a value of `size` bytes; its id. The condition, the length and the digest of the options mean nothing here.
    pub async fn sparse_open(
        self: &Arc<Self>,
        key: Key,
        size: u64,
        options: PutOptions,
    ) -> Result<Version, SparseError> {
        todo!()
    }

    /// The open upload of a key, which has this id if one is given.
    pub async fn sparse(
        self: &Arc<Self>,
        key: &Key,
        id: Option<Version>,
    ) -> Result<Arc<Sparse>, SparseError> {
        todo!()
    }

    /// Makes what was written the key's value, if every byte is and the condition holds. Again, with the same id: the first answer.
    pub async fn sparse_finalize(
        self: &Arc<Self>,
        key: &Key,
        id: Option<Version>,
        condition: Condition,
        operation: Option<OperationId>,
    ) -> Result<Stored, SparseError> {
        todo!()
    }

    /// Gives an upload up.
    pub async fn sparse_abort(self: &Arc<Self>, key: &Key, id: Option<Version>) -> Result<(), SparseError> {
        todo!()
    }
}

/// An open upload.
pub struct Sparse {}

impl Sparse {
    /// Its id.
    pub fn id(&self) -> Version {
        todo!()
    }

    /// The value's length in bytes.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// Begins to write a range from this offset on, of this length if it is known. Waits for its turn.
    pub async fn range(
        self: &Arc<Self>,
        from: u64,
        len: Option<u64>,
        sha256: Option<[u8; 32]>,
    ) -> Result<Range, SparseError> {
        todo!()
    }

    /// How far it is, with at most so many missing ranges from this offset on.
    pub fn status(&self, from: u64, most: usize) -> Status {
        todo!()
    }

    /// Whether every byte of the span is written.
    pub fn covers(&self, span: Span) -> bool {
        todo!()
    }

    /// What of the span is not written.
    pub fn missing_in(&self, span: Span, most: usize) -> Missing {
        todo!()
    }

    /// Reads a span, all of which is written.
    pub fn reader(self: &Arc<Self>, span: Span) -> Reader {
        todo!()
    }
}

/// A range on its way in. Dropping it leaves nothing behind.
pub struct Range {}

impl Range {
    /// Waits until [`Range::space`] has room. To be called when there are more bytes to come, or may be.
    pub async fn ready(&mut self) -> Result<(), SparseError> {
        todo!()
    }

    /// Where the next bytes go; empty when [`Range::ready`] has to be called first, or at the end.
    pub fn space(&mut self) -> &mut [u8] {
        todo!()
    }

    /// Says that the first `count` bytes of the space have been received.
    pub fn filled(&mut self, count: usize) {
        todo!()
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        todo!()
    }

    /// Writes what was received; how far the upload is then, in percent, floored. The caller has seen to it that it is all there.
    pub async fn finish(self) -> Result<u8, SparseError> {
        todo!()
    }
}
