//! B1 and B2: what was evicted lately, by identity and weight alone.
//!
//! Nobody outside names a ghost, so the ghosts keep an index of their own, and the places in their array are theirs
//! to reuse: free places form a stack that is threaded through the array's payloads.

use hashbrown::HashTable;

use super::lists::{End, Lists, NIL, SEGMENT, Side};

/// An identity in halves, so that a node is aligned to four bytes: 20 bytes instead of 24.
type Halves = [u32; 2];

/// The ghost lists, and where each identity is in them.
pub(super) struct Ghosts {
    lists: Lists<Halves>,
    index: HashTable<u32>,
    /// The top of the stack of places that were used and are free again.
    free: u32,
    /// The first place that was never used.
    fresh: u32,
}

impl Ghosts {
    pub(super) fn new() -> Self {
        Ghosts { lists: Lists::new(), index: HashTable::new(), free: NIL, fresh: 0 }
    }

    /// Remembers an eviction as the most recent one of its side. An identity has one ghost: the newer replaces the
    /// older, which is there only when the caller evicts something that it never announced as a miss.
    pub(super) fn push(&mut self, id: u64, side: Side, weight: u32) {
        self.take(id);
        let at = self.place();
        self.lists.link(at, side, End::Mru, weight, halves(id));
        let lists = &self.lists;
        self.index.insert_unique(hash(id), at, |&other| hash(whole(lists.payload(other))));
    }

    /// Forgets an identity and tells what was remembered of it.
    pub(super) fn take(&mut self, id: u64) -> Option<(Side, u32)> {
        let lists = &self.lists;
        let found = self.index.find_entry(hash(id), |&at| whole(lists.payload(at)) == id).ok()?;
        let (at, _) = found.remove();
        self.release(at)
    }

    /// Forgets the oldest of a list.
    pub(super) fn drop_oldest(&mut self, side: Side) {
        let Some(at) = self.lists.lru(side) else { return };
        let id = whole(self.lists.payload(at));
        if let Ok(found) = self.index.find_entry(hash(id), |&other| other == at) {
            found.remove();
        }
        self.release(at);
    }

    /// Gives back the memory of a past peak, once three quarters of the places stand empty: a rebuild is then paid
    /// for by three removals for each ghost it moves.
    pub(super) fn compact(&mut self) {
        if self.lists.room() <= SEGMENT || self.len() * 4 >= self.lists.room() {
            return;
        }
        let mut dense = Ghosts::new();
        dense.index.reserve(self.len(), |_| 0);
        for side in [Side::Recent, Side::Frequent] {
            for (id, weight) in self.oldest_first(side) {
                dense.push(id, side, weight);
            }
        }
        *self = dense;
    }

    pub(super) fn oldest_first(&self, side: Side) -> impl Iterator<Item = (u64, u32)> {
        self.lists.coldest_first(side).map(|(at, weight)| (whole(self.lists.payload(at)), weight))
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
        self.lists.bytes() + self.index.allocation_size()
    }

    fn release(&mut self, at: u32) -> Option<(Side, u32)> {
        let was = self.lists.unlink(at);
        self.lists.set_payload(at, [self.free, 0]);
        self.free = at;
        was
    }

    fn place(&mut self) -> u32 {
        if self.free == NIL {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let at = self.free;
        [self.free, _] = self.lists.payload(at);
        at
    }
}

#[cfg(test)]
impl Ghosts {
    /// Every ghost can be found, and every place is a ghost's, or free, or was never used.
    pub(super) fn audit(&self) {
        self.lists.audit();
        assert_eq!(self.index.len(), self.len());
        for (id, _) in self.oldest_first(Side::Recent).chain(self.oldest_first(Side::Frequent)) {
            assert!(self.index.find(hash(id), |&at| whole(self.lists.payload(at)) == id).is_some());
        }
        let (mut free, mut top) = (0, self.free);
        while top != NIL {
            assert_eq!(self.lists.find(top), None);
            free += 1;
            [top, _] = self.lists.payload(top);
        }
        assert_eq!(free + self.len(), self.fresh as usize);
    }
}

/// Identities are hashes already, but those of one shard may share the bits that chose the shard. One multiplication
/// and a swap of halves put bits that depend on the whole lower half where the table looks first.
fn hash(id: u64) -> u64 {
    id.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
}

fn halves(id: u64) -> Halves {
    [id as u32, (id >> 32) as u32]
}

fn whole([low, high]: Halves) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
