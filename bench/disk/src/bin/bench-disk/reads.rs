//! Reads at random offsets by as many tasks as there are reads at once, each into memory of its own.

use std::fs::File as StdFile;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use elcache_disk::io::{Action, Blocks, Device, File, Memory, Open, Operation, Part, start, transfer};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use elcache_bench_disk::table::{Sample, cpu_time};

use crate::Cell;

/// What reads.
#[derive(Clone, Copy)]
pub(crate) enum Engine {
    /// Our ring, in a runtime with so many workers; 0 is a runtime on one thread.
    Uring { workers: usize },
    /// Our threads.
    Threads,
    /// The runtime's own threads for what blocks.
    Pool,
}

impl Engine {
    /// As the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring { workers: 0 } => "elcache, io_uring, one thread",
            Self::Uring { .. } => "elcache, io_uring, two workers",
            Self::Threads => "elcache, threads",
            Self::Pool => "tokio's spawn_blocking",
        }
    }

    fn runtime(self) -> io::Result<Runtime> {
        match self {
            Self::Uring { workers: 0 } => Builder::new_current_thread().enable_all().build(),
            _ => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        }
    }

    fn device(self, depth: usize) -> io::Result<Arc<dyn Device>> {
        let choice = match self {
            Self::Uring { .. } => elcache_disk::io::Engine::Uring,
            _ => elcache_disk::io::Engine::Threads,
        };
        Ok(start(choice, depth)?.device)
    }
}

/// Makes a file full of bytes that are no zeros, on the disk.
pub(crate) fn prepare(path: &Path, len: u64) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let device = start(elcache_disk::io::Engine::Auto, 4)?.device;
        let file = device.open(path, Open { create: true, direct: true })?;
        device.allocate(&file, 0..len)?;
        let mut memory = memory(&*device, 4 << 20, 0xa5);
        for offset in (0..len).step_by(4 << 20) {
            let operation = Operation {
                file: Arc::clone(&file),
                action: Action::Write,
                offset,
                memory,
                done: 0,
                ticket: None,
            };
            let done = transfer(&*device, operation).await;
            done.result?;
            memory = done.memory;
        }
        let sync = Operation {
            file,
            action: Action::Sync,
            offset: 0,
            memory: Memory::default(),
            done: 0,
            ticket: None,
        };
        transfer(&*device, sync).await.result.map(drop)
    })
}

fn memory(device: &dyn Device, len: usize, byte: u8) -> Memory {
    let mut blocks = device.room(len);
    blocks.fill(byte);
    Memory::of(Part::Blocks(blocks))
}

/// Reads for a while.
pub(crate) fn measure(engine: Engine, path: &Path, len: u64, cell: Cell) -> io::Result<Sample> {
    engine.runtime()?.block_on(async {
        let device = engine.device(cell.depth)?;
        let file = device.open(path, Open { create: false, direct: true })?;
        let (begin, cpu) = (Instant::now(), cpu_time());
        let until = begin + cell.time;
        let mut tasks = JoinSet::new();
        for seed in 0..cell.depth {
            let offsets = Offsets { state: seed as u64, size: cell.size as u64, len };
            match engine {
                Engine::Pool => tasks.spawn(read_blocking(Arc::clone(&file), offsets, cell.size, until)),
                _ => tasks.spawn(read(Arc::clone(&device), Arc::clone(&file), offsets, cell.size, until)),
            };
        }
        let counts: Result<Vec<u64>, io::Error> = tasks.join_all().await.into_iter().collect();
        let operations: u64 = counts?.iter().sum();
        let (time, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
        Ok(Sample { bytes: operations * cell.size as u64, operations, time, cpu })
    })
}

async fn read(
    device: Arc<dyn Device>,
    file: Arc<File>,
    offsets: Offsets,
    size: usize,
    until: Instant,
) -> io::Result<u64> {
    let mut memory = memory(&*device, size, 0);
    let mut count = 0;
    for offset in offsets {
        let operation = Operation {
            file: Arc::clone(&file),
            action: Action::Read,
            offset,
            memory,
            done: 0,
            ticket: None,
        };
        let done = transfer(&*device, operation).await;
        check(done.result?, size)?;
        memory = done.memory;
        count += 1;
        if Instant::now() >= until {
            break;
        }
    }
    Ok(count)
}

/// As a program without an engine of its own does it.
async fn read_blocking(file: Arc<File>, offsets: Offsets, size: usize, until: Instant) -> io::Result<u64> {
    let fd = file.fd.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let file = Arc::new(StdFile::from(fd.try_clone()?));
    let mut blocks = Blocks::zeroed(size);
    let mut count = 0;
    for offset in offsets {
        let file = Arc::clone(&file);
        let reading = tokio::task::spawn_blocking(move || {
            let result = file.read_at(&mut blocks, offset);
            (result, blocks)
        });
        let (result, back) = reading.await?;
        check(result?, size)?;
        blocks = back;
        count += 1;
        if Instant::now() >= until {
            break;
        }
    }
    Ok(count)
}

fn check(count: usize, size: usize) -> io::Result<()> {
    if count == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Multiples of a size, evenly chosen (a linear congruential generator, Knuth's MMIX).
struct Offsets {
    state: u64,
    size: u64,
    len: u64,
}

impl Iterator for Offsets {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((self.state >> 33) % (self.len / self.size) * self.size)
    }
}
