//! Pages of unfinished values: what holds their chunks, what lets go of them, and what happens when something is lost meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::tier::{ChunkRef, Lookup, NewBody, PageRef, Refusal, Staged, StagedPage, Tier};
use elcache_core::tree::{ChunkHasher, PAGE_DIGESTS};
use elcache_core::value::{Metadata, Version};
use tokio::time::{Duration, sleep, timeout};

use super::disks::{LATER, Rack, SOON, in_service, until};
use super::support::{Dice, NOW_MS, Shape, Value, World, is_gone, key, same};
use crate::disks::Disks;
use crate::io::sim::Faults;

const EIO: i32 = 5;
/// So many different chunks a page lists, again and again.
const DIFFERENT: u64 = 5;

/// A value of three pages on its way in.
struct Large {
    name: &'static str,
    meta: Metadata,
    digests: Vec<Bytes>,
    chunks: Vec<(ChunkRef, Vec<u8>)>,
    pages: Vec<StagedPage>,
}

impl Large {
    fn new(name: &'static str, sequence: u64) -> Self {
        let version = Version { view: 0, sequence };
        let mut meta = Metadata::new(17 << 30, Digest([3; 32]), version, NOW_MS);
        meta.draft = Some(Version { view: 0, sequence: sequence - 1 });
        let chunk = |number: u64| {
            let bytes = Dice::new(sequence + number).bytes(9_000);
            let mut hasher = ChunkHasher::new(number);
            hasher.update(&bytes);
            (ChunkRef { digest: hasher.chunk().unwrap(), number, len: 9_000 }, bytes)
        };
        let chunks = (0..DIFFERENT).map(chunk).collect();
        Self { name, meta, digests: Vec::new(), chunks, pages: Vec::new() }
    }

    fn page(&self, number: u64) -> PageRef {
        PageRef { owner: self.meta.owner(key(self.name).hash()), number }
    }

    async fn stage_chunks(&self, disks: &Disks, rack: &Rack, count: u64) -> Vec<Staged> {
        let mut staged = Vec::new();
        for (chunk, bytes) in self.chunks.iter().cycle().take(count as usize) {
            let filled = rack.world.arena.filled(bytes, chunk.number);
            staged.push(disks.stage(*chunk, filled).get().await.unwrap());
        }
        staged
    }

    async fn stage(&mut self, disks: &Disks, rack: &Rack) {
        for (number, count) in (0..).zip([PAGE_DIGESTS, PAGE_DIGESTS, 3]) {
            let chunks = self.stage_chunks(disks, rack, count).await;
            let digests: Vec<u8> = chunks.iter().flat_map(|staged| staged.chunk.digest.0).collect();
            self.digests.push(digests.clone().into());
            let page = disks.stage_page(self.page(number), digests.into(), chunks).get().await.unwrap();
            self.pages.push(page);
        }
    }

    async fn commit(&mut self, disks: &Disks) -> Result<(), Refusal> {
        let pages = std::mem::take(&mut self.pages);
        disks.commit(&key(self.name), &self.meta, NewBody::Pages(pages)).get().await
    }

    async fn assert_there(&self, disks: &Disks) {
        let Lookup::Hit(root) = disks.root(&key(self.name)).get().await else { panic!("no root") };
        assert_eq!(root.meta, self.meta);
        for (number, digests) in (0..).zip(&self.digests) {
            let Lookup::Hit(found) = disks.page(&self.page(number)).get().await else { panic!("no page") };
            same("page", &found, digests).unwrap();
        }
        for (chunk, bytes) in &self.chunks {
            let Lookup::Hit(part) = disks.chunk(chunk, 0, chunk.len).get().await else { panic!("no chunk") };
            same("chunk", &part.bytes, bytes).unwrap();
        }
    }
}

const NOTHING: (u64, u64) = (0, 0);

async fn until_nothing_is_held(disks: &Disks) {
    until(SOON, "nothing is held", || disks.held() == NOTHING).await;
}

/// A little room, so that reclaiming has work.
fn small_rack(count: usize) -> Rack {
    let world = World::with(|config| {
        config.max_bytes = 16 << 20;
        (config.high_watermark, config.low_watermark) = (0.75, 0.7);
    });
    Rack::of(world, count, 1)
}

/// Fills the directories of a small rack some times over.
async fn fill(disks: &Arc<Disks>, rack: &Rack, sequence: u64) {
    for n in 0..600 * rack.sims.len() as u64 {
        let value = Value::new(&key(&format!("filler {n}")), sequence + n, Shape::Filled(90_000));
        assert_eq!(value.put(disks, &rack.world.arena).await, Ok(()));
        sleep(Duration::from_millis(10)).await;
    }
}

/// Of a full page nothing is in memory but where it is, so what is let go of is what stands in it. Whoever gives up, or commits, a value
/// of thousands of pages does not wait for that.
#[tokio::test(start_paused = true)]
async fn pages_let_go_of_all_their_chunks_when_they_are_given_up_and_when_they_are_committed() {
    for count in [1, 3] {
        let mut rack = Rack::new(count);
        let disks = rack.open().await;
        let mut large = Large::new("large", 10);
        large.stage(&disks, &rack).await;
        let held = disks.held();
        // Each chunk is one bit in an index, and all holds but the first are counted beside it.
        assert_eq!(held.1, 2 * PAGE_DIGESTS + 3 - DIFFERENT);
        drop(large);
        assert_eq!(disks.held(), held, "nothing is done by whoever drops them");
        until_nothing_is_held(&disks).await;
        assert!(is_gone(&disks, &key("large")).await);

        let mut large = Large::new("large", 20);
        large.stage(&disks, &rack).await;
        large.commit(&disks).await.unwrap();
        until_nothing_is_held(&disks).await;
        large.assert_there(&disks).await;
        drop(disks);
        rack.kill();
        large.assert_there(&*rack.open().await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_that_are_in_no_page_yet_are_let_go_of_at_once() {
    let mut rack = Rack::new(2);
    let disks = rack.open().await;
    let large = Large::new("large", 10);
    let staged = large.stage_chunks(&disks, &rack, 12).await;
    assert_ne!(disks.held(), NOTHING);
    drop(staged);
    assert_eq!(disks.held(), NOTHING);
    // Whoever goes away while its page is being written has given it up as well.
    let staged = large.stage_chunks(&disks, &rack, 12).await;
    let digests: Bytes = vec![7; 12 * 32].into();
    let staging = disks.stage_page(large.page(0), digests, staged).get();
    assert!(timeout(Duration::ZERO, staging).await.is_err());
    until_nothing_is_held(&disks).await;
}

#[tokio::test(start_paused = true)]
async fn reclaiming_keeps_a_page_and_its_chunks_until_the_value_is_committed() {
    for count in [1, 2] {
        let mut rack = small_rack(count);
        let disks = rack.open().await;
        let mut large = Large::new("large", 10);
        large.stage(&disks, &rack).await;
        fill(&disks, &rack, 1000).await;
        assert_eq!(large.commit(&disks).await, Ok(()));
        large.assert_there(&disks).await;
        until_nothing_is_held(&disks).await;
        // An ordinary value from then on: it ages.
        fill(&disks, &rack, 100_000).await;
        fill(&disks, &rack, 200_000).await;
        assert!(is_gone(&disks, &key("large")).await);
    }
}

/// Killed behind its pages and before its root: the value is not there, nothing is held for it, and what had been written of it goes
/// as anything does that nobody wants.
#[tokio::test(start_paused = true)]
async fn killed_between_page_and_root_nothing_is_seen_and_nothing_is_held() {
    for count in [1, 2] {
        let mut rack = small_rack(count);
        let disks = rack.open().await;
        let old = Value::new(&key("large"), 5, Shape::Borrowed(100));
        old.put(&disks, &rack.world.arena).await.unwrap();
        let mut large = Large::new("large", 10);
        large.stage(&disks, &rack).await;
        drop(disks);
        rack.kill();
        let disks = rack.open().await;
        old.assert_there(&disks).await;
        assert_eq!(disks.held(), NOTHING);
        assert!(matches!(disks.page(&large.page(1)).get().await, Lookup::Hit(_)), "it was durable");
        fill(&disks, &rack, 1000).await;
        fill(&disks, &rack, 10_000).await;
        for number in 0..3 {
            assert!(matches!(disks.page(&large.page(number)).get().await, Lookup::Miss), "page {number}");
        }
    }
}

/// What uploads count on was lost, and found out by somebody: the commit has to look at all of its chunks again, and fails only if it is
/// one of its own that is missing.
#[tokio::test(start_paused = true)]
async fn a_value_that_has_lost_a_chunk_is_not_committed_and_others_are() {
    let mut rack = Rack::new(1);
    let disks = rack.open().await;
    let mut hit = Large::new("hit", 10);
    hit.stage(&disks, &rack).await;
    let mut other = Large::new("other", 20);
    other.stage(&disks, &rack).await;
    let old = Value::new(&key("hit"), 5, Shape::Borrowed(100));
    old.put(&disks, &rack.world.arena).await.unwrap();
    // The first extent is the first chunk's: its head, then its bytes.
    rack.sims[0].flip(&Rack::path(0).join("segments/00000001.data"), 4096 + 5, 1).unwrap();
    let (chunk, _) = hit.chunks[0];
    assert!(matches!(disks.chunk(&chunk, 0, chunk.len).get().await, Lookup::Miss));
    assert_eq!(hit.commit(&disks).await, Err(Refusal::Failed));
    old.assert_there(&disks).await;
    assert_eq!(other.commit(&disks).await, Ok(()));
    other.assert_there(&disks).await;
    until_nothing_is_held(&disks).await;
    let mut again = Large::new("hit", 10);
    again.stage(&disks, &rack).await;
    assert_eq!(again.commit(&disks).await, Ok(()));
    again.assert_there(&disks).await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_read_for_a_moment_lets_go_of_its_chunks_later() {
    let mut rack = Rack::new(1);
    let disks = rack.open().await;
    let mut large = Large::new("large", 10);
    large.stage(&disks, &rack).await;
    rack.sims[0].set_faults(Faults { failing_reads: 1.0, ..Faults::NONE });
    drop(large);
    sleep(Duration::from_millis(500)).await;
    assert_ne!(disks.held(), NOTHING);
    rack.sims[0].set_faults(Faults::NONE);
    until(LATER, "nothing is held", || disks.held() == NOTHING).await;
}

/// A directory went and came back under an upload, and another began to count on the same chunks there. The first let go of what it had
/// held, and the other held nothing any more.
#[tokio::test(start_paused = true)]
async fn who_held_something_before_a_directory_went_lets_go_of_nothing_in_the_one_that_came_back() {
    let mut rack = Rack::new(1);
    let disks = rack.open().await;
    let mut first = Large::new("first", 10);
    first.stage(&disks, &rack).await;
    rack.sims[0].set_faults(Faults { broken: Some(EIO), ..Faults::NONE });
    until(SOON, "it is out", || !in_service(&disks)[0]).await;
    rack.sims[0].set_faults(Faults::NONE);
    until(LATER, "it is back", || in_service(&disks)[0]).await;
    let mut second = Large::new("second", 10);
    second.stage(&disks, &rack).await;
    let held = disks.held();
    drop(first);
    sleep(SOON).await;
    assert_eq!(disks.held(), held);
    assert_eq!(second.commit(&disks).await, Ok(()));
    until_nothing_is_held(&disks).await;
}

/// A directory goes between the last chunk and the commit. What had everything in the others is committed, and whole.
#[tokio::test(start_paused = true)]
async fn a_directory_that_goes_takes_the_uploads_with_it_that_have_something_there() {
    for has_left in [false, true] {
        let mut rack = Rack::new(3);
        let disks = rack.open().await;
        let mut uploads = Vec::new();
        for n in 0..60 {
            let value = Value::new(&key(&format!("key {n}")), 100 + n, Shape::Chunks(3, 500));
            let staged = value.stage(&disks, &rack.world.arena).await.unwrap();
            uploads.push((value.stage_pages(&disks, staged).await.unwrap(), value));
        }
        rack.sims[1].set_faults(Faults { broken: Some(EIO), ..Faults::NONE });
        if has_left {
            until(SOON, "it is out", || !in_service(&disks)[1]).await;
            sleep(SOON).await;
        }
        let mut committed = 0;
        for (pages, value) in uploads {
            if value.commit_pages(&disks, pages).await.is_ok() {
                committed += 1;
                let whole = value.get(&disks).await;
                assert!(!has_left || whole == Ok(true), "{whole:?}");
            }
        }
        assert!((1..50).contains(&committed), "{committed} of 60");
        drop(disks);
    }
}
