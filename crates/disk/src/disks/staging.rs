//! What the directories keep of drafts.
//!
//! What says that an upload is open, its fillings and its pages are in one directory, fragments and chunks are spread. What uploads count on
//! is pinned in the indexes, and nothing beside them says who counts on what: a filling holds its chunk, a page holds all that it names, and
//! whoever gives one of these up releases what it held.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::budget::Taken;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Payload;
use elcache_core::staging::{Filling, FoundUpload, Fragment, Gone, Opening, Staging};
use elcache_core::tier::{ChunkRef, Lookup, Owner, PageRef, Refusal, Reply, Staged};
use elcache_core::tree::{PAGE_DIGESTS, chunk_count, chunk_len, page_count};
use elcache_core::value::Version;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio::time::{sleep, timeout};

use super::home::DirectoryId;
use super::restore::Orphan;
use super::tier::{has_room, is_chunk, is_page};
use super::view::{Doubt, Found, Member, View};
use super::{Disks, Shared};
use crate::disk::Disk;
use crate::index::entry::{Entry, Kind as Known, Name};
use crate::name;
use crate::pins::Pin;
use crate::staging::footprint;

/// How long to wait before something is tried again that was not possible.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of drafts beside what the directories have.
#[derive(Default)]
pub(super) struct Drafts {
    /// Those that are open.
    pub(super) known: Mutex<HashMap<Owner, OpenDraft>>,
    /// What has been found and not been asked for, and the memory that it takes.
    pub(super) news: Mutex<(Vec<FoundUpload>, Vec<Taken>)>,
    /// Found, and whether their draft is open nobody can say yet.
    pub(super) orphans: Mutex<Vec<Orphan>>,
    /// What is pinned again is pinned by who has this alone; whoever stages has a share.
    pub(super) restoring: RwLock<()>,
    /// While that goes on: what is to be forgotten then.
    pub(super) deferred: Mutex<Option<Vec<(Owner, Gone)>>>,
    /// Rises with everything that may have been lost, but for records of a directory that serves.
    changes: AtomicU64,
    /// Drafts whose pages are to be let go of: at most as many as there were uploads.
    ended: Mutex<VecDeque<Ended>>,
    has_ended: Notify,
}

impl Drafts {
    /// Something may have been lost, or found.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What somebody has changed since it was found is no news any more.
    fn untell(&self, draft: Owner, chunk: u64) {
        for found in self.news.lock().0.iter_mut().filter(|found| found.opening.owner() == draft) {
            found.fillings.retain(|filling| filling.chunk != chunk);
        }
    }
}

/// A draft that has ended.
struct Ended {
    draft: Owner,
    size: u64,
    /// Pages before this one are done.
    next: u64,
}

/// A draft that is open.
#[derive(Clone)]
pub(super) struct OpenDraft {
    /// The directory that knows that it is.
    pub(super) home: DirectoryId,
    pub(super) opening: Opening,
}

/// Chunks that are held for a page until this is dropped.
struct Holds<'a> {
    shared: &'a Shared,
    names: Vec<Name>,
}

impl Holds<'_> {
    /// They stay held.
    fn keep(mut self) {
        self.names.clear();
    }
}

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        let view = self.shared.view();
        self.names.iter().for_each(|name| view.release(name));
    }
}

/// The chunks that a page of a value of `size` bytes names; `None` when it cannot be such a page.
pub(super) fn listed(page: &PageRef, size: u64, digests: &[u8]) -> Option<impl Iterator<Item = ChunkRef>> {
    let first = page.number.checked_mul(PAGE_DIGESTS).filter(|first| *first < chunk_count(size))?;
    let count = (chunk_count(size) - first).min(PAGE_DIGESTS);
    let (digests, rest) = digests.as_chunks::<32>();
    let is_page = digests.len() as u64 == count && rest.is_empty();
    is_page.then(|| {
        (first..).zip(digests).map(move |(number, digest)| {
            let len = chunk_len(size, number) as u32;
            ChunkRef { digest: Digest(*digest), number, len }
        })
    })
}

fn is_upload(entry: &Entry) -> bool {
    entry.kind == Known::Upload
}

fn is_fragment(entry: &Entry) -> bool {
    entry.kind == Known::Fragment
}

fn is_filling(entry: &Entry) -> bool {
    entry.kind == Known::Filling
}

impl Member {
    /// Whether what uploads count on is pinned here.
    pub(super) fn is_restored(&self) -> bool {
        *self.disk.restored.borrow()
    }

    /// Holds a chunk that is here and will stay.
    pub(super) fn hold(&self, name: &Name) -> bool {
        let disk = &self.disk;
        // What is not pinned may be on its way out.
        let stays = |place: u32| place > disk.condemned.load(Ordering::Acquire);
        let may = |entry: &Entry| is_chunk(entry) && (entry.pinned || stays(entry.place.segment));
        disk.pins.hold_if(&disk.index, name, may)
    }
}

impl View {
    /// Holds a chunk once more, where it is: false when it is nowhere.
    fn hold(&self, name: &Name) -> bool {
        let is_pinned = |member: &Member| member.disk.index.get(name).is_some_and(|entry| entry.pinned);
        let mut holders = self.holders(name, is_chunk);
        holders.sort_by_key(|member| !is_pinned(member));
        holders.iter().any(|member| member.hold(name))
    }

    /// Takes one of the holds of a chunk away. Nobody knows in which directory that was, and it does not matter: as many holds are left as
    /// there is somebody who counts on it. First goes one that leaves it pinned wherever it is.
    pub(super) fn release(&self, name: &Name) {
        let spare = |member: &Arc<Member>| member.disk.pins.release_spare(name);
        let _ = self.members.iter().any(spare)
            || self.members.iter().any(|member| member.disk.pins.release(&member.disk.index, name));
    }

    fn of_id(&self, id: &DirectoryId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.id == *id)
    }
}

impl Shared {
    /// Waits until it is known what there is of drafts, and keeps it so.
    async fn may_stage(&self) -> Result<RwLockReadGuard<'_, ()>, Refusal> {
        let restored = async {
            self.restored().await?;
            Ok(self.drafts.restoring.read().await)
        };
        timeout(self.patience, restored).await.unwrap_or(Err(Refusal::Full))
    }

    /// Waits until everything is pinned that uploads count on, in all that serve.
    async fn restored(&self) -> Result<(), Refusal> {
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update();
            let view = self.view();
            if view.serving().next().is_none() {
                return Err(Refusal::Failed);
            }
            if view.serving().all(|member| member.is_restored()) {
                return Ok(());
            }
            progress.changed().await.map_err(|_| Refusal::Failed)?;
        }
    }

    /// The directory that knows that an upload is open, if it serves.
    pub(super) fn home_of(&self, draft: &Owner) -> Result<Arc<Member>, Refusal> {
        let id = self.home_id(draft).ok_or(Refusal::Failed)?;
        let view = self.view();
        view.of_id(&id).filter(|member| member.serves()).cloned().ok_or(Refusal::Failed)
    }

    fn home_id(&self, draft: &Owner) -> Option<DirectoryId> {
        self.drafts.known.lock().get(draft).map(|known| known.home)
    }

    async fn open_draft(&self, opening: &Opening) -> Result<(), Refusal> {
        let _staging = self.may_stage().await?;
        let (owner, name) = (opening.owner(), name::of_upload(&opening.key));
        let home = match self.home_id(&owner) {
            Some(_) => self.home_of(&owner)?,
            None => self.clear_upload(&opening.key, opening.draft).await?,
        };
        let mut doubt = Doubt { member: &home, name, is_written: false };
        home.disk.put_opening(opening).await?;
        doubt.is_written = true;
        self.drafts.known.lock().insert(owner, OpenDraft { home: home.id, opening: opening.clone() });
        Ok(())
    }

    /// Closes what is open of a key in all directories but the one where it belongs, which is given back.
    async fn clear_upload(&self, key: &Key, draft: Version) -> Result<Arc<Member>, Refusal> {
        let view = self.view();
        let name = name::of_upload(key);
        if !view.knows_all() || view.is_held(&name) {
            return Err(Refusal::Failed);
        }
        let home = Arc::clone(view.home(&name::of_key(key)).ok_or(Refusal::Failed)?);
        for other in view.holders(&name, is_upload).iter().filter(|other| !Arc::ptr_eq(other, &home)) {
            other.disk.put_closed(key, draft).await?;
        }
        Ok(home)
    }

    async fn close_draft(&self, key: &Key, draft: Version) -> Result<(), Refusal> {
        let _staging = self.may_stage().await?;
        let owner = Owner { key: key.hash(), version: draft };
        let view = self.view();
        match self.home_id(&owner) {
            // Where the others have left a directory, nothing of it comes back.
            Some(id) if view.of_id(&id).is_none() => {}
            Some(_) => self.home_of(&owner)?.disk.put_closed(key, draft).await?,
            None => self.close_unknown(&view, key, draft).await?,
        }
        self.drafts.known.lock().remove(&owner);
        self.drafts.news.lock().0.retain(|found| found.opening.owner() != owner);
        Ok(())
    }

    /// Closes a draft wherever it is open.
    async fn close_unknown(&self, view: &View, key: &Key, draft: Version) -> Result<(), Refusal> {
        let name = name::of_upload(key);
        if view.is_held(&name) {
            return Err(Refusal::Failed);
        }
        for member in view.holders(&name, is_upload) {
            match member.disk.found_opening(key).await {
                Lookup::Hit(opening) if opening.draft == draft => {
                    member.disk.put_closed(key, draft).await?;
                }
                Lookup::Hit(_) | Lookup::Miss => {}
                Lookup::Busy => return Err(Refusal::Full),
            }
        }
        Ok(())
    }

    async fn write_fragment(&self, fragment: Fragment, bytes: Payload) -> Result<(), Refusal> {
        let _staging = self.may_stage().await?;
        if self.home_id(&fragment.draft).is_none()
            || u64::from(fragment.to).checked_sub(fragment.from.into()) != Some(bytes.len() as u64)
        {
            return Err(Refusal::Failed);
        }
        let view = self.view();
        let name = name::of_filling(fragment.draft, fragment.chunk);
        let len = bytes.len() as u64;
        let home = view.home_among(&name, |member| has_room(member, len)).or_else(|| view.home(&name));
        home.ok_or(Refusal::Failed)?.disk.put_fragment(&fragment, bytes).await
    }

    async fn fill(&self, filling: Filling, chunk: Staged) -> Result<(), Refusal> {
        let _staging = self.may_stage().await?;
        let home = self.home_of(&filling.draft)?;
        let Staged { chunk, hold } = chunk;
        let pin = hold.downcast::<Pin>().map_err(|_| Refusal::Failed)?;
        if chunk.digest != filling.digest || !pin.is_there() {
            return Err(Refusal::Failed);
        }
        home.disk.put_filling(&filling).await?;
        pin.leave();
        self.drafts.untell(filling.draft, filling.chunk);
        Ok(())
    }

    async fn put_page(&self, page: PageRef, size: u64, serial: u64, digests: Bytes) -> Result<(), Refusal> {
        let _staging = self.may_stage().await?;
        let home = self.home_of(&page.owner)?;
        let chunks = listed(&page, size, &digests).ok_or(Refusal::Failed)?;
        let view = self.view();
        let mut holds = Holds { shared: self, names: Vec::new() };
        for name in chunks.map(|chunk| name::of_chunk(&chunk)) {
            if !view.hold(&name) {
                self.drafts.changed();
                return Err(Refusal::Failed);
            }
            holds.names.push(name);
        }
        let name = name::of_page(&page);
        let is_there = home.disk.index.get(&name).is_some_and(|entry| entry.pinned);
        let before = match is_there {
            true => match home.disk.find_staged_page(&page).await {
                Lookup::Hit((_, before)) => Some(before),
                Lookup::Miss => None,
                Lookup::Busy => return Err(Refusal::Full),
            },
            false => None,
        };
        // The bit of a page that is replaced stays.
        let pin = before.is_none().then(|| Pin::new(&home.disk, &name));
        home.disk.put_page(&page, serial, digests.into(), self.clock.now_ms()).await?;
        holds.keep();
        pin.into_iter().for_each(Pin::leave);
        if let Some(before) = before {
            release_all(&view, &page, size, &before.to_contiguous());
        }
        Ok(())
    }

    fn forget(&self, draft: Owner, what: &[Gone]) {
        if let Some(deferred) = &mut *self.drafts.deferred.lock() {
            deferred.extend(what.iter().map(|what| (draft, *what)));
            return;
        }
        let view = self.view();
        for what in what {
            if let Gone::Filling(number) | Gone::Chunk(ChunkRef { number, .. }) = what {
                self.drafts.untell(draft, *number);
            }
            view.forget(draft, what);
        }
    }

    fn has(&self, draft: Owner, what: &Gone) -> bool {
        let (name, is): (_, fn(&Entry) -> bool) = match what {
            Gone::Fragment(fragment) => (name::of_fragment(fragment), is_fragment),
            Gone::Filling(chunk) => (name::of_filling(draft, *chunk), is_filling),
            Gone::Chunk(chunk) => (name::of_chunk(chunk), is_chunk),
        };
        // What a directory has that is out, it has still when it serves again.
        !matches!(self.view().find(&name, is), Found::Nowhere)
    }

    /// Whether all pages of a draft are there.
    pub(super) fn has_all_pages(&self, draft: Owner, size: u64) -> bool {
        let Ok(home) = self.home_of(&draft) else { return false };
        (0..page_count(size)).all(|number| {
            let name = name::of_page(&PageRef { owner: draft, number });
            home.disk.index.get(&name).is_some_and(|entry| is_page(&entry))
        })
    }

    fn keeps(&self, draft: &Owner) -> bool {
        self.home_id(draft).is_some_and(|id| self.view().of_id(&id).is_some())
    }

    async fn found_uploads(&self) -> Result<Vec<FoundUpload>, Refusal> {
        timeout(self.patience, self.restored()).await.unwrap_or(Err(Refusal::Full))?;
        let (mut news, _taken) = std::mem::take(&mut *self.drafts.news.lock());
        news.retain(|found| self.keeps(&found.opening.owner()));
        Ok(news)
    }

    fn generation(&self) -> u64 {
        self.drafts.changes.load(Ordering::Relaxed) + self.losses()
    }

    /// Lets go of a page of a draft, and of what it names; false when that has to be tried again.
    async fn let_go_of(&self, page: &PageRef, size: u64) -> bool {
        let _staging = self.drafts.restoring.read().await;
        let (view, name) = (self.view(), name::of_page(page));
        let has = |member: &&Arc<Member>| member.disk.index.get(&name).is_some_and(|entry| is_page(&entry));
        for member in view.members.iter().filter(has) {
            if !member.serves() {
                return false;
            }
            match member.disk.find_staged_page(page).await {
                Lookup::Hit((_, digests)) => release_all(&view, page, size, &digests.to_contiguous()),
                // What it named stays pinned until the next start.
                Lookup::Miss => {}
                Lookup::Busy => return false,
            }
            member.disk.pins.release(&member.disk.index, &name);
        }
        true
    }
}

impl View {
    pub(super) fn forget(&self, draft: Owner, what: &Gone) {
        let name = match what {
            Gone::Chunk(chunk) => return self.release(&name::of_chunk(chunk)),
            Gone::Fragment(fragment) => name::of_fragment(fragment),
            Gone::Filling(chunk) => name::of_filling(draft, *chunk),
        };
        self.members.iter().for_each(|member| member.disk.forget(&name));
    }
}

/// Gives up what a page held.
fn release_all(view: &View, page: &PageRef, size: u64, digests: &[u8]) {
    for chunk in listed(page, size, digests).into_iter().flatten() {
        view.release(&name::of_chunk(&chunk));
    }
}

/// Lets go of the pages of drafts that have ended, for as long as there are directories.
pub(super) async fn let_go(shared: Arc<Shared>) {
    loop {
        let next = shared.drafts.ended.lock().pop_front();
        let Some(mut ended) = next else {
            shared.drafts.has_ended.notified().await;
            continue;
        };
        let Ended { draft: owner, size, .. } = ended;
        while ended.next < page_count(size)
            && shared.let_go_of(&PageRef { owner, number: ended.next }, size).await
        {
            ended.next += 1;
        }
        if ended.next < page_count(size) {
            // The others first.
            shared.drafts.ended.lock().push_back(ended);
            sleep(AGAIN).await;
        }
    }
}

impl Staging for Disks {
    fn open<'a>(&'a self, opening: &'a Opening) -> Reply<'a, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.open_draft(opening)))
    }

    fn close<'a>(&'a self, key: &'a Key, draft: Version) -> Reply<'a, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.close_draft(key, draft)))
    }

    fn write(&self, fragment: Fragment, bytes: Payload) -> Reply<'_, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.write_fragment(fragment, bytes)))
    }

    fn read<'a>(&'a self, fragment: &'a Fragment, from: u32, to: u32) -> Reply<'a, Lookup<Payload>> {
        let read = move |disk: Arc<Disk>| async move { disk.find_fragment(fragment, from, to).await };
        Reply::Later(Box::pin(self.shared.read(name::of_fragment(fragment), is_fragment, read)))
    }

    fn fill(&self, filling: Filling, chunk: Staged) -> Reply<'_, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.fill(filling, chunk)))
    }

    fn read_chunk(&self, _: Owner, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Payload>> {
        let chunk = *chunk;
        let read = move |disk: Arc<Disk>| async move { disk.read_chunk(&chunk, from, to).await };
        Reply::Later(Box::pin(async move {
            self.shared.read(name::of_chunk(&chunk), is_chunk, read).await.map(|part| part.bytes)
        }))
    }

    fn put_page(
        &self,
        page: PageRef,
        size: u64,
        serial: u64,
        digests: Bytes,
    ) -> Reply<'_, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.put_page(page, size, serial, digests)))
    }

    fn read_page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        let page = *page;
        let read = move |disk: Arc<Disk>| async move { disk.find_page(&page).await };
        Reply::Later(Box::pin(self.shared.read(name::of_page(&page), is_page, read)))
    }

    fn forget(&self, draft: Owner, what: &[Gone]) {
        self.shared.forget(draft, what);
    }

    fn end(&self, draft: Owner, size: u64) {
        self.shared.drafts.ended.lock().push_back(Ended { draft, size, next: 0 });
        self.shared.drafts.has_ended.notify_one();
    }

    fn footprint(&self, len: u32) -> u64 {
        footprint(len)
    }

    fn has(&self, draft: Owner, what: &Gone) -> bool {
        self.shared.has(draft, what)
    }

    fn keeps(&self, draft: Owner) -> bool {
        self.shared.keeps(&draft)
    }

    fn found(&self) -> Reply<'_, Result<Vec<FoundUpload>, Refusal>> {
        Reply::Later(Box::pin(self.shared.found_uploads()))
    }

    fn generation(&self) -> u64 {
        self.shared.generation()
    }
}
