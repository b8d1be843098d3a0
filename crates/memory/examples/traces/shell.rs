//! The concurrent shell: the store with real records, as the node uses it.
//!
//! The store counts what a record occupies, so a capacity in pages becomes as many times what a record of one page is
//! found to weigh. A capacity in bytes is taken as it is: heads, rounding and bookkeeping come out of it.

use elcache_core::budget::Budget;
use elcache_core::digest::Digest;
use elcache_core::value::{Metadata, Version};
use elcache_memory::{Store, StoreConfig};

use crate::replay::SharedReplay;

/// The payload of a page.
const PAGE: usize = 4096;
/// Arenas that never fill: it is the capacity that evicts.
const BUDGET_OVER_CAPACITY: u64 = 2;
const LEAST_BUDGET: u64 = 256 << 20;
const SEED: u64 = 0xE1_CACE;

pub(crate) struct Shell {
    store: Store,
    payload: Vec<u8>,
    meta: Metadata,
    /// The payload of every request, or as much as its size says.
    fixed: Option<usize>,
}

impl Shell {
    /// For traces of pages: room for so many records of one page.
    pub(crate) fn of_pages(pages: u64, shards: Option<usize>) -> Self {
        let probe = Self::new(LEAST_BUDGET / 2, Some(1), Some(PAGE));
        probe.access(0, 1);
        Self::new(pages * probe.store.used_bytes(), shards, Some(PAGE))
    }

    /// For traces of sized objects.
    pub(crate) fn of_bytes(capacity: u64, shards: Option<usize>) -> Self {
        Self::new(capacity, shards, None)
    }

    /// How many shards it has.
    #[allow(dead_code, reason = "only the table shows it")]
    pub(crate) fn shards(&self) -> usize {
        self.store.shards()
    }

    fn new(capacity: u64, shards: Option<usize>, fixed: Option<usize>) -> Self {
        let budget = Budget::new((capacity * BUDGET_OVER_CAPACITY).max(LEAST_BUDGET));
        let config = StoreConfig { shards, capacity_bytes: Some(capacity), seed: SEED };
        let store = Store::new(&config, budget).expect("a pool");
        Self { store, payload: vec![0x5A; 4 << 20], meta: metadata(), fixed }
    }
}

impl SharedReplay for Shell {
    fn access(&self, key: u64, size: u32) -> bool {
        let key = key.to_le_bytes();
        if self.store.get(&key).is_some() {
            return true;
        }
        let bytes = &self.payload[..self.fixed.unwrap_or(size as usize)];
        // What finds no room is not cached, which costs hits, and those are counted.
        let _ = self.store.put_value(&key, &self.meta, bytes);
        false
    }
}

fn metadata() -> Metadata {
    Metadata::new(0, Digest([0; 32]), Version { view: 0, sequence: 1 }, 1)
}
