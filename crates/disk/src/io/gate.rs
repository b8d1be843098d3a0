//! What is under way in one directory, how it ends, and the end of it: a device that stands in front of another one.
//!
//! Everything that is done to a directory goes through its gate. The gate counts what is under way and for how long, sees what fails,
//! and is *shut* when the directory must not be used any more: nothing begins then, whoever awaits something hears an error at once,
//! and what is under way nevertheless ends some time, which nobody hears of. It is never opened again: whoever tries the
//! directory anew makes another gate, when nothing is under way behind this one.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinError;

use super::{Action, Blocks, Call, Device, Done, Entry, File, Memory, Open, Operation, Pending, Space};

/// How often [`Gate::tick`] has to be called.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Ticks that are told apart; what is older is as old as this.
const TICKS: usize = 256;
/// A directory whose oldest operation is older than this does not answer.
const SLOW: u32 = 15;
/// What any disk transfers in a tick: so much longer may what is under way take.
const BYTES_A_TICK: u64 = 1 << 20;
/// As many reads in a row may fail.
const READS: u32 = 8;

/// Where calls that block run.
pub(crate) type Pool = Handle;

/// The gate of a directory.
pub(crate) struct Gate {
    pool: Pool,
    shut: AtomicBool,
    why: Mutex<Option<String>>,
    /// Told when it is shut.
    news: Notify,
    tick: AtomicU32,
    lanes: [Lane; LANES],
    under_way: AtomicUsize,
    bytes: AtomicU64,
    reads_failed: AtomicU32,
}

/// Operations of one kind. What becomes of one kind says nothing of the others: what the page cache has is read from a disk that
/// has gone, and a file system may let nobody write and everybody read.
struct Lane {
    /// What is under way, by the tick in which it began.
    begun: [AtomicU32; TICKS],
    /// The tick in which something last ended.
    ended: AtomicU32,
}

/// Reads and writes, through the page cache and past it, and all else.
const LANES: usize = 5;
const REST: usize = 4;

/// The lane of an operation.
fn lane(action: Action, direct: bool) -> usize {
    match (action, direct) {
        (Action::Read, false) => 0,
        (Action::Read, true) => 1,
        (Action::Write, false) => 2,
        (Action::Write, true) => 3,
        (Action::Sync, _) => REST,
    }
}

/// Counts an operation for as long as it is under way: whoever performs it holds this until the kernel is done.
pub struct Ticket {
    gate: Arc<Gate>,
    lane: usize,
    begun: usize,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let gate = &self.gate;
        if let Some(lane) = gate.lanes.get(self.lane) {
            lane.ended.store(gate.tick.load(Ordering::Relaxed), Ordering::Relaxed);
            if let Some(begun) = lane.begun.get(self.begun) {
                begun.fetch_sub(1, Ordering::Relaxed);
            }
        }
        gate.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        gate.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Call {
    fn failed(self) -> &'static str {
        match self {
            Self::Read => "reads fail",
            Self::Write => "a write failed",
            Self::Sync => "a sync failed",
            Self::Open => "a file cannot be opened",
            Self::Allocate => "a file cannot be made longer",
            Self::Truncate => "a file cannot be cut",
            Self::Remove => "a file cannot be removed",
            Self::Rename => "a file cannot be renamed",
            Self::List => "it cannot be listed",
            Self::SyncDirectory => "its names cannot be synced",
            Self::Space => "its free space cannot be told",
        }
    }
}

impl Gate {
    /// An open one. Calls that block run in this pool.
    pub(crate) fn new(pool: Pool) -> Arc<Self> {
        Arc::new(Self {
            pool,
            shut: AtomicBool::new(false),
            why: Mutex::default(),
            news: Notify::new(),
            tick: AtomicU32::new(0),
            lanes: [const { Lane::new() }; LANES],
            under_way: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            reads_failed: AtomicU32::new(0),
        })
    }

    /// Whether nothing may begin any more.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// Why it was shut.
    pub(crate) fn why(&self) -> Option<String> {
        self.why.lock().clone()
    }

    /// Shuts it. The first reason stays.
    pub(crate) fn shut(&self, why: &str) {
        self.why.lock().get_or_insert_with(|| why.to_owned());
        self.shut.store(true, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    /// Waits until it is shut.
    pub(crate) async fn shutting(&self) {
        let news = pin!(self.news.notified());
        if !self.is_shut() {
            news.await;
        }
    }

    /// What is under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// A [`TICK`] has gone by: shuts it when something has been under way for longer than `limit`. Called by one task alone.
    pub(crate) fn tick(&self, limit: Duration) {
        let tick = self.tick.load(Ordering::Relaxed).wrapping_add(1);
        let ticks = (limit.as_millis() / TICK.as_millis()) as u32;
        // What began so long ago would pass for new. To be looked for as long as nothing can begin in the new tick.
        let ancient = self.lanes.iter().any(|lane| lane.has_begun(tick));
        self.tick.store(tick, Ordering::Release);
        if ancient || self.is_late(ticks) {
            let age = self.lanes.iter().map(|lane| lane.age(tick)).max().unwrap_or(0);
            let seconds = if ancient { TICKS as u32 } else { age } / 10;
            self.shut(&format!("an operation has been under way for {seconds} s"));
        }
    }

    /// Whether it has not answered for a while.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_late(SLOW)
    }

    /// Whether something has been under way for more than so many ticks: and nothing of its kind has ended in that time, or not
    /// even a slow disk would need that long for all that it was given.
    fn is_late(&self, ticks: u32) -> bool {
        let tick = self.tick.load(Ordering::Relaxed);
        let allowed = self.bytes.load(Ordering::Relaxed) / BYTES_A_TICK;
        self.under_way() > 0
            && self.lanes.iter().any(|lane| {
                let age = lane.age(tick);
                let silent = tick.wrapping_sub(lane.ended.load(Ordering::Relaxed));
                age > ticks && (silent > ticks || u64::from(age) > u64::from(ticks) + allowed)
            })
    }

    /// Lets something begin; nothing when it is shut.
    fn enter(self: &Arc<Self>, lane: usize, bytes: usize) -> io::Result<Ticket> {
        let begun = slot(self.tick.load(Ordering::Relaxed));
        let bytes = bytes as u64;
        // Counted before it looks whether it may: who has shut it and counts nothing knows that nothing will begin.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        if let Some(begun) = self.lanes.get(lane).and_then(|lane| lane.begun.get(begun)) {
            begun.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let ticket = Ticket { gate: Arc::clone(self), lane, begun, bytes };
        if self.is_shut() { Err(is_shut()) } else { Ok(ticket) }
    }

    /// Does something that blocks, and does not wait for its end longer than until the gate is shut.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, JoinError> {
        if self.is_shut() {
            return Ok(Err(is_shut()));
        }
        let working = self.pool.spawn_blocking(work);
        tokio::select! {
            biased;
            worked = working => worked,
            () = self.shutting() => Ok(Err(is_shut())),
        }
    }

    /// Something has ended. Shuts the gate where that means that the directory must not be used.
    fn saw<T>(&self, call: Call, result: &io::Result<T>) {
        let failed = match result {
            Ok(_) => {
                if call == Call::Read && self.reads_failed.load(Ordering::Relaxed) > 0 {
                    self.reads_failed.store(0, Ordering::Relaxed);
                }
                return;
            }
            Err(error) if is_harmless(call, error) => return,
            Err(error) => error,
        };
        if call != Call::Read || self.reads_failed.fetch_add(1, Ordering::Relaxed) + 1 >= READS {
            self.shut(&format!("{}: {failed}", call.failed()));
        }
    }
}

impl Lane {
    const fn new() -> Self {
        Self { begun: [const { AtomicU32::new(0) }; TICKS], ended: AtomicU32::new(0) }
    }

    /// Whether something is under way that began in this tick.
    fn has_begun(&self, tick: u32) -> bool {
        self.begun.get(slot(tick)).is_some_and(|begun| begun.load(Ordering::Relaxed) > 0)
    }

    /// How many ticks ago the oldest operation began that is under way.
    fn age(&self, tick: u32) -> u32 {
        (0..TICKS as u32).rev().find(|age| self.has_begun(tick.wrapping_sub(*age))).unwrap_or(0)
    }
}

/// Whether an error says nothing against the directory: there is no room, the process lacks something, what was to be removed is
/// not there, or what was to be made is.
fn is_harmless(call: Call, error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::OutOfMemory
        | io::ErrorKind::Interrupted
        | io::ErrorKind::WouldBlock => true,
        io::ErrorKind::NotFound => call == Call::Remove,
        io::ErrorKind::AlreadyExists => call == Call::Open,
        _ => matches!(error.raw_os_error(), Some(ENFILE | EMFILE)),
    }
}

fn is_shut() -> io::Error {
    io::Error::other("the directory is out of service")
}

fn slot(tick: u32) -> usize {
    tick as usize % TICKS
}

/// A device behind a gate.
pub(crate) struct Gated {
    device: Arc<dyn Device>,
    gate: Arc<Gate>,
}

impl Gated {
    pub(crate) fn new(device: Arc<dyn Device>, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { device, gate })
    }

    fn call<T>(&self, call: Call, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _ticket = self.gate.enter(REST, 0)?;
        let result = perform();
        self.gate.saw(call, &result);
        result
    }
}

impl Device for Gated {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn submit(&self, mut operation: Operation) -> Pending {
        let call = match operation.action {
            Action::Read => Call::Read,
            Action::Write => Call::Write,
            Action::Sync => Call::Sync,
        };
        let lane = lane(operation.action, operation.file.direct);
        match self.gate.enter(lane, operation.memory.len()) {
            Ok(ticket) => operation.ticket = Some(ticket),
            Err(error) => {
                let done = Done { result: Err(error), memory: operation.memory };
                return Box::pin(std::future::ready(done));
            }
        }
        let mut pending = self.device.submit(operation);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let done = tokio::select! {
                biased;
                done = &mut pending => done,
                // The memory stays with the operation.
                () = gate.shutting() => Done { result: Err(is_shut()), memory: Memory::default() },
            };
            if !gate.is_shut() {
                gate.saw(call, &done.result);
            }
            done
        })
    }

    fn blocks(&self, len: usize) -> Blocks {
        self.device.blocks(len)
    }

    fn room(&self, len: usize) -> Blocks {
        self.device.room(len)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<File>> {
        self.call(Call::Open, || self.device.open(path, how))
    }

    fn allocate(&self, file: &File, part: Range<u64>) -> io::Result<()> {
        self.call(Call::Allocate, || self.device.allocate(file, part))
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.call(Call::Truncate, || self.device.truncate(file, len))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Remove, || self.device.remove(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Rename, || self.device.rename(from, to))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.call(Call::List, || self.device.list(directory))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call(Call::SyncDirectory, || self.device.sync_directory(directory))
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        self.call(Call::Space, || self.device.space(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::spin_loop;
    use std::thread;

    /// Begins when `begin` is the round's number, and is over when `end` is.
    fn hold_in_each_round(
        gate: &Arc<Gate>,
        rounds: usize,
        begin: &AtomicUsize,
        end: &AtomicUsize,
        over: &AtomicUsize,
    ) {
        for round in 1..=rounds {
            while begin.load(Ordering::Acquire) < round {
                spin_loop();
            }
            let ticket = gate.enter(REST, 0);
            while end.load(Ordering::Acquire) < round {
                spin_loop();
            }
            drop(ticket);
            over.store(round, Ordering::Release);
        }
    }

    /// What began between the new tick's becoming known and the look for what began 256 ticks ago passed for that old: a directory
    /// that was busy went out of service for "an operation of 25 s", once in hours.
    #[tokio::test]
    async fn what_begins_while_a_tick_goes_by_is_new() {
        const ROUNDS: usize = 20_000;
        let gate = Gate::new(Handle::current());
        let [begin, end, over] = [const { AtomicUsize::new(0) }; 3];
        thread::scope(|scope| {
            scope.spawn(|| hold_in_each_round(&gate, ROUNDS, &begin, &end, &over));
            for round in 1..=ROUNDS {
                begin.store(round, Ordering::Release);
                // A different moment of the tick each time.
                (0..round % 64).for_each(|_| spin_loop());
                gate.tick(Duration::from_secs(3600));
                end.store(round, Ordering::Release);
                while over.load(Ordering::Acquire) < round {
                    spin_loop();
                }
            }
        });
        assert_eq!(gate.why(), None);
    }
}
