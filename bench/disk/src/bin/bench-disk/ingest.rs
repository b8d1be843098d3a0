//! Values on their way to the disk, received, hashed and written in process, beside fio writing as much.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use elcache_bench::content;
use elcache_bench_disk::Outcome;
use elcache_bench_disk::scratch::Scratch;
use elcache_bench_disk::table::{self, Sample, cpu_time};
use elcache_bench_disk::tiers::Tiers;
use elcache_core::key::Key;
use elcache_core::tree::CHUNK_SIZE;
use elcache_disk::DiskConfig;
use elcache_disk::io::{Action, Engine, Memory, Open, Operation, Part, start, transfer};
use elcache_engine::{Opened, PutOptions};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::fio;

/// Bytes that a round writes.
const ROUND: u64 = 1 << 30;
/// Memory before the disk.
const MEMORY: u64 = 256 << 20;
/// Depths among which fio's best is looked for.
const DEPTHS: [usize; 5] = [1, 2, 4, 8, 16];
/// Depth of our engine alone: an upload has one chunk on its way to the disk.
const OWN_DEPTH: usize = 2;

/// Whoever writes.
#[derive(Clone, Copy)]
enum Subject {
    Fio { depth: usize },
    Engine,
    Values { mib: u64 },
}

impl Subject {
    fn name(self) -> String {
        match self {
            Self::Fio { depth } => format!("fio, io_uring, depth {depth}"),
            Self::Engine => format!("elcache, engine alone, depth {OWN_DEPTH}"),
            Self::Values { mib } => format!("elcache, values of {mib} MiB"),
        }
    }

    fn measure(self, parent: &Path, source: &[u8]) -> Outcome<Sample> {
        // A file that is written over is another thing than a new one.
        let scratch = Scratch::below(parent, "ingest")?;
        match self {
            Self::Fio { depth } => fio::write(&scratch.path().join("file"), ROUND, depth),
            Self::Engine => write(&scratch.path().join("file"), source),
            Self::Values { mib } => upload(scratch.path(), mib << 20, source),
        }
    }
}

/// The table of sequential writes.
pub(crate) fn compare(parent: &Path, rounds: usize) -> Outcome<()> {
    let mut source = vec![0; 64 << 20];
    content::fill(0, &mut source);
    let depth = best_depth(parent)?;
    let subjects =
        [Subject::Fio { depth }, Subject::Engine, Subject::Values { mib: 64 }, Subject::Values { mib: 1024 }];
    let mut samples: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for index in (0..subjects.len()).map(|index| (index + round) % subjects.len()) {
            samples[index].push(subjects[index].measure(parent, &source)?);
        }
    }
    println!("\nSequential writes, new files past the page cache, 4 MiB an operation");
    let names: Vec<String> = subjects.iter().map(|subject| subject.name()).collect();
    table::print(names.iter().zip(&samples).map(|(name, own)| (&name[..], &own[..], &samples[0][..])));
    Ok(())
}

/// The depth that suits fio best here.
fn best_depth(parent: &Path) -> Outcome<usize> {
    let mut best = (0.0, 1);
    for depth in DEPTHS {
        let subject = Subject::Fio { depth };
        let rates =
            [subject.measure(parent, &[])?, subject.measure(parent, &[])?].map(|sample| sample.rate());
        let rate = rates[0].max(rates[1]);
        if rate > best.0 {
            best = (rate, depth);
        }
    }
    Ok(best.1)
}

/// As an upload over HTTP: the bytes are copied into the upload's buffers as if a socket gave them.
fn upload(directory: &Path, len: u64, source: &[u8]) -> Outcome<Sample> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let device = start(Engine::Uring, 64)?.device;
        let tiers = Tiers::open(directory, MEMORY, device, DiskConfig::default()).await?;
        tiers.disk.recovered().await;
        let (begin, cpu) = (Instant::now(), cpu_time());
        for number in 0..ROUND / len {
            put(&tiers, number, len, source).await?;
        }
        let (time, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
        Ok(Sample { bytes: ROUND, operations: ROUND / CHUNK_SIZE, time, cpu })
    })
}

/// Uploads one value: a source over and over. No chunk of it is in another one, or it would not be written.
async fn put(tiers: &Tiers, number: u64, len: u64, source: &[u8]) -> Outcome<()> {
    let key = Key::new(number.to_string())?;
    let first = (number + 1) * 1_000_003;
    let options = PutOptions { length: Some(len), ..PutOptions::default() };
    let failed = |error| format!("an upload failed: {error:?}");
    let Opened::Upload(mut upload) = tiers.engine.open(key, options).await.map_err(failed)? else {
        return Err("the value is known already".into());
    };
    while upload.received() < len {
        upload.ready().await.map_err(failed)?;
        let at = ((first + upload.received()) % source.len() as u64) as usize;
        let space = upload.space();
        // As much as a socket gives at a time.
        let count = space.len().min(256 << 10).min(source.len() - at);
        space[..count].copy_from_slice(&source[at..at + count]);
        upload.filled(count);
        tokio::task::yield_now().await;
    }
    upload.finish().await.map_err(failed)?;
    Ok(())
}

/// Our engine, and nothing above it.
fn write(path: &Path, source: &[u8]) -> Outcome<Sample> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let device = start(Engine::Uring, OWN_DEPTH)?.device;
        let file = device.open(path, Open { create: true, direct: true })?;
        device.allocate(&file, 0..ROUND)?;
        let (begin, cpu) = (Instant::now(), cpu_time());
        let mut tasks = JoinSet::new();
        for first in 0..OWN_DEPTH as u64 {
            let (device, file) = (Arc::clone(&device), Arc::clone(&file));
            let mut blocks = device.blocks(CHUNK_SIZE as usize);
            blocks.copy_from_slice(&source[..CHUNK_SIZE as usize]);
            let mut memory = Memory::of(Part::Blocks(blocks));
            tasks.spawn(async move {
                let step = CHUNK_SIZE * OWN_DEPTH as u64;
                for offset in (first * CHUNK_SIZE..ROUND).step_by(step as usize) {
                    let (file, action) = (Arc::clone(&file), Action::Write);
                    let done =
                        transfer(&*device, Operation { file, action, offset, memory, done: 0, ticket: None })
                            .await;
                    done.result?;
                    memory = done.memory;
                }
                io::Result::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let (time, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
        Ok(Sample { bytes: ROUND, operations: ROUND / CHUNK_SIZE, time, cpu })
    })
}
