//! The sums of extents that are read in parts, so that a range read need not read them again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use elcache_core::budget::{Budget, Taken};
use parking_lot::Mutex;

/// The largest part of the memory budget that this takes.
const SHARE: u64 = 32;
/// What an entry costs: a full block of sums, and the way to it.
const ENTRY: u64 = 4096 + 128;

/// Which extent: its segment, and the block where it begins.
pub(crate) type ExtentId = (u32, u32);

/// A cache of blocks of sums: what has been used gets a second chance.
pub(crate) struct SumsCache {
    state: Mutex<State>,
    capacity: usize,
    _taken: Option<Taken>,
}

#[derive(Default)]
struct State {
    sums: HashMap<ExtentId, Slot>,
    round: VecDeque<ExtentId>,
}

struct Slot {
    sums: Arc<[u32]>,
    used: bool,
}

impl SumsCache {
    /// An empty cache of a small part of the budget, which so many have together.
    pub(crate) fn new(budget: &Arc<Budget>, sharers: usize) -> Self {
        let capacity = budget.max_bytes() / SHARE / sharers.max(1) as u64 / ENTRY;
        let taken = budget.take(capacity * ENTRY);
        let capacity = if taken.is_some() { capacity as usize } else { 0 };
        Self { state: Mutex::default(), capacity, _taken: taken }
    }

    pub(crate) fn get(&self, id: ExtentId) -> Option<Arc<[u32]>> {
        let mut state = self.state.lock();
        let slot = state.sums.get_mut(&id)?;
        slot.used = true;
        Some(Arc::clone(&slot.sums))
    }

    pub(crate) fn put(&self, id: ExtentId, sums: &Arc<[u32]>) {
        let mut state = self.state.lock();
        if self.capacity == 0 || state.sums.contains_key(&id) {
            return;
        }
        while state.sums.len() >= self.capacity {
            let Some(oldest) = state.round.pop_front() else { return };
            match state.sums.get_mut(&oldest) {
                Some(slot) if slot.used => {
                    slot.used = false;
                    state.round.push_back(oldest);
                }
                _ => _ = state.sums.remove(&oldest),
            }
        }
        state.sums.insert(id, Slot { sums: Arc::clone(sums), used: false });
        state.round.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_used_and_no_more_than_it_may() {
        let budget = Budget::new(32 * 4 * ENTRY);
        let cache = SumsCache::new(&budget, 1);
        assert_eq!((cache.capacity, budget.taken_bytes()), (4, 4 * ENTRY));
        let sums: Arc<[u32]> = vec![1, 2].into();
        for number in 0..100 {
            cache.put((1, number), &sums);
            assert!(cache.get((1, 0)).is_some(), "what is used stays");
        }
        assert!(cache.get((1, 50)).is_none());
        assert_eq!(cache.state.lock().sums.len(), 4);
        assert_eq!(cache.state.lock().round.len(), 4);
    }
}
