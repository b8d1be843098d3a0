//! Little room: the oldest goes, never more than that, and nothing comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::tier::{Lookup, Refusal, Tier};
use tokio::task::JoinSet;

use super::support::{Dice, Shape, Value, World, is_gone, key};
use crate::config::{DiskConfig, Durability};
use crate::io::Device;
use crate::io::sim::{Call, Faults, Sim};
use crate::tier::DiskTier;

const MAX_BYTES: u64 = 8 << 20;
const SEGMENT: u64 = 1 << 20;
/// What does not lie in segments.
const IDENTITY: u64 = 8192;

fn little(change: impl FnOnce(&mut DiskConfig)) -> World {
    World::with(|config| {
        config.max_bytes = MAX_BYTES;
        // What is read is not written again: the order in which values go is that in which they were written.
        config.write_amplification_max = 1.0;
        change(config);
    })
}

/// Bytes of all files.
fn occupied(sim: &Sim, world: &World) -> u64 {
    let space = sim.space(&world.path).unwrap();
    space.total - space.available
}

fn shape(dice: &mut Dice) -> Shape {
    match dice.below(6) {
        0..3 => Shape::Borrowed(dice.below(20_000) as usize),
        3 => Shape::Chunks(2, 1 + dice.below(50_000) as usize),
        _ => Shape::Filled(1 + dice.below(200_000) as usize),
    }
}

/// What was last written under a key, and when: in bytes written until then.
struct Last {
    value: Option<Value>,
    at: (u64, u64),
}

struct History {
    world: World,
    last: BTreeMap<u64, Last>,
    /// Bytes written in lives that are over.
    before: u64,
    sequence: u64,
}

impl History {
    async fn step(&mut self, tier: &DiskTier, dice: &mut Dice) {
        let number = dice.below(150);
        let key = key(&format!("key {number}"));
        let began = self.before + tier.report().written_bytes;
        let value = if dice.below(5) == 0 {
            tier.remove(&key).get().await.unwrap();
            None
        } else {
            self.sequence += 1;
            let value = Value::new(&key, self.sequence, shape(dice));
            assert_eq!(value.put(tier, &self.world.arena).await, Ok(()));
            Some(value)
        };
        let at = (began, self.before + tier.report().written_bytes);
        self.last.insert(number, Last { value, at });
    }

    /// Each key has what was last written or nothing; what is gone is older than what is there.
    async fn check(&self, tier: &DiskTier) {
        let mut lost = Vec::new();
        let mut kept = Vec::new();
        for (number, last) in &self.last {
            let name = key(&format!("key {number}"));
            let Some(value) = &last.value else {
                assert!(is_gone(tier, &name).await, "{name:?} is back");
                continue;
            };
            match tier.root(&name).get().await {
                Lookup::Hit(root) => {
                    let whole = value.check(tier, root).await.unwrap();
                    // A chunk that it shares may be older.
                    if whole {
                        kept.push(last.at);
                    }
                }
                Lookup::Miss => lost.push(last.at),
                Lookup::Busy => panic!("busy"),
            }
        }
        let now = self.before + tier.report().written_bytes;
        for (began, ended) in &lost {
            let older = kept.iter().find(|(_, kept)| kept + 2 * SEGMENT < *began);
            assert!(older.is_none(), "what was written at {began} went before {older:?}");
            assert!(now - ended > MAX_BYTES / 2, "what was written at {ended} of {now} is gone");
        }
    }
}

async fn overflow(world: World, seed: u64, lives: u64) {
    let mut dice = Dice::new(seed);
    let mut sim = Arc::new(Sim::new(seed));
    let mut history = History { world: world.clone(), last: BTreeMap::new(), before: 0, sequence: 0 };
    for life in 0..lives {
        let tier = world.open(&sim).await;
        history.check(&tier).await;
        for _ in 0..150 {
            history.step(&tier, &mut dice).await;
            let occupied = occupied(&sim, &world);
            assert!(occupied <= MAX_BYTES + IDENTITY, "{occupied} bytes, seed {seed}");
        }
        history.check(&tier).await;
        assert!(tier.usage().size_bytes <= MAX_BYTES);
        assert_eq!((tier.report().io_errors, tier.report().damaged), (0, 0));
        if life % 3 == 0 {
            tier.close().await;
        }
        let next = match dice.below(2) {
            0 if world.config.durability == Durability::Power => sim.power_cut(dice.next()),
            _ => sim.kill(dice.next()),
        };
        history.before += tier.report().written_bytes;
        drop(tier);
        sim = Arc::new(next);
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_goes_and_the_files_never_exceed_what_they_may() {
    overflow(little(|_| ()), 1, 8).await;
    overflow(little(|config| config.allocate = false), 2, 4).await;
    overflow(little(|config| config.durability = Durability::Power), 3, 8).await;
}

#[tokio::test(start_paused = true)]
async fn soak_overflow() {
    for seed in 10..40 {
        overflow(little(|_| ()), seed, 12).await;
        overflow(little(|config| config.durability = Durability::Power), seed, 12).await;
    }
}

/// Records of large extents are large too: many at once must not make a segment longer than it may be.
#[tokio::test(start_paused = true)]
async fn many_large_heads_at_once_stay_within_the_segment() {
    let world = little(|_| ());
    let sim = Arc::new(Sim::new(5));
    sim.set_faults(Faults { latency: Some(Duration::from_millis(2)), ..Faults::default() });
    let tier = world.open(&sim).await;
    let mut writers = JoinSet::new();
    for n in 0..150 {
        let (tier, arena) = (Arc::clone(&tier), Arc::clone(&world.arena));
        let value = Value::new(&key(&format!("key {n}")), n + 1, Shape::Filled(33_000)).with_headers(61_000);
        writers.spawn(async move { value.put(&tier, &arena).await });
    }
    while !writers.is_empty() {
        let occupied = occupied(&sim, &world);
        assert!(occupied <= MAX_BYTES + IDENTITY, "{occupied} bytes");
        if let Ok(Some(put)) = tokio::time::timeout(Duration::from_micros(100), writers.join_next()).await {
            assert_eq!(put.unwrap(), Ok(()));
        }
    }
    for entry in sim.list(&world.path.join("segments")).unwrap() {
        assert!(entry.len <= SEGMENT);
    }
}

/// Once, the keeper freed the newest segments, which recovery had found first, and left the older ones.
#[tokio::test(start_paused = true)]
async fn a_directory_that_is_too_large_loses_its_oldest() {
    let world = World::new();
    let sim = Arc::new(Sim::new(6));
    let tier = world.open(&sim).await;
    let mut values = Vec::new();
    for n in 0..200 {
        let value = Value::new(&key(&format!("key {n}")), n + 1, Shape::Filled(100_000));
        value.put(&tier, &world.arena).await.unwrap();
        values.push(value);
    }
    drop(tier);
    let mut sim = Arc::new(sim.kill(1));
    let world = little(|_| ());
    for round in 0..3 {
        sim.set_faults(Faults { latency: Some(Duration::from_millis(200)), ..Faults::default() });
        let tier = world.open(&sim).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut there = Vec::new();
        for value in &values {
            there.push(value.get(&tier).await.unwrap());
        }
        let kept = there.iter().filter(|there| **there).count();
        assert!((50..80).contains(&kept), "{kept}");
        assert!(there.is_sorted(), "the newest stay");
        drop(tier);
        sim = Arc::new(sim.kill(round));
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_removed_is_removed_before_what_is_newer() {
    let world = little(|_| ());
    let mut sim = Arc::new(Sim::new(7));
    let mut tier = world.open(&sim).await;
    let name = key("k");
    Value::new(&name, 1, Shape::Filled(700_000)).put(&tier, &world.arena).await.unwrap();
    Value::new(&key("between"), 2, Shape::Filled(700_000)).put(&tier, &world.arena).await.unwrap();
    tier.remove(&name).get().await.unwrap();
    for n in 0..40 {
        if n % 4 == 3 {
            sim.fail(Call::Remove, n / 4 % 2, 5);
        }
        let value = Value::new(&key(&format!("key {n}")), n + 3, Shape::Filled(700_000));
        // It may fail, with what cannot be removed.
        let _ = value.put(&tier, &world.arena).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(occupied(&sim, &world) <= MAX_BYTES + IDENTITY);
        assert!(is_gone(&tier, &name).await);
        if n % 3 == 0 {
            drop(tier);
            sim = Arc::new(sim.kill(n));
            tier = world.open(&sim).await;
            assert!(is_gone(&tier, &name).await, "{n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_pins_everything_waits_and_is_refused_in_the_end() {
    let world = little(|config| config.patience = Duration::from_secs(2));
    let sim = Arc::new(Sim::new(8));
    let tier = world.open(&sim).await;
    let mut staged = Vec::new();
    let mut dice = Dice::new(8);
    let refusal = loop {
        let bytes = dice.bytes(300_000);
        let mut hasher = elcache_core::tree::ChunkHasher::new(0);
        hasher.update(&bytes);
        let chunk = elcache_core::tier::ChunkRef {
            digest: hasher.chunk().unwrap(),
            number: 0,
            len: bytes.len() as u32,
        };
        match tier.stage(chunk, world.arena.filled(&bytes, 0)).get().await {
            Ok(chunk) => staged.push(chunk),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::Full);
    assert!(staged.len() > 15, "{}", staged.len());
    for held in &staged {
        assert!(tier.has_chunk(&held.chunk).get().await, "what is held is not freed");
    }
    drop(staged);
    Value::new(&key("k"), 1, Shape::Filled(200_000)).put(&tier, &world.arena).await.unwrap();
}

/// A budget that the index outgrows: in operation the oldest goes, and so it does in recovery.
#[tokio::test(start_paused = true)]
async fn where_the_memory_for_the_index_ends_the_oldest_goes() {
    let mut world = World::new();
    world.budget_bytes = 4 << 20;
    let mut sim = Arc::new(Sim::new(9));
    let mut newest = 0;
    for round in 0..4 {
        let tier = world.open(&sim).await;
        if round > 0 {
            assert!(!is_gone(&tier, &key(&format!("key {newest}"))).await, "round {round}");
        }
        assert!(is_gone(&tier, &key("deleted")).await);
        Value::new(&key("deleted"), 1, Shape::Borrowed(9)).put(&tier, &world.arena).await.unwrap();
        assert_eq!(tier.remove(&key("deleted")).get().await, Ok(true));
        let until = if round == 0 { 120_000 } else { newest + 20_000 };
        while newest < until {
            let mut puts = JoinSet::new();
            for _ in 0..100 {
                newest += 1;
                let value = Value::new(&key(&format!("key {newest}")), newest + 1, Shape::Borrowed(100));
                let (tier, arena) = (Arc::clone(&tier), Arc::clone(&world.arena));
                puts.spawn(async move { value.put(&tier, &arena).await });
            }
            while let Some(put) = puts.join_next().await {
                assert_eq!(put.unwrap(), Ok(()), "round {round}, {newest}");
            }
        }
        assert!(!is_gone(&tier, &key(&format!("key {newest}"))).await);
        assert!(tier.usage().entries > 12_000, "round {round}: {}", tier.usage().entries);
        drop(tier);
        sim = Arc::new(sim.kill(round));
        world.budget_bytes = [4 << 20, 3600 << 10, 3200 << 10, 16 << 20][round as usize];
    }
}
