//! The heads of a hash table's chains, in a number that grows one by one.
//!
//! Linear hashing (W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB '80): each new bucket
//! takes its part of one older bucket's chain, in turn. A table that doubles at once, or sweeps out its tombstones,
//! stops its shard for as long as that takes, and ghosts come and go for ever: with a million of them, tombstones made
//! a hashbrown table double, to 21 bytes a ghost. Here it is 4, and 4 more in the ghost.

use super::lists::{NIL, SEGMENT};

/// Chain heads by bucket; empty chains are `NIL`.
pub(super) struct Buckets {
    segments: Vec<Box<[u32; SEGMENT]>>,
    len: u32,
}

impl Buckets {
    pub(super) fn new() -> Self {
        Buckets { segments: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Adds a bucket, and empties the one that has been taking its part: that chain comes back, for its nodes to be put
    /// in again.
    pub(super) fn split(&mut self) -> u32 {
        if self.len() == self.segments.len() * SEGMENT {
            self.segments.push(Box::new([NIL; SEGMENT]));
        }
        let new = self.len;
        self.len += 1;
        // Hashes that end in the new bucket's number had one bit less compared so far.
        new.checked_ilog2().map_or(NIL, |top| self.swap(new & !(1 << top), NIL))
    }

    /// The head of a hash's chain.
    pub(super) fn head(&self, hash: u32) -> u32 {
        let bucket = self.bucket(hash) as usize;
        self.segments.get(bucket / SEGMENT).map_or(NIL, |segment| segment[bucket % SEGMENT])
    }

    /// Puts another node at the head of a hash's chain and gives back the one that was there.
    pub(super) fn replace_head(&mut self, hash: u32, head: u32) -> u32 {
        self.swap(self.bucket(hash), head)
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Box<[u32; SEGMENT]>>() + self.segments.len() * SEGMENT * 4
    }

    /// As many of the hash's low bits as name a bucket that is there already.
    fn bucket(&self, hash: u32) -> u32 {
        let mask = self.len.next_power_of_two() - 1;
        let bucket = hash & mask;
        if bucket < self.len { bucket } else { hash & (mask >> 1) }
    }

    fn swap(&mut self, bucket: u32, head: u32) -> u32 {
        let bucket = bucket as usize;
        std::mem::replace(&mut self.segments[bucket / SEGMENT][bucket % SEGMENT], head)
    }
}
