//! Which engine runs: the one that was asked for, or the one that works here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustix::fs::{MemfdFlags, memfd_create};

use super::threads::Threads;
use super::uring::Uring;
use super::{Action, BLOCK, Blocks, Device, Done, File, Memory, Operation, Part, Pending};

/// Which engine is wanted (`disk.io_engine`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring where it is allowed, threads elsewhere.
    Auto,
    /// io_uring or an error.
    Uring,
    /// Threads.
    Threads,
}

/// An engine that runs.
pub struct Started {
    /// The engine.
    pub device: Arc<dyn Device>,
    /// Why it is not the first choice, if it is not.
    pub fallback: Option<String>,
}

/// Starts an engine that begins at most `max_ops` operations at once; more of them wait. io_uring is driven by the tokio runtime that
/// this is called in, and is tried with real operations.
///
/// # Errors
/// [`Engine::Uring`]: whatever the kernel answers, usually that it is forbidden.
///
/// # Panics
/// When that runtime was built without I/O.
pub fn start(choice: Engine, max_ops: usize) -> io::Result<Started> {
    let uring = || Uring::start(max_ops).map(|device| Arc::new(device) as Arc<dyn Device>);
    choose(choice, uring, || Arc::new(Threads::new(max_ops)))
}

fn choose(
    choice: Engine,
    uring: impl FnOnce() -> io::Result<Arc<dyn Device>>,
    threads: impl FnOnce() -> Arc<dyn Device>,
) -> io::Result<Started> {
    let (device, fallback) = match choice {
        Engine::Threads => (threads(), None),
        Engine::Uring => (uring()?, None),
        Engine::Auto => match uring() {
            Ok(device) => (device, None),
            Err(error) => (threads(), Some(format!("io_uring does not work here: {error}"))),
        },
    };
    Ok(Started { device, fallback })
}

/// Writes, syncs and reads back a block of a file in memory, each in the ways that the engine has, and waits for it.
pub(super) fn probe(
    mut perform: impl FnMut(Operation) -> Done,
    blocks: &dyn Fn(usize) -> Blocks,
) -> io::Result<()> {
    let file = File::new(Some(memfd_create("elcache-probe", MemfdFlags::CLOEXEC)?), false);
    let mut perform = |action, memory| {
        let operation =
            Operation { file: Arc::clone(&file), action, offset: 0, memory, done: 0, ticket: None };
        let Done { result, memory } = perform(operation);
        result.map(|count| (count, memory))
    };
    let mut written = blocks(BLOCK);
    written.fill(0xe1);
    perform(Action::Write, Memory::of(Part::Blocks(written)))?;
    perform(Action::Sync, Memory::default())?;
    for memory in [vec![blocks(BLOCK)], vec![Blocks::zeroed(1), Blocks::zeroed(1)]] {
        let parts = memory.into_iter().map(Part::Blocks).collect();
        let (count, memory) = perform(Action::Read, Memory { parts })?;
        let is_same =
            |part: &Part| matches!(part, Part::Blocks(read) if read.iter().all(|&byte| byte == 0xe1));
        if count != BLOCK || !memory.parts.first().is_some_and(is_same) {
            return Err(io::Error::other("what was written is not what is read"));
        }
    }
    Ok(())
}

/// How an operation ended that has.
pub(super) fn ended(pending: &mut Pending) -> Done {
    match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Done { result: Err(io::Error::other("it did not end")), memory: Memory::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Arc<dyn Device> {
        Arc::new(Threads::new(1))
    }

    #[test]
    fn auto_falls_back_and_says_why() {
        let forbidden = || Err(io::Error::from_raw_os_error(1));
        let started = choose(Engine::Auto, forbidden, threads).unwrap();
        assert_eq!(started.device.name(), "threads");
        let why = started.fallback.unwrap();
        assert!(why.contains("not permitted"), "{why}");
        assert!(choose(Engine::Uring, forbidden, threads).is_err());
        assert!(choose(Engine::Threads, forbidden, threads).unwrap().fallback.is_none());
    }

    #[test]
    fn outside_a_runtime_there_are_threads() {
        assert_eq!(start(Engine::Auto, 4).unwrap().device.name(), "threads");
    }
}
