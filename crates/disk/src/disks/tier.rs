//! The directories as the coordinator sees them: one tier.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::staging::Staging;
use elcache_core::tier::{
    ChunkRef, DirectoryUsage, Evicted, Hold, Leaving, Lookup, NewBody, PageRef, Part, Presence, Refusal,
    Reply, Root, Staged, StagedPage, Tier, TierName, Usage,
};
use elcache_core::value::{Metadata, Version};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::view::{Doubt, Found, Member, View};
use super::{Disks, Shared};
use crate::disk::{Disk, NotYet, is_value};
use crate::format::record::Kind;
use crate::index::entry::{Entry, Kind as Known, Name};
use crate::name;
use crate::tier::{PROMISE, largest_promise};

impl Shared {
    /// Waits until a name is found or cannot be: the directories as they are then.
    async fn search(&self, name: &Name, is: fn(&Entry) -> bool) -> Result<Arc<View>, NotYet> {
        let mut progress = self.progress.subscribe();
        let search = async {
            loop {
                progress.borrow_and_update();
                let view = self.view();
                match view.find(name, is) {
                    Found::NotYet => progress.changed().await.map_err(|_| NotYet)?,
                    Found::Held => return Err(NotYet),
                    Found::Here | Found::Nowhere => return Ok(view),
                }
            }
        };
        timeout(self.patience, search).await.unwrap_or(Err(NotYet))
    }

    /// Reads what is under a name from a directory that has it.
    pub(super) async fn read<T, F: Future<Output = Lookup<T>>>(
        &self,
        name: Name,
        is: fn(&Entry) -> bool,
        read: impl Fn(Arc<Disk>) -> F,
    ) -> Lookup<T> {
        let view = self.view();
        if let [only] = &view.members[..]
            && only.serves()
        {
            // It waits for its own recovery.
            return match read(Arc::clone(&only.disk)).await {
                Lookup::Miss if view.is_held(&name) => Lookup::Busy,
                answer => answer,
            };
        }
        let Ok(view) = self.search(&name, is).await else { return Lookup::Busy };
        let mut missed = Lookup::Miss;
        for member in view.holders(&name, is) {
            match read(Arc::clone(&member.disk)).await {
                Lookup::Hit(found) => return Lookup::Hit(found),
                Lookup::Miss => {}
                Lookup::Busy => missed = Lookup::Busy,
            }
        }
        // One that has stopped serving meanwhile has it still.
        if view.is_held(&name) { Lookup::Busy } else { missed }
    }

    /// Which of these names are here; waits until it is known of all of them.
    async fn presences(&self, names: &[Name], is: fn(&Entry) -> bool) -> Lookup<Vec<Presence>> {
        let mut progress = self.progress.subscribe();
        let search = async {
            loop {
                progress.borrow_and_update();
                if let Some(presences) = self.view().presences(names, is) {
                    return Lookup::Hit(presences);
                }
                if progress.changed().await.is_err() {
                    return Lookup::Busy;
                }
            }
        };
        timeout(self.patience, search).await.unwrap_or(Lookup::Busy)
    }

    pub(super) async fn read_page(&self, page: &PageRef) -> Lookup<Payload> {
        let name = name::of_record(Kind::Page, &page.to_bytes());
        let read = |disk: Arc<Disk>| async move { disk.find_page(page).await };
        self.read(name, is_page, read).await
    }

    /// Waits until all that serve have found everything: the directories then.
    pub(super) async fn recovered(&self) -> Result<Arc<View>, Refusal> {
        let view = self.view();
        if !view.knows_all() {
            return Err(Refusal::Failed);
        }
        let recovered = async {
            for member in view.serving().filter(|member| member.is_recovering()) {
                member.disk.recovered().await?;
            }
            Ok(())
        };
        match timeout(self.patience, recovered).await {
            Ok(Ok(())) => Ok(view),
            Ok(Err(NotYet)) | Err(_) => Err(Refusal::Full),
        }
    }

    /// Takes a key out of all directories but the one where it belongs, which is given back. What comes to be there is then the only
    /// one, whatever happens.
    async fn clear(&self, key: &Key) -> Result<Arc<Member>, Refusal> {
        let name = name::of_key(key);
        let view = self.recovered().await?;
        if view.is_held(&name) {
            return Err(Refusal::Failed);
        }
        let home = Arc::clone(view.home(&name).ok_or(Refusal::Failed)?);
        for other in view.serving().filter(|other| !Arc::ptr_eq(other, &home)) {
            other.disk.delete(key).await?;
        }
        Ok(home)
    }

    async fn commit(&self, key: &Key, meta: &Metadata, body: NewBody<'_>) -> Result<(), Refusal> {
        if let NewBody::Pages(pages) = &body {
            self.still_kept(pages).await?;
        }
        if matches!(body, NewBody::Draft) && !self.has_all_pages(meta.owner(key.hash()), meta.size) {
            return Err(Refusal::Failed);
        }
        let home = self.clear(key).await?;
        let mut doubt = Doubt { member: &home, name: name::of_key(key), is_written: false };
        let committed = home.disk.commit_value(key, meta, body).await;
        doubt.is_written = committed.is_ok();
        committed
    }

    async fn remove(&self, key: &Key) -> Result<bool, Refusal> {
        let view = self.recovered().await?;
        if view.is_held(&name::of_key(key)) {
            return Err(Refusal::Failed);
        }
        let mut removed = false;
        for member in view.serving() {
            removed |= member.disk.delete(key).await?;
        }
        Ok(removed)
    }

    /// Writes a chunk where it belongs; where uploads have taken up all of that, where the name would belong without it.
    async fn stage(&self, chunk: ChunkRef, data: Filled) -> Result<Staged, Refusal> {
        let view = self.recovered().await?;
        let name = name::of_chunk(&chunk);
        let len = data.len() as u64;
        let home = view.home_among(&name, |member| has_room(member, len)).or_else(|| view.home(&name));
        home.ok_or(Refusal::Failed)?.disk.stage_chunk(chunk, data).await
    }

    async fn demote(&self, evicted: Evicted) -> Result<(), Refusal> {
        let key = match &evicted {
            Evicted::Value(key, ..) | Evicted::Root(key, _) => key.clone(),
            Evicted::Page(PageRef { owner, .. }, _) => {
                let belongs_by = owner.key.0;
                return self.keep(&belongs_by, evicted).await;
            }
            Evicted::Chunk(chunk, _) => {
                let belongs_by = name::of_chunk(chunk);
                return self.keep(&belongs_by, evicted).await;
            }
        };
        let home = self.clear(&key).await?;
        let mut doubt = Doubt { member: &home, name: name::of_key(&key), is_written: false };
        let taken = home.disk.take_evicted(evicted).await;
        doubt.is_written = taken.is_ok();
        taken
    }

    /// Writes what never changes.
    async fn keep(&self, belongs_by: &Name, evicted: Evicted) -> Result<(), Refusal> {
        let view = self.recovered().await?;
        let home = view.home(belongs_by).ok_or(Refusal::Failed)?;
        home.disk.take_evicted(evicted).await
    }

    /// What uploads may be promised by those that serve.
    fn largest_promise(&self) -> u64 {
        self.view().serving().map(|member| largest_promise(&member.disk.config)).sum()
    }

    async fn promise(&self, bytes: u64) -> Result<Hold, Refusal> {
        if bytes > self.largest_promise() {
            return Err(if self.takes_values() { Refusal::TooLarge } else { Refusal::Failed });
        }
        let permits = (bytes / PROMISE).min(Semaphore::MAX_PERMITS as u64) as u32;
        let promise = Arc::clone(&self.room).acquire_many_owned(permits);
        tokio::select! {
            biased;
            promise = promise => promise.map(|promise| Box::new(promise) as Hold).map_err(|_| Refusal::Failed),
            () = self.nobody_serves() => Err(Refusal::Failed),
        }
    }

    async fn nobody_serves(&self) {
        let mut progress = self.progress.subscribe();
        while self.takes_values() && progress.changed().await.is_ok() {}
    }

    fn takes_values(&self) -> bool {
        self.view().serving().next().is_some()
    }
}

/// Whether uploads have left room for so much of theirs in a directory.
pub(super) fn has_room(member: &Member, len: u64) -> bool {
    member.disk.index.total().pinned + len <= largest_promise(&member.disk.config)
}

pub(super) fn is_page(entry: &Entry) -> bool {
    entry.kind == Known::Page
}

pub(super) fn is_chunk(entry: &Entry) -> bool {
    entry.kind == Known::Chunk
}

impl Tier for Disks {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn takes_values(&self) -> bool {
        self.shared.takes_values()
    }

    fn is_overused(&self) -> bool {
        self.shared.pace.in_debt()
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        let view = self.shared.view();
        let highest = |view: &View| view.members.iter().map(|member| member.disk.highest()).max();
        if view.knows_all() && !view.serving().any(|member| member.is_recovering()) {
            return Reply::Ready(Ok(highest(&view).unwrap_or_default()));
        }
        Reply::Later(Box::pin(async move {
            let view = self.shared.recovered().await?;
            Ok(highest(&view).unwrap_or_default())
        }))
    }

    fn root(&self, key: &Key) -> Reply<'_, Lookup<Root>> {
        let name = name::of_key(key);
        match self.shared.view().find(&name, is_value) {
            Found::Nowhere => Reply::Ready(Lookup::Miss),
            Found::Held => Reply::Ready(Lookup::Busy),
            Found::Here | Found::NotYet => {
                let key = key.clone();
                Reply::Later(Box::pin(async move {
                    let read = |disk: Arc<Disk>| {
                        let key = &key;
                        async move { disk.find_root(key).await }
                    };
                    self.shared.read(name, is_value, read).await
                }))
            }
        }
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        let page = *page;
        Reply::Later(Box::pin(async move { self.shared.read_page(&page).await }))
    }

    fn chunk(&self, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Part>> {
        let chunk = *chunk;
        let read = move |disk: Arc<Disk>| async move { disk.read_chunk(&chunk, from, to).await };
        Reply::Later(Box::pin(self.shared.read(name::of_chunk(&chunk), is_chunk, read)))
    }

    fn chunk_whole(&self, chunk: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        let chunk = *chunk;
        let read = move |disk: Arc<Disk>| async move { disk.read_chunk_whole(&chunk).await };
        Reply::Later(Box::pin(self.shared.read(name::of_chunk(&chunk), is_chunk, read)))
    }

    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool> {
        let name = name::of_chunk(chunk);
        match self.shared.view().find(&name, is_chunk) {
            Found::Here => Reply::Ready(true),
            Found::Nowhere | Found::Held => Reply::Ready(false),
            Found::NotYet => Reply::Later(Box::pin(async move {
                let found = self.shared.search(&name, is_chunk).await;
                found.is_ok_and(|view| matches!(view.find(&name, is_chunk), Found::Here))
            })),
        }
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        let names: Vec<_> = chunks.iter().map(name::of_chunk).collect();
        match self.shared.view().presences(&names, is_chunk) {
            Some(presences) => Reply::Ready(Lookup::Hit(presences)),
            None => Reply::Later(Box::pin(async move { self.shared.presences(&names, is_chunk).await })),
        }
    }

    fn shrunk(&self) -> u64 {
        self.shared.shrunk()
    }

    fn admit(&self, bytes: u64) -> Reply<'_, Result<Hold, Refusal>> {
        Reply::Later(Box::pin(self.shared.promise(bytes)))
    }

    fn largest_admission(&self) -> u64 {
        self.shared.largest_promise()
    }

    fn stage(&self, chunk: ChunkRef, data: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        Reply::Later(Box::pin(self.shared.stage(chunk, data)))
    }

    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>> {
        Reply::Later(Box::pin(self.shared.stage_page(page, digests, chunks)))
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.commit(key, meta, body)))
    }

    fn remove<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        Reply::Later(Box::pin(self.shared.remove(key)))
    }

    /// There is no slower tier that would give it chunks.
    fn keep_chunk(&self, _: &ChunkRef, _: Filled) -> Option<Payload> {
        None
    }

    fn keep_page(&self, _: &PageRef, _: &[u8]) {}

    fn lacks(&self, leaving: Leaving<'_>) -> bool {
        let name = name::of_leaving(leaving);
        let view = self.shared.view();
        let found = view.find(&name, |entry| entry.kind != Known::Dead);
        matches!(found, Found::Nowhere) && view.serving().next().is_some()
    }

    fn demote(&self, evicted: Evicted) -> Reply<'_, Result<(), Refusal>> {
        Reply::Later(Box::pin(self.shared.demote(evicted)))
    }

    fn staging(&self) -> Option<&dyn Staging> {
        Some(self)
    }

    fn usage(&self) -> Usage {
        self.shared.usage()
    }

    fn directories(&self) -> Vec<DirectoryUsage> {
        self.shared.directories()
    }
}
