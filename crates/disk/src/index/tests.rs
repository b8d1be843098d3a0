use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use proptest::prelude::*;

use super::entry::{InFile, Kind};
use super::sweep::{Cursor, Sweep};
use super::*;

fn name(number: u64) -> Name {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let low = mix(number.wrapping_add(0x9E37_79B9_7F4A_7C15));
    (u128::from(mix(low)) << 64 | u128::from(low)).to_le_bytes()
}

fn entry(kind: Kind, segment: u32, number: u32) -> Entry {
    let file = InFile::Small { offset: u64::from(number) * 8, len: 8 + number % 100 * 8 };
    Entry { kind, place: Place { segment, file }, expires_s: 0, used: false, pinned: false, heat: 0 }
}

fn roomy() -> Arc<Budget> {
    Budget::new(u64::MAX / 2)
}

impl Index {
    /// Panics unless every chain is whole and all counts and bytes are those of what is there.
    fn check(&self) {
        let census = self.census.lock();
        let mut counted: BTreeMap<u32, Live> = BTreeMap::new();
        let mut bytes = self.taken.bytes() + census.heap_bytes();
        for stripe in &self.stripes {
            let stripe = stripe.0.lock();
            stripe.check();
            bytes += stripe.bytes();
            for entry in (0..stripe.len()).map(|node| stripe.node(node).packed.unpack()) {
                if entry.place.segment >= self.floor.load(Ordering::Relaxed) {
                    let live = counted.entry(entry.place.segment).or_default();
                    live.entries += 1;
                    live.values += u64::from(matches!(entry.kind, Kind::Value | Kind::Root));
                    live.bytes += entry.place.bytes();
                    let counts = entry.kind != Kind::Dead && matches!(entry.place.file, InFile::Bulk { .. });
                    live.extents += if counts { entry.place.bytes() } else { 0 };
                    live.pinned += if entry.pinned { entry.place.bytes() } else { 0 };
                }
            }
        }
        assert!(counted.iter().all(|(segment, live)| census.live(*segment) == *live));
        let sum = |part: fn(&Live) -> u64| counted.values().map(part).sum::<u64>();
        let total = Live {
            entries: sum(|live| live.entries),
            values: sum(|live| live.values),
            bytes: sum(|live| live.bytes),
            extents: sum(|live| live.extents),
            pinned: sum(|live| live.pinned),
        };
        assert_eq!(census.total(), total);
        drop(census);
        assert_eq!(self.bytes(), bytes);
    }
}

/// What the index should hold, and the index.
struct Pair {
    index: Index,
    model: BTreeMap<Name, Entry>,
    cursor: Cursor,
    tight: bool,
}

const NOW_S: u32 = 1000;

impl Pair {
    fn new(stripe_bits: u32, tight: bool) -> Self {
        let budget = if tight { Budget::new(20_000) } else { roomy() };
        let index = Index::with_stripes(3, &budget, stripe_bits).unwrap();
        Self { index, model: BTreeMap::new(), cursor: Cursor::default(), tight }
    }

    fn floor(&self) -> u32 {
        self.index.floor.load(Ordering::Relaxed)
    }

    /// What a change that was not refused does to the model.
    fn set(&mut self, name: Name, entry: Entry) {
        self.model.insert(name, entry);
        let floor = self.floor();
        self.model.retain(|_, entry| entry.place.segment >= floor);
    }

    fn refused(&self, why: Refused) {
        assert_eq!(why, Refused::Full);
        assert!(self.tight, "a roomy budget refused");
    }

    fn write(&mut self, action: u8, name: Name, new: Entry) {
        let before = self.model.get(&name).copied();
        match action {
            0 => match self.index.put(&name, &new) {
                Ok(was) => (assert_eq!(was, before), self.set(name, new)).1,
                Err(why) => self.refused(why),
            },
            _ => match self.index.put_if_absent(&name, &new) {
                Ok(true) => (assert_eq!(before, None), self.set(name, new)).1,
                Ok(false) => assert!(before.is_some() || new.place.segment < self.floor()),
                Err(why) => self.refused(why),
            },
        }
    }

    fn forget(&mut self, name: Name, bury_first: bool) {
        let before = self.model.remove(&name);
        assert_eq!(self.index.bury(&name, &entry(Kind::Page, 99, 1).place), None);
        if let Some(before) = before.filter(|_| bury_first) {
            let dead = Entry { kind: Kind::Dead, pinned: false, ..before };
            assert_eq!(self.index.bury(&name, &before.place), Some(before));
            assert_eq!(self.index.remove(&name), Some(dead));
        } else {
            assert_eq!(self.index.remove(&name), before);
        }
    }

    fn read(&mut self, name: Name, by: u8) {
        assert!(!self.index.touch(&name, &entry(Kind::Page, 99, 1).place));
        let Some(there) = self.model.get_mut(&name) else { return };
        assert!(self.index.touch(&name, &there.place));
        there.used = true;
        there.heat = (there.heat + by % 8).min(HOT);
        assert_eq!(self.index.warm(&name, &there.place, by % 8), there.heat == HOT);
    }

    fn sweep(&mut self, nodes: usize) {
        let sweep = Sweep { nodes, now_s: NOW_S, drop_tombstones: nodes == usize::MAX };
        if sweep.drop_tombstones {
            self.cursor = Cursor::default();
            self.model.retain(|_, entry| entry.kind != Kind::Tombstone);
        }
        let swept = self.index.sweep(&mut self.cursor, &sweep, |name, entry| {
            assert!(entry.is_expired(NOW_S));
            let dead = Entry { kind: Kind::Dead, pinned: false, ..entry };
            assert_eq!(self.model.insert(name, dead), Some(entry));
        });
        assert!(swept.nodes <= nodes);
        if nodes == usize::MAX {
            assert!(swept.round_ended && self.model.values().all(|entry| !entry.is_expired(NOW_S)));
            let left: usize = self.index.stripes.iter().map(|stripe| stripe.0.lock().len()).sum();
            assert_eq!(left, self.model.len(), "a round frees all that is stale");
        }
    }

    fn step(&mut self, action: u8, number: u16, random: u32) {
        let name = name(number.into());
        match action {
            0..=11 => {
                let kind = [Kind::Value, Kind::Root, Kind::Page, Kind::Chunk, Kind::Tombstone];
                let segment = self.floor().saturating_sub(1) + random % 8;
                let expires_s = [0, NOW_S, NOW_S + 1, 1][random as usize / 8 % 4];
                let entry = entry(kind[random as usize / 32 % 5], segment, random % 1000);
                self.write(action % 3, name, Entry { expires_s, ..entry });
            }
            12..=15 => self.forget(name, random.is_multiple_of(2)),
            16..=17 => self.read(name, random as u8),
            18 => self.sweep(random as usize % 100),
            _ if random.is_multiple_of(16) => self.sweep(usize::MAX),
            _ if random.is_multiple_of(5) => {
                let floor = self.floor() + 1;
                self.index.set_floor(floor);
                self.index.set_floor(floor - 1);
                self.model.retain(|_, entry| entry.place.segment >= floor);
            }
            _ => {}
        }
        assert_eq!(self.index.get(&name), self.model.get(&name).copied());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn it_holds_what_a_map_holds(
        stripe_bits in 0_u32..3,
        tight: bool,
        steps in proptest::collection::vec((0_u8..20, 0_u16..700, any::<u32>()), 1..4000),
    ) {
        let mut pair = Pair::new(stripe_bits, tight);
        for (action, number, random) in steps {
            pair.step(action, number, random);
        }
        pair.index.check();
        for number in 0..700 {
            prop_assert_eq!(pair.index.get(&name(number)), pair.model.get(&name(number)).copied());
        }
        prop_assert_eq!(pair.index.total().entries, pair.model.len() as u64);
    }
}

#[test]
fn a_batch_does_what_putting_one_by_one_does() {
    let (one_by_one, batches) = (Index::new(1, &roomy()).unwrap(), Index::new(2, &roomy()).unwrap());
    one_by_one.set_floor(10);
    batches.set_floor(10);
    // Each name comes up to three times, with a segment of its own each time; some are below the floor.
    let item =
        |number: u32| (name((number % 9000).into()), entry(Kind::Value, 40 - number / 700, number % 777));
    for from in [0, 100, 1000, 9000, 20_000] {
        let batch: Vec<_> = (from..from + 7000).map(item).collect();
        let new = batch.iter().filter(|item| one_by_one.put_if_absent(&item.0, &item.1).unwrap()).count();
        assert_eq!(batches.put_batch_if_absent(&batch), Ok(new));
    }
    batches.check();
    assert_eq!(batches.total(), one_by_one.total());
    (0..9000).for_each(|number| assert_eq!(batches.get(&name(number)), one_by_one.get(&name(number))));
}

#[test]
fn a_full_budget_refuses_new_names_and_lets_old_ones_change() {
    let budget = Budget::new(2_000_000);
    let index = Index::new(1, &budget).unwrap();
    let put = |number| index.put(&name(number), &entry(Kind::Value, 1, 1));
    let first_refused = (0..).find(|&number| put(number).is_err()).unwrap();
    assert_eq!(put(first_refused), Err(Refused::Full));
    assert_eq!(index.get(&name(first_refused)), None);
    assert_eq!(index.total().entries, first_refused);
    assert!(put(0).unwrap().is_some());
    let batch: Vec<_> =
        (0..2 * first_refused).map(|number| (name(number), entry(Kind::Value, 1, 1))).collect();
    assert_eq!(index.put_batch_if_absent(&batch), Err(Refused::Full));
    index.check();
    assert_eq!(budget.taken_bytes(), index.bytes());
    assert!(index.is_tight(), "the spare memory is in use");
    (0..first_refused).for_each(|number| _ = index.remove(&name(number)));
    index.relax();
    assert!(!index.is_tight() && budget.taken_bytes() == index.bytes() + index.spare_bytes);
    drop(index);
    assert_eq!(budget.taken_bytes(), 0);
    assert!(Index::new(1, &Budget::new(100)).is_err());
}

#[test]
fn an_entry_that_cannot_be_packed_is_refused() {
    let index = Index::new(1, &roomy()).unwrap();
    let file = InFile::Small { offset: 1, len: 8 };
    let odd = Entry { place: Place { segment: 1, file }, ..entry(Kind::Value, 1, 1) };
    assert_eq!(index.put(&name(1), &odd), Err(Refused::OutOfRange));
    assert_eq!(index.get(&name(1)), None);
}

/// Segments are numbers from a disk. One that is far off must not cost more than one that is near.
#[test]
fn generations_far_apart_take_no_room_between_them() {
    let index = Index::new(1, &roomy()).unwrap();
    let empty = index.bytes();
    for segment in [u32::MAX, 0, 1 << 31] {
        index.put(&name(segment.into()), &entry(Kind::Chunk, segment, 1)).unwrap();
    }
    assert!(index.bytes() < empty + 64 * 1024);
    index.set_floor(u32::MAX);
    assert_eq!(index.total(), Live { entries: 1, values: 0, bytes: 16, extents: 0, pinned: 0 });
    assert_eq!(index.live(0), Live::default());
}

#[test]
fn it_costs_about_forty_bytes_an_entry_in_small_steps_up_and_down() {
    let budget = roomy();
    let index = Index::new(1, &budget).unwrap();
    let (mut before, mut largest_step) = (index.bytes(), 0);
    let mut look = |entries: u64| {
        let bytes = budget.taken_bytes() - index.spare_bytes;
        assert!(entries < 100_000 || bytes <= entries * 48, "{bytes} bytes for {entries}");
        largest_step = largest_step.max(bytes.abs_diff(before));
        before = bytes;
    };
    for number in 0..300_000 {
        index.put(&name(number), &entry(Kind::Chunk, (number / 100) as u32, 1)).unwrap();
        look(number + 1);
    }
    assert!(index.bytes() < 300_000 * 42, "{} bytes an entry", index.bytes() / 300_000);
    for number in 0..300_000 {
        index.remove(&name(number)).unwrap();
        look(300_000 - 1 - number);
    }
    assert!(largest_step <= 16 * 1024, "{largest_step} bytes at once");
    assert!(index.bytes() < 2 << 20, "{} bytes for nothing", index.bytes());
    index.check();
}

/// Who tries out keys until their names end in the same bits makes no long chain with them.
#[test]
fn names_that_look_alike_are_spread() {
    let alike: [fn(u64) -> u128; 4] = [
        |number| u128::from(number),
        |number| u128::from(number) << 64,
        |number| u128::from(number) << 100,
        |number| u128::from(number) << 64 | u128::from(number),
    ];
    for alike in alike {
        let index = Index::new(0x0123_4567_89AB_CDEF, &roomy()).unwrap();
        for number in 0..100_000 {
            index.put(&alike(number).to_le_bytes(), &entry(Kind::Page, 1, 1)).unwrap();
        }
        let longest = index.stripes.iter().filter_map(|stripe| stripe.0.lock().chains().max()).max();
        assert!(longest <= Some(14), "a chain of {longest:?}");
    }
}

/// A sweep in small steps beside a thread that adds and removes. Tombstones that were there from the start are all
/// gone after one round, wherever removals have moved them meanwhile.
#[test]
fn a_round_misses_nothing_while_others_add_and_remove() {
    let index = Index::new(1, &roomy()).unwrap();
    for number in 0..40_000 {
        let kind = if number % 4 == 0 { Kind::Tombstone } else { Kind::Value };
        index.put(&name(number), &entry(kind, 1, 1)).unwrap();
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..40_000).filter(|number| number % 4 != 0) {
                index.remove(&name(number));
                index.put(&name(number + 1_000_000), &entry(Kind::Value, 2, 1)).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let (mut cursor, sweep) = (Cursor::default(), Sweep { nodes: 7, now_s: 0, drop_tombstones: true });
        while !index.sweep(&mut cursor, &sweep, |_, _| {}).round_ended {}
        stop.store(true, Ordering::Relaxed);
    });
    assert!((0..10_000).all(|number| index.get(&name(number * 4)).is_none()));
    index.check();
}

/// Two threads, each with names of its own, which it alone changes, so that it knows what is there; the same stripes,
/// and a floor that rises below what they write.
#[test]
fn two_threads_hammer_and_both_find_what_they_wrote() {
    let index = Index::with_stripes(1, &roomy(), 1).unwrap();
    let rounds = [AtomicU32::new(0), AtomicU32::new(0)];
    let hammer = |thread: u64| {
        let name = |number: u64| name(number * 2 + thread);
        for round in 0..30_u32 {
            let new = |number: u64| entry(Kind::Value, round, number as u32);
            for number in 0..1000 {
                let was = index.put(&name(number), &new(number)).unwrap();
                assert!(was.is_none_or(|was| was.place.segment + 1 == round));
            }
            for number in 0..1000 {
                assert_eq!(index.get(&name(number)), Some(new(number)));
                assert!(index.touch(&name(number), &new(number).place));
                if number % 3 == 0 {
                    assert_eq!(index.remove(&name(number)), Some(Entry { used: true, ..new(number) }));
                }
            }
            rounds[thread as usize].store(round, Ordering::Relaxed);
            index.set_floor(rounds.iter().map(|round| round.load(Ordering::Relaxed)).min().unwrap());
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| hammer(0));
        let sweep = Sweep { nodes: 50, now_s: u32::MAX, drop_tombstones: false };
        let mut cursor = Cursor::default();
        scope.spawn(|| hammer(1));
        (0..2000).for_each(|_| _ = index.sweep(&mut cursor, &sweep, |_, _| unreachable!("none expires")));
    });
    index.check();
    assert_eq!(index.total().values, 2 * (1000 - 334));
}

fn ns(what: &str, times: u64, mut step: impl FnMut(u64)) {
    let start = Instant::now();
    (0..times).for_each(&mut step);
    println!("{what:24} {:5} ns", start.elapsed().as_nanos() as u64 / times);
}

#[test]
fn soak_ten_million_entries() {
    const MANY: u64 = 10_000_000;
    let index = Index::new(7, &roomy()).unwrap();
    let shuffled = |step: u64| step.wrapping_mul(7_368_787) % MANY;
    ns("put_if_absent", MANY, |step| {
        let entry = entry(Kind::Value, 1000 - (step / 10_000) as u32, step as u32 % 10_000);
        assert_eq!(index.put_if_absent(&name(step), &entry), Ok(true));
    });
    println!("{:.2} bytes an entry", index.bytes() as f64 / MANY as f64);
    drop(index);
    let index = Index::new(8, &roomy()).unwrap();
    let mut batch = Vec::new();
    ns("put_batch_if_absent", MANY, |step| {
        let entry = entry(Kind::Value, 1000 - (step / 10_000) as u32, step as u32 % 10_000);
        batch.push((name(step), entry));
        if batch.len() == 10_000 {
            assert_eq!(index.put_batch_if_absent(&batch), Ok(10_000));
            batch.clear();
        }
    });
    ns("names alone", MANY, |step| _ = black_box(name(shuffled(step))));
    ns("get, there", MANY, |step| assert!(index.get(&name(shuffled(step))).is_some()));
    ns("get, not there", MANY, |step| assert!(index.get(&name(MANY + step)).is_none()));
    ns("put again", MANY, |step| {
        let entry = entry(Kind::Value, 2000 + (step / 10_000) as u32, step as u32 % 10_000);
        assert!(index.put(&name(shuffled(step)), &entry).unwrap().is_some());
    });
    ns("remove and put", MANY / 10, |step| {
        assert!(index.remove(&name(shuffled(step))).is_some());
        index.put(&name(step + MANY), &entry(Kind::Value, 5000, 1)).unwrap();
    });
    let sweep = Sweep { nodes: usize::MAX, now_s: 1, drop_tombstones: false };
    ns("sweep, nothing", MANY, |step| {
        if step == 0 {
            assert!(index.sweep(&mut Cursor::default(), &sweep, |_, _| {}).round_ended);
        }
    });
    index.set_floor(2500);
    ns("sweep, half stale", MANY, |step| {
        if step == 0 {
            assert!(index.sweep(&mut Cursor::default(), &sweep, |_, _| {}).round_ended);
        }
    });
    println!("{:.2} bytes an entry", index.bytes() as f64 / index.total().entries as f64);
}
