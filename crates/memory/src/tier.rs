//! The memory tier as the coordinator sees it.

use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use elcache_arena::{Life, OwnedRef, PageBuffer};
use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::key::Key;
use elcache_core::payload::{Buffer, Buffers, Filled, Payload};
use elcache_core::staging::Staging;
use elcache_core::tier::{
    Above, Below, Body, ChunkRef, Evicted, Hold, Leaving, Lookup, NewBody, Owner, PageRef, Part, Presence,
    Refusal, Reply, Root, Staged, StagedPage, Tier, TierName, Usage,
};
use elcache_core::value::{Metadata, Version};
use parking_lot::{Mutex, RwLock};

use crate::layout::{self, Kind};
use crate::promises::Promises;
use crate::shard::Sweep;
use crate::staging::Drafts;
use crate::store::{self, NoRoom, Store, StoreConfig};

/// How often the housekeeper looks around when nobody wakes it.
const ROUND: Duration = Duration::from_millis(100);
/// Records of each shard that it looks at in a round, for expired values.
const SWEEP: u32 = 2048;
/// Entries that it evicts before it looks at anything else again.
const EVICTIONS: usize = 256;

/// What the memory tier can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryConfig {
    /// Above this share of the capacity, eviction runs in the background.
    pub high_watermark: f64,
    /// It stops at this one.
    pub low_watermark: f64,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { high_watermark: 0.95, low_watermark: 0.85 }
    }
}

impl MemoryConfig {
    /// What is wrong with it, if anything.
    pub fn validate(&self) -> Result<(), String> {
        if 0.0 < self.low_watermark && self.low_watermark < self.high_watermark && self.high_watermark <= 1.0
        {
            return Ok(());
        }
        Err(format!(
            "the watermarks must be 0 < low < high <= 1, not low {} and high {}",
            self.low_watermark, self.high_watermark
        ))
    }
}

/// Tier 1.
pub struct MemoryTier {
    pub(crate) store: Store,
    pub(crate) drafts: Drafts,
    promises: Promises,
    clock: Arc<dyn Clock>,
    config: RwLock<MemoryConfig>,
    housekeeper: Mutex<Option<Thread>>,
    /// Set while the housekeeper has been woken and has not looked yet, so that it is woken once.
    woken: AtomicBool,
}

impl MemoryTier {
    /// An empty tier that takes of the budget what the others leave. Its housekeeper runs until it is dropped.
    pub fn new(
        config: MemoryConfig,
        budget: &Arc<Budget>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> io::Result<Arc<Self>> {
        let store =
            Store::new(&StoreConfig { shards: None, capacity_bytes: None, seed }, Arc::clone(budget))?;
        let tier = Arc::new(Self {
            promises: Promises::new(store.capacity_bytes()),
            drafts: Drafts::new(Arc::clone(budget)),
            store,
            clock,
            config: RwLock::new(config),
            housekeeper: Mutex::new(None),
            woken: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&tier);
        let thread = thread::Builder::new().name("memory-keeper".into()).spawn(move || keep_house(&weak))?;
        *tier.housekeeper.lock() = Some(thread.thread().clone());
        Ok(tier)
    }

    /// The shards, for measuring.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// From now on this is offered what is evicted. Only the first one counts.
    pub fn set_below(&self, below: Arc<dyn Below>) {
        self.store.set_below(below);
    }

    /// Changes the watermarks.
    pub fn reconfigure(&self, config: MemoryConfig) {
        *self.config.write() = config;
        self.wake();
    }

    /// Has the housekeeper run when there is more than the high watermark.
    pub(crate) fn after_growth(&self) {
        let high = self.config.read().high_watermark;
        if self.store.used_bytes() as f64 > self.store.capacity_bytes() as f64 * high {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::Relaxed)
            && let Some(thread) = &*self.housekeeper.lock()
        {
            thread.unpark();
        }
    }

    /// One round of housekeeping; true when there is more to evict at once. `evicting` is what the round before said.
    fn round(&self, sweeps: &mut Vec<Sweep>, evicting: bool) -> bool {
        self.woken.store(false, Ordering::Relaxed);
        self.store.refresh_limits();
        self.drafts.drop_ended();
        self.store.reap();
        let MemoryConfig { high_watermark, low_watermark } = *self.config.read();
        let share = if evicting { low_watermark } else { high_watermark };
        let over = self.store.used_bytes() as f64 > self.store.capacity_bytes() as f64 * share;
        if over && !self.store.evict_to(low_watermark, EVICTIONS) {
            return true;
        }
        self.store.sweep(sweeps, SWEEP, self.clock.now_ms());
        false
    }

    /// Says to clients who share the memory that this process lives, for as long as the result does.
    pub fn begin_life(&self) -> io::Result<Life> {
        self.store.pool().begin_life()
    }

    fn find_root(&self, key: &Key) -> Lookup<Root> {
        let Some(record) = self.store.get_owned(Kind::Value, key.as_bytes()) else { return Lookup::Miss };
        let Some((meta, body_at)) = layout::decode_value(record.content(), record.pages_len()) else {
            return Lookup::Miss;
        };
        let now_ms = self.clock.now_ms();
        if meta.expired(now_ms) {
            drop(record);
            self.store.expire(key.as_bytes(), now_ms);
            return Lookup::Miss;
        }
        let size = meta.size as usize;
        match layout::name_of(record.content()) {
            Some((Kind::Value, _)) => {
                Lookup::Hit(Root { meta, body: Body::Here(record.body(body_at, 0, size)) })
            }
            _ => Lookup::Hit(Root { meta, body: Body::Chunks(Some(Box::new(record))) }),
        }
    }

    fn find_plain(&self, kind: Kind, name: &[u8], from: usize, to: usize) -> Lookup<Payload> {
        match self.store.get_owned(kind, name) {
            Some(record) => {
                let body_at = layout::plain_body_at(record.content());
                Lookup::Hit(record.body(body_at, from, to))
            }
            None => Lookup::Miss,
        }
    }

    fn commit_now(&self, key: &Key, meta: &Metadata, body: NewBody<'_>) -> Result<(), Refusal> {
        let done = match body {
            NewBody::Borrowed(bytes) => self.store.put_value(key.as_bytes(), meta, bytes),
            NewBody::Filled(filled) => {
                let head = layout::encode_value(Kind::Value, key.as_bytes(), meta);
                let pages = self.take_back(filled)?.into_pages();
                self.store.put(Kind::Value, key.as_bytes(), &[&head], Some(pages), None)
            }
            NewBody::Pages(pages) => self.commit_pages(key, meta, pages),
            NewBody::Draft => return self.commit_draft(key, meta).inspect(|()| self.after_growth()),
            NewBody::Elsewhere => {
                let head = layout::encode_value(Kind::Root, key.as_bytes(), meta);
                self.store.put(Kind::Root, key.as_bytes(), &[&head], None, None)
            }
        };
        self.after_growth();
        done.map_err(|NoRoom| Refusal::Full)
    }

    /// Each page with its chunks, the root last: from then on readers see the whole.
    fn commit_pages(&self, key: &Key, meta: &Metadata, pages: Vec<StagedPage>) -> Result<(), NoRoom> {
        let owner = meta.owner(key.hash());
        self.store.open_value(owner, key);
        let head = layout::encode_value(Kind::Root, key.as_bytes(), meta);
        let kept = pages.into_iter().try_for_each(|page| self.take_page(page, owner));
        kept.and_then(|()| self.store.put(Kind::Root, key.as_bytes(), &[&head], None, None))
            .inspect(|()| self.store.seal_value(owner))
            .inspect_err(|NoRoom| self.store.drop_value(owner, meta.size))
    }

    /// Stores a page, then the chunks that it lists: by the page they are found if there is no room for all of them.
    fn take_page(&self, staged: StagedPage, owner: Owner) -> Result<(), NoRoom> {
        let StagedPage { page, hold } = staged;
        let hold: Box<dyn Any> = hold;
        let WaitingPage { digests, chunks } = *hold.downcast().map_err(|_| NoRoom)?;
        self.store.put_page(&page, &digests)?;
        chunks.into_iter().try_for_each(|chunk| self.keep_chunk(chunk, owner))
    }

    fn keep_chunk(&self, staged: Staged, owner: Owner) -> Result<(), NoRoom> {
        let Staged { chunk, hold } = staged;
        let hold: Box<dyn Any> = hold;
        match hold.downcast::<StagedChunk>().map(|hold| *hold) {
            Ok(StagedChunk::Fresh(buffer)) => {
                let pages = buffer.into_pages();
                if self.store.share_chunk(&chunk, owner) {
                    return Ok(());
                }
                self.store.put_chunk(&chunk, pages, owner)
            }
            Ok(StagedChunk::Here(record)) => {
                if self.store.share_chunk(&chunk, owner) {
                    return Ok(());
                }
                // It was evicted since it arrived, and this reference is what is left of it.
                let body_at = layout::plain_body_at(record.content());
                let pages = self.copied(&record.body(body_at, 0, chunk.len as usize))?;
                self.store.put_chunk(&chunk, pages.into_pages(), owner)
            }
            Err(_) => Err(NoRoom),
        }
    }

    fn counted(&self, pages: PageBuffer) -> StagedBuffer {
        let staged = Arc::clone(self.store.staged());
        StagedBuffer { counted: pages.footprint() as u64, pages: Some(pages), staged }
    }

    /// A buffer that this tier handed out, trimmed to what is in it; a copy, where somebody shares it still.
    pub(crate) fn take_back(&self, filled: Filled) -> Result<StagedBuffer, Refusal> {
        let mut buffer = match filled.into_buffer() {
            Ok(buffer) => *buffer.into_any().downcast::<StagedBuffer>().map_err(|_| Refusal::Full)?,
            Err(shared) => self.copied(&shared.payload())?,
        };
        if buffer.trim() { Ok(buffer) } else { Err(Refusal::Full) }
    }

    pub(crate) fn copied(&self, payload: &Payload) -> Result<StagedBuffer, NoRoom> {
        let mut pages = self.counted(self.store.stage(payload.len())?);
        payload.pieces().for_each(|piece| store::fill(pages.pages_mut(), piece));
        Ok(pages)
    }
}

/// A buffer of an upload. Its bytes count as the tier's until it is taken back or dropped.
pub(crate) struct StagedBuffer {
    pages: Option<PageBuffer>,
    counted: u64,
    staged: Arc<AtomicU64>,
}

impl StagedBuffer {
    /// Gives back what was not filled; false when that takes room that is not there.
    fn trim(&mut self) -> bool {
        let trimmed = self.pages_mut().trim();
        let now = self.pages().footprint() as u64;
        self.staged.fetch_sub(self.counted.saturating_sub(now), Ordering::Relaxed);
        self.counted = self.counted.min(now);
        trimmed
    }

    /// The pages, no longer counted as an upload's.
    pub(crate) fn into_pages(mut self) -> PageBuffer {
        // INVARIANT: the pages are there until this call, which takes the buffer.
        self.pages.take().expect("a staged buffer has its pages until it is taken back")
    }

    fn pages(&self) -> &PageBuffer {
        // INVARIANT: as for `into_pages`.
        self.pages.as_ref().expect("a staged buffer has its pages until it is taken back")
    }

    fn pages_mut(&mut self) -> &mut PageBuffer {
        // INVARIANT: as for `into_pages`.
        self.pages.as_mut().expect("a staged buffer has its pages until it is taken back")
    }
}

impl Drop for StagedBuffer {
    fn drop(&mut self) {
        self.staged.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

impl Buffer for StagedBuffer {
    fn capacity(&self) -> usize {
        self.pages().capacity()
    }

    fn filled(&self) -> usize {
        self.pages().filled()
    }

    fn space(&mut self) -> &mut [u8] {
        self.pages_mut().space()
    }

    fn spaces(&mut self) -> Vec<&mut [u8]> {
        self.pages_mut().spaces()
    }

    fn advance(&mut self, count: usize) {
        self.pages_mut().advance(count);
    }

    fn run(&self, from: usize) -> &[u8] {
        self.pages().run(from)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A chunk that has arrived: in its upload's buffer, or already here because another value has it.
pub(crate) enum StagedChunk {
    Fresh(StagedBuffer),
    Here(OwnedRef),
}

/// A page of an unfinished value, and its chunks. Next to those the page is little.
struct WaitingPage {
    digests: Bytes,
    chunks: Vec<Staged>,
}

impl Tier for MemoryTier {
    fn name(&self) -> TierName {
        TierName::Memory
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        Reply::Ready(Ok(Version::default()))
    }

    fn root(&self, key: &Key) -> Reply<'_, Lookup<Root>> {
        Reply::Ready(self.find_root(key))
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        Reply::Ready(self.find_plain(Kind::Page, &page.to_bytes(), 0, usize::MAX))
    }

    fn chunk(&self, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Part>> {
        let name = layout::chunk_name(chunk);
        Reply::Ready(self.find_plain(Kind::Chunk, &name, from as usize, to as usize).map(Part::from))
    }

    /// There is no faster tier that could keep it.
    fn chunk_whole(&self, _: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        Reply::Ready(Lookup::Miss)
    }

    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool> {
        Reply::Ready(self.store.has(Kind::Chunk, &layout::chunk_name(chunk)))
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        let presence = |chunk: &ChunkRef| match self.store.has(Kind::Chunk, &layout::chunk_name(chunk)) {
            true => Presence::Here,
            false => Presence::Absent,
        };
        Reply::Ready(Lookup::Hit(chunks.iter().map(presence).collect()))
    }

    fn shrunk(&self) -> u64 {
        self.store.shrunk()
    }

    fn admit(&self, bytes: u64) -> Reply<'_, Result<Hold, Refusal>> {
        self.promises.admit(bytes)
    }

    fn largest_admission(&self) -> u64 {
        self.promises.largest()
    }

    fn stage(&self, chunk: ChunkRef, data: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        let here = self.store.get_owned(Kind::Chunk, &layout::chunk_name(&chunk));
        let staged = match here {
            Some(record) => Ok(StagedChunk::Here(record)),
            None => self.take_back(data).map(StagedChunk::Fresh),
        };
        Reply::Ready(staged.map(|hold| Staged { chunk, hold: Box::new(hold) }))
    }

    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>> {
        Reply::Ready(Ok(StagedPage { page, hold: Box::new(WaitingPage { digests, chunks }) }))
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>> {
        Reply::Ready(self.commit_now(key, meta, body))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        let now_ms = self.clock.now_ms();
        self.store.expire(key.as_bytes(), now_ms);
        let removed = self.store.remove(key.as_bytes(), |_| true);
        self.wake();
        Reply::Ready(Ok(removed))
    }

    fn keep_chunk(&self, chunk: &ChunkRef, data: Filled) -> Option<Payload> {
        let kept = self.store.keep_chunk(chunk, self.take_back(data).ok()?.into_pages());
        self.after_growth();
        kept.ok()?;
        let name = layout::chunk_name(chunk);
        match self.find_plain(Kind::Chunk, &name, 0, chunk.len as usize) {
            Lookup::Hit(bytes) => Some(bytes),
            Lookup::Miss | Lookup::Busy => None,
        }
    }

    fn keep_page(&self, page: &PageRef, digests: &[u8]) {
        let _ = self.store.put_page(page, digests);
    }

    /// There is no faster tier.
    fn lacks(&self, _: Leaving<'_>) -> bool {
        false
    }

    fn demote(&self, _: Evicted) -> Reply<'_, Result<(), Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }

    fn staging(&self) -> Option<&dyn Staging> {
        Some(self)
    }
}

impl Above for MemoryTier {
    fn holds(&self, leaving: Leaving<'_>) -> bool {
        match leaving {
            Leaving::Value(key) => self.store.has(Kind::Value, key),
            Leaving::Page(page) => self.store.has(Kind::Page, &page.to_bytes()),
            Leaving::Chunk(digest) => self.store.has(Kind::Chunk, &digest.0),
        }
    }
}

impl Buffers for MemoryTier {
    fn buffer(&self, len: usize) -> Option<Box<dyn Buffer>> {
        let buffer = self.store.stage(len).ok().map(|pages| Box::new(self.counted(pages)) as Box<dyn Buffer>);
        self.after_growth();
        buffer
    }
}

/// The housekeeper: evicts ahead of need, removes what has expired, drops the chunks of values that are gone.
fn keep_house(tier: &Weak<MemoryTier>) {
    let mut sweeps = Vec::new();
    let mut evicting = false;
    while let Some(tier) = tier.upgrade() {
        evicting = tier.round(&mut sweeps, evicting);
        drop(tier);
        if !evicting {
            thread::park_timeout(ROUND);
        }
    }
}
