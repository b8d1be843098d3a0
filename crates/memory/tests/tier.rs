//! The memory tier as the coordinator sees it: values that are replaced, shared, evicted in parts and swept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::ManualClock;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Buffers, Filled, Payload};
use elcache_core::tier::{Body, ChunkRef, Lookup, NewBody, PageRef, Part, Refusal, Reply, Root, Tier};
use elcache_core::tree::CHUNK_SIZE;
use elcache_core::value::{Metadata, Version};
use elcache_memory::{MemoryConfig, MemoryTier};
use parking_lot::Mutex;

const START_MS: u64 = 1_000_000;
/// What a chunk really holds here; its value's size says that it is whole.
const CHUNK_LEN: usize = 300_000;

struct Node {
    tier: Arc<MemoryTier>,
    clock: Arc<ManualClock>,
    sequence: AtomicU64,
}

/// The bytes of a value that lies in one piece.
fn data(root: Root) -> Option<Payload> {
    if let Body::Here(data) = root.body { Some(data) } else { None }
}

/// A value in chunks, as whoever wrote it knows it.
struct Large {
    key: Key,
    meta: Metadata,
    chunks: Vec<ChunkRef>,
}

impl Node {
    fn new(budget_bytes: u64) -> Self {
        let clock = Arc::new(ManualClock::new(START_MS));
        let tier =
            MemoryTier::new(MemoryConfig::default(), &Budget::new(budget_bytes), Arc::clone(&clock) as _, 7);
        Self { tier: tier.unwrap(), clock, sequence: AtomicU64::new(0) }
    }

    fn meta(&self, size: u64) -> Metadata {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        Metadata::new(size, Digest([0; 32]), Version { view: 0, sequence }, START_MS)
    }

    fn put(&self, key: &Key, bytes: &[u8]) -> Result<(), Refusal> {
        let meta = self.meta(bytes.len() as u64);
        now(self.tier.commit(key, &meta, NewBody::Borrowed(bytes)))
    }

    fn root(&self, key: &Key) -> Option<Root> {
        match now(self.tier.root(key)) {
            Lookup::Hit(root) => Some(root),
            _ => None,
        }
    }

    fn read(&self, key: &Key) -> Option<Bytes> {
        Some(data(self.root(key)?)?.to_contiguous())
    }

    /// Stores a value of these chunks, each named and filled by its number.
    fn put_large(&self, key: &Key, contents: &[u8]) -> Large {
        let mut meta = self.meta(contents.len() as u64 * CHUNK_SIZE);
        // Pages of every second value are under a version of their own.
        meta.draft = meta.version.sequence.is_multiple_of(2).then_some(Version { view: 1, ..meta.version });
        let chunk = |(number, &content): (usize, &u8)| ChunkRef {
            digest: Digest([content; 32]),
            number: number as u64,
            len: CHUNK_LEN as u32,
        };
        let chunks: Vec<_> = contents.iter().enumerate().map(chunk).collect();
        let staged = chunks.iter().map(|&chunk| {
            let mut buffer = self.tier.buffer(CHUNK_LEN).unwrap();
            while !buffer.space().is_empty() {
                let space = buffer.space();
                space.fill(chunk.digest.0[0]);
                let count = space.len();
                buffer.advance(count);
            }
            now(self.tier.stage(chunk, Filled::new(buffer, Vec::new()))).unwrap()
        });
        let digests: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.digest.0).collect();
        let page = PageRef { owner: meta.owner(key.hash()), number: 0 };
        let page = now(self.tier.stage_page(page, digests.into(), staged.collect())).unwrap();
        now(self.tier.commit(key, &meta, NewBody::Pages(vec![page]))).unwrap();
        Large { key: key.clone(), meta, chunks }
    }

    fn has(&self, chunk: &ChunkRef) -> bool {
        now(self.tier.has_chunk(chunk))
    }

    fn chunks_here(&self, value: &Large) -> usize {
        value.chunks.iter().filter(|chunk| self.has(chunk)).count()
    }

    fn has_page(&self, value: &Large) -> bool {
        let owner = value.meta.owner(value.key.hash());
        matches!(now(self.tier.page(&PageRef { owner, number: 0 })), Lookup::Hit(_))
    }

    /// Whether a chunk's bytes are what was stored.
    fn is_right(&self, chunk: &ChunkRef) -> bool {
        let Lookup::Hit(Part { bytes: payload, .. }) = now(self.tier.chunk(chunk, 0, chunk.len)) else {
            return false;
        };
        payload.len() == CHUNK_LEN
            && payload.pieces().all(|piece| piece.iter().all(|&b| b == chunk.digest.0[0]))
    }

    /// Payload that blocks of the arenas are taken for.
    fn payload_bytes(&self) -> u64 {
        let usage = self.tier.usage();
        usage.size_bytes - usage.index_bytes
    }
}

/// Memory answers at once.
fn now<T>(reply: Reply<'_, T>) -> T {
    match reply {
        Reply::Ready(answer) => answer,
        Reply::Later(_) => panic!("memory made somebody wait"),
    }
}

fn key(name: impl AsRef<str>) -> Key {
    Key::new(name.as_ref().as_bytes().to_vec()).unwrap()
}

/// Waits for what the housekeeper does in its own time.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "not in ten seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_replaced_value_is_new_for_who_asks_and_old_for_who_reads() {
    let node = Node::new(64 << 20);
    let key = key("replaced");
    node.put(&key, &[1; 50_000]).unwrap();
    let old = data(node.root(&key).unwrap()).unwrap();
    node.put(&key, &[2; 10]).unwrap();
    assert_eq!(node.read(&key).unwrap(), [2; 10][..]);
    assert_eq!(old.to_contiguous(), [1; 50_000][..]);
    assert_eq!(node.tier.usage().entries, 1);
}

#[test]
fn values_of_every_length_come_back() {
    let node = Node::new(64 << 20);
    let lengths = [0, 1, 100, 4095, 4096, 4097, 16_384, 16_385, 65_536, 70_000, 1_000_001, 4 << 20];
    for (n, len) in lengths.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ n as u8).collect();
        node.put(&key("some"), &bytes).unwrap();
        assert!(node.read(&key("some")).unwrap() == bytes, "{len} bytes");
    }
}

#[test]
fn a_chunk_that_two_values_share_goes_with_the_second() {
    let node = Node::new(64 << 20);
    let first = node.put_large(&key("first"), &[1, 2, 3]);
    let one = node.payload_bytes();
    let second = node.put_large(&key("second"), &[1, 2, 4]);
    assert!(node.payload_bytes() < one + 2 * CHUNK_LEN as u64, "the shared chunks are stored once");
    assert!(now(node.tier.remove(&first.key)).unwrap());
    eventually("the chunk of the first value alone is dropped", || !node.has(&first.chunks[2]));
    assert!(second.chunks.iter().all(|chunk| node.is_right(chunk)));
    assert!(!node.has_page(&first) && node.has_page(&second));
    assert!(now(node.tier.remove(&second.key)).unwrap());
    eventually("nothing is left", || node.chunks_here(&second) == 0);
    eventually("its memory is given back", || node.payload_bytes() == 0);
    assert_eq!(node.tier.store().used_bytes(), 0);
}

#[test]
fn whoever_holds_a_root_keeps_the_chunks_of_a_value_that_is_replaced() {
    let node = Node::new(64 << 20);
    let old = node.put_large(&key("large"), &[1, 2]);
    let root = node.root(&old.key).unwrap();
    node.put_large(&old.key, &[3, 4]);
    thread::sleep(Duration::from_millis(300));
    assert!(old.chunks.iter().all(|chunk| node.is_right(chunk)) && node.has_page(&old));
    drop(root);
    eventually("the old chunks are dropped", || node.chunks_here(&old) == 0 && !node.has_page(&old));
}

/// Chunks go one by one. As long as there is one, the root and the page stay, although nobody asks for them; when the
/// last is gone there is no value any more.
#[test]
fn a_value_is_evicted_chunk_by_chunk_and_its_root_last() {
    let node = Node::new(32 << 20);
    let value = node.put_large(&key("large"), &(1..=20).collect::<Vec<_>>());
    let mut partial = false;
    for number in 0.. {
        assert!(number < 100_000, "the value is never evicted");
        node.put(&key(format!("small {number}")), &[9; 20_000]).unwrap();
        match node.chunks_here(&value) {
            0 => break,
            20 => {}
            _ if partial => {}
            _ => {
                partial = true;
                let size = node.root(&value.key).map(|root| root.meta.size);
                assert_eq!(size, Some(value.meta.size), "the root of a value that is here in part");
                assert!(node.has_page(&value));
            }
        }
    }
    assert!(partial, "all chunks went at once");
    eventually("without chunks there is no root", || node.root(&value.key).is_none());
    eventually("and no page", || !node.has_page(&value));
}

#[test]
fn expired_values_go_without_anybody_asking() {
    let node = Node::new(64 << 20);
    for number in 0..5000 {
        let expires_ms = (number % 2 == 0).then_some(START_MS + 1000);
        let meta = Metadata { expires_ms, ..node.meta(100) };
        now(node.tier.commit(&key(format!("{number}")), &meta, NewBody::Borrowed(&[1; 100]))).unwrap();
    }
    node.clock.advance_ms(999);
    assert!(node.read(&key("0")).is_some());
    node.clock.advance_ms(1);
    assert!(node.read(&key("0")).is_none(), "at its last moment it is gone for who asks");
    eventually("the others are swept", || node.tier.usage().entries == 2500);
    assert_eq!(node.tier.usage().evicted_expired, 2500);
    assert!(node.read(&key("1")).is_some());
}

/// What entries are said to weigh is what their memory is, give or take the blocks that are cut and not yet full.
#[test]
fn weights_agree_with_the_memory_that_is_taken() {
    let node = Node::new(256 << 20);
    for number in 0..60_000_usize {
        let len = [10, 100, 1000, 3000, 20_000][number % 5];
        if node.put(&key(format!("{number}")), &vec![1; len]).is_err() {
            break;
        }
    }
    node.put_large(&key("large"), &[1, 2, 3]);
    let (said, taken) = (node.tier.store().used_bytes(), node.payload_bytes());
    let entries = node.tier.usage().entries;
    assert!(taken > 100 << 20, "{taken} bytes: too few to say anything");
    let records = said - entries * 32;
    assert!(records.abs_diff(taken) * 20 < taken, "{records} bytes said of {taken} taken");
}

#[test]
fn an_upload_is_promised_no_more_than_there_is() {
    let node = Node::new(64 << 20);
    assert!(node.tier.largest_admission() <= node.tier.store().capacity_bytes());
    let beyond = now(node.tier.admit(node.tier.largest_admission() + (1 << 20)));
    assert_eq!(beyond.err(), Some(Refusal::TooLarge));
    let all = now(node.tier.admit(node.tier.largest_admission())).unwrap();
    assert!(matches!(node.tier.admit(1 << 20), Reply::Later(_)), "the next large one waits");
    drop(all);
    assert!(now(node.tier.admit(1 << 20)).is_ok());
}

#[test]
fn what_uploads_hold_evicts_values_and_counts_as_used() {
    let node = Node::new(32 << 20);
    for number in 0..3000 {
        node.put(&key(format!("{number}")), &[1; 10_000]).unwrap();
    }
    let held: Vec<_> = (0..6).map(|_| node.tier.buffer(4 << 20).unwrap()).collect();
    assert!(node.tier.store().used_bytes() >= 24 << 20);
    assert!(node.payload_bytes() <= 32 << 20);
    assert!(node.tier.buffer(16 << 20).is_none(), "there is no more, and no value can make room");
    drop(held);
    eventually("what was held is free", || node.tier.store().used_bytes() < 16 << 20);
}

/// Several threads write, read and delete a few keys in a cache that is too small for them. Writes of one key are ordered,
/// as the coordinator does it. Every value read is one that was written, whole.
#[test]
fn readers_see_whole_values_while_others_replace_delete_and_evict_them() {
    const KEYS: usize = 12;
    let node = Node::new(8 << 20);
    let keys: Vec<_> = (0..KEYS).map(|n| (key(format!("shared {n}")), Mutex::new(()))).collect();
    let large = key("large");
    thread::scope(|scope| {
        for seed in 1..=4_u64 {
            let (node, keys, large) = (&node, &keys, &large);
            scope.spawn(move || {
                let mut random = seed;
                for step in 0..8000_usize {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let (draw, n) = (random >> 33, (random >> 40) as usize % KEYS);
                    let (key, write) = &keys[n];
                    match draw % 8 {
                        0 | 1 => {
                            let _write = write.lock();
                            let len = [5, 700, 5000, 60_000, 900_000][step % 5];
                            let _ = node.put(key, &vec![n as u8 ^ (len % 251) as u8; len]);
                        }
                        2 => {
                            let _write = write.lock();
                            now(node.tier.remove(key)).unwrap();
                        }
                        3 if step % 50 == 0 && seed == 1 => drop(node.put_large(large, &[n as u8, 200])),
                        _ => {
                            let Some(root) = node.root(key) else { continue };
                            let size = root.meta.size;
                            let data = data(root).unwrap();
                            assert_eq!(data.len() as u64, size);
                            let right = n as u8 ^ (data.len() % 251) as u8;
                            assert!(data.pieces().all(|piece| piece.iter().all(|&byte| byte == right)));
                        }
                    }
                }
            });
        }
    });
    for (key, _) in &keys {
        now(node.tier.remove(key)).unwrap();
    }
    now(node.tier.remove(&large)).unwrap();
    eventually("everything is given back", || node.payload_bytes() == 0);
    assert_eq!(node.tier.store().used_bytes(), 0);
    assert_eq!(node.tier.usage().entries, 0);
}
