//! The vocabulary that every layer of ElCache shares. No I/O, no async runtime, no clock but the one in
//! [`clock`].
//!
//! # Layout
//! - [`key`]: what a value is stored under, and the hash that places it.
//! - [`digest`]: BLAKE3 digests and the chunk ids cut from them.
//! - [`tree`]: the hash tree: chunks of 4 MiB, their chaining values, the pages that list them.
//! - [`span`]: ranges of bytes, and the plan that cuts a range into pieces of chunks.
//! - [`value`]: a value's metadata, version and kept headers.
//! - [`condition`]: `If-Match` and its relatives, as the data plane sees them.
//! - [`payload`]: bytes in pieces, and buffers that are filled before they become a payload.
//! - [`shared`]: memory that clients on the same machine read in place.
//! - [`seats`]: how many connections there are.
//! - [`tier`]: what the coordinator asks of memory, disk and cluster.
//! - [`staging`]: what tiers keep of a value that many writers put together, until it is committed.
//! - [`activity`]: whether a connection serves a request, so that a stop knows which to close.
//! - [`budget`]: the one memory budget.
//! - [`clock`]: time as an argument.
//!
//! # Invariants
//! A [`digest::Digest`] is always 32 bytes of BLAKE3; a [`key::Key`] is always 1 to 8192 bytes; offsets and
//! lengths are `u64` and every sum of them is checked.
#![forbid(unsafe_code)]

pub mod activity;
pub mod budget;
pub mod clock;
pub mod condition;
pub mod digest;
pub mod key;
pub mod payload;
pub mod seats;
pub mod shared;
pub mod span;
pub mod staging;
pub mod tier;
pub mod tree;
pub mod value;

/// The largest value that the data model holds: 20 x 2^40 bytes.
pub const MAX_VALUE_SIZE: u64 = 20 << 40;
