//! A server over a tier that takes as long as it is told to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::SystemClock;
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::staging::Staging;
use elcache_core::tier::{
    ChunkRef, Evicted, Hold, Leaving, Lookup, NewBody, PageRef, Part, Presence, Refusal, Reply, Root, Staged,
    StagedPage, Tier, TierName, Usage,
};
use elcache_core::value::{Metadata, Version};
use elcache_engine::{Engine, EngineConfig};
use elcache_local::{Bound, Local, LocalConfig, Server};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use elcache_tests::scratch::Scratch;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Keys that begin so are looked up when the gate is open.
pub(crate) const SLOW: &[u8] = b"slow";
/// Looking up keys that begin so panics, when the gate is open.
pub(crate) const BROKEN: &[u8] = b"broken";
/// Values of keys that begin so are committed when the gate is open.
pub(crate) const HELD: &[u8] = b"held";

/// The memory tier, with a gate in front of it.
pub(crate) struct Gated {
    memory: Arc<MemoryTier>,
    pub(crate) open: watch::Sender<bool>,
    /// Room is promised when this gate is open.
    pub(crate) admits: watch::Sender<bool>,
    /// Commits that have come to the gate.
    pub(crate) commits: AtomicU32,
}

impl Gated {
    async fn pass(gate: &watch::Sender<bool>) {
        // It is not dropped as long as the tier is there.
        let _ = gate.subscribe().wait_for(|open| *open).await;
    }
}

impl Tier for Gated {
    fn name(&self) -> TierName {
        TierName::Memory
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        self.memory.ready()
    }

    fn root(&self, key: &Key) -> Reply<'_, Lookup<Root>> {
        let breaks = key.as_bytes().starts_with(BROKEN);
        if !key.as_bytes().starts_with(SLOW) && !breaks {
            return self.memory.root(key);
        }
        let key = key.clone();
        Reply::Later(Box::pin(async move {
            Self::pass(&self.open).await;
            assert!(!breaks, "looking {key:?} up breaks on purpose");
            self.memory.root(&key).get().await
        }))
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        self.memory.page(page)
    }

    fn chunk(&self, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Part>> {
        self.memory.chunk(chunk, from, to)
    }

    fn chunk_whole(&self, chunk: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        self.memory.chunk_whole(chunk)
    }

    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool> {
        self.memory.has_chunk(chunk)
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        self.memory.has_chunks(chunks)
    }

    fn shrunk(&self) -> u64 {
        self.memory.shrunk()
    }

    fn admit(&self, bytes: u64) -> Reply<'_, Result<Hold, Refusal>> {
        Reply::Later(Box::pin(async move {
            Self::pass(&self.admits).await;
            self.memory.admit(bytes).get().await
        }))
    }

    fn largest_admission(&self) -> u64 {
        self.memory.largest_admission()
    }

    fn stage(&self, chunk: ChunkRef, data: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        self.memory.stage(chunk, data)
    }

    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>> {
        self.memory.stage_page(page, digests, chunks)
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>> {
        if !key.as_bytes().starts_with(HELD) {
            return self.memory.commit(key, meta, body);
        }
        Reply::Later(Box::pin(async move {
            self.commits.fetch_add(1, Ordering::SeqCst);
            Self::pass(&self.open).await;
            self.memory.commit(key, meta, body).get().await
        }))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        self.memory.remove(key)
    }

    fn keep_chunk(&self, chunk: &ChunkRef, data: Filled) -> Option<Payload> {
        self.memory.keep_chunk(chunk, data)
    }

    fn keep_page(&self, page: &PageRef, digests: &[u8]) {
        self.memory.keep_page(page, digests);
    }

    fn lacks(&self, leaving: Leaving<'_>) -> bool {
        self.memory.lacks(leaving)
    }

    fn demote(&self, evicted: Evicted) -> Reply<'_, Result<(), Refusal>> {
        self.memory.demote(evicted)
    }

    fn usage(&self) -> Usage {
        self.memory.usage()
    }

    fn staging(&self) -> Option<&dyn Staging> {
        self.memory.staging()
    }
}

/// A server on a socket of its own.
pub(crate) struct Node {
    pub(crate) tier: Arc<Gated>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) path: PathBuf,
    pub(crate) runtime: Runtime,
    _scratch: Scratch,
}

impl Node {
    pub(crate) fn start(config: LocalConfig) -> Self {
        let runtime = Runtime::new().unwrap();
        let scratch = Scratch::new();
        let path = scratch.path().join("node.sock");
        let budget = Budget::new(64 << 20);
        let clock = Arc::new(SystemClock);
        let memory = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 1).unwrap();
        let tier = Arc::new(Gated {
            memory: memory.clone(),
            open: watch::Sender::new(false),
            admits: watch::Sender::new(true),
            commits: AtomicU32::new(0),
        });
        let metrics = Metrics::new();
        let engine = Engine::new(
            EngineConfig::default(),
            vec![tier.clone()],
            memory,
            clock,
            budget,
            Arc::clone(&metrics),
        );
        let seats = Arc::default();
        let local = Local::new(Arc::clone(&engine), metrics, config, seats, "test".to_owned());
        let bound = runtime.block_on(Bound::open(&path)).unwrap();
        let server = Server::new(local);
        runtime.spawn(async move { server.serve(bound, std::future::pending(), Duration::ZERO).await });
        Self { tier, engine, path, runtime, _scratch: scratch }
    }
}
