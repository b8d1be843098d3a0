//! What memory keeps of drafts, where it is the home of a value that many writers put together.
//!
//! Nothing of it is found by anybody but the draft, and nothing of it is evicted: buffers count as an upload's bytes, everything
//! else is taken from the budget. A chunk that is there as a whole is a record already, which the commit only gives its name: it
//! takes no room, and the draft refers to the record until its end. So a commit that fails has lost nothing.
//!
//! Nothing here outlives the process, so there is nothing to be found after a restart, and nothing is lost before.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use elcache_arena::{OwnedRef, PAGE_SIZE};
use elcache_core::budget::{Budget, Taken};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::staging::{Filling, FoundUpload, Fragment, Gone, Opening, Staging};
use elcache_core::tier::{ChunkRef, Lookup, Owner, PageRef, Refusal, Reply, Staged};
use elcache_core::tree::{self, PAGE_DIGESTS};
use elcache_core::value::{Metadata, Version};
use parking_lot::Mutex;

use crate::layout::{self, Kind};
use crate::shard::ENTRY_OVERHEAD;
use crate::store::{NoRoom, Store};
use crate::tier::{MemoryTier, StagedChunk};

/// Below this a fragment is copied out of its buffer, which takes a page at least.
const SMALL: usize = 2 << 10;
/// What a draft takes besides what it keeps, and what a fragment, a chunk and a page take besides their bytes: places in maps of
/// which half may be empty, and the boxes around the bytes.
const DRAFT_BYTES: u64 = 1024;
const FRAGMENT_BYTES: u64 = 384;
const CHUNK_BYTES: u64 = 384;
const PAGE_BYTES: u64 = 192;
/// By which a record can be larger than its whole pages: its head, in the slot that fits it.
const HEAD_BYTES: u64 = 512;

/// All drafts.
pub(crate) struct Drafts {
    budget: Arc<Budget>,
    open: Mutex<HashMap<Owner, Arc<Mutex<Draft>>>>,
    /// To be dropped by the housekeeper: a large one takes a while.
    ended: Mutex<Vec<Arc<Mutex<Draft>>>>,
}

impl Drafts {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, open: Mutex::default(), ended: Mutex::default() }
    }

    fn get(&self, draft: Owner) -> Option<Arc<Mutex<Draft>>> {
        self.open.lock().get(&draft).cloned()
    }

    fn open(&self, draft: Owner) -> Result<(), Refusal> {
        if let Entry::Vacant(vacant) = self.open.lock().entry(draft) {
            let taken = self.budget.take(DRAFT_BYTES).ok_or(Refusal::Full)?;
            vacant.insert(Arc::new(Mutex::new(Draft::new(taken))));
        }
        Ok(())
    }

    fn end(&self, draft: Owner) {
        let ended = self.open.lock().remove(&draft);
        self.ended.lock().extend(ended);
    }

    /// Gives back the memory of those that have ended.
    pub(crate) fn drop_ended(&self) {
        let ended = std::mem::take(&mut *self.ended.lock());
        drop(ended);
    }
}

/// A chunk of a draft: its number and its digest.
type ChunkName = (u64, Digest);

/// What is kept of a draft.
struct Draft {
    fragments: BTreeMap<FragmentName, FragmentBytes>,
    chunks: BTreeMap<ChunkName, Chunk>,
    pages: BTreeMap<u64, Bytes>,
    /// What of the budget is taken for all of this.
    taken: Taken,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FragmentName {
    chunk: u64,
    serial: u64,
    from: u32,
    to: u32,
}

impl From<&Fragment> for FragmentName {
    fn from(&Fragment { chunk, serial, from, to, .. }: &Fragment) -> Self {
        Self { chunk, serial, from, to }
    }
}

enum FragmentBytes {
    Small(Bytes),
    Paged(Filled),
}

impl FragmentBytes {
    fn payload(&self) -> Payload {
        match self {
            Self::Small(bytes) => bytes.clone().into(),
            Self::Paged(filled) => filled.payload(),
        }
    }

    /// What is taken of the budget for it.
    fn taken(&self) -> u64 {
        match self {
            Self::Small(bytes) => FRAGMENT_BYTES + bytes.len() as u64,
            Self::Paged(_) => FRAGMENT_BYTES,
        }
    }
}

/// A chunk, and what counts on it.
struct Chunk {
    held: Held,
    fillings: u32,
    pages: u32,
}

/// A reference to a chunk's record, which counts as an upload's bytes as long as the tier does not count it.
struct Held {
    record: Arc<OwnedRef>,
    counted: bool,
    staged: Arc<AtomicU64>,
}

impl Held {
    fn new(record: OwnedRef, staged: &Arc<AtomicU64>) -> Self {
        let mut held = Self { record: Arc::new(record), counted: false, staged: Arc::clone(staged) };
        held.count(true);
        held
    }

    fn count(&mut self, counted: bool) {
        let bytes = self.record.footprint() as u64;
        match (self.counted, counted) {
            (false, true) => _ = self.staged.fetch_add(bytes, Ordering::Relaxed),
            (true, false) => _ = self.staged.fetch_sub(bytes, Ordering::Relaxed),
            _ => {}
        }
        self.counted = counted;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count(false);
    }
}

/// What a draft counted on no more, to be dropped when its lock is let go.
#[derive(Default)]
struct Dropped {
    fragments: Vec<FragmentBytes>,
    chunks: Vec<Chunk>,
}

impl Draft {
    fn new(taken: Taken) -> Self {
        Self { fragments: BTreeMap::new(), chunks: BTreeMap::new(), pages: BTreeMap::new(), taken }
    }

    fn write(&mut self, name: FragmentName, bytes: FragmentBytes) -> Result<Option<FragmentBytes>, Refusal> {
        self.take(bytes.taken())?;
        let before = self.fragments.insert(name, bytes);
        self.taken.shrink(before.as_ref().map_or(0, FragmentBytes::taken));
        Ok(before)
    }

    /// A filling more counts on the chunk.
    fn fill(&mut self, filling: &Filling, held: Held) -> Result<(), Refusal> {
        let name = (filling.chunk, filling.digest);
        if !self.chunks.contains_key(&name) {
            self.take(CHUNK_BYTES)?;
            self.chunks.insert(name, Chunk { held, fillings: 0, pages: 0 });
        }
        if let Some(chunk) = self.chunks.get_mut(&name) {
            chunk.fillings += 1;
        }
        Ok(())
    }

    /// A page, which counts on the chunks that it names, in place of the one before. Nothing changes if one of them is not here.
    fn put_page(&mut self, number: u64, digests: Bytes) -> Result<Dropped, Refusal> {
        if !names(number, &digests).all(|name| self.chunks.contains_key(&name)) {
            return Err(Refusal::Failed);
        }
        self.take(PAGE_BYTES + digests.len() as u64)?;
        for name in names(number, &digests) {
            self.chunks.entry(name).and_modify(|chunk| chunk.pages += 1);
        }
        let mut dropped = Dropped::default();
        if let Some(before) = self.pages.insert(number, digests) {
            names(number, &before).for_each(|name| self.leave(name, &mut dropped, |chunk| &mut chunk.pages));
            self.taken.shrink(PAGE_BYTES + before.len() as u64);
        }
        Ok(dropped)
    }

    fn forget(&mut self, what: &Gone, dropped: &mut Dropped) {
        match what {
            Gone::Fragment(fragment) => {
                if let Some(bytes) = self.fragments.remove(&fragment.into()) {
                    self.taken.shrink(bytes.taken());
                    dropped.fragments.push(bytes);
                }
            }
            // There is no record of it.
            Gone::Filling(_) => {}
            Gone::Chunk(chunk) => {
                self.leave((chunk.number, chunk.digest), dropped, |chunk| &mut chunk.fillings);
            }
        }
    }

    /// One less counts on a chunk, which goes with the last.
    fn leave(&mut self, name: ChunkName, dropped: &mut Dropped, by: impl Fn(&mut Chunk) -> &mut u32) {
        let Some(chunk) = self.chunks.get_mut(&name) else { return };
        let count = by(chunk);
        *count = count.saturating_sub(1);
        if chunk.fillings == 0 && chunk.pages == 0 {
            dropped.chunks.extend(self.chunks.remove(&name));
            self.taken.shrink(CHUNK_BYTES);
        }
    }

    fn has(&self, what: &Gone) -> bool {
        match what {
            Gone::Fragment(fragment) => self.fragments.contains_key(&fragment.into()),
            Gone::Filling(number) => {
                let mut of_number =
                    self.chunks.range((*number, Digest([0; 32]))..=(*number, Digest([255; 32])));
                of_number.any(|(_, chunk)| chunk.fillings > 0)
            }
            Gone::Chunk(chunk) => self.chunks.contains_key(&(chunk.number, chunk.digest)),
        }
    }

    /// Stores the pages, gives every chunk that they name its name in the tier, and stores the root last.
    fn commit(&mut self, store: &Store, key: &Key, meta: &Metadata) -> Result<(), Refusal> {
        let owner = meta.owner(key.hash());
        if !self.pages.keys().copied().eq(0..tree::page_count(meta.size)) {
            return Err(Refusal::Failed);
        }
        store.open_value(owner, key);
        let done = self.put_pages(store, owner).and_then(|()| {
            // Room for what is to come is made while the chunks cannot be evicted: that would free nothing, they are held here.
            let head = layout::encode_value(Kind::Root, key.as_bytes(), meta);
            let names = (tree::chunk_count(meta.size) + 1) * ENTRY_OVERHEAD;
            store.make_room(HEAD_BYTES + 2 * head.len() as u64 + names, None)?;
            self.name_chunks(store, owner)?;
            store.put(Kind::Root, key.as_bytes(), &[&head], None, None)
        });
        match done {
            Ok(()) => store.seal_value(owner),
            Err(NoRoom) => self.undo(store, owner),
        }
        Ok(done?)
    }

    /// Nothing of a commit is left but what the draft had before.
    fn undo(&mut self, store: &Store, owner: Owner) {
        store.undo_value(owner, self.pages.iter().map(|(number, digests)| (*number, &digests[..])));
        self.chunks.values_mut().for_each(|chunk| chunk.held.count(true));
    }

    fn put_pages(&self, store: &Store, owner: Owner) -> Result<(), NoRoom> {
        let mut pages = self.pages.iter();
        pages.try_for_each(|(&number, digests)| store.put_page(&PageRef { owner, number }, digests))
    }

    fn name_chunks(&mut self, store: &Store, owner: Owner) -> Result<(), NoRoom> {
        for name in self.pages.iter().flat_map(|(page, digests)| names(*page, digests)) {
            // A page holds what it names.
            let Some(Chunk { held, .. }) = self.chunks.get_mut(&name) else { continue };
            let named = store.name_chunk(&name.1, &held.record, owner)?;
            // What is found counts as any other record.
            held.count(!named);
        }
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        if self.taken.grow(bytes) { Ok(()) } else { Err(Refusal::Full) }
    }
}

/// The chunks that a page names.
fn names(page: u64, digests: &[u8]) -> impl Iterator<Item = ChunkName> {
    let (digests, _) = digests.as_chunks();
    (page * PAGE_DIGESTS..).zip(digests.iter().map(|digest| Digest(*digest)))
}

impl MemoryTier {
    /// Commits a draft, which keeps everything until its end.
    pub(crate) fn commit_draft(&self, key: &Key, meta: &Metadata) -> Result<(), Refusal> {
        let draft = self.drafts.get(meta.owner(key.hash())).ok_or(Refusal::Failed)?;
        draft.lock().commit(&self.store, key, meta)
    }

    fn draft(&self, draft: Owner) -> Result<Arc<Mutex<Draft>>, Refusal> {
        self.drafts.get(draft).ok_or(Refusal::Failed)
    }

    fn write_now(&self, fragment: &Fragment, bytes: &Payload) -> Result<(), Refusal> {
        let draft = self.draft(fragment.draft)?;
        let bytes = if bytes.len() < SMALL {
            FragmentBytes::Small(Bytes::copy_from_slice(&bytes.to_contiguous()))
        } else {
            FragmentBytes::Paged(Filled::new(Box::new(self.copied(bytes)?), Vec::new()))
        };
        let before = draft.lock().write(fragment.into(), bytes)?;
        drop(before);
        self.after_growth();
        Ok(())
    }

    fn fill_now(&self, filling: &Filling, staged: Staged) -> Result<(), Refusal> {
        let draft = self.draft(filling.draft)?;
        let hold: Box<dyn Any> = staged.hold;
        let record = match *hold.downcast::<StagedChunk>().map_err(|_| Refusal::Failed)? {
            StagedChunk::Fresh(buffer) => self.store.hold_chunk(&staged.chunk, buffer.into_pages())?,
            StagedChunk::Here(record) => record,
        };
        let held = Held::new(record, self.store.staged());
        draft.lock().fill(filling, held)?;
        self.after_growth();
        Ok(())
    }

    fn put_page_now(&self, page: &PageRef, size: u64, digests: &Bytes) -> Result<(), Refusal> {
        let first = page.number.saturating_mul(PAGE_DIGESTS);
        let chunks = tree::chunk_count(size).saturating_sub(first).min(PAGE_DIGESTS);
        if chunks == 0 || digests.len() as u64 != chunks * 32 {
            return Err(Refusal::Failed);
        }
        let draft = self.draft(page.owner)?;
        // Of the page's own bytes alone: what is given may be a part of something larger.
        let digests = Bytes::copy_from_slice(digests);
        let dropped = draft.lock().put_page(page.number, digests)?;
        drop(dropped);
        Ok(())
    }
}

impl Staging for MemoryTier {
    fn open<'a>(&'a self, opening: &'a Opening) -> Reply<'a, Result<(), Refusal>> {
        Reply::Ready(self.drafts.open(opening.owner()))
    }

    /// Nothing says that it is open but what is kept of it.
    fn close<'a>(&'a self, _: &'a Key, _: Version) -> Reply<'a, Result<(), Refusal>> {
        Reply::Ready(Ok(()))
    }

    fn write(&self, fragment: Fragment, bytes: Payload) -> Reply<'_, Result<(), Refusal>> {
        Reply::Ready(self.write_now(&fragment, &bytes))
    }

    fn read<'a>(&'a self, fragment: &'a Fragment, from: u32, to: u32) -> Reply<'a, Lookup<Payload>> {
        let found = self.drafts.get(fragment.draft).and_then(|draft| {
            let draft = draft.lock();
            draft.fragments.get(&fragment.into()).map(FragmentBytes::payload)
        });
        let within = |at: u32| at.saturating_sub(fragment.from) as usize;
        Reply::Ready(found.map_or(Lookup::Miss, |bytes| Lookup::Hit(bytes.slice(within(from), within(to)))))
    }

    fn fill(&self, filling: Filling, chunk: Staged) -> Reply<'_, Result<(), Refusal>> {
        Reply::Ready(self.fill_now(&filling, chunk))
    }

    fn read_chunk(&self, draft: Owner, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Payload>> {
        let found = self.drafts.get(draft).and_then(|draft| {
            let draft = draft.lock();
            draft.chunks.get(&(chunk.number, chunk.digest)).map(|chunk| Arc::clone(&chunk.held.record))
        });
        Reply::Ready(found.map_or(Lookup::Miss, |record| {
            let body_at = layout::plain_body_at(record.content());
            Lookup::Hit(record.shared_body(body_at, from as usize, to as usize))
        }))
    }

    fn put_page(&self, page: PageRef, size: u64, _: u64, digests: Bytes) -> Reply<'_, Result<(), Refusal>> {
        Reply::Ready(self.put_page_now(&page, size, &digests))
    }

    fn read_page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        let found =
            self.drafts.get(page.owner).and_then(|draft| draft.lock().pages.get(&page.number).cloned());
        Reply::Ready(found.map_or(Lookup::Miss, |digests| Lookup::Hit(digests.into())))
    }

    fn forget(&self, draft: Owner, what: &[Gone]) {
        let Some(draft) = self.drafts.get(draft) else { return };
        let mut dropped = Dropped::default();
        let mut draft = draft.lock();
        what.iter().for_each(|gone| draft.forget(gone, &mut dropped));
    }

    fn end(&self, draft: Owner, _: u64) {
        self.drafts.end(draft);
        self.wake();
    }

    fn footprint(&self, len: u32) -> u64 {
        let paged = if (len as usize) < SMALL { len } else { len.next_multiple_of(PAGE_SIZE as u32) };
        // A head names the pieces that the pages lie in, each of some 64 KiB.
        u64::from(paged) + FRAGMENT_BYTES.max(CHUNK_BYTES) + HEAD_BYTES + u64::from(len) / 4096
    }

    fn has(&self, draft: Owner, what: &Gone) -> bool {
        self.drafts.get(draft).is_some_and(|draft| draft.lock().has(what))
    }

    fn found(&self) -> Reply<'_, Result<Vec<FoundUpload>, Refusal>> {
        Reply::Ready(Ok(Vec::new()))
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreConfig, fill};

    const CHUNK_LEN: u32 = 70_000;

    fn held(store: &Store, chunk: &ChunkRef) -> Held {
        let mut body = store.stage(chunk.len as usize).unwrap();
        fill(&mut body, &vec![chunk.digest.0[0]; chunk.len as usize]);
        store.staged().fetch_sub(body.footprint() as u64, Ordering::Relaxed);
        Held::new(store.hold_chunk(chunk, body).unwrap(), store.staged())
    }

    fn is_right(draft: &Draft, chunk: &ChunkRef) -> bool {
        let record = &draft.chunks[&(chunk.number, chunk.digest)].held.record;
        let body = record.shared_body(layout::plain_body_at(record.content()), 0, usize::MAX).to_contiguous();
        body.len() == chunk.len as usize && body.iter().all(|byte| *byte == chunk.digest.0[0])
    }

    /// A commit had named the chunks when it found no room for the root; they were evicted before that was undone. They are the
    /// draft's all the same, and the next commit finds them.
    #[test]
    fn chunks_that_were_named_and_evicted_are_the_drafts_still() {
        let budget = Budget::new(64 << 20);
        let config = StoreConfig { shards: Some(1), capacity_bytes: None, seed: 1 };
        let store = Store::new(&config, Arc::clone(&budget)).unwrap();
        let key = Key::new(&b"large"[..]).unwrap();
        let mut draft = Draft::new(budget.take(DRAFT_BYTES).unwrap());
        let owner = Owner { key: key.hash(), version: Version { view: 1, sequence: 1 } };
        let chunks: Vec<_> = (0..5)
            .map(|number| ChunkRef { number, digest: Digest([number as u8 + 1; 32]), len: CHUNK_LEN })
            .collect();
        for chunk in &chunks {
            let filling = Filling { draft: owner, chunk: chunk.number, serial: 1, digest: chunk.digest };
            draft.fill(&filling, held(&store, chunk)).unwrap();
        }
        let page: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.digest.0).collect();
        draft.put_page(0, page.into()).unwrap();
        let before = store.used_bytes();
        for evicted in 0..3 {
            store.open_value(owner, &key);
            draft.put_pages(&store, owner).unwrap();
            draft.name_chunks(&store, owner).unwrap();
            assert!(chunks.iter().all(|chunk| store.has(Kind::Chunk, &layout::chunk_name(chunk))));
            store.evict_to(0.0, evicted);
            draft.undo(&store, owner);
            assert_eq!(store.used_bytes(), before);
            assert!(!chunks.iter().any(|chunk| store.has(Kind::Chunk, &layout::chunk_name(chunk))));
            assert!(chunks.iter().all(|chunk| is_right(&draft, chunk)));
        }
        let size = 5 * tree::CHUNK_SIZE;
        let version = Version { view: 1, sequence: 2 };
        let meta =
            Metadata { draft: Some(owner.version), ..Metadata::new(size, Digest([0; 32]), version, 1) };
        draft.commit(&store, &key, &meta).unwrap();
        drop(draft);
        assert!(chunks.iter().all(|chunk| store.has(Kind::Chunk, &layout::chunk_name(chunk))));
        assert!(store.remove(key.as_bytes(), |_| true));
        store.reap();
        assert_eq!((store.used_bytes(), budget.taken_bytes()), (0, 0));
        assert_eq!(store.usage().size_bytes, store.usage().index_bytes, "no memory is left in use");
    }
}
