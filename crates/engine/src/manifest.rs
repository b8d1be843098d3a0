//! The manifest of a value of more than one chunk: its chunks' digests, in pages of 64 KiB.

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::tree::{PAGE_DIGESTS, PAGE_SIZE};

/// Collects digests into pages.
#[derive(Default)]
pub(crate) struct PageBuilder {
    full: Vec<Bytes>,
    current: Vec<u8>,
}

impl PageBuilder {
    pub(crate) fn push(&mut self, digest: Digest) {
        self.current.extend_from_slice(&digest.0);
        if self.current.len() == PAGE_SIZE {
            self.full.push(std::mem::take(&mut self.current).into());
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if !self.current.is_empty() {
            self.full.push(self.current.into());
        }
        self.full
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
    use super::*;

    #[test]
    fn every_digest_is_found_again() {
        let digest = |number: u64| Digest(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let count = 2 * PAGE_DIGESTS + 3;
        let mut builder = PageBuilder::default();
        (0..count).for_each(|number| builder.push(digest(number)));
        let pages = builder.finish();
        assert_eq!(pages.iter().map(Bytes::len).collect::<Vec<_>>(), [PAGE_SIZE, PAGE_SIZE, 96]);
        for number in 0..count {
            let (page, place) = place_of(number);
            assert_eq!(digest_at(&pages[page as usize], place), Some(digest(number)));
        }
        assert_eq!(digest_at(&pages[2], 3), None);
    }
}
