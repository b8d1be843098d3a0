//! Memory that clients on the same machine read in place.
//!
//! A client is told where bytes lie ([`Place`]), and what will change when they are no longer good ([`Watched`]). Nobody keeps the bytes for
//! it: it copies them, looks at the word again, and if that has changed throws the copy away.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Where bytes lie, and whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the region, from 1 on. It never means another one.
    pub region: u32,
    /// Offset in the region in bytes.
    pub offset: u32,
    /// The record.
    pub record: RecordId,
}

/// Names a record among all of the tier. Another record may bear the same id later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId(pub u64);

/// A word, and what it holds as long as nothing has happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Number of the word.
    pub word: u32,
    /// What it holds.
    pub generation: u64,
}

/// The memory tier, as those see it who share its memory with clients.
pub trait SharedMemory: Send + Sync + 'static {
    /// The file of the words, to be read only.
    fn watch_file(&self) -> io::Result<OwnedFd>;

    /// The file of a region, to be read only; `None` when there is none of this number any more.
    fn region_file(&self, region: u32) -> Option<Arc<OwnedFd>>;

    /// What to watch for a record that the caller holds a reference to. `None` when it is not found under its name any more: what was
    /// to be watched for has happened.
    fn watch(&self, record: RecordId) -> Option<Watched>;

    /// Says that a client has used a record, which may be gone by now.
    fn note_use(&self, record: RecordId);
}
