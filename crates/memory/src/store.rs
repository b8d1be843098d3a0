//! The shards together: look-ups, insertions that make room, and the bookkeeping of whose chunks are whose. All of
//! it is synchronous and none of it waits for anything but a shard's lock.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use elcache_arena::{NewRecord, OwnedRef, PageBuffer, Pool, Record};
use elcache_core::budget::Budget;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Buffer;
use elcache_core::tier::{Below, ChunkRef, Evicted, Owner, PageRef, Refusal, Usage};
use elcache_core::tree::{self, CHUNK_SIZE};
use elcache_core::value::Metadata;
use parking_lot::Mutex;

use crate::layout::{self, Kind};
use crate::policy::Admission;
use crate::shard::{ENTRY_OVERHEAD, Name, Shard, Sweep};
use crate::values::Values;

/// A shard holds at least this many chunks, or there is only one.
const MIN_CHUNKS_PER_SHARD: u64 = 16;
/// The lightest entry there is, for the most entries that there can be.
const MIN_ENTRY: u64 = 160;
/// Evictions that one allocation may cause before it is refused.
const MAX_EVICTIONS: usize = 4096;
/// What is longer lies in pages: in one run, from 32 KiB on, it would be rounded up to whole blocks.
const MAX_INLINE: usize = 16 << 10;
/// Roots that are looked after in one go.
const RETIRE_BATCH: usize = 16;
/// Pages that are looked for in one go, of which one is dropped.
const DROP_BATCH: usize = 64;

/// The plain facts of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Shards; `None` chooses by capacity and cores.
    pub shards: Option<usize>,
    /// Bytes that entries may weigh; `None` follows the budget.
    pub capacity_bytes: Option<u64>,
    /// Seed of the hashes of names.
    pub seed: u64,
}

/// A value that is gone: of these pages it is not known yet whether they are here.
struct Dropping {
    owner: Owner,
    pages: Range<u64>,
    /// Chunks are kept for it here, and not only copies that a slower tier has too.
    has_chunks: bool,
}

/// There is no room, and evicting made none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl From<NoRoom> for Refusal {
    fn from(NoRoom: NoRoom) -> Self {
        Self::Full
    }
}

/// Everything that is in memory.
pub struct Store {
    pool: Arc<Pool>,
    budget: Arc<Budget>,
    shards: Box<[Shard]>,
    values: Values,
    /// Values that are gone, and what is to be dropped of them still.
    dropping: Mutex<VecDeque<Dropping>>,
    /// Who takes what is evicted.
    below: OnceLock<Arc<dyn Below>>,
    fixed_capacity: Option<u64>,
    /// Bytes of buffers that uploads hold.
    staged: Arc<AtomicU64>,
    evicted_for_room: AtomicU64,
    evicted_expired: AtomicU64,
    /// Chunks and pages that have gone.
    shrunk: AtomicU64,
    seed: u64,
}

impl Store {
    /// An empty store within a budget.
    pub fn new(config: &StoreConfig, budget: Arc<Budget>) -> io::Result<Self> {
        let pool = Pool::new(budget.max_bytes())?;
        let capacity = config.capacity_bytes.unwrap_or_else(|| capacity_of(&budget, 0));
        let shards = config.shards.unwrap_or_else(|| default_shards(capacity)).max(1);
        let most = (capacity / MIN_ENTRY / shards as u64 * 5 / 4).clamp(1024, 1 << 31) as u32;
        let shard = |_| Shard::new(&pool, most, capacity / shards as u64, config.seed);
        Ok(Self {
            shards: (0..shards).map(shard).collect(),
            pool,
            budget,
            values: Values::default(),
            dropping: Mutex::default(),
            below: OnceLock::new(),
            fixed_capacity: config.capacity_bytes,
            staged: Arc::default(),
            evicted_for_room: AtomicU64::new(0),
            evicted_expired: AtomicU64::new(0),
            shrunk: AtomicU64::new(0),
            seed: config.seed,
        })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The value or root under a key, counted as a use. Takes no lock. The caller looks at the expiry.
    pub fn get(&self, key: &[u8]) -> Option<Record<'_>> {
        let name = self.name(Kind::Value, key);
        self.shard(name.hash).hit(name)
    }

    /// Stores a value of at most one chunk, replacing what was there, and evicts until it fits.
    ///
    /// # Errors
    /// When evicting made no room.
    pub fn put_value(&self, key: &[u8], meta: &Metadata, bytes: &[u8]) -> Result<(), NoRoom> {
        let head = layout::encode_value(Kind::Value, key, meta);
        if bytes.len() <= MAX_INLINE {
            return self.put(Kind::Value, key, &[&head, bytes], None, None);
        }
        let mut body = self.stage(bytes.len())?;
        self.staged.fetch_sub(body.footprint() as u64, Ordering::Relaxed);
        fill(&mut body, bytes);
        self.put(Kind::Value, key, &[&head], Some(body), None)
    }

    /// As [`Store::get`], with a life of its own.
    pub(crate) fn get_owned(&self, kind: Kind, bytes: &[u8]) -> Option<OwnedRef> {
        let name = self.name(kind, bytes);
        let shard = self.shard(name.hash);
        shard.hit(name).map(|record| shard.own(record))
    }

    /// Whether a record is here, without counting a use.
    pub(crate) fn has(&self, kind: Kind, bytes: &[u8]) -> bool {
        let name = self.name(kind, bytes);
        self.shard(name.hash).find(name).is_some()
    }

    /// Room for an upload's bytes. What it takes is counted until [`Store::unstage`].
    pub(crate) fn stage(&self, len: usize) -> Result<PageBuffer, NoRoom> {
        let need = len.next_multiple_of(elcache_arena::PAGE_SIZE) as u64;
        self.make_room(need, None)?;
        let buffer = self.retry(None, || PageBuffer::new(&self.pool, len))?;
        self.staged.fetch_add(need, Ordering::Relaxed);
        Ok(buffer)
    }

    /// What counts the bytes that uploads hold.
    pub(crate) fn staged(&self) -> &Arc<AtomicU64> {
        &self.staged
    }

    /// Stores a record under a name, replacing what was there, and evicts until it fits.
    pub(crate) fn put(
        &self,
        kind: Kind,
        bytes: &[u8],
        parts: &[&[u8]],
        body: Option<PageBuffer>,
        owner: Option<Owner>,
    ) -> Result<(), NoRoom> {
        let name = self.name(kind, bytes);
        let shard = self.shard(name.hash);
        let estimate = parts.iter().map(|part| part.len()).sum::<usize>() as u64
            + body.as_ref().map_or(0, |body| body.footprint() as u64)
            + ENTRY_OVERHEAD;
        let admission = shard.admit(name, estimate);
        let mut body = body;
        let record = self.retry(Some((shard, admission)), || {
            NewRecord::new(&self.pool, parts, body.take(), kind == Kind::Root)
                .map_err(|returned| body = returned)
                .ok()
        })?;
        let weight = record.footprint() as u64 + ENTRY_OVERHEAD;
        self.make_room(weight, Some((shard, admission)))?;
        let mut record = record;
        for _ in 0..MAX_EVICTIONS {
            match shard.put(name, record, admission, owner) {
                Ok(()) => return Ok(()),
                Err(returned) => record = returned,
            }
            self.evict_from(shard, Some(admission)).ok_or(NoRoom)?;
        }
        Err(NoRoom)
    }

    /// Notes that a value uses a chunk that is here already; false when it is not here any more.
    pub(crate) fn share_chunk(&self, chunk: &ChunkRef, owner: Owner) -> bool {
        self.share(self.name(Kind::Chunk, &layout::chunk_name(chunk)), owner)
    }

    fn share(&self, name: Name<'_>, owner: Owner) -> bool {
        // Before: from then on it may be evicted.
        self.values.add_chunk(owner);
        let added = self.shard(name.hash).add_owner(name, owner);
        if added != Some(true) {
            self.values.drop_chunk(owner);
        }
        added.is_some()
    }

    /// Stores a chunk for a value.
    pub(crate) fn put_chunk(&self, chunk: &ChunkRef, body: PageBuffer, owner: Owner) -> Result<(), NoRoom> {
        let bytes = layout::chunk_name(chunk);
        let head = layout::encode_chunk(chunk);
        self.values.add_chunk(owner);
        self.put(Kind::Chunk, &bytes, &[&head], Some(body), Some(owner)).inspect_err(|_| {
            self.values.drop_chunk(owner);
        })
    }

    /// Keeps a chunk that nobody finds and that is not evicted, as long as the reference lives. The caller counts it.
    pub(crate) fn hold_chunk(&self, chunk: &ChunkRef, body: PageBuffer) -> Result<OwnedRef, NoRoom> {
        let (bytes, head) = (layout::chunk_name(chunk), layout::encode_chunk(chunk));
        let shard = self.shard(self.name(Kind::Chunk, &bytes).hash);
        let mut body = Some(body);
        let mut record = self.retry(None, || {
            NewRecord::new(&self.pool, &[&head], body.take(), false).map_err(|returned| body = returned).ok()
        })?;
        for _ in 0..MAX_EVICTIONS {
            match shard.hold(record) {
                Ok(held) => return Ok(held),
                Err(returned) => record = returned,
            }
            self.evict_from(shard, None).ok_or(NoRoom)?;
        }
        Err(NoRoom)
    }

    /// Has a chunk found that is held, for a value; false when it is here already, in a record of its own. It takes no memory
    /// that it has not.
    pub(crate) fn name_chunk(&self, digest: &Digest, held: &OwnedRef, owner: Owner) -> Result<bool, NoRoom> {
        let name = self.name(Kind::Chunk, &digest.0);
        let shard = self.shard(name.hash);
        let admission = shard.admit(name, held.footprint() as u64 + ENTRY_OVERHEAD);
        for _ in 0..MAX_EVICTIONS {
            if self.share(name, owner) {
                return Ok(false);
            }
            self.values.add_chunk(owner);
            if shard.put_held(name, held, admission, owner) {
                return Ok(true);
            }
            self.values.drop_chunk(owner);
            self.evict_from(shard, Some(admission)).ok_or(NoRoom)?;
        }
        Err(NoRoom)
    }

    /// Stores a chunk for no value in particular: it is a copy.
    pub(crate) fn keep_chunk(&self, chunk: &ChunkRef, body: PageBuffer) -> Result<(), NoRoom> {
        if self.has(Kind::Chunk, &layout::chunk_name(chunk)) {
            return Ok(());
        }
        let bytes = layout::chunk_name(chunk);
        self.put(Kind::Chunk, &bytes, &[&layout::encode_chunk(chunk)], Some(body), None)
    }

    /// Stores a page for a value.
    pub(crate) fn put_page(&self, page: &PageRef, digests: &[u8]) -> Result<(), NoRoom> {
        let bytes = page.to_bytes();
        let head = layout::encode_plain(Kind::Page, &bytes);
        self.put(Kind::Page, &bytes, &[&head, digests], None, None)
    }

    /// Begins to count the chunks of a value.
    pub(crate) fn open_value(&self, owner: Owner, key: &Key) {
        self.values.open(owner, key);
    }

    /// Says that chunks, pages and root are stored. What was evicted meanwhile is only now missed.
    pub(crate) fn seal_value(&self, owner: Owner) {
        self.lose_chunk(owner);
    }

    /// Has what was stored for a value of more than one chunk dropped: chunks that no other value uses, and pages.
    pub(crate) fn drop_value(&self, owner: Owner, size: u64) {
        let has_chunks = self.values.close(owner);
        let pages = 0..tree::page_count(size);
        self.dropping.lock().push_back(Dropping { owner, pages, has_chunks });
    }

    /// Undoes, at once, what was stored for a value that has no root: its pages, and the claims on the chunks that these list.
    pub(crate) fn undo_value<'a>(&self, owner: Owner, pages: impl Iterator<Item = (u64, &'a [u8])>) {
        self.values.close(owner);
        for (number, digests) in pages {
            self.drop_chunks(digests, owner);
            let page = PageRef { owner, number }.to_bytes();
            let name = self.name(Kind::Page, &page);
            self.shard(name.hash).remove(name, |_| true);
        }
    }

    /// Drops at most one page, and its chunks: the largest value has thousands, and somebody may be waiting. False when there was
    /// nothing to do.
    fn drop_some(&self) -> bool {
        // The lock is held for the taking alone.
        let taken = self.dropping.lock().pop_front();
        let Some(mut dropping) = taken else { return false };
        for number in dropping.pages.by_ref().take(DROP_BATCH) {
            if self.drop_page(&PageRef { owner: dropping.owner, number }, dropping.has_chunks) {
                break;
            }
        }
        if !dropping.pages.is_empty() {
            self.dropping.lock().push_front(dropping);
        }
        true
    }

    /// Drops a page, and the claim on its chunks if its value has any; false when the page is not here.
    fn drop_page(&self, page: &PageRef, has_chunks: bool) -> bool {
        let bytes = page.to_bytes();
        let Some(found) = self.get_owned(Kind::Page, &bytes) else { return false };
        if has_chunks {
            let digests = found.content().get(layout::plain_body_at(found.content())..).unwrap_or_default();
            self.drop_chunks(digests, page.owner);
        }
        drop(found);
        let name = self.name(Kind::Page, &bytes);
        self.shard(name.hash).remove(name, |_| true)
    }

    /// Drops a value's claim on chunks, given as their digests one after another.
    pub(crate) fn drop_chunks(&self, digests: &[u8], owner: Owner) {
        for digest in digests.chunks_exact(32) {
            let name = self.name(Kind::Chunk, digest);
            if self.shard(name.hash).drop_owner(name, owner) {
                // It may have been a copy of another value's chunk.
                self.shrunk.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// How many chunks and pages have gone.
    pub(crate) fn shrunk(&self) -> u64 {
        self.shrunk.load(Ordering::Acquire)
    }

    /// Removes the value under a key, if `wanted` agrees to it.
    pub(crate) fn remove(&self, key: &[u8], wanted: impl FnOnce(&[u8]) -> bool) -> bool {
        let name = self.name(Kind::Value, key);
        self.shard(name.hash).remove(name, wanted)
    }

    /// Removes a value whose time is over.
    pub(crate) fn expire(&self, key: &[u8], now_ms: u64) {
        let over = |content: &[u8]| layout::expires_ms(content).is_some_and(|at| at <= now_ms);
        if self.remove(key, over) {
            self.evicted_expired.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks after the chunks of values that are gone and that nobody reads any more.
    pub(crate) fn reap(&self) {
        while self.reap_some() {}
    }

    /// Does a part of that; false when there was nothing to do.
    fn reap_some(&self) -> bool {
        // New ones join the queue only when it is empty, so that it stays short.
        if self.drop_some() {
            return true;
        }
        let retired = |shard: &&Shard| shard.has_retired();
        let mut any = false;
        for shard in self.shards.iter().filter(retired) {
            any = true;
            for root in shard.take_retired(RETIRE_BATCH) {
                let Some((_, key)) = layout::name_of(root.content()) else { continue };
                let Ok(key) = Key::new(key.to_vec()) else { continue };
                if let Some((owner, size)) = layout::root_owner(root.content(), key.hash()) {
                    self.drop_value(owner, size);
                }
            }
        }
        any
    }

    /// Evicts while entries and uploads fill more than this share of the capacity, at most `most` entries. True when
    /// it came to an end.
    pub(crate) fn evict_to(&self, share: f64, most: usize) -> bool {
        for _ in 0..most {
            if self.used_bytes() as f64 <= self.capacity_bytes() as f64 * share || self.evict(None).is_none()
            {
                return true;
            }
        }
        false
    }

    /// Removes expired values among the next `count` records of every shard.
    pub(crate) fn sweep(&self, sweeps: &mut Vec<Sweep>, count: u32, now_ms: u64) {
        sweeps.resize_with(self.shards.len(), Sweep::default);
        for (shard, sweep) in self.shards.iter().zip(sweeps) {
            self.evicted_expired.fetch_add(shard.sweep(sweep, count, now_ms), Ordering::Relaxed);
        }
    }

    /// Brings the limits into line with what the rest of the process has taken of the budget.
    pub(crate) fn refresh_limits(&self) {
        let bookkeeping = self.bookkeeping_bytes();
        self.pool.set_limit_bytes(self.budget.left_bytes().saturating_sub(bookkeeping));
        let share = self.capacity_bytes() / self.shards.len() as u64;
        self.shards.iter().for_each(|shard| shard.set_capacity(share));
    }

    /// What entries may weigh, uploads' bytes included.
    pub fn capacity_bytes(&self) -> u64 {
        let beside_entries = || self.sum(Shard::ghost_bytes) + self.values.bytes();
        self.fixed_capacity.unwrap_or_else(|| capacity_of(&self.budget, beside_entries()))
    }

    /// Heap bytes that are not payload.
    fn bookkeeping_bytes(&self) -> u64 {
        self.sum(Shard::index_bytes) + self.sum(Shard::ghost_bytes) + self.values.bytes()
    }

    /// What entries and uploads weigh.
    pub fn used_bytes(&self) -> u64 {
        self.sum(Shard::weight) + self.staged.load(Ordering::Relaxed)
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let index_bytes = self.bookkeeping_bytes();
        Usage {
            entries: self.sum(Shard::values),
            size_bytes: self.pool.used_bytes() + index_bytes,
            capacity_bytes: self.budget.left_bytes(),
            index_bytes,
            staged_bytes: self.staged.load(Ordering::Relaxed),
            evicted_for_room: self.evicted_for_room.load(Ordering::Relaxed),
            evicted_expired: self.evicted_expired.load(Ordering::Relaxed),
            device: None,
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn shard_at(&self, index: usize) -> Option<&Shard> {
        self.shards.get(index)
    }

    pub(crate) fn shard(&self, hash: u64) -> &Shard {
        // The table uses the low bits and the top sixteen; these are in between.
        &self.shards[((hash >> 32) as u16 as usize * self.shards.len()) >> 16]
    }

    pub(crate) fn name<'a>(&self, kind: Kind, bytes: &'a [u8]) -> Name<'a> {
        Name::new(self.seed, kind, bytes)
    }

    fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(of).sum()
    }

    /// Evicts until `need` more bytes fit.
    pub(crate) fn make_room(&self, need: u64, miss: Option<(&Shard, Admission)>) -> Result<(), NoRoom> {
        for _ in 0..MAX_EVICTIONS {
            if self.used_bytes() + need <= self.capacity_bytes() {
                return Ok(());
            }
            self.evict(miss).ok_or(NoRoom)?;
        }
        Err(NoRoom)
    }

    /// Tries until it succeeds, evicting one entry after each failure.
    fn retry<T>(
        &self,
        miss: Option<(&Shard, Admission)>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, NoRoom> {
        for _ in 0..MAX_EVICTIONS {
            if let Some(done) = attempt() {
                return Ok(done);
            }
            self.evict(miss).ok_or(NoRoom)?;
        }
        Err(NoRoom)
    }

    /// Evicts one entry of the heaviest shard. `miss` is the one that is being served, if any: its admission says which
    /// list of its shard loses a tie.
    fn evict(&self, miss: Option<(&Shard, Admission)>) -> Option<()> {
        // What nobody refers to any more goes before what somebody may want.
        if self.reap_some() {
            return Some(());
        }
        let heaviest = self.shards.iter().max_by_key(|shard| shard.weight())?;
        let miss = miss.filter(|(shard, _)| std::ptr::eq(*shard, heaviest)).map(|(_, admission)| admission);
        self.evict_from(heaviest, miss)
    }

    fn evict_from(&self, shard: &Shard, miss: Option<Admission>) -> Option<()> {
        let mut told = None;
        let wanted = |content: &[u8], asked_for: &dyn Fn() -> bool| {
            told = self.below.get().and_then(|below| below.wants(layout::leaving(content)?, asked_for));
            told.is_some()
        };
        let gone = shard.evict(miss, |kind, content| self.pinned(kind, content), wanted)?;
        self.evicted_for_room.fetch_add(1, Ordering::Relaxed);
        if matches!(gone.kind, Kind::Chunk | Kind::Page) {
            self.shrunk.fetch_add(1, Ordering::Release);
        }
        gone.owners.into_iter().for_each(|owner| self.lose_chunk(owner));
        if let (Some(record), Some(told), Some(below)) = (gone.kept, told, self.below.get())
            && let Some(evicted) = evicted(record)
        {
            below.take(evicted, told);
        }
        Some(())
    }

    /// From now on this is offered what is evicted. Only the first one counts.
    pub(crate) fn set_below(&self, below: Arc<dyn Below>) {
        let _ = self.below.set(below);
    }

    /// A value has one chunk less here; with the last goes the value.
    fn lose_chunk(&self, owner: Owner) {
        if let Some(key) = self.values.drop_chunk(owner) {
            self.remove(key.as_bytes(), |content| {
                layout::root_owner(content, owner.key).is_some_and(|(current, _)| current == owner)
            });
        }
    }

    /// A root or page of which chunks are here is not evicted before them.
    fn pinned(&self, kind: Kind, content: &[u8]) -> bool {
        let owner = match (kind, layout::name_of(content)) {
            (Kind::Page, Some((_, name))) => PageRef::from_bytes(name).map(|page| page.owner),
            (Kind::Root, Some((_, key))) => Key::new(key.to_vec())
                .ok()
                .and_then(|key| layout::root_owner(content, key.hash()))
                .map(|(owner, _)| owner),
            _ => None,
        };
        owner.is_some_and(|owner| self.values.has_chunks(owner))
    }
}

/// A record as a slower tier takes it.
fn evicted(record: OwnedRef) -> Option<Evicted> {
    let content = record.content();
    let (kind, name) = layout::name_of(content)?;
    Some(match kind {
        Kind::Value => {
            let key = Key::new(name.to_vec()).ok()?;
            let (meta, body_at) = layout::decode_value(content, record.pages_len())?;
            let size = meta.size as usize;
            Evicted::Value(key, meta, record.body(body_at, 0, size))
        }
        Kind::Root => Evicted::Root(
            Key::new(name.to_vec()).ok()?,
            layout::decode_value(content, 0).map(|(meta, _)| meta)?,
        ),
        Kind::Page => {
            let page = PageRef::from_bytes(name)?;
            let body_at = layout::plain_body_at(content);
            Evicted::Page(page, record.body(body_at, 0, usize::MAX))
        }
        Kind::Chunk => {
            let digest = Digest(*name.first_chunk()?);
            let (number, body_at) = (layout::chunk_number(content)?, layout::plain_body_at(content));
            let body = record.body(body_at, 0, usize::MAX);
            Evicted::Chunk(ChunkRef { digest, number, len: body.len() as u32 }, body)
        }
    })
}

/// Writes bytes into a buffer that has room for them.
pub(crate) fn fill(buffer: &mut PageBuffer, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = buffer.space();
        let count = space.len().min(rest.len());
        let (now, later) = rest.split_at(count);
        space[..count].copy_from_slice(now);
        buffer.advance(count);
        rest = later;
    }
}

/// What entries may weigh: what is left of the budget, less a reserve for blocks that are only partly filled.
fn capacity_of(budget: &Budget, beside_entries: u64) -> u64 {
    let left = budget.left_bytes().saturating_sub(beside_entries);
    let reserve = (left / 32).clamp(4 << 20, 256 << 20).min(left / 4);
    left - reserve
}

fn default_shards(capacity: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let by_capacity = usize::try_from(capacity / (MIN_CHUNKS_PER_SHARD * CHUNK_SIZE)).unwrap_or(usize::MAX);
    by_capacity.min(4 * cores.next_power_of_two()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use elcache_core::digest::Digest;
    use elcache_core::value::Version;

    /// A value of two chunks was being committed, and the first was evicted before the second was there. The second was
    /// then counted for nobody: root and page could be evicted before it, and it stayed without them.
    #[test]
    fn a_chunk_evicted_during_the_commit_takes_nothing_of_the_value_with_it() {
        let config = StoreConfig { shards: Some(1), capacity_bytes: None, seed: 1 };
        let store = Store::new(&config, Budget::new(64 << 20)).unwrap();
        let key = Key::new(&b"large"[..]).unwrap();
        let owner = Owner { key: key.hash(), version: Version { view: 0, sequence: 1 } };
        let chunk = |n: u8| ChunkRef { digest: Digest([n; 32]), number: n.into(), len: 5000 };
        let put = |n: u8| {
            let mut body = PageBuffer::new(&store.pool, 5000).unwrap();
            fill(&mut body, &[n; 5000]);
            store.put_chunk(&chunk(n), body, owner).unwrap();
        };
        store.open_value(owner, &key);
        put(0);
        assert!(store.evict(None).is_some() && !store.has(Kind::Chunk, &layout::chunk_name(&chunk(0))));
        put(1);
        store
            .put_page(&PageRef { owner, number: 0 }, &[chunk(0).digest.0, chunk(1).digest.0].concat())
            .unwrap();
        let meta = Metadata::new(CHUNK_SIZE + 5000, Digest([0; 32]), owner.version, 1);
        let head = layout::encode_value(Kind::Root, key.as_bytes(), &meta);
        store.put(Kind::Root, key.as_bytes(), &[&head], None, None).unwrap();
        store.seal_value(owner);
        assert!(store.values.has_chunks(owner));
        assert!(store.get(key.as_bytes()).is_some());
        assert!(store.remove(key.as_bytes(), |_| true));
        store.reap();
        assert_eq!((store.has(Kind::Chunk, &layout::chunk_name(&chunk(1))), store.used_bytes()), (false, 0));
    }

    /// A value that has a chunk over and over again was counted as many times, and lost it only once: its root was not evicted
    /// like others when nothing of it was left, and a look-up found it still.
    #[test]
    fn a_chunk_that_a_value_has_twice_counts_once() {
        let config = StoreConfig { shards: Some(1), capacity_bytes: None, seed: 1 };
        let store = Store::new(&config, Budget::new(64 << 20)).unwrap();
        let key = Key::new(&b"large"[..]).unwrap();
        let owner = Owner { key: key.hash(), version: Version { view: 0, sequence: 1 } };
        let chunk = ChunkRef { digest: Digest([1; 32]), number: 0, len: 5000 };
        let mut body = PageBuffer::new(&store.pool, 5000).unwrap();
        fill(&mut body, &[1; 5000]);
        store.open_value(owner, &key);
        store.put_chunk(&chunk, body, owner).unwrap();
        assert!((1..20).all(|number| store.share_chunk(&ChunkRef { number, ..chunk }, owner)));
        store.seal_value(owner);
        assert!(store.values.has_chunks(owner));
        assert!(store.evict(None).is_some() && !store.has(Kind::Chunk, &layout::chunk_name(&chunk)));
        assert!(!store.values.has_chunks(owner));
    }

    /// Whoever made room met the root of a large value that had gone, and dropped thousands of pages before it went on.
    #[test]
    fn a_large_value_that_is_gone_is_dropped_page_by_page() {
        let config = StoreConfig { shards: Some(1), capacity_bytes: None, seed: 1 };
        let store = Store::new(&config, Budget::new(64 << 20)).unwrap();
        let key = Key::new(&b"large"[..]).unwrap();
        let meta = Metadata::new(elcache_core::MAX_VALUE_SIZE, Digest([0; 32]), Version::default(), 1);
        let owner = meta.owner(key.hash());
        let head = layout::encode_value(Kind::Root, key.as_bytes(), &meta);
        store.put(Kind::Root, key.as_bytes(), &[&head], None, None).unwrap();
        let present: Vec<u64> = vec![0, 1, 2, 1000, 2559];
        for &number in &present {
            store.put_page(&PageRef { owner, number }, &[7; 320]).unwrap();
        }
        assert!(store.remove(key.as_bytes(), |_| true));
        let left = || {
            let here = |number: &&u64| store.has(Kind::Page, &PageRef { owner, number: **number }.to_bytes());
            present.iter().filter(here).count()
        };
        let mut before = left();
        while store.reap_some() {
            assert!(before - left() <= 1, "{before} pages, then {}", left());
            before = left();
        }
        assert_eq!((left(), store.used_bytes()), (0, 0));
    }
}
