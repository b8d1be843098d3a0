//! What is live in each segment of the log: counted at every change, so that it is exact after the floor rises.

use std::collections::VecDeque;

use elcache_core::budget::Taken;

use super::entry::{Entry, InFile, Kind};

/// Segments for which room is made at once.
const STEP: usize = 64;

/// What the index leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Entries of every kind.
    pub(crate) entries: u64,
    /// Of these, what clients stored under a key.
    pub(crate) values: u64,
    /// Lengths of all their records.
    pub(crate) bytes: u64,
    /// Of these, what lies in the data file and is not dead.
    pub(crate) extents: u64,
    /// Of the bytes, what unfinished uploads count on.
    pub(crate) pinned: u64,
}

impl Live {
    fn of(entry: &Entry) -> Self {
        let bytes = entry.place.bytes();
        let is_extent = matches!(entry.place.file, InFile::Bulk { .. }) && entry.kind != Kind::Dead;
        let extents = if is_extent { bytes } else { 0 };
        let pinned = if entry.pinned { bytes } else { 0 };
        Self { entries: 1, values: u64::from(entry.kind.is_value()), bytes, extents, pinned }
    }

    fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.values += other.values;
        self.bytes += other.bytes;
        self.extents += other.extents;
        self.pinned += other.pinned;
    }

    fn subtract(&mut self, other: Self) {
        self.entries -= other.entries;
        self.values -= other.values;
        self.bytes -= other.bytes;
        self.extents -= other.extents;
        self.pinned -= other.pinned;
    }
}

struct Row {
    segment: u32,
    live: Live,
}

/// Rows in the order of their segments, none of them empty: segments may have any numbers, and still take no more
/// room than entries do.
pub(super) struct Census {
    floor: u32,
    total: Live,
    rows: VecDeque<Row>,
    taken: Taken,
}

impl Census {
    /// Nothing is live; room is taken from the same budget as `taken`.
    pub(super) fn new(taken: Taken) -> Self {
        Self { floor: 0, total: Live::default(), rows: VecDeque::new(), taken }
    }

    pub(super) fn total(&self) -> Live {
        self.total
    }

    /// Bytes taken from the budget.
    pub(super) fn bytes(&self) -> u64 {
        self.taken.bytes()
    }

    pub(super) fn live(&self, segment: u32) -> Live {
        self.row(segment).ok().and_then(|row| self.rows.get(row)).map_or_else(Live::default, |row| row.live)
    }

    /// Counts one entry in another's place; false, and nothing changes, when the budget has no room. What is below
    /// the floor does not count.
    pub(super) fn change(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> bool {
        if !after.is_none_or(|entry| self.add(entry.place.segment, Live::of(entry))) {
            return false;
        }
        if let Some(entry) = before {
            self.subtract(entry.place.segment, Live::of(entry));
        }
        true
    }

    /// Raises the floor and forgets what is below it. Gives back the floor: it never falls.
    pub(super) fn raise(&mut self, floor: u32) -> u32 {
        self.floor = self.floor.max(floor);
        while let Some(row) = self.rows.pop_front_if(|row| row.segment < floor) {
            self.total.subtract(row.live);
        }
        self.shrink();
        self.floor
    }

    fn add(&mut self, segment: u32, live: Live) -> bool {
        if segment < self.floor {
            return true;
        }
        let row = match self.row(segment) {
            Ok(row) => row,
            Err(row) if self.reserve() => {
                self.rows.insert(row, Row { segment, live: Live::default() });
                row
            }
            Err(_) => return false,
        };
        self.rows[row].live.add(live);
        self.total.add(live);
        true
    }

    fn subtract(&mut self, segment: u32, live: Live) {
        let Ok(at) = self.row(segment) else { return };
        let row = &mut self.rows[at].live;
        row.subtract(live);
        self.total.subtract(live);
        if row.entries == 0 {
            self.rows.remove(at);
            self.shrink();
        }
    }

    fn row(&self, segment: u32) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&segment, |row| row.segment)
    }

    fn reserve(&mut self) -> bool {
        if self.rows.len() < self.rows.capacity() {
            return true;
        }
        let room = self.taken.grow((STEP * size_of::<Row>()) as u64);
        if room {
            self.rows.reserve_exact(STEP);
        }
        room
    }

    fn shrink(&mut self) {
        let room = self.rows.capacity();
        if self.rows.len() + 2 * STEP <= room {
            self.rows.shrink_to(self.rows.len() + STEP);
            self.taken.shrink(((room - self.rows.capacity()) * size_of::<Row>()) as u64);
        }
    }

    /// Heap bytes, counted from what is there.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> u64 {
        (self.rows.capacity() * size_of::<Row>()) as u64
    }
}
