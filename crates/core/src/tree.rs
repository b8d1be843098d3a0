//! The hash tree: one BLAKE3 pass that yields chunk digests and the value's root hash.
//!
//! A chunk of 4 MiB is 4096 BLAKE3 chunks of 1 KiB and so a whole subtree: its digest is the subtree's chaining
//! value at its offset, and the value's hash is the merge of the chunks' digests. Source: the BLAKE3 paper,
//! section 2.1 (the tree is left-full), and `blake3::hazmat`.

use blake3::Hasher;
use blake3::hazmat::{self, HasherExt, Mode};

use crate::digest::Digest;

/// Bytes in every chunk of a value but the last.
pub const CHUNK_SIZE: u64 = 4 << 20;
/// Digests in one manifest page.
pub const PAGE_DIGESTS: u64 = 2048;
/// Bytes of a full manifest page.
pub const PAGE_SIZE: usize = PAGE_DIGESTS as usize * 32;

/// The number of chunks of a value of this size; an empty value has none.
pub const fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE)
}

/// The number of manifest pages of a value of this size. A value of at most one chunk is one record and has none.
pub const fn page_count(size: u64) -> u64 {
    if size <= CHUNK_SIZE { 0 } else { chunk_count(size).div_ceil(PAGE_DIGESTS) }
}

/// The length of chunk `number` of a value of `size` bytes; 0 behind the end.
pub const fn chunk_len(size: u64, number: u64) -> u64 {
    let start = number.saturating_mul(CHUNK_SIZE);
    let rest = size.saturating_sub(start);
    if rest < CHUNK_SIZE { rest } else { CHUNK_SIZE }
}

/// Bytes in the subtrees of a chunk whose chaining values are kept for proofs of ranges.
pub const SUBTREE_SIZE: usize = 64 << 10;

/// Hashes one chunk. Feed it at least 64 KiB at a time: small pieces run at a quarter of the speed.
#[derive(Clone)]
pub struct ChunkHasher {
    /// Where in the value the subtree begins that is being hashed.
    offset: u64,
    subtree: Hasher,
    /// The subtrees before it, which are full.
    full: Vec<Digest>,
}

impl ChunkHasher {
    /// A hasher for chunk `number` of a value.
    pub fn new(number: u64) -> Self {
        let offset = number * CHUNK_SIZE;
        Self { offset, subtree: subtree_at(offset), full: Vec::new() }
    }

    /// Takes the chunk's next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // A subtree is closed when a byte follows it: the last one stays open, full or not.
            let room = SUBTREE_SIZE - self.subtree.count() as usize;
            if room == 0 {
                self.full.push(Digest(self.subtree.finalize_non_root()));
                self.offset += SUBTREE_SIZE as u64;
                self.subtree = subtree_at(self.offset);
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.subtree.update(now);
            rest = later;
        }
    }

    /// The chunk's digest: its chaining value as a part of a larger value. `None` for a chunk without a byte,
    /// since there is no such chunk.
    pub fn chunk(&self) -> Option<Digest> {
        let last = (self.subtree.count() > 0).then(|| Digest(self.subtree.finalize_non_root()))?;
        self.merged(last).subtree()
    }

    /// The value's hash, for a value that has no second chunk. Right for chunk 0 only.
    pub fn root(&self) -> Digest {
        if self.full.is_empty() {
            return Digest(*self.subtree.finalize().as_bytes());
        }
        // INVARIANT: a full subtree is closed only when a byte follows it, so there are two or more.
        self.merged(Digest(self.subtree.finalize_non_root()))
            .root()
            .expect("two subtrees or more have a root")
    }

    /// The chaining values of its subtrees of 64 KiB, the last of which may be shorter; none for a chunk without a byte.
    pub fn subtrees(&self) -> Vec<Digest> {
        let last = (self.subtree.count() > 0).then(|| Digest(self.subtree.finalize_non_root()));
        self.full.iter().copied().chain(last).collect()
    }

    fn merged(&self, last: Digest) -> TreeHasher {
        let mut tree = TreeHasher::new();
        self.full.iter().for_each(|subtree| tree.push(*subtree));
        tree.push(last);
        tree
    }
}

fn subtree_at(offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// Merges the digests of subtrees of one size, in order: of chunks into the value's hash, of parts of a chunk into the
/// chunk's. The last one may be smaller. Holds at most one digest for each bit of the count.
///
/// The stack holds the roots of complete subtrees, largest first. A merge waits until a further digest proves
/// that it is not the last one, because the last merge is the root and is computed differently.
#[derive(Clone, Default)]
pub struct TreeHasher {
    stack: Vec<[u8; 32]>,
    count: u64,
}

impl TreeHasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk's digest.
    pub fn push(&mut self, chunk: Digest) {
        // Complete subtrees are the one bits of the count: what is on the stack beyond them is to be merged.
        while self.stack.len() > self.count.count_ones() as usize {
            self.merge_top();
        }
        self.stack.push(chunk.0);
        self.count += 1;
    }

    /// How many digests it has taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The value's hash. `None` for fewer than two chunks: such a value's hash comes from
    /// [`ChunkHasher::root`].
    pub fn root(mut self) -> Option<Digest> {
        if self.stack.len() < 2 {
            return None;
        }
        while self.stack.len() > 2 {
            self.merge_top();
        }
        let root = hazmat::merge_subtrees_root(&self.stack[0], &self.stack[1], Mode::Hash);
        Some(Digest(*root.as_bytes()))
    }

    /// What it has seen as a part of something larger: of one subtree itself. `None` when it has seen nothing.
    fn subtree(mut self) -> Option<Digest> {
        while self.stack.len() > 1 {
            self.merge_top();
        }
        self.stack.pop().map(Digest)
    }

    fn merge_top(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

/// The chaining value of a run of subtrees of one size, of which the last may be smaller, as a part of something larger:
/// of one subtree itself. `None` when there is none.
///
/// A full page lists a power of two of chunks, so it is a whole subtree: [`TreeHasher`] over the pages' merged digests comes
/// to the root of a value of two pages or more. The root of a value of one page comes from its digests: the last merge is
/// another one there.
pub fn merged(digests: impl IntoIterator<Item = Digest>) -> Option<Digest> {
    let mut tree = TreeHasher::new();
    digests.into_iter().for_each(|digest| tree.push(digest));
    tree.subtree()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The hash of a value as an upload computes it: chunk by chunk, then merged.
    fn tree_hash(value: &[u8]) -> Digest {
        let mut tree = TreeHasher::new();
        let mut first = ChunkHasher::new(0);
        for (number, chunk) in (0..).zip(value.chunks(CHUNK_SIZE as usize)) {
            let mut hasher = ChunkHasher::new(number);
            hasher.update(chunk);
            tree.push(hasher.chunk().unwrap());
            if number == 0 {
                first = hasher;
            }
        }
        tree.root().unwrap_or_else(|| first.root())
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
    }

    #[test]
    fn the_root_is_blake3_of_the_whole_around_every_chunk_border() {
        let chunk = CHUNK_SIZE as usize;
        let value = sample(9 * chunk + 1);
        let mut lens = vec![0, 1, 1023, 1024, 1025, 65_536];
        lens.extend((1..=9).flat_map(|n| [n * chunk - 1, n * chunk, n * chunk + 1]));
        for len in lens {
            let expected = Digest(*blake3::hash(&value[..len]).as_bytes());
            assert_eq!(tree_hash(&value[..len]), expected, "length {len}");
        }
    }

    /// The root as it comes from pages of `page` digests.
    fn root_of_pages(digests: &[Digest], page: usize) -> Option<Digest> {
        let mut tree = TreeHasher::new();
        if digests.len() <= page {
            digests.iter().for_each(|digest| tree.push(*digest));
        } else {
            digests.chunks(page).for_each(|page| tree.push(merged(page.iter().copied()).unwrap()));
        }
        tree.root()
    }

    /// Digests of a value's pieces of 1 KiB, BLAKE3's own leaves: they stand for chunks, of which a page has too many for a test.
    fn leaves(value: &[u8]) -> Vec<Digest> {
        let leaf = |(number, bytes): (u64, &[u8])| {
            let mut hasher = subtree_at(number * 1024);
            hasher.update(bytes);
            Digest(hasher.finalize_non_root())
        };
        (0..).zip(value.chunks(1024)).map(leaf).collect()
    }

    #[test]
    fn the_root_that_comes_from_full_pages_is_blake3_of_the_whole() {
        let page = PAGE_DIGESTS as usize;
        let value = sample(4 * page * 1024 + 1);
        let borders = (1..=4).flat_map(|pages| {
            let bytes = pages * page * 1024;
            [bytes - 1025, bytes - 1, bytes, bytes + 1, bytes + 1025]
        });
        for len in borders.chain([1025, 5000]).filter(|&len| len <= value.len()) {
            let expected = Digest(*blake3::hash(&value[..len]).as_bytes());
            assert_eq!(root_of_pages(&leaves(&value[..len]), page), Some(expected), "length {len}");
        }
    }

    #[test]
    fn what_is_merged_of_one_is_itself_and_of_none_nothing() {
        assert_eq!(merged([]), None);
        assert_eq!(merged([Digest([7; 32])]), Some(Digest([7; 32])));
    }

    #[test]
    fn merging_any_number_of_subtrees_agrees_with_a_recursive_definition() {
        /// The left subtree holds the largest power of two of chunks that leaves at least one for the right.
        fn subtree(cvs: &[[u8; 32]]) -> [u8; 32] {
            if let [cv] = cvs {
                return *cv;
            }
            let (left, right) = cvs.split_at(cvs.len().next_power_of_two() / 2);
            hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
        let cvs: Vec<[u8; 32]> = (0..70_u8).map(|n| *blake3::hash(&[n]).as_bytes()).collect();
        for count in 2..cvs.len() {
            let cvs = &cvs[..count];
            let (left, right) = cvs.split_at(cvs.len().next_power_of_two() / 2);
            let expected = hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash);
            let mut tree = TreeHasher::new();
            cvs.iter().for_each(|&cv| tree.push(Digest(cv)));
            assert_eq!(tree.root(), Some(Digest(*expected.as_bytes())), "{count} chunks");
        }
    }

    proptest! {
        #[test]
        fn pages_of_any_power_of_two_give_the_root_of_the_whole(len in 1025_usize..200_000, page in 0_u32..9) {
            let value = sample(len);
            let expected = Digest(*blake3::hash(&value).as_bytes());
            prop_assert_eq!(root_of_pages(&leaves(&value), 1 << page), Some(expected));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn pieces_of_any_length_give_the_same_chunk_digest(cuts in proptest::collection::vec(1_usize..200_000, 1..20)) {
            let chunk = sample(CHUNK_SIZE as usize);
            let mut whole = ChunkHasher::new(3);
            whole.update(&chunk);
            let mut pieces = ChunkHasher::new(3);
            let mut rest = &chunk[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.update(piece);
                rest = tail;
            }
            pieces.update(rest);
            prop_assert_eq!(whole.chunk(), pieces.chunk());
        }
    }

    #[test]
    fn a_chunk_put_together_of_subtrees_is_what_one_hasher_makes_of_it() {
        let chunk = sample(CHUNK_SIZE as usize);
        let part = SUBTREE_SIZE;
        for len in [1, part - 1, part, part + 1, 2 * part, 5 * part + 7, 63 * part + 1, 64 * part] {
            let (mut parts, mut one) = (ChunkHasher::new(2), subtree_at(2 * CHUNK_SIZE));
            parts.update(&chunk[..len]);
            one.update(&chunk[..len]);
            assert_eq!(parts.chunk(), Some(Digest(one.finalize_non_root())), "length {len}");
            assert_eq!(parts.subtrees().len(), len.div_ceil(part));
            let mut first = ChunkHasher::new(0);
            first.update(&chunk[..len]);
            assert_eq!(first.root(), Digest(*blake3::hash(&chunk[..len]).as_bytes()), "length {len}");
        }
    }

    #[test]
    fn equal_bytes_at_different_offsets_are_different_chunks() {
        let digest = |number| {
            let mut hasher = ChunkHasher::new(number);
            hasher.update(&[1; 1000]);
            hasher.chunk()
        };
        assert_ne!(digest(0), digest(1));
        assert_eq!(ChunkHasher::new(1).chunk(), None);
    }

    #[test]
    fn counts_of_chunks_and_pages() {
        assert_eq!((chunk_count(0), page_count(0)), (0, 0));
        assert_eq!((chunk_count(CHUNK_SIZE), page_count(CHUNK_SIZE)), (1, 0));
        assert_eq!((chunk_count(CHUNK_SIZE + 1), page_count(CHUNK_SIZE + 1)), (2, 1));
        assert_eq!(page_count(PAGE_DIGESTS * CHUNK_SIZE + 1), 2);
        assert_eq!(chunk_count(crate::MAX_VALUE_SIZE), 5 << 20);
        assert_eq!((chunk_len(CHUNK_SIZE + 1, 0), chunk_len(CHUNK_SIZE + 1, 1)), (CHUNK_SIZE, 1));
        assert_eq!(chunk_len(CHUNK_SIZE + 1, u64::MAX), 0);
    }
}
