//! The ARC core alone, with the least shell that can drive it: a map from keys to slots. The unit of weight is one
//! byte, so that pages of size 1 weigh 1.

use std::collections::HashMap;

use elcache_memory::policy::Policy;

use crate::replay::Replay;

pub(crate) struct ArcCore {
    policy: Policy,
    slots: HashMap<u64, u32>,
    keys: Vec<u64>,
    free: Vec<u32>,
}

impl ArcCore {
    pub(crate) fn new(capacity: u64) -> Self {
        ArcCore { policy: Policy::new(capacity), slots: HashMap::new(), keys: Vec::new(), free: Vec::new() }
    }

    fn slot_for(&mut self, key: u64) -> u32 {
        let slot = self.free.pop().unwrap_or(self.keys.len() as u32);
        self.keys.resize(self.keys.len().max(slot as usize + 1), 0);
        self.keys[slot as usize] = key;
        self.slots.insert(key, slot);
        slot
    }

    fn evict(&mut self, slot: u32) {
        let key = self.keys[slot as usize];
        self.slots.remove(&key);
        self.free.push(slot);
        self.policy.evict(slot, identity(key));
    }
}

impl Replay for ArcCore {
    fn access(&mut self, key: u64, size: u32) -> bool {
        if let Some(&slot) = self.slots.get(&key) {
            self.policy.hit(slot);
            return true;
        }
        let weight = u64::from(size);
        if !self.policy.fits(weight) {
            return false;
        }
        let admission = self.policy.admit(identity(key), size);
        while self.policy.resident_weight() + weight > self.policy.capacity() {
            let Some(victim) = self.policy.victim(admission) else { break };
            self.evict(victim);
        }
        let slot = self.slot_for(key);
        self.policy.insert(slot, size, admission);
        false
    }
}

/// The policy wants hashes. This one (MurmurHash3's finaliser) maps no two keys to the same identity, so a replay
/// stays exact.
fn identity(key: u64) -> u64 {
    let key = (key ^ key >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let key = (key ^ key >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    key ^ key >> 33
}
