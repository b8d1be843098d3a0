//! Going round all entries, a few at a time: frees what is below the floor and finds what has expired.
//!
//! It goes through a stripe's nodes from the last to the first. Whatever is removed meanwhile, by the sweep or by
//! others, only the last node changes its number, and it has been looked at: no entry that stays is missed in a round.

use super::Index;
use super::entry::{Entry, Kind, Name};
use super::stripe::Stripe;

/// Nodes that are looked at under one lock. Freeing one can cost several cache misses.
const RUN: usize = 64;

/// Where a sweep goes on.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    stripe: usize,
    /// Nodes from this number on are done; all are to do when there is none.
    done_from: Option<usize>,
}

/// What a sweep does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// How many nodes to look at, at most.
    pub(crate) nodes: usize,
    /// Seconds since 1970: values that expire then or earlier have expired.
    pub(crate) now_s: u32,
    /// Whether tombstones go: only recovery needs them.
    pub(crate) drop_tombstones: bool,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Nodes looked at.
    pub(crate) nodes: usize,
    /// Whether it came to the end of a round, where it stops.
    pub(crate) round_ended: bool,
}

impl Index {
    /// Looks at the next nodes. Each expired value becomes dead and is then told to `expired`, under no lock.
    pub(crate) fn sweep(
        &self,
        cursor: &mut Cursor,
        sweep: &Sweep,
        mut expired: impl FnMut(Name, Entry),
    ) -> Swept {
        let mut swept = Swept::default();
        while swept.nodes < sweep.nodes && !swept.round_ended {
            let run = Sweep { nodes: RUN.min(sweep.nodes - swept.nodes), ..*sweep };
            let mut found = Vec::new();
            swept.nodes += self.sweep_run(cursor, &run, &mut found);
            found.into_iter().for_each(|(name, entry)| expired(name, entry));
            if cursor.done_from == Some(0) {
                *cursor = Cursor { stripe: cursor.stripe + 1, done_from: None };
            }
            if cursor.stripe >= self.stripes.len() {
                *cursor = Cursor::default();
                swept.round_ended = true;
            }
        }
        swept
    }

    fn sweep_run(&self, cursor: &mut Cursor, sweep: &Sweep, expired: &mut Vec<(Name, Entry)>) -> usize {
        let Some(stripe) = self.stripes.get(cursor.stripe) else { return 0 };
        let mut stripe = stripe.0.lock();
        let end = cursor.done_from.map_or(stripe.len(), |done| done.min(stripe.len()));
        let start = end.saturating_sub(sweep.nodes);
        for node in (start..end).rev() {
            self.sweep_node(&mut stripe, node, sweep, expired);
        }
        cursor.done_from = Some(start);
        end - start
    }

    fn sweep_node(&self, stripe: &mut Stripe, node: usize, sweep: &Sweep, expired: &mut Vec<(Name, Entry)>) {
        let name = stripe.node(node).name;
        let entry = stripe.node(node).packed.unpack();
        let stale = self.is_stale(&entry);
        let over = !stale && entry.is_expired(sweep.now_s);
        if over {
            expired.push((name, entry));
            self.kill(stripe.packed_mut(node), &entry);
        }
        if stale || (sweep.drop_tombstones && entry.kind == Kind::Tombstone) {
            self.free(stripe, node, &entry);
        }
    }
}
