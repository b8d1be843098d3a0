//! What holds for any tier that keeps drafts. Included by the tests of each of them.

use std::time::Duration;

use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Buffers, Filled, Payload};
use elcache_core::staging::{Filling, Fragment, Gone, Opening, Staging};
use elcache_core::tier::{Body, ChunkRef, Lookup, NewBody, Owner, PageRef, Refusal, Staged, Tier};
use elcache_core::tree::{self, CHUNK_SIZE, ChunkHasher, PAGE_DIGESTS};
use elcache_core::value::{KeptHeaders, Metadata, Version};

const NOW_MS: u64 = 1_000_000;

/// A tier, and what its drafts take of it.
pub(crate) struct Place<'a> {
    pub(crate) tier: &'a dyn Tier,
    pub(crate) buffers: &'a dyn Buffers,
    /// Bytes that are in use, of whatever kind.
    pub(crate) in_use: &'a (dyn Fn() -> u64 + Sync),
}

impl Place<'_> {
    /// Waits until so many bytes are in use: some of it is given back in the background.
    async fn settles(&self, bytes: u64, what: &str) {
        for _ in 0..2000 {
            if (self.in_use)() == bytes {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}: {} bytes are in use, not {bytes}", (self.in_use)());
    }
}

/// A draft of a value of some size.
pub(crate) struct Draft<'a> {
    place: &'a Place<'a>,
    pub(crate) staging: &'a dyn Staging,
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) size: u64,
}

/// Bytes that are recognized.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The name of a chunk that consists of these bytes.
pub(crate) fn chunk_of(number: u64, bytes: &[u8]) -> ChunkRef {
    ChunkRef { digest: hashed(number, bytes).chunk().unwrap(), number, len: bytes.len() as u32 }
}

fn hashed(number: u64, bytes: &[u8]) -> ChunkHasher {
    let mut hasher = ChunkHasher::new(number);
    hasher.update(bytes);
    hasher
}

pub(crate) fn payload(bytes: &[u8]) -> Payload {
    Payload::from(bytes::Bytes::copy_from_slice(bytes))
}

/// What fillings of these chunks hold.
pub(crate) fn fillings(chunks: &[ChunkRef]) -> Vec<Gone> {
    chunks.iter().flat_map(|chunk| [Gone::Filling(chunk.number), Gone::Chunk(*chunk)]).collect()
}

pub(crate) fn is_hit(found: Lookup<Payload>, expected: &[u8]) -> bool {
    matches!(found, Lookup::Hit(found) if found.to_contiguous() == expected)
}

impl<'a> Draft<'a> {
    pub(crate) async fn open(place: &'a Place<'a>, name: &str, sequence: u64, size: u64) -> Self {
        let key = Key::new(name.as_bytes().to_vec()).unwrap();
        let staging = place.tier.staging().expect("the tier keeps drafts");
        let draft = Self { place, staging, key, version: Version { view: 1, sequence }, size };
        staging.open(&draft.opening()).get().await.unwrap();
        draft
    }

    pub(crate) fn opening(&self) -> Opening {
        Opening {
            key: self.key.clone(),
            draft: self.version,
            size: self.size,
            touched_ms: NOW_MS,
            ttl_seconds: None,
            flags: 0,
            no_memory: false,
            no_disk: false,
            no_cluster: false,
            operation: None,
            headers: KeptHeaders::default(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { key: self.key.hash(), version: self.version }
    }

    pub(crate) fn fragment(&self, chunk: u64, serial: u64, from: u32, to: u32) -> Fragment {
        Fragment { draft: self.owner(), chunk, serial, from, to }
    }

    pub(crate) async fn write(&self, fragment: Fragment, bytes: &[u8]) {
        self.staging.write(fragment, payload(bytes)).get().await.unwrap();
    }

    pub(crate) async fn stage(&self, number: u64, bytes: &[u8]) -> Staged {
        let mut buffer = self.place.buffers.buffer(bytes.len()).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = buffer.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            buffer.advance(count);
            rest = &rest[count..];
        }
        let data = Filled::new(buffer, hashed(number, bytes).subtrees());
        self.place.tier.stage(chunk_of(number, bytes), data).get().await.unwrap()
    }

    pub(crate) async fn fill(&self, number: u64, serial: u64, bytes: &[u8]) -> ChunkRef {
        let staged = self.stage(number, bytes).await;
        let chunk = staged.chunk;
        let filling = Filling { draft: self.owner(), chunk: number, serial, digest: chunk.digest };
        self.staging.fill(filling, staged).get().await.unwrap();
        chunk
    }

    pub(crate) fn page(&self, number: u64) -> PageRef {
        PageRef { owner: self.owner(), number }
    }

    pub(crate) async fn put_page(
        &self,
        number: u64,
        serial: u64,
        chunks: &[ChunkRef],
    ) -> Result<(), Refusal> {
        let digests: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.digest.0).collect();
        self.staging.put_page(self.page(number), self.size, serial, digests.into()).get().await
    }

    pub(crate) async fn has_chunk(&self, chunk: &ChunkRef, bytes: &[u8]) -> bool {
        let found = self.staging.read_chunk(self.owner(), chunk, 0, chunk.len).get().await;
        let here = is_hit(found, bytes);
        assert_eq!(self.staging.has(self.owner(), &Gone::Chunk(*chunk)), here);
        here
    }

    pub(crate) fn forget(&self, what: &[Gone]) {
        self.staging.forget(self.owner(), what);
    }

    /// The upload is over: closes it and lets go of all that it has told of nobody else.
    pub(crate) async fn end(&self, what: &[Gone]) {
        self.staging.close(&self.key, self.version).get().await.unwrap();
        self.forget(what);
        let chunks =
            what.iter().filter_map(|gone| if let Gone::Chunk(chunk) = gone { Some(chunk) } else { None });
        self.forget(&chunks.map(|chunk| Gone::Filling(chunk.number)).collect::<Vec<_>>());
        self.staging.end(self.owner(), self.size);
    }

    pub(crate) fn meta(&self) -> Metadata {
        let committed = Version { sequence: self.version.sequence + 1, ..self.version };
        Metadata { draft: Some(self.version), ..Metadata::new(self.size, Digest([7; 32]), committed, NOW_MS) }
    }

    pub(crate) async fn commit(&self) -> Result<(), Refusal> {
        self.place.tier.commit(&self.key, &self.meta(), NewBody::Draft).get().await
    }

    /// Whether the value is there as a whole, of these chunks.
    pub(crate) async fn is_committed(&self, chunks: &[(ChunkRef, Vec<u8>)]) -> bool {
        let tier = self.place.tier;
        let Lookup::Hit(root) = tier.root(&self.key).get().await else { return false };
        let owner = root.meta.owner(self.key.hash());
        let mut whole = matches!(root.body, Body::Chunks(_)) && root.meta.size == self.size;
        for (page, chunks) in (0..).zip(chunks.chunks(PAGE_DIGESTS as usize)) {
            let digests: Vec<u8> = chunks.iter().flat_map(|(chunk, _)| chunk.digest.0).collect();
            whole &= is_hit(tier.page(&PageRef { owner, number: page }).get().await, &digests);
            for (chunk, bytes) in chunks {
                let found = tier.chunk(chunk, 0, chunk.len).get().await;
                whole &= is_hit(found.map(|part| part.bytes), bytes);
            }
        }
        whole
    }
}

/// Fragments of all lengths come back, whole and in parts, also those that overlap, until they are forgotten.
pub(crate) async fn fragments_come_back(place: &Place<'_>) {
    let draft = Draft::open(place, "fragments", 1, 3 * CHUNK_SIZE).await;
    let spans =
        [(0, 1), (0, 100), (7, 2047), (1, 2049), (4000, 70_001), (0, CHUNK_SIZE as u32 - 1), (9, 12_000)];
    let mut written = Vec::new();
    for (serial, (from, to)) in (1..).zip(spans) {
        let fragment = draft.fragment(serial % 3, serial, from, to);
        let data = bytes(serial, (to - from) as usize);
        draft.write(fragment, &data).await;
        written.push((fragment, data));
    }
    for (fragment, data) in &written {
        let Fragment { from, to, .. } = *fragment;
        let (third, half) = (from + (to - from) / 3, from + (to - from) / 2);
        for (from, to) in [(from, to), (third, to), (from, half), (third, half)] {
            let expected = &data[(from - fragment.from) as usize..(to - fragment.from) as usize];
            let found = draft.staging.read(fragment, from, to).get().await;
            assert!(is_hit(found, expected), "{from}..{to} of {fragment:?}");
        }
    }
    let (gone, kept) = written.split_at(3);
    draft.forget(&gone.iter().map(|(fragment, _)| Gone::Fragment(*fragment)).collect::<Vec<_>>());
    for (fragment, _) in gone {
        assert!(!draft.staging.has(draft.owner(), &Gone::Fragment(*fragment)));
        assert!(matches!(draft.staging.read(fragment, fragment.from, fragment.to).get().await, Lookup::Miss));
    }
    for (fragment, data) in kept {
        assert!(draft.staging.has(draft.owner(), &Gone::Fragment(*fragment)));
        assert!(is_hit(draft.staging.read(fragment, fragment.from, fragment.to).get().await, data));
    }
    draft.end(&kept.iter().map(|(fragment, _)| Gone::Fragment(*fragment)).collect::<Vec<_>>()).await;
}

/// A chunk stays as long as a filling or a page counts on it, and no longer for the draft.
pub(crate) async fn chunks_stay_while_something_counts_on_them(place: &Place<'_>) {
    let start = (place.in_use)();
    let draft = Draft::open(place, "holds", 11, 2 * CHUNK_SIZE + 5000).await;
    let datas = [bytes(1, CHUNK_SIZE as usize), bytes(2, CHUNK_SIZE as usize), bytes(3, 5000)];
    let mut chunks = Vec::new();
    for (number, data) in (0..).zip(&datas) {
        chunks.push(draft.fill(number, number + 1, data).await);
    }
    let other = bytes(4, 5000);
    let missing = chunk_of(2, &other);
    assert_eq!(draft.put_page(0, 3, &[chunks[0], chunks[1], missing]).await, Err(Refusal::Failed));
    draft.put_page(0, 3, &chunks).await.unwrap();
    let page: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.digest.0).collect();
    assert!(is_hit(draft.staging.read_page(&draft.page(0)).get().await, &page));
    // The page has them all: the fillings need not.
    for chunk in &chunks {
        draft.forget(&[Gone::Filling(chunk.number), Gone::Chunk(*chunk)]);
        assert!(!draft.staging.has(draft.owner(), &Gone::Filling(chunk.number)));
    }
    for (chunk, data) in chunks.iter().zip(&datas) {
        assert!(draft.has_chunk(chunk, data).await, "chunk {}", chunk.number);
    }
    let of_page = (place.in_use)();
    // The last one is replaced twice, with the same bytes: each filling holds them.
    let newer = draft.fill(2, 4, &other).await;
    assert_eq!(draft.fill(2, 5, &other).await, newer);
    draft.forget(&[Gone::Chunk(newer)]);
    assert!(draft.has_chunk(&newer, &other).await && draft.has_chunk(&chunks[2], &datas[2]).await);
    assert!(draft.staging.has(draft.owner(), &Gone::Filling(2)));
    let replaced = std::mem::replace(&mut chunks[2], newer);
    assert_ne!(replaced, newer);
    draft.put_page(0, 5, &chunks).await.unwrap();
    draft.forget(&[Gone::Filling(2), Gone::Chunk(newer)]);
    place.settles(of_page, "no page names the older one any more, and no filling").await;
    assert!(draft.has_chunk(&newer, &other).await);
    draft.end(&[]).await;
    place.settles(start, "nothing is left").await;
}

/// What a draft takes is no more than is said, and all of it comes back: what is forgotten at once, the rest at the end.
pub(crate) async fn what_is_taken_comes_back(place: &Place<'_>) {
    let start = (place.in_use)();
    let draft = Draft::open(place, "room", 21, 3 * CHUNK_SIZE).await;
    let opened = (place.in_use)();
    let lens = [1_u32, 100, 2047, 2048, 4096, 4097, 65_536, 100_001, 1 << 20];
    let mut fragments = Vec::new();
    for (serial, len) in (1..).zip(lens) {
        let before = (place.in_use)();
        let fragment = draft.fragment(1, serial, 10, 10 + len);
        draft.write(fragment, &bytes(serial, len as usize)).await;
        fragments.push(Gone::Fragment(fragment));
        let taken = (place.in_use)() - before;
        let said = draft.staging.footprint(len);
        assert!(u64::from(len) <= taken && taken <= said, "{len} bytes took {taken}, not at most {said}");
    }
    draft.forget(&fragments[..5]);
    draft.forget(&fragments[..5]);
    draft.forget(&fragments[5..]);
    place.settles(opened, "fragments that are forgotten are given back").await;
    let (mut chunks, mut filled) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let before = (place.in_use)();
        filled.push(before);
        chunks.push(draft.fill(number, 20, &bytes(number, CHUNK_SIZE as usize)).await);
        let (taken, said) = ((place.in_use)() - before, draft.staging.footprint(CHUNK_SIZE as u32));
        assert!(CHUNK_SIZE <= taken && taken <= said, "a chunk took {taken}, not at most {said}");
    }
    draft.forget(&[Gone::Filling(2), Gone::Chunk(chunks[2])]);
    draft.forget(&[Gone::Chunk(chunks[2])]);
    place.settles(filled[2], "one chunk of three was given up").await;
    chunks[2] = draft.fill(2, 21, &bytes(9, CHUNK_SIZE as usize)).await;
    draft.put_page(0, 21, &chunks).await.unwrap();
    draft.put_page(0, 21, &chunks).await.unwrap();
    draft.end(&fillings(&chunks)).await;
    place.settles(start, "nothing is left of a draft that has ended").await;
}

/// A draft that is whole becomes a value at once, also where chunks are equal, and the value outlives the draft.
pub(crate) async fn a_draft_becomes_a_value(place: &Place<'_>) {
    let start = (place.in_use)();
    let size = 4 * CHUNK_SIZE + 70_000;
    let draft = Draft::open(place, "commit", 31, size).await;
    let mut chunks = Vec::new();
    for number in 0..tree::chunk_count(size) {
        let data = bytes(number % 3, tree::chunk_len(size, number) as usize);
        chunks.push((draft.fill(number, 1, &data).await, data));
    }
    let listed: Vec<_> = chunks.iter().map(|(chunk, _)| *chunk).collect();
    draft.put_page(0, 1, &listed).await.unwrap();
    assert!(
        matches!(place.tier.root(&draft.key).get().await, Lookup::Miss),
        "nobody sees it before the commit"
    );
    draft.commit().await.unwrap();
    assert!(draft.is_committed(&chunks).await);
    draft.end(&fillings(&listed)).await;
    let value = (place.in_use)();
    assert!(draft.is_committed(&chunks).await, "the value stays when the draft ends");
    assert!(value > start);
    assert!(place.tier.remove(&draft.key).get().await.unwrap());
    assert!(matches!(place.tier.root(&draft.key).get().await, Lookup::Miss));
}
