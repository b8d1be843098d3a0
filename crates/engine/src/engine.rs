//! Look-ups, small writes and deletions, and what orders the writes of a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::condition::Condition;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::{ChunkRef, Lookup, NewBody, Owner, PageRef, Refusal, Tier, TierName};
use elcache_core::tree;
use elcache_core::value::{Metadata, Version};
use elcache_metrics::Metrics;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, MutexGuard};

use crate::manifest;
use crate::outcome::{Found, Opened, PutOptions, Readable, Stored, Value, WriteError};
use crate::reader::Reader;
use crate::stats::{Stats, TierStats};
use crate::upload::Upload;

/// The largest value that [`Engine::put_small`] takes.
pub const MAX_SMALL: usize = 64 << 10;
/// Locks for keys. Two keys that share one wait for each other for the time of a commit.
const KEY_LOCKS: usize = 1024;
/// Chunks that are looked for before others get their turn.
const YIELD_AFTER: u64 = 1024;

/// What the coordinator can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// How long an upload may wait for its turn to take memory.
    pub admission_wait: Duration,
    /// How long it may wait for memory once it has its turn.
    pub room_wait: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { admission_wait: Duration::from_secs(120), room_wait: Duration::from_secs(15) }
    }
}

/// The coordinator of one node.
pub struct Engine {
    pub(crate) config: EngineConfig,
    tiers: Box<[Arc<dyn Tier>]>,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    locks: Box<[Mutex<()>]>,
    sequence: AtomicU64,
}

impl Engine {
    /// A coordinator over these tiers, fastest first.
    pub fn new(
        config: EngineConfig,
        tiers: Vec<Arc<dyn Tier>>,
        clock: Arc<dyn Clock>,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        // Sequences go on rising over restarts as long as the clock is not set back by more than was written since: a
        // millisecond leaves room for a million writes.
        let sequence = AtomicU64::new(clock.now_ms() << 20);
        let locks = (0..KEY_LOCKS).map(|_| Mutex::new(())).collect();
        Arc::new(Self { config, tiers: tiers.into(), clock, budget, metrics, locks, sequence })
    }

    /// Looks a key up, and counts a miss, or the hit of a value that is here as a whole.
    pub async fn get(&self, key: &Key) -> Found {
        let began = self.clock.elapsed();
        let mut busy = false;
        for tier in &self.tiers {
            match tier.root(key).get().await {
                Lookup::Hit(root) => {
                    let counters = self.metrics.tier(tier.name());
                    counters.get_latency.observe(self.clock.elapsed().saturating_sub(began));
                    let value = Value::new(root, tier.name(), key);
                    // Of a value in chunks it is not known yet whether all is there: `readable` will tell.
                    if value.inline().is_some() {
                        counters.hits.inc();
                    }
                    return Found::Value(value);
                }
                Lookup::Miss => self.metrics.tier(tier.name()).misses.inc(),
                Lookup::Busy => busy = true,
            }
        }
        if busy { Found::Busy } else { Found::Miss }
    }

    /// Whether all chunks under these spans of a value are there; counts the hit or partial hit.
    pub async fn readable(&self, value: &Value, spans: &[Span]) -> Readable {
        let mut slowest = value.tier;
        let Some(owner) = value.owner() else { return Readable::Whole(slowest) };
        let mut search = Search::new(self, owner, value.meta.size);
        for number in spans.iter().flat_map(Span::chunks) {
            match search.locate(number).await {
                Lookup::Hit(tier) => slowest = slowest.max(tier),
                Lookup::Busy => return Readable::Busy,
                Lookup::Miss => {
                    self.metrics.tier(value.tier).partial_hits.inc();
                    return Readable::Partial { available_percent: search.available_percent().await };
                }
            }
        }
        self.metrics.tier(value.tier).hits.inc();
        Readable::Whole(slowest)
    }

    /// Reads a span of a value.
    pub fn reader(self: &Arc<Self>, value: Arc<Value>, span: Span) -> Reader {
        Reader::new(Arc::clone(self), value, span)
    }

    /// Counts bytes that were given out without a [`Reader`].
    pub fn count_read(&self, tier: TierName, bytes: u64) {
        self.metrics.tier(tier).bytes_read.add(bytes);
    }

    /// Writes a value of at most [`MAX_SMALL`] bytes that is there as a whole.
    pub async fn put_small(
        &self,
        key: &Key,
        options: &PutOptions,
        body: &[u8],
    ) -> Result<Stored, WriteError> {
        if body.len() as u64 > options.value_limit {
            return Err(WriteError::OverLimit);
        }
        if body.len() > MAX_SMALL {
            return Err(WriteError::DoesNotFit);
        }
        if options.sha256.is_some_and(|wanted| Sha256::digest(body)[..] != wanted) {
            return Err(WriteError::DigestMismatch);
        }
        let digest = Digest(*blake3::hash(body).as_bytes());
        self.commit(key, options, body.len() as u64, digest, |_| NewBody::Borrowed(body)).await
    }

    /// Begins to write a value of any size. Conditions and limits are checked now, as far as they can be, and again when it
    /// is finished; a value whose length is known waits here for its turn.
    pub async fn open(self: &Arc<Self>, key: Key, options: PutOptions) -> Result<Opened, WriteError> {
        self.writer(&options)?;
        if options.length.is_some_and(|length| length > options.value_limit) {
            return Err(WriteError::OverLimit);
        }
        let current = self.current(&key).await?;
        if let Some(stored) = known(current.as_ref(), &options) {
            return Ok(Opened::Known(stored));
        }
        if !options.condition.holds(current.as_ref()) {
            return Err(WriteError::ConditionFailed);
        }
        Upload::open(Arc::clone(self), key, options).await.map(Opened::Upload)
    }

    /// Deletes a key's value, if the condition holds; false when there was none.
    pub async fn delete(&self, key: &Key, condition: &Condition) -> Result<bool, WriteError> {
        let _lock = self.lock(key).await;
        let current = self.current(key).await?;
        if current.is_none() {
            return Ok(false);
        }
        if !condition.holds(current.as_ref()) {
            return Err(WriteError::ConditionFailed);
        }
        for tier in &self.tiers {
            tier.remove(key).get().await;
        }
        Ok(true)
    }

    /// The numbers of `/stats`.
    pub fn stats(&self) -> Stats {
        let of = |tier: &Arc<dyn Tier>| {
            let counters = self.metrics.tier(tier.name());
            let usage = tier.usage();
            let stats = TierStats {
                hits: counters.hits.get(),
                misses: counters.misses.get(),
                partial_hits: counters.partial_hits.get(),
                bytes_read: counters.bytes_read.get(),
                bytes_written: counters.bytes_written.get(),
                evictions: usage.evicted_for_room + usage.evicted_expired,
                usage,
            };
            (tier.name(), stats)
        };
        Stats::of(self.tiers.iter().map(of).collect())
    }

    /// The time.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The memory budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The tiers, fastest first.
    pub(crate) fn tiers(&self) -> &[Arc<dyn Tier>] {
        &self.tiers
    }

    /// The tier that takes a write.
    pub(crate) fn writer(&self, options: &PutOptions) -> Result<&Arc<dyn Tier>, WriteError> {
        let may = |tier: &&Arc<dyn Tier>| match tier.name() {
            TierName::Memory => !options.no_memory,
            TierName::Disk => !options.no_disk,
            TierName::Cluster => !options.no_cluster,
        };
        self.tiers.iter().find(may).ok_or(WriteError::DoesNotFit)
    }

    /// Makes a value the key's, under the key's lock, if its condition holds then.
    pub(crate) async fn commit<'a>(
        &self,
        key: &Key,
        options: &PutOptions,
        size: u64,
        digest: Digest,
        body: impl FnOnce(&Metadata) -> NewBody<'a>,
    ) -> Result<Stored, WriteError> {
        let began = self.clock.elapsed();
        let tier = self.writer(options)?;
        let _lock = self.lock(key).await;
        let current = self.current(key).await?;
        if let Some(stored) = known(current.as_ref(), options) {
            return Ok(stored);
        }
        if !options.condition.holds(current.as_ref()) {
            return Err(WriteError::ConditionFailed);
        }
        let meta = self.metadata(options, size, digest, current.is_none());
        tier.commit(key, &meta, body(&meta)).get().await.map_err(refused)?;
        let counters = self.metrics.tier(tier.name());
        counters.bytes_written.add(size);
        counters.put_latency.observe(self.clock.elapsed().saturating_sub(began));
        Ok(Stored { created: meta.created, digest })
    }

    fn metadata(&self, options: &PutOptions, size: u64, digest: Digest, created: bool) -> Metadata {
        let now_ms = self.clock.now_ms();
        let lifetime_ms = options.ttl_seconds.map(|seconds| seconds.get().saturating_mul(1000));
        Metadata {
            size,
            digest,
            version: Version { view: 0, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) },
            modified_ms: now_ms,
            expires_ms: lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms)),
            flags: options.flags,
            operation: options.operation.clone(),
            created,
            headers: options.headers.clone(),
        }
    }

    /// The value that a write would replace.
    async fn current(&self, key: &Key) -> Result<Option<Metadata>, WriteError> {
        for tier in &self.tiers {
            match tier.root(key).get().await {
                Lookup::Hit(root) => return Ok(Some(root.meta)),
                Lookup::Miss => {}
                Lookup::Busy => return Err(WriteError::Busy),
            }
        }
        Ok(None)
    }

    async fn lock(&self, key: &Key) -> MutexGuard<'_, ()> {
        use std::hash::{BuildHasher, RandomState};
        static STATE: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
        let hash = STATE.get_or_init(RandomState::new).hash_one(key.as_bytes());
        self.locks[hash as usize % KEY_LOCKS].lock().await
    }
}

/// The answer that this very write got before, if the key's value is still what it wrote.
fn known(current: Option<&Metadata>, options: &PutOptions) -> Option<Stored> {
    let current = current.filter(|meta| meta.operation.is_some() && meta.operation == options.operation)?;
    Some(Stored { created: current.created, digest: current.digest })
}

/// A tier's refusal as the client hears it.
pub(crate) fn refused(refusal: Refusal) -> WriteError {
    match refusal {
        Refusal::TooLarge => WriteError::DoesNotFit,
        Refusal::Full => WriteError::Busy,
    }
}

/// Looks for chunks of one value, page by page.
pub(crate) struct Search<'a> {
    engine: &'a Engine,
    size: u64,
    owner: Owner,
    page: Option<(u64, bytes::Bytes)>,
    looked: u64,
}

impl<'a> Search<'a> {
    pub(crate) fn new(engine: &'a Engine, owner: Owner, size: u64) -> Self {
        Self { engine, size, owner, page: None, looked: 0 }
    }

    /// Goes on with a page that was read before.
    pub(crate) fn with_page(mut self, page: Option<(u64, bytes::Bytes)>) -> Self {
        self.page = page;
        self
    }

    pub(crate) fn into_page(self) -> Option<(u64, bytes::Bytes)> {
        self.page
    }

    /// The chunk of this number.
    pub(crate) async fn chunk(&mut self, number: u64) -> Lookup<ChunkRef> {
        let (page, place) = manifest::place_of(number);
        if self.page.as_ref().is_none_or(|(have, _)| *have != page) {
            match self.read_page(page).await {
                Lookup::Hit(bytes) => self.page = Some((page, bytes)),
                Lookup::Miss => return Lookup::Miss,
                Lookup::Busy => return Lookup::Busy,
            }
        }
        let digest = self.page.as_ref().and_then(|(_, bytes)| manifest::digest_at(bytes, place));
        match digest {
            Some(digest) => {
                Lookup::Hit(ChunkRef { digest, number, len: tree::chunk_len(self.size, number) as u32 })
            }
            None => Lookup::Miss,
        }
    }

    /// The fastest tier that has the chunk of this number.
    async fn locate(&mut self, number: u64) -> Lookup<TierName> {
        self.looked += 1;
        if self.looked.is_multiple_of(YIELD_AFTER) {
            tokio::task::yield_now().await;
        }
        let chunk = match self.chunk(number).await {
            Lookup::Hit(chunk) => chunk,
            Lookup::Miss => return Lookup::Miss,
            Lookup::Busy => return Lookup::Busy,
        };
        for tier in self.engine.tiers() {
            if tier.has_chunk(&chunk).get().await {
                return Lookup::Hit(tier.name());
            }
        }
        Lookup::Miss
    }

    /// How much of the whole value is there, in percent, floored.
    async fn available_percent(&mut self) -> u8 {
        let mut bytes = 0_u128;
        for number in 0..tree::chunk_count(self.size) {
            if let Lookup::Hit(_) = self.locate(number).await {
                bytes += u128::from(tree::chunk_len(self.size, number));
            }
        }
        (bytes * 100).checked_div(u128::from(self.size)).unwrap_or(100) as u8
    }

    async fn read_page(&self, number: u64) -> Lookup<bytes::Bytes> {
        let page = PageRef { owner: self.owner, number };
        let mut busy = false;
        for tier in self.engine.tiers() {
            match tier.page(&page).get().await {
                Lookup::Hit(payload) => return Lookup::Hit(payload.to_contiguous()),
                Lookup::Miss => {}
                Lookup::Busy => busy = true,
            }
        }
        if busy { Lookup::Busy } else { Lookup::Miss }
    }
}
