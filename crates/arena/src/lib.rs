//! Payload memory: everything that the cache holds lies in memfd regions of our own, so that it is counted exactly
//! and can be shared with local clients.
//!
//! # Layout
//! - [`class`]: the sizes that a block of 64 KiB is cut into.
//! - [`region`]: 64 MiB of a memfd, mapped. [`mapping`]: a memfd that others write as well. Nothing else maps memory.
//! - [`pool`]: which blocks and slots are in use; the limit.
//! - [`buffer`]: room that an upload fills.
//! - [`prefetch`]: asking for memory before it is needed.
//! - [`watch`]: what others look at who read records in place; [`life`]: whether this process lives.
//! - [`record`]: finished bytes, immutable, found by number and kept by counting.
//!
//! # Invariants
//! - Memory that is in use by more than one party is never written.
//! - A place ([`pool::Loc`]) is freed once, by its one owner; whoever holds a counted reference to a record may
//!   read its places.
//! - No more blocks are in use than the limit allows, at any moment. What is freed is reused before new memory is
//!   touched; a region that is wholly free is given back.
//!
//! What this crate must not know: keys, values, policies.

pub mod buffer;
mod class;
mod life;
mod mapping;
mod pool;
mod prefetch;
mod record;
mod region;
mod watch;

pub use buffer::PageBuffer;
pub use life::Life;
pub use mapping::{Mapping, Others};
pub use pool::{BLOCK_SIZE, Hint, Pool};
pub use prefetch::prefetch;
pub use record::{Leaving, NewRecord, OwnedRef, Record, Records, Retired};

/// Bytes in a page: the granule of payload pieces.
pub const PAGE_SIZE: usize = 4096;
