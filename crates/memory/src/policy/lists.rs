//! Two LRU lists threaded through one segmented array: T1 and T2 for residents, B1 and B2 for ghosts.
//!
//! A node is named by its position, so a link costs four bytes instead of a pointer's eight, and a node with no
//! payload costs twelve in all. Nodes live in segments that never move: growing by one segment never copies the
//! others, where a doubling `Vec` would need three times the memory for a moment, and stall for the copy.

use std::{array, iter};

use elcache_arena::prefetch;

/// No node: the neighbour of an end, and the ends of an empty list.
pub(super) const NIL: u32 = u32::MAX;
/// Nodes in a segment: 12 KiB of residents, 24 KiB of ghosts.
pub(super) const SEGMENT: usize = 1024;
/// The heaviest weight a node can remember.
pub(super) const MAX_WEIGHT: u32 = (1 << WEIGHT_BITS) - 1;
const WEIGHT_BITS: u32 = 30;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Seen once: T1 and B1.
    Recent = 1,
    /// Seen at least twice: T2 and B2.
    Frequent = 2,
}

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Mru,
    Lru,
}

#[derive(Clone, Copy)]
struct Node<P> {
    /// The neighbour towards the MRU end.
    prev: u32,
    /// The neighbour towards the LRU end.
    next: u32,
    /// The weight in the low bits, the list above them; 0 in the list's bits: in none.
    tag: u32,
    payload: P,
}

impl<P> Node<P> {
    fn side(&self) -> Option<Side> {
        match self.tag >> WEIGHT_BITS {
            1 => Some(Side::Recent),
            2 => Some(Side::Frequent),
            _ => None,
        }
    }

    fn weight(&self) -> u32 {
        self.tag & MAX_WEIGHT
    }
}

/// One list's ends and sums.
#[derive(Clone, Copy)]
struct List {
    mru: u32,
    lru: u32,
    len: u32,
    weight: u64,
}

impl List {
    const EMPTY: List = List { mru: NIL, lru: NIL, len: 0, weight: 0 };
}

/// Both lists and the nodes that are in them.
pub(super) struct Lists<P> {
    segments: Vec<Box<[Node<P>; SEGMENT]>>,
    recent: List,
    frequent: List,
}

impl<P: Copy + Default> Lists<P> {
    pub(super) fn new() -> Self {
        Lists { segments: Vec::new(), recent: List::EMPTY, frequent: List::EMPTY }
    }

    /// The list and the weight of a node, or `None` when it is in no list.
    pub(super) fn find(&self, at: u32) -> Option<(Side, u32)> {
        let (segment, offset) = split(at);
        let node = &self.segments.get(segment)?[offset];
        Some((node.side()?, node.weight()))
    }

    /// Puts a node that is in no list at an end of one.
    pub(super) fn link(&mut self, at: u32, side: Side, end: End, weight: u32, payload: P) {
        debug_assert!(weight <= MAX_WEIGHT);
        self.grow_to(at);
        debug_assert!(self.node(at).side().is_none(), "a node is in one list at most");
        let tag = (side as u32) << WEIGHT_BITS | weight;
        let list = self.list(side);
        let (prev, next) = match end {
            End::Mru => (NIL, list.mru),
            End::Lru => (list.lru, NIL),
        };
        *self.node_mut(at) = Node { prev, next, tag, payload };
        self.join(side, prev, at);
        self.join(side, at, next);
        let list = self.list_mut(side);
        list.len += 1;
        list.weight += u64::from(weight);
    }

    /// Takes a node out of its list and tells which that was, and its weight.
    pub(super) fn unlink(&mut self, at: u32) -> Option<(Side, u32)> {
        let (side, weight) = self.find(at)?;
        let Node { prev, next, .. } = *self.node(at);
        self.node_mut(at).tag = 0;
        self.join(side, prev, next);
        let list = self.list_mut(side);
        list.len -= 1;
        list.weight -= u64::from(weight);
        Some((side, weight))
    }

    /// Moves a node to an end of a list; nothing happens to a node that is in none.
    pub(super) fn relocate(&mut self, at: u32, side: Side, end: End) {
        let list = self.list(side);
        if at == if end == End::Mru { list.mru } else { list.lru } {
            return;
        }
        let Some((_, weight)) = self.unlink(at) else { return };
        let payload = self.node(at).payload;
        self.link(at, side, end, weight, payload);
    }

    /// Has nodes and their neighbours in the processor's caches soon. Changes nothing.
    pub(super) fn touch(&self, nodes: &[u32]) {
        let node = |at: u32| {
            let (segment, offset) = split(at);
            self.segments.get(segment).map(|nodes| &nodes[offset])
        };
        let nodes = || nodes.iter().filter_map(|&at| node(at));
        nodes().for_each(prefetch);
        nodes().flat_map(|at| [at.prev, at.next]).filter_map(node).for_each(prefetch);
    }

    /// Changes a node's weight where it stands; false when it is in no list.
    pub(super) fn reweigh(&mut self, at: u32, weight: u32) -> bool {
        debug_assert!(weight <= MAX_WEIGHT);
        let Some((side, old)) = self.find(at) else { return false };
        self.node_mut(at).tag = (side as u32) << WEIGHT_BITS | weight;
        let list = self.list_mut(side);
        list.weight = list.weight - u64::from(old) + u64::from(weight);
        true
    }

    /// The least recently used node of a list.
    pub(super) fn lru(&self, side: Side) -> Option<u32> {
        Some(self.list(side).lru).filter(|&at| at != NIL)
    }

    /// A list's nodes and their weights, from its LRU end.
    pub(super) fn coldest_first(&self, side: Side) -> impl Iterator<Item = (u32, u32)> {
        let mut at = self.list(side).lru;
        iter::from_fn(move || {
            let node = (at != NIL).then(|| self.node(at))?;
            let found = (at, node.weight());
            at = node.prev;
            Some(found)
        })
    }

    pub(super) fn payload(&self, at: u32) -> P {
        self.node(at).payload
    }

    /// What a node carries, in a list or not.
    pub(super) fn payload_mut(&mut self, at: u32) -> &mut P {
        &mut self.node_mut(at).payload
    }

    pub(super) fn weight(&self, side: Side) -> u64 {
        self.list(side).weight
    }

    pub(super) fn len(&self, side: Side) -> usize {
        self.list(side).len as usize
    }

    /// How many nodes there is room for without another segment.
    pub(super) fn room(&self) -> usize {
        self.segments.len() * SEGMENT
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Box<[Node<P>; SEGMENT]>>() + self.room() * size_of::<Node<P>>()
    }

    /// Makes two nodes neighbours, or one of them the end of the list where the other is `NIL`.
    fn join(&mut self, side: Side, warm: u32, cold: u32) {
        match warm {
            NIL => self.list_mut(side).mru = cold,
            _ => self.node_mut(warm).next = cold,
        }
        match cold {
            NIL => self.list_mut(side).lru = warm,
            _ => self.node_mut(cold).prev = warm,
        }
    }

    fn grow_to(&mut self, at: u32) {
        while self.room() <= at as usize {
            let free = Node { prev: NIL, next: NIL, tag: 0, payload: P::default() };
            self.segments.push(Box::new(array::from_fn(|_| free)));
        }
    }

    fn node(&self, at: u32) -> &Node<P> {
        let (segment, offset) = split(at);
        &self.segments[segment][offset]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<P> {
        let (segment, offset) = split(at);
        &mut self.segments[segment][offset]
    }

    fn list(&self, side: Side) -> &List {
        match side {
            Side::Recent => &self.recent,
            Side::Frequent => &self.frequent,
        }
    }

    fn list_mut(&mut self, side: Side) -> &mut List {
        match side {
            Side::Recent => &mut self.recent,
            Side::Frequent => &mut self.frequent,
        }
    }
}

#[cfg(test)]
impl<P: Copy + Default> Lists<P> {
    /// Walks everything: links agree in both directions, sums with their lists, and no node is outside of them.
    pub(super) fn audit(&self) {
        for side in [Side::Recent, Side::Frequent] {
            let (mut warm, mut len, mut weight) = (NIL, 0, 0);
            let mut at = self.list(side).mru;
            while at != NIL {
                assert_eq!((self.node(at).prev, self.node(at).side()), (warm, Some(side)));
                len += 1;
                weight += u64::from(self.node(at).weight());
                (warm, at) = (at, self.node(at).next);
            }
            assert_eq!((warm, len, weight), (self.list(side).lru, self.len(side), self.weight(side)));
        }
        let linked = self.segments.iter().flat_map(|segment| segment.iter()).filter_map(Node::side).count();
        assert_eq!(linked, self.len(Side::Recent) + self.len(Side::Frequent));
    }
}

fn split(at: u32) -> (usize, usize) {
    (at as usize / SEGMENT, at as usize % SEGMENT)
}
