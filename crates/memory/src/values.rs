//! How many chunks of each larger value are in memory. While there is one, the value's root and pages stay; when the
//! last is gone, so is the value.

use std::collections::HashMap;

use elcache_core::key::Key;
use elcache_core::tier::Owner;
use parking_lot::Mutex;

/// What a value takes here besides its key, and what each of its chunks takes in its shard: places in hash maps.
const VALUE_BYTES: u64 = 192;
const CHUNK_BYTES: u64 = 96;

/// Every value of more than one chunk that has a chunk here. Touched once a chunk, not once a request.
#[derive(Default)]
pub(crate) struct Values(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    values: HashMap<Owner, Resident>,
    bytes: u64,
}

struct Resident {
    key: Key,
    chunks: u64,
}

impl Resident {
    fn bytes(&self) -> u64 {
        VALUE_BYTES + self.key.as_bytes().len() as u64 + CHUNK_BYTES * self.chunks
    }
}

impl Values {
    /// A value is being committed: its chunks are about to be counted. Until that is done, which [`Values::drop_chunk`] says,
    /// the commit itself counts as one: its chunks may be evicted before its root is there.
    pub(crate) fn open(&self, owner: Owner, key: &Key) {
        let mut inner = self.0.lock();
        let resident = Resident { key: key.clone(), chunks: 1 };
        inner.bytes += resident.bytes();
        if let Some(before) = inner.values.insert(owner, resident) {
            inner.bytes -= before.bytes();
        }
    }

    /// One chunk more is kept for the value.
    pub(crate) fn add_chunk(&self, owner: Owner) {
        let mut inner = self.0.lock();
        if let Some(resident) = inner.values.get_mut(&owner) {
            resident.chunks += 1;
            inner.bytes += CHUNK_BYTES;
        }
    }

    /// One chunk less; the value's key when it was the last.
    pub(crate) fn drop_chunk(&self, owner: Owner) -> Option<Key> {
        let mut inner = self.0.lock();
        let resident = inner.values.get_mut(&owner)?;
        if resident.chunks > 1 {
            resident.chunks -= 1;
            inner.bytes -= CHUNK_BYTES;
            return None;
        }
        inner.remove(owner).map(|resident| resident.key)
    }

    /// The value is gone; whether it had chunks here.
    pub(crate) fn close(&self, owner: Owner) -> bool {
        self.0.lock().remove(owner).is_some()
    }

    /// Whether any chunk of the value is here.
    pub(crate) fn has_chunks(&self, owner: Owner) -> bool {
        self.0.lock().values.get(&owner).is_some_and(|resident| resident.chunks > 0)
    }

    /// Heap bytes for all of this, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().bytes
    }
}

impl Inner {
    fn remove(&mut self, owner: Owner) -> Option<Resident> {
        let resident = self.values.remove(&owner)?;
        self.bytes -= resident.bytes();
        Some(resident)
    }
}
