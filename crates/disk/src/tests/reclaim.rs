//! Reclaiming: what is in use stays, what is not goes, and no more is written for that than may be.

use std::sync::Arc;
use std::time::Duration;

use elcache_core::tier::{Above, Leaving, Refusal, Tier};

use super::support::{Dice, Shape, Value, World, is_gone, key};
use crate::config::DiskConfig;
use crate::io::Device;
use crate::io::sim::{Faults, Sim};
use crate::tier::DiskTier;

const MAX_BYTES: u64 = 16 << 20;

fn world(change: impl FnOnce(&mut DiskConfig)) -> World {
    World::with(|config| {
        config.max_bytes = MAX_BYTES;
        (config.high_watermark, config.low_watermark) = (0.75, 0.7);
        change(config);
    })
}

/// Values in all shapes under keys of this name.
async fn put_some(tier: &DiskTier, world: &World, name: &str, sequence: u64) -> Vec<Value> {
    let shapes = [
        Shape::Borrowed(10),
        Shape::Borrowed(20_000),
        Shape::Filled(60_000),
        Shape::Filled(130_000),
        Shape::Chunks(2, 70_000),
    ];
    let mut values = Vec::new();
    for (n, shape) in (0..).zip(shapes) {
        let value = Value::new(&key(&format!("{name} {n}")), sequence + n, shape);
        value.put(tier, &world.arena).await.unwrap();
        values.push(value);
    }
    values
}

/// Fills the disk as often as this.
async fn fill(tier: &DiskTier, world: &World, times: f64, sequence: &mut u64) {
    let end = tier.report().stored_bytes + (times * MAX_BYTES as f64) as u64;
    let mut dice = Dice::new(*sequence);
    while tier.report().stored_bytes < end {
        *sequence += 1;
        let shape = if sequence.is_multiple_of(3) {
            Shape::Filled(90_000)
        } else {
            Shape::Borrowed(dice.below(30_000) as usize)
        };
        let value = Value::new(&key(&format!("filler {sequence}")), *sequence, shape);
        assert_eq!(value.put(tier, &world.arena).await, Ok(()));
        // Reclaiming keeps up.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn there(tier: &DiskTier, values: &[Value]) -> usize {
    let mut count = 0;
    for value in values {
        count += usize::from(value.get(tier).await.unwrap());
    }
    count
}

#[tokio::test(start_paused = true)]
async fn what_is_read_stays_and_survives_a_restart_and_what_is_not_read_goes() {
    let world = world(|_| ());
    let sim = Arc::new(Sim::new(1));
    let tier = world.open(&sim).await;
    let read = put_some(&tier, &world, "read", 1000).await;
    let unread = put_some(&tier, &world, "unread", 2000).await;
    let mut sequence = 10_000;
    for round in 0..8 {
        assert_eq!(there(&tier, &read).await, read.len(), "round {round}");
        fill(&tier, &world, 0.5, &mut sequence).await;
    }
    for value in &unread {
        assert!(is_gone(&tier, &value.key).await, "{:?}", value.key);
    }
    assert_eq!(there(&tier, &read).await, read.len());
    let sim = Arc::new(sim.kill(1));
    drop(tier);
    let tier = world.open(&sim).await;
    assert_eq!(there(&tier, &read).await, read.len());
    assert_eq!((tier.report().io_errors, tier.report().damaged), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_is_written_again_than_may_be_though_everything_is_read() {
    for most in [1.0, 1.1, 1.3, 2.0] {
        let world = world(|config| config.write_amplification_max = most);
        let sim = Arc::new(Sim::new(2));
        let tier = world.open(&sim).await;
        let mut sequence = 1;
        let mut values: Vec<Value> = Vec::new();
        for _ in 0..600 {
            sequence += 1;
            let value = Value::new(&key(&format!("key {sequence}")), sequence, Shape::Filled(120_000));
            value.put(&tier, &world.arena).await.unwrap();
            assert!(value.get(&tier).await.unwrap());
            values.push(value);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let report = tier.report();
        let first = (600 * (120_000_u64.next_multiple_of(4096) + 4096)) as f64;
        let times = 1.0 + report.rewritten_bytes as f64 / first;
        assert!(times <= most + 0.01, "{times} instead of {most}");
        assert!(times >= 1.0 + (most - 1.0) * 0.6, "{times}: {most} are allowed");
    }
}

/// Once, a segment with a pinned chunk could not go, and neither could anything behind it.
#[tokio::test(start_paused = true)]
async fn an_upload_that_takes_its_time_keeps_its_chunks_and_nobody_waits_for_it() {
    let world = world(|_| ());
    let sim = Arc::new(Sim::new(3));
    let tier = world.open(&sim).await;
    let slow = Value::new(&key("slow"), 1, Shape::Chunks(12, 50_000));
    let staged = slow.stage(&tier, &world.arena).await.unwrap();
    let mut sequence = 10_000;
    fill(&tier, &world, 3.0, &mut sequence).await;
    slow.commit(&tier, staged).await.unwrap();
    assert!(slow.get(&tier).await.unwrap());
    assert_eq!(there(&tier, &[slow]).await, 1);
    fill(&tier, &world, 3.0, &mut sequence).await;
}

/// Fills the disk as often as this, whatever becomes of it.
async fn fill_anyhow(tier: &DiskTier, world: &World, times: f64, sequence: &mut u64) {
    for _ in 0..(times * MAX_BYTES as f64) as u64 / 90_000 {
        *sequence += 1;
        let value = Value::new(&key(&format!("filler {sequence}")), *sequence, Shape::Filled(90_000));
        let _ = value.put(tier, &world.arena).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once, a segment went when what an upload counts on could not be read just then, or its copy could not be written; only a full
/// disk kept it. And a segment whose log could not be written counted as a full one for ever: some of these took up all room.
#[tokio::test(start_paused = true)]
async fn an_upload_keeps_its_chunks_though_reads_or_writes_fail_now_and_then() {
    for (failing_reads, failing_writes) in [(0.0, 0.2), (0.02, 0.0)] {
        let world = world(|_| ());
        let sim = Arc::new(Sim::new(6));
        let tier = world.open(&sim).await;
        let slow = Value::new(&key("slow"), 1, Shape::Chunks(12, 50_000));
        let staged = slow.stage(&tier, &world.arena).await.unwrap();
        sim.set_faults(Faults { failing_reads, failing_writes, ..Faults::default() });
        let mut sequence = 10_000;
        fill_anyhow(&tier, &world, 4.0, &mut sequence).await;
        sim.set_faults(Faults::default());
        assert!(tier.report().io_errors > 2);
        assert_eq!(slow.commit(&tier, staged).await, Ok(()), "{failing_reads} {failing_writes}");
        assert_eq!(there(&tier, &[slow]).await, 1);
    }
}

/// What can never be read is given up in the end: nobody waits for it, and whoever counts on it is told.
#[tokio::test(start_paused = true)]
async fn chunks_that_cannot_be_read_at_all_go_and_are_not_missed_in_silence() {
    let world = world(|_| ());
    let sim = Arc::new(Sim::new(7));
    let tier = world.open(&sim).await;
    let slow = Value::new(&key("slow"), 1, Shape::Chunks(12, 50_000));
    let first = slow.stage(&tier, &world.arena).await.unwrap();
    let second = slow.stage(&tier, &world.arena).await.unwrap();
    sim.set_faults(Faults { failing_reads: 1.0, ..Faults::default() });
    let mut sequence = 10_000;
    fill(&tier, &world, 2.0, &mut sequence).await;
    sim.set_faults(Faults::default());
    assert!(tier.report().damaged > 0);
    assert_eq!(slow.commit(&tier, first).await, Err(Refusal::Failed));
    // Whoever held what is lost lets go of it, and nothing of what has come in its place.
    let again = slow.stage(&tier, &world.arena).await.unwrap();
    drop(second);
    fill(&tier, &world, 2.0, &mut sequence).await;
    assert_eq!(slow.commit(&tier, again).await, Ok(()));
    assert_eq!(there(&tier, &[slow]).await, 1);
}

struct Everything;

impl Above for Everything {
    fn holds(&self, leaving: Leaving<'_>) -> bool {
        match leaving {
            Leaving::Value(key) => key.starts_with(b"hot"),
            Leaving::Page(_) | Leaving::Chunk(_) => true,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_faster_tier_has_stays_for_the_next_start() {
    let world = world(|_| ());
    let sim = Arc::new(Sim::new(4));
    let tier = world.open(&sim).await;
    let above: Arc<dyn Above> = Arc::new(Everything);
    tier.set_above(&above);
    let hot = put_some(&tier, &world, "hot", 1000).await;
    let cold = put_some(&tier, &world, "cold", 2000).await;
    let mut sequence = 10_000;
    fill(&tier, &world, 3.0, &mut sequence).await;
    assert!(is_gone(&tier, &cold[0].key).await);
    let sim = Arc::new(sim.kill(1));
    drop(tier);
    let tier = world.open(&sim).await;
    assert_eq!(there(&tier, &hot).await, hot.len());
}

/// A deletion between the look at the index and the removal of the files would have left no tombstone.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_yet_can_be_deleted() {
    let world = world(|config| config.patience = Duration::from_millis(100));
    let sim = Arc::new(Sim::new(5));
    let tier = world.open(&sim).await;
    let old = put_some(&tier, &world, "old", 1000).await;
    let mut sequence = 10_000;
    for failing in 0..200 {
        sim.fail(crate::io::sim::Call::Remove, failing, 5);
    }
    let mut deleted = false;
    while !is_gone(&tier, &old[0].key).await && !deleted {
        sequence += 1;
        let value = Value::new(&key(&format!("filler {sequence}")), sequence, Shape::Filled(90_000));
        // There may be no room for it.
        let _ = value.put(&tier, &world.arena).await;
        if tier.report().io_errors > 0 {
            assert_eq!(tier.remove(&old[0].key).get().await, Ok(true));
            deleted = true;
        }
    }
    assert!(deleted, "no removal failed");
    let sim = Arc::new(sim.kill(1));
    drop(tier);
    assert!(is_gone(&*world.open(&sim).await, &old[0].key).await);
}

async fn put_filled(tier: &DiskTier, world: &World, name: &str, count: u64, sequence: u64) -> Vec<Value> {
    let mut values = Vec::new();
    for n in 0..count {
        let value = Value::new(&key(&format!("{name} {n}")), sequence + n, Shape::Filled(130_000));
        value.put(tier, &world.arena).await.unwrap();
        values.push(value);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    values
}

fn occupied(sim: &Sim, world: &World) -> u64 {
    sim.list(&world.path.join("segments")).unwrap().iter().map(|file| file.len).sum()
}

/// The oldest segment held values that nobody had deleted, and went; those behind it held nothing but what had been, and stayed.
#[tokio::test(start_paused = true)]
async fn what_is_deleted_or_replaced_goes_before_what_is_old() {
    for replaced in [false, true] {
        let world = world(|_| ());
        let sim = Arc::new(Sim::new(4));
        let tier = world.open(&sim).await;
        let old = put_filled(&tier, &world, "old", 20, 1000).await;
        let mut between = put_filled(&tier, &world, "between", 55, 2000).await;
        // One in nine stays where the others go.
        let stay: Vec<_> = between.extract_if(.., |value| value.meta.version.sequence % 9 == 0).collect();
        for value in &mut between {
            if replaced {
                let newer = Value::new(&value.key, value.meta.version.sequence + 5000, Shape::Borrowed(100));
                newer.put(&tier, &world.arena).await.unwrap();
                *value = newer;
            } else {
                assert_eq!(tier.remove(&value.key).get().await, Ok(true));
            }
        }
        let new = put_filled(&tier, &world, "new", 40, 3000).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(occupied(&sim, &world) <= MAX_BYTES * 3 / 4 + (1 << 20), "{}", occupied(&sim, &world));
        let sim = Arc::new(sim.kill(4));
        drop(tier);
        let tier = world.open(&sim).await;
        assert_eq!(there(&tier, &old).await, old.len());
        assert_eq!(there(&tier, &stay).await, stay.len());
        assert_eq!(there(&tier, &new).await, new.len());
        assert_eq!(there(&tier, &between).await, if replaced { between.len() } else { 0 });
        assert_eq!((tier.report().io_errors, tier.report().damaged), (0, 0));
    }
}
