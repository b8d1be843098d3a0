//! A directory at work: records and extents are written and read. What the tier's methods are made of.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use elcache_core::clock::Clock;
use elcache_core::payload::Buffers;
use elcache_core::tier::Refusal;
use elcache_core::value::Version;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use crate::config::DiskConfig;
use crate::directory::{Directory, Lock};
use crate::format::record::Record;
use crate::index::Index;
use crate::index::entry::{Entry, Kind, Name};
use crate::io::{Device, Gate};
use crate::log::{Append, Failed, Need, Outcome, State};
use crate::segment::{Segment, Segments};
use crate::sums::SumsCache;

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

/// What has happened, counted.
#[derive(Default)]
pub(crate) struct Counters {
    /// Records and blocks that did not verify.
    pub(crate) damaged: AtomicU64,
    /// Operations that failed.
    pub(crate) failed: AtomicU64,
    /// Bytes that went to the disk.
    pub(crate) written: AtomicU64,
    /// Bytes of payload that clients stored.
    pub(crate) stored: AtomicU64,
    /// Values that went with their segment.
    pub(crate) evicted: AtomicU64,
    /// Values whose time was over.
    pub(crate) expired: AtomicU64,
    /// Bytes that came from the disk.
    pub(crate) read: AtomicU64,
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
    /// One at a time makes room: opens segments, makes files longer, frees.
    pub(crate) growing: tokio::sync::Mutex<()>,
    /// One at a time frees.
    pub(crate) freeing: tokio::sync::Mutex<()>,
    /// What the next segment is called when there is none.
    pub(crate) next_number: AtomicU32,
    pub(crate) sums: SumsCache,
    pub(crate) recovery: watch::Sender<Recovery>,
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
    /// How many directories share the memory for what waits and what is lent.
    pub(crate) sharers: usize,
    pub(crate) index: Index,
    pub(crate) sums: SumsCache,
    pub(crate) buffers: Arc<dyn Buffers>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Disk {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, device, gate, directory, lock, counters, sharers, index, sums, buffers, clock } =
            parts;
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
            freeing: tokio::sync::Mutex::new(()),
            next_number: AtomicU32::new(1),
            sums,
            recovery: watch::Sender::new(Recovery::Running(0)),
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

    /// Appends records, one behind the other, and waits until they are written and in the index.
    pub(crate) async fn append(self: &Arc<Self>, records: &[(Name, Record)]) -> Result<(), Refusal> {
        let mut done = None;
        for (name, record) in records {
            done = Some(self.append_one(&Append { record, name: *name }).await?);
        }
        match done {
            Some(done) => settled(done).await,
            None => Ok(()),
        }
    }

    async fn append_one(self: &Arc<Self>, append: &Append<'_>) -> Result<watch::Receiver<Outcome>, Refusal> {
        let len = append.record.len();
        let need = Need::record(len);
        let permits = len.div_ceil(PERMIT) as u32;
        let permit =
            Arc::clone(&self.waiting).acquire_many_owned(permits).await.map_err(|_| Refusal::Failed)?;
        let capacity = self.config.segment_bytes();
        loop {
            {
                let mut state = self.state.lock();
                if state.failed {
                    return Err(Refusal::Failed);
                }
                state.highest = state.highest.max(append.record.meta.version);
                if let Some(open) = state.current.as_mut().filter(|open| open.has_room(need, capacity)) {
                    open.hold(permit);
                    let done = open.append(append, &self.directory.seeds);
                    drop(state);
                    self.work.notify_one();
                    return Ok(done);
                }
            }
            self.grow(need).await?;
        }
    }

    /// Appends the record of an extent to the log of its segment and waits until it is in the index.
    pub(crate) async fn enter(&self, segment: u32, need: Need, append: &Append<'_>) -> Result<(), Refusal> {
        let done = {
            let mut state = self.state.lock();
            state.highest = state.highest.max(append.record.meta.version);
            let Some(open) = state.open(segment) else { return Err(Refusal::Failed) };
            let done = open.append(append, &self.directory.seeds);
            open.landed(need, true);
            done
        };
        self.work.notify_one();
        settled(done).await
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

    /// The segment of an entry.
    pub(crate) fn segment(&self, entry: &Entry) -> Option<Arc<Segment>> {
        self.segments.get(entry.place.segment)
    }

    /// What is at this place does not verify: it is not looked at again.
    pub(crate) fn bury(&self, name: &Name, entry: &Entry) {
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        if self.index.bury(name, &entry.place) {
            tracing::warn!(segment = entry.place.segment, "a record does not verify and is dropped");
        }
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
async fn settled(mut done: watch::Receiver<Outcome>) -> Result<(), Refusal> {
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
