//! Look-ups, small writes and deletions, and what orders the writes of a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::condition::Condition;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Buffers, Filled};
use elcache_core::span::Span;
use elcache_core::tier::{DirectoryUsage, Lookup, NewBody, Refusal, StagedPage, Tier, TierName};
use elcache_core::tree;
use elcache_core::value::{Metadata, Version};
use elcache_metrics::Metrics;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::admit::Admission;
use crate::demote::Demoter;
use crate::flights::Flights;
use crate::manifest::PageCopy;
use crate::order::Order;
use crate::outcome::{Found, Opened, PutOptions, Readable, Stored, Value, WriteError};
use crate::reader::Reader;
use crate::residency::Residency;
use crate::seen::Seen;
use crate::sparse::registry::Registry;
use crate::stats::{Stats, TierStats};
use crate::upload::Upload;

/// The largest value that [`Engine::put_small`] takes.
pub const MAX_SMALL: usize = 64 << 10;
/// What has been evicted and is on its way to a slower tier may take this part of the memory budget.
const DEMOTED: u64 = 16;

/// What the coordinator can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// How long an upload may wait for its turn to take memory.
    pub admission_wait: Duration,
    /// How long it may wait for memory once it has its turn.
    pub room_wait: Duration,
    /// Chunks that are read ahead of a reader that goes through a value.
    pub prefetch_chunks: u32,
    /// What the disk gets.
    pub admission: Admission,
    /// Uploads by ranges that may be open at once.
    pub uploads: usize,
    /// How long one is kept that nobody continues.
    pub upload_ttl: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            admission_wait: Duration::from_secs(120),
            room_wait: Duration::from_secs(15),
            prefetch_chunks: 2,
            admission: Admission::default(),
            uploads: 1000,
            upload_ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The coordinator of one node.
pub struct Engine {
    pub(crate) config: EngineConfig,
    tiers: Box<[Arc<dyn Tier>]>,
    pub(crate) buffers: Arc<dyn Buffers>,
    clock: Arc<dyn Clock>,
    budget: Arc<Budget>,
    metrics: Arc<Metrics>,
    pub(crate) order: Arc<Order>,
    pub(crate) flights: Flights,
    pub(crate) residency: Residency,
    /// Chunks that may be read ahead at once, by all readers together.
    pub(crate) ahead: Arc<Semaphore>,
    sequence: AtomicU64,
    /// What was written not long ago, if that matters.
    pub(crate) seen: Option<Seen>,
    /// One value at a time goes to the disk because it was asked for.
    pub(crate) carrying: Arc<Semaphore>,
    /// What many writers put together.
    pub(crate) uploads: Registry,
}

/// What is to be committed.
pub(crate) enum Source<'a> {
    /// At most [`MAX_SMALL`] bytes.
    Small(&'a [u8]),
    /// At most one chunk, of a draft if it was one.
    Filled { filled: Filled, draft: Option<Version> },
    /// What the home has staged of a draft.
    Draft { draft: Version, size: u64 },
    /// Pages of a draft that the home has, with their chunks; and what other tiers get of them.
    Pages { draft: Version, pages: Vec<StagedPage>, copies: Vec<PageCopy>, size: u64 },
}

impl Engine {
    /// A coordinator over these tiers, fastest first. `buffers` come from the fastest, which can keep them.
    pub fn new(
        config: EngineConfig,
        tiers: Vec<Arc<dyn Tier>>,
        buffers: Arc<dyn Buffers>,
        clock: Arc<dyn Clock>,
        budget: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        // Sequences go on rising over restarts as long as the clock is not set back by more than was written since: a
        // millisecond leaves room for a million writes.
        let sequence = AtomicU64::new(clock.now_ms() << 20);
        // A quarter of the memory may hold what somebody may want next.
        let ahead = (budget.max_bytes() / 4 / tree::CHUNK_SIZE).min(Semaphore::MAX_PERMITS as u64) as usize;
        let seen = (config.admission == Admission::SecondHit).then(|| Seen::new(&budget));
        let uploads = Registry::new(&tiers, &budget, config.admission_wait);
        Arc::new(Self {
            config,
            tiers: tiers.into(),
            buffers,
            clock,
            budget,
            metrics,
            order: Arc::new(Order::new()),
            flights: Flights::default(),
            residency: Residency::default(),
            ahead: Arc::new(Semaphore::new(ahead)),
            sequence,
            seen,
            carrying: Arc::new(Semaphore::new(1)),
            uploads,
        })
    }

    /// Looks a key up, and counts a miss, or the hit of a value that is here as a whole.
    pub async fn get(self: &Arc<Self>, key: &Key) -> Found {
        let began = self.clock.elapsed();
        let mut stamp = None;
        let mut busy = false;
        for (place, tier) in self.tiers.iter().enumerate() {
            if place == 1 {
                stamp = Some(self.order.stamp(key.as_bytes()));
            }
            match tier.root(key).get().await {
                Lookup::Hit(root) => {
                    let value = Value::new(root, tier.name(), key, stamp);
                    self.count_found(&value, began);
                    if place > 0 {
                        self.promote(&value);
                    } else {
                        self.asked_for(key, &value);
                    }
                    return Found::Value(value);
                }
                Lookup::Miss => self.metrics.tier(tier.name()).misses.inc(),
                Lookup::Busy => busy = true,
            }
        }
        if busy { Found::Busy } else { Found::Miss }
    }

    /// As [`Engine::get`], where that does not have to wait: `None`, and nothing is counted, when slower tiers have to be asked.
    pub fn get_now(self: &Arc<Self>, key: &Key) -> Option<Found> {
        let began = self.clock.elapsed();
        let tier = self.tiers.first()?;
        match tier.root(key).now()? {
            Lookup::Hit(root) => {
                let value = Value::new(root, tier.name(), key, None);
                self.count_found(&value, began);
                self.asked_for(key, &value);
                Some(Found::Value(value))
            }
            Lookup::Miss if self.tiers.len() == 1 => {
                self.metrics.tier(tier.name()).misses.inc();
                Some(Found::Miss)
            }
            Lookup::Miss | Lookup::Busy => None,
        }
    }

    fn count_found(&self, value: &Value, began: Duration) {
        let counters = self.metrics.tier(value.tier);
        counters.get_latency.observe(self.clock.elapsed().saturating_sub(began));
        // Of a value in chunks it is not known yet whether all is there: `readable` will tell.
        if value.inline().is_some() {
            counters.hits.inc();
        }
    }

    /// Whether all chunks under these spans of a value are there; counts the hit, partial hit or miss.
    pub async fn readable(self: &Arc<Self>, value: &Value, spans: &[Span]) -> Readable {
        let counters = self.metrics.tier(value.tier);
        let Some(chunked) = value.chunked() else {
            if value.apart().is_some() {
                counters.hits.inc();
            }
            return Readable::Whole(value.tier);
        };
        let readable = match self.available(&chunked, spans).await {
            Readable::Whole(slowest) => Readable::Whole(slowest.max(value.tier)),
            readable => readable,
        };
        match readable {
            Readable::Whole(_) => counters.hits.inc(),
            Readable::Partial { .. } => counters.partial_hits.inc(),
            Readable::Gone => counters.misses.inc(),
            Readable::Busy => {}
        }
        readable
    }

    /// Reads a span of a value.
    pub fn reader(self: &Arc<Self>, value: Arc<Value>, span: Span) -> Reader {
        Reader::new(Arc::clone(self), value, span)
    }

    /// Counts hits that clients had without asking, and their bytes.
    pub fn count_hits(&self, tier: TierName, hits: u64, bytes: u64) {
        let counters = self.metrics.tier(tier);
        counters.hits.add(hits);
        counters.bytes_read.add(bytes);
    }

    /// Counts bytes that were given out without a [`Reader`].
    pub fn count_read(&self, tier: TierName, bytes: u64) {
        self.metrics.tier(tier).bytes_read.add(bytes);
    }

    /// Writes a value of at most [`MAX_SMALL`] bytes that is there as a whole.
    pub async fn put_small(
        self: &Arc<Self>,
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
        let home = self.home_of(key, options, Some(body.len() as u64))?;
        if self.tiers.len() == 1 {
            return self.commit(home, key, options, digest, Source::Small(body)).await;
        }
        let (engine, home, key, options) = (Arc::clone(self), Arc::clone(home), key.clone(), options.clone());
        let body = bytes::Bytes::copy_from_slice(body);
        to_the_end(async move { engine.commit(&home, &key, &options, digest, Source::Small(&body)).await })
            .await
    }

    /// Begins to write a value of any size. Conditions and limits are checked now, as far as they can be, and again when it
    /// is finished; a value whose length is known waits here for its turn.
    pub async fn open(self: &Arc<Self>, key: Key, options: PutOptions) -> Result<Opened, WriteError> {
        self.home_for(&options, 0)?;
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
    pub async fn delete(self: &Arc<Self>, key: &Key, condition: &Condition) -> Result<bool, WriteError> {
        let (engine, key, condition) = (Arc::clone(self), key.clone(), condition.clone());
        to_the_end(async move { engine.delete_now(&key, &condition).await }).await
    }

    async fn delete_now(&self, key: &Key, condition: &Condition) -> Result<bool, WriteError> {
        let _writing = self.order.write(key).await;
        self.ready().await?;
        let current = self.current(key).await?;
        if !condition.holds(current.as_ref()) {
            return if current.is_some() { Err(WriteError::ConditionFailed) } else { Ok(false) };
        }
        // Even if nothing was found: what cannot be read at the moment may be there again later. The slowest first: what is
        // gone there cannot come back from there.
        let mut removed = current.is_some();
        for tier in self.tiers.iter().rev() {
            removed |= tier.remove(key).get().await.map_err(refused)?;
        }
        Ok(removed)
    }

    /// The directories that the tiers are in.
    pub fn directories(&self) -> Vec<DirectoryUsage> {
        self.tiers.iter().flat_map(|tier| tier.directories()).collect()
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

    /// The clock, for who keeps it.
    pub fn clock_handle(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Takes what the fastest tier evicts to the next one, if there is one: to be given to the fastest. Needs the runtime.
    pub fn demoter(&self) -> Option<Arc<Demoter>> {
        let slower = self.tiers.get(1)?;
        let max_bytes = self.budget.max_bytes() / DEMOTED;
        let asked_for = self.config.admission == Admission::SecondHit;
        Some(Demoter::start(Arc::clone(&self.order), Arc::clone(slower), max_bytes, asked_for))
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The memory budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The tiers, fastest first.
    pub(crate) fn tiers(&self) -> &[Arc<dyn Tier>] {
        &self.tiers
    }

    /// The home of a value of this length: of the tiers that may have it and take values at the moment the slowest that can hold
    /// it.
    pub(crate) fn home_for(&self, options: &PutOptions, len: u64) -> Result<&Arc<dyn Tier>, WriteError> {
        let mut without = WriteError::DoesNotFit;
        for tier in self.tiers.iter().rev().filter(|tier| may_have(options, tier.name())) {
            if !tier.takes_values() {
                without = WriteError::Failed;
            } else if tier.largest_admission() >= len {
                return Ok(tier);
            }
        }
        Err(without)
    }

    /// Makes a value the key's, under the key's lock, if its condition holds then: in its home, and as a copy in the faster
    /// tiers that may have one. Has to be run to its end.
    pub(crate) async fn commit(
        &self,
        home: &Arc<dyn Tier>,
        key: &Key,
        options: &PutOptions,
        digest: Digest,
        source: Source<'_>,
    ) -> Result<Stored, WriteError> {
        let began = self.clock.elapsed();
        let _writing = self.order.write(key).await;
        self.ready().await?;
        let current = self.current(key).await?;
        if let Some(stored) = known(current.as_ref(), options) {
            return Ok(stored);
        }
        if !options.condition.holds(current.as_ref()) {
            return Err(WriteError::ConditionFailed);
        }
        for tier in self.tiers.iter().filter(|tier| tier.name() > home.name() && !tier.takes_values()) {
            // What it has stays there, and nothing may come in its place.
            tier.remove(key).get().await.map_err(refused)?;
        }
        let mut meta = self.metadata(options, source.size(), digest, current.is_none());
        meta.draft = source.draft();
        let copy = match source {
            Source::Small(bytes) => {
                home.commit(key, &meta, NewBody::Borrowed(bytes)).get().await.map_err(refused)?;
                Source::Small(bytes)
            }
            Source::Filled { filled, draft } => {
                // A home that keeps buffers gets the only one.
                let copy = (self.tiers.len() > 1).then(|| filled.clone());
                home.commit(key, &meta, NewBody::Filled(filled)).get().await.map_err(refused)?;
                copy.map_or(Source::Small(&[]), |filled| Source::Filled { filled, draft })
            }
            Source::Draft { size: 0, .. } => {
                home.commit(key, &meta, NewBody::Borrowed(&[])).get().await.map_err(refused)?;
                Source::Small(&[])
            }
            Source::Draft { draft, size } => {
                home.commit(key, &meta, NewBody::Draft).get().await.map_err(refused)?;
                Source::Draft { draft, size }
            }
            Source::Pages { draft, pages, copies, size } => {
                home.commit(key, &meta, NewBody::Pages(pages)).get().await.map_err(refused)?;
                Source::Pages { draft, pages: Vec::new(), copies, size }
            }
        };
        self.settle(home, key, &meta, copy).await?;
        let counters = self.metrics.tier(home.name());
        counters.bytes_written.add(meta.size);
        counters.put_latency.observe(self.clock.elapsed().saturating_sub(began));
        Ok(Stored { created: meta.created, digest })
    }

    /// Brings the other tiers into line with what was committed in its home.
    async fn settle(
        &self,
        home: &Arc<dyn Tier>,
        key: &Key,
        meta: &Metadata,
        mut copy: Source<'_>,
    ) -> Result<(), WriteError> {
        for tier in self.tiers.iter().rev().filter(|tier| tier.name() > home.name()) {
            // A slower tier must not have an older value that would come back when this one is evicted.
            if let Err(refusal) = tier.remove(key).get().await {
                let _ = home.remove(key).get().await;
                return Err(refused(refusal));
            }
        }
        for tier in self.tiers.iter().filter(|tier| tier.name() < home.name()) {
            let kept = !meta.no_memory && keep_copy(&**tier, key, meta, &mut copy).await;
            if !kept {
                let _ = tier.remove(key).get().await;
            }
        }
        Ok(())
    }

    /// Waits until every tier can take a write, which then is newer than all that they have.
    pub(crate) async fn ready(&self) -> Result<(), WriteError> {
        for tier in &self.tiers {
            let highest = tier.ready().get().await.map_err(refused)?;
            if highest.sequence >= self.sequence.load(Ordering::Relaxed) {
                self.sequence.fetch_max(highest.sequence + 1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// A version for a value that is not committed yet, newer than all that the tiers have.
    pub(crate) async fn reserve(&self) -> Result<Version, WriteError> {
        self.ready().await?;
        Ok(self.next_version())
    }

    fn metadata(&self, options: &PutOptions, size: u64, digest: Digest, created: bool) -> Metadata {
        let now_ms = self.clock.now_ms();
        let lifetime_ms = options.ttl_seconds.map(|seconds| seconds.get().saturating_mul(1000));
        Metadata {
            size,
            digest,
            version: self.next_version(),
            draft: None,
            modified_ms: now_ms,
            expires_ms: lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms)),
            flags: options.flags,
            operation: options.operation.clone(),
            created,
            no_memory: options.no_memory,
            no_disk: options.no_disk,
            headers: options.headers.clone(),
        }
    }

    /// Above all that the tiers know, once they are ready.
    fn next_version(&self) -> Version {
        Version { view: 0, sequence: self.sequence.fetch_add(1, Ordering::Relaxed) }
    }

    /// The value that a write would replace.
    pub(crate) async fn current(&self, key: &Key) -> Result<Option<Metadata>, WriteError> {
        for tier in &self.tiers {
            match tier.root(key).get().await {
                Lookup::Hit(root) => return Ok(Some(root.meta)),
                Lookup::Miss => {}
                Lookup::Busy => return Err(WriteError::Busy),
            }
        }
        Ok(None)
    }
}

impl Source<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::Filled { filled, .. } => filled.len() as u64,
            Self::Draft { size, .. } | Self::Pages { size, .. } => *size,
        }
    }

    /// The draft that it was.
    fn draft(&self) -> Option<Version> {
        match self {
            Self::Filled { draft, .. } => *draft,
            Self::Draft { draft, .. } | Self::Pages { draft, .. } => Some(*draft),
            Self::Small(_) => None,
        }
    }
}

/// Runs a write to its end even when whoever asked for it goes away: what is written to one tier has to be settled with
/// the others before the key is written again.
pub(crate) async fn to_the_end<T: Send + 'static, E: From<WriteError> + Send + 'static>(
    write: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    // The task does not end before its time but when the runtime goes down, or by a panic.
    tokio::spawn(write).await.unwrap_or_else(|_| Err(WriteError::Failed.into()))
}

pub(crate) fn may_have(options: &PutOptions, tier: TierName) -> bool {
    match tier {
        TierName::Memory => !options.no_memory,
        TierName::Disk => !options.no_disk,
        TierName::Cluster => !options.no_cluster,
    }
}

/// Keeps a copy of what has just been committed elsewhere; false when there is no room for it.
async fn keep_copy(tier: &dyn Tier, key: &Key, meta: &Metadata, copy: &mut Source<'_>) -> bool {
    let body = match std::mem::replace(copy, Source::Small(&[])) {
        Source::Small(bytes) => NewBody::Borrowed(bytes),
        Source::Filled { filled, .. } => NewBody::Filled(filled),
        Source::Draft { .. } => NewBody::Elsewhere,
        Source::Pages { copies, .. } => {
            copies.iter().for_each(|copy| copy.keep_in(tier));
            NewBody::Elsewhere
        }
    };
    tier.commit(key, meta, body).get().await.is_ok()
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
        Refusal::Failed => WriteError::Failed,
    }
}
