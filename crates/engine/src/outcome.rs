//! What goes into the coordinator and what comes out of it.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use elcache_core::condition::Condition;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Payload;
use elcache_core::tier::{Apart, Body, Hold, Owner, Root, TierName};
use elcache_core::value::{KeptHeaders, Metadata, OperationId};

use crate::order::Stamp;
use crate::residency::Chunked;

/// What a look-up came to.
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once a request, and a box would cost more than that"
)]
pub enum Found {
    /// There is a value.
    Value(Value),
    /// There is none.
    Miss,
    /// A tier cannot say at the moment.
    Busy,
}

/// A value as it was when it was looked up. Its chunks may be evicted meanwhile, but they are not dropped because the key
/// was replaced or deleted.
pub struct Value {
    /// What is known of it.
    pub meta: Metadata,
    /// The tier that had it.
    pub tier: TierName,
    /// Its key, and what the order of the key's writes was when a slower tier was asked for it; `None` when the fastest
    /// had it.
    pub(crate) slower: Option<(Key, Stamp)>,
    bytes: Bytes,
}

enum Bytes {
    /// The bytes themselves.
    Inline(Payload),
    /// At most one chunk, to be read.
    Apart(Arc<dyn Apart>),
    /// Chunks: the key, what their pages are addressed by, and what keeps them from being dropped.
    Chunks { key: Key, owner: Owner, _hold: Option<Hold> },
}

impl Value {
    pub(crate) fn new(root: Root, tier: TierName, key: &Key, stamp: Option<Stamp>) -> Self {
        let slower = stamp.map(|stamp| (key.clone(), stamp));
        let bytes = match root.body {
            Body::Here(data) => Bytes::Inline(data),
            Body::Apart(apart) => Bytes::Apart(apart),
            Body::Chunks(hold) => {
                let owner = root.meta.owner(key.hash());
                Bytes::Chunks { key: key.clone(), owner, _hold: hold }
            }
        };
        Self { meta: root.meta, tier, slower, bytes }
    }

    /// All of its bytes, when they are at most one chunk and have been read.
    pub fn inline(&self) -> Option<&Payload> {
        if let Bytes::Inline(data) = &self.bytes { Some(data) } else { None }
    }

    /// What reads its bytes, when they are at most one chunk and have not been read.
    pub(crate) fn apart(&self) -> Option<&Arc<dyn Apart>> {
        if let Bytes::Apart(apart) = &self.bytes { Some(apart) } else { None }
    }

    /// What the pages of a larger value are addressed by.
    pub(crate) fn owner(&self) -> Option<Owner> {
        if let Bytes::Chunks { owner, .. } = &self.bytes { Some(*owner) } else { None }
    }

    /// What it takes to look for the chunks of a larger value.
    pub(crate) fn chunked(&self) -> Option<Chunked> {
        let Bytes::Chunks { key, owner, .. } = &self.bytes else { return None };
        let Metadata { version, size, .. } = self.meta;
        Some(Chunked { key: key.clone(), version, owner: *owner, size })
    }
}

/// Whether ranges of a value can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// All of it; the slowest tier that takes part.
    Whole(TierName),
    /// Not all of it: so much of the whole value is there.
    Partial {
        /// Percent of the value's bytes, floored.
        available_percent: u8,
    },
    /// Nothing of the value was left, and now the value has gone too.
    Gone,
    /// A tier cannot say at the moment.
    Busy,
}

/// What a write asks for.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// The value's length, when the client said it.
    pub length: Option<u64>,
    /// Seconds to live, from the commit on.
    pub ttl_seconds: Option<NonZeroU64>,
    /// The client's own 32 bits.
    pub flags: u32,
    /// Keep it out of memory.
    pub no_memory: bool,
    /// Keep it off the disk.
    pub no_disk: bool,
    /// Keep it on this node.
    pub no_cluster: bool,
    /// The id of this write.
    pub operation: Option<OperationId>,
    /// Headers to give back.
    pub headers: KeptHeaders,
    /// When to write at all.
    pub condition: Condition,
    /// The SHA-256 that the value must have.
    pub sha256: Option<[u8; 32]>,
    /// The largest value that is taken, in bytes.
    pub value_limit: u64,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self {
            length: None,
            ttl_seconds: None,
            flags: 0,
            no_memory: false,
            no_disk: false,
            no_cluster: false,
            operation: None,
            headers: KeptHeaders::default(),
            condition: Condition::default(),
            sha256: None,
            value_limit: elcache_core::MAX_VALUE_SIZE,
        }
    }
}

/// A write that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// There was no value before.
    pub created: bool,
    /// The value's hash.
    pub digest: Digest,
}

/// What opening an upload came to.
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once an upload, and a box would cost more than that"
)]
pub enum Opened {
    /// Go on and send.
    Upload(crate::Upload),
    /// This very write succeeded before: the first answer again.
    Known(Stored),
}

/// Why a write failed. The key's value is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Its condition does not hold.
    ConditionFailed,
    /// It is larger than the configured limit.
    OverLimit,
    /// It is larger than the tiers can hold, or no tier may hold it.
    DoesNotFit,
    /// There was no room for it in the time that it may wait.
    Busy,
    /// Its SHA-256 is not what the client said.
    DigestMismatch,
    /// It is not as long as was announced.
    WrongLength,
    /// A tier could not write it.
    Failed,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConditionFailed => "the condition does not hold",
            Self::OverLimit => "the value is over the configured limit",
            Self::DoesNotFit => "the value is larger than the tiers can hold",
            Self::Busy => "there was no room in time",
            Self::DigestMismatch => "the value's SHA-256 is not the one given",
            Self::WrongLength => "the value is not as long as announced",
            Self::Failed => "the value could not be written",
        })
    }
}

impl std::error::Error for WriteError {}

/// A read that had begun cannot go on: a chunk was evicted meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFailed;

impl fmt::Display for ReadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of the value was evicted while it was being read")
    }
}

impl std::error::Error for ReadFailed {}
