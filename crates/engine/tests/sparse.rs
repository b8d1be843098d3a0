//! Uploads by ranges, with memory as their home and with a disk: what is written counts, in any order and from many writers, comes
//! back after a restart, and becomes the value at once and whole.
//!
//! Every write has a number, and its bytes follow from that and their offset. Of each byte it is known which writes may be the last.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::ManualClock;
use elcache_core::condition::{Condition, Tags};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::{Tier, TierName};
use elcache_core::tree::CHUNK_SIZE;
use elcache_core::value::Version;
use elcache_disk::io::{Engine as IoEngine, start};
use elcache_disk::{Access, DirectoryParts, DiskConfig, Disks, DisksParts};
use elcache_engine::{
    Engine, EngineConfig, Found, Keeper, Opened, PutOptions, Range, Readable, SparseError, Stored, WriteError,
};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Memory,
    Disk,
}

const HOMES: [Home; 2] = [Home::Memory, Home::Disk];

struct Node {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    budget: Arc<Budget>,
    disks: Option<Arc<Disks>>,
    _keeper: Keeper,
}

/// Where a node's disk is, for as long as a test lasts.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("elcache-sparse-{}-{number}", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The directory, as soon as the node before has let go of it.
async fn lock(place: &Place) -> elcache_disk::Lock {
    for _ in 0..200 {
        if let Ok(lock) = elcache_disk::lock(&place.0) {
            return lock;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} is in use still", place.0.display());
}

async fn disks(
    place: &Place,
    max_bytes: u64,
    budget: &Arc<Budget>,
    memory: &Arc<MemoryTier>,
    clock: &Arc<ManualClock>,
) -> Arc<Disks> {
    let mut count = 0;
    let directory = DirectoryParts {
        config: DiskConfig { max_bytes, ..DiskConfig::default() },
        device: start(IoEngine::Auto, 64).unwrap().device,
        path: place.0.clone(),
        access: Access::Locked(lock(place).await),
    };
    let parts = DisksParts {
        directories: vec![directory],
        write_rate_max: None,
        pool: tokio::runtime::Handle::current(),
        node_name: "test".to_owned(),
        budget: Arc::clone(budget),
        buffers: memory.clone(),
        clock: clock.clone(),
        random: Box::new(move || {
            count += 1;
            count
        }),
    };
    Disks::open(parts).await.unwrap()
}

async fn node_with(home: Home, place: &Place, memory_mib: u64, disk_mib: u64, config: EngineConfig) -> Node {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let budget = Budget::new(memory_mib << 20);
    let memory = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 7).unwrap();
    let mut tiers: Vec<Arc<dyn Tier>> = vec![memory.clone()];
    let disks = match home {
        Home::Memory => None,
        Home::Disk => Some(disks(place, disk_mib << 20, &budget, &memory, &clock).await),
    };
    tiers.extend(disks.iter().map(|disks| Arc::clone(disks) as Arc<dyn Tier>));
    let engine =
        Engine::new(config, tiers, memory.clone(), clock.clone(), Arc::clone(&budget), Metrics::new());
    let keeper = engine.keep_uploads();
    Node { engine, clock, budget, disks, _keeper: keeper }
}

async fn node(home: Home, place: &Place) -> Node {
    node_with(home, place, 128, 512, EngineConfig::default()).await
}

async fn stop(node: Node) {
    node.disks.as_ref().unwrap().close().await;
}

fn key() -> Key {
    Key::new("a value").unwrap()
}

fn byte(write: u64, offset: u64) -> u8 {
    let mixed = ((write << 40) ^ (offset / 8)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (8 * (offset % 8))) as u8
}

fn content(write: u64, from: u64, to: u64) -> Vec<u8> {
    (from..to).map(|offset| byte(write, offset)).collect()
}

/// A small generator of our own.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

async fn receive(range: &mut Range, mut rest: &[u8]) -> Result<(), SparseError> {
    while !rest.is_empty() {
        range.ready().await?;
        let count = range.space().len().min(rest.len());
        range.space()[..count].copy_from_slice(&rest[..count]);
        range.filled(count);
        rest = &rest[count..];
    }
    Ok(())
}

/// Writes bytes at an offset; with or without saying how many they are.
async fn write(
    node: &Node,
    id: Version,
    from: u64,
    bytes: &[u8],
    says_length: bool,
) -> Result<u8, SparseError> {
    let upload = node.engine.sparse(&key(), Some(id)).await?;
    let mut range = upload.range(from, says_length.then_some(bytes.len() as u64), None).await?;
    receive(&mut range, bytes).await?;
    range.finish().await
}

async fn open(node: &Node, size: u64) -> Result<Version, SparseError> {
    node.engine.sparse_open(key(), size, PutOptions::default()).await
}

async fn finalize(node: &Node, id: Version) -> Result<Stored, SparseError> {
    node.engine.sparse_finalize(&key(), Some(id), Condition::default(), None).await
}

/// What is written, as a client reads it.
async fn written(node: &Node, span: Span) -> Vec<u8> {
    let upload = node.engine.sparse(&key(), None).await.unwrap();
    assert!(upload.covers(span));
    let mut reader = upload.reader(span);
    let mut bytes = Vec::new();
    while let Some(payload) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&payload.to_contiguous());
        reader.advance(payload.len() as u64);
    }
    bytes
}

/// The key's value; `None` when there is none.
async fn value(node: &Node) -> Option<Vec<u8>> {
    let Found::Value(value) = node.engine.get(&key()).await else { return None };
    let span = Span::whole(value.meta.size);
    assert!(matches!(node.engine.readable(&value, &[span]).await, Readable::Whole(_)));
    let mut reader = node.engine.reader(Arc::new(value), span);
    let mut bytes = Vec::new();
    while let Some(payload) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&payload.to_contiguous());
        reader.advance(payload.len() as u64);
    }
    Some(bytes)
}

async fn put(node: &Node, bytes: &[u8]) {
    let options = PutOptions { length: Some(bytes.len() as u64), ..PutOptions::default() };
    let Opened::Upload(mut upload) = node.engine.open(key(), options).await.unwrap() else { panic!() };
    let mut rest = bytes;
    while !rest.is_empty() {
        upload.ready().await.unwrap();
        let count = upload.space().len().min(rest.len());
        upload.space()[..count].copy_from_slice(&rest[..count]);
        upload.filled(count);
        rest = &rest[count..];
    }
    upload.finish().await.unwrap();
}

fn hash(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

/// Sizes around everything that is done differently: nothing, a byte, one chunk, one page of several.
const SIZES: [u64; 7] = [0, 1, 70_000, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE + 12_345];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_in_any_order_become_the_value() {
    for home in HOMES {
        let place = Place::new();
        let node = node(home, &place).await;
        let mut random = Random(77);
        for size in SIZES {
            put(&node, b"the old value").await;
            let id = open(&node, size).await.unwrap();
            let all = content(1, 0, size);
            let mut cuts: Vec<u64> =
                (0..random.below(7)).map(|_| random.below(size + 1)).chain([0, size]).collect();
            cuts.sort_unstable();
            let mut ranges: Vec<(u64, u64)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
            for at in (1..ranges.len()).rev() {
                ranges.swap(at, random.below(at as u64 + 1) as usize);
            }
            let mut sum = 0;
            for (from, to) in ranges {
                sum += to - from;
                let percent =
                    write(&node, id, from, &all[from as usize..to as usize], random.below(2) == 0).await;
                assert_eq!(
                    percent,
                    Ok((sum * 100).checked_div(size).unwrap_or(100) as u8),
                    "{home:?} {size}"
                );
                assert_eq!(
                    written(&node, Span::new(from, to).unwrap()).await,
                    all[from as usize..to as usize]
                );
                assert_eq!(value(&node).await.unwrap(), b"the old value");
            }
            let stored = finalize(&node, id).await.unwrap();
            assert_eq!(stored.digest, hash(&all), "{home:?} {size}");
            assert!(value(&node).await.unwrap() == all, "{home:?} {size}");
            assert_eq!(finalize(&node, id).await.map(|stored| stored.digest), Ok(hash(&all)), "a repeat");
            assert_eq!(node.engine.sparse(&key(), None).await.err(), Some(SparseError::NoUpload));
            assert!(open(&node, 5).await.is_ok() && node.engine.sparse_abort(&key(), None).await.is_ok());
        }
    }
}

/// A write of the test below: its number, the bytes that it covers, when it began and when it had its answer.
#[derive(Clone, Copy, Debug)]
struct Write {
    number: u64,
    from: u64,
    to: u64,
    began: u32,
    ended: u32,
}

/// Writers whose ranges overlap with different bytes, all at once; each byte is that of a write that may have been the last.
async fn race(home: Home, seed: u64, size: u64, writers: u64, each: u64) {
    let place = Place::new();
    let node = Arc::new(node(home, &place).await);
    let id = open(&node, size).await.unwrap();
    let time = Arc::new(AtomicU32::new(0));
    let mut writing = JoinSet::new();
    for writer in 0..writers {
        let (node, time) = (Arc::clone(&node), Arc::clone(&time));
        writing.spawn(async move {
            let mut random = Random(seed * 1000 + writer + 1);
            let mut done = Vec::new();
            for n in 0..each {
                let longest = [700, 70_000, 2 * CHUNK_SIZE][random.below(3) as usize].min(size);
                let from = random.below(size);
                let to = (from + 1 + random.below(longest)).min(size);
                let number = writer * 1000 + n;
                let began = time.fetch_add(1, Ordering::SeqCst);
                let written = write(&node, id, from, &content(number, from, to), n % 3 > 0).await;
                written.unwrap_or_else(|error| panic!("{from}..{to}: {error:?}"));
                let ended = time.fetch_add(1, Ordering::SeqCst);
                done.push(Write { number, from, to, began, ended });
            }
            done
        });
    }
    let mut writes: Vec<Write> = writing.join_all().await.into_iter().flatten().collect();
    // What nobody has covered comes last.
    let missing = node.engine.sparse(&key(), None).await.unwrap().status(0, 10_000).missing;
    assert!(!missing.truncated);
    for (at, (from, to)) in missing.ranges.into_iter().enumerate() {
        let number = 1_000_000 + at as u64;
        assert!(finalize(&node, id).await.is_err(), "{from}..{to} is missing");
        write(&node, id, from, &content(number, from, to), true).await.unwrap();
        writes.push(Write { number, from, to, began: u32::MAX - 1, ended: u32::MAX });
    }
    let before = written(&node, Span::whole(size)).await;
    let stored = finalize(&node, id).await.unwrap();
    let after = value(&node).await.unwrap();
    assert!(before == after, "{home:?} {seed}");
    assert_eq!(stored.digest, hash(&after));
    let mut borders: Vec<u64> = writes.iter().flat_map(|write| [write.from, write.to]).collect();
    borders.sort_unstable();
    borders.dedup();
    for part in borders.windows(2) {
        let (from, to) = (part[0], part[1]);
        let covering: Vec<&Write> =
            writes.iter().filter(|write| write.from <= from && to <= write.to).collect();
        let may_be_last =
            covering.iter().filter(|write| covering.iter().all(|other| other.began < write.ended));
        let right = may_be_last.clone().any(|write| {
            let there = &after[from as usize..to as usize];
            there.iter().zip(from..).all(|(there, offset)| *there == byte(write.number, offset))
        });
        // Pieces of one range are written each on its own, so two ranges may be the last of different chunks; not of one byte.
        let split = (from / CHUNK_SIZE + 1) * CHUNK_SIZE;
        assert!(right || split < to, "{home:?} {seed} {from}..{to}: {:?}", may_be_last.collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_of_a_byte_the_last_one_wins() {
    for home in HOMES {
        for seed in 1..=3 {
            race(home, seed, 3 * CHUNK_SIZE + 777, 6, 12).await;
        }
        race(home, 9, 300_000, 6, 40).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_many_writers_of_a_byte_the_last_one_wins() {
    for home in HOMES {
        for seed in 1..=40 {
            race(home, seed, CHUNK_SIZE * (seed % 5) + 777, 8, 40).await;
        }
    }
}

/// Every second block of a chunk, then the others: fragments are joined, and combined in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_of_a_thousand_fragments_is_combined() {
    for home in HOMES {
        let place = Place::new();
        let node = node(home, &place).await;
        let size = 2 * CHUNK_SIZE;
        let id = open(&node, size).await.unwrap();
        let all = content(3, 0, size);
        let block = CHUNK_SIZE / 1024;
        for odd in [1, 0] {
            for number in (0..1024).filter(|number| number % 2 == odd) {
                let (from, to) = (number * block, (number + 1) * block);
                write(&node, id, from, &all[from as usize..to as usize], true).await.unwrap();
            }
        }
        write(&node, id, CHUNK_SIZE, &all[CHUNK_SIZE as usize..], true).await.unwrap();
        assert!(written(&node, Span::whole(size)).await == all);
        assert_eq!(finalize(&node, id).await.unwrap().digest, hash(&all), "{home:?}");
        assert!(value(&node).await.unwrap() == all);
    }
}

/// Bytes here and there, more than a chunk may have of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_does_not_fall_into_more_pieces_than_there_is_memory_for() {
    for home in HOMES {
        let place = Place::new();
        let node = node(home, &place).await;
        let id = open(&node, 3 * CHUNK_SIZE).await.unwrap();
        let mut refused = None;
        for number in 0..3000 {
            match write(&node, id, number * 1000, b"x", true).await {
                Ok(_) => {}
                Err(error) => {
                    refused = Some((number, error));
                    break;
                }
            }
        }
        let (number, error) = refused.expect("there is a bound");
        assert_eq!(error, SparseError::TooManyRanges);
        assert!((512..2000).contains(&number), "{number}");
        // What was written is there, another chunk can be written to, and what joins pieces too.
        assert_eq!(written(&node, Span::new(1000, 1001).unwrap()).await, b"x");
        write(&node, id, 2 * CHUNK_SIZE, b"elsewhere", true).await.unwrap();
        write(&node, id, 0, &content(1, 0, CHUNK_SIZE), true).await.unwrap();
        assert!(written(&node, Span::new(0, CHUNK_SIZE).unwrap()).await == content(1, 0, CHUNK_SIZE));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_range_is_said_and_nothing_is_lost() {
    for home in HOMES {
        let place = Place::new();
        let node = node(home, &place).await;
        assert_eq!(finalize(&node, Version::default()).await, Err(SparseError::NoUpload));
        let id = open(&node, 1000).await.unwrap();
        assert_eq!(open(&node, 1000).await, Err(SparseError::AlreadyOpen));
        let other = Version { view: 0, sequence: 1 };
        assert_eq!(write(&node, other, 0, b"x", true).await, Err(SparseError::OtherUpload));
        for (from, len, says) in
            [(1000, 1, true), (999, 2, true), (1001, 0, true), (u64::MAX, 1, true), (999, 2, false)]
        {
            let wrong = write(&node, id, from, &vec![1; len], says).await;
            assert_eq!(wrong, Err(SparseError::OutOfBounds), "{from} {len}");
        }
        assert_eq!(write(&node, id, 1000, b"", true).await, Ok(0), "nothing, at the end");
        let upload = node.engine.sparse(&key(), None).await.unwrap();
        let mut range = upload.range(0, Some(10), None).await.unwrap();
        receive(&mut range, b"short").await.unwrap();
        assert_eq!(range.finish().await, Err(WriteError::WrongLength.into()));
        let mut range = upload.range(0, Some(4), Some([7; 32])).await.unwrap();
        receive(&mut range, b"four").await.unwrap();
        assert_eq!(range.finish().await, Err(WriteError::DigestMismatch.into()));
        assert_eq!(upload.status(0, 10).missing.ranges, [(0, 1000)]);
        write(&node, id, 10, b"ten", true).await.unwrap();
        write(&node, id, 500, b"five", true).await.unwrap();
        let status = upload.status(0, 2);
        assert_eq!((status.written, status.percent()), (7, 0));
        assert_eq!((status.missing.ranges, status.missing.truncated), (vec![(0, 10), (13, 500)], true));
        assert_eq!(upload.status(13, 2).missing.ranges, [(13, 500), (504, 1000)]);
        let Err(SparseError::Incomplete(missing)) = finalize(&node, id).await else { panic!() };
        assert_eq!(missing.ranges, [(0, 10), (13, 500), (504, 1000)]);
        // A condition that does not hold leaves the upload open.
        write(&node, id, 0, &content(1, 0, 1000), true).await.unwrap();
        let condition = Condition { if_match: Some(Tags::Any), ..Condition::default() };
        let failed = node.engine.sparse_finalize(&key(), Some(id), condition, None).await;
        assert_eq!(failed, Err(WriteError::ConditionFailed.into()));
        assert_eq!(finalize(&node, id).await.unwrap().digest, hash(&content(1, 0, 1000)));
        assert_eq!(write(&node, id, 0, b"x", true).await, Err(SparseError::NoUpload));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_nothing() {
    for home in HOMES {
        let place = Place::new();
        let node = node(home, &place).await;
        let mut before = None;
        for _ in 0..3 {
            let id = open(&node, 5 * CHUNK_SIZE).await.unwrap();
            write(&node, id, 100, &content(1, 0, 2 * CHUNK_SIZE), true).await.unwrap();
            assert!(node.engine.sparse_usage().staged_bytes > 2 * CHUNK_SIZE);
            let upload = node.engine.sparse(&key(), None).await.unwrap();
            let mut late = upload.range(0, Some(10), None).await.unwrap();
            receive(&mut late, b"too late..").await.unwrap();
            node.engine.sparse_abort(&key(), Some(id)).await.unwrap();
            assert_eq!(late.finish().await, Err(SparseError::NoUpload));
            assert_eq!(node.engine.sparse_abort(&key(), Some(id)).await, Err(SparseError::NoUpload));
            drop(upload);
            let usage = node.engine.sparse_usage();
            assert_eq!((usage.open, usage.staged_bytes, usage.map_bytes), (0, 0, 0));
            // The first time, memory to combine in is taken, and kept.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let taken = node.budget.taken_bytes();
            let slack = 64 << 10;
            assert!(before.is_none_or(|before| taken <= before + slack), "{home:?}: {before:?} {taken}");
            before = Some(taken);
        }
        assert!(value(&node).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_limited_in_number_and_in_time() {
    for home in HOMES {
        let place = Place::new();
        let config =
            EngineConfig { uploads: 3, upload_ttl: Duration::from_secs(60), ..EngineConfig::default() };
        let node = node_with(home, &place, 128, 512, config).await;
        let other = |n: u32| Key::new(format!("other {n}")).unwrap();
        let id = open(&node, 100).await.unwrap();
        for n in 0..2 {
            node.engine.sparse_open(other(n), 100, PutOptions::default()).await.unwrap();
        }
        let one_more = node.engine.sparse_open(other(2), 100, PutOptions::default()).await;
        assert_eq!(one_more, Err(SparseError::TooManyUploads));
        node.clock.advance_ms(50_000);
        write(&node, id, 0, b"in use", true).await.unwrap();
        node.clock.advance_ms(50_000);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(node.engine.sparse(&other(0), None).await.err(), Some(SparseError::NoUpload), "{home:?}");
        assert_eq!(written(&node, Span::new(0, 6).unwrap()).await, b"in use");
        node.engine.sparse_open(other(2), 100, PutOptions::default()).await.unwrap();
    }
}

/// 20 TB: what is written costs, not what there could be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_of_any_size_takes_what_is_written() {
    for home in HOMES {
        let place = Place::new();
        let node = node(home, &place).await;
        let size = 20 << 40;
        let id = open(&node, size).await.unwrap();
        let mut random = Random(5);
        let mut ranges: Vec<(u64, u64)> =
            (0..100).map(|_| (random.below(size - 70_000), 1 + random.below(70_000))).collect();
        ranges.sort_unstable();
        for (from, len) in &ranges {
            write(&node, id, *from, &content(*from, *from, from + len), true).await.unwrap();
        }
        let usage = node.engine.sparse_usage();
        assert!(usage.map_bytes < 64 << 10, "{usage:?}");
        assert!(usage.staged_bytes < 100 * 80_000, "{usage:?}");
        for (from, len) in &ranges {
            let span = Span::new(*from, from + len).unwrap();
            assert!(written(&node, span).await == content(*from, *from, from + len));
        }
        let upload = node.engine.sparse(&key(), None).await.unwrap();
        let status = upload.status(0, 1000);
        assert_eq!(status.missing.ranges.len(), 101);
        assert_eq!(status.written, ranges.iter().map(|(_, len)| len).sum::<u64>());
        let last = write(&node, id, size - 1, b"x", true).await;
        assert_eq!(last, Ok(0));
        node.engine.sparse_abort(&key(), None).await.unwrap();
    }
}

/// What was acknowledged is there after a restart, and goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_a_restart() {
    let place = Place::new();
    let size = 4 * CHUNK_SIZE + 99;
    let all = content(8, 0, size);
    let mut random = Random(99);
    let mut id = None;
    for _ in 0..6 {
        let node = node(Home::Disk, &place).await;
        if id.is_none() {
            id = Some(open(&node, size).await.unwrap());
        }
        let id = id.unwrap();
        for _ in 0..8 {
            let from = random.below(size);
            let to = (from + 1 + random.below(2 * CHUNK_SIZE)).min(size);
            write(&node, id, from, &all[from as usize..to as usize], true).await.unwrap();
        }
        let upload = node.engine.sparse(&key(), Some(id)).await.unwrap();
        let status = upload.status(0, 1000);
        drop(upload);
        stop(node).await;
        let node = self::node(Home::Disk, &place).await;
        let upload = node.engine.sparse(&key(), Some(id)).await.unwrap();
        assert_eq!(upload.status(0, 1000), status);
        let mut at = 0;
        for (from, to) in status.missing.ranges.into_iter().chain([(size, size)]) {
            assert!(written(&node, Span::new(at, from).unwrap()).await == all[at as usize..from as usize]);
            at = to;
        }
        drop(upload);
        stop(node).await;
    }
    let node = node(Home::Disk, &place).await;
    let id = id.unwrap();
    write(&node, id, 0, &all, true).await.unwrap();
    assert_eq!(finalize(&node, id).await.unwrap().digest, hash(&all));
    stop(node).await;
    let node = self::node(Home::Disk, &place).await;
    assert!(value(&node).await.unwrap() == all);
    assert_eq!(node.engine.sparse(&key(), None).await.err(), Some(SparseError::NoUpload));
    assert_eq!(finalize(&node, id).await.unwrap().digest, hash(&all), "a repeat, after a restart");
}

/// What does not fit is refused, and what was written before stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_does_not_fit_is_refused_and_the_others_stay() {
    for home in HOMES {
        let place = Place::new();
        let config = EngineConfig { admission_wait: Duration::from_secs(5), ..EngineConfig::default() };
        let node = node_with(home, &place, 64, 256, config).await;
        let size = 1 << 40;
        let id = open(&node, size).await.unwrap();
        let too_much = write(&node, id, 0, &[], true).await;
        assert_eq!(too_much, Ok(0));
        let upload = node.engine.sparse(&key(), None).await.unwrap();
        let whole = upload.range(0, Some(size), None).await.err();
        assert_eq!(whole, Some(WriteError::DoesNotFit.into()), "{home:?}");
        let mut written_mib = 0;
        let refused = loop {
            let from = written_mib * 3 * MIB;
            match write(&node, id, from, &content(written_mib, from, from + MIB), true).await {
                Ok(_) => written_mib += 1,
                Err(error) => break error,
            }
            assert!(written_mib < 256, "{home:?}");
        };
        assert_eq!(refused, WriteError::DoesNotFit.into(), "{home:?} after {written_mib}");
        assert!(written_mib >= if home == Home::Memory { 4 } else { 100 }, "{home:?} {written_mib}");
        for n in 0..written_mib {
            let from = n * 3 * MIB;
            let span = Span::new(from, from + MIB).unwrap();
            assert!(
                written(&node, span).await == content(n, from, from + MIB),
                "{home:?} {n} of {written_mib}"
            );
        }
        // Ordinary values find room beside it.
        let small = Key::new("small").unwrap();
        node.engine.put_small(&small, &PutOptions::default(), &[7; 60_000]).await.unwrap();
        node.engine.sparse_abort(&key(), None).await.unwrap();
        open(&node, size).await.unwrap();
        upload.range(0, Some(MIB), None).await.err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_tier_may_have_it_nothing_can_be_written() {
    let place = Place::new();
    let node = node(Home::Disk, &place).await;
    let options = PutOptions { no_memory: true, no_disk: true, ..PutOptions::default() };
    let id = node.engine.sparse_open(key(), 10, options).await.unwrap();
    assert_eq!(write(&node, id, 0, b"x", true).await, Err(WriteError::DoesNotFit.into()));
    node.engine.sparse_abort(&key(), None).await.unwrap();
    let options = PutOptions { no_disk: true, ..PutOptions::default() };
    let id = node.engine.sparse_open(key(), 2 * CHUNK_SIZE, options).await.unwrap();
    write(&node, id, 0, &content(1, 0, 2 * CHUNK_SIZE), true).await.unwrap();
    finalize(&node, id).await.unwrap();
    let Found::Value(value) = node.engine.get(&key()).await else { panic!() };
    assert_eq!(value.tier, TierName::Memory);
}
