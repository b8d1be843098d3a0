//! The memory tier as a place for drafts.

#[path = "suite/staging.rs"]
mod suite;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use elcache_core::budget::Budget;
use elcache_core::clock::ManualClock;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Buffer, Buffers};
use elcache_core::staging::Gone;
use elcache_core::tier::{Lookup, NewBody, Refusal, Tier};
use elcache_core::tree::{self, CHUNK_SIZE};
use elcache_core::value::{Metadata, Version};
use elcache_memory::{MemoryConfig, MemoryTier};
use suite::{Draft, Place, bytes, fillings};

struct Node {
    tier: Arc<MemoryTier>,
    budget: Arc<Budget>,
}

impl Node {
    fn new(budget_bytes: u64) -> Self {
        let budget = Budget::new(budget_bytes);
        let clock = Arc::new(ManualClock::new(1_000_000));
        let tier = MemoryTier::new(MemoryConfig::default(), &budget, clock, 7).unwrap();
        Self { tier, budget }
    }

    /// What entries, uploads and the bookkeeping of drafts take.
    fn in_use(&self) -> u64 {
        self.tier.store().used_bytes() + self.budget.taken_bytes()
    }
}

/// Waits for what the housekeeper does in its own time.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "not in ten seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Takes all the room that uploads can take.
fn all_room(tier: &MemoryTier) -> Vec<Box<dyn Buffer>> {
    let mut held = Vec::new();
    for len in [4 << 20, 1 << 20, 64 << 10, 4 << 10] {
        held.extend(std::iter::from_fn(|| tier.buffer(len)));
    }
    held
}

async fn with_place(check: impl AsyncFnOnce(&Place<'_>, &Node)) {
    let node = Node::new(128 << 20);
    let in_use = || node.in_use();
    check(&Place { tier: &*node.tier, buffers: &*node.tier, in_use: &in_use }, &node).await;
    eventually("everything is given back", || node.in_use() == 0);
    let usage = node.tier.usage();
    assert_eq!(usage.size_bytes, usage.index_bytes);
}

#[tokio::test]
async fn fragments_come_back() {
    with_place(async |place, _| suite::fragments_come_back(place).await).await;
}

#[tokio::test]
async fn chunks_stay_while_something_counts_on_them() {
    with_place(async |place, _| suite::chunks_stay_while_something_counts_on_them(place).await).await;
}

#[tokio::test]
async fn what_is_taken_comes_back() {
    with_place(async |place, _| suite::what_is_taken_comes_back(place).await).await;
}

#[tokio::test]
async fn a_draft_becomes_a_value() {
    with_place(async |place, _| suite::a_draft_becomes_a_value(place).await).await;
}

/// The commit took the draft's buffers, found no room for the root, and what clients had been told is written was gone.
#[tokio::test]
async fn a_commit_without_room_has_lost_nothing_and_can_be_repeated() {
    with_place(async |place, node| {
        let size = 5 * CHUNK_SIZE - 99;
        let draft = Draft::open(place, "full", 1, size).await;
        let mut chunks = Vec::new();
        for number in 0..tree::chunk_count(size) {
            // The last is as the first but for its length, the others are equal.
            let data = bytes(number.min(1), tree::chunk_len(size, number) as usize);
            chunks.push((draft.fill(number, 1, &data).await, data));
        }
        let listed: Vec<_> = chunks.iter().map(|(chunk, _)| *chunk).collect();
        assert_eq!(draft.commit().await, Err(Refusal::Failed), "its page is not there");
        draft.put_page(0, 1, &listed).await.unwrap();
        let before = node.in_use();
        for _ in 0..3 {
            let held = all_room(&node.tier);
            assert_eq!(draft.commit().await, Err(Refusal::Full));
            assert!(matches!(place.tier.root(&draft.key).get().await, Lookup::Miss));
            drop(held);
            for (chunk, data) in &chunks {
                assert!(draft.has_chunk(chunk, data).await, "chunk {}", chunk.number);
            }
            assert_eq!(node.in_use(), before, "nothing of the commit is left");
        }
        draft.commit().await.unwrap();
        assert!(
            node.in_use() >= before,
            "equal chunks are in memory as often as they were written, until the end"
        );
        assert!(draft.is_committed(&chunks).await);
        draft.end(&fillings(&listed)).await;
        eventually("the draft is given back", || node.budget.taken_bytes() == 0);
        assert!(draft.is_committed(&chunks).await);
        assert!(place.tier.remove(&draft.key).get().await.unwrap());
    })
    .await;
}

/// Several uploads write, replace, read, commit and give up values of the same few chunks, while others fill the cache with small
/// values and remove what was committed. What is a draft's is there, whatever is evicted, and in the end nothing is left.
#[test]
fn drafts_keep_what_is_theirs_while_others_commit_remove_and_evict() {
    const LEN: usize = 300_000;
    const ROUNDS: u64 = 60;
    let node = Node::new(48 << 20);
    let in_use = || node.in_use();
    let place = Place { tier: &*node.tier, buffers: &*node.tier, in_use: &in_use };
    thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (place, node) = (&place, &node);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let contents: Vec<_> = (0..6).map(|content| bytes(content, LEN)).collect();
                let content = |round: u64, number: u64| {
                    &contents[((round * 7 + thread + number * number) % 6) as usize]
                };
                for round in 0..ROUNDS {
                    runtime.block_on(async {
                        let name = format!("value {}", (thread + round) % 4);
                        let sequence = (round * 3 + thread) * 2 + 1;
                        let draft = Draft::open(place, &name, sequence, 8 * CHUNK_SIZE).await;
                        let mut chunks = Vec::new();
                        for number in 0..8 {
                            let data = content(round, number);
                            chunks.push((draft.fill(number, 1, data).await, data.clone()));
                        }
                        let listed: Vec<_> = chunks.iter().map(|(chunk, _)| *chunk).collect();
                        draft.put_page(0, 1, &listed).await.unwrap();
                        for number in 0..400 {
                            put_small(node, &format!("small {thread} {round} {number}"), &[9; 10_000]);
                        }
                        for (chunk, data) in &chunks {
                            assert!(draft.has_chunk(chunk, data).await, "chunk {} of {name}", chunk.number);
                        }
                        if round % 3 > 0 {
                            draft.commit().await.unwrap();
                        }
                        draft.end(&fillings(&listed)).await;
                        if round % 5 == 0 {
                            place.tier.remove(&draft.key).get().await.unwrap();
                        }
                    });
                }
            });
        }
    });
    for number in 0..4 {
        node.tier.remove(&Key::new(format!("value {number}").into_bytes()).unwrap()).now().unwrap().unwrap();
    }
    eventually("drafts are given back", || node.budget.taken_bytes() == 0);
    for thread in 0..3 {
        for (round, number) in (0..ROUNDS).flat_map(|round| (0..400).map(move |number| (round, number))) {
            let key = Key::new(format!("small {thread} {round} {number}").into_bytes()).unwrap();
            node.tier.remove(&key).now().unwrap().unwrap();
        }
    }
    eventually("everything is given back", || node.in_use() == 0);
    eventually("no memory is in use", || {
        let usage = node.tier.usage();
        usage.size_bytes == usage.index_bytes
    });
}

fn put_small(node: &Node, key: &str, data: &[u8]) {
    let key = Key::new(key.as_bytes().to_vec()).unwrap();
    let meta = Metadata::new(data.len() as u64, Digest([0; 32]), Version { view: 2, sequence: 1 }, 1_000_000);
    node.tier.commit(&key, &meta, NewBody::Borrowed(data)).now().unwrap().unwrap();
}

/// A chunk takes a record, however short it is: the last one of a value may be.
#[tokio::test]
async fn short_chunks_take_no_more_than_is_said() {
    with_place(async |place, node| {
        let draft = Draft::open(place, "short", 1, 2 * CHUNK_SIZE).await;
        let opened = node.in_use();
        for (serial, len) in (1..).zip([1_u32, 100, 2047, 2048, 4095, 4096, 4097, 65_535, 100_001, 4 << 20]) {
            let chunk = draft.fill(1, serial, &bytes(serial, len as usize)).await;
            let (taken, said) = (node.in_use() - opened, draft.staging.footprint(len));
            assert!(u64::from(len) <= taken && taken <= said, "{len} bytes took {taken}, not at most {said}");
            draft.forget(&[Gone::Filling(1), Gone::Chunk(chunk)]);
            assert_eq!(node.in_use(), opened);
        }
        draft.end(&[]).await;
    })
    .await;
}
