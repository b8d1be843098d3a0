//! A disk in memory, for tests: it knows what was written and what was synced, loses power, and fails as it is told to.
//! What it does follows from its seed and from the order of the calls.
//!
//! Every directory exists. Without latency an operation has taken place when `submit` returns.

mod content;
mod disk;
mod random;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::disk::{Disk, Mark};
use self::random::Random;
pub use super::Call;
use super::answer::answer;
use super::{Action, BLOCK, Blocks, Device, Entry, File, Open, Operation, Pending, Space};

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EROFS: i32 = 30;

/// How often an operation that hangs looks whether it may go on.
const HANGS: Duration = Duration::from_millis(20);

/// How the device misbehaves from now on.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How likely a read or write does only a part, at least one byte. On direct files it reads whole
    /// blocks and writes whole sectors of 512 bytes.
    pub short: f64,
    /// How likely a read gives bytes of which one bit is turned around.
    pub flipped: f64,
    /// How likely a read fails.
    pub failing_reads: f64,
    /// How likely a write fails.
    pub failing_writes: f64,
    /// Operations take up to so long, each its own time, so that they end in another order. Needs a tokio runtime with time.
    pub latency: Option<Duration>,
    /// Bytes on the disk: files that would need more fail with [`io::ErrorKind::StorageFull`].
    pub capacity: u64,
    /// Every call fails with this error of the system.
    pub broken: Option<i32>,
    /// Operations do not end as long as this is so.
    pub hangs: bool,
    /// The same of writes alone.
    pub writes_hang: bool,
    /// The file system can only be read.
    pub read_only: bool,
    /// Every call of this kind fails with EIO.
    pub failing: Option<Call>,
    /// The directories are gone, and with them all names: what is open is read and written as before.
    pub gone: bool,
}

impl Faults {
    /// All is well.
    pub const NONE: Self = Self {
        short: 0.0,
        flipped: 0.0,
        failing_reads: 0.0,
        failing_writes: 0.0,
        latency: None,
        capacity: 1 << 40,
        broken: None,
        hangs: false,
        writes_hang: false,
        read_only: false,
        failing: None,
        gone: false,
    };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// The device.
pub struct Sim {
    state: Arc<Mutex<State>>,
}

struct State {
    disk: Disk,
    random: Random,
    faults: Faults,
    /// What fails: after so many more calls, with which error of the system.
    failures: Vec<(Call, u64, i32)>,
    /// Which file of the disk an open one is.
    open: HashMap<u64, u64>,
    is_off: bool,
}

impl Sim {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self::with(Disk::default(), seed)
    }

    fn with(disk: Disk, seed: u64) -> Self {
        let random = Random::new(seed);
        let (faults, failures, open) = (Faults::default(), Vec::new(), HashMap::new());
        Self { state: Arc::new(Mutex::new(State { disk, random, faults, failures, open, is_off: false })) }
    }

    /// Sets how it misbehaves.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// All is well from now on.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults = Faults::default();
        state.failures.clear();
    }

    /// Lets the `nth` call of a kind from now fail, 0 being the next, with an error number of the system; once.
    pub fn fail(&self, call: Call, nth: u64, errno: i32) {
        self.state.lock().failures.push((call, nth, errno));
    }

    /// Everything in it is removed. What is open is there until it is closed.
    pub fn remove_all(&self) {
        self.state.lock().disk.remove_all();
    }

    /// Turns around bits of a byte of a file behind everybody's back.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.disk.find(path)?;
        state.disk.flip(file, offset, mask);
        Ok(())
    }

    /// The disk after a loss of power: of what was not synced, each write is there, is not, or is torn between sectors of 512
    /// bytes, and each name is as before or as after. This device does nothing more.
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut state = self.state.lock();
        state.is_off = true;
        Self::with(state.disk.after_power_cut(&mut Random::new(seed)), seed)
    }

    /// The disk after the process was killed: everything that was written is there. This device does nothing more.
    pub fn kill(&self, seed: u64) -> Self {
        let mut state = self.state.lock();
        state.is_off = true;
        Self::with(state.disk.after_kill(), seed)
    }

    fn call(&self, call: Call) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        state.check(call)?;
        Ok(state)
    }
}

impl Device for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn submit(&self, mut operation: Operation) -> Pending {
        let (answer, pending) = answer();
        let mut state = self.state.lock();
        let mark = state.disk.mark();
        if state.hangs(operation.action) {
            let state = Arc::clone(&self.state);
            tokio::spawn(async move {
                while state.lock().hangs(operation.action) {
                    tokio::time::sleep(HANGS).await;
                }
                let result = state.lock().perform(&mut operation, mark);
                answer.give(result, operation.memory);
            });
            return pending;
        }
        let Some(latency) = state.faults.latency else {
            let result = state.perform(&mut operation, mark);
            answer.give(result, operation.memory);
            return pending;
        };
        let delay = latency.mul_f64(state.random.below(1000) as f64 / 1000.0);
        // What the operation does may happen at once and be known late, or happen late.
        let early = state.random.chance(0.5) && operation.action != Action::Sync;
        let early = early.then(|| state.perform(&mut operation, mark));
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let result = early.unwrap_or_else(|| state.lock().perform(&mut operation, mark));
            answer.give(result, operation.memory);
        });
        pending
    }

    fn blocks(&self, len: usize) -> Blocks {
        Blocks::zeroed(len)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<File>> {
        let mut state = self.call(Call::Open)?;
        let number = if how.create { state.disk.create(path)? } else { state.disk.find(path)? };
        let file = File::new(None, how.direct);
        state.open.insert(file.id, number);
        Ok(file)
    }

    fn allocate(&self, file: &File, part: Range<u64>) -> io::Result<()> {
        let mut state = self.call(Call::Allocate)?;
        let number = state.number(file)?;
        if !part.is_empty() && part.end > state.disk.len(number) {
            state.reserve(number, part.end)?;
            state.disk.set_len(number, part.end);
        }
        Ok(())
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        let mut state = self.call(Call::Truncate)?;
        let number = state.number(file)?;
        state.disk.set_len(number, len);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Remove)?.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Rename)?.disk.rename(from, to)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        Ok(self.call(Call::List)?.disk.list(directory))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call(Call::SyncDirectory)?.disk.sync_directory(directory);
        Ok(())
    }

    fn space(&self, _directory: &Path) -> io::Result<Space> {
        let state = self.call(Call::Space)?;
        let Faults { capacity: total, read_only, .. } = state.faults;
        Ok(Space { total, available: total.saturating_sub(state.disk.used()), read_only })
    }
}

impl State {
    /// Whether the call takes place: not without power, and not when it is told to fail.
    fn check(&mut self, call: Call) -> io::Result<()> {
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        let Faults { broken, read_only, failing, gone, .. } = self.faults;
        use Call::{List, Open, Read, Remove, Rename, Space, Sync, SyncDirectory};
        let reads = matches!(call, Read | Open | List | Sync | SyncDirectory | Space);
        let names = matches!(call, Open | Remove | Rename | List | SyncDirectory | Space);
        let mut failure = broken
            .or((failing == Some(call)).then_some(EIO))
            .or((gone && names).then_some(ENOENT))
            .or((read_only && !reads).then_some(EROFS));
        let likely = match call {
            Call::Read => self.faults.failing_reads,
            Call::Write => self.faults.failing_writes,
            _ => 0.0,
        };
        if likely > 0.0 && self.random.chance(likely) {
            failure = Some(EIO);
        }
        self.failures.retain_mut(|(of, left, errno)| match (*of == call, *left) {
            (true, 0) => {
                failure = Some(*errno);
                false
            }
            (true, _) => {
                *left -= 1;
                true
            }
            (false, _) => true,
        });
        failure.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// Whether what has been begun goes on hanging: not for ever after the power is off.
    fn hangs(&self, action: Action) -> bool {
        let hangs = self.faults.hangs || (self.faults.writes_hang && action == Action::Write);
        hangs && !self.is_off
    }

    fn number(&self, file: &File) -> io::Result<u64> {
        let foreign = || io::Error::new(io::ErrorKind::InvalidInput, "a file of another device");
        self.open.get(&file.id).copied().ok_or_else(foreign)
    }

    fn perform(&mut self, operation: &mut Operation, mark: Mark) -> io::Result<usize> {
        let number = self.number(&operation.file)?;
        match operation.action {
            Action::Read => self.check(Call::Read).and_then(|()| self.read(number, operation)),
            Action::Write => self.check(Call::Write).and_then(|()| self.write(number, operation)),
            Action::Sync => {
                self.check(Call::Sync)?;
                self.disk.sync(number, mark);
                Ok(0)
            }
        }
    }

    fn read(&mut self, number: u64, operation: &mut Operation) -> io::Result<usize> {
        let Operation { file, offset, memory, done, .. } = operation;
        let runs = memory.runs_to_fill(*done)?;
        let mut at = offset.saturating_add(*done as u64);
        check_alignment(file, at, runs.iter().map(|run| &run[..]))?;
        let mut left = self.shortened(file, BLOCK, runs.iter().map(|run| run.len()).sum());
        let mut count = 0;
        for mut run in runs {
            let len = run.len().min(left);
            let got = self.disk.read(number, at, &mut run[..len]);
            if got > 0 && self.random.chance(self.faults.flipped) {
                let bit = self.random.below(8 * got as u64) as usize;
                run[bit / 8] ^= 1 << (bit % 8);
            }
            (left, at, count) = (left - len, at + got as u64, count + got);
        }
        Ok(count)
    }

    fn write(&mut self, number: u64, operation: &Operation) -> io::Result<usize> {
        let Operation { file, offset, memory, done, .. } = operation;
        let runs = memory.runs_to_write(*done)?;
        let at = offset.saturating_add(*done as u64);
        check_alignment(file, at, runs.iter().map(|run| &run[..]))?;
        let mut bytes = runs.iter().flat_map(|run| run.iter().copied()).collect::<Vec<u8>>();
        bytes.truncate(self.shortened(file, 512, bytes.len()));
        let count = bytes.len();
        self.reserve(number, at.saturating_add(count as u64))?;
        self.disk.write(number, at, bytes);
        Ok(count)
    }

    fn shortened(&mut self, file: &File, unit: usize, len: usize) -> usize {
        let unit = if file.direct { unit } else { 1 };
        if len <= unit || !self.random.chance(self.faults.short) {
            return len;
        }
        (1 + self.random.below((len / unit) as u64) as usize) * unit
    }

    /// Whether a file may become so long.
    fn reserve(&self, number: u64, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.disk.len(number));
        let fits = self.disk.used().saturating_add(more) <= self.faults.capacity;
        if more == 0 || fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

/// Direct I/O is refused where anything is not whole blocks.
fn check_alignment<'a>(file: &File, at: u64, mut runs: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let is_whole = at.is_multiple_of(BLOCK as u64)
        && runs.all(|run| run.len().is_multiple_of(BLOCK) && run.as_ptr().addr().is_multiple_of(BLOCK));
    if file.direct && !is_whole { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
}
