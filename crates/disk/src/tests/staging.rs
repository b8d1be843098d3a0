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

use super::disks::{LATER, Rack, SOON, in_service, until};
use super::support::{Dice, NOW_MS, Shape, Value, World, key, same};
use crate::disks::Disks;
use crate::io::sim::{Faults, Sim};

#[path = "../../../memory/tests/suite/staging.rs"]
mod suite;

/// Chunks of drafts here are shorter than those of a value of that size: the tier does not mind.
const LEN: u32 = 100_000;

pub(super) fn opening(name: &str, sequence: u64, size: u64) -> Opening {
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
pub(super) fn bytes(seed: u64, len: u32) -> Vec<u8> {
    Dice::new(seed).bytes(len as usize)
}

pub(super) fn chunk(seed: u64, number: u64) -> ChunkRef {
    let digest = Digest(*blake3::hash(&bytes(seed, LEN)).as_bytes());
    ChunkRef { digest, number, len: LEN }
}

pub(super) fn payload(bytes: Vec<u8>) -> elcache_core::payload::Payload {
    Bytes::from(bytes).into()
}

pub(super) async fn stage(disks: &Disks, world: &World, seed: u64, number: u64) -> Result<Staged, Refusal> {
    let chunk = chunk(seed, number);
    disks.stage(chunk, world.arena.filled(&bytes(seed, LEN), number)).get().await
}

async fn fill(disks: &Disks, world: &World, draft: Owner, number: u64, serial: u64, seed: u64) -> Filling {
    let staged = stage(disks, world, seed, number).await.unwrap();
    let filling = Filling { draft, chunk: number, serial, digest: staged.chunk.digest };
    assert_eq!(Staging::fill(disks, filling, staged).get().await, Ok(()));
    filling
}

pub(super) fn hit(what: &str, read: Lookup<elcache_core::payload::Payload>, expected: &[u8]) {
    let Lookup::Hit(read) = read else { panic!("{what}: {read:?}") };
    same(what, &read, expected).unwrap();
}

pub(super) fn pinned(disks: &Disks) -> u64 {
    disks.usage().staged_bytes
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
            assert_eq!(found, std::slice::from_ref(&expected));
            assert_eq!(disks.found().get().await, Ok(Vec::new()), "once told");
            let bytes_of = |fragment: Fragment| bytes(fragment.serial, fragment.to - fragment.from);
            hit("short", disks.read(&short, 110, 1000).get().await, &bytes_of(short)[100..990]);
            hit("long", disks.read(&long, 5001, 300_000).get().await, &bytes_of(long)[1..]);
            hit("chunk", disks.read_chunk(draft, &chunk(32, 2), 7, LEN).get().await, &bytes(32, LEN)[7..]);
            assert!(disks.has(draft, &Gone::Fragment(long)) && disks.has(draft, &Gone::Filling(1)));
            assert!(disks.has(draft, &Gone::Chunk(chunk(31, 1))) && disks.keeps(draft));
        }
        let disks = a_page_takes_over(&mut rack, disks, &opening, [short, long], fillings).await;
        it_becomes_a_value(&mut rack, disks, &opening).await;
    }
}

/// Its chunks are in a page, and everything else is forgotten.
async fn a_page_takes_over(
    rack: &mut Rack,
    disks: Arc<Disks>,
    opening: &Opening,
    [short, long]: [Fragment; 2],
    fillings: [Filling; 2],
) -> Arc<Disks> {
    let (draft, size) = (opening.owner(), opening.size);
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
    let (disks, found) = again(rack, disks).await;
    let [found] = &found[..] else { panic!("{found:?}") };
    let of_page = &found.pages[..];
    assert!(of_page.len() == 1 && of_page[0].serial == 5 && of_page[0].lost.is_empty(), "{of_page:?}");
    assert_eq!(Some(of_page[0].merged), merged(digests));
    // What was forgotten may be found again, to be forgotten again.
    disks.forget(draft, &gone);
    assert_eq!(pinned(&disks), chunks);
    hit("page", disks.read_page(&page).get().await, &page_bytes);
    disks
}

async fn it_becomes_a_value(rack: &mut Rack, disks: Arc<Disks>, opening: &Opening) {
    let (draft, size) = (opening.owner(), opening.size);
    let page = PageRef { owner: draft, number: 0 };
    let meta = Metadata {
        draft: Some(opening.draft),
        ..Metadata::new(size, Digest([1; 32]), Version { view: 2, sequence: 9 }, NOW_MS)
    };
    assert_eq!(disks.commit(&opening.key, &meta, NewBody::Draft).get().await, Ok(()));
    assert_eq!(Staging::close(&*disks, &opening.key, opening.draft).get().await, Ok(()));
    disks.end(draft, size);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pinned(&disks), 0);
    let (disks, found) = again(rack, disks).await;
    assert_eq!(found, []);
    assert_eq!(pinned(&disks), 0);
    let Lookup::Hit(root) = disks.root(&opening.key).get().await else { panic!("no value") };
    assert_eq!(root.meta, meta);
    assert!(matches!(Tier::page(&*disks, &page).get().await, Lookup::Hit(_)));
    assert_eq!(disks.commit(&opening.key, &meta, NewBody::Draft).get().await, Err(Refusal::Failed));
}

/// A small disk, and values that take all of its room again and again.
fn little_room(count: usize) -> Rack {
    let mut world = World::new();
    world.config.max_bytes = 12 << 20;
    (world.config.high_watermark, world.config.low_watermark) = (0.9, 0.8);
    Rack::of(world, count, 7)
}

async fn put_values(rack: &Rack, disks: &Arc<Disks>, bytes: u64, sequence: &mut u64) {
    let end = *sequence + bytes / 60_000;
    while *sequence < end {
        *sequence += 1;
        let value = Value::new(&key(&format!("value {sequence}")), *sequence, Shape::Filled(60_000));
        assert_eq!(value.put(disks, &rack.world.arena).await, Ok(()), "value {sequence}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Once, after a kill at the wrong moment, the room that is kept for reclaiming was full of copies. What an upload counted on found no
/// place then, so that nothing could be freed and nothing written, for ever.
#[tokio::test(start_paused = true)]
async fn reclaiming_goes_round_under_a_draft_and_kills_do_not_stop_it() {
    let mut rack = little_room(1);
    let mut disks = rack.open().await;
    let opening = opening("key", 5, 8 * CHUNK_SIZE);
    let draft = opening.owner();
    disks.open(&opening).get().await.unwrap();
    let mut fragments = Vec::new();
    for serial in 1..=100 {
        let to = 100 + if serial % 4 == 0 { 60_000 } else { 3000 };
        let fragment = Fragment { draft, chunk: serial % 8, serial, from: 100, to };
        disks.write(fragment, payload(bytes(serial, to - 100))).get().await.unwrap();
        fragments.push(fragment);
    }
    for number in 0..8 {
        fill(&disks, &rack.world, draft, number, 200, number).await;
    }
    let (taken, mut sequence) = (pinned(&disks), 1000);
    for round in 0..25 {
        put_values(&rack, &disks, 600_000 + 37_000 * round, &mut sequence).await;
        let found;
        (disks, found) = again(&mut rack, disks).await;
        assert_eq!((found.len(), found[0].fragments.len(), found[0].fillings.len()), (1, 100, 8), "{round}");
        assert_eq!(pinned(&disks), taken, "{round}");
    }
    put_values(&rack, &disks, 40 << 20, &mut sequence).await;
    for fragment in &fragments {
        let expected = bytes(fragment.serial, fragment.to - 100);
        hit("fragment", disks.read(fragment, 100, fragment.to).get().await, &expected);
    }
    for number in 0..8 {
        hit(
            "chunk",
            disks.read_chunk(draft, &chunk(number, number), 0, LEN).get().await,
            &bytes(number, LEN),
        );
    }
    assert_eq!((pinned(&disks), disks.generation()), (taken, 1));
    // With less room than is occupied, everything that can go goes.
    rack.world.config.max_bytes = 9 << 20;
    (disks, _) = again(&mut rack, disks).await;
    put_values(&rack, &disks, 5 << 20, &mut sequence).await;
    assert!(disks.usage().size_bytes <= 9 << 20);
    assert_eq!((pinned(&disks), disks.generation()), (taken, 1));
    // Aborted, it takes nothing any more.
    Staging::close(&*disks, &opening.key, opening.draft).get().await.unwrap();
    let fragments = fragments.iter().map(|fragment| Gone::Fragment(*fragment));
    let fillings = (0..8).flat_map(|number| [Gone::Filling(number), Gone::Chunk(chunk(number, number))]);
    disks.forget(draft, &fragments.chain(fillings).collect::<Vec<_>>());
    assert_eq!(pinned(&disks), 0);
    put_values(&rack, &disks, 40 << 20, &mut sequence).await;
    for number in 0..8 {
        assert!(!disks.has(draft, &Gone::Chunk(chunk(number, number))), "its room has been used");
    }
}

/// Drafts of four chunks, each with a fragment and a filling; in every other one a page has taken over the fillings.
async fn six_drafts(rack: &Rack, disks: &Disks) -> Vec<Opening> {
    let mut drafts = Vec::new();
    for n in 0..6 {
        let opening = opening(&format!("key {n}"), 5 + n, 4 * CHUNK_SIZE);
        let draft = opening.owner();
        disks.open(&opening).get().await.unwrap();
        for serial in 1..=4 {
            let fragment = Fragment { draft, chunk: serial - 1, serial, from: 0, to: 50_000 };
            disks.write(fragment, payload(bytes(serial, 50_000))).get().await.unwrap();
        }
        for number in 0..4 {
            fill(disks, &rack.world, draft, number, 10 + number, 10 * n + number).await;
        }
        if n % 2 == 0 {
            let digests = (0..4).flat_map(|number| chunk(10 * n + number, number).digest.0);
            let page = PageRef { owner: draft, number: 0 };
            let digests = Bytes::from(digests.collect::<Vec<u8>>());
            disks.put_page(page, opening.size, 13, digests).get().await.unwrap();
            let gone = (0..4)
                .flat_map(|number| [Gone::Filling(number), Gone::Chunk(chunk(10 * n + number, number))]);
            disks.forget(draft, &gone.collect::<Vec<_>>());
        }
        drafts.push(opening);
    }
    drafts
}

/// Of two directories of three that fail, the one that is left cannot go on alone; what they have is held, and there again when they are.
#[tokio::test(start_paused = true)]
async fn what_directories_have_that_come_back_is_pinned_anew() {
    for out in [[0, 1], [1, 2], [0, 2]] {
        let mut rack = Rack::new(3);
        let disks = rack.open().await;
        let drafts = six_drafts(&rack, &disks).await;
        assert_eq!(disks.found().get().await, Ok(Vec::new()));
        let (taken, generation) = (pinned(&disks), disks.generation());
        for number in out {
            rack.sims[number].set_faults(Faults { broken: Some(5), ..Faults::default() });
        }
        until(SOON, "out", || in_service(&disks).iter().filter(|serves| **serves).count() == 1).await;
        until(SOON, "told", || disks.generation() >= generation + 2).await;
        let generation = disks.generation();
        // Nothing is lost as long as they may come back, and nothing is taken.
        for (n, opening) in (0..).zip(&drafts) {
            let draft = opening.owner();
            assert!(disks.keeps(draft) && disks.has(draft, &Gone::Chunk(chunk(10 * n, 0))));
            let fragment = Fragment { draft, chunk: 0, serial: 1, from: 0, to: 50_000 };
            assert!(disks.has(draft, &Gone::Fragment(fragment)));
            assert!(!matches!(disks.read(&fragment, 0, 9).get().await, Lookup::Miss));
        }
        for number in out {
            rack.sims[number].set_faults(Faults::default());
        }
        until(LATER, "in", || in_service(&disks) == [true; 3]).await;
        until(LATER, "pinned", || pinned(&disks) >= taken).await;
        assert!(disks.generation() > generation);
        let news = disks.found().get().await.unwrap();
        for (n, opening) in (0..).zip(&drafts) {
            let draft = opening.owner();
            let found = news.iter().filter(|found| found.opening == *opening).collect::<Vec<_>>();
            for fragment in found.iter().flat_map(|found| &found.fragments) {
                hit("fragment", disks.read(fragment, 0, 50_000).get().await, &bytes(fragment.serial, 50_000));
            }
            // A filling that its page had overtaken is told again, and forgotten again.
            if n % 2 == 0 {
                for filling in found.iter().flat_map(|found| &found.fillings) {
                    let chunk = ChunkRef { digest: filling.digest, number: filling.chunk, len: LEN };
                    disks.forget(draft, &[Gone::Filling(filling.chunk), Gone::Chunk(chunk)]);
                }
            }
            for number in 0..4 {
                let read = disks.read_chunk(draft, &chunk(10 * n + number, number), 0, LEN).get().await;
                hit("chunk", read, &bytes(10 * n + number, LEN));
            }
        }
        assert_eq!(pinned(&disks), taken, "{out:?}: each is held as often as before");
        for (n, opening) in (0..).zip(&drafts) {
            end(&disks, opening, 10 * n).await;
        }
        until(LATER, "let go", || pinned(&disks) == 0).await;
    }
}

/// Closes a draft of four chunks, and lets go of all that it may have.
async fn end(disks: &Disks, opening: &Opening, seed: u64) {
    let draft = opening.owner();
    Staging::close(disks, &opening.key, opening.draft).get().await.unwrap();
    let fragments = (1..=4)
        .map(|serial| Gone::Fragment(Fragment { draft, chunk: serial - 1, serial, from: 0, to: 50_000 }));
    let fillings = (0..4).filter(|number| disks.has(draft, &Gone::Filling(*number)));
    let fillings =
        fillings.flat_map(|number| [Gone::Filling(number), Gone::Chunk(chunk(seed + number, number))]);
    disks.forget(draft, &fragments.chain(fillings).collect::<Vec<_>>());
    disks.end(draft, opening.size);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_added_changes_nothing_for_open_uploads() {
    let mut rack = Rack::new(1);
    let disks = rack.open().await;
    let mut drafts = Vec::new();
    for n in 0..8 {
        let opening = opening(&format!("key {n}"), 5 + n, 4 * CHUNK_SIZE);
        disks.open(&opening).get().await.unwrap();
        fill(&disks, &rack.world, opening.owner(), 0, 1, 10 * n).await;
        drafts.push(opening);
    }
    rack.sims.push(Arc::new(Sim::new(99)));
    let (disks, found) = again(&mut rack, disks).await;
    assert_eq!(found.len(), 8);
    for (n, opening) in (0..).zip(&drafts) {
        let draft = opening.owner();
        disks.open(opening).get().await.unwrap();
        // The newer one takes the place of the older, wherever its key would belong now.
        fill(&disks, &rack.world, draft, 0, 2, 10 * n + 1).await;
        disks.forget(draft, &[Gone::Chunk(chunk(10 * n, 0))]);
        let fragment = Fragment { draft, chunk: 3, serial: 4, from: 0, to: 50_000 };
        disks.write(fragment, payload(bytes(4, 50_000))).get().await.unwrap();
    }
    assert!(disks.directories()[1].size_bytes > 0);
    let (disks, found) = again(&mut rack, disks).await;
    for (n, (found, opening)) in (0..).zip(found.iter().zip(&drafts)) {
        let filling =
            Filling { draft: opening.owner(), chunk: 0, serial: 2, digest: chunk(10 * n + 1, 0).digest };
        assert_eq!(
            (&found.opening, &found.fillings[..], found.fragments.len()),
            (opening, &[filling][..], 1)
        );
        end(&disks, opening, 10 * n + 1).await;
    }
    assert_eq!(pinned(&disks), 0);
}

/// What holds for any tier that keeps drafts.
async fn with_place(check: impl AsyncFn(&suite::Place<'_>)) {
    for count in [1, 3] {
        // Chunks are as long as they are for clients.
        let world = World::with(|config| config.segment_bytes = Some(16 << 20));
        let mut rack = Rack::of(world, count, 1);
        let disks = rack.open().await;
        let in_use = || pinned(&disks);
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
