//! Operations on rings of io_uring.
//!
//! Whoever submits puts the operation on a ring and tells the kernel, under a short lock; a task of the runtime, woken when
//! the ring's descriptor becomes readable, takes what has ended and begins what waits.
//!
//! An operation is owned by its ring, as the address that the kernel gives back, from the moment when it is begun until its
//! completion is taken: file and memory live that long whatever becomes of the caller, the engine or the runtime.
//!
//! The kernel finishes an operation on the thread that began it, when that thread next enters or leaves the kernel. A thread that
//! submits and then blocks on a disk in another way holds up its own operations.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::thread;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::answer::{Answer, answer};
use super::blocks::Slots;
use super::files::{self, blocking_methods};
use super::{Action, Blocks, Device, Entry, File, Open, Operation, Part, Pending, Space};

/// As many slots as there are operations at once, and no more than this (8 MiB).
const SLOTS_MAX: usize = 64;
/// As many operations as a ring is made for at most.
const DEPTH_MAX: usize = 4096;
/// How often an operation is begun again that the kernel gave up because the thread that had begun it ended.
const CANCELLED_MAX: u8 = 8;
/// What the kernel transfers in one call at most (`MAX_RW_COUNT`).
const LEN_MAX: usize = 0x7fff_f000;

/// The engine.
pub(super) struct Uring {
    ring: Arc<Ring>,
    driver: AbortHandle,
}

impl Uring {
    /// A ring for so many operations at once, driven by the runtime that this is called in.
    ///
    /// # Panics
    /// When that runtime does no I/O.
    pub(super) fn start(max_ops: usize) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let ring = Arc::new(Ring::new(max_ops.clamp(1, DEPTH_MAX))?);
        super::start::probe(
            |operation| {
                let (answer, mut pending) = answer();
                ring.submit(Flight::new(operation, answer));
                ring.drain();
                super::start::ended(&mut pending)
            },
            &|len| ring.room(len),
        )?;
        let driven = Driven(Arc::clone(&ring));
        // SAFETY: the descriptor is the ring's, which is closed after the registration ends: the driver holds both.
        let fd = unsafe { AsyncFd::register_with_interest(driven, Interest::READABLE)? };
        ring.queue.lock().is_driven = true;
        Ok(Self { ring, driver: runtime.spawn(drive(fd)).abort_handle() })
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Device for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn submit(&self, operation: Operation) -> Pending {
        let (answer, pending) = answer();
        self.ring.submit(Flight::new(operation, answer));
        pending
    }

    fn blocks(&self, len: usize) -> Blocks {
        match self.ring.slot(len) {
            Some(mut blocks) => {
                blocks.fill(0);
                blocks
            }
            None => Blocks::zeroed(len),
        }
    }

    fn room(&self, len: usize) -> Blocks {
        self.ring.room(len)
    }

    blocking_methods!();
}

/// Takes what has ended, for as long as the engine and the runtime are there.
async fn drive(fd: AsyncFd<Driven>) {
    while let Ok(mut ready) = fd.readable().await {
        fd.get_ref().0.reap();
        ready.clear_ready();
    }
}

/// The driver's hold on the ring. When it goes, with the engine or with the runtime, it waits for what is under way; who submits
/// later waits alone.
struct Driven(Arc<Ring>);

impl AsRawFd for Driven {
    fn as_raw_fd(&self) -> RawFd {
        self.0.kernel.as_raw_fd()
    }
}

impl AsFd for Driven {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.kernel.as_fd()
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.queue.lock().is_driven = false;
        self.0.drain();
    }
}

/// An operation on its way.
struct Flight {
    operation: Operation,
    answer: Answer,
    /// Its memory as the kernel is told of it.
    runs: Vec<Run>,
    cancelled: u8,
}

/// `struct iovec`.
#[repr(C)]
struct Run {
    start: *mut u8,
    len: usize,
}

// SAFETY: the runs point into the memory of the operation beside them, which no thread is tied to.
unsafe impl Send for Flight {}

impl Flight {
    fn new(operation: Operation, answer: Answer) -> Box<Self> {
        Box::new(Self { operation, answer, runs: Vec::new(), cancelled: 0 })
    }

    fn end(self, result: io::Result<usize>) {
        let Self { operation: Operation { file, memory, .. }, answer, .. } = self;
        drop(file);
        answer.give(result, memory);
    }

    /// The operation as the kernel reads it. The addresses in it hold for as long as the flight stays where it is.
    fn entry(&mut self, slots: Option<&Arc<Slots>>) -> io::Result<squeue::Entry> {
        let Self { operation: Operation { file, action, offset, memory, done, .. }, runs, .. } = self;
        let fd = types::Fd(file.descriptor()?.as_raw_fd());
        let at = offset.saturating_add(*done as u64);
        let is_fixed = matches!(&memory.parts[..], [Part::Blocks(blocks)] if slots.is_some_and(|slots| blocks.is_in(slots)));
        *runs = match action {
            Action::Read => memory.runs_to_fill(*done)?.iter_mut().map(|run| Run::of(run)).collect(),
            Action::Write => memory.runs_to_write(*done)?.iter().map(|run| Run::from_shared(run)).collect(),
            Action::Sync => Vec::new(),
        };
        let count = runs.len() as u32;
        Ok(match (action, &runs[..]) {
            (Action::Sync, _) => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            (Action::Read, [run]) if is_fixed => {
                opcode::ReadFixed::new(fd, run.start, run.short(), 0).offset(at).build()
            }
            (Action::Write, [run]) if is_fixed => {
                opcode::WriteFixed::new(fd, run.start, run.short(), 0).offset(at).build()
            }
            (Action::Read, [run]) => opcode::Read::new(fd, run.start, run.short()).offset(at).build(),
            (Action::Write, [run]) => opcode::Write::new(fd, run.start, run.short()).offset(at).build(),
            (Action::Read, _) => opcode::Readv::new(fd, runs.as_ptr().cast(), count).offset(at).build(),
            (Action::Write, _) => opcode::Writev::new(fd, runs.as_ptr().cast(), count).offset(at).build(),
        })
    }
}

impl Run {
    fn of(bytes: &mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr(), len: bytes.len() }
    }

    /// Of bytes that the kernel only reads.
    fn from_shared(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr().cast_mut(), len: bytes.len() }
    }

    /// The length, cut to what one call transfers.
    fn short(&self) -> u32 {
        self.len.min(LEN_MAX) as u32
    }
}

/// One ring, with what is on it and what waits for a place.
struct Ring {
    kernel: IoUring,
    max_ops: usize,
    /// Memory that the kernel knows, unless it refused.
    slots: Option<Arc<Slots>>,
    queue: Mutex<Queue>,
    /// Held by whoever takes completions.
    reaping: Mutex<()>,
    /// Held by whoever waits for all of them.
    draining: Mutex<()>,
}

#[derive(Default)]
struct Queue {
    /// How many are on the ring.
    running: usize,
    waiting: VecDeque<Box<Flight>>,
    /// The kernel has not taken all that is on the ring.
    is_left: bool,
    is_driven: bool,
}

impl Ring {
    fn new(max_ops: usize) -> io::Result<Self> {
        let kernel = build(max_ops)?;
        let slots = register(&kernel, max_ops.min(SLOTS_MAX));
        Ok(Self {
            kernel,
            max_ops,
            slots,
            queue: Mutex::default(),
            reaping: Mutex::default(),
            draining: Mutex::default(),
        })
    }

    fn slot(&self, len: usize) -> Option<Blocks> {
        self.slots.as_ref()?.take(len)
    }

    fn room(&self, len: usize) -> Blocks {
        self.slot(len).unwrap_or_else(|| Blocks::zeroed(len))
    }

    /// Begins the operation, or lets it wait.
    fn submit(&self, flight: Box<Flight>) {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(flight);
        let failed = self.begin(&mut queue);
        let is_driven = queue.is_driven;
        drop(queue);
        give_back(failed);
        if !is_driven {
            self.drain();
        }
    }

    /// Begins what waits, as far as there are places. What cannot be begun at all comes back.
    fn begin(&self, queue: &mut Queue) -> Vec<(Box<Flight>, io::Error)> {
        let mut failed = Vec::new();
        let before = queue.running;
        while queue.running < self.max_ops {
            let Some(mut flight) = queue.waiting.pop_front() else { break };
            match flight.entry(self.slots.as_ref()) {
                Ok(entry) => {
                    self.push(&entry.user_data(Box::into_raw(flight).expose_provenance() as u64));
                    queue.running += 1;
                }
                Err(error) => failed.push((flight, error)),
            }
        }
        if queue.running > before || queue.is_left {
            queue.is_left = self.enter(queue.running);
        }
        failed
    }

    fn push(&self, entry: &squeue::Entry) {
        // SAFETY: the lock on the queue is held, so that nobody else is here. What the entry points to belongs to the flight whose
        // address it carries, which is freed when its completion has been taken.
        let pushed = unsafe { self.kernel.submission_shared().push(entry) };
        debug_assert!(pushed.is_ok(), "the ring has as many places as operations are begun");
    }

    /// Tells the kernel what was pushed. Where it has no memory for that now, the next call does it: one comes when anything of what
    /// is on the ring ends. Whether something is left.
    fn enter(&self, running: usize) -> bool {
        loop {
            let answer = self.kernel.submit();
            // SAFETY: the lock on the queue is held.
            let left = unsafe { self.kernel.submission_shared().len() };
            let is_interrupted = answer.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
            if left == 0 || (!is_interrupted && left < running) {
                return left > 0;
            }
            thread::yield_now();
        }
    }

    /// Takes what has ended, begins what waits, and gives the answers.
    fn reap(&self) {
        let ended = self.completions();
        if ended.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.running -= ended.len();
        let mut whole = Vec::with_capacity(ended.len());
        for (mut flight, result) in ended {
            if result == -Errno::CANCELED.raw_os_error() && flight.cancelled < CANCELLED_MAX {
                flight.cancelled += 1;
                queue.waiting.push_front(flight);
            } else {
                whole.push((flight, result));
            }
        }
        let failed = self.begin(&mut queue);
        drop(queue);
        give_back(failed);
        for (flight, result) in whole {
            flight.end(usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)));
        }
    }

    fn completions(&self) -> Vec<(Box<Flight>, i32)> {
        let _reaping = self.reaping.lock();
        // SAFETY: the lock is held, so that nobody else takes completions.
        let completions = unsafe { self.kernel.completion_shared() };
        completions.map(|entry| (flight_of(&entry), entry.result())).collect()
    }

    /// Waits, blocking, until nothing is on the ring or waits for it.
    fn drain(&self) {
        let _draining = self.draining.lock();
        loop {
            self.reap();
            let queue = self.queue.lock();
            if queue.running == 0 && queue.waiting.is_empty() {
                return;
            }
            drop(queue);
            // An error here is an interruption or a lack of memory: what is on the ring is asked for again.
            let _ = self.kernel.submit_and_wait(1);
        }
    }
}

fn flight_of(entry: &cqueue::Entry) -> Box<Flight> {
    let address = std::ptr::with_exposed_provenance_mut(entry.user_data() as usize);
    // SAFETY: the address comes from `Box::into_raw` in `begin`, and the kernel gives each back once, when it is done with everything
    // that the entry pointed to.
    unsafe { Box::from_raw(address) }
}

fn give_back(failed: Vec<(Box<Flight>, io::Error)>) {
    failed.into_iter().for_each(|(flight, error)| flight.end(Err(error)));
}

/// A ring with as many places; older kernels do not know what spares interrupts.
fn build(max_ops: usize) -> io::Result<IoUring> {
    let entries = max_ops as u32;
    let mut builder = IoUring::builder();
    builder.dontfork().setup_submit_all().setup_coop_taskrun();
    match builder.build(entries) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => IoUring::new(entries),
        built => built,
    }
}

/// Slots that the kernel knows; none where it may not lock that much memory for this user.
fn register(kernel: &IoUring, count: usize) -> Option<Arc<Slots>> {
    let slots = Slots::new(count)?;
    let (start, len) = slots.run();
    let run = Run { start: start.as_ptr(), len };
    // SAFETY: `Run` is laid out as the `iovec` that is asked for. The kernel holds the pages for as long as it knows them, so that
    // it never writes to memory that was freed, and the ring names them only for operations that own a slot.
    let registered = unsafe {
        let runs = slice::from_raw_parts((&raw const run).cast(), 1);
        kernel.submitter().register_buffers(runs)
    };
    registered.is_ok().then_some(slots)
}
