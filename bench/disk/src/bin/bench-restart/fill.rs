//! The entries, and writing them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use elcache_bench_disk::Outcome;
use elcache_bench_disk::tiers::Tiers;
use elcache_core::key::Key;
use elcache_core::tier::{NewBody, Tier};
use elcache_core::tree::ChunkHasher;
use elcache_core::value::{Metadata, Version};
use elcache_disk::io::{Engine, start};
use elcache_disk::{DiskConfig, DiskTier, Durability};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// Writers at once: a batch takes what they all have.
const WRITERS: u64 = 8192;
/// Entries between two lines of progress.
const STEP: u64 = 1_000_000;
/// Memory for the index while the directory is filled.
const MEMORY: u64 = 2 << 30;
/// 2009-02-13: a value's time says nothing here.
const WRITTEN_MS: u64 = 1_234_567_890_123;

/// The key of an entry: 20 bytes.
pub(crate) fn key(number: u64) -> String {
    format!("entry-{number:014}")
}

/// The value of an entry: 16 to 100 bytes that begin with its number.
pub(crate) fn value(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let len = 16 + (mixed >> 32) as usize % 85;
    let mut bytes = format!("{number:016x}").into_bytes();
    bytes.resize(len, b'.');
    bytes
}

/// Writes entries `0..count` into an empty directory, 0 before all others, and leaves it as a kill does.
pub(crate) fn fill(directory: &Path, count: u64) -> Outcome<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let device = start(Engine::Auto, 64)?.device;
        let config = DiskConfig { durability: Durability::Process, ..DiskConfig::default() };
        let tiers = Tiers::open(directory, MEMORY, device, config).await?;
        tiers.disk.recovered().await;
        put(&tiers.disk, 0).await?;
        let (began, next) = (Instant::now(), Arc::new(AtomicU64::new(1)));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(write(Arc::clone(&tiers.disk), Arc::clone(&next), count));
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        let usage = tiers.disk.usage();
        println!(
            "{count} entries in {:.0} s; index {:.1} bytes an entry",
            began.elapsed().as_secs_f64(),
            usage.index_bytes as f64 / count as f64
        );
        if usage.entries == count { Ok(()) } else { Err("entries are missing".into()) }
    })
}

async fn write(disk: Arc<DiskTier>, next: Arc<AtomicU64>, count: u64) -> Outcome<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        if number.is_multiple_of(STEP) {
            println!("{number} of {count} entries");
        }
        put(&disk, number).await?;
    }
}

async fn put(disk: &DiskTier, number: u64) -> Outcome<()> {
    let bytes = value(number);
    let mut hasher = ChunkHasher::new(0);
    hasher.update(&bytes);
    let version = Version { view: 0, sequence: number + 1 };
    let meta = Metadata::new(bytes.len() as u64, hasher.root(), version, WRITTEN_MS);
    let key = Key::new(key(number))?;
    disk.commit(&key, &meta, NewBody::Borrowed(&bytes))
        .get()
        .await
        .map_err(|refusal| refusal.to_string().into())
}
