//! Drafts: what was acknowledged of one is there until it has ended, whatever happens, and takes no room afterwards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::staging::{Filling, FoundUpload, Fragment, Gone, Opening, Staging};
use elcache_core::tier::{ChunkRef, Lookup, NewBody, Owner, PageRef, Refusal, Staged, Tier};
use elcache_core::tree::{CHUNK_SIZE, merged};
use elcache_core::value::{KeptHeaders, Metadata, Version};
use tokio::time::sleep;

use super::disks::Rack;
use super::support::{Dice, NOW_MS, World, key, same};
use crate::disks::Disks;

/// Chunks of drafts here are shorter than those of a value of that size: the tier does not mind.
const LEN: u32 = 100_000;

fn opening(name: &str, sequence: u64, size: u64) -> Opening {
    Opening {
        key: key(name),
        draft: Version { view: 2, sequence },
        size,
        touched_ms: NOW_MS + sequence,
        ttl_seconds: std::num::NonZeroU64::new(sequence % 3),
        flags: sequence as u32,
        no_memory: sequence.is_multiple_of(2),
        no_disk: false,
        no_cluster: sequence.is_multiple_of(3),
        operation: None,
        headers: KeptHeaders::default(),
    }
}

/// Bytes that a fragment or a chunk of this number has.
fn bytes(seed: u64, len: u32) -> Vec<u8> {
    Dice::new(seed).bytes(len as usize)
}

fn chunk(seed: u64, number: u64) -> ChunkRef {
    let digest = Digest(*blake3::hash(&bytes(seed, LEN)).as_bytes());
    ChunkRef { digest, number, len: LEN }
}

fn payload(bytes: Vec<u8>) -> elcache_core::payload::Payload {
    Bytes::from(bytes).into()
}

async fn stage(disks: &Disks, world: &World, seed: u64, number: u64) -> Result<Staged, Refusal> {
    let chunk = chunk(seed, number);
    disks.stage(chunk, world.arena.filled(&bytes(seed, LEN), number)).get().await
}

async fn fill(disks: &Disks, world: &World, draft: Owner, number: u64, serial: u64, seed: u64) -> Filling {
    let staged = stage(disks, world, seed, number).await.unwrap();
    let filling = Filling { draft, chunk: number, serial, digest: staged.chunk.digest };
    assert_eq!(Staging::fill(disks, filling, staged).get().await, Ok(()));
    filling
}

fn hit(what: &str, read: Lookup<elcache_core::payload::Payload>, expected: &[u8]) {
    let Lookup::Hit(read) = read else { panic!("{what}: {read:?}") };
    same(what, &read, expected).unwrap();
}

fn pinned(disks: &Disks) -> u64 {
    disks.pinned_bytes()
}

/// Restarts, as after a kill, and gives what is found.
async fn again(rack: &mut Rack, disks: Arc<Disks>) -> (Arc<Disks>, Vec<FoundUpload>) {
    rack.kill();
    drop(disks);
    let disks = rack.open().await;
    let mut found = disks.found().get().await.unwrap();
    found.sort_by_key(|found| found.opening.draft);
    for upload in &mut found {
        upload.pages.sort_by_key(|page| page.number);
        upload.fillings.sort_by_key(|filling| filling.chunk);
        upload.fragments.sort_by_key(|fragment| (fragment.chunk, fragment.serial));
    }
    (disks, found)
}

#[tokio::test(start_paused = true)]
async fn a_draft_is_kept_and_found_again_and_ends() {
    for count in [1, 3] {
        let mut rack = Rack::new(count);
        let disks = rack.open().await;
        let size = 3 * CHUNK_SIZE;
        let opening = opening("key", 5, size);
        let draft = opening.owner();
        assert_eq!(disks.open(&opening).get().await, Ok(()));
        // In the log, and as an extent.
        let short = Fragment { draft, chunk: 0, serial: 1, from: 10, to: 1010 };
        let long = Fragment { draft, chunk: 0, serial: 2, from: 5000, to: 300_000 };
        for fragment in [short, long] {
            let bytes = bytes(fragment.serial, fragment.to - fragment.from);
            assert_eq!(disks.write(fragment, payload(bytes)).get().await, Ok(()));
        }
        let fillings = [
            fill(&disks, &rack.world, draft, 1, 3, 31).await,
            fill(&disks, &rack.world, draft, 2, 4, 32).await,
        ];
        let expected = FoundUpload {
            opening: opening.clone(),
            pages: Vec::new(),
            fillings: fillings.into(),
            fragments: vec![short, long],
        };
        let mut disks = disks;
        for _ in 0..2 {
            let found;
            (disks, found) = again(&mut rack, disks).await;
            assert_eq!(found, [expected.clone()]);
            assert_eq!(disks.found().get().await, Ok(Vec::new()), "once told");
            let bytes_of = |fragment: Fragment| bytes(fragment.serial, fragment.to - fragment.from);
            hit("short", disks.read(&short, 110, 1000).get().await, &bytes_of(short)[100..990]);
            hit("long", disks.read(&long, 5001, 300_000).get().await, &bytes_of(long)[1..]);
            hit("chunk", disks.read_chunk(draft, &chunk(32, 2), 7, LEN).get().await, &bytes(32, LEN)[7..]);
            assert!(disks.has(draft, &Gone::Fragment(long)) && disks.has(draft, &Gone::Filling(1)));
            assert!(disks.has(draft, &Gone::Chunk(chunk(31, 1))) && disks.keeps(draft));
        }
        // A page takes over.
        let first = fill(&disks, &rack.world, draft, 0, 5, 30).await;
        let digests: Vec<Digest> = [first, fillings[0], fillings[1]].map(|filling| filling.digest).into();
        let page = PageRef { owner: draft, number: 0 };
        let page_bytes = Bytes::from(digests.iter().flat_map(|digest| digest.0).collect::<Vec<u8>>());
        assert_eq!(disks.put_page(page, size, 5, page_bytes.clone()).get().await, Ok(()));
        let mut gone = vec![Gone::Fragment(short), Gone::Fragment(long)];
        for (number, seed) in (0..3).zip(30..) {
            gone.extend([Gone::Filling(number), Gone::Chunk(chunk(seed, number))]);
        }
        disks.forget(draft, &gone);
        assert!(!disks.has(draft, &Gone::Fragment(long)) && !disks.has(draft, &Gone::Filling(1)));
        let chunks = pinned(&disks);
        assert!(chunks > 3 * u64::from(LEN));
        let (disks, found) = again(&mut rack, disks).await;
        let [found] = &found[..] else { panic!("{found:?}") };
        let of_page = &found.pages[..];
        assert!(of_page.len() == 1 && of_page[0].serial == 5 && of_page[0].lost.is_empty(), "{of_page:?}");
        assert_eq!(Some(of_page[0].merged), merged(digests));
        // What was forgotten may be found again, to be forgotten again.
        disks.forget(draft, &gone);
        assert_eq!(pinned(&disks), chunks);
        hit("page", disks.read_page(&page).get().await, &page_bytes);
        // It becomes a value.
        let meta = Metadata {
            draft: Some(opening.draft),
            ..Metadata::new(size, Digest([1; 32]), Version { view: 2, sequence: 9 }, NOW_MS)
        };
        assert_eq!(disks.commit(&opening.key, &meta, NewBody::Draft).get().await, Ok(()));
        assert_eq!(Staging::close(&*disks, &opening.key, opening.draft).get().await, Ok(()));
        disks.end(draft, size);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(pinned(&disks), 0);
        let (disks, found) = again(&mut rack, disks).await;
        assert_eq!(found, []);
        assert_eq!(pinned(&disks), 0);
        let Lookup::Hit(root) = disks.root(&opening.key).get().await else { panic!("no value") };
        assert_eq!(root.meta, meta);
        hit("page", Tier::page(&*disks, &page).get().await, &page_bytes);
        assert_eq!(disks.commit(&opening.key, &meta, NewBody::Draft).get().await, Err(Refusal::Failed));
    }
}

/// What holds for memory as well.
#[path = "../../../memory/tests/suite/staging.rs"]
mod suite;

async fn with_place(check: impl AsyncFn(&suite::Place<'_>)) {
    for count in [1, 3] {
        // Chunks are as long as they are for clients.
        let world = World::with(|config| config.segment_bytes = Some(16 << 20));
        let mut rack = Rack::of(world, count, 1);
        let disks = rack.open().await;
        let in_use = || disks.pinned_bytes();
        check(&suite::Place { tier: &*disks, buffers: &*rack.world.arena, in_use: &in_use }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn fragments_come_back() {
    with_place(suite::fragments_come_back).await;
}

#[tokio::test(start_paused = true)]
async fn chunks_stay_while_something_counts_on_them() {
    with_place(suite::chunks_stay_while_something_counts_on_them).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_comes_back() {
    with_place(suite::what_is_taken_comes_back).await;
}

#[tokio::test(start_paused = true)]
async fn a_draft_becomes_a_value() {
    with_place(suite::a_draft_becomes_a_value).await;
}
