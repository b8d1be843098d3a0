//! The memory tier: values, roots, pages and chunks in arenas, found without a lock, evicted by ARC.
//!
//! # Layout
//! - [`tier`]: the tier as the coordinator sees it; uploads, commits, the housekeeping thread.
//! - [`store`]: the shards together: making room, whose chunks are whose.
//! - `shard`: one shard: its table, its records, its policy and the lock around changes.
//! - `table`: from a name's hash to record numbers; readers take no lock.
//! - `hits`: how readers tell the policy what they used without waiting for it.
//! - `layout`: the bytes of a record.
//! - `values`: how many chunks of each larger value are here.
//! - `promises`: room promised to uploads.
//! - `sharing`: clients on the same machine read in its memory.
//! - `staging`: values that are put together piece by piece and are not committed yet.
//! - [`policy`]: ARC, exact and single-threaded.
//!
//! # Invariants
//! - A record is immutable; replacing a value is one store in the table.
//! - All payload lies in the pool, whose limit is the budget's; what an upload holds counts as the tier's.
//! - Whoever holds a shard's lock takes no other shard's; the lock of `values` is always the innermost.
//!
//! What this crate must not know: HTTP, disks, other nodes, the async runtime.
#![forbid(unsafe_code)]

mod hits;
mod layout;
pub mod policy;
mod promises;
mod shard;
mod sharing;
mod staging;
pub mod store;
mod table;
pub mod tier;
mod values;

pub use store::{NoRoom, Store, StoreConfig};
pub use tier::{MemoryConfig, MemoryTier};
