//! Damage anywhere: what is read is right or a miss.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::key::Key;
use elcache_core::tier::{Lookup, Tier};

use super::support::{Dice, Shape, Value, World, key};
use crate::io::sim::Sim;
use crate::io::{Device, Open};
use crate::tier::DiskTier;

/// All versions of a key, the newest last; `None` where it was deleted.
type Versions = (Key, Vec<Option<Value>>);

struct Library {
    world: World,
    sim: Sim,
    keys: Vec<Versions>,
    files: Vec<(PathBuf, u64)>,
}

/// What came of reading everything.
#[derive(Debug, Default)]
struct Tally {
    right: u64,
    missed: u64,
    older: u64,
}

impl Library {
    /// Records of all kinds in several segments; the last is not sealed.
    async fn build() -> Self {
        let world = World::new();
        let sim = Arc::new(Sim::new(1));
        let tier = world.open(&sim).await;
        let mut dice = Dice::new(1);
        let mut keys: Vec<Versions> = (0..60).map(|n| (key(&format!("key {n}")), Vec::new())).collect();
        for sequence in 1..=220 {
            let (key, versions) = &mut keys[dice.below(60) as usize];
            if dice.below(8) == 0 {
                tier.remove(key).get().await.unwrap();
                versions.push(None);
                continue;
            }
            let shape = match dice.below(5) {
                0..3 => Shape::Borrowed(dice.below(3000) as usize),
                3 => Shape::Filled(30_000 + dice.below(60_000) as usize),
                _ => Shape::Chunks(2, 1 + dice.below(40_000) as usize),
            };
            let value = Value::new(key, sequence, shape);
            value.put(&tier, &world.arena).await.unwrap();
            versions.push(Some(value));
        }
        drop(tier);
        let sim = sim.kill(1);
        let (segments, identity) = (world.path.join("segments"), world.path.join("IDENTITY"));
        let list = sim.kill(1).list(&segments).unwrap();
        let files = list.into_iter().map(|entry| (segments.join(entry.name), entry.len));
        let files: Vec<_> = files.chain([(identity, 8192)]).filter(|file| file.1 > 0).collect();
        assert!(files.len() > 6, "{files:?}");
        Self { world, sim, keys, files }
    }

    async fn read(&self, tier: &DiskTier, tally: &mut Tally, story: &str) {
        for (key, versions) in &self.keys {
            let newest = versions.last().and_then(Option::as_ref);
            let root = match tier.root(key).get().await {
                Lookup::Hit(root) => root,
                Lookup::Miss => {
                    *(if newest.is_none() { &mut tally.right } else { &mut tally.missed }) += 1;
                    continue;
                }
                Lookup::Busy => panic!("{story}: busy"),
            };
            let is_it = |value: &&Value| value.meta.version == root.meta.version;
            let value = versions.iter().flatten().find(is_it);
            let value = value.unwrap_or_else(|| panic!("{story}: {key:?} was never so"));
            let is_newest = newest.is_some_and(|newest| is_it(&newest));
            match value.check(tier, root).await {
                Ok(true) if is_newest => tally.right += 1,
                Ok(true) => tally.older += 1,
                Ok(false) => tally.missed += 1,
                Err(error) => panic!("{story}: {key:?}: {error}"),
            }
        }
    }

    fn harm(&self, sim: &Sim, dice: &mut Dice) -> String {
        let (path, len) = &self.files[dice.below(self.files.len() as u64) as usize];
        let at = if dice.below(4) == 0 { dice.below((*len).min(8192)) } else { dice.below(*len) };
        if dice.below(10) == 0 && !path.ends_with("IDENTITY") {
            let file = sim.open(path, Open { create: false, direct: false }).unwrap();
            sim.truncate(&file, at).unwrap();
            return format!("{} cut to {at}", path.display());
        }
        sim.flip(path, at, 1 << dice.below(8)).unwrap();
        format!("{} flipped at {at}", path.display())
    }

    async fn trial(&self, seed: u64, tally: &mut Tally) {
        let mut dice = Dice::new(seed);
        let sim = Arc::new(self.sim.kill(seed));
        let count = [1, 1, 1, 2, 3, 8][dice.below(6) as usize];
        let story: Vec<_> = (0..count).map(|_| self.harm(&sim, &mut dice)).collect();
        let story = format!("{seed}: {story:?}");
        let Ok(tier) = self.world.try_open(Arc::clone(&sim) as _).await else {
            assert!(story.contains("IDENTITY"), "{story}");
            return;
        };
        tier.recovered().await;
        assert!(tier.report().trouble.is_none(), "{story}");
        self.read(&tier, tally, &story).await;
        // It is a good directory still.
        let value = Value::new(&key("afterwards"), 9999, Shape::Filled(50_000));
        assert_eq!(value.put(&tier, &self.world.arena).await, Ok(()), "{story}");
        drop(tier);
        let sim = Arc::new(sim.kill(seed));
        let tier = self.world.open(&sim).await;
        value.assert_there(&tier).await;
        self.read(&tier, &mut Tally::default(), &story).await;
    }
}

async fn trials(seeds: std::ops::Range<u64>) {
    let library = Library::build().await;
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        let trial = tokio::time::timeout(Duration::from_secs(600), library.trial(seed, &mut tally));
        assert!(trial.await.is_ok(), "trial {seed} does not end");
    }
    println!("{tally:?}");
    let trials = seeds.end - seeds.start;
    assert!(tally.missed < 4 * trials && tally.older < 2 * trials, "{tally:?} in {trials}");
    assert!(tally.right > 50 * trials, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_read_of_a_damaged_disk_is_right_or_a_miss() {
    trials(0..300).await;
}

#[tokio::test(start_paused = true)]
async fn soak_damage() {
    trials(1000..11_000).await;
}

/// In segments that were sealed, a flipped bit costs what it is in, and nothing old comes back.
#[tokio::test(start_paused = true)]
async fn a_flipped_bit_of_a_sealed_segment_brings_nothing_old_back() {
    let library = Library::build().await;
    let mut dice = Dice::new(4);
    let segments = library.files.iter().filter(|file| file.0.extension().is_some());
    let last = segments.clone().filter_map(|file| file.0.file_stem()).max().unwrap();
    let sealed: Vec<_> = segments.filter(|file| file.0.file_stem().unwrap() < last).collect();
    assert!(sealed.len() > 2);
    let mut tally = Tally::default();
    for seed in 0..150 {
        let (path, len) = sealed[dice.below(sealed.len() as u64) as usize];
        let at = dice.below(*len);
        let is_log = path.extension().is_some_and(|kind| kind == "log");
        if is_log && at + 4096 >= *len {
            // The footer: without it the segment is one that was not sealed.
            continue;
        }
        let sim = Arc::new(library.sim.kill(seed));
        sim.flip(path, at, 1 << dice.below(8)).unwrap();
        let tier = library.world.open(&sim).await;
        library.read(&tier, &mut tally, &format!("{} at {at}", path.display())).await;
    }
    assert_eq!(tally.older, 0, "{tally:?}");
}
