//! The same reads through the whole tier: a look-up in the index, the bytes and their sums, every block verified.

use std::sync::Arc;
use std::time::Instant;

use elcache_bench::content::{self, Random};
use elcache_bench_disk::Outcome;
use elcache_bench_disk::scratch::Scratch;
use elcache_bench_disk::table::{Sample, cpu_time};
use elcache_bench_disk::tiers::Tiers;
use elcache_core::payload::{Buffers, Filled};
use elcache_core::tier::{ChunkRef, Lookup, Staged, Tier};
use elcache_core::tree::{CHUNK_SIZE, ChunkHasher};
use elcache_disk::io::{Engine, start};
use elcache_disk::{DiskConfig, DiskTier};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::Cell;

/// Memory before the disk: buffers come from it, and the sums are kept in a part of it.
const MEMORY: u64 = 256 << 20;

/// A tier with chunks in it.
pub(crate) struct Chunks {
    // Dropped before the runtime that it runs in.
    tiers: Tiers,
    staged: Vec<Staged>,
    runtime: Runtime,
    _scratch: Scratch,
}

impl Chunks {
    /// Fills a tier in a directory of its own.
    pub(crate) fn prepare(scratch: Scratch, bytes: u64, max_ops: usize) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (tiers, staged) = runtime.block_on(async {
            let device = start(Engine::Uring, max_ops)?.device;
            let tiers = Tiers::open(scratch.path(), MEMORY, device, DiskConfig::default()).await?;
            tiers.disk.recovered().await;
            let mut staged = Vec::new();
            for number in 0..bytes / CHUNK_SIZE {
                staged.push(stage(&tiers, number).await?);
            }
            Outcome::Ok((tiers, staged))
        })?;
        Ok(Self { tiers, staged, runtime, _scratch: scratch })
    }

    /// Reads for a while.
    pub(crate) fn measure(&self, cell: Cell) -> Outcome<Sample> {
        let chunks: Arc<[ChunkRef]> = self.staged.iter().map(|staged| staged.chunk).collect();
        self.runtime.block_on(async {
            let (begin, cpu) = (Instant::now(), cpu_time());
            let until = begin + cell.time;
            let mut tasks = JoinSet::new();
            for seed in 0..cell.depth {
                let (disk, chunks) = (Arc::clone(&self.tiers.disk), Arc::clone(&chunks));
                tasks.spawn(read(disk, chunks, Random::new(seed as u64), cell.size, until));
            }
            let counts: Outcome<Vec<u64>> = tasks.join_all().await.into_iter().collect();
            let operations: u64 = counts?.iter().sum();
            let (time, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
            Ok(Sample { bytes: operations * cell.size as u64, operations, time, cpu })
        })
    }
}

async fn stage(tiers: &Tiers, number: u64) -> Outcome<Staged> {
    let mut buffer = tiers.memory.buffer(CHUNK_SIZE as usize).ok_or("there is no memory for a chunk")?;
    let mut hasher = ChunkHasher::new(number);
    while !buffer.space().is_empty() {
        let at = number * CHUNK_SIZE + buffer.filled() as u64;
        content::fill(at, buffer.space());
        hasher.update(buffer.space());
        let count = buffer.space().len();
        buffer.advance(count);
    }
    let digest = hasher.chunk().ok_or("a chunk has bytes")?;
    let chunk = ChunkRef { digest, number, len: CHUNK_SIZE as u32 };
    let staged = tiers.disk.stage(chunk, Filled::new(buffer, hasher.subtrees())).get().await;
    Ok(staged.map_err(|refusal| refusal.to_string())?)
}

async fn read(
    disk: Arc<DiskTier>,
    chunks: Arc<[ChunkRef]>,
    mut random: Random,
    size: usize,
    until: Instant,
) -> Outcome<u64> {
    let places = CHUNK_SIZE / size as u64;
    let mut count = 0;
    while count == 0 || Instant::now() < until {
        let chunk = chunks[random.below(chunks.len() as u64) as usize];
        let from = (random.below(places) * size as u64) as u32;
        match disk.chunk(&chunk, from, from + size as u32).get().await {
            Lookup::Hit(part) if part.bytes.len() == size => count += 1,
            _ => return Err("a chunk was not read".into()),
        }
    }
    Ok(count)
}
