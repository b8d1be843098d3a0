//! Random histories of several directories against a model: they fail, hang, come back, are added, and the node is killed in between.
//! Anything may be lost; no older version and no deleted value ever comes back, and nobody waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elcache_core::key::Key;
use elcache_core::tier::{Lookup, Tier};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::disks::Rack;
use super::support::{Dice, Shape, Value, World, key};
use crate::config::Durability;
use crate::disks::Disks;
use crate::io::sim::{Call, Faults, Sim};

const KEYS: u64 = 24;
const CLIENTS: u64 = 4;

/// What may be under a key, beside nothing: one value, or more where it is not known how a write ended.
struct Cell {
    key: Key,
    may_be: Vec<Value>,
}

#[derive(Clone)]
pub(super) struct Model {
    cells: Arc<Vec<Mutex<Cell>>>,
    sequence: Arc<AtomicU64>,
    /// Look-ups that found a value.
    hits: Arc<AtomicU64>,
}

impl Model {
    pub(super) fn new() -> Self {
        let cell = |n| Mutex::new(Cell { key: key(&format!("key {n}")), may_be: Vec::new() });
        Self {
            cells: Arc::new((0..KEYS).map(cell).collect()),
            sequence: Arc::default(),
            hits: Arc::default(),
        }
    }

    async fn step(&self, disks: &Arc<Disks>, world: &World, dice: &mut Dice) {
        let mut cell = self.cells[dice.below(KEYS) as usize].lock().await;
        match dice.below(8) {
            0 => {
                let known = std::mem::take(&mut cell.may_be);
                if disks.remove(&cell.key).get().await.is_err() {
                    cell.may_be = known;
                }
            }
            1..=3 => {
                let value = self.value(&cell.key, dice);
                let put = value.put(disks, &world.arena).await;
                if put.is_ok() {
                    cell.may_be.clear();
                }
                cell.may_be.push(value);
            }
            _ => self.check(disks, &mut cell).await,
        }
    }

    /// What is found is what may be there.
    async fn check(&self, disks: &Arc<Disks>, cell: &mut Cell) {
        let Lookup::Hit(root) = disks.root(&cell.key).get().await else { return };
        let sequence = root.meta.version.sequence;
        let versions = || cell.may_be.iter().map(|value| value.meta.version.sequence).collect::<Vec<_>>();
        let Some(value) = cell.may_be.iter().find(|value| value.meta.version.sequence == sequence) else {
            panic!("{:?} has version {sequence} instead of one of {:?}", cell.key, versions());
        };
        match value.check(disks, root).await {
            Ok(_) => _ = self.hits.fetch_add(1, Ordering::Relaxed),
            Err(error) => panic!("{:?} {sequence}: {error}", cell.key),
        }
        let value = value.clone();
        cell.may_be = vec![value];
    }

    /// Looks at all of them; how many are there whole.
    pub(super) async fn check_all(&self, disks: &Arc<Disks>) -> u64 {
        let before = self.hits.load(Ordering::Relaxed);
        for cell in self.cells.iter() {
            self.check(disks, &mut *cell.lock().await).await;
        }
        self.hits.load(Ordering::Relaxed) - before
    }

    /// Writes all of them; how many that are.
    pub(super) async fn write_all(&self, disks: &Arc<Disks>, world: &World, dice: &mut Dice) -> u64 {
        for cell in self.cells.iter() {
            let mut cell = cell.lock().await;
            let value = self.value(&cell.key, dice);
            assert_eq!(value.put(disks, &world.arena).await, Ok(()), "{:?}", cell.key);
            cell.may_be = vec![value];
        }
        KEYS
    }

    /// A new value for a key.
    fn value(&self, key: &Key, dice: &mut Dice) -> Value {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let shape = match dice.below(3) {
            0 => Shape::Borrowed(dice.below(2000) as usize),
            1 => Shape::Filled(33_000 + dice.below(40_000) as usize),
            _ => Shape::Chunks(2, 1 + dice.below(1000) as usize),
        };
        Value::new(key, sequence, shape)
    }

    /// Clients at work for a while.
    pub(super) fn work(
        &self,
        disks: &Arc<Disks>,
        world: &World,
        dice: &mut Dice,
        millis: u64,
    ) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (model, disks, world) = (self.clone(), Arc::clone(disks), world.clone());
            let mut dice = Dice::new(dice.next());
            clients.spawn(async move {
                let end = tokio::time::Instant::now() + Duration::from_millis(millis);
                while tokio::time::Instant::now() < end {
                    let step = timeout(Duration::from_secs(60), model.step(&disks, &world, &mut dice));
                    assert!(step.await.is_ok(), "a client waits for ever");
                    sleep(Duration::from_micros(dice.below(80_000))).await;
                }
            });
        }
        clients
    }
}

/// Something happens to a disk.
fn disturb(sims: &[Arc<Sim>], dice: &mut Dice) {
    let sim = &sims[dice.below(sims.len() as u64) as usize];
    let latency = (dice.below(3) == 0).then_some(Duration::from_millis(2));
    let well = Faults { latency, ..Faults::default() };
    match dice.below(8) {
        0 => sim.set_faults(Faults { broken: Some(5), ..well }),
        1 => sim.set_faults(Faults { hangs: true, ..well }),
        2 => sim.set_faults(Faults { read_only: true, ..well }),
        3 | 4 => {
            let calls = [Call::Write, Call::Write, Call::Sync, Call::Open, Call::Rename, Call::SyncDirectory];
            for _ in 0..1 + dice.below(4) {
                let call = calls[dice.below(calls.len() as u64) as usize];
                sim.fail(call, dice.below(20), 5);
            }
        }
        _ => sim.set_faults(well),
    }
}

async fn live(seed: u64, durability: Durability) -> u64 {
    let mut dice = Dice::new(seed);
    let count = 1 + dice.below(3) as usize;
    let mut rack = Rack::of(World::durable(durability), count, seed);
    let model = Model::new();
    // Always the same: whoever starts with one part and then with another alone may find old values.
    let absent = dice.below(count as u64) as usize;
    for life in 0..6 {
        rack.sims.iter().for_each(|sim| sim.heal());
        let grows = rack.sims.len() < 4 && dice.below(8) == 0;
        if grows {
            rack.sims.push(Arc::new(Sim::new(dice.next())));
        }
        if life > 0 && rack.sims.len() > 1 && !grows && dice.below(3) == 0 {
            // One is not there at the start. (Where those that are there are all new, they become a node of their own, and that one is
            // refused from then on.)
            rack.sims[absent].set_faults(Faults { broken: Some(5), ..Faults::default() });
        }
        let disks = rack.open().await;
        model.check_all(&disks).await;
        let millis = 1000 + dice.below(40_000);
        let mut clients = model.work(&disks, &rack.world, &mut dice, millis);
        for _ in 0..dice.below(8) {
            sleep(Duration::from_millis(dice.below(millis / 3))).await;
            disturb(&rack.sims, &mut dice);
        }
        if dice.below(2) == 0 {
            // All is well in the end, and everything comes back.
            rack.sims.iter().for_each(|sim| sim.heal());
            while let Some(client) = clients.join_next().await {
                client.unwrap();
            }
            sleep(Duration::from_secs(30)).await;
            let troubles = disks.condition().troubles;
            assert!(troubles.is_empty(), "seed {seed}: {troubles:?}");
            model.check_all(&disks).await;
        }
        if dice.below(2) == 0 {
            let closed = timeout(Duration::from_secs(60), disks.close()).await;
            assert!(closed.is_ok(), "seed {seed}: closing does not end");
        }
        rack.kill();
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        drop(disks);
    }
    model.hits.load(Ordering::Relaxed)
}

async fn many(seeds: std::ops::Range<u64>) {
    let (mut hits, mut histories) = (0, 0);
    for seed in seeds {
        println!("seed {seed}");
        let durability = if seed % 2 == 0 { Durability::Process } else { Durability::Power };
        hits += live(seed, durability).await;
        histories += 1;
    }
    assert!(hits > histories * 50, "{hits} values were found in {histories} histories");
}

#[tokio::test(start_paused = true)]
async fn nothing_old_comes_back() {
    many(0..10).await;
}

#[tokio::test(start_paused = true)]
async fn soak_directories() {
    many(1000..1400).await;
}
