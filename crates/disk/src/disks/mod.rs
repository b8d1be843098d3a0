//! The disk tier as a whole: the directories of a node, each with a log, an index and a device of its own.
//!
//! A key's value, root and pages are in one directory, chunks are spread. Where something *belongs* follows from its name ([`home`])
//! and from which directories serve; where it is, the indexes tell. What is written goes where it belongs, after it has been deleted
//! everywhere else: of no key there are ever two values. Which directories may be used with what is in them, [`epoch`] says.
//!
//! # Layout
//! - this file: the directories are opened, and what is said of them.
//! - `tier`: what the coordinator asks of them.
//! - `staged`: pages of unfinished values, and what holds their chunks.
//! - `staging`: what they keep of drafts. `restore`: what was kept is found again.
//! - `view`: the directories as they are at a moment.
//! - `keeper`: the task that looks whether one fails, or serves again. `changes`: what it does then.
//! - `home`, `epoch`: what is decided, as plain functions.

mod changes;
pub(crate) mod epoch;
pub(crate) mod home;
mod keeper;
mod opening;
mod restore;
mod staged;
mod staging;
mod tier;
mod view;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::payload::Buffers;
use elcache_core::tier::{Above, DeviceUsage, DirectoryUsage, Usage};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::home::DirectoryId;
use self::staging::Drafts;
use self::view::{Member, View};
use crate::config::DiskConfig;
use crate::directory::{Directory, DirectoryError, Lock, Reach, random_id};
use crate::disk::Counters;
use crate::format::identity::Identity;
use crate::io::{Device, Gate, Gated, Pool};
use crate::pace::Pace;
use crate::tier::{DiskTier, Instance, PROMISE, largest_promise};

/// How long something may be under way before the directory is taken out of service.
const HANGS: Duration = Duration::from_secs(10);

/// What the disk tier of a node is made of.
pub struct DisksParts {
    /// The directories: at least one.
    pub directories: Vec<DirectoryParts>,
    /// Bytes a second that may be written to all of them together; `None` is no limit.
    pub write_rate_max: Option<u64>,
    /// Where calls that block run: a pool of its own, since they may never end. Eight threads for each directory are enough.
    pub pool: Pool,
    /// What this node is called, when the directories do not know it yet.
    pub node_name: String,
    /// The memory budget: the indexes are in it.
    pub budget: Arc<Budget>,
    /// Where buffers come from.
    pub buffers: Arc<dyn Buffers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and seeds.
    pub random: Box<dyn FnMut() -> u64 + Send>,
}

/// A directory as it is configured.
pub struct DirectoryParts {
    /// What it can be told.
    pub config: DiskConfig,
    /// What reads and writes in it and in no other: one that hangs must not hold up the others.
    pub device: Arc<dyn Device>,
    /// Where it is.
    pub path: PathBuf,
    /// That nobody else uses it.
    pub access: Access,
}

/// Whether a directory can be used.
pub enum Access {
    /// It is this process's.
    Locked(Lock),
    /// On a device that only pretends, nobody else uses it.
    Alone,
    /// Not now: it starts out of service.
    Out(DirectoryError),
}

/// Why the tier cannot be opened.
#[derive(Debug)]
pub struct DisksError {
    /// The directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: DirectoryError,
}

impl fmt::Display for DisksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for DisksError {}

/// How the directories are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// After the start, not all has been found yet.
    pub starting: bool,
    /// What is wrong.
    pub troubles: Vec<String>,
}

/// Tier 2: all directories of a node.
pub struct Disks {
    shared: Arc<Shared>,
    /// What goes on beside: looking after the directories, letting go of pages, finding drafts.
    tasks: [JoinHandle<()>; 4],
}

/// A directory of the configuration, whether it can be used or not.
struct Seat {
    config: DiskConfig,
    device: Arc<dyn Device>,
    path: PathBuf,
    /// Whether it is locked.
    locks: bool,
    /// Over all the times that it was used.
    counters: Arc<Counters>,
    life: Mutex<Life>,
}

/// How it goes with a directory.
struct Life {
    lock: Option<Arc<Lock>>,
    /// The one that it is used or tried behind, or was last.
    gate: Arc<Gate>,
    /// Why it is out of service, if it is.
    out: Option<String>,
    /// Ticks since then.
    ticks: u64,
    /// It is being looked at, or tried.
    busy: bool,
    /// The set that it says it is in, while it is not known to the others.
    claim: Option<Vec<DirectoryId>>,
    /// Promises that cannot be made while it is out.
    missing: usize,
}

struct Shared {
    seats: Box<[Seat]>,
    view: RwLock<Arc<View>>,
    /// Rises when a directory comes or goes, and when a recovery has come further.
    progress: watch::Sender<u64>,
    /// What uploads may still be promised.
    room: Arc<Semaphore>,
    /// Pages that are to be let go of.
    leaving_pages: staged::Leaving,
    /// How fast all of them together may be written to.
    pace: Arc<Pace>,
    /// The highest epoch that any directory may have heard of. One at a time changes the set.
    epoch: tokio::sync::Mutex<u64>,
    /// Whether a change of the set is under way.
    leaving: AtomicBool,
    started: AtomicBool,
    /// Nothing is taken out or tried any more.
    closing: AtomicBool,
    /// A faster tier, once it is known.
    above: OnceLock<Weak<dyn Above>>,
    drafts: Drafts,
    patience: Duration,
    node: [u8; 16],
    node_name: String,
    pool: Pool,
    budget: Arc<Budget>,
    buffers: Arc<dyn Buffers>,
    clock: Arc<dyn Clock>,
    random: Mutex<Box<dyn FnMut() -> u64 + Send>>,
}

impl Disks {
    /// Takes the directories and begins to find what is in them. Runs in the tokio runtime that this is called in until it is dropped.
    ///
    /// # Errors
    /// When one of them belongs to somebody else or cannot be understood, or when none can be read.
    pub async fn open(parts: DisksParts) -> Result<Arc<Self>, DisksError> {
        let shared = opening::open(parts).await?;
        let tasks = [
            tokio::spawn(keeper::keep(Arc::clone(&shared))),
            tokio::spawn(staged::let_go(Arc::clone(&shared))),
            tokio::spawn(restore::restore(Arc::clone(&shared))),
            tokio::spawn(staging::let_go(Arc::clone(&shared))),
        ];
        Ok(Arc::new(Self { shared, tasks }))
    }

    /// What the directories call the node.
    pub fn node_name(&self) -> &str {
        &self.shared.node_name
    }

    /// Connects a faster tier: what that has is in use. The first one counts.
    pub fn set_above(&self, above: &Arc<dyn Above>) {
        let _ = self.shared.above.set(Arc::downgrade(above));
        self.shared.view().members.iter().for_each(|member| member.tier.set_above(above));
    }

    /// How the directories are.
    pub fn condition(&self) -> Condition {
        let view = self.shared.view();
        let recovering = view.serving().any(|member| member.is_recovering());
        let starting = recovering && !self.shared.started.load(Ordering::Relaxed);
        if !recovering {
            self.shared.started.store(true, Ordering::Relaxed);
        }
        let troubles = (0..).zip(&self.shared.seats).filter_map(|(number, seat)| {
            let trouble = seat.trouble(view.of_seat(number).map(|member| &**member).filter(|_| !starting))?;
            Some(format!("disk {}: {trouble}", seat.path.display()))
        });
        Condition { starting, troubles: troubles.collect() }
    }

    /// Writes what waits, and ends the open segments so that the next start need not read them. What is written afterwards is refused.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let view = self.shared.view();
        let mut closing = JoinSet::new();
        for member in view.serving().cloned() {
            closing.spawn(async move { member.tier.close().await });
        }
        // What hangs is shut by the keeper.
        closing.join_all().await;
        view.members.iter().for_each(|member| member.disk.gate.shut("the node stops"));
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Bytes that unfinished values count on, and how many holds there are that are no bit in an index.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (u64, u64) {
        let view = self.shared.view();
        let pinned = view.members.iter().map(|member| member.disk.index.total().pinned).sum();
        (pinned, view.members.iter().map(|member| member.disk.pins.more()).sum())
    }

    /// A directory fails and the others go on without it, before the keeper has looked. How many are left.
    #[cfg(test)]
    pub(crate) async fn leave_unseen(&self, number: usize, why: &str) -> usize {
        let view = self.shared.view();
        view.of_seat(number).into_iter().for_each(|member| member.disk.gate.shut(why));
        self.shared.leave().await;
        self.shared.view().members.len()
    }

    /// Waits until everything is found that is there.
    #[cfg(test)]
    pub(crate) async fn recovered(&self) {
        for member in &self.shared.view().members {
            member.tier.recovered().await;
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Seat {
    /// What is wrong with it, if anything.
    fn trouble(&self, member: Option<&Member>) -> Option<String> {
        let life = self.life.lock();
        if let Some(why) = &life.out {
            return Some(format!("out of service: {why}"));
        }
        let why = life.gate.why().map(|why| format!("out of service: {why}"));
        let slow = || life.gate.is_slow().then(|| "it does not answer".to_owned());
        let recovering = || member.filter(|member| member.is_recovering());
        why.or_else(slow).or_else(|| recovering().map(|_| "its index is being read again".to_owned()))
    }

    /// The device of the seat behind a gate.
    fn reach(&self, gate: &Arc<Gate>) -> Reach {
        Reach { device: Gated::new(Arc::clone(&self.device), Arc::clone(gate)), gate: Arc::clone(gate) }
    }

    /// The path, as it stands in the log.
    fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    fn promises(&self) -> usize {
        (largest_promise(&self.config) / PROMISE) as usize
    }
}

impl Shared {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// The directories are different from now on.
    fn change_view(&self, change: impl FnOnce(&mut View)) {
        let before = {
            let mut view = self.view.write();
            let mut changed = View::clone(&view);
            change(&mut changed);
            std::mem::replace(&mut *view, Arc::new(changed))
        };
        // Outside of the lock: an index may go with it.
        drop(before);
        self.tell();
    }

    /// Has everybody look again who waits.
    fn tell(&self) {
        self.progress.send_modify(|progress| *progress += 1);
    }

    /// Rises when something may have gone from a directory, or a directory with all that is in it: of one that fails, when the keeper has
    /// seen it.
    fn shrunk(&self) -> u64 {
        let gone: u64 = self.seats.iter().map(|seat| seat.counters.shrunk.load(Ordering::Acquire)).sum();
        gone + *self.progress.borrow()
    }

    /// Puts a directory to work.
    fn start(&self, number: usize, reach: Reach, identity: Identity) -> Result<Arc<Member>, DirectoryError> {
        let seat = &self.seats[number];
        let tier = DiskTier::start(Instance {
            config: seat.config.clone(),
            reach,
            directory: Directory::new(seat.path.clone(), identity),
            lock: seat.life.lock().lock.clone(),
            counters: Arc::clone(&seat.counters),
            pace: Arc::clone(&self.pace),
            sharers: self.seats.len(),
            seed: self.random.lock()(),
            budget: Arc::clone(&self.budget),
            buffers: Arc::clone(&self.buffers),
            clock: Arc::clone(&self.clock),
        })?;
        if let Some(above) = self.above.get().and_then(Weak::upgrade) {
            tier.set_above(&above);
        }
        let mut recovery = tier.disk.recovery.subscribe();
        let progress = self.progress.clone();
        tokio::spawn(async move {
            while recovery.changed().await.is_ok() {
                progress.send_modify(|progress| *progress += 1);
            }
        });
        Ok(Member::new(number, tier))
    }

    /// The identity of a directory that is new to the node, or new again.
    fn new_identity(&self, epoch: u64) -> Identity {
        let mut random = self.random.lock();
        Identity {
            directory: random_id(&mut **random),
            node: self.node,
            epoch,
            secret: random_id(&mut **random),
            created_ms: self.clock.now_ms(),
            node_name: self.node_name.clone(),
            siblings: Vec::new(),
        }
    }

    fn usage(&self) -> Usage {
        let view = self.view();
        let mut all = Usage { device: Some(self.device()), ..Usage::default() };
        for member in view.serving() {
            let usage = member.tier.occupied();
            all.entries += usage.entries;
            all.size_bytes += usage.size_bytes;
            all.capacity_bytes += usage.capacity_bytes;
            all.index_bytes += usage.index_bytes;
            all.staged_bytes += usage.staged_bytes;
        }
        for seat in &self.seats {
            all.evicted_for_room += seat.counters.evicted.load(Ordering::Relaxed);
            all.evicted_expired += seat.counters.expired.load(Ordering::Relaxed);
        }
        all
    }

    /// What has been done to all of them.
    fn device(&self) -> DeviceUsage {
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            self.seats.iter().map(|seat| counter(&seat.counters).load(Ordering::Relaxed)).sum()
        };
        let (view, now) = (self.view(), self.clock.elapsed());
        DeviceUsage {
            engine: self.seats.first().map_or("", |seat| seat.device.name()),
            stored_bytes: sum(|counters| &counters.stored),
            written_bytes: sum(|counters| &counters.written),
            rewritten_bytes: sum(|counters| &counters.rewritten),
            projected_bytes_per_day: self.seats.iter().map(|seat| seat.counters.wear.per_day(now)).sum(),
            scrubbed_bytes: sum(|counters| &counters.scrubbed),
            scrub_left_bytes: sum(|counters| &counters.scrub_left),
            read_bytes: sum(|counters| &counters.read),
            io_errors: sum(|counters| &counters.failed),
            damaged: sum(|counters| &counters.damaged),
            trouble: view.serving().next().is_none().then_some("no directory is in service"),
            recovering: view.serving().any(|member| member.is_recovering()),
        }
    }

    fn directories(&self) -> Vec<DirectoryUsage> {
        let view = self.view();
        let usage = |(number, seat): (usize, &Seat)| {
            let member = view.of_seat(number).filter(|member| member.serves());
            DirectoryUsage {
                path: seat.path.to_string_lossy().into_owned(),
                in_service: member.is_some(),
                size_bytes: member.map_or(0, |member| member.disk.segments.bytes()),
                capacity_bytes: seat.config.max_bytes,
                errors: seat.counters.failed.load(Ordering::Relaxed),
            }
        };
        self.seats.iter().enumerate().map(usage).collect()
    }
}

/// The ids of members.
fn ids<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> Vec<DirectoryId> {
    members.map(|member| member.id).collect()
}
