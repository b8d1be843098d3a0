//! The manifest of a value of more than one chunk: its chunks' digests, in pages of 64 KiB.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::budget::{Budget, Taken};
use elcache_core::digest::Digest;
use elcache_core::tier::{Owner, PageRef, Refusal, Staged, StagedPage, Tier};
use elcache_core::tree::PAGE_DIGESTS;

/// Of a value's pages the first come into faster tiers with it, as many as this, and the last; the others when they are asked for.
const COPIED: u64 = 16;

/// The manifest of a value on its way in. Pages go to the value's home as they fill: here are the chunks of the one that is being
/// filled, about 150 bytes each, and about 250 bytes for each page before it. Next to the chunks in transit that is little.
pub(crate) struct Manifest {
    owner: Owner,
    chunks: Vec<Staged>,
    pages: Vec<StagedPage>,
    copies: Vec<PageCopy>,
    budget: Arc<Budget>,
}

/// A page on its way to faster tiers.
pub(crate) struct PageCopy {
    page: PageRef,
    digests: Bytes,
    _room: Taken,
}

impl Manifest {
    /// A manifest without chunks; what its pages will be addressed by.
    pub(crate) fn new(owner: Owner, budget: &Arc<Budget>) -> Self {
        let budget = Arc::clone(budget);
        Self { owner, chunks: Vec::new(), pages: Vec::new(), copies: Vec::new(), budget }
    }

    /// What its pages are addressed by.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Takes the next chunk. A page that is full then is staged.
    pub(crate) async fn push(&mut self, home: &dyn Tier, chunk: Staged) -> Result<(), Refusal> {
        self.chunks.push(chunk);
        if self.chunks.len() as u64 == PAGE_DIGESTS { self.stage_page(home).await } else { Ok(()) }
    }

    /// Stages the last page. All pages, and those that are to be copied.
    pub(crate) async fn finish(
        mut self,
        home: &dyn Tier,
    ) -> Result<(Vec<StagedPage>, Vec<PageCopy>), Refusal> {
        if !self.chunks.is_empty() {
            self.stage_page(home).await?;
        }
        Ok((self.pages, self.copies))
    }

    async fn stage_page(&mut self, home: &dyn Tier) -> Result<(), Refusal> {
        let page = PageRef { owner: self.owner, number: self.pages.len() as u64 };
        let chunks = std::mem::take(&mut self.chunks);
        let digests: Vec<u8> = chunks.iter().flat_map(|staged| staged.chunk.digest.0).collect();
        let digests = Bytes::from(digests);
        self.copies.pop_if(|last| last.page.number >= COPIED);
        // Without room for it, it comes when it is asked for.
        if let Some(room) = self.budget.take(digests.len() as u64) {
            self.copies.push(PageCopy { page, digests: digests.clone(), _room: room });
        }
        self.pages.push(home.stage_page(page, digests, chunks).get().await?);
        Ok(())
    }
}

impl PageCopy {
    pub(crate) fn keep_in(&self, tier: &dyn Tier) {
        tier.keep_page(&self.page, &self.digests);
    }
}

/// The page that lists chunk `number`, and the chunk's place in it.
pub(crate) fn place_of(number: u64) -> (u64, usize) {
    (number / PAGE_DIGESTS, (number % PAGE_DIGESTS) as usize)
}

/// The digest at a place of a page; `None` when the page is shorter.
pub(crate) fn digest_at(page: &[u8], place: usize) -> Option<Digest> {
    page.get(place * 32..)?.first_chunk().map(|bytes| Digest(*bytes))
}

#[cfg(test)]
mod tests {
    use elcache_core::clock::ManualClock;
    use elcache_core::key::KeyHash;
    use elcache_core::tier::ChunkRef;
    use elcache_core::tree::{CHUNK_SIZE, PAGE_SIZE};
    use elcache_core::value::Version;
    use elcache_memory::{MemoryConfig, MemoryTier};

    use super::*;

    fn digest(number: u64) -> Digest {
        Digest(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    /// The manifest of so many chunks, which nobody has. Of no more than a page of them anything is known here at any time.
    async fn list(count: u64) -> (Vec<StagedPage>, Vec<PageCopy>) {
        let budget = Budget::new(64 << 20);
        let clock = Arc::new(ManualClock::new(1));
        let home = MemoryTier::new(MemoryConfig::default(), &budget, clock, 1).unwrap();
        let owner = Owner { key: KeyHash([1; 16]), version: Version { view: 2, sequence: 3 } };
        let mut manifest = Manifest::new(owner, &budget);
        for number in 0..count {
            let chunk = ChunkRef { digest: digest(number), number, len: CHUNK_SIZE as u32 };
            manifest.push(&*home, Staged { chunk, hold: Box::new(()) }).await.unwrap();
            assert!(
                (manifest.chunks.len() as u64) < PAGE_DIGESTS && manifest.copies.len() as u64 <= COPIED + 1
            );
        }
        let (pages, copies) = manifest.finish(&*home).await.unwrap();
        let numbers: Vec<_> = pages.iter().map(|page| (page.page.owner, page.page.number)).collect();
        assert_eq!(
            numbers,
            (0..count.div_ceil(PAGE_DIGESTS)).map(|number| (owner, number)).collect::<Vec<_>>()
        );
        (pages, copies)
    }

    #[tokio::test]
    async fn every_digest_is_found_again() {
        let count = 2 * PAGE_DIGESTS + 3;
        let (_, pages) = list(count).await;
        assert_eq!(
            pages.iter().map(|page| page.digests.len()).collect::<Vec<_>>(),
            [PAGE_SIZE, PAGE_SIZE, 96]
        );
        for number in 0..count {
            let (page, place) = place_of(number);
            assert_eq!(digest_at(&pages[page as usize].digests, place), Some(digest(number)));
        }
        assert_eq!(digest_at(&pages[2].digests, 3), None);
    }

    #[tokio::test]
    async fn the_last_page_is_the_one_that_is_not_empty() {
        for (count, last) in [(2, 64), (PAGE_DIGESTS, PAGE_SIZE), (PAGE_DIGESTS + 1, 32)] {
            let (_, copies) = list(count).await;
            assert_eq!(copies.last().unwrap().digests.len(), last, "{count}");
        }
    }

    #[tokio::test]
    async fn of_a_very_large_value_the_first_pages_are_copied_and_the_last() {
        let (pages, copies) = list(20 * PAGE_DIGESTS + 1).await;
        assert_eq!(pages.len(), 21);
        let copied: Vec<_> = copies.iter().map(|copy| copy.page.number).collect();
        assert_eq!(copied, (0..COPIED).chain([20]).collect::<Vec<_>>());
    }
}
