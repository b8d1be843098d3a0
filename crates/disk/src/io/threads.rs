//! Operations as blocking system calls on threads of the engine's own, for where io_uring is forbidden.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::fs::fdatasync;
use rustix::io::{preadv, pwritev};

use super::answer::{Answer, answer};
use super::files::{self, blocking_methods};
use super::{Action, Blocks, Device, Entry, File, Open, Operation, Pending, Space};

/// More of them gain nothing even where a disk takes more operations at once.
const THREADS_MAX: usize = 64;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);
/// They call the kernel and little else.
const STACK_BYTES: usize = 128 << 10;

/// The engine. Threads end when they have had nothing to do for a while, and when this is dropped and the queue is empty.
pub(super) struct Threads {
    pool: Arc<Pool>,
}

struct Pool {
    state: Mutex<State>,
    work: Condvar,
    max: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Operation, Answer)>,
    threads: usize,
    ended: bool,
}

impl Threads {
    /// Begins no more than so many operations at once.
    pub(super) fn new(max_ops: usize) -> Self {
        let max = max_ops.clamp(1, THREADS_MAX);
        Self { pool: Arc::new(Pool { state: Mutex::default(), work: Condvar::new(), max }) }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.pool.state.lock().ended = true;
        self.pool.work.notify_all();
    }
}

impl Device for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn submit(&self, operation: Operation) -> Pending {
        let (answer, pending) = answer();
        let mut state = self.pool.state.lock();
        state.queue.push_back((operation, answer));
        if !self.pool.work.notify_one() && state.threads < self.pool.max {
            self.pool.grow(&mut state);
        }
        pending
    }

    fn blocks(&self, len: usize) -> Blocks {
        Blocks::zeroed(len)
    }

    blocking_methods!();
}

impl Pool {
    /// Adds a thread. Without one at all the queue would stand, so that its operations fail.
    fn grow(self: &Arc<Self>, state: &mut State) {
        let pool = Arc::clone(self);
        let builder = thread::Builder::new().name("disk".to_owned()).stack_size(STACK_BYTES);
        match builder.spawn(move || pool.serve()) {
            Ok(_) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                for (operation, answer) in state.queue.drain(..) {
                    answer.give(Err(io::Error::new(error.kind(), error.to_string())), operation.memory);
                }
            }
            Err(_) => {}
        }
    }

    fn serve(&self) {
        while let Some((mut operation, answer)) = self.next() {
            let result = perform(&mut operation);
            let Operation { file, memory, .. } = operation;
            drop(file);
            answer.give(result, memory);
        }
    }

    /// The next operation; `None` when it is time to end.
    fn next(&self) -> Option<(Operation, Answer)> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            let is_late = !state.ended && self.work.wait_for(&mut state, IDLE).timed_out();
            if state.queue.is_empty() && (state.ended || is_late) {
                state.threads -= 1;
                return None;
            }
        }
    }
}

/// The operation as a system call.
fn perform(operation: &mut Operation) -> io::Result<usize> {
    let Operation { file, action, offset, memory, done, .. } = operation;
    let fd = file.descriptor()?;
    let at = offset.saturating_add(*done as u64);
    match action {
        Action::Read => Ok(preadv(fd, &mut memory.runs_to_fill(*done)?, at)?),
        Action::Write => Ok(pwritev(fd, &memory.runs_to_write(*done)?, at)?),
        Action::Sync => Ok(fdatasync(fd).map(|()| 0)?),
    }
}
