//! One stripe of the index: a chained hash table that grows and shrinks one bucket at a time.
//!
//! Linear hashing (W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB '80): a new bucket
//! takes its part of one older bucket's chain, and gives it back when it goes. About one entry for each bucket:
//! 36 bytes in the node, 4 in the bucket.
//!
//! # Invariants
//! - Nodes `0..len` are in use and no others: a removed node's place is taken by the last one.
//! - Every node in use is in the chain of its name's bucket, once.

use elcache_core::budget::Taken;

use super::entry::{Name, Packed};
use super::slabs::Slabs;

/// Ends a chain.
const NIL: u32 = u32::MAX;
/// So many buckets more than entries there are before buckets are merged again.
const SLACK: usize = 128;

/// Names that [`Stripe::preload`] takes at once, at most.
pub(super) const PRELOAD: usize = 16;
/// Nodes of each chain that it reads: longer chains are rare.
const PRELOAD_DEPTH: usize = 3;

#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) name: Name,
    pub(super) packed: Packed,
    next: u32,
}

const BLANK: Node = Node { name: [0; 16], packed: Packed::BLANK, next: NIL };

/// From a name to 64 bits that nobody can foresee who does not know the seed: who chooses names, by trying out keys,
/// does not choose their buckets.
#[derive(Clone, Copy)]
pub(super) struct Mixer([u64; 2]);

impl Mixer {
    pub(super) fn new(seed: u64) -> Self {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        let half =
            |number: u64| fold(seed ^ number.wrapping_mul(ODD), seed.rotate_left(32) ^ 0xD6E8_FEB8_6659_FD93);
        Self([half(1) ^ seed, half(2)])
    }

    pub(super) fn hash(&self, name: &Name) -> u64 {
        let name = u128::from_le_bytes(*name);
        fold(name as u64 ^ self.0[0], (name >> 64) as u64 ^ self.0[1])
    }
}

/// Both halves of a product, in one.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

pub(super) struct Stripe {
    mixer: Mixer,
    /// First nodes of the chains.
    heads: Slabs<u32>,
    /// How many of the heads are in use; 0 only before the first entry.
    buckets: usize,
    nodes: Slabs<Node>,
    len: usize,
    taken: Taken,
}

impl Stripe {
    /// An empty stripe, which takes its memory from the same budget as `taken`.
    pub(super) fn new(mixer: Mixer, taken: Taken) -> Self {
        let (heads, nodes) = (Slabs::new(NIL), Slabs::new(BLANK));
        Self { mixer, heads, buckets: 0, nodes, len: 0, taken }
    }

    /// How many nodes there are: they have the numbers from 0 on.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes taken from the budget.
    pub(super) fn bytes(&self) -> u64 {
        self.taken.bytes()
    }

    pub(super) fn node(&self, number: usize) -> &Node {
        self.nodes.get(number)
    }

    pub(super) fn packed_mut(&mut self, number: usize) -> &mut Packed {
        &mut self.nodes.get_mut(number).packed
    }

    /// The number of a name's node. It is good until a node is removed.
    pub(super) fn find(&self, hash: u64, name: &Name) -> Option<usize> {
        let mut at = if self.buckets == 0 { NIL } else { *self.heads.get(bucket_of(hash, self.buckets)) };
        while at != NIL {
            let node = self.nodes.get(at as usize);
            if node.name == *name {
                return Some(at as usize);
            }
            at = node.next;
        }
        None
    }

    /// Reads what adding these names will touch, all at once: cache misses that wait for one another otherwise.
    pub(super) fn preload(&self, hashes: impl ExactSizeIterator<Item = u64>) {
        let splits = self.buckets..self.buckets + hashes.len();
        // A parent's number is at most half of a split's, so there is a head for it, if not in use then empty.
        let touched = hashes.map(|hash| bucket_of(hash, self.buckets)).chain(splits.map(parent));
        let mut links = [NIL; 2 * PRELOAD];
        if self.buckets > 0 {
            links.iter_mut().zip(touched).for_each(|(link, bucket)| *link = *self.heads.get(bucket));
        }
        for _ in 0..PRELOAD_DEPTH {
            for link in links.iter_mut().filter(|link| **link != NIL) {
                *link = self.nodes.get(*link as usize).next;
            }
        }
        std::hint::black_box(links);
    }

    /// Makes sure that one more node has room; false when the budget has none.
    pub(super) fn reserve(&mut self) -> bool {
        if self.buckets == 0 {
            if self.heads.capacity() == 0 && !self.heads.grow(&mut self.taken) {
                return false;
            }
            self.buckets = 1;
        }
        self.len < self.nodes.capacity() || (self.len < NIL as usize && self.nodes.grow(&mut self.taken))
    }

    /// Adds a node for a name that has none, after [`Stripe::reserve`] said yes.
    pub(super) fn push(&mut self, hash: u64, name: Name, packed: Packed) {
        let number = self.len;
        *self.nodes.get_mut(number) = Node { name, packed, next: NIL };
        self.len += 1;
        self.link(bucket_of(hash, self.buckets), number as u32);
        // Two, so that what was refused for want of room is made up for.
        for _ in 0..2 {
            if self.buckets < self.len {
                self.split();
            }
        }
    }

    /// Takes a node out. The last node gets its number.
    pub(super) fn remove(&mut self, number: usize) {
        let last = self.len - 1;
        self.relink(number, self.nodes.get(number).next);
        if number != last {
            self.relink(last, number as u32);
            *self.nodes.get_mut(number) = *self.nodes.get(last);
        }
        self.len = last;
        self.nodes.shrink(self.len, &mut self.taken);
        if self.len + SLACK < self.buckets {
            self.merge();
        }
    }

    fn link(&mut self, bucket: usize, number: u32) {
        let head = std::mem::replace(self.heads.get_mut(bucket), number);
        self.nodes.get_mut(number as usize).next = head;
    }

    /// Lets what points at a node point at another one. It is in its chain: otherwise this would panic, on [`NIL`].
    fn relink(&mut self, number: usize, to: u32) {
        let bucket = bucket_of(self.mixer.hash(&self.nodes.get(number).name), self.buckets);
        let mut link = self.heads.get_mut(bucket);
        while *link as usize != number {
            let before = *link as usize;
            link = &mut self.nodes.get_mut(before).next;
        }
        *link = to;
    }

    /// Adds a bucket, unless the budget has no room: then chains get longer.
    fn split(&mut self) {
        if self.buckets == self.heads.capacity() && !self.heads.grow(&mut self.taken) {
            return;
        }
        *self.heads.get_mut(self.buckets) = NIL;
        self.buckets += 1;
        self.spread(parent(self.buckets - 1));
    }

    /// Gives up the last bucket.
    fn merge(&mut self) {
        self.buckets -= 1;
        self.spread(self.buckets);
        self.heads.shrink(self.buckets, &mut self.taken);
    }

    /// Puts the nodes of a chain into the buckets where they belong now.
    fn spread(&mut self, bucket: usize) {
        let mut at = std::mem::replace(self.heads.get_mut(bucket), NIL);
        while at != NIL {
            let node = self.nodes.get(at as usize);
            let (hash, next) = (self.mixer.hash(&node.name), node.next);
            self.link(bucket_of(hash, self.buckets), at);
            at = next;
        }
    }
}

#[cfg(test)]
impl Stripe {
    /// Panics unless every node is in the right chain, once, and the budget knows every byte.
    pub(super) fn check(&self) {
        let mut seen = 0;
        for bucket in 0..self.heads.capacity() {
            let mut at = *self.heads.get(bucket);
            while at != NIL {
                let node = self.nodes.get(at as usize);
                assert!((at as usize) < self.len && bucket < self.buckets);
                assert_eq!(bucket, bucket_of(self.mixer.hash(&node.name), self.buckets));
                (at, seen) = (node.next, seen + 1);
            }
        }
        assert_eq!(seen, self.len, "chains that share nodes, or nodes in no chain");
        assert_eq!(self.taken.bytes(), self.heads.heap_bytes() + self.nodes.heap_bytes());
    }

    /// Lengths of the chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = usize> {
        let next = |link: &u32| (*link != NIL).then(|| self.nodes.get(*link as usize).next);
        (0..self.buckets)
            .map(move |bucket| std::iter::successors(Some(*self.heads.get(bucket)), next).count() - 1)
    }
}

/// With a count between two powers of two, the buckets above the lower one stand for what they were split from only
/// once they exist. The count is at least 1.
fn bucket_of(hash: u64, buckets: usize) -> usize {
    let low = 1_usize << buckets.ilog2();
    let bucket = hash as usize & (2 * low - 1);
    if bucket < buckets { bucket } else { bucket - low }
}

/// The bucket that stands for this one while it does not exist. Not for bucket 0.
fn parent(bucket: usize) -> usize {
    bucket - (1 << bucket.ilog2())
}
