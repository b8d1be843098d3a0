//! What reclaiming may not let go of.
//!
//! That a name is held is a bit of its entry in the index, which costs nothing more however much is held. Here is only what does not fit
//! there: holds beyond the first, and those of names whose entry has not arrived yet, or is lost.
//!
//! # Invariants
//! - A name that is held n times is here n - 1 times if its bit is set, else n times.
//! - Whatever the index leads to under a name that is held has the bit, but for what is about to go all the same.
//! - The lock is taken before those of the index, never after.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::index::entry::{Entry, Kind, Name, Place};
use crate::index::{Index, Refused};

/// Holds that are no bit in the index.
#[derive(Default)]
pub(crate) struct Pins {
    more: Mutex<HashMap<Name, u32>>,
}

impl Pins {
    /// Holds a name once more, whether or not there is something under it yet.
    pub(crate) fn hold(&self, index: &Index, name: &Name) {
        let mut more = self.more.lock();
        if !index.pin(name) {
            *more.entry(*name).or_default() += 1;
        }
    }

    /// Holds what is under a name once more, if there is something that may be held.
    pub(crate) fn hold_if(&self, index: &Index, name: &Name, may: impl Fn(&Entry) -> bool) -> bool {
        let mut more = self.more.lock();
        match index.get(name).filter(may) {
            Some(entry) if entry.pinned => *more.entry(*name).or_default() += 1,
            Some(_) => return index.pin(name),
            None => return false,
        }
        true
    }

    /// Holds it once less; false when nobody holds it.
    pub(crate) fn release(&self, index: &Index, name: &Name) -> bool {
        let mut more = self.more.lock();
        take_one(&mut more, name) || index.unpin(name)
    }

    /// Holds it once less, if what is under the name stays pinned as it is.
    pub(crate) fn release_spare(&self, name: &Name) -> bool {
        take_one(&mut self.more.lock(), name)
    }

    /// As [`Index::put`]: what somebody holds is pinned from then on.
    pub(crate) fn put(&self, index: &Index, name: &Name, entry: &Entry) -> Result<Option<Entry>, Refused> {
        let mut more = self.more.lock();
        let before = index.put(name, entry)?;
        if more.contains_key(name) && index.pin(name) {
            take_one(&mut more, name);
        }
        Ok(before)
    }

    /// As [`Index::bury`]: whoever holds it holds nothing then.
    pub(crate) fn bury(&self, index: &Index, name: &Name, place: &Place) -> Option<Entry> {
        let mut more = self.more.lock();
        let before = index.bury(name, place)?;
        // Of what only uploads have, nobody has a hold.
        if before.pinned && !before.kind.is_staged() {
            *more.entry(*name).or_default() += 1;
        }
        Some(before)
    }

    /// What is at this place goes, though it is held.
    pub(crate) fn lose(&self, index: &Index, name: &Name, place: &Place) {
        let mut more = self.more.lock();
        let Some(entry) = index.get(name).filter(|entry| entry.place == *place && entry.pinned) else {
            return;
        };
        if index.unpin(name) && !entry.kind.is_staged() {
            *more.entry(*name).or_default() += 1;
        }
    }

    /// How many holds are no bit in the index.
    #[cfg(test)]
    pub(crate) fn more(&self) -> u64 {
        self.more.lock().values().map(|count| u64::from(*count)).sum()
    }

    #[cfg(test)]
    fn elsewhere(&self, name: &Name) -> u32 {
        self.more.lock().get(name).copied().unwrap_or(0)
    }
}

/// Takes one of a name's holds away, if there is one.
fn take_one(more: &mut HashMap<Name, u32>, name: &Name) -> bool {
    let Some(count) = more.get_mut(name) else { return false };
    *count -= 1;
    if *count == 0 {
        more.remove(name);
    }
    true
}

/// A name that is held until this is dropped.
pub(crate) struct Pin {
    disk: Arc<Disk>,
    name: Name,
    /// Somebody else lets go of it.
    is_left: bool,
}

impl Pin {
    pub(crate) fn new(disk: &Arc<Disk>, name: &Name) -> Self {
        disk.pins.hold(&disk.index, name);
        Self { disk: Arc::clone(disk), name: *name, is_left: false }
    }

    /// Whether what is held is there: the directory may be out of service by now, or may have lost it.
    pub(crate) fn is_there(&self) -> bool {
        let entry = self.disk.index.get(&self.name);
        !self.disk.gate.is_shut() && entry.is_some_and(|entry| entry.kind != Kind::Dead)
    }

    /// Where it is held.
    pub(crate) fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Leaves it held: somebody else lets go of it, by its name.
    pub(crate) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if !self.is_left {
            self.disk.pins.release(&self.disk.index, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use elcache_core::budget::Budget;
    use proptest::prelude::*;

    use super::*;
    use crate::index::entry::InFile;

    const NAMES: u8 = 4;

    /// Pins as a map of counts, beside the index and what is to be in it.
    struct Pair {
        pins: Pins,
        index: Index,
        counts: BTreeMap<u8, u32>,
        entries: BTreeMap<u8, Entry>,
        next: u32,
    }

    impl Pair {
        fn new() -> Self {
            let index = Index::new(1, &Budget::new(1 << 30)).unwrap();
            let (counts, entries) = (BTreeMap::new(), BTreeMap::new());
            Self { pins: Pins::default(), index, counts, entries, next: 0 }
        }

        fn count(&self, n: u8) -> u32 {
            self.counts.get(&n).copied().unwrap_or(0)
        }

        /// Writes something under a name, or, by a copy, what is there.
        fn put(&mut self, n: u8, is_copy: bool) {
            if is_copy && self.entries.get(&n).is_none_or(|entry| entry.kind == Kind::Dead) {
                return;
            }
            self.next += 1;
            let file = InFile::Bulk { offset: 4096, head_len: 4096, payload_len: 4096 * (1 + self.next % 5) };
            let place = Place { segment: self.next / 4, file };
            let entry = Entry { kind: Kind::Chunk, place, expires_s: 0, used: false, pinned: false, heat: 0 };
            self.pins.put(&self.index, &[n; 16], &entry).unwrap();
            self.entries.insert(n, entry);
        }

        fn release(&mut self, n: u8) {
            if let Some(count) = self.counts.get_mut(&n).filter(|count| **count > 0) {
                *count -= 1;
                assert!(self.pins.release(&self.index, &[n; 16]));
            }
        }

        /// Holds what is there.
        fn hold_if(&mut self, n: u8, may: bool) {
            let is_there = self.entries.get(&n).is_some_and(|entry| entry.kind == Kind::Chunk);
            let held = self.pins.hold_if(&self.index, &[n; 16], |entry| may && entry.kind == Kind::Chunk);
            assert_eq!(held, may && is_there);
            *self.counts.entry(n).or_default() += u32::from(held);
        }

        /// Gives up a hold that is no bit.
        fn release_spare(&mut self, n: u8) {
            let bit = self.index.get(&[n; 16]).is_some_and(|entry| entry.pinned);
            let released = self.pins.release_spare(&[n; 16]);
            assert_eq!(released, self.count(n) > u32::from(bit));
            if let Some(count) = self.counts.get_mut(&n) {
                *count -= u32::from(released);
            }
        }

        fn bury(&mut self, n: u8) {
            let Some(entry) = self.entries.get_mut(&n) else { return };
            assert!(self.pins.bury(&self.index, &[n; 16], &entry.place).is_some());
            entry.kind = Kind::Dead;
        }

        /// The oldest segments go, whoever holds what is in them.
        fn free(&mut self, floor: u32) {
            for (n, entry) in &self.entries {
                if entry.place.segment < floor {
                    self.pins.lose(&self.index, &[*n; 16], &entry.place);
                }
            }
            self.index.set_floor(floor);
            self.entries.retain(|_, entry| entry.place.segment >= floor);
        }

        fn check(&self) {
            let mut pinned = BTreeMap::<u32, u64>::new();
            for n in 0..NAMES {
                let found = self.index.get(&[n; 16]);
                let expected = self.entries.get(&n).copied().map(|entry| {
                    let pinned = self.count(n) > 0 && entry.kind != Kind::Dead;
                    Entry { pinned, ..entry }
                });
                assert_eq!(found, expected, "{n}");
                let bit = found.is_some_and(|entry| entry.pinned);
                assert_eq!(self.pins.elsewhere(&[n; 16]) + u32::from(bit), self.count(n), "{n}");
                if let Some(entry) = found.filter(|entry| entry.pinned) {
                    *pinned.entry(entry.place.segment).or_default() += entry.place.bytes();
                }
            }
            assert_eq!(self.index.total().pinned, pinned.values().sum::<u64>());
            for segment in 0..=self.next / 4 {
                let expected = pinned.get(&segment).copied().unwrap_or(0);
                assert_eq!(self.index.live(segment).pinned, expected, "segment {segment}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_held_is_pinned_as_long_as_it_is_held(
            steps in proptest::collection::vec((0_u8..10, 0..NAMES, 0_u32..3), 1..120),
        ) {
            let mut pair = Pair::new();
            for (step, n, back) in steps {
                match step {
                    8 => pair.hold_if(n, back > 0),
                    9 => pair.release_spare(n),
                    0 | 1 => {
                        *pair.counts.entry(n).or_default() += 1;
                        pair.pins.hold(&pair.index, &[n; 16]);
                    }
                    2 | 3 => pair.release(n),
                    4 => pair.put(n, false),
                    5 => pair.put(n, true),
                    6 => pair.bury(n),
                    _ => pair.free((pair.next / 4).saturating_sub(back)),
                }
                pair.check();
            }
        }
    }
}
