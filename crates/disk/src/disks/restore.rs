//! After a start, and when a directory serves again: what uploads count on is pinned, and they are told.
//!
//! The names of records say which fragments and fillings there are, the pages say which chunks they name. Until all of that is pinned in
//! a directory, nothing is freed there, and nothing is staged anywhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use elcache_core::digest::Digest;
use elcache_core::staging::{Filling, FoundPage, FoundUpload, Fragment, Opening};
use elcache_core::tier::{ChunkRef, Lookup, Owner, PageRef};
use elcache_core::tree::{PAGE_DIGESTS, merged, page_count};
use tokio::time::sleep;

use super::Shared;
use super::home::DirectoryId;
use super::staging::{OpenDraft, listed};
use super::tier::{is_chunk, is_page};
use super::view::{Found as Where, Member, View};
use crate::found::Parts;
use crate::name;

/// So often what cannot be read now is tried, with this between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// What a directory has of a draft of which nobody knows whether it is open.
pub(super) struct Orphan {
    directory: DirectoryId,
    draft: Owner,
    parts: Parts,
}

/// An upload of which there is news.
struct Living {
    home: DirectoryId,
    opening: Opening,
    pages: Vec<FoundPage>,
    fillings: Vec<Filling>,
    fragments: Vec<Fragment>,
}

/// Pins what uploads count on in every directory that begins to serve.
pub(super) async fn restore(shared: Arc<Shared>) {
    let mut progress = shared.progress.subscribe();
    loop {
        progress.borrow_and_update();
        let view = shared.view();
        let waits = view.serving().any(|member| member.is_recovering());
        let new: Vec<_> = view.serving().filter(|member| member.is_new()).cloned().collect();
        let may_drop = !shared.drafts.orphans.lock().is_empty() && view.knows_drafts(&new);
        if !waits && (may_drop || !new.is_empty()) {
            shared.restore(&view, &new).await;
        } else if progress.changed().await.is_err() {
            return;
        }
    }
}

impl Member {
    fn is_new(&self) -> bool {
        self.is_complete() && !self.is_restored()
    }

    /// Asks again what cannot be said now.
    async fn persist<T, F: Future<Output = Lookup<T>>>(&self, read: impl Fn() -> F) -> Option<T> {
        for _ in 1..TRIES {
            match read().await {
                Lookup::Hit(found) => return Some(found),
                Lookup::Miss | Lookup::Busy if !self.serves() => return None,
                Lookup::Miss | Lookup::Busy => sleep(PAUSE).await,
            }
        }
        read().await.hit()
    }
}

impl View {
    /// Whether it is known of all directories which uploads are open there, with what these have found.
    fn knows_drafts(&self, new: &[Arc<Member>]) -> bool {
        let is_new = |member: &Arc<Member>| new.iter().any(|new| Arc::ptr_eq(new, member));
        self.members.iter().all(|member| member.is_restored() || (is_new(member) && member.serves()))
    }
}

impl Shared {
    async fn restore(&self, view: &View, new: &[Arc<Member>]) {
        let drafts = &self.drafts;
        let alone = drafts.restoring.write().await;
        *drafts.deferred.lock() = Some(Vec::new());
        let known = drafts.known.lock().keys().copied().collect();
        Restore { shared: self, view, new, known }.run().await;
        new.iter().for_each(|member| _ = member.disk.restored.send_replace(true));
        drafts.changed();
        let deferred = drafts.deferred.lock().take();
        deferred.into_iter().flatten().for_each(|(draft, what)| view.forget(draft, &what));
        drop(alone);
        self.tell();
    }
}

/// Some directories begin to serve.
struct Restore<'a> {
    shared: &'a Shared,
    view: &'a View,
    new: &'a [Arc<Member>],
    /// Drafts that were known before: where others have what they name, that is held.
    known: HashSet<Owner>,
}

impl Restore<'_> {
    async fn run(&self) {
        let drafts = &self.shared.drafts;
        let (mut orphans, mut memory) = (std::mem::take(&mut *drafts.orphans.lock()), Vec::new());
        let mut living = HashMap::new();
        for member in self.new {
            let found = member.disk.found.lock().take(&member.disk.index);
            memory.extend(found.taken);
            for (draft, parts) in found.drafts {
                orphans.push(Orphan { directory: member.id, draft, parts });
            }
            for (key, draft) in found.openings {
                let opening = member.persist(|| member.disk.found_opening(&key)).await;
                match opening.filter(|opening| opening.draft == draft) {
                    Some(opening) => open(&mut living, member, opening),
                    None => tracing::error!("what says that an upload is open cannot be read: it is lost"),
                }
            }
        }
        self.pin_pages(&mut living).await;
        // Of one that has failed meanwhile everything is read again when it serves again.
        living.retain(|_, upload| self.member(&upload.home).is_some_and(|home| home.serves()));
        self.settle(&living);
        self.pin_known().await;
        self.adopt(orphans, &mut living);
        let mut news = drafts.news.lock();
        news.0.extend(living.into_values().map(Living::found));
        news.1.extend(memory);
    }

    fn member(&self, id: &DirectoryId) -> Option<&Arc<Member>> {
        self.view.members.iter().find(|member| member.id == *id)
    }

    fn is_new(&self, member: &Member) -> bool {
        self.new.iter().any(|new| new.id == member.id)
    }

    /// Remembers which uploads are open.
    fn settle(&self, living: &HashMap<Owner, Living>) {
        let mut known = self.shared.drafts.known.lock();
        let is_read = |id: &DirectoryId| self.new.iter().any(|new| new.id == *id && new.serves());
        known.retain(|owner, upload| living.contains_key(owner) || !is_read(&upload.home));
        let of = |upload: &Living| OpenDraft { home: upload.home, opening: upload.opening.clone() };
        known.extend(living.iter().map(|(owner, upload)| (*owner, of(upload))));
    }

    /// Reads and pins the pages of uploads that have been found.
    async fn pin_pages(&self, living: &mut HashMap<Owner, Living>) {
        for (owner, upload) in living {
            let Some(home) = self.member(&upload.home) else { continue };
            for number in 0..page_count(upload.opening.size) {
                let page = PageRef { owner: *owner, number };
                let name = name::of_page(&page);
                let Some((serial, chunks)) = self.read_page(home, &page, upload.opening.size).await else {
                    continue;
                };
                home.disk.pins.hold(&home.disk.index, &name);
                let lost =
                    (0..).zip(&chunks).filter(|(_, chunk)| !self.pin_chunk(*owner, &chunk.digest, home));
                let lost = lost.map(|(place, _)| place).collect();
                let merged = merged(chunks.iter().map(|chunk| chunk.digest));
                upload.pages.extend(merged.map(|merged| FoundPage { number, serial, merged, lost }));
            }
        }
    }

    async fn read_page(&self, home: &Member, page: &PageRef, size: u64) -> Option<(u64, Vec<ChunkRef>)> {
        let name = name::of_page(page);
        if !home.disk.index.get(&name).is_some_and(|entry| is_page(&entry)) {
            return None;
        }
        let (serial, digests) = home.persist(|| home.disk.find_staged_page(page)).await?;
        tokio::task::yield_now().await;
        Some((serial, listed(page, size, &digests.to_contiguous())?.collect()))
    }

    /// Holds a chunk for a draft, unless it is where that holds it already: whether it is anywhere.
    fn pin_chunk(&self, draft: Owner, digest: &Digest, home: &Member) -> bool {
        let name = name::of_digest(digest);
        let holders = self.view.holders(&name, is_chunk);
        let may = |member: &&Arc<Member>| !self.known.contains(&draft) || self.is_new(member);
        if holders.iter().filter(may).any(|member| member.hold(&name)) {
            return true;
        }
        if !holders.is_empty() || !matches!(self.view.find(&name, is_chunk), Where::Nowhere) {
            return true;
        }
        if self.is_new(home) {
            // Whoever gives it up later gives up this hold, and nobody else's.
            home.disk.pins.hold(&home.disk.index, &name);
        }
        false
    }

    /// Pins, in directories that are new, what uploads name that are in others.
    async fn pin_known(&self) {
        for home in self.view.members.iter().filter(|member| member.serves() && !self.is_new(member)) {
            let sizes: HashMap<Owner, u64> = {
                let known = self.shared.drafts.known.lock();
                let here = known.iter().filter(|(_, upload)| upload.home == home.id);
                here.map(|(owner, upload)| (*owner, upload.opening.size)).collect()
            };
            if sizes.is_empty() || self.new.is_empty() {
                continue;
            }
            for (&owner, &size) in &sizes {
                for number in 0..page_count(size) {
                    let page = self.read_page(home, &PageRef { owner, number }, size).await;
                    let chunks = page.into_iter().flat_map(|(_, chunks)| chunks);
                    chunks.for_each(|chunk| _ = self.pin_chunk(owner, &chunk.digest, home));
                }
            }
            for filling in home.disk.fillings().await {
                if sizes.contains_key(&filling.draft) {
                    self.pin_chunk(filling.draft, &filling.digest, home);
                }
            }
        }
    }
}

impl Restore<'_> {
    /// Gives what has been found to the uploads that it is of; what is of none goes, once that is certain.
    fn adopt(&self, orphans: Vec<Orphan>, living: &mut HashMap<Owner, Living>) {
        let knows_all = self.view.knows_drafts(self.new);
        let mut left = Vec::new();
        for orphan in orphans {
            let Some(member) = self.member(&orphan.directory) else { continue };
            let known = self.shared.drafts.known.lock().get(&orphan.draft).cloned();
            if let Some(OpenDraft { home, opening }) = known {
                let upload = living.entry(orphan.draft).or_insert_with(|| Living::new(home, opening));
                self.add(orphan, member, upload);
            } else if knows_all {
                orphan.parts.names(orphan.draft).for_each(|name| member.disk.forget(&name));
            } else {
                left.push(orphan);
            }
        }
        *self.shared.drafts.orphans.lock() = left;
    }

    fn add(&self, Orphan { draft, parts, .. }: Orphan, member: &Member, upload: &mut Living) {
        upload.fragments.extend(parts.fragments(draft));
        if member.id == upload.home {
            for filling in parts.fillings(draft) {
                let number = filling.chunk / PAGE_DIGESTS;
                let page = upload.pages.iter().find(|page| page.number == number);
                // Whoever kept on using the draft has given up what this had held.
                if self.known.contains(&draft) && page.is_some_and(|page| filling.serial <= page.serial) {
                    member.disk.forget(&name::of_filling(draft, filling.chunk));
                    continue;
                }
                self.pin_chunk(draft, &filling.digest, member);
                upload.fillings.push(filling);
            }
        }
    }
}

impl Living {
    fn new(home: DirectoryId, opening: Opening) -> Self {
        Self { home, opening, pages: Vec::new(), fillings: Vec::new(), fragments: Vec::new() }
    }

    fn found(self) -> FoundUpload {
        let Self { opening, pages, fillings, fragments, .. } = self;
        FoundUpload { opening, pages, fillings, fragments }
    }
}

/// One more upload is open. Of a key the newest counts: that an older one could not be closed does not bring it back.
fn open(living: &mut HashMap<Owner, Living>, home: &Member, opening: Opening) {
    let owner = opening.owner();
    let other = living.keys().find(|other| other.key == owner.key).copied();
    if other.is_some_and(|other| other.version > owner.version) {
        return;
    }
    other.map(|other| living.remove(&other));
    living.insert(owner, Living::new(home.id, opening));
}
