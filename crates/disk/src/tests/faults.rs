//! A disk that fails: writers hear of it, what was acknowledged stays, and what failed does not come back.

use std::sync::Arc;
use std::time::Duration;

use elcache_core::tier::{Refusal, Tier};

use super::model::{End, Plan, live};
use super::support::{Dice, Shape, Value, World, is_gone, key};
use crate::config::Durability;
use crate::io::Device;
use crate::io::sim::{Call, Faults, Sim};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn plan() -> Plan {
    Plan { faulty: true, cuts_in_recovery: false, ends: &[End::Kill, End::Kill, End::Close] }
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_nothing_is_lost() {
    for seed in 0..30 {
        let durability = if seed % 2 == 0 { Durability::Process } else { Durability::Power };
        live(&World::durable(durability), 500 + seed, 10, &plan()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn soak_failures() {
    for seed in 0..300 {
        let durability = if seed % 2 == 0 { Durability::Process } else { Durability::Power };
        live(&World::durable(durability), 5000 + seed, 20, &plan()).await;
    }
}

/// A failed write of a record, in each of the ways in which it can fail.
#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_is_taken_back() {
    for (n, call) in [Call::Write, Call::Sync].into_iter().enumerate() {
        for shape in [Shape::Borrowed(50), Shape::Filled(50_000)] {
            for nth in 0..2 {
                let world = World::durable(Durability::Power);
                let sim = Arc::new(Sim::new(n as u64));
                let tier = world.open(&sim).await;
                let before = Value::new(&key("k"), 1, Shape::Borrowed(40));
                before.put(&tier, &world.arena).await.unwrap();
                sim.fail(call, nth, EIO);
                let new = Value::new(&key("k"), 2, shape);
                let put = new.put(&tier, &world.arena).await;
                if put.is_err() {
                    before.assert_there(&tier).await;
                    assert!(tier.report().trouble.is_none() && tier.report().io_errors > 0);
                    let sim = Arc::new(sim.kill(1));
                    before.assert_there(&*world.open(&sim).await).await;
                } else {
                    assert!(nth == 1 && matches!(shape, Shape::Borrowed(_)), "{call:?} {shape:?} {nth}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_back_stops_all_writes() {
    for call in [Call::Truncate, Call::Sync] {
        let world = World::new();
        let sim = Arc::new(Sim::new(3));
        let tier = world.open(&sim).await;
        let old = Value::new(&key("old"), 1, Shape::Borrowed(40));
        old.put(&tier, &world.arena).await.unwrap();
        sim.fail(Call::Write, 0, EIO);
        sim.fail(call, 0, EIO);
        let new = Value::new(&key("new"), 2, Shape::Borrowed(40));
        assert_eq!(new.put(&tier, &world.arena).await, Err(Refusal::Failed));
        assert!(tier.report().trouble.is_some());
        assert_eq!(new.put(&tier, &world.arena).await, Err(Refusal::Failed));
        assert_eq!(tier.remove(&key("new")).get().await, Err(Refusal::Failed));
        assert_eq!(tier.remove(&key("old")).get().await, Err(Refusal::Failed));
        old.assert_there(&tier).await;
        drop(tier);
        let tier = world.open(&Arc::new(sim.kill(1))).await;
        old.assert_there(&tier).await;
        assert_eq!(tier.remove(&key("old")).get().await, Ok(true));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_neither_used_nor_changed() {
    let world = World::new();
    let sim = Arc::new(Sim::new(4));
    let tier = world.open(&sim).await;
    let mut values = Vec::new();
    for n in 0..30 {
        let value = Value::new(&key(&format!("key {n}")), n + 1, Shape::Filled(100_000));
        value.put(&tier, &world.arena).await.unwrap();
        values.push(value);
    }
    drop(tier);
    let mut sim = Arc::new(sim.kill(1));
    for nth in 1..20 {
        sim.fail(Call::Read, nth, EIO);
        let tier = world.try_open(Arc::clone(&sim) as _).await.unwrap();
        tier.recovered().await;
        if tier.report().trouble.is_some() {
            let put = Value::new(&key("more"), 100, Shape::Borrowed(10)).put(&tier, &world.arena).await;
            assert!(put.is_err());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(tier);
        sim = Arc::new(sim.kill(nth));
        let tier = world.open(&sim).await;
        for value in &values {
            value.assert_there(&tier).await;
        }
        assert!(is_gone(&tier, &key("more")).await);
        drop(tier);
        sim = Arc::new(sim.kill(nth));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_file_system_loses_the_oldest_and_no_more() {
    let world = World::new();
    let sim = Arc::new(Sim::new(5));
    sim.set_faults(Faults { capacity: 12 << 20, ..Faults::default() });
    let tier = world.open(&sim).await;
    let mut dice = Dice::new(5);
    for n in 0..300 {
        let shape = Shape::Filled(1 + dice.below(150_000) as usize);
        let value = Value::new(&key(&format!("key {n}")), n + 1, shape);
        assert_eq!(value.put(&tier, &world.arena).await, Ok(()), "{n}");
        value.assert_there(&tier).await;
        let space = sim.space(&world.path).unwrap();
        assert!(space.available >= space.total / 20, "{space:?}");
    }
    assert_eq!(tier.report().io_errors, 0);
    // Somebody else takes the rest.
    let space = sim.space(&world.path).unwrap();
    let used = space.total - space.available;
    sim.set_faults(Faults { capacity: used + 1000, ..Faults::default() });
    let mut refused = 0;
    for n in 300..340 {
        let value = Value::new(&key(&format!("key {n}")), n + 1, Shape::Filled(100_000));
        refused += u64::from(value.put(&tier, &world.arena).await.is_err());
    }
    assert!(refused < 10, "{refused}: the oldest makes room");
    sim.fail(Call::Write, 0, ENOSPC);
    let value = Value::new(&key("failed"), 999, Shape::Borrowed(10));
    assert!(value.put(&tier, &world.arena).await.is_err());
    sim.set_faults(Faults::default());
    assert_eq!(value.put(&tier, &world.arena).await, Ok(()));
}

/// A segment of which only a part could be made took its number with it, and the next one failed too.
#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_opened_is_opened_the_next_time() {
    for (call, nth) in [(Call::Open, 0), (Call::Open, 1), (Call::Write, 0), (Call::SyncDirectory, 0)] {
        let world = World::durable(Durability::Power);
        let sim = Arc::new(Sim::new(6));
        let tier = world.open(&sim).await;
        let value = Value::new(&key("k"), 1, Shape::Borrowed(10));
        sim.fail(call, nth, EIO);
        assert_eq!(value.put(&tier, &world.arena).await, Err(Refusal::Failed), "{call:?}");
        assert_eq!(value.put(&tier, &world.arena).await, Ok(()), "{call:?}");
        drop(tier);
        value.assert_there(&*world.open(&Arc::new(sim.kill(1))).await).await;
    }
}

/// Where a segment is changed for the next one, writes fail: of the footer, of the header, of the record.
#[tokio::test(start_paused = true)]
async fn a_segment_without_a_footer_is_sealed_by_recovery() {
    for nth in 0..3 {
        let world = World::new();
        let (_, all, changes) = fill(&world, &[], 0).await;
        assert!(changes.len() > 2 && all.len() == 130);
        let (mut sim, values, _) = fill(&world, &changes, nth).await;
        assert!(values.len() >= 120);
        for round in 0..3 {
            sim = Arc::new(sim.kill(round));
            let tier = world.open(&sim).await;
            for value in &values {
                value.assert_there(&tier).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Fills some segments; a write fails in these steps. What was acknowledged, and the steps that opened a segment.
async fn fill(world: &World, failing: &[u64], nth: u64) -> (Arc<Sim>, Vec<Value>, Vec<u64>) {
    let sim = Arc::new(Sim::new(7));
    let tier = world.open(&sim).await;
    let (mut values, mut opened, mut files) = (Vec::new(), Vec::new(), 0);
    for n in 0..130 {
        if failing.contains(&n) {
            sim.fail(Call::Write, nth, EIO);
        }
        let value = Value::new(&key(&format!("key {n}")), n + 1, Shape::Borrowed(31_000));
        if value.put(&tier, &world.arena).await.is_ok() {
            values.push(value);
        }
        let now = sim.list(&world.path.join("segments")).unwrap().len();
        if now > files && n > 0 {
            opened.push(n);
        }
        files = now;
    }
    assert!(tier.report().trouble.is_none());
    assert_eq!(tier.report().io_errors, failing.len() as u64);
    (sim, values, opened)
}

/// Whoever drops a tier in the middle of a write leaves no task behind that waits for ever.
#[tokio::test(start_paused = true)]
async fn a_dropped_tier_leaves_nothing_behind() {
    let world = World::new();
    for wait in [0, 100, 300, 1000, 3000] {
        let sim = Arc::new(Sim::new(wait));
        let tier = world.open(&sim).await;
        sim.set_faults(Faults { latency: Some(Duration::from_millis(2)), ..Faults::default() });
        for n in 0..20 {
            let shape = [Shape::Borrowed(100), Shape::Filled(60_000)][n % 2];
            let value = Value::new(&key(&format!("key {n}")), n as u64 + 1, shape);
            let put = value.put(&tier, &world.arena);
            _ = tokio::time::timeout(Duration::from_micros(10), put).await;
        }
        tokio::time::sleep(Duration::from_micros(wait)).await;
        drop(tier);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(Arc::strong_count(&sim), 1, "a task holds the device after {wait} µs");
    }
}
