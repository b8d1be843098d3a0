//! The most instructions that the hot paths may take. `cargo bench -p elcache-guards`, or `make guards`, counts them under
//! callgrind and fails where one takes more.
//!
//! A count repeats exactly for one binary; with other code beside it the compiler inlines differently, and the count of code
//! that nobody touched was seen to move by four per cent. The bounds leave some five per cent above what was counted.
//! Who makes a path longer, and means it, raises its bound in the same commit and says why; who makes one shorter
//! lowers it.
#![forbid(unsafe_code)]

/// How often each path is gone in one count, so that work that is done once in a while has its share.
pub const TIMES: u64 = 1000;

/// Bounds: instructions for [`TIMES`] times.
pub mod bounds {
    /// A hit of a 1 KiB value in the store: the record is found and its first byte read.
    pub const STORE_HIT: u64 = 794_000;
    /// The same through the tier, with its metadata decoded and its bytes as a payload, which knows where in shared memory they lie.
    pub const TIER_HIT: u64 = 2_345_000;
    /// The same through the coordinator, with its counters.
    pub const ENGINE_HIT: u64 = 3_175_000;
    /// A key that is not there.
    pub const STORE_MISS: u64 = 251_000;
    /// A value of 1 KiB replaces another, and the oldest leaves.
    pub const STORE_INSERT: u64 = 4_640_000;
    /// A hit in the policy.
    pub const ARC_HIT: u64 = 194_000;
    /// A miss in the policy: admitted, a victim found and evicted, inserted.
    pub const ARC_INSERT: u64 = 942_000;
    /// A range header of a 10 GiB value is parsed, and what it selects is cut into pieces of chunks.
    pub const RANGE_PLAN: u64 = 923_000;
}
