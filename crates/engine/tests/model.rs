//! Random work from several threads against a plain model, in budgets so small that eviction never stops.
//!
//! Every write has a number, and the bytes of its value follow from the number and the offset alone; the number travels
//! in the value's flags. So whatever a reader gets, whenever it gets it, it can tell whether every byte is the right byte
//! of one write of that key. Each key is written by one thread, which also knows what must be found: its last write,
//! or nothing where that was evicted, deleted or has expired.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use elcache_core::budget::Budget;
use elcache_core::clock::{Clock, ManualClock};
use elcache_core::condition::{Condition, Tags};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::Tier;
use elcache_core::tree::CHUNK_SIZE;
use elcache_engine::{
    Engine, EngineConfig, Found, MAX_SMALL, Opened, PutOptions, ReadFailed, Readable, Stored, Value,
    WriteError,
};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;

const THREADS: u32 = 3;
const KEYS: u32 = 24;

struct Node {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    budget_bytes: u64,
    tier: Arc<MemoryTier>,
}

fn node(budget_bytes: u64) -> Node {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let budget = Budget::new(budget_bytes);
    let tier = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 7).unwrap();
    let tiers: Vec<Arc<dyn Tier>> = vec![tier.clone()];
    let engine =
        Engine::new(EngineConfig::default(), tiers, tier.clone(), clock.clone(), budget, Metrics::new());
    Node { engine, clock, budget_bytes, tier }
}

/// A small generator of our own: the work of a thread follows from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Small values mostly, around the borders of chunks often.
    fn size(&mut self, largest: u64) -> u64 {
        let size = match self.below(8) {
            0 => 0,
            1..=3 => self.below(3000),
            4 => self.below(200_000),
            5 if largest > CHUNK_SIZE => CHUNK_SIZE - 2 + self.below(5),
            6 if largest > CHUNK_SIZE => 2 * CHUNK_SIZE - 2 + self.below(5),
            _ => self.below(largest),
        };
        size.min(largest)
    }
}

fn byte(write: u32, offset: u64) -> u8 {
    let mixed = ((u64::from(write) << 40) ^ (offset / 8)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (8 * (offset % 8))) as u8
}

fn content(write: u32, span: Span) -> Vec<u8> {
    (span.start()..span.end()).map(|offset| byte(write, offset)).collect()
}

async fn put(
    node: &Node,
    key: &Key,
    write: u32,
    size: u64,
    mut options: PutOptions,
) -> Result<Stored, WriteError> {
    options.flags = write;
    let bytes = content(write, Span::whole(size));
    if bytes.len() <= MAX_SMALL && write.is_multiple_of(2) {
        return node.engine.put_small(key, &options, &bytes).await;
    }
    options.length = write.is_multiple_of(3).then_some(size);
    let mut upload = match node.engine.open(key.clone(), options).await? {
        Opened::Upload(upload) => upload,
        Opened::Known(stored) => return Ok(stored),
    };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        upload.ready().await?;
        let count = upload.space().len().min(rest.len()).min(100_000);
        upload.space()[..count].copy_from_slice(&rest[..count]);
        upload.filled(count);
        rest = &rest[count..];
    }
    upload.finish().await
}

/// Reads a span and checks every byte; how it ended otherwise is the caller's business.
async fn read(node: &Node, value: &Arc<Value>, span: Span) -> Result<bool, ReadFailed> {
    match node.engine.readable(value, &[span]).await {
        Readable::Whole(_) => {}
        Readable::Partial { available_percent } => {
            assert!(available_percent < 100);
            return Ok(false);
        }
        Readable::Gone => return Ok(false),
        Readable::Busy => panic!("memory is never busy"),
    }
    let mut reader = node.engine.reader(Arc::clone(value), span);
    let mut at = span.start();
    while let Some(payload) = reader.next().await? {
        let bytes = payload.to_contiguous();
        let here = Span::new(at, at + bytes.len() as u64).unwrap();
        assert!(
            bytes == content(value.meta.flags, here),
            "wrong bytes of write {} in {here:?}",
            value.meta.flags
        );
        // Sometimes less is taken than was offered, as a socket would.
        let taken = (bytes.len() as u64).min(1 + at % 70_000);
        reader.advance(taken);
        at += taken;
    }
    assert_eq!(at, span.end(), "a short read that looks whole");
    Ok(true)
}

#[derive(Clone, Copy)]
struct Written {
    write: u32,
    size: u64,
    expires_ms: Option<u64>,
}

/// What one thread knows of the keys that it alone writes.
struct Worker {
    random: Random,
    me: u32,
    model: HashMap<u32, Option<Written>>,
    largest: u64,
}

/// Every write that was ever begun: (key, size) by its number.
type History = Mutex<HashMap<u32, (u32, u64)>>;

fn key(number: u32) -> Key {
    Key::new(format!("key/{number}")).unwrap()
}

impl Worker {
    async fn step(&mut self, node: &Node, history: &History, writes: &AtomicU32) {
        let own = self.me + THREADS * self.random.below(u64::from(KEYS / THREADS)) as u32;
        match self.random.below(10) {
            0..=3 => self.write(node, history, writes, own).await,
            4 => self.delete(node, own).await,
            5..=6 => self.read_own(node, own).await,
            _ => {
                let any = self.random.below(u64::from(KEYS)) as u32;
                self.read_any(node, history, any).await;
            }
        }
    }

    async fn write(&mut self, node: &Node, history: &History, writes: &AtomicU32, number: u32) {
        let write = writes.fetch_add(1, Ordering::Relaxed);
        let size = self.random.size(self.largest);
        history.lock().unwrap().insert(write, (number, size));
        let ttl_seconds =
            (self.random.below(4) == 0).then(|| NonZeroU64::new(1 + self.random.below(5)).unwrap());
        let now_ms = node.clock.now_ms();
        match put(node, &key(number), write, size, PutOptions { ttl_seconds, ..PutOptions::default() }).await
        {
            Ok(stored) => {
                assert_eq!(
                    stored.digest,
                    Digest(*blake3::hash(&content(write, Span::whole(size))).as_bytes())
                );
                let expires_ms = ttl_seconds.map(|seconds| now_ms + seconds.get() * 1000);
                self.model.insert(number, Some(Written { write, size, expires_ms }));
            }
            Err(WriteError::Busy | WriteError::DoesNotFit) => {}
            Err(other) => panic!("{other}"),
        }
    }

    async fn delete(&mut self, node: &Node, number: u32) {
        let there = node.engine.delete(&key(number), &Condition::default()).await.unwrap();
        assert!(!there || self.model.get(&number).is_some_and(Option::is_some), "a deleted key came back");
        self.model.insert(number, None);
    }

    async fn read_own(&mut self, node: &Node, number: u32) {
        let before_ms = node.clock.now_ms();
        let Found::Value(value) = node.engine.get(&key(number)).await else { return };
        let last = self.model.get(&number).copied().flatten().expect("a deleted value was found");
        assert_eq!(
            (value.meta.flags, value.meta.size),
            (last.write, last.size),
            "not the last value written"
        );
        // Another thread may have moved the clock since the write took its time.
        let slack_ms = 60_000;
        assert!(last.expires_ms.is_none_or(|at| before_ms < at + slack_ms), "an expired value was found");
        assert_eq!(value.meta.expires_ms.is_some(), last.expires_ms.is_some());
        self.read_some(node, value).await;
    }

    async fn read_any(&mut self, node: &Node, history: &History, number: u32) {
        let Found::Value(value) = node.engine.get(&key(number)).await else { return };
        let known = history.lock().unwrap()[&value.meta.flags];
        assert_eq!((number, value.meta.size), known, "the value of another key or another write");
        self.read_some(node, value).await;
    }

    async fn read_some(&mut self, node: &Node, value: Value) {
        let size = value.meta.size;
        let start = self.random.below(size + 1);
        let end = start + self.random.below(size - start + 1);
        let span = if self.random.below(3) == 0 { Span::whole(size) } else { Span::new(start, end).unwrap() };
        // A part may have gone, or go while it is read; what must not be is a wrong or a missing byte.
        let _ = read(node, &Arc::new(value), span).await;
    }
}

fn drive(budget_bytes: u64, largest: u64, steps: u32, seed: u64) {
    let node = Arc::new(node(budget_bytes));
    let history: Arc<History> = Arc::default();
    let writes = Arc::new(AtomicU32::new(1));
    let most_used = Arc::new(AtomicU64::new(0));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let workers = (0..THREADS).map(|me| {
        let (node, history, writes) = (Arc::clone(&node), Arc::clone(&history), Arc::clone(&writes));
        let most_used = Arc::clone(&most_used);
        runtime.spawn(async move {
            let random = Random(seed * 1000 + u64::from(me) + 1);
            let mut worker = Worker { random, me, model: HashMap::new(), largest };
            for step in 0..steps {
                worker.step(&node, &history, &writes).await;
                if step % 16 == 0 {
                    node.clock.advance_ms(300);
                }
                most_used.fetch_max(node.tier.usage().size_bytes, Ordering::Relaxed);
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    runtime.block_on(async {
        for worker in workers {
            worker.await.unwrap();
        }
    });
    assert!(most_used.load(Ordering::Relaxed) <= node.budget_bytes + (1 << 20), "over the budget");
    assert!(node.engine.stats().total.evictions > 0, "the budget was not small enough to test anything");
}

#[test]
fn sixteen_mebibytes_and_values_up_to_ten() {
    (1..=4).for_each(|seed| drive(16 << 20, 10 << 20, 150, seed));
}

#[test]
fn sixteen_mebibytes_and_small_values() {
    (1..=4).for_each(|seed| drive(16 << 20, 600_000, 1500, seed));
}

#[tokio::test]
async fn one_of_many_puts_if_absent_wins() {
    let node = Arc::new(node(32 << 20));
    let absent = Condition { if_none_match: Some(Tags::Any), ..Condition::default() };
    let racers = (0..50).map(|write| {
        let (node, condition) = (Arc::clone(&node), absent.clone());
        tokio::spawn(async move {
            put(&node, &key(0), write, 1000, PutOptions { condition, ..PutOptions::default() }).await
        })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(stored) => {
                assert!(stored.created);
                winners += 1;
            }
            Err(error) => assert_eq!(error, WriteError::ConditionFailed),
        }
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_deleted_key_leaves_the_chunks_of_another_alone() {
    let node = node(64 << 20);
    let bytes = content(5, Span::whole(3 * CHUNK_SIZE));
    let mut values = Vec::new();
    for number in [1, 2] {
        // Write 5 under both keys: the same chunks.
        put(&node, &key(number), 5, bytes.len() as u64, PutOptions::default()).await.unwrap();
        let Found::Value(value) = node.engine.get(&key(number)).await else { panic!("it is there") };
        values.push(Arc::new(value));
    }
    let used = node.tier.usage().size_bytes;
    assert!(used < 4 * CHUNK_SIZE, "equal chunks at equal offsets are kept once, not {used} bytes of them");
    assert!(node.engine.delete(&key(1), &Condition::default()).await.unwrap());
    drop(values.remove(0));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(read(&node, &values[0], Span::whole(3 * CHUNK_SIZE)).await, Ok(true));
    drop(values);
    assert!(node.engine.delete(&key(2), &Condition::default()).await.unwrap());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(node.tier.usage().size_bytes < CHUNK_SIZE, "what nothing refers to is dropped");
}

/// A long read goes on rightly while its key is replaced and deleted, as long as there is room for both values.
#[tokio::test]
async fn a_reader_ends_with_the_value_it_began_with() {
    let node = node(64 << 20);
    let size = 3 * CHUNK_SIZE + 17;
    put(&node, &key(0), 1, size, PutOptions::default()).await.unwrap();
    let Found::Value(value) = node.engine.get(&key(0)).await else { panic!("it is there") };
    let value = Arc::new(value);
    put(&node, &key(0), 2, size, PutOptions::default()).await.unwrap();
    node.engine.delete(&key(0), &Condition::default()).await.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(read(&node, &value, Span::whole(size)).await, Ok(true));
    assert!(matches!(node.engine.get(&key(0)).await, Found::Miss));
}

#[tokio::test]
async fn values_expire_by_themselves_and_free_their_memory() {
    let node = node(64 << 20);
    let ttl_seconds = NonZeroU64::new(10);
    for (number, size) in [(0, 100), (1, 100_000), (2, 2 * CHUNK_SIZE + 1)] {
        put(&node, &key(number), 3, size, PutOptions { ttl_seconds, ..PutOptions::default() }).await.unwrap();
    }
    node.clock.advance_ms(9_999);
    assert!(matches!(node.engine.get(&key(0)).await, Found::Value(_)));
    node.clock.advance_ms(1);
    assert!(matches!(node.engine.get(&key(0)).await, Found::Miss));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let usage = node.tier.usage();
    assert_eq!((usage.entries, usage.evicted_expired), (0, 3));
    assert!(usage.size_bytes < 1 << 20, "{usage:?}");
}

#[tokio::test]
async fn what_can_never_fit_is_told_apart_from_what_does_not_fit_now() {
    let node = node(16 << 20);
    let length = |bytes| PutOptions { length: Some(bytes), ..PutOptions::default() };
    let open = |options| node.engine.open(key(0), options);
    assert!(matches!(open(length(1 << 40)).await, Err(WriteError::DoesNotFit)));
    assert!(matches!(open(PutOptions { value_limit: 10, ..length(11) }).await, Err(WriteError::OverLimit)));
    assert!(matches!(open(PutOptions { no_memory: true, ..length(11) }).await, Err(WriteError::DoesNotFit)));
    assert_eq!(
        put(&node, &key(0), 1, 40 << 20, PutOptions::default()).await,
        Err(WriteError::DoesNotFit),
        "a value of unknown length finds out on the way"
    );
    assert!(matches!(node.engine.get(&key(0)).await, Found::Miss));
    put(&node, &key(0), 2, 9 << 20, PutOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_retry_recognises_its_own_success() {
    let node = node(16 << 20);
    let operation = elcache_core::value::OperationId::new(&b"op-1"[..]);
    let condition = Condition { if_none_match: Some(Tags::Any), ..Condition::default() };
    let options = PutOptions { operation, condition, ..PutOptions::default() };
    let first = put(&node, &key(0), 2, 100, options.clone()).await.unwrap();
    assert!(first.created);
    assert_eq!(put(&node, &key(0), 2, 100, options.clone()).await, Ok(first));
    assert_eq!(
        put(&node, &key(0), 5, 100, options.clone()).await,
        Ok(first),
        "also where it would be streamed"
    );
    let other = PutOptions { operation: None, ..options };
    assert_eq!(put(&node, &key(0), 2, 100, other).await, Err(WriteError::ConditionFailed));
}

#[tokio::test]
async fn a_sha256_is_verified_whatever_the_size() {
    use sha2::{Digest as _, Sha256};
    let node = node(64 << 20);
    for (write, size) in [(2, 10), (5, 10), (3, 100_000), (4, CHUNK_SIZE), (5, 2 * CHUNK_SIZE + 5)] {
        let right: [u8; 32] = Sha256::digest(content(write, Span::whole(size))).into();
        let options = |sha256| PutOptions { sha256: Some(sha256), ..PutOptions::default() };
        assert_eq!(put(&node, &key(0), write, size, options([0; 32])).await, Err(WriteError::DigestMismatch));
        assert!(put(&node, &key(0), write, size, options(right)).await.is_ok(), "{size} bytes");
    }
}
