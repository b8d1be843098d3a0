//! Random histories against a model, through crashes at random moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use elcache_core::key::Key;
use elcache_core::tier::{Lookup, Tier};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::support::{Dice, Shape, Value, World, key};
use crate::config::Durability;
use crate::io::sim::{Call, Faults, Sim};
use crate::tier::DiskTier;

const KEYS: usize = 16;
const WRITERS: u64 = 4;

/// What may be under a key: one thing, or more where it is not known how a write ended.
struct Cell {
    key: Key,
    may_be: Vec<Option<Value>>,
}

#[derive(Clone)]
pub(super) struct Model {
    cells: Arc<Vec<Arc<Mutex<Cell>>>>,
    sequence: Arc<AtomicU64>,
    /// The device does nothing more: what is not found proves nothing.
    dead: Arc<AtomicBool>,
    /// Bytes of the longest value.
    longest: u64,
    /// There is so little room that any value may be gone.
    may_go: bool,
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Kill,
    PowerCut,
}

/// What happens to a directory.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// Calls of the device fail now and then.
    pub(super) faulty: bool,
    /// The power goes while recovery runs, several times.
    pub(super) cuts_in_recovery: bool,
    pub(super) ends: &'static [End],
}

impl Model {
    pub(super) fn new(longest: u64) -> Self {
        let cell = |n| Arc::new(Mutex::new(Cell { key: key(&format!("key {n}")), may_be: vec![None] }));
        Self {
            cells: Arc::new((0..KEYS).map(cell).collect()),
            sequence: Arc::default(),
            dead: Arc::default(),
            longest,
            may_go: false,
        }
    }

    fn shape(&self, dice: &mut Dice) -> Shape {
        let longest = self.longest;
        match dice.below(10) {
            0..4 => Shape::Borrowed(dice.below(3000) as usize),
            4 => Shape::Borrowed(31_000 + dice.below(3000) as usize),
            5..8 => Shape::Filled(1 + dice.below(longest) as usize),
            _ => Shape::Chunks(2 + dice.below(2) as usize, 1 + dice.below(longest / 2) as usize),
        }
    }

    /// A write, to its end, under the lock of its key.
    async fn write(self, tier: Arc<DiskTier>, world: World, mut dice: Dice) {
        let cell = &self.cells[dice.below(KEYS as u64) as usize];
        let mut cell = Arc::clone(cell).lock_owned().await;
        if dice.below(4) == 0 {
            cell.may_be.push(None);
            let removed = tier.remove(&cell.key).get().await;
            self.settle(&mut cell, &tier, removed.is_ok());
        } else {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
            let value = Value::new(&cell.key, sequence, self.shape(&mut dice));
            cell.may_be.push(Some(value.clone()));
            let put = value.put(&tier, &world.arena).await;
            self.settle(&mut cell, &tier, put.is_ok());
        }
    }

    /// The last thing that may be is, or is not, or nobody knows.
    fn settle(&self, cell: &mut Cell, tier: &DiskTier, done: bool) {
        if done {
            cell.may_be.drain(..cell.may_be.len() - 1);
        } else if !self.dead.load(Ordering::SeqCst) && tier.report().trouble.is_none() {
            cell.may_be.pop();
        }
    }

    async fn read(&self, tier: &DiskTier, dice: &mut Dice) {
        let cell = self.cells[dice.below(KEYS as u64) as usize].lock().await;
        if cell.may_be.len() == 1 {
            let found = self.check_cell(tier, &cell).await;
            assert!(found.is_ok() || self.dead.load(Ordering::SeqCst), "{found:?}");
        }
    }

    /// Which of what may be there is there; `None` when it had to go.
    async fn check_cell(&self, tier: &DiskTier, cell: &Cell) -> Result<Option<usize>, String> {
        let root = match tier.root(&cell.key).get().await {
            Lookup::Hit(root) => root,
            Lookup::Miss => {
                let place = cell.may_be.iter().position(Option::is_none);
                let lost = || format!("{:?} is lost: {:?}", cell.key, versions(cell));
                return if place.is_some() || self.may_go { Ok(place) } else { Err(lost()) };
            }
            Lookup::Busy => return Err(format!("{:?} is busy", cell.key)),
        };
        let sequence = root.meta.version.sequence;
        let is_this = |value: &Option<Value>| {
            value.as_ref().is_some_and(|value| value.meta.version.sequence == sequence)
        };
        let Some(place) = cell.may_be.iter().position(is_this) else {
            return Err(format!("{:?} has version {sequence} instead of {:?}", cell.key, versions(cell)));
        };
        let Some(value) = &cell.may_be[place] else { return Ok(Some(place)) };
        match value.check(tier, root).await {
            Ok(whole) if whole || self.may_go => Ok(Some(place)),
            Ok(_) => Err(format!("a part of {:?} {sequence} is lost", cell.key)),
            Err(error) => Err(format!("{:?} {sequence}: {error}", cell.key)),
        }
    }

    /// Everything is as it may be, and is known from now on.
    pub(super) async fn check(&self, tier: &DiskTier) {
        for cell in self.cells.iter() {
            let mut cell = cell.lock().await;
            let place = match self.check_cell(tier, &cell).await {
                Ok(place) => place,
                Err(error) => panic!("{error}"),
            };
            if let Some(place) = place {
                cell.may_be = vec![cell.may_be.swap_remove(place)];
            }
        }
    }

    /// Writes and reads until `time` is over, and leaves whoever is still at it alone.
    pub(super) async fn work(
        &self,
        tier: &Arc<DiskTier>,
        world: &World,
        dice: &mut Dice,
        time: Duration,
    ) -> JoinSet<()> {
        let mut left = JoinSet::new();
        let mut clients = JoinSet::new();
        for _ in 0..WRITERS {
            let (model, tier, world) = (self.clone(), Arc::clone(tier), world.clone());
            let mut dice = Dice::new(dice.next());
            clients.spawn(async move {
                let mut unfinished = Vec::new();
                while tier.report().trouble.is_none() {
                    if dice.below(3) == 0 {
                        model.read(&tier, &mut dice).await;
                        continue;
                    }
                    let write = tokio::spawn(model.clone().write(
                        Arc::clone(&tier),
                        world.clone(),
                        Dice::new(dice.next()),
                    ));
                    if dice.below(10) == 0 {
                        // A client that goes away. Its write goes on, and holds the lock.
                        sleep(Duration::from_micros(dice.below(2000))).await;
                        unfinished.push(write);
                    } else {
                        write.await.unwrap();
                    }
                    if dice.below(64) == 0 {
                        tokio::task::yield_now().await;
                    }
                    sleep(Duration::from_micros(dice.below(300))).await;
                }
                for write in unfinished {
                    write.await.unwrap();
                }
            });
        }
        sleep(time).await;
        std::mem::swap(&mut left, &mut clients);
        left
    }
}

fn versions(cell: &Cell) -> Vec<Option<u64>> {
    cell.may_be.iter().map(|value| value.as_ref().map(|value| value.meta.version.sequence)).collect()
}

fn faults(dice: &mut Dice) -> Faults {
    let latency = [None, Some(Duration::from_micros(200)), Some(Duration::from_millis(3))];
    Faults { short: 0.1, latency: latency[dice.below(3) as usize], ..Faults::default() }
}

/// Lets some of the next calls fail.
fn break_some(sim: &Sim, dice: &mut Dice) {
    let calls = [
        Call::Write,
        Call::Write,
        Call::Sync,
        Call::Truncate,
        Call::Open,
        Call::Allocate,
        Call::SyncDirectory,
    ];
    for _ in 0..dice.below(6) {
        let call = calls[dice.below(calls.len() as u64) as usize];
        sim.fail(call, dice.below(60), if dice.below(2) == 0 { 5 } else { 28 });
    }
}

/// The power goes while the directory is opened or recovered, some times.
async fn cut_in_recovery(world: &World, mut sim: Arc<Sim>, dice: &mut Dice) -> Arc<Sim> {
    for _ in 0..dice.below(4) {
        let latency = Some(Duration::from_micros(300));
        sim.set_faults(Faults { short: 0.1, latency, ..Faults::default() });
        let tier =
            timeout(Duration::from_micros(dice.below(4000)), world.try_open(Arc::clone(&sim) as _)).await;
        sleep(Duration::from_micros(dice.below(10_000))).await;
        let next = sim.power_cut(dice.next());
        drop(tier);
        sim = Arc::new(next);
    }
    sim
}

/// So many lives of one directory.
pub(super) async fn live(world: &World, seed: u64, lives: u64, plan: &Plan) {
    let mut dice = Dice::new(seed);
    let mut model = Model::new(150_000);
    model.may_go = world.config.max_bytes < 1 << 30;
    let mut sim = Arc::new(Sim::new(seed));
    for _ in 0..lives {
        if plan.cuts_in_recovery {
            sim = cut_in_recovery(world, sim, &mut dice).await;
        }
        sim.set_faults(faults(&mut dice));
        let mut tier = world.open(&sim).await;
        model.check(&tier).await;
        if plan.cuts_in_recovery && dice.below(2) == 0 {
            // What has been found was written by a process that was killed, perhaps before it was synced.
            drop(tier);
            sim = Arc::new(sim.power_cut(dice.next()));
            tier = world.open(&sim).await;
            model.check(&tier).await;
        }
        if plan.faulty {
            break_some(&sim, &mut dice);
        }
        let time = Duration::from_micros(dice.below(30_000));
        let clients = model.work(&tier, world, &mut dice, time).await;
        let end = plan.ends[dice.below(plan.ends.len() as u64) as usize];
        model.dead.store(end != End::Close, Ordering::SeqCst);
        let next = match end {
            End::Close => {
                let closed = timeout(Duration::from_secs(60), tier.close()).await;
                assert!(closed.is_ok(), "seed {seed}: closing does not end");
                None
            }
            End::Kill => Some(sim.kill(dice.next())),
            End::PowerCut => Some(sim.power_cut(dice.next())),
        };
        // Those who ask a dead device get errors; nobody waits for ever.
        let ended = timeout(Duration::from_secs(60), async {
            tier.close().await;
            clients.join_all().await;
        });
        assert!(ended.await.is_ok(), "seed {seed}: a client waits for ever after {end:?}");
        drop(tier);
        model.dead.store(false, Ordering::SeqCst);
        sim = Arc::new(next.unwrap_or_else(|| sim.kill(0)));
    }
    sim.set_faults(Faults::default());
    model.check(&*world.open(&sim).await).await;
}

const KILLED: Plan =
    Plan { faulty: false, cuts_in_recovery: false, ends: &[End::Kill, End::Kill, End::Close] };
const CUT: Plan =
    Plan { faulty: false, cuts_in_recovery: true, ends: &[End::PowerCut, End::Kill, End::Kill, End::Close] };

async fn many(seeds: std::ops::Range<u64>, world: &World, lives: u64, plan: &Plan) {
    for seed in seeds {
        println!("seed {seed}");
        live(world, seed, lives, plan).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_process() {
    many(0..16, &World::new(), 15, &KILLED).await;
}

/// Segments are reclaimed all the time, and what was read is written again beside newer versions and deletions.
#[tokio::test(start_paused = true)]
async fn nothing_older_comes_back_where_there_is_little_room() {
    many(200..216, &cramped(Durability::Process), 15, &KILLED).await;
    many(300..316, &cramped(Durability::Power), 15, &CUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_older_comes_back_in_real_time() {
    many(400..402, &cramped(Durability::Process), 10, &KILLED).await;
}

#[tokio::test(start_paused = true)]
async fn soak_reclaiming() {
    many(10_000..15_000, &cramped(Durability::Process), 4, &KILLED).await;
    many(20_000..25_000, &cramped(Durability::Power), 4, &CUT).await;
}

fn cramped(durability: Durability) -> World {
    World::with(|config| {
        config.max_bytes = 8 << 20;
        config.durability = durability;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_process_in_real_time() {
    many(0..2, &World::new(), 10, &KILLED).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_loss_of_power() {
    many(100..116, &World::durable(Durability::Power), 15, &CUT).await;
}

#[tokio::test(start_paused = true)]
async fn soak_kills() {
    many(1000..1200, &World::new(), 20, &KILLED).await;
}

#[tokio::test(start_paused = true)]
async fn soak_losses_of_power() {
    many(2000..2200, &World::durable(Durability::Power), 20, &CUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_kills_in_real_time() {
    many(3000..3030, &World::new(), 20, &KILLED).await;
}
