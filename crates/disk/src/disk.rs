//! A directory at work: records and extents are written and read. What the tier's methods are made of.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::payload::Buffers;
use elcache_core::tier::{Above, Refusal};
use elcache_core::value::Version;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::config::DiskConfig;
use crate::directory::{Directory, Lock};
use crate::format::record::{Kind as RecordKind, Record};
use crate::found::Found;
use crate::index::Index;
use crate::index::entry::{Entry, Kind, Name};
use crate::io::{Device, Gate};
use crate::log::{Append, By, Failed, Need, Open, Outcome, State};
use crate::pace::Pace;
use crate::pins::Pins;
use crate::segment::{Segment, Segments};
use crate::sums::SumsCache;
use crate::wear::Wear;

/// Bytes of records that may wait to be written.
const WAITING: usize = 8 << 20;
/// Room is given out in these.
pub(crate) const PERMIT: usize = 1 << 10;
/// The least of either that a directory has, where several share it.
const SHARE_MIN: usize = 512 << 10;
/// Bytes that may be with readers at once in other memory than the budget's buffers.
const LENT: usize = 8 << 20;

/// How far recovery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// So many segments are done.
    Running(u64),
    /// All of them are.
    Done,
    /// It failed: nothing is found here any more, and nothing is written.
    Failed,
}

/// What became of a record that was to be appended.
pub(crate) enum Tried {
    /// It waits to be written.
    Appended(watch::Receiver<Outcome>),
    /// There is no room for so much.
    NoRoom(Need),
    /// It is a copy of what is not the last of its name any more.
    Overtaken,
}

/// What has happened, counted.
#[derive(Default)]
pub(crate) struct Counters {
    /// Records and blocks that did not verify.
    pub(crate) damaged: AtomicU64,
    /// What unfinished uploads count on and may not be there any more.
    pub(crate) lost: AtomicU64,
    /// Operations that failed.
    pub(crate) failed: AtomicU64,
    /// Bytes that went to the disk.
    pub(crate) written: AtomicU64,
    pub(crate) wear: Wear,
    /// Bytes of payload that clients stored.
    pub(crate) stored: AtomicU64,
    /// Values that went with their segment.
    pub(crate) evicted: AtomicU64,
    /// Values whose time was over.
    pub(crate) expired: AtomicU64,
    /// Times that chunks or pages may have gone.
    pub(crate) shrunk: AtomicU64,
    /// Bytes that came from the disk.
    pub(crate) read: AtomicU64,
    /// Bytes of records that were written again before their segment went.
    pub(crate) rewritten: AtomicU64,
    /// Bytes that were read only to verify them.
    pub(crate) scrubbed: AtomicU64,
    /// Bytes of the segments that the present pass over all of them has not come to.
    pub(crate) scrub_left: AtomicU64,
}

impl Counters {
    pub(crate) fn new(clock: &dyn Clock) -> Arc<Self> {
        Arc::new(Self { wear: Wear::new(clock.elapsed()), ..Self::default() })
    }
}

/// A directory at work.
pub(crate) struct Disk {
    pub(crate) config: DiskConfig,
    pub(crate) device: Arc<dyn Device>,
    /// What the device is behind; nothing is awaited longer than until it is shut.
    pub(crate) gate: Arc<Gate>,
    pub(crate) directory: Directory,
    /// Given back when the last task that may write has ended.
    _lock: Option<Arc<Lock>>,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) state: Mutex<State>,
    /// There is something to write.
    pub(crate) work: Notify,
    waiting: Arc<Semaphore>,
    /// One at a time makes room: opens segments, makes files longer.
    pub(crate) growing: tokio::sync::Mutex<()>,
    /// Somebody waits for room, or for memory for the index.
    pub(crate) wanted: AtomicBool,
    pub(crate) reclaim: Notify,
    /// Something has been freed.
    pub(crate) freed: watch::Sender<()>,
    /// The segment that is being reclaimed, or was last.
    pub(crate) condemned: AtomicU32,
    pub(crate) pace: Arc<Pace>,
    /// What unfinished uploads count on: reclaiming never lets go of it.
    pub(crate) pins: Pins,
    /// A faster tier, once it is known: what it has is in use.
    pub(crate) above: OnceLock<Weak<dyn Above>>,
    pub(crate) budget: Arc<Budget>,
    /// What the next segment is called when there is none.
    pub(crate) next_number: AtomicU32,
    pub(crate) sums: SumsCache,
    pub(crate) recovery: watch::Sender<Recovery>,
    /// What recovery has found of drafts, until somebody takes it.
    pub(crate) found: Mutex<Found>,
    /// What uploads count on is pinned again.
    pub(crate) restored: watch::Sender<bool>,
    pub(crate) buffers: Arc<dyn Buffers>,
    /// Room for what is with readers outside of the budget's buffers.
    pub(crate) lent: Arc<Semaphore>,
    /// Ranges of payloads that are being read.
    pub(crate) reading: AtomicUsize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<Counters>,
    /// What uploads may still be promised.
    pub(crate) promises: Arc<Semaphore>,
    pub(crate) stopping: AtomicBool,
    /// Where chance comes from that nothing depends on.
    pub(crate) chance: AtomicU64,
}

/// What a directory at work is made of.
pub(crate) struct Parts {
    pub(crate) config: DiskConfig,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) directory: Directory,
    pub(crate) lock: Option<Arc<Lock>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pace: Arc<Pace>,
    /// How many directories share the memory for what waits and what is lent.
    pub(crate) sharers: usize,
    pub(crate) index: Index,
    pub(crate) sums: SumsCache,
    pub(crate) budget: Arc<Budget>,
    pub(crate) buffers: Arc<dyn Buffers>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Disk {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, device, gate, directory, lock, counters, pace, sharers, .. } = parts;
        let Parts { index, sums, budget, buffers, clock, .. } = parts;
        let promises = crate::tier::largest_promise(&config) / crate::tier::PROMISE;
        Arc::new(Self {
            config,
            device,
            gate,
            directory,
            _lock: lock,
            index,
            segments: Segments::default(),
            state: Mutex::default(),
            work: Notify::new(),
            waiting: Arc::new(Semaphore::new(share(WAITING, sharers))),
            growing: tokio::sync::Mutex::new(()),
            wanted: AtomicBool::new(false),
            reclaim: Notify::new(),
            freed: watch::Sender::new(()),
            condemned: AtomicU32::new(0),
            pace,
            pins: Pins::default(),
            above: OnceLock::new(),
            budget,
            next_number: AtomicU32::new(1),
            sums,
            recovery: watch::Sender::new(Recovery::Running(0)),
            found: Mutex::default(),
            restored: watch::Sender::new(false),
            buffers,
            lent: Arc::new(Semaphore::new(share(LENT, sharers))),
            reading: AtomicUsize::new(0),
            clock,
            counters,
            promises: Arc::new(Semaphore::new(promises as usize)),
            stopping: AtomicBool::new(false),
            chance: AtomicU64::new(0),
        })
    }

    /// Appends a record and waits until it is written and in the index.
    pub(crate) async fn append(self: &Arc<Self>, name: Name, record: &Record) -> Result<(), Refusal> {
        // What deletes, or completes what has been written, is little and need not wait.
        if matches!(record.kind, RecordKind::Value | RecordKind::Fragment) {
            self.pace.turn().await?;
        }
        let append = Append { record, name, copy_of: None };
        let permits = record.len().div_ceil(PERMIT) as u32;
        loop {
            let permit =
                Arc::clone(&self.waiting).acquire_many_owned(permits).await.map_err(|_| Refusal::Failed)?;
            match self.try_append(&append, Some(permit))? {
                Tried::Appended(done) => return settled(done).await,
                Tried::NoRoom(need) => self.grow(need, By::Writer).await?,
                Tried::Overtaken => return Err(Refusal::Failed),
            }
        }
    }

    /// Appends a record, if there is room. A copy is appended only while what it is a copy of is the last of its name.
    pub(crate) fn try_append(
        &self,
        append: &Append<'_>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Tried, Refusal> {
        let need = Need::record(append.record.len());
        let by = if append.copy_of.is_some() { By::Reclaimer } else { By::Writer };
        let mut state = self.state.lock();
        if state.failed {
            return Err(Refusal::Failed);
        }
        if self.is_overtaken(&state, append) {
            return Ok(Tried::Overtaken);
        }
        state.highest = state.highest.max(append.record.meta.version);
        let held = state.underway.hold(&append.name);
        let Some(open) = self.room_for(&mut state, need, by) else { return Ok(Tried::NoRoom(need)) };
        permit.into_iter().for_each(|permit| open.hold(permit));
        let done = open.append(append, held, &self.directory.seeds);
        drop(state);
        self.work.notify_one();
        Ok(Tried::Appended(done))
    }

    /// Appends the record of an extent to the log of its segment and waits until it is in the index. A copy of what is not the
    /// last of its name any more is not appended.
    pub(crate) async fn enter(&self, segment: u32, need: Need, append: &Append<'_>) -> Result<(), Refusal> {
        let done = {
            let mut state = self.state.lock();
            let overtaken = self.is_overtaken(&state, append);
            state.highest = state.highest.max(append.record.meta.version);
            let held = state.underway.hold(&append.name);
            let Some(open) = state.open(segment) else { return Err(Refusal::Failed) };
            open.landed(need, !overtaken);
            if overtaken {
                drop(state);
                self.work.notify_one();
                return Ok(());
            }
            open.append(append, held, &self.directory.seeds)
        };
        self.work.notify_one();
        settled(done).await
    }

    /// Where a record of so much goes, if there is room and this one may write.
    pub(crate) fn room_for<'s>(&self, state: &'s mut State, need: Need, by: By) -> Option<&'s mut Open> {
        let may = by != By::Writer || !self.index.is_tight();
        may.then(|| state.room_for(need, self.config.segment_bytes(), by)).flatten()
    }

    /// Whether it is a copy, and something newer is in the index or on its way there.
    fn is_overtaken(&self, state: &State, append: &Append<'_>) -> bool {
        append.copy_of.is_some_and(|place| {
            // In this order: what has just arrived is in the index.
            state.underway.has(&append.name)
                || self.index.get(&append.name).is_none_or(|it| it.place != place || it.kind == Kind::Dead)
        })
    }

    /// What the index has under a name. While recovery runs, waits for it until it is found or recovery has ended.
    pub(crate) async fn look_up(&self, name: &Name) -> Result<Option<Entry>, NotYet> {
        if let Some(entry) = self.index.get(name) {
            return Ok(Some(entry));
        }
        let mut recovery = self.recovery.subscribe();
        let search = async {
            loop {
                let state = *recovery.borrow_and_update();
                if let Some(entry) = self.index.get(name) {
                    return Ok(Some(entry));
                }
                match state {
                    Recovery::Running(_) => recovery.changed().await.map_err(|_| NotYet)?,
                    Recovery::Done | Recovery::Failed => return Ok(None),
                }
            }
        };
        tokio::time::timeout(self.config.patience, search).await.unwrap_or(Err(NotYet))
    }

    /// As far as it can be said at once.
    pub(crate) fn look_up_now(&self, name: &Name) -> Option<Option<Entry>> {
        let entry = self.index.get(name);
        (entry.is_some() || !matches!(*self.recovery.borrow(), Recovery::Running(_))).then_some(entry)
    }

    /// Waits until recovery has ended.
    pub(crate) async fn recovered(&self) -> Result<(), NotYet> {
        let mut recovery = self.recovery.subscribe();
        let ended = recovery.wait_for(|state| !matches!(state, Recovery::Running(_)));
        match tokio::time::timeout(self.config.patience, ended).await {
            Ok(Ok(state)) if *state == Recovery::Done => Ok(()),
            _ => Err(NotYet),
        }
    }

    /// Waits until recovery has ended, however long that takes; whether it ended well.
    pub(crate) async fn recovers(&self) -> bool {
        let mut recovery = self.recovery.subscribe();
        let ended = recovery.wait_for(|state| !matches!(state, Recovery::Running(_))).await;
        ended.is_ok_and(|state| *state == Recovery::Done)
    }

    /// Waits until what uploads count on is pinned again.
    pub(crate) async fn is_restored(&self) -> bool {
        self.restored.subscribe().wait_for(|restored| *restored).await.is_ok()
    }

    /// The segment of an entry.
    pub(crate) fn segment(&self, entry: &Entry) -> Option<Arc<Segment>> {
        self.segments.get(entry.place.segment)
    }

    /// What is at this place does not verify: it is not looked at again.
    pub(crate) fn bury(&self, name: &Name, entry: &Entry) {
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.pins.bury(&self.index, name, &entry.place) {
            self.counters.shrunk.fetch_add(1, Ordering::Release);
            self.counters.lost.fetch_add(u64::from(before.pinned), Ordering::Release);
            tracing::warn!(segment = entry.place.segment, "a record does not verify and is dropped");
        }
    }

    /// Counts what went to the disk.
    pub(crate) fn count_written(&self, bytes: u64) {
        self.counters.written.fetch_add(bytes, Ordering::Relaxed);
        self.counters.wear.add(bytes, self.clock.elapsed());
        self.pace.spend(bytes);
    }

    /// Counts a failed operation and says so.
    pub(crate) fn failed(&self, what: &str, error: &io::Error) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(directory = %self.directory.path.display(), %error, "{what}");
    }

    /// Nothing is to be read or written here any more: whoever waits hears that it has failed.
    pub(crate) fn give_up_all(&self) {
        self.state.lock().abandon_all();
        self.waiting.close();
        self.work.notify_one();
    }

    /// The highest version of any record that is known.
    pub(crate) fn highest(&self) -> Version {
        self.state.lock().highest
    }
}

/// A directory's part of so many bytes, in permits. The largest record finds room in it.
fn share(bytes: usize, sharers: usize) -> usize {
    (bytes / sharers.max(1)).max(SHARE_MIN) / PERMIT
}

/// It cannot be said yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotYet;

/// Waits for the end of a batch.
pub(crate) async fn settled(mut done: watch::Receiver<Outcome>) -> Result<(), Refusal> {
    match done.wait_for(Option::is_some).await {
        Ok(outcome) if *outcome == Some(Ok(())) => Ok(()),
        Ok(_) | Err(_) => Err(Refusal::Failed),
    }
}

/// Whether there is a value under an entry.
pub(crate) fn is_value(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Value | Kind::Root)
}

/// Does something that takes its time off the network's threads, unless it is little.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    const INLINE: usize = 128 << 10;
    if bytes <= INLINE { Some(work()) } else { tokio::task::spawn_blocking(work).await.ok() }
}

impl From<Failed> for Refusal {
    fn from(Failed: Failed) -> Self {
        Self::Failed
    }
}
