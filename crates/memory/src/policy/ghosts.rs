//! B1 and B2: what was evicted lately, by identity and weight alone.
//!
//! Nobody outside names a ghost, so the ghosts keep an index of their own, and the places in their array are theirs
//! to reuse: free places form a stack that is threaded through the array's payloads.

use std::iter;

use super::buckets::Buckets;
use super::lists::{End, Lists, NIL, SEGMENT, Side};

/// What a ghost's node carries. In halves, so that a node is aligned to four bytes: 24 bytes instead of 32.
#[derive(Clone, Copy, Default)]
struct Ghost {
    id_low: u32,
    id_high: u32,
    /// The next node of the same hash chain, or of the stack of free places.
    next: u32,
}

/// The ghost lists, and where each identity is in them.
pub(super) struct Ghosts {
    lists: Lists<Ghost>,
    /// As many chains as there were ghosts at most, so a chain has one on average.
    index: Buckets,
    /// The top of the stack of places that were used and are free again.
    free: u32,
    /// The first place that was never used.
    fresh: u32,
}

impl Ghosts {
    pub(super) fn new() -> Self {
        Ghosts { lists: Lists::new(), index: Buckets::new(), free: NIL, fresh: 0 }
    }

    /// Remembers an eviction as the most recent one of its side. An identity has one ghost: the newer replaces the
    /// older, which is there only when the caller evicts something that it never announced as a miss.
    pub(super) fn push(&mut self, id: u64, side: Side, weight: u32) {
        self.take(id);
        let at = self.place();
        self.lists.link(at, side, End::Mru, weight, Ghost::of(id));
        if self.index.len() < self.len() {
            self.split();
        }
        self.chain(at);
    }

    /// Forgets an identity and tells what was remembered of it.
    pub(super) fn take(&mut self, id: u64) -> Option<(Side, u32)> {
        let at = self.find(id)?;
        self.forget(at)
    }

    /// Forgets the oldest of a list.
    pub(super) fn drop_oldest(&mut self, side: Side) {
        if let Some(at) = self.lists.lru(side) {
            self.forget(at);
        }
    }

    /// Gives back the memory of a past peak, once three quarters of the places stand empty: a rebuild is then paid
    /// for by three removals for each ghost it moves.
    pub(super) fn compact(&mut self) {
        if self.lists.room() <= SEGMENT || self.len() * 4 >= self.lists.room() {
            return;
        }
        let mut dense = Ghosts::new();
        for side in [Side::Recent, Side::Frequent] {
            for (id, weight) in self.oldest_first(side) {
                dense.push(id, side, weight);
            }
        }
        *self = dense;
    }

    pub(super) fn oldest_first(&self, side: Side) -> impl Iterator<Item = (u64, u32)> {
        self.lists.coldest_first(side).map(|(at, weight)| (self.lists.payload(at).id(), weight))
    }

    pub(super) fn weight(&self, side: Side) -> u64 {
        self.lists.weight(side)
    }

    pub(super) fn count(&self, side: Side) -> usize {
        self.lists.len(side)
    }

    pub(super) fn len(&self) -> usize {
        self.count(Side::Recent) + self.count(Side::Frequent)
    }

    /// Heap bytes, with the index.
    pub(super) fn bytes(&self) -> usize {
        self.lists.bytes() + self.index.bytes()
    }

    fn find(&self, id: u64) -> Option<u32> {
        self.chain_of(id).find(|&at| self.lists.payload(at).id() == id)
    }

    /// All places whose identities share this one's chain.
    fn chain_of(&self, id: u64) -> impl Iterator<Item = u32> {
        self.chain_from(self.index.head(hash(id)))
    }

    fn chain_from(&self, mut at: u32) -> impl Iterator<Item = u32> {
        iter::from_fn(move || {
            let found = (at != NIL).then_some(at)?;
            at = self.lists.payload(found).next;
            Some(found)
        })
    }

    /// Puts a place at the head of its identity's chain.
    fn chain(&mut self, at: u32) {
        let next = self.index.replace_head(hash(self.lists.payload(at).id()), at);
        self.lists.payload_mut(at).next = next;
    }

    /// Takes a place out of its identity's chain.
    fn unchain(&mut self, at: u32) {
        let Ghost { next, .. } = self.lists.payload(at);
        let id = self.lists.payload(at).id();
        let before = self.chain_of(id).find(|&before| self.lists.payload(before).next == at);
        match before {
            Some(before) => self.lists.payload_mut(before).next = next,
            None => _ = self.index.replace_head(hash(id), next),
        }
    }

    /// Adds a chain, and distributes the one that it comes from.
    fn split(&mut self) {
        let mut at = self.index.split();
        while at != NIL {
            let Ghost { next, .. } = self.lists.payload(at);
            self.chain(at);
            at = next;
        }
    }

    fn forget(&mut self, at: u32) -> Option<(Side, u32)> {
        self.unchain(at);
        self.lists.payload_mut(at).next = self.free;
        self.free = at;
        self.lists.unlink(at)
    }

    fn place(&mut self) -> u32 {
        if self.free == NIL {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let at = self.free;
        self.free = self.lists.payload(at).next;
        at
    }
}

impl Ghost {
    fn of(id: u64) -> Self {
        Ghost { id_low: id as u32, id_high: (id >> 32) as u32, next: NIL }
    }

    fn id(&self) -> u64 {
        u64::from(self.id_high) << 32 | u64::from(self.id_low)
    }
}

#[cfg(test)]
impl Ghosts {
    /// Every ghost can be found, and every place is a ghost's, or free, or was never used.
    pub(super) fn audit(&self) {
        self.lists.audit();
        for (at, _) in self.lists.coldest_first(Side::Recent).chain(self.lists.coldest_first(Side::Frequent))
        {
            assert_eq!(self.find(self.lists.payload(at).id()), Some(at));
        }
        let all_chains =
            (0..self.index.len() as u32).flat_map(|bucket| self.chain_from(self.index.head(bucket)));
        assert_eq!(all_chains.count(), self.len());
        let (mut free, mut top) = (0, self.free);
        while top != NIL {
            assert_eq!(self.lists.find(top), None);
            free += 1;
            top = self.lists.payload(top).next;
        }
        assert_eq!(free + self.len(), self.fresh as usize);
    }
}

/// Identities are hashes already, but those of one shard may share the bits that chose the shard. The upper half of a
/// product depends on all of the lower bits, and on the lower end of the upper ones.
fn hash(id: u64) -> u32 {
    (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}
