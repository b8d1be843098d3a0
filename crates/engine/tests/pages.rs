//! A value of several pages on its way in, over a home that takes everything and keeps nothing but pages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::SystemClock;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::tier::{
    Body, ChunkRef, Evicted, Hold, Leaving, Lookup, NewBody, PageRef, Part, Presence, Refusal, Reply, Root,
    Staged, StagedPage, Tier, TierName, Usage,
};
use elcache_core::tree::{self, CHUNK_SIZE, ChunkHasher, PAGE_DIGESTS};
use elcache_core::value::{Metadata, Version};
use elcache_engine::{Engine, EngineConfig, Opened, PutOptions};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use parking_lot::Mutex;

/// The home.
#[derive(Default)]
struct Sink {
    root: Mutex<Option<Metadata>>,
    pages: Mutex<HashMap<PageRef, Bytes>>,
    /// Chunks that something holds, now and at most.
    held: Arc<AtomicU64>,
    most: AtomicU64,
}

/// What holds a chunk.
struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Tier for Sink {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        Reply::Ready(Ok(Version::default()))
    }

    fn root(&self, _: &Key) -> Reply<'_, Lookup<Root>> {
        let root = self.root.lock().clone().map(|meta| Root { meta, body: Body::Chunks(None) });
        Reply::Ready(root.map_or(Lookup::Miss, Lookup::Hit))
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        let page = self.pages.lock().get(page).cloned();
        Reply::Ready(page.map_or(Lookup::Miss, |digests| Lookup::Hit(digests.into())))
    }

    fn chunk(&self, _: &ChunkRef, _: u32, _: u32) -> Reply<'_, Lookup<Part>> {
        Reply::Ready(Lookup::Miss)
    }

    fn chunk_whole(&self, _: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        Reply::Ready(Lookup::Miss)
    }

    fn has_chunk(&self, _: &ChunkRef) -> Reply<'_, bool> {
        Reply::Ready(false)
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        Reply::Ready(Lookup::Hit(vec![Presence::Absent; chunks.len()]))
    }

    fn shrunk(&self) -> u64 {
        0
    }

    fn admit(&self, _: u64) -> Reply<'_, Result<Hold, Refusal>> {
        Reply::Ready(Ok(Box::new(())))
    }

    fn largest_admission(&self) -> u64 {
        u64::MAX
    }

    fn stage(&self, chunk: ChunkRef, _: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        let held = self.held.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(held, Ordering::SeqCst);
        Reply::Ready(Ok(Staged { chunk, hold: Box::new(Held(Arc::clone(&self.held))) }))
    }

    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>> {
        assert_eq!(digests.len(), chunks.len() * 32);
        self.pages.lock().insert(page, digests);
        Reply::Ready(Ok(StagedPage { page, hold: Box::new(()) }))
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>> {
        let NewBody::Pages(pages) = body else { return Reply::Ready(Err(Refusal::Failed)) };
        let owner = meta.owner(key.hash());
        let expected: Vec<_> =
            (0..tree::page_count(meta.size)).map(|number| PageRef { owner, number }).collect();
        assert_eq!(pages.iter().map(|staged| staged.page).collect::<Vec<_>>(), expected);
        *self.root.lock() = Some(meta.clone());
        Reply::Ready(Ok(()))
    }

    fn remove<'a>(&'a self, _: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        Reply::Ready(Ok(false))
    }

    fn keep_chunk(&self, _: &ChunkRef, _: Filled) -> Option<Payload> {
        None
    }

    fn keep_page(&self, _: &PageRef, _: &[u8]) {}

    fn lacks(&self, _: Leaving<'_>) -> bool {
        false
    }

    fn demote(&self, _: Evicted) -> Reply<'_, Result<(), Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// What the process has in memory, in MiB.
fn rss_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024
}

fn node() -> (Arc<Engine>, Arc<Sink>, Arc<MemoryTier>) {
    let (budget, sink) = (Budget::new(64 << 20), Arc::new(Sink::default()));
    let memory = MemoryTier::new(MemoryConfig::default(), &budget, Arc::new(SystemClock), 1).unwrap();
    let tiers: Vec<Arc<dyn Tier>> = vec![memory.clone(), sink.clone()];
    let engine = Engine::new(
        EngineConfig::default(),
        tiers,
        memory.clone(),
        Arc::new(SystemClock),
        budget,
        Metrics::new(),
    );
    (engine, sink, memory)
}

/// Of the bytes that are stored here, all are zero.
async fn put_zeros(engine: &Arc<Engine>, key: &Key, size: u64) -> Digest {
    let Ok(Opened::Upload(mut upload)) = engine.open(key.clone(), PutOptions::default()).await else {
        panic!("no upload");
    };
    let mut rest = size;
    while rest > 0 {
        upload.ready().await.unwrap();
        let space = upload.space();
        let count = space.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        space[..count].fill(0);
        upload.filled(count);
        rest -= count as u64;
    }
    upload.finish().await.unwrap().digest
}

fn zeros(number: u64, len: u64) -> Digest {
    let mut hasher = ChunkHasher::new(number);
    hasher.update(&vec![0; len as usize]);
    hasher.chunk().unwrap()
}

/// Seventeen GiB go through: three pages, and never more than one of them in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_a_value_of_three_pages_has_the_hash_of_its_bytes_and_takes_no_memory() {
    let (engine, sink, memory) = node();
    let key = Key::new("zeros").unwrap();
    let size = 2 * PAGE_DIGESTS * CHUNK_SIZE + 3 * CHUNK_SIZE + 5;
    put_zeros(&engine, &key, 300 << 20).await;
    let before = rss_mib();
    let digest = put_zeros(&engine, &key, size).await;
    let after = rss_mib();
    // `head -c 17192452101 /dev/zero | b3sum`
    assert_eq!((size, digest.to_string().as_str()), (17_192_452_101, ZEROS));
    let meta = sink.root.lock().clone().unwrap();
    assert_eq!((meta.digest, meta.size, meta.draft.is_some()), (digest, size, true));
    let most = sink.most.load(Ordering::SeqCst);
    assert!(most <= PAGE_DIGESTS + 8, "{most} chunks were held");
    assert_eq!(sink.held.load(Ordering::SeqCst), 0);
    assert!(after < before + 16, "{before} MiB, then {after}");
    let owner = meta.owner(key.hash());
    for number in [0, 1, 2047, 2048, 4095, 4096, 4098, 4099] {
        let page = PageRef { owner, number: number / PAGE_DIGESTS };
        // Memory has all three.
        let Lookup::Hit(digests) = memory.page(&page).get().await else { panic!("no page {page:?}") };
        let digests = digests.to_contiguous();
        assert_eq!(Some(&digests), sink.pages.lock().get(&page));
        let place = (number % PAGE_DIGESTS) as usize * 32;
        let expected = zeros(number, tree::chunk_len(size, number));
        assert_eq!(digests[place..place + 32], expected.0, "chunk {number}");
    }
    println!("{} MiB before, {after} MiB after", before);
}

const ZEROS: &str = "a16e2c9c3ed20396544b7ad93488676011e4f1ca72dac2ba28d538f06fb9bcd8";
