//! The look-up table of a shard: from the hash of a name to the numbers of the records that may bear it.
//!
//! Readers take no lock. One writer at a time (the shard's lock sees to that) changes buckets of one cache line: six
//! entries, six tags of 16 bits, and the number of a spill bucket. An entry is a record's number and a hint of where the
//! record lies, so that the record is on its way to the processor while its cell still is: they are waited for once and
//! not one after the other. The table grows by linear hashing (W. Litwin, VLDB 1980): one
//! bucket is split at a time, so that it never stops to copy itself and is never twice as large as it need be.
//!
//! # Why a reader is never wrong
//! - A number found may be stale; the caller looks at the record itself. Where that fails, the reader looks at
//!   the slot again, and a slot that has changed is tried again: a replacement is one store to one slot, so there is no
//!   moment at which a replaced name is nowhere.
//! - Entries move only when a bucket is split. That happens between two increments of `version`, and a reader that
//!   finds nothing while the version changed looks again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use elcache_arena::Hint;

const SLOTS: usize = 6;
/// Entries for each bucket, on average, from which on the table grows. At four of six, one bucket in ten spills.
const FILL: usize = 4;
/// Buckets in a segment: 4 KiB.
const SEGMENT: usize = 64;
const EMPTY: u64 = 0;
const NO_SPILL: u32 = 0;

/// What the table keeps of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) hint: Hint,
}

impl Entry {
    /// A slot's word, never [`EMPTY`]: the number plus one in its low half, the hint above it.
    fn to_bits(self) -> u64 {
        u64::from(self.hint) << 32 | u64::from(self.number + 1)
    }

    /// Only for bits that [`Entry::to_bits`] gave.
    fn from_bits(bits: u64) -> Self {
        Self { number: bits as u32 - 1, hint: (bits >> 32) as Hint }
    }
}

#[repr(align(64))]
struct Bucket {
    /// An [`Entry`] each, or [`EMPTY`].
    entries: [AtomicU64; SLOTS],
    /// Index plus one of the bucket that continues this one; [`NO_SPILL`] where none does.
    spill: AtomicU32,
    tags: [AtomicU16; SLOTS],
}

impl Bucket {
    const fn new() -> Self {
        Self {
            entries: [const { AtomicU64::new(EMPTY) }; SLOTS],
            spill: AtomicU32::new(NO_SPILL),
            tags: [const { AtomicU16::new(0) }; SLOTS],
        }
    }

    fn free_slot(&self) -> Option<usize> {
        self.entries.iter().position(|entry| entry.load(Ordering::Relaxed) == EMPTY)
    }

    fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.load(Ordering::Relaxed) == EMPTY)
    }

    fn fill(&self, slot: usize, tag: u16, entry: u64) {
        self.tags[slot].store(tag, Ordering::Relaxed);
        // Release: whoever sees the number sees its tag, and the record behind it.
        self.entries[slot].store(entry, Ordering::Release);
    }
}

/// Buckets that are allocated in segments and stay where they are.
struct Buckets {
    segments: Box<[OnceLock<Box<[Bucket; SEGMENT]>>]>,
    allocated: AtomicU64,
}

impl Buckets {
    fn new(most: usize) -> Self {
        Self {
            segments: (0..most.div_ceil(SEGMENT)).map(|_| OnceLock::new()).collect(),
            allocated: AtomicU64::new(0),
        }
    }

    fn get(&self, index: usize) -> &Bucket {
        let segment = self.segments[index / SEGMENT].get_or_init(|| {
            self.allocated.fetch_add(size_of::<[Bucket; SEGMENT]>() as u64, Ordering::Relaxed);
            Box::new([const { Bucket::new() }; SEGMENT])
        });
        &segment[index % SEGMENT]
    }

    fn capacity(&self) -> usize {
        self.segments.len() * SEGMENT
    }
}

/// The table. Methods that change it need a [`Writer`], of which the shard keeps the only one behind its lock.
pub(crate) struct Table {
    primary: Buckets,
    spill: Buckets,
    /// Primary buckets in use, at least 1.
    count: AtomicU64,
    /// Odd while entries move.
    version: AtomicU64,
}

/// What only the writer knows.
#[derive(Default)]
pub(crate) struct Writer {
    entries: usize,
    spills: u32,
    vacant_spills: Vec<u32>,
}

impl Writer {
    /// How many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }
}

impl Table {
    /// An empty table for at most `most` entries. It has room for them however badly they are spread: every chain has
    /// at most one spill bucket that is not full.
    pub(crate) fn new(most: u32) -> Self {
        let buckets = most as usize / FILL + 1;
        Self {
            primary: Buckets::new(buckets),
            spill: Buckets::new(buckets + most as usize / SLOTS + 1),
            count: AtomicU64::new(1),
            version: AtomicU64::new(0),
        }
    }

    /// Tries the records that may bear the name with this hash, the first that `probe` accepts is the answer.
    pub(crate) fn find<R>(&self, hash: u64, mut probe: impl FnMut(Entry) -> Option<R>) -> Option<R> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            if let Some(found) = self.scan(hash, &mut probe) {
                return Some(found);
            }
            fence(Ordering::Acquire);
            if version & 1 == 0 && self.version.load(Ordering::Relaxed) == version {
                return None;
            }
            // The writer moves six entries and is done, unless it lost its core.
            std::thread::yield_now();
        }
    }

    fn scan<R>(&self, hash: u64, probe: &mut impl FnMut(Entry) -> Option<R>) -> Option<R> {
        let tag = tag(hash);
        for bucket in self.chain(hash) {
            for (slot, seen) in bucket.tags.iter().enumerate() {
                if seen.load(Ordering::Relaxed) != tag {
                    continue;
                }
                // Acquire pairs with the release of whoever stored the number: the record is seen as written.
                let mut entry = bucket.entries[slot].load(Ordering::Acquire);
                while entry != EMPTY {
                    if let Some(found) = probe(Entry::from_bits(entry)) {
                        return Some(found);
                    }
                    let now = bucket.entries[slot].load(Ordering::Acquire);
                    if now == entry {
                        break;
                    }
                    entry = now;
                }
            }
        }
        None
    }

    /// Adds an entry; false when the table has no room for it. `hash_of` tells the hash of an entry that is there
    /// already: growing moves entries by it.
    pub(crate) fn insert(
        &self,
        writer: &mut Writer,
        hash: u64,
        entry: Entry,
        hash_of: impl Fn(u32) -> Option<u64>,
    ) -> bool {
        let count = self.count.load(Ordering::Relaxed) as usize;
        if !self.place(writer, bucket_of(hash, count), tag(hash), entry.to_bits()) {
            return false;
        }
        writer.entries += 1;
        if writer.entries > count * FILL && count < self.primary.capacity() {
            self.split(writer, count, hash_of);
        }
        true
    }

    /// Puts another number in an entry's place; readers see the one or the other. False when there is no such entry.
    pub(crate) fn replace(&self, _: &mut Writer, hash: u64, old: u32, new: Entry) -> bool {
        let slot = self.slot(hash, old);
        slot.inspect(|entry| entry.store(new.to_bits(), Ordering::Release)).is_some()
    }

    /// Takes an entry out; false when there is no such entry.
    pub(crate) fn remove(&self, writer: &mut Writer, hash: u64, number: u32) -> bool {
        let Some(entry) = self.slot(hash, number) else { return false };
        entry.store(EMPTY, Ordering::Release);
        writer.entries -= 1;
        true
    }

    /// Heap bytes in buckets.
    pub(crate) fn bytes(&self) -> u64 {
        self.primary.allocated.load(Ordering::Relaxed) + self.spill.allocated.load(Ordering::Relaxed)
    }

    fn slot(&self, hash: u64, number: u32) -> Option<&AtomicU64> {
        self.chain(hash).flat_map(|bucket| &bucket.entries).find(|slot| match slot.load(Ordering::Relaxed) {
            EMPTY => false,
            entry => Entry::from_bits(entry).number == number,
        })
    }

    fn chain(&self, hash: u64) -> impl Iterator<Item = &Bucket> {
        let index = bucket_of(hash, self.count.load(Ordering::Acquire) as usize);
        self.chain_of(index)
    }

    fn chain_of(&self, index: usize) -> impl Iterator<Item = &Bucket> {
        std::iter::successors(Some(self.primary.get(index)), |bucket| self.next(bucket))
    }

    fn next(&self, bucket: &Bucket) -> Option<&Bucket> {
        match bucket.spill.load(Ordering::Acquire) {
            NO_SPILL => None,
            spill => Some(self.spill.get(spill as usize - 1)),
        }
    }

    /// Stores an entry in the first free slot of a chain, or in a new spill bucket behind it.
    fn place(&self, writer: &mut Writer, index: usize, tag: u16, entry: u64) -> bool {
        let mut last = None;
        for bucket in self.chain_of(index) {
            if let Some(slot) = bucket.free_slot() {
                bucket.fill(slot, tag, entry);
                return true;
            }
            last = Some(bucket);
        }
        let (Some(last), Some(spill)) = (last, self.take_spill(writer)) else { return false };
        self.spill.get(spill as usize).fill(0, tag, entry);
        last.spill.store(spill + 1, Ordering::Release);
        true
    }

    fn take_spill(&self, writer: &mut Writer) -> Option<u32> {
        writer.vacant_spills.pop().or_else(|| {
            let fresh = ((writer.spills as usize) < self.spill.capacity()).then_some(writer.spills)?;
            writer.spills += 1;
            Some(fresh)
        })
    }

    /// Adds primary bucket `count`, which takes its part of the entries of the bucket that has stood for it.
    ///
    /// At every moment an entry is in the chain that a reader of that moment looks at, or in both: it is copied before the
    /// new bucket counts, and taken out afterwards.
    fn split(&self, writer: &mut Writer, count: usize, hash_of: impl Fn(u32) -> Option<u64>) {
        let from = count - (1 << count.ilog2());
        self.version.fetch_add(1, Ordering::AcqRel);
        let mut moved = Vec::with_capacity(2 * SLOTS);
        for (bucket, slot) in
            self.chain_of(from).flat_map(|bucket| (0..SLOTS).map(move |slot| (bucket, slot)))
        {
            let entry = bucket.entries[slot].load(Ordering::Relaxed);
            let Some(hash) = (entry != EMPTY).then(|| hash_of(Entry::from_bits(entry).number)).flatten()
            else {
                continue;
            };
            if bucket_of(hash, count + 1) == count && self.place(writer, count, tag(hash), entry) {
                moved.push(&bucket.entries[slot]);
            }
        }
        self.count.store(count as u64 + 1, Ordering::Release);
        moved.iter().for_each(|entry| entry.store(EMPTY, Ordering::Release));
        self.shorten(writer, from);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Moves the entries of spill buckets forward and gives up the spill buckets that this empties.
    fn shorten(&self, writer: &mut Writer, index: usize) {
        let mut first = self.primary.get(index);
        while let Some(spill) = self.next(first) {
            for slot in 0..SLOTS {
                let entry = spill.entries[slot].load(Ordering::Relaxed);
                if let Some(free) = first.free_slot().filter(|_| entry != EMPTY) {
                    first.fill(free, spill.tags[slot].load(Ordering::Relaxed), entry);
                    spill.entries[slot].store(EMPTY, Ordering::Release);
                }
            }
            if spill.is_empty() {
                writer.vacant_spills.push(first.spill.load(Ordering::Relaxed) - 1);
                first.spill.store(spill.spill.load(Ordering::Relaxed), Ordering::Release);
                spill.spill.store(NO_SPILL, Ordering::Release);
            } else {
                first = spill;
            }
        }
    }
}

/// Linear hashing: with a count between two powers of two, the buckets above the lower one stand for what they were
/// split from only once they exist.
fn bucket_of(hash: u64, count: usize) -> usize {
    let low = 1_usize << count.ilog2();
    let index = hash as usize & (2 * low - 1);
    if index < count { index } else { index - low }
}

/// Sixteen bits that the choice of a bucket does not use.
fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    /// Spreads a number over 64 bits, as a real hash would.
    fn hash(number: u32) -> u64 {
        u64::from(number).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
            ^ u64::from(number)
    }

    fn entry(number: u32) -> Entry {
        Entry { number, hint: !number }
    }

    fn find(table: &Table, wanted: u32, as_hash: u64) -> Option<u32> {
        table.find(as_hash, |found| (found == entry(wanted)).then_some(wanted))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn it_holds_what_a_map_holds(steps in proptest::collection::vec((0_u32..400, 0_u8..3), 1..3000), spread in any::<bool>()) {
            // Without spread, many names share their bucket and their tag: chains of spill buckets.
            let hash = |number| if spread { hash(number) } else { u64::from(number % 3) };
            let (table, mut writer) = (Table::new(4000), Writer::default());
            let mut model: HashMap<u32, u32> = HashMap::new();
            let mut owners: HashMap<u32, u32> = HashMap::new();
            let mut fresh = 1000;
            for (name, action) in steps {
                match (action, model.get(&name).copied()) {
                    (0, Some(number)) => {
                        prop_assert!(table.remove(&mut writer, hash(name), number));
                        model.remove(&name);
                    }
                    (1, Some(number)) => {
                        fresh += 1;
                        owners.insert(fresh, name);
                        prop_assert!(table.replace(&mut writer, hash(name), number, entry(fresh)));
                        model.insert(name, fresh);
                    }
                    (_, None) => {
                        fresh += 1;
                        owners.insert(fresh, name);
                        prop_assert!(table.insert(&mut writer, hash(name), entry(fresh), |n| owners.get(&n).map(|&name| hash(name))));
                        model.insert(name, fresh);
                    }
                    _ => {}
                }
                prop_assert_eq!(writer.entries, model.len());
            }
            for name in 0..400 {
                let found = table.find(hash(name), |found| (owners.get(&found.number) == Some(&name)).then_some(found.number));
                prop_assert_eq!(found, model.get(&name).copied());
            }
        }
    }

    #[test]
    fn it_costs_some_eighteen_bytes_an_entry_and_grows_in_small_steps() {
        let (table, mut writer) = (Table::new(1 << 20), Writer::default());
        let mut largest_step = 0;
        for number in 0..300_000 {
            let before = table.bytes();
            assert!(table.insert(&mut writer, hash(number), entry(number), |n| Some(hash(n))));
            largest_step = largest_step.max(table.bytes() - before);
        }
        assert!(table.bytes() < 300_000 * 18, "{} bytes an entry", table.bytes() / 300_000);
        assert!(largest_step <= 2 * 4096);
        assert!((0..300_000).all(|number| find(&table, number, hash(number)).is_some()));
        assert_eq!(find(&table, 300_001, hash(300_001)), None);
    }

    /// Names that are there throughout are found throughout, while others come and go, numbers are replaced, and the
    /// table grows a thousandfold.
    #[test]
    fn a_reader_beside_the_writer_finds_everything_that_stays() {
        let table = Table::new(1 << 20);
        let mut writer = Writer::default();
        // Number n and number n + OTHER are two versions of the same name.
        const OTHER: u32 = 1 << 24;
        let name = |number: u32| number & (OTHER - 1);
        let insert = |writer: &mut Writer, number| {
            table.insert(writer, hash(name(number)), entry(number), |n| Some(hash(name(n))))
        };
        (0..50).for_each(|number| assert!(insert(&mut writer, number)));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for wanted in 0..50 {
                        let found =
                            table.find(hash(wanted), |found| (name(found.number) == wanted).then_some(()));
                        assert!(found.is_some(), "name {wanted} was nowhere for a moment");
                    }
                }
            });
            for round in 0..100_000 {
                let number = 50 + round;
                assert!(insert(&mut writer, number));
                let stays = round % 50;
                let (old, new) =
                    if round / 50 % 2 == 0 { (stays, stays + OTHER) } else { (stays + OTHER, stays) };
                assert!(table.replace(&mut writer, hash(stays), old, entry(new)));
                if round % 3 == 0 {
                    assert!(table.remove(&mut writer, hash(number), number));
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
