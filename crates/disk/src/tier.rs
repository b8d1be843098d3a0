//! The disk tier as the coordinator sees it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Buffers, Filled, Payload};
use elcache_core::tier::{
    Above, ChunkRef, DeviceUsage, Evicted, Hold, Leaving, Lookup, NewBody, PageRef, Part, Presence, Refusal,
    Reply, Root, Staged, StagedPage, Tier, TierName, Usage,
};
use elcache_core::tree::CHUNK_SIZE;
use elcache_core::value::{Metadata, Version};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::config::DiskConfig;
use crate::directory::{Directory, DirectoryError, Lock, Reach};
use crate::disk::{Counters, Disk, NotYet, Parts, Recovery, is_value};
use crate::extents::{Arriving, answer};
use crate::format::MAX_PACKED;
use crate::format::record::{self, Body, Kind, Record};
use crate::index::Index;
use crate::index::entry::{Entry, Kind as Known, Name};
use crate::index::sweep::{Cursor, Sweep};
use crate::io::{Device, Gate};
use crate::name;
use crate::pace::Pace;
use crate::pins::Pin;
use crate::sums::SumsCache;
use crate::{reclaim, recovery, scrub, writer};

/// How often the keeper looks around.
const ROUND: Duration = Duration::from_millis(100);
/// Nodes of the index that it looks at in a round.
const SWEEP: usize = 16 << 10;
/// Of what the directory may occupy, uploads may be promised nine tenths.
const PROMISED: f64 = 0.9;
/// Promises are made in these.
pub(crate) const PROMISE: u64 = 1 << 20;

/// Tier 2: one directory.
pub struct DiskTier {
    pub(crate) disk: Arc<Disk>,
    writer: parking_lot::Mutex<Option<JoinHandle<()>>>,
    /// What goes on beside: recovery, reclaiming, scrubbing, keeping house.
    tasks: [JoinHandle<()>; 4],
}

/// What a disk tier is made of.
pub struct DiskParts {
    /// What it can be told.
    pub config: DiskConfig,
    /// What reads and writes.
    pub device: Arc<dyn Device>,
    /// The directory.
    pub path: PathBuf,
    /// That nobody else uses it; none for a device that only pretends.
    pub lock: Option<Lock>,
    /// What this node is called, when the directory does not know it yet.
    pub node_name: String,
    /// The memory budget: the index is in it.
    pub budget: Arc<Budget>,
    /// Where buffers come from.
    pub buffers: Arc<dyn Buffers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and seeds.
    pub random: Box<dyn FnMut() -> u64 + Send>,
}

/// What a directory at work is made of, once it is known whose it is.
pub(crate) struct Instance {
    pub(crate) config: DiskConfig,
    pub(crate) reach: Reach,
    pub(crate) directory: Directory,
    pub(crate) lock: Option<Arc<Lock>>,
    pub(crate) counters: Arc<Counters>,
    /// How fast all directories together may be written to.
    pub(crate) pace: Arc<Pace>,
    /// How many directories share the memory for what comes and goes.
    pub(crate) sharers: usize,
    /// Seeds the index.
    pub(crate) seed: u64,
    pub(crate) budget: Arc<Budget>,
    pub(crate) buffers: Arc<dyn Buffers>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl DiskTier {
    /// Takes a directory and begins to find what is in it. Runs in the tokio runtime that this is called in until it is dropped.
    pub async fn open(parts: DiskParts) -> Result<Arc<Self>, DirectoryError> {
        let DiskParts { config, device, path, lock, node_name, budget, buffers, clock, mut random } = parts;
        let gate = Gate::new(Handle::current());
        let reach = Reach { device, gate };
        let directory = Directory::open(&reach, path, &node_name, clock.now_ms(), &mut random).await?;
        let (lock, counters, seed) = (lock.map(Arc::new), Counters::new(&*clock), random());
        let tier = Self::start(Instance {
            config,
            reach,
            directory,
            lock,
            counters,
            pace: Arc::new(Pace::new(None, Arc::clone(&clock))),
            sharers: 1,
            seed,
            budget,
            buffers,
            clock,
        })?;
        // Alone it keeps no drafts.
        tier.disk.restored.send_replace(true);
        Ok(tier)
    }

    /// Begins to find what is in a directory. Nothing is freed before somebody says that everything is pinned that uploads count on.
    pub(crate) fn start(instance: Instance) -> Result<Arc<Self>, DirectoryError> {
        let Instance { config, reach, directory, lock, counters, pace, sharers, .. } = instance;
        let Instance { seed, budget, buffers, clock, .. } = instance;
        let Reach { device, gate } = reach;
        let no_memory =
            |_| DirectoryError::Io("its index finds no memory", std::io::ErrorKind::OutOfMemory.into());
        let index = Index::new(seed, &budget).map_err(no_memory)?;
        let sums = SumsCache::new(&budget, sharers);
        let disk = Disk::new(Parts {
            config,
            device,
            gate,
            directory,
            lock,
            counters,
            pace,
            sharers,
            index,
            sums,
            budget,
            buffers,
            clock,
        });
        let writer = tokio::spawn(writer::write_batches(Arc::clone(&disk)));
        let tasks = [
            tokio::spawn(recovery::recover(Arc::clone(&disk))),
            tokio::spawn(reclaim::reclaim(Arc::clone(&disk))),
            tokio::spawn(scrub::scrub(Arc::clone(&disk))),
            tokio::spawn(keep_house(Arc::clone(&disk))),
        ];
        Ok(Arc::new(Self { disk, writer: parking_lot::Mutex::new(Some(writer)), tasks }))
    }

    /// Connects a faster tier: what that has is in use. The first one counts.
    pub fn set_above(&self, above: &Arc<dyn Above>) {
        let _ = self.disk.above.set(Arc::downgrade(above));
    }

    /// What the directory calls the node.
    pub fn node_name(&self) -> &str {
        &self.disk.directory.identity.node_name
    }

    /// What has been done to the directory, and what is wrong with it.
    pub fn report(&self) -> DeviceUsage {
        let counters = &self.disk.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let recovery = *self.disk.recovery.borrow();
        let trouble = match recovery {
            Recovery::Failed => Some("the directory could not be read"),
            _ if self.disk.state.lock().failed => Some("the directory takes no more writes"),
            _ => None,
        };
        DeviceUsage {
            engine: self.disk.device.name(),
            stored_bytes: of(&counters.stored),
            written_bytes: of(&counters.written),
            rewritten_bytes: of(&counters.rewritten),
            projected_bytes_per_day: counters.wear.per_day(self.disk.clock.elapsed()),
            scrubbed_bytes: of(&counters.scrubbed),
            scrub_left_bytes: of(&counters.scrub_left),
            read_bytes: of(&counters.read),
            io_errors: of(&counters.failed),
            damaged: of(&counters.damaged),
            trouble,
            recovering: matches!(recovery, Recovery::Running(_)),
        }
    }

    /// How full the directory is.
    pub(crate) fn occupied(&self) -> Usage {
        let disk = &self.disk;
        Usage {
            entries: disk.index.total().values,
            size_bytes: disk.segments.bytes(),
            capacity_bytes: disk.config.max_bytes,
            index_bytes: disk.index.bytes(),
            staged_bytes: disk.index.total().pinned,
            evicted_for_room: disk.counters.evicted.load(Ordering::Relaxed),
            evicted_expired: disk.counters.expired.load(Ordering::Relaxed),
            device: None,
        }
    }

    /// Waits until everything is found that is there; the highest version of any of it.
    pub async fn recovered(&self) -> Version {
        let mut recovery = self.disk.recovery.subscribe();
        // The sender lives as long as the tier.
        let _ = recovery.wait_for(|state| !matches!(state, Recovery::Running(_))).await;
        self.disk.highest()
    }

    /// Writes what waits, and ends the open segment so that the next start need not read it. What is written afterwards is
    /// refused.
    pub async fn close(&self) {
        let writer = self.writer.lock().take();
        let Some(writer) = writer else { return };
        self.tasks.iter().for_each(JoinHandle::abort);
        self.disk.recovery.send_if_modified(|state| {
            let ended = !matches!(state, Recovery::Running(_));
            *state = if ended { *state } else { Recovery::Failed };
            !ended
        });
        self.disk.state.lock().failed = true;
        self.disk.stopping.store(true, Ordering::Release);
        self.disk.work.notify_one();
        // An error means that the runtime is going down.
        let _ = writer.await;
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.writer.lock().take().inspect(JoinHandle::abort);
        // Whoever still writes hears that it has failed, and lets go of the directory.
        self.disk.state.lock().abandon_all();
    }
}

/// Finds what has expired, and forgets what has been freed.
async fn keep_house(disk: Arc<Disk>) {
    let mut cursor = Cursor::default();
    loop {
        tokio::time::sleep(ROUND).await;
        if *disk.recovery.borrow() != Recovery::Done {
            continue;
        }
        let now_s = u32::try_from(disk.clock.now_ms() / 1000).unwrap_or(u32::MAX);
        let sweep = Sweep { nodes: SWEEP, now_s, drop_tombstones: false };
        disk.index
            .sweep(&mut cursor, &sweep, |_, _| _ = disk.counters.expired.fetch_add(1, Ordering::Relaxed));
    }
}

impl Disk {
    /// Writes a chunk, or shares the one that is here, if that is young enough to stay for a while.
    pub(crate) async fn stage_chunk(
        self: &Arc<Self>,
        chunk: ChunkRef,
        data: Filled,
    ) -> Result<Staged, Refusal> {
        self.recovered().await.map_err(|NotYet| Refusal::Full)?;
        self.counters.stored.fetch_add(data.len() as u64, Ordering::Relaxed);
        if let Some(pin) = self.share(&chunk).await {
            return Ok(Staged { chunk, hold: Box::new(pin) });
        }
        let subtrees = data.subtrees().to_vec();
        let payload = data.payload();
        drop(data);
        // From now on reclaiming keeps it.
        let pin = Pin::new(self, &name::of_chunk(&chunk));
        self.write_chunk(&chunk, payload, subtrees).await?;
        Ok(Staged { chunk, hold: Box::new(pin) })
    }

    /// Counts on a chunk that is here already, unless that is among the oldest: it would soon have to be written again.
    async fn share(self: &Arc<Self>, chunk: &ChunkRef) -> Option<Pin> {
        let name = name::of_chunk(chunk);
        let pin = Pin::new(self, &name);
        let entry = self.index.get(&name)?;
        let source = self.source(chunk, &entry).ok()?;
        let condemned = self.condemned.load(Ordering::Acquire);
        if entry.place.segment <= condemned || self.segments.is_old(entry.place.segment) {
            return None;
        }
        // The index knows half of the digest, the head all of it.
        let head = self.read_head(&source.place, 0).await;
        let Lookup::Hit((head, _)) = answer(self, &name, &entry, head) else { return None };
        (head.kind == Kind::Chunk && head.name == chunk.digest.0[..] && head.len == chunk.len).then(|| {
            self.index.touch(&name, &entry.place);
            pin
        })
    }

    /// Writes a page of an unfinished value.
    pub(crate) async fn stage_page(self: &Arc<Self>, page: &PageRef, digests: Bytes) -> Result<Pin, Refusal> {
        self.recovered().await.map_err(|NotYet| Refusal::Full)?;
        // From now on reclaiming keeps it.
        let pin = Pin::new(self, &name::of_record(Kind::Page, &page.to_bytes()));
        self.put_page(page, 0, digests.into(), self.clock.now_ms()).await?;
        Ok(pin)
    }

    pub(crate) async fn commit_value(
        self: &Arc<Self>,
        key: &Key,
        meta: &Metadata,
        body: NewBody<'_>,
    ) -> Result<(), Refusal> {
        self.recovered().await.map_err(|NotYet| Refusal::Full)?;
        match body {
            NewBody::Borrowed(bytes) => {
                self.counters.stored.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let payload = Bytes::copy_from_slice(bytes).into();
                self.put_record(Kind::Value, key.as_bytes(), name::of_key(key), meta, payload, &[]).await
            }
            NewBody::Filled(filled) => {
                self.counters.stored.fetch_add(filled.len() as u64, Ordering::Relaxed);
                let subtrees = filled.subtrees().to_vec();
                let payload = filled.payload();
                drop(filled);
                self.put_record(Kind::Value, key.as_bytes(), name::of_key(key), meta, payload, &subtrees)
                    .await
            }
            // That they are there still, whoever staged them has seen to.
            NewBody::Pages(_) | NewBody::Draft => self.put_root(key, meta).await,
            NewBody::Elsewhere => Err(Refusal::Failed),
        }
    }

    async fn put_root(self: &Arc<Self>, key: &Key, meta: &Metadata) -> Result<(), Refusal> {
        self.put_record(Kind::Root, key.as_bytes(), name::of_key(key), meta, Payload::new(), &[]).await
    }

    /// Writes what a faster tier has evicted.
    pub(crate) async fn take_evicted(self: &Arc<Self>, evicted: Evicted) -> Result<(), Refusal> {
        match evicted {
            Evicted::Value(_, meta, _) | Evicted::Root(_, meta) if meta.expired(self.clock.now_ms()) => {
                Ok(())
            }
            Evicted::Value(key, meta, body) => {
                self.put_record(Kind::Value, key.as_bytes(), name::of_key(&key), &meta, body, &[]).await
            }
            Evicted::Root(key, meta) => self.put_root(&key, &meta).await,
            Evicted::Page(page, digests) => self.put_page(&page, 0, digests, self.clock.now_ms()).await,
            Evicted::Chunk(chunk, body) => self.write_chunk(&chunk, body, Vec::new()).await,
        }
    }

    async fn write_chunk(
        self: &Arc<Self>,
        chunk: &ChunkRef,
        payload: Payload,
        subtrees: Vec<Digest>,
    ) -> Result<(), Refusal> {
        let start = chunk.number * CHUNK_SIZE;
        let arriving = Arriving {
            kind: Kind::Chunk,
            name: Bytes::copy_from_slice(&chunk.digest.0),
            hash: name::of_chunk(chunk),
            meta: Metadata::new(start, Digest([0; 32]), Version::default(), self.clock.now_ms()),
            payload,
            subtrees,
            number: chunk.number,
        };
        self.write_extent(arriving).await
    }

    /// Writes a page. Of a draft, every write of its chunks up to `serial` is in it; else that is 0.
    pub(crate) async fn put_page(
        self: &Arc<Self>,
        page: &PageRef,
        serial: u64,
        digests: Payload,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let bears = page.to_bytes();
        let name = name::of_record(Kind::Page, &bears);
        let meta = Metadata::new(serial, Digest([0; 32]), page.owner.version, now_ms);
        self.put_record(Kind::Page, &bears, name, &meta, digests, &[]).await
    }

    /// Writes a record, packed or with an extent.
    pub(crate) async fn put_record(
        self: &Arc<Self>,
        kind: Kind,
        bears: &[u8],
        hash: Name,
        meta: &Metadata,
        payload: Payload,
        subtrees: &[Digest],
    ) -> Result<(), Refusal> {
        let name = Bytes::copy_from_slice(bears);
        let packed = record::packed_len(&name, meta, payload.len()) <= MAX_PACKED;
        if packed || payload.is_empty() {
            let body = Body::Packed(payload.to_contiguous());
            let record = Record { kind, name, meta: meta.clone(), body };
            return self.append(hash, &record).await;
        }
        let subtrees = subtrees.to_vec();
        let arriving = Arriving { kind, name, hash, meta: meta.clone(), payload, subtrees, number: 0 };
        self.write_extent(arriving).await
    }

    pub(crate) async fn delete(self: &Arc<Self>, key: &Key) -> Result<bool, Refusal> {
        self.recovered().await.map_err(|NotYet| Refusal::Full)?;
        let hash = name::of_key(key);
        if self.state.lock().failed {
            // What failed may come back with the next start, and nothing can be written against that.
            return Err(Refusal::Failed);
        }
        let Some(entry) = self.index.get(&hash) else { return Ok(false) };
        let version = self.highest();
        let meta = Metadata::new(0, Digest([0; 32]), version, self.clock.now_ms());
        let name = Bytes::copy_from_slice(key.as_bytes());
        let record = Record { kind: Kind::Tombstone, name, meta, body: Body::Packed(Bytes::new()) };
        self.append(hash, &record).await?;
        Ok(is_value(&entry))
    }

    fn largest_promise(&self) -> u64 {
        largest_promise(&self.config)
    }

    /// A part of what uploads may be promised, in the order of asking.
    async fn promise(&self, bytes: u64) -> Result<Hold, Refusal> {
        let permits = permits(bytes, self.largest_promise()).ok_or(Refusal::TooLarge)?;
        let promise = Arc::clone(&self.promises).acquire_many_owned(permits).await;
        promise.map(|promise| Box::new(promise) as Hold).map_err(|_| Refusal::Failed)
    }
}

/// What uploads may be promised, all together.
pub(crate) fn largest_promise(config: &DiskConfig) -> u64 {
    let usable = config.max_bytes.saturating_sub(3 * config.segment_bytes());
    (usable as f64 * PROMISED) as u64
}

/// What a promise of so many bytes takes; `None` where that is more than can ever be promised. Rounded down, so that promises
/// that can be made one after another to one upload never come to more than there is.
fn permits(bytes: u64, largest: u64) -> Option<u32> {
    (bytes <= largest).then_some((bytes / PROMISE) as u32)
}

/// A page of an unfinished value, with what holds its chunks. [`crate::disks::Disks`], which uploads of any size go to, keep less.
struct Kept {
    page: Pin,
    chunks: Vec<Staged>,
}

impl Kept {
    fn is_there(&self) -> bool {
        self.page.is_there() && self.chunks.iter().all(is_there)
    }
}

/// Whether a staged chunk is where it was staged.
pub(crate) fn is_there(staged: &Staged) -> bool {
    staged.hold.downcast_ref().is_some_and(Pin::is_there)
}

impl Tier for DiskTier {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        if *self.disk.recovery.borrow() == Recovery::Done {
            return Reply::Ready(Ok(self.disk.highest()));
        }
        Reply::Later(Box::pin(async move {
            self.disk.recovered().await.map_err(|NotYet| Refusal::Full)?;
            Ok(self.disk.highest())
        }))
    }

    fn root(&self, key: &Key) -> Reply<'_, Lookup<Root>> {
        match self.disk.look_up_now(&name::of_key(key)) {
            Some(entry) if entry.is_none_or(|entry| !is_value(&entry)) => Reply::Ready(Lookup::Miss),
            _ => {
                let key = key.clone();
                Reply::Later(Box::pin(async move { self.disk.find_root(&key).await }))
            }
        }
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        let page = *page;
        Reply::Later(Box::pin(async move { self.disk.find_page(&page).await }))
    }

    fn chunk(&self, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Part>> {
        let chunk = *chunk;
        Reply::Later(Box::pin(async move { self.disk.read_chunk(&chunk, from, to).await }))
    }

    fn chunk_whole(&self, chunk: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        let chunk = *chunk;
        Reply::Later(Box::pin(async move { self.disk.read_chunk_whole(&chunk).await }))
    }

    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool> {
        let name = name::of_chunk(chunk);
        let is = |entry: Option<Entry>| entry.is_some_and(|entry| entry.kind == Known::Chunk);
        match self.disk.look_up_now(&name) {
            Some(entry) => Reply::Ready(is(entry)),
            None => Reply::Later(Box::pin(async move { self.disk.look_up(&name).await.is_ok_and(is) })),
        }
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        let names: Vec<_> = chunks.iter().map(name::of_chunk).collect();
        let presences = move || {
            let presence = |entry: Option<Entry>| match entry {
                Some(entry) if entry.kind == Known::Chunk => Presence::Here,
                _ => Presence::Absent,
            };
            names.iter().map(|name| self.disk.look_up_now(name).map(presence)).collect::<Option<_>>()
        };
        match presences() {
            Some(presences) => Reply::Ready(Lookup::Hit(presences)),
            None => Reply::Later(Box::pin(async move {
                let _ = self.disk.recovered().await;
                presences().map_or(Lookup::Busy, Lookup::Hit)
            })),
        }
    }

    fn shrunk(&self) -> u64 {
        self.disk.counters.shrunk.load(Ordering::Acquire)
    }

    fn admit(&self, bytes: u64) -> Reply<'_, Result<Hold, Refusal>> {
        Reply::Later(Box::pin(self.disk.promise(bytes)))
    }

    fn largest_admission(&self) -> u64 {
        self.disk.largest_promise()
    }

    fn stage(&self, chunk: ChunkRef, data: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        Reply::Later(Box::pin(async move { self.disk.stage_chunk(chunk, data).await }))
    }

    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>> {
        Reply::Later(Box::pin(async move {
            let pin = self.disk.stage_page(&page, digests).await?;
            Ok(StagedPage { page, hold: Box::new(Kept { page: pin, chunks }) })
        }))
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>> {
        if let NewBody::Pages(pages) = &body
            && !pages.iter().all(|page| page.hold.downcast_ref().is_some_and(Kept::is_there))
        {
            // Something has turned out to be damaged, or could not be written again when its segment went.
            return Reply::Ready(Err(Refusal::Failed));
        }
        Reply::Later(Box::pin(async move { self.disk.commit_value(key, meta, body).await }))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        Reply::Later(Box::pin(async move { self.disk.delete(key).await }))
    }

    /// There is no slower tier that would give it chunks.
    fn keep_chunk(&self, _: &ChunkRef, _: Filled) -> Option<Payload> {
        None
    }

    fn keep_page(&self, _: &PageRef, _: &[u8]) {}

    fn lacks(&self, leaving: Leaving<'_>) -> bool {
        let found = self.disk.look_up_now(&name::of_leaving(leaving));
        found.is_some_and(|entry| entry.is_none_or(|entry| entry.kind == Known::Dead))
    }

    fn demote(&self, evicted: Evicted) -> Reply<'_, Result<(), Refusal>> {
        Reply::Later(Box::pin(async move { self.disk.take_evicted(evicted).await }))
    }

    fn usage(&self) -> Usage {
        Usage { device: Some(self.report()), ..self.occupied() }
    }
}
