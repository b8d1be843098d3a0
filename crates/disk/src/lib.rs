//! The disk tier: what is written outlives the process, and is found again after a restart.
//!
//! The format on disk is described in `docs/disk-format.md`, which is the authority; its rules about the order of everything
//! are this crate's invariants.
//!
//! # Layout
//! - `disks`: all directories of a node as one tier: what belongs where, which of them serve.
//! - [`tier`]: one directory as a tier: values, chunks, pages, uploads.
//! - `disk`: a directory at work: records are appended. `find`: from a name to what is under it. `extents`: large payloads, written
//!   and read.
//! - `log`: the open segments as plain state. `writer`: the task that writes their batches.
//! - `space`: segments are opened and freed. `segment`: all segments that can be read.
//! - `reclaim`: the task that frees the oldest segments, and first saves what is in use. `walk`: a way through a log.
//! - `scrub`: the task that looks for damage.
//! - `pins`: what unfinished uploads count on. `tally`: names of records that are on their way.
//! - `recovery`: the index from what is on the disk.
//! - `directory`: whose directory it is, and its lock. `name`, `sums`: names in the index; sums of extents, cached.
//! - `format`: what stands on the disk, as functions between bytes and types.
//! - `index`: where the newest record of each name lies, in memory.
//! - [`io`]: what is asked of the operating system, as one trait, and the two engines behind it.
//! - [`config`]: what it can be told.
//!
//! What this crate must not know: HTTP, the memory tier, who asks.

#![deny(unsafe_code)]

pub mod config;
mod directory;
mod disk;
mod disks;
mod extents;
mod find;
mod format;
mod found;
mod index;
pub mod io;
mod log;
mod name;
mod pace;
mod pins;
mod reclaim;
mod recovery;
mod scrub;
mod segment;
mod space;
mod staging;
mod sums;
mod tally;
#[cfg(test)]
mod tests;
pub mod tier;
mod walk;
mod wear;
mod writer;

pub use config::{DiskConfig, Durability};
pub use directory::{DirectoryError, Lock, lock};
pub use disks::{Access, Condition, DirectoryParts, Disks, DisksError, DisksParts};
pub use tier::{DiskParts, DiskTier};
