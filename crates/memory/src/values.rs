//! How many chunks of each larger value are in memory. While there is one, the value's root and pages stay; when the
//! last is gone, so is the value.

use std::collections::HashMap;

use elcache_core::key::Key;
use elcache_core::tier::Owner;
use parking_lot::Mutex;

/// Every value of more than one chunk that has a chunk here. Touched once a chunk, not once a request.
#[derive(Default)]
pub(crate) struct Values(Mutex<HashMap<Owner, Resident>>);

struct Resident {
    key: Key,
    chunks: u64,
}

impl Values {
    /// A value is being committed: its chunks are about to be counted.
    pub(crate) fn open(&self, owner: Owner, key: &Key) {
        self.0.lock().entry(owner).or_insert_with(|| Resident { key: key.clone(), chunks: 0 });
    }

    /// One chunk more is kept for the value.
    pub(crate) fn add_chunk(&self, owner: Owner) {
        if let Some(resident) = self.0.lock().get_mut(&owner) {
            resident.chunks += 1;
        }
    }

    /// One chunk less; the value's key when it was the last.
    pub(crate) fn drop_chunk(&self, owner: Owner) -> Option<Key> {
        let mut values = self.0.lock();
        let resident = values.get_mut(&owner)?;
        resident.chunks = resident.chunks.saturating_sub(1);
        if resident.chunks > 0 {
            return None;
        }
        values.remove(&owner).map(|resident| resident.key)
    }

    /// The value is gone.
    pub(crate) fn close(&self, owner: Owner) {
        self.0.lock().remove(&owner);
    }

    /// Whether any chunk of the value is here.
    pub(crate) fn has_chunks(&self, owner: Owner) -> bool {
        self.0.lock().get(&owner).is_some_and(|resident| resident.chunks > 0)
    }
}
