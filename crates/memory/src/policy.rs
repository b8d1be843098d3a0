//! Which value leaves the memory tier: ARC, weighted.
//!
//! The policy of N. Megiddo and D. S. Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST '03, with
//! sums of weights where the paper counts pages. With every weight 1 it is the paper's algorithm, hit for hit.
//!
//! T1 holds residents that were seen once, T2 those seen again; B1 and B2 remember the identities and weights of what
//! was evicted from either. A miss that is found in B1 says that T1 was too small, one in B2 that T2 was, and moves
//! the target p for the weight of T1. An eviction takes the least recently used of T1 while T1 outweighs floor(p),
//! otherwise of T2.
//!
//! # Layout
//! - this file: the decisions;
//! - `lists`: two LRU lists threaded through one array;
//! - `ghosts`: B1 and B2, found by identity;
//! - `buckets`: the hash table of the ghosts, which grows without a pause.
//!
//! # What it does not know
//! Keys, values, time, threads. The shell around it has the look-up table, so residents are named by a slot number
//! that the shell chooses and cost 12 bytes here; only ghosts have an index here. Weights are in whatever unit the
//! shell counts; [`MAX_WEIGHT`] of them is the heaviest resident.
//!
//! # Invariants
//! After every call: a slot is in one list at most, and an identity has one ghost at most; p is in \[0, C\];
//! T1 + B1 <= C and T1 + T2 + B1 + B2 <= 2C, as far as forgetting ghosts can bring that about (residents above the
//! capacity are for the caller to evict); there are at most [`GHOSTS_PER_RESIDENT`] ghosts a resident,
//! and [`GHOSTS_ALWAYS`] more.
//!
//! The last bound is not the paper's, which has pages of one size. With weights, 2C can be any number of ghosts: where
//! a few heavy residents hold T2, and a flood of tiny values passes through T1, remembering the flood could take more
//! memory than the cache has. Bound to the number of residents, ghosts cost a constant times what residents cost, and
//! the longer ghost list pays, which is the flood's. Where sizes are alike it never binds: a full cache of pages has at
//! most as many ghosts as residents.

mod buckets;
mod ghosts;
mod lists;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use ghosts::Ghosts;
use lists::{End, Lists, Side};

/// The heaviest resident, in the caller's units. Anything heavier has to bypass the cache: see [`Policy::fits`].
pub const MAX_WEIGHT: u32 = lists::MAX_WEIGHT;
/// Ghosts for each resident, at most.
pub const GHOSTS_PER_RESIDENT: usize = 2;
/// Ghosts that are kept however few the residents are.
pub const GHOSTS_ALWAYS: usize = lists::SEGMENT;

/// What a miss was, as far as the ghosts remember: it decides the list that the value goes to, and which way a tie
/// between T1 and its target is broken while room is made for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Never seen, or forgotten: goes to T1. Also the neutral one, for evictions that serve no miss.
    #[default]
    Unknown,
    /// Evicted after one use (in B1): goes to T2.
    Recent,
    /// Evicted after several uses (in B2): goes to T2.
    Frequent,
}

/// The weights of the four lists, in the caller's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Residents seen once.
    pub t1: u64,
    /// Residents seen again.
    pub t2: u64,
    /// Ghosts of T1.
    pub b1: u64,
    /// Ghosts of T2.
    pub b2: u64,
}

/// The state of ARC over one shard's residents. Every call is O(1), amortised where ghosts are forgotten.
///
/// A miss is served like this:
///
/// ```
/// # use elcache_memory::policy::Policy;
/// # let mut policy = Policy::new(100);
/// # let (id, slot, weight) = (0x5EED, 0, 10);
/// # let identity_of = |_slot| 0;
/// let admission = policy.admit(id, weight);
/// while policy.resident_weight() + u64::from(weight) > policy.capacity() {
///     let Some(victim) = policy.victim(admission) else { break };
///     policy.evict(victim, identity_of(victim));
/// }
/// policy.insert(slot, weight, admission);
/// ```
pub struct Policy {
    capacity: u64,
    /// The paper's p: the weight that T1 should have. Real-valued, so that many small steps add up.
    target: f64,
    residents: Lists<()>,
    ghosts: Ghosts,
}

impl Policy {
    /// An empty policy for residents of this total weight.
    pub fn new(capacity: u64) -> Self {
        Policy { capacity, target: 0.0, residents: Lists::new(), ghosts: Ghosts::new() }
    }

    /// Changes the capacity. The target keeps its share of it, and ghosts beyond the new bounds are forgotten;
    /// residents beyond it stay until the caller evicts them.
    pub fn set_capacity(&mut self, capacity: u64) {
        let share = self.target / self.capacity.max(1) as f64;
        self.target = (share * capacity as f64).min(capacity as f64);
        self.capacity = capacity;
        self.trim();
    }

    /// Whether something of this weight can be cached at all. What does not fit must not be admitted: making room
    /// for it would empty the cache in vain.
    pub fn fits(&self, weight: u64) -> bool {
        weight <= self.capacity && weight <= u64::from(MAX_WEIGHT)
    }

    /// A resident was used: it becomes the most recently used of T2. Records of hits may arrive late, so a slot that
    /// holds nothing is passed over.
    pub fn hit(&mut self, slot: u32) {
        self.residents.relocate(slot, Side::Frequent, End::Mru);
    }

    /// As [`Policy::hit`] for each, in this order. Their places in the lists are asked for before any is moved:
    /// one after another, each move would wait for memory, and together they wait once.
    pub fn hit_all(&mut self, slots: &[u32]) {
        self.residents.touch(slots);
        slots.iter().for_each(|&slot| self.hit(slot));
    }

    /// A miss: learns from the ghost, if there is one, and forgets it. To be followed by evictions until the weight
    /// fits, and by [`Policy::insert`]; when that does not come, nothing but the ghost is lost.
    pub fn admit(&mut self, id: u64, weight: u32) -> Admission {
        let Weights { b1, b2, .. } = self.weights();
        let capacity = self.capacity as f64;
        match self.ghosts.take(id) {
            None => Admission::Unknown,
            Some((Side::Recent, _)) => {
                self.target = (self.target + step(weight, b1, b2)).min(capacity);
                Admission::Recent
            }
            Some((Side::Frequent, _)) => {
                self.target = (self.target - step(weight, b2, b1)).max(0.0);
                Admission::Frequent
            }
        }
    }

    /// The resident to evict now, the paper's REPLACE; `None` when there is none at all.
    pub fn victim(&self, admission: Admission) -> Option<u32> {
        self.residents.lru(self.losing_side(admission))
    }

    /// The resident to evict when no miss asks for room: as for [`Policy::victim`], but T1 keeps up to `spare`. A miss
    /// evicts before it inserts, so what has just come is never its victim; evictions ahead of need come afterwards, and with
    /// a small target they would take it first of all.
    pub fn victim_ahead_of_need(&self, spare: u64) -> Option<u32> {
        let side = if self.residents.weight(Side::Recent) <= spare {
            Side::Frequent
        } else {
            self.losing_side(Admission::Unknown)
        };
        self.residents.lru(side).or_else(|| self.victim(Admission::Unknown))
    }

    /// A resident leaves and is remembered as a ghost of its list.
    ///
    /// The paper's case IV, where T1 alone fills the cache and its victim leaves no ghost, needs no word from the
    /// caller: T1 + B1 is then at its bound, and [`Policy::insert`] forgets the ghost again.
    pub fn evict(&mut self, slot: u32, id: u64) {
        let Some((side, weight)) = self.residents.unlink(slot) else { return };
        self.ghosts.push(id, side, weight);
        self.trim();
    }

    /// A value becomes resident in a free slot, most recently used of the list that its admission says. Slots are to
    /// be dense: room is kept for all below the highest ever used. `u32::MAX` is no slot.
    pub fn insert(&mut self, slot: u32, weight: u32, admission: Admission) {
        debug_assert!(weight <= MAX_WEIGHT && slot != lists::NIL);
        self.residents.unlink(slot);
        let side = if admission == Admission::Unknown { Side::Recent } else { Side::Frequent };
        self.residents.link(slot, side, End::Mru, weight.min(MAX_WEIGHT), ());
        self.trim();
    }

    /// A resident was deleted: it leaves no ghost, as nobody will miss it.
    pub fn remove(&mut self, slot: u32) {
        self.residents.unlink(slot);
        self.trim();
    }

    /// A resident's weight changed where it stands.
    pub fn reweigh(&mut self, slot: u32, weight: u32) {
        self.residents.reweigh(slot, weight.min(MAX_WEIGHT));
        self.trim();
    }

    /// A victim that cannot leave now (it is pinned) goes to the most recently used end of its own list, and the next
    /// [`Policy::victim`] is another if there is one; where all may be
    /// pinned, the caller limits its tries. It was not used, so it is not moved to T2.
    pub fn rotate(&mut self, slot: u32) {
        if let Some((side, _)) = self.residents.find(slot) {
            self.residents.relocate(slot, side, End::Mru);
        }
    }

    /// A resident became worthless: it goes to the coldest place of all and is the next victim of an eviction without
    /// a bias. That may take it to the other list, as evictions draw on one of them at a time.
    pub fn chill(&mut self, slot: u32) {
        let side = self.losing_side(Admission::Unknown);
        self.residents.relocate(slot, side, End::Lru);
        self.trim();
    }

    /// Whether a resident was used since it came, or was known when it came.
    pub fn is_frequent(&self, slot: u32) -> bool {
        self.residents.find(slot).is_some_and(|(side, _)| side == Side::Frequent)
    }

    /// The bound on [`Policy::resident_weight`] that the caller keeps.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The weight of all residents.
    pub fn resident_weight(&self) -> u64 {
        self.residents.weight(Side::Recent) + self.residents.weight(Side::Frequent)
    }

    /// How many residents there are.
    pub fn len(&self) -> usize {
        self.residents.len(Side::Recent) + self.residents.len(Side::Frequent)
    }

    /// Whether nothing is resident.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many ghosts there are.
    pub fn ghosts(&self) -> usize {
        self.ghosts.len()
    }

    /// The weight that T1 should have: the paper's p.
    pub fn target(&self) -> f64 {
        self.target
    }

    /// The weights of the four lists.
    pub fn weights(&self) -> Weights {
        Weights {
            t1: self.residents.weight(Side::Recent),
            t2: self.residents.weight(Side::Frequent),
            b1: self.ghosts.weight(Side::Recent),
            b2: self.ghosts.weight(Side::Frequent),
        }
    }

    /// Heap bytes that the residents' lists take.
    pub fn resident_bytes(&self) -> usize {
        self.residents.bytes()
    }

    /// Heap bytes that the ghosts take, with their index.
    pub fn ghost_bytes(&self) -> usize {
        self.ghosts.bytes()
    }

    /// The list that has to give something up: by the target, unless it is empty.
    fn losing_side(&self, admission: Admission) -> Side {
        let t1 = self.residents.weight(Side::Recent);
        let target = (self.target as u64).min(self.capacity);
        let tie_goes_to_t2 = admission == Admission::Frequent;
        let t1_loses = t1 > target || (tie_goes_to_t2 && t1 == target);
        let side = if t1_loses { Side::Recent } else { Side::Frequent };
        if self.residents.lru(side).is_some() { side } else { opposite(side) }
    }

    /// Forgets ghosts until all bounds hold.
    fn trim(&mut self) {
        while let Some(side) = self.surplus() {
            self.ghosts.drop_oldest(side);
        }
        self.ghosts.compact();
    }

    /// The ghost list that has to forget its oldest, if a bound is broken.
    fn surplus(&self) -> Option<Side> {
        let Weights { t1, t2, b1, b2 } = self.weights();
        let (recent, frequent) = (self.ghosts.count(Side::Recent), self.ghosts.count(Side::Frequent));
        if recent > 0 && t1 + b1 > self.capacity {
            return Some(Side::Recent);
        }
        if recent + frequent > 0 && t1 + t2 + b1 + b2 > self.capacity.saturating_mul(2) {
            return Some(if frequent > 0 { Side::Frequent } else { Side::Recent });
        }
        let most = GHOSTS_ALWAYS + GHOSTS_PER_RESIDENT * self.len();
        let longer = if recent > frequent { Side::Recent } else { Side::Frequent };
        (recent + frequent > most).then_some(longer)
    }
}

/// How far a ghost's hit moves the target: at least by its own weight, by more the lighter its list is beside the
/// other. Never NaN: an empty list counts as one unit, and everything else is finite.
fn step(weight: u32, own: u64, other: u64) -> f64 {
    f64::from(weight) * (other as f64 / own.max(1) as f64).max(1.0)
}

fn opposite(side: Side) -> Side {
    match side {
        Side::Recent => Side::Frequent,
        Side::Frequent => Side::Recent,
    }
}
