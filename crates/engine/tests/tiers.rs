//! Memory and disk together: what is kept where, what comes back from the disk, and what goes down to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use elcache_core::budget::Budget;
use elcache_core::clock::SystemClock;
use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::{Leaving, Tier, TierName};
use elcache_disk::io::{Engine as IoEngine, start};
use elcache_disk::{DiskConfig, DiskParts, DiskTier};
use elcache_engine::{
    Admission, Engine, EngineConfig, Found, MAX_SMALL, Opened, PutOptions, Readable, Value, WriteError,
};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;

const MIB: usize = 1 << 20;

struct Node {
    engine: Arc<Engine>,
    memory: Arc<MemoryTier>,
    disk: Arc<DiskTier>,
    path: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn scratch() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("elcache-tiers-{}-{number}", std::process::id()))
}

async fn disk_tier(
    path: &Path,
    budget: &Arc<Budget>,
    memory: &Arc<MemoryTier>,
    max_bytes: u64,
) -> Arc<DiskTier> {
    let mut count = 0;
    let parts = DiskParts {
        config: DiskConfig { max_bytes, ..DiskConfig::default() },
        device: start(IoEngine::Auto, 64).unwrap().device,
        path: path.to_owned(),
        lock: Some(elcache_disk::lock(path).unwrap()),
        node_name: "test".to_owned(),
        budget: Arc::clone(budget),
        buffers: memory.clone(),
        clock: Arc::new(SystemClock),
        random: Box::new(move || {
            count += 1;
            count
        }),
    };
    let disk = DiskTier::open(parts).await.unwrap();
    disk.recovered().await;
    disk
}

async fn node(memory_mib: u64, disk_mib: u64) -> Node {
    node_with(memory_mib, disk_mib, Admission::All).await
}

async fn node_with(memory_mib: u64, disk_mib: u64, admission: Admission) -> Node {
    let budget = Budget::new(memory_mib << 20);
    let clock = Arc::new(SystemClock);
    let memory = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 7).unwrap();
    let path = scratch();
    let disk = disk_tier(&path, &budget, &memory, disk_mib << 20).await;
    let tiers: Vec<Arc<dyn Tier>> = vec![memory.clone(), disk.clone()];
    let config = EngineConfig { admission, ..EngineConfig::default() };
    let engine = Engine::new(config, tiers, memory.clone(), clock, budget, Metrics::new());
    memory.set_below(engine.demoter().unwrap());
    Node { engine, memory, disk, path }
}

fn key(number: usize) -> Key {
    Key::new(format!("key/{number}")).unwrap()
}

fn content(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + number * 7 + i / 4096) as u8).collect()
}

async fn put(node: &Node, number: usize, bytes: &[u8], options: PutOptions) -> Result<(), WriteError> {
    if bytes.len() <= MAX_SMALL {
        return node.engine.put_small(&key(number), &options, bytes).await.map(drop);
    }
    let options = PutOptions { length: Some(bytes.len() as u64), ..options };
    let Opened::Upload(mut upload) = node.engine.open(key(number), options).await? else { return Ok(()) };
    let mut rest = bytes;
    while !rest.is_empty() {
        upload.ready().await?;
        let count = upload.space().len().min(rest.len());
        upload.space()[..count].copy_from_slice(&rest[..count]);
        upload.filled(count);
        rest = &rest[count..];
    }
    upload.finish().await.map(drop)
}

async fn find(node: &Node, number: usize) -> Option<Arc<Value>> {
    match node.engine.get(&key(number)).await {
        Found::Value(value) => Some(Arc::new(value)),
        Found::Miss => None,
        Found::Busy => panic!("the node is busy"),
    }
}

/// A span of a value, and the slowest tier that took part; `None` when it is not there.
async fn read(node: &Node, number: usize, span: impl Fn(u64) -> Span) -> Option<(Vec<u8>, TierName)> {
    let value = find(node, number).await?;
    let span = span(value.meta.size);
    let Readable::Whole(tier) = node.engine.readable(&value, &[span]).await else { return None };
    let mut reader = node.engine.reader(value, span);
    let mut bytes = Vec::new();
    while let Some(payload) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&payload.to_contiguous());
        reader.advance(payload.len() as u64);
    }
    Some((bytes, tier))
}

async fn read_all(node: &Node, number: usize) -> Option<(Vec<u8>, TierName)> {
    read(node, number, Span::whole).await
}

/// Pushes everything else out of memory, without going to the disk.
async fn flush_memory(node: &Node, mib: usize) {
    for number in 0..mib {
        let options = PutOptions { no_disk: true, ..PutOptions::default() };
        put(node, 1_000_000 + number, &content(number, MIB), options).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_has_not_comes_from_the_disk_and_stays_in_memory() {
    let node = node(32, 512).await;
    let sizes = [10, 40_000, 200_000, 3 * MIB, 9 * MIB + 5];
    for (number, &size) in sizes.iter().enumerate() {
        put(&node, number, &content(number, size), PutOptions::default()).await.unwrap();
    }
    flush_memory(&node, 80).await;
    for (number, &size) in sizes.iter().enumerate() {
        let (bytes, tier) = read_all(&node, number).await.unwrap();
        assert!(bytes == content(number, size), "value {number}");
        assert_eq!(tier, TierName::Disk, "value {number}");
        let (bytes, tier) = read_all(&node, number).await.unwrap();
        assert!(bytes == content(number, size), "value {number} from memory");
        assert_eq!(tier, TierName::Memory, "value {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_read_as_a_part_until_as_much_was_asked_for_as_there_is() {
    let node = node(32, 512).await;
    let options = PutOptions { no_memory: true, ..PutOptions::default() };
    put(&node, 0, &content(0, 8 * MIB), options).await.unwrap();
    put(&node, 1, &content(1, 8 * MIB), PutOptions::default()).await.unwrap();
    flush_memory(&node, 80).await;
    let part = |number, at: u64| read(&node, number, move |_| Span::new(at, at + 65_536).unwrap());
    let (first, tier) = part(1, 100_000).await.unwrap();
    assert_eq!((&first[..], tier), (&content(1, 8 * MIB)[100_000..165_536], TierName::Disk));
    let deadline = Instant::now() + Duration::from_secs(30);
    while part(1, 100_000).await.unwrap().1 != TierName::Memory {
        assert!(Instant::now() < deadline, "a part that is read again and again never came to memory");
    }
    for _ in 0..200 {
        assert_eq!(part(0, 100_000).await.unwrap().1, TierName::Disk, "it was to be kept out of memory");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_the_same_cold_bytes_cause_one_read() {
    let node = Arc::new(node(64, 512).await);
    put(&node, 0, &content(0, 8 * MIB), PutOptions::default()).await.unwrap();
    put(&node, 1, &content(1, 2 * MIB), PutOptions::default()).await.unwrap();
    flush_memory(&node, 160).await;
    let read_bytes = || node.disk.usage().device.unwrap().read_bytes;
    let before = read_bytes();
    let readers: Vec<_> = (0..32)
        .map(|reader| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { read_all(&node, reader % 2).await.unwrap().0.len() })
        })
        .collect();
    for (reader, read) in readers.into_iter().enumerate() {
        assert_eq!(read.await.unwrap(), [8 * MIB, 2 * MIB][reader % 2]);
    }
    // Roots and pages may be read by each who comes before they are in memory; payloads only once.
    let read = read_bytes() - before;
    assert!(read < 11 << 20, "{read} bytes were read for 10 MiB");
}

/// Whoever looked for a value before another reader had it kept in memory once read it from the disk a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_late_to_a_cold_value_finds_it_in_memory() {
    let node = node(64, 512).await;
    put(&node, 0, &content(0, 2 * MIB), PutOptions::default()).await.unwrap();
    flush_memory(&node, 160).await;
    let late = find(&node, 0).await.unwrap();
    read_all(&node, 0).await.unwrap();
    let before = node.disk.usage().device.unwrap().read_bytes;
    let read = node.engine.reader(late, Span::whole(2 * MIB as u64)).next().await.unwrap().unwrap();
    assert!(read.to_contiguous()[..] == content(0, 2 * MIB));
    assert_eq!(node.disk.usage().device.unwrap().read_bytes, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_evicts_goes_to_the_disk_when_it_is_not_there_any_more() {
    let node = node(256, 64).await;
    for number in 0..120 {
        put(&node, number, &content(number, MIB), PutOptions::default()).await.unwrap();
    }
    // The disk has the newest half at most, memory all of them.
    assert!(node.disk.usage().entries < 70, "{:?}", node.disk.usage());
    let lacks = |number| node.disk.lacks(Leaving::Value(key(number).as_bytes()));
    assert!((0..20).all(lacks));
    let mut came = None;
    for number in 0..200 {
        let options = PutOptions { no_disk: true, ..PutOptions::default() };
        put(&node, 1_000_000 + number, &content(number, MIB), options).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        came = (0..20).find(|number| !lacks(*number));
        if came.is_some() {
            break;
        }
    }
    let came = came.expect("memory evicted one of them, and the disk took it");
    assert_eq!(read_all(&node, came).await, Some((content(came, MIB), TierName::Disk)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_kept_off_the_disk_leaves_nothing_older_there() {
    let node = node(32, 512).await;
    put(&node, 0, &content(0, 1000), PutOptions::default()).await.unwrap();
    put(&node, 0, &content(1, 1000), PutOptions { no_disk: true, ..PutOptions::default() }).await.unwrap();
    flush_memory(&node, 80).await;
    let found = read_all(&node, 0).await;
    assert!(found.is_none_or(|(bytes, _)| bytes == content(1, 1000)), "the older value came back");
    let memory: &dyn Tier = &*node.memory;
    assert_eq!(memory.remove(&key(0)).now(), Some(Ok(true)), "the disk had it");
    assert_eq!(read_all(&node, 0).await, None, "the older value came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_larger_than_memory_streams_through() {
    let node = node(32, 512).await;
    let bytes = content(3, 100 * MIB);
    put(&node, 0, &bytes, PutOptions::default()).await.unwrap();
    let (read, tier) = read_all(&node, 0).await.unwrap();
    assert!(read == bytes);
    assert_eq!(tier, TierName::Disk);
    let too_large =
        node.engine.open(key(1), PutOptions { length: Some(1 << 30), ..PutOptions::default() }).await;
    assert!(matches!(too_large.map(drop), Err(WriteError::DoesNotFit)));
}

fn on_disk(node: &Node, number: usize) -> bool {
    !node.disk.lacks(Leaving::Value(key(number).as_bytes()))
}

async fn comes_to_the_disk(node: &Node, number: usize) -> bool {
    for _ in 0..500 {
        if on_disk(node, number) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_second_hit_the_disk_gets_what_is_stored_again() {
    let node = node_with(64, 512, Admission::SecondHit).await;
    for (number, len) in [(0, 0), (1, 1000), (2, 100_000), (3, 10 * MIB)] {
        put(&node, number, &content(number, len), PutOptions::default()).await.unwrap();
        assert!(!on_disk(&node, number), "{len} bytes that nobody has asked for");
        let newer = content(number + 10, len);
        put(&node, number, &newer, PutOptions::default()).await.unwrap();
        assert!(on_disk(&node, number), "{len} bytes, stored twice");
        assert!(read_all(&node, number).await.unwrap().0 == newer);
        node.engine.delete(&key(number), &Condition::default()).await.unwrap();
        assert!(!on_disk(&node, number) && read_all(&node, number).await.is_none());
    }
    assert_eq!(node.disk.usage().entries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_second_hit_the_disk_gets_what_memory_must_not_or_cannot_have() {
    let node = node_with(32, 512, Admission::SecondHit).await;
    let past_memory = PutOptions { no_memory: true, ..PutOptions::default() };
    put(&node, 0, &content(0, 1000), past_memory).await.unwrap();
    assert!(on_disk(&node, 0));
    put(&node, 1, &content(1, 100 * MIB), PutOptions::default()).await.unwrap();
    assert!(on_disk(&node, 1));
    put(&node, 2, &content(2, 1000), PutOptions { no_disk: true, ..PutOptions::default() }).await.unwrap();
    put(&node, 2, &content(2, 1000), PutOptions { no_disk: true, ..PutOptions::default() }).await.unwrap();
    assert!(!on_disk(&node, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_second_hit_what_was_asked_for_goes_to_the_disk_when_memory_evicts_it() {
    let node = node_with(64, 512, Admission::SecondHit).await;
    for number in 0..40 {
        put(&node, number, &content(number, 200_000), PutOptions::default()).await.unwrap();
    }
    for number in 0..20 {
        assert!(read_all(&node, number).await.is_some());
    }
    // What is asked for twice is dearer to memory than what comes and goes.
    for number in 0..400 {
        let options = PutOptions { no_disk: true, ..PutOptions::default() };
        put(&node, 1_000_000 + number, &content(number, MIB), options).await.unwrap();
        read_all(&node, 1_000_000 + number).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let arrived = (0..20).filter(|&number| on_disk(&node, number)).count();
    assert!(arrived >= 10, "{arrived} of 20 that were asked for");
    assert!((20..40).all(|number| !on_disk(&node, number)), "nobody has asked for these");
    for number in (0..20).filter(|&number| on_disk(&node, number)) {
        assert!(read_all(&node, number).await.unwrap().0 == content(number, 200_000));
    }
}

/// Chunks leave memory one by one, each as old as it is: the first to go would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_second_hit_what_is_in_chunks_goes_to_the_disk_as_soon_as_it_is_asked_for() {
    let node = node_with(64, 512, Admission::SecondHit).await;
    let bytes = content(0, 18 * MIB + 5);
    put(&node, 0, &bytes, PutOptions::default()).await.unwrap();
    assert!(!on_disk(&node, 0));
    assert!(read(&node, 0, |_| Span::new(5 << 20, (5 << 20) + 100).unwrap()).await.is_some());
    assert!(comes_to_the_disk(&node, 0).await);
    let memory: &dyn Tier = &*node.memory;
    assert_eq!(memory.remove(&key(0)).now(), Some(Ok(true)));
    flush_memory(&node, 200).await;
    let (read, tier) = read_all(&node, 0).await.unwrap();
    assert!(read == bytes);
    assert_eq!(tier, TierName::Disk);
    node.engine.delete(&key(0), &Condition::default()).await.unwrap();
    assert!(!on_disk(&node, 0) && find(&node, 0).await.is_none());
}

/// On its way to the disk a value is replaced or deleted: the older one must not come back from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_second_hit_what_is_replaced_on_its_way_to_the_disk_does_not_come_back() {
    let node = node_with(128, 512, Admission::SecondHit).await;
    for round in 0..30 {
        put(&node, round, &content(round, 9 * MIB), PutOptions::default()).await.unwrap();
        drop(find(&node, round).await.unwrap());
        if round % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(round as u64)).await;
        }
        if round % 2 == 0 {
            node.engine.delete(&key(round), &Condition::default()).await.unwrap();
        } else {
            let options = PutOptions { no_disk: true, ..PutOptions::default() };
            put(&node, round, &content(100 + round, 1000), options).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!on_disk(&node, round), "round {round}");
    }
}
