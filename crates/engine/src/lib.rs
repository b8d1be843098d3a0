//! The coordinator: what happens when a value is read, written or deleted. It knows the tiers only as
//! [`Tier`](elcache_core::tier::Tier), fastest first.
//!
//! # Layout
//! - [`engine`]: look-ups, small writes, deletion, and what a commit does to which tier.
//! - [`upload`]: a value on its way in, of any size: received, hashed and staged chunk by chunk.
//! - [`reader`]: a range on its way out, chunk by chunk.
//! - `order`: locks of keys, and how a reader learns that a key was written meanwhile.
//! - `demote`: what the fastest tier evicts goes to a slower one.
//! - `search`, `residency`: which chunks of a value are there, and what is remembered of that; [`runs`]: which bytes those are.
//! - `promote`, `flights`: from a slower tier into the fastest, once for all who wait for it.
//! - [`outcome`]: what can come of it all.
//! - `admit`, `seen`: which values the disk gets.
//! - [`sparse`]: values that many writers put together.
//! - `hashing`: BLAKE3 and SHA-256, off the network's threads where it takes long.
//! - `manifest`: chunk digests into pages and back.
//! - `transit`: what a write has in memory on its way.
//! - [`stats`]: the numbers of `/stats`.
//!
//! # Invariants
//! - Writes of one key are ordered by that key's lock, under which conditions are checked and the value is committed.
//! - Nothing of an upload is visible before it is committed; dropping it at any moment leaves nothing behind.
//! - A reader gives the bytes of the value it began with, or fails.
//!
//! What this crate must not know: HTTP, sockets, what a tier is made of.
#![forbid(unsafe_code)]

mod admit;
mod demote;
pub mod engine;
mod flights;
mod hashing;
mod manifest;
mod order;
pub mod outcome;
mod promote;
pub mod reader;
mod residency;
pub mod runs;
mod search;
mod seen;
pub mod sparse;
pub mod stats;
mod transit;
pub mod upload;

pub use admit::Admission;
pub use demote::Demoter;
pub use engine::{Engine, EngineConfig, MAX_SMALL};
pub use outcome::{Found, Opened, PutOptions, ReadFailed, Readable, Stored, Value, WriteError};
pub use reader::Reader;
pub use runs::Runs;
pub use sparse::{Keeper, Missing, Range, Sparse, SparseError, SparseUsage, Status};
pub use stats::{Stats, TierStats};
pub use upload::Upload;
