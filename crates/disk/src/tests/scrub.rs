//! Scrubbing finds damage that nobody has read, drops it, and leaves everything else alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elcache_core::tier::{Evicted, Leaving, Lookup, Tier};

use super::support::{Dice, Shape, Value, World, key};
use crate::io::Device;
use crate::io::sim::Sim;
use crate::tier::DiskTier;

/// A pass over a few MiB, at a MiB a second, and the rests before and after it.
const A_PASS: Duration = Duration::from_secs(200);

async fn filled(world: &World, sim: &Arc<Sim>) -> (Arc<DiskTier>, Vec<Value>) {
    let tier = world.open(sim).await;
    let mut values = Vec::new();
    for n in 0..60 {
        let shape = match n % 3 {
            0 => Shape::Borrowed(2000),
            1 => Shape::Filled(90_000),
            _ => Shape::Chunks(2, 50_000),
        };
        let value = Value::new(&key(&format!("key {n}")), n + 1, shape);
        value.put(&tier, &world.arena).await.unwrap();
        values.push(value);
    }
    (tier, values)
}

fn lacks(tier: &DiskTier, value: &Value) -> bool {
    tier.lacks(Leaving::Value(value.key.as_bytes()))
}

/// Turns a bit around somewhere in the part of a file that is in use.
fn damage(sim: &Sim, path: &Path, from: u64, to: u64, dice: &mut Dice) {
    sim.flip(path, from + dice.below(to - from), 1 << dice.below(8)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_stays_and_everything_is_looked_at() {
    let world = World::new();
    let sim = Arc::new(Sim::new(1));
    let (tier, values) = filled(&world, &sim).await;
    tokio::time::sleep(A_PASS).await;
    let report = tier.report();
    assert_eq!((report.damaged, report.io_errors), (0, 0));
    assert!(report.scrubbed_bytes > 2 << 20, "{} bytes", report.scrubbed_bytes);
    for value in &values {
        value.assert_there(&tier).await;
    }
}

#[tokio::test(start_paused = true)]
async fn damage_is_found_before_anybody_reads_it() {
    let mut found = 0;
    for seed in 0..60 {
        let world = World::new();
        let sim = Arc::new(Sim::new(seed));
        let (tier, values) = filled(&world, &sim).await;
        assert!(!values.iter().any(|value| lacks(&tier, value)));
        let mut dice = Dice::new(seed);
        let segments = world.path.join("segments");
        let file = if seed % 2 == 0 { "00000001.log" } else { "00000001.data" };
        let len = sim.list(&segments).unwrap().into_iter().find(|entry| entry.name == file).unwrap().len;
        damage(&sim, &segments.join(file), 4096, len - 4096, &mut dice);
        tokio::time::sleep(A_PASS).await;
        let damaged = tier.report().damaged;
        assert!(damaged <= 2, "{damaged} from one bit, seed {seed}");
        found += damaged;
        // Nobody finds anything else: what is there is whole, and what is not has been dropped.
        for value in &values {
            match tier.root(&value.key).get().await {
                Lookup::Hit(root) => _ = value.check(&tier, root).await.unwrap(),
                Lookup::Miss => assert!(lacks(&tier, value), "seed {seed}"),
                Lookup::Busy => panic!("busy"),
            }
        }
        assert_eq!(tier.report().damaged, damaged, "something was left for a reader, seed {seed}");
    }
    assert!(found > 30, "{found} of 60");
}

/// What memory has, and the disk had to drop, is written again when memory evicts it.
#[tokio::test(start_paused = true)]
async fn what_was_dropped_is_taken_from_a_faster_tier_again() {
    let world = World::new();
    let sim = Arc::new(Sim::new(3));
    let (tier, values) = filled(&world, &sim).await;
    let value = values.iter().find(|value| value.shape == Shape::Filled(90_000)).unwrap();
    let data = world.path.join("segments/00000001.data");
    sim.flip(&data, 4096 * 5, 1).unwrap();
    tokio::time::sleep(A_PASS).await;
    assert!(lacks(&tier, value), "its second block was damaged");
    let payload = Bytes::from(value.bytes()).into();
    tier.demote(Evicted::Value(value.key.clone(), value.meta.clone(), payload)).get().await.unwrap();
    value.assert_there(&tier).await;
}
