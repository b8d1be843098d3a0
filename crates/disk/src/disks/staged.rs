//! Pages of unfinished values: what holds them and their chunks until the value is committed or given up.
//!
//! A page stands for the chunks that it lists: that those are held is a bit in an index, and by which names they are let go of
//! stands in the page. So an unfinished value takes a little memory a page here, and nothing a chunk. A page that is not full, the last
//! of its value, is short enough to be kept.
//!
//! # Invariants
//! - A page is held until its chunks are let go of.
//! - Dropping a page never waits: one task does the work, page after page.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::tier::{Lookup, PageRef, Refusal, Staged, StagedPage};
use elcache_core::tree::PAGE_SIZE;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::Shared;
use super::tier::is_chunk;
use super::view::Found;
use crate::disk::Disk;
use crate::index::entry::Name;
use crate::name;
use crate::pins::Pin;
use crate::tier::is_there;

/// Chunks that are let go of before others get their turn.
const YIELD_AFTER: usize = 256;
/// So often a page may turn out to be unreadable before it is given up.
const MISSES: u32 = 3;
/// How long to wait for a directory that has a page and does not serve.
const AGAIN: Duration = Duration::from_secs(1);

/// A page of an unfinished value that all of its chunks hang on.
struct Kept {
    shared: Arc<Shared>,
    /// What had been lost when its chunks were known to be there.
    losses: u64,
    /// Until it is dropped.
    page: Option<Page>,
}

/// A page, and what its chunks are let go of by.
struct Page {
    page: PageRef,
    _pin: Pin,
    /// What it lists, unless it is full.
    digests: Option<Bytes>,
    /// Where its chunks are held.
    disks: Vec<Arc<Disk>>,
    /// How often it was not to be read.
    misses: u32,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            self.shared.leaving_pages.push(page);
        }
    }
}

/// Pages to be let go of: at most as many as have been staged, each of which stands for gigabytes or is the last of its value.
#[derive(Default)]
pub(super) struct Leaving {
    pages: Mutex<Vec<Page>>,
    work: Notify,
}

impl Leaving {
    fn push(&self, page: Page) {
        self.pages.lock().push(page);
        self.work.notify_one();
    }

    fn take(&self) -> Vec<Page> {
        std::mem::take(&mut *self.pages.lock())
    }
}

/// Lets go of pages and their chunks, for as long as there are directories.
pub(super) async fn let_go(shared: Arc<Shared>) {
    let leaving = &shared.leaving_pages;
    loop {
        let pages = leaving.take();
        if pages.is_empty() {
            leaving.work.notified().await;
            continue;
        }
        let mut left = Vec::new();
        for page in pages {
            left.extend(shared.let_go_of_staged(page).await);
        }
        if !left.is_empty() {
            leaving.pages.lock().append(&mut left);
            sleep(AGAIN).await;
        }
    }
}

impl Shared {
    /// Writes a page where it belongs. From then on it stands for its chunks.
    pub(super) async fn stage_page(
        self: &Arc<Self>,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Result<StagedPage, Refusal> {
        let view = self.recovered().await?;
        let losses = self.losses();
        if !chunks.iter().all(is_there) {
            // One has turned out to be damaged, or its directory has gone.
            return Err(Refusal::Failed);
        }
        let home = view.home(&page.owner.key.0).ok_or(Refusal::Failed)?;
        let pin = home.disk.stage_page(&page, digests.clone()).await?;
        let mut disks: Vec<Arc<Disk>> = Vec::new();
        // What is there is a pin.
        for chunk in chunks.into_iter().filter_map(|chunk| chunk.hold.downcast::<Pin>().ok()) {
            if !disks.iter().any(|disk| Arc::ptr_eq(disk, chunk.disk())) {
                disks.push(Arc::clone(chunk.disk()));
            }
            chunk.leave();
        }
        let digests = Some(digests).filter(|digests| digests.len() < PAGE_SIZE);
        let kept = Kept {
            shared: Arc::clone(self),
            losses,
            page: Some(Page { page, _pin: pin, digests, disks, misses: 0 }),
        };
        Ok(StagedPage { page, hold: Box::new(kept) })
    }

    /// Whether nothing of these pages and their chunks has been lost since they were staged.
    pub(super) async fn still_kept(&self, pages: &[StagedPage]) -> Result<(), Refusal> {
        let view = self.recovered().await?;
        let losses = self.losses();
        let all_serve = view.members.iter().all(|member| member.serves());
        for staged in pages {
            let kept: &Kept = staged.hold.downcast_ref().ok_or(Refusal::Failed)?;
            let in_doubt = !all_serve || kept.losses != losses;
            if in_doubt && !self.is_whole(kept).await {
                return Err(Refusal::Failed);
            }
        }
        Ok(())
    }

    /// Rises when something that is held may not be there any more.
    pub(super) fn losses(&self) -> u64 {
        self.seats.iter().map(|seat| seat.counters.lost.load(Ordering::Acquire)).sum()
    }

    /// Looks for a page and all of its chunks.
    async fn is_whole(&self, kept: &Kept) -> bool {
        let Some(page) = &kept.page else { return false };
        let Lookup::Hit(digests) = self.read_page(&page.page).await else { return false };
        let view = self.view();
        names(&digests.to_contiguous()).iter().all(|name| matches!(view.find(name, is_chunk), Found::Here))
    }

    /// Lets go of a page and its chunks, or gives it back, to be tried again.
    async fn let_go_of_staged(&self, mut page: Page) -> Option<Page> {
        match self.chunks_of(&page).await {
            Lookup::Hit(names) => {
                self.release(&names, &page.disks).await;
                return None;
            }
            Lookup::Busy => {}
            Lookup::Miss => page.misses += 1,
        }
        if page.misses < MISSES {
            return Some(page);
        }
        let number = page.page.number;
        tracing::error!(
            number,
            "a page of an unfinished value is lost: its chunks stay until the next start"
        );
        None
    }

    async fn chunks_of(&self, page: &Page) -> Lookup<Vec<Name>> {
        match &page.digests {
            Some(digests) => Lookup::Hit(names(digests)),
            None => self.read_page(&page.page).await.map(|digests| names(&digests.to_contiguous())),
        }
    }

    /// Lets go of chunks that are held in these. Where one of them has gone, and its holds with it, what another has that came in its
    /// place is held for others.
    async fn release(&self, chunks: &[Name], disks: &[Arc<Disk>]) {
        for some in chunks.chunks(YIELD_AFTER) {
            let _staging = self.drafts.restoring.read().await;
            let view = self.view();
            let is_member =
                |disk: &Arc<Disk>| view.members.iter().any(|member| Arc::ptr_eq(&member.disk, disk));
            if disks.iter().all(is_member) {
                some.iter().for_each(|name| view.release(name));
            } else {
                let release = |name| disks.iter().any(|disk| disk.pins.release(&disk.index, name));
                some.iter().for_each(|name| _ = release(name));
            }
            yield_now().await;
        }
    }
}

/// The names of the chunks that a page lists.
fn names(digests: &[u8]) -> Vec<Name> {
    digests.as_chunks().0.iter().map(|digest| name::of_digest(&Digest(*digest))).collect()
}
