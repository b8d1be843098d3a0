//! What is said of values of which something is missing, over a tier that does and counts as it is told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::span::Span;
use elcache_core::tier::{
    Body, ChunkRef, Evicted, Hold, Leaving, Lookup, NewBody, PageRef, Part, Presence, Refusal, Reply, Root,
    Staged, StagedPage, Tier, TierName, Usage,
};
use elcache_core::tree::{self, CHUNK_SIZE, PAGE_DIGESTS};
use elcache_core::value::{Metadata, Version};
use elcache_engine::{Engine, EngineConfig, Found, Readable, Value};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use parking_lot::Mutex;

const TIB: u64 = 1 << 40;
const PAGE: u64 = PAGE_DIGESTS * CHUNK_SIZE;

/// A disk with one value on it, of which chunks and pages are missing as they are told to.
struct Fake {
    root: Mutex<Option<Metadata>>,
    missing_chunks: Mutex<HashSet<u64>>,
    /// Chunks from this number on are missing.
    gone_from: AtomicU64,
    missing_pages: Mutex<HashSet<u64>>,
    out_of_reach: AtomicBool,
    busy: AtomicBool,
    shrunk: AtomicU64,
    clock: Arc<Hand>,
    /// Looking into a page takes so long.
    page_ms: AtomicU64,
    /// Chunks that were looked for, and pages that were read.
    looked_for: AtomicU64,
    pages_read: AtomicU64,
}

impl Fake {
    fn new(size: u64) -> Arc<Self> {
        let meta = Metadata::new(size, Digest([1; 32]), Version { view: 0, sequence: 5 }, 1);
        Arc::new(Self {
            root: Mutex::new(Some(meta)),
            missing_chunks: Mutex::default(),
            gone_from: AtomicU64::new(u64::MAX),
            missing_pages: Mutex::default(),
            out_of_reach: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            shrunk: AtomicU64::new(0),
            clock: Arc::default(),
            page_ms: AtomicU64::new(0),
            looked_for: AtomicU64::new(0),
            pages_read: AtomicU64::new(0),
        })
    }

    fn lose(&self, chunks: impl IntoIterator<Item = u64>) {
        self.missing_chunks.lock().extend(chunks);
        self.shrunk.fetch_add(1, Ordering::SeqCst);
    }

    fn lose_from(&self, number: u64) {
        self.gone_from.store(number, Ordering::SeqCst);
        self.shrunk.fetch_add(1, Ordering::SeqCst);
    }

    fn looks(&self) -> u64 {
        self.looked_for.swap(0, Ordering::SeqCst)
    }

    fn presence(&self, number: u64) -> Presence {
        let is_here =
            number < self.gone_from.load(Ordering::SeqCst) && !self.missing_chunks.lock().contains(&number);
        match is_here {
            true => Presence::Here,
            false if self.out_of_reach.load(Ordering::SeqCst) => Presence::OutOfReach,
            false => Presence::Absent,
        }
    }
}

impl Tier for Fake {
    fn name(&self) -> TierName {
        TierName::Disk
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        Reply::Ready(Ok(Version::default()))
    }

    fn root(&self, _: &Key) -> Reply<'_, Lookup<Root>> {
        let root = self.root.lock().clone().map(|meta| Root { meta, body: Body::Chunks(None) });
        Reply::Ready(root.map_or(Lookup::Miss, Lookup::Hit))
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        if self.missing_pages.lock().contains(&page.number) {
            return Reply::Ready(Lookup::Miss);
        }
        self.pages_read.fetch_add(1, Ordering::SeqCst);
        Reply::Ready(Lookup::Hit(Bytes::from(vec![7; tree::PAGE_SIZE]).into()))
    }

    fn chunk(&self, _: &ChunkRef, _: u32, _: u32) -> Reply<'_, Lookup<Part>> {
        Reply::Ready(Lookup::Miss)
    }

    fn chunk_whole(&self, _: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        Reply::Ready(Lookup::Miss)
    }

    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool> {
        self.looked_for.fetch_add(1, Ordering::SeqCst);
        Reply::Ready(self.presence(chunk.number) == Presence::Here)
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        if self.busy.load(Ordering::SeqCst) {
            return Reply::Ready(Lookup::Busy);
        }
        self.looked_for.fetch_add(chunks.len() as u64, Ordering::SeqCst);
        self.clock.advance(self.page_ms.load(Ordering::SeqCst));
        Reply::Ready(Lookup::Hit(chunks.iter().map(|chunk| self.presence(chunk.number)).collect()))
    }

    fn shrunk(&self) -> u64 {
        self.shrunk.load(Ordering::SeqCst)
    }

    fn admit(&self, _: u64) -> Reply<'_, Result<Hold, Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn largest_admission(&self) -> u64 {
        0
    }

    fn stage(&self, _: ChunkRef, _: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn stage_page(&self, _: PageRef, _: Bytes, _: Vec<Staged>) -> Reply<'_, Result<StagedPage, Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn commit<'a>(&'a self, _: &'a Key, _: &'a Metadata, _: NewBody<'a>) -> Reply<'a, Result<(), Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn remove<'a>(&'a self, _: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        Reply::Ready(Ok(self.root.lock().take().is_some()))
    }

    fn keep_chunk(&self, _: &ChunkRef, _: Filled) -> Option<Payload> {
        None
    }

    fn keep_page(&self, _: &PageRef, _: &[u8]) {}

    fn lacks(&self, leaving: Leaving<'_>) -> bool {
        matches!(leaving, Leaving::Page(page) if self.missing_pages.lock().contains(&page.number))
    }

    fn demote(&self, _: Evicted) -> Reply<'_, Result<(), Refusal>> {
        Reply::Ready(Err(Refusal::Failed))
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// A clock that goes on when it is told to. While it stands, counting takes no time, and no count holds longer than until something
/// has gone.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        1_000_000 + self.0.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct Node {
    engine: Arc<Engine>,
    memory: Arc<MemoryTier>,
    disk: Arc<Fake>,
}

impl Node {
    fn new(size: u64) -> Self {
        let budget = Budget::new(64 << 20);
        let disk = Fake::new(size);
        let clock: Arc<dyn Clock> = disk.clock.clone();
        let memory = MemoryTier::new(MemoryConfig::default(), &budget, Arc::clone(&clock), 1).unwrap();
        let tiers: Vec<Arc<dyn Tier>> = vec![memory.clone(), disk.clone()];
        let engine =
            Engine::new(EngineConfig::default(), tiers, memory.clone(), clock, budget, Metrics::new());
        Self { engine, memory, disk }
    }

    async fn find(&self) -> Option<Value> {
        match self.engine.get(&key()).await {
            Found::Value(value) => Some(value),
            Found::Miss => None,
            Found::Busy => panic!("nothing is busy"),
        }
    }

    async fn ask(&self, start: u64, end: u64) -> Readable {
        let value = self.find().await.expect("the value is there");
        self.engine.readable(&value, &[Span::new(start, end).unwrap()]).await
    }

    /// Waits until nothing is counted any more.
    async fn rest(&self) {
        let mut before = u64::MAX;
        while before != self.disk.looked_for.load(Ordering::SeqCst) {
            before = self.disk.looked_for.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ask_all(&self) -> Readable {
        let value = self.find().await.expect("the value is there");
        self.engine.readable(&value, &[Span::whole(value.meta.size)]).await
    }
}

fn key() -> Key {
    Key::new("k").unwrap()
}

fn partial(available_percent: u8) -> Readable {
    Readable::Partial { available_percent }
}

const WHOLE: Readable = Readable::Whole(TierName::Disk);

#[tokio::test]
async fn a_range_that_needs_few_chunks_has_those_looked_for_and_no_others() {
    let node = Node::new(20 * TIB);
    node.disk.lose([0, 1, 99]);
    assert_eq!(node.ask(7 * CHUNK_SIZE + 5, 9 * CHUNK_SIZE).await, WHOLE);
    assert_eq!((node.disk.looks(), node.disk.pages_read.load(Ordering::SeqCst)), (2, 1));
    // Across the border of two pages.
    assert_eq!(node.ask(PAGE - 1, PAGE + 1).await, WHOLE);
    assert_eq!(node.disk.looks(), 2);
}

/// Each miss of a range of the largest value had five million chunks looked for, and 2560 pages read.
#[tokio::test]
async fn what_is_missing_of_a_large_value_is_counted_once_and_not_for_each_who_asks() {
    let node = Node::new(20 * TIB);
    let chunks = tree::chunk_count(20 * TIB);
    node.disk.lose_from(chunks / 4);
    let miss = || node.ask(15 * TIB, 15 * TIB + 10);
    assert_eq!(miss().await, partial(25), "of a sample");
    let first = node.disk.looks();
    assert!(first < chunks / 100);
    node.rest().await;
    assert!(first + node.disk.looks() >= chunks, "the exact count goes on");
    for _ in 0..100 {
        assert_eq!(miss().await, partial(25));
    }
    assert_eq!(node.disk.looks(), 100, "the chunk that was asked for each time, and nothing else");
    assert_eq!(node.ask_all().await, partial(25));
    assert_eq!(node.disk.looks(), 1, "the one that is known to be missing");
}

#[tokio::test]
async fn what_is_whole_is_so_until_something_may_have_gone() {
    let node = Node::new(2 * PAGE + 5);
    let all = 2 * PAGE_DIGESTS + 1;
    assert_eq!(node.ask_all().await, WHOLE);
    assert_eq!(node.disk.looks(), all);
    assert_eq!((node.ask_all().await, node.ask(1, 2 * PAGE + 5).await), (WHOLE, WHOLE));
    assert_eq!(node.disk.looks(), 0);
    node.disk.lose([2 * PAGE_DIGESTS]);
    assert_eq!(node.ask_all().await, partial(99), "5 bytes of 16 GiB are missing: not 100");
    assert_eq!(node.ask(0, 2 * PAGE).await, WHOLE, "without the last chunk");
    assert_eq!(node.ask(0, 2 * PAGE + 1).await, partial(99));
}

/// A full GET must not be refused for ever because something was missing once.
#[tokio::test]
async fn what_has_come_back_is_not_refused() {
    let node = Node::new(2 * PAGE);
    node.disk.lose([5, 6, 7]);
    assert_eq!(node.ask_all().await, partial(99));
    node.disk.missing_chunks.lock().clear();
    assert_eq!(node.ask_all().await, WHOLE, "nothing but chunks has come since");
    node.disk.missing_pages.lock().insert(1);
    node.disk.shrunk.fetch_add(1, Ordering::SeqCst);
    assert_eq!(node.ask_all().await, partial(50), "a page, and with it its chunks");
    assert_eq!(node.ask(PAGE, PAGE + 1).await, partial(50));
    assert_eq!(node.ask(0, PAGE).await, WHOLE);
    node.disk.missing_pages.lock().clear();
    assert_eq!(node.ask_all().await, WHOLE);
}

/// What memory has besides the disk comes and goes all the time; what it alone has counts.
#[tokio::test]
async fn what_memory_evicts_is_no_matter_as_long_as_the_disk_has_it_all() {
    let node = Node::new(2 * PAGE);
    let shrink_memory = || {
        let before = node.memory.shrunk();
        let owner = Metadata::new(1, Digest([1; 32]), Version::default(), 1).owner(key().hash());
        (0..).take_while(|_| node.memory.shrunk() == before).for_each(|number| {
            node.memory.keep_page(&PageRef { owner, number }, &[number as u8; 65_536]);
        });
    };
    assert_eq!(node.ask_all().await, WHOLE);
    node.disk.looks();
    shrink_memory();
    assert_eq!(node.ask_all().await, WHOLE);
    assert_eq!(node.disk.looks(), 0);
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_count() {
    let node = Node::new(4 * TIB);
    let value = node.find().await.unwrap();
    let span = [Span::whole(4 * TIB)];
    let ask = || node.engine.readable(&value, &span);
    let answers = tokio::join!(ask(), ask(), ask(), ask(), ask());
    assert_eq!(answers, (WHOLE, WHOLE, WHOLE, WHOLE, WHOLE));
    let looks = node.disk.looks();
    assert!(looks < tree::chunk_count(4 * TIB) * 5 / 4, "{looks}");
}

/// On a slow disk counting takes longer than a client may wait. Each who asked began anew, and nobody ever had an answer.
#[tokio::test]
async fn a_count_goes_on_when_nobody_waits_for_it_any_more() {
    let node = Node::new(4 * TIB);
    let value = node.find().await.unwrap();
    let span = [Span::whole(4 * TIB)];
    {
        let mut asked = std::pin::pin!(node.engine.readable(&value, &span));
        assert!(poll_once(asked.as_mut()).await.is_none());
    }
    node.rest().await;
    assert!(node.disk.looks() >= tree::chunk_count(4 * TIB));
    assert_eq!(node.engine.readable(&value, &span).await, WHOLE);
    assert_eq!(node.disk.looks(), 0);
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// A node that evicts all the time counted all the time.
#[tokio::test]
async fn a_count_of_what_is_missing_holds_for_many_times_as_long_as_it_took() {
    let node = Node::new(TIB);
    let (all, pages) = (tree::chunk_count(TIB), tree::page_count(TIB));
    node.disk.page_ms.store(1, Ordering::SeqCst);
    node.disk.lose_from(all / 2);
    assert_eq!(node.ask_all().await, partial(50));
    node.rest().await;
    assert!(node.disk.looks() >= all);
    for number in 0..10 {
        node.disk.lose([number]);
        assert_eq!(node.ask(TIB - 1, TIB).await, partial(50));
        node.rest().await;
    }
    assert!(node.disk.looks() < 100);
    node.disk.lose_from(all / 4);
    node.disk.clock.advance(40 * pages);
    assert_eq!(node.ask(TIB - 1, TIB).await, partial(24), "a quarter, less ten chunks");
    node.rest().await;
    assert!(node.disk.looks() >= all);
}

#[tokio::test]
async fn a_value_of_which_nothing_is_left_is_gone() {
    for size in [CHUNK_SIZE + 1, PAGE + 1, 4 * TIB] {
        let node = Node::new(size);
        node.disk.lose_from(0);
        // Of the largest the first answer is of a sample.
        let mut answers = Vec::new();
        while let Some(value) = node.find().await {
            answers.push(node.engine.readable(&value, &[Span::new(0, 1).unwrap()]).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let last = answers.pop();
        assert!(last == Some(Readable::Gone) || (size == 4 * TIB && last == Some(partial(0))), "{last:?}");
        assert!(answers.iter().all(|answer| *answer == partial(0)), "{answers:?}");
        assert_eq!(*node.disk.root.lock(), None);
    }
}

#[tokio::test]
async fn a_value_without_a_page_is_gone() {
    let node = Node::new(3 * CHUNK_SIZE);
    node.disk.missing_pages.lock().insert(0);
    assert_eq!(node.ask(0, 1).await, Readable::Gone);
    assert!(node.find().await.is_none());
}

#[tokio::test]
async fn what_may_be_somewhere_still_does_not_go() {
    for size in [CHUNK_SIZE + 1, PAGE + 1] {
        let node = Node::new(size);
        node.disk.lose_from(0);
        node.disk.out_of_reach.store(true, Ordering::SeqCst);
        assert_eq!((node.ask(0, 1).await, node.ask_all().await), (partial(0), partial(0)));
        node.disk.busy.store(true, Ordering::SeqCst);
        node.disk.shrunk.fetch_add(1, Ordering::SeqCst);
        assert_eq!((node.ask(0, 1).await, node.ask_all().await), (Readable::Busy, Readable::Busy));
        assert!(node.find().await.is_some());
        node.disk.busy.store(false, Ordering::SeqCst);
        node.disk.out_of_reach.store(false, Ordering::SeqCst);
        assert_eq!(node.ask_all().await, Readable::Gone);
    }
}

/// Whoever found the value before it was replaced must not have the new one removed.
#[tokio::test]
async fn a_newer_value_of_the_key_stays() {
    let node = Node::new(CHUNK_SIZE + 1);
    let before = node.find().await.unwrap();
    node.disk.lose_from(0);
    let newer = Metadata::new(CHUNK_SIZE + 1, Digest([2; 32]), Version { view: 0, sequence: 6 }, 1);
    *node.disk.root.lock() = Some(newer.clone());
    node.memory.remove(&key()).get().await.unwrap();
    let readable = node.engine.readable(&before, &[Span::whole(CHUNK_SIZE + 1)]).await;
    assert_eq!(readable, partial(0));
    assert_eq!(*node.disk.root.lock(), Some(newer));
}

#[tokio::test]
async fn more_values_than_are_remembered_are_all_answered() {
    let node = Node::new(PAGE + 1);
    node.disk.lose([4]);
    for number in 0..600 {
        let version = Version { view: 0, sequence: 10 + number };
        node.disk.root.lock().as_mut().unwrap().version = version;
        node.memory.remove(&key()).get().await.unwrap();
        assert_eq!(node.ask_all().await, partial(99));
    }
}

/// Spans of chunks as runs of bytes.
fn bytes(chunks: &[(u64, u64)]) -> Vec<(u64, u64)> {
    chunks.iter().map(|(from, to)| (from * CHUNK_SIZE, (to - from) * CHUNK_SIZE)).collect()
}

#[tokio::test]
async fn runs_are_what_is_there_of_a_span_and_end_with_it() {
    let node = Node::new(2 * PAGE + 5);
    node.disk.lose([0, 3, 4, PAGE_DIGESTS - 1]);
    let value = node.find().await.unwrap();
    let of = async |start, end, most| {
        node.engine.runs(&value, Span::new(start, end).unwrap(), most).await.unwrap()
    };
    let all = of(0, 2 * PAGE + 5, 100).await;
    let last = (PAGE, PAGE + 5);
    assert_eq!(all.ranges, [&bytes(&[(1, 3), (5, PAGE_DIGESTS - 1)])[..], &[last]].concat());
    assert_eq!((all.covered, all.slowest), (2 * PAGE + 5, TierName::Disk));
    // Within chunks, and over a missing one.
    let part = of(3 * CHUNK_SIZE - 2, 5 * CHUNK_SIZE + 7, 100).await;
    assert_eq!(part.ranges, [(3 * CHUNK_SIZE - 2, 2), (5 * CHUNK_SIZE, 7)]);
    // As many as are wanted: the rest begins where it is said that they end.
    let first = of(0, 2 * PAGE, 1).await;
    assert_eq!((first.ranges, first.covered), (bytes(&[(1, 3)]), 5 * CHUNK_SIZE));
    assert_eq!(of(7, 7, 1).await.ranges, []);
    assert_eq!(of(9, 2 * CHUNK_SIZE, 0).await.ranges, []);
    node.disk.missing_pages.lock().insert(0);
    assert_eq!(of(0, 2 * PAGE + 5, 9).await.ranges, [last]);
    node.disk.busy.store(true, Ordering::SeqCst);
    assert_eq!(node.engine.runs(&value, Span::new(PAGE, PAGE + 5).unwrap(), 9).await, None);
}

/// Nobody is kept waiting for five million chunks that are all there.
#[tokio::test]
async fn runs_of_the_largest_value_are_told_in_parts_that_cover_it() {
    let node = Node::new(20 * TIB);
    node.disk.lose([5_000_000]);
    let value = node.find().await.unwrap();
    let (mut from, mut told, mut parts) = (0, 0, 0);
    while from < 20 * TIB {
        let runs = node.engine.runs(&value, Span::new(from, 20 * TIB).unwrap(), 10).await.unwrap();
        assert!(runs.covered > from, "each part tells something");
        assert!(node.disk.looks() <= 64 * PAGE_DIGESTS);
        told += runs.ranges.iter().map(|(_, len)| len).sum::<u64>();
        (from, parts) = (runs.covered, parts + 1);
    }
    assert_eq!((told, parts), (20 * TIB - CHUNK_SIZE, 40));
}

#[tokio::test]
async fn the_beginning_of_a_span_is_what_can_be_read_of_it() {
    let node = Node::new(2 * PAGE);
    let value = node.find().await.unwrap();
    let of = async |start, end| {
        let (span, tier) = node.engine.beginning(&value, Span::new(start, end).unwrap()).await.unwrap();
        assert_eq!((span.start(), tier), (start, TierName::Disk));
        span.end()
    };
    assert_eq!(of(5, 2 * PAGE).await, 2 * PAGE);
    node.disk.lose([7, PAGE_DIGESTS + 1]);
    assert_eq!(of(5, 2 * PAGE).await, 7 * CHUNK_SIZE);
    assert_eq!(of(7 * CHUNK_SIZE + 1, PAGE).await, 7 * CHUNK_SIZE + 1, "nothing");
    assert_eq!(of(8 * CHUNK_SIZE + 1, 2 * PAGE).await, PAGE + CHUNK_SIZE);
    assert_eq!(of(PAGE, PAGE + 9).await, PAGE + 9);
    node.disk.busy.store(true, Ordering::SeqCst);
    assert_eq!(node.engine.beginning(&value, Span::whole(PAGE)).await, None);
}

#[tokio::test]
async fn a_look_that_must_not_wait_leaves_slower_tiers_alone_and_counts_nothing() {
    let node = Node::new(5);
    assert!(node.engine.get_now(&key()).is_none(), "the disk was not asked");
    let of_memory = || node.engine.stats().tiers.iter().map(|(_, stats)| (stats.hits, stats.misses)).next();
    assert_eq!(of_memory(), Some((0, 0)));
    let budget = Budget::new(64 << 20);
    let clock: Arc<dyn Clock> = node.disk.clock.clone();
    let memory = MemoryTier::new(MemoryConfig::default(), &budget, Arc::clone(&clock), 1).unwrap();
    let alone =
        Engine::new(EngineConfig::default(), vec![memory.clone()], memory, clock, budget, Metrics::new());
    assert!(matches!(alone.get_now(&key()), Some(Found::Miss)));
    alone.put_small(&key(), &Default::default(), b"five!").await.unwrap();
    let Some(Found::Value(value)) = alone.get_now(&key()) else { panic!("memory has it") };
    assert_eq!(&value.inline().unwrap().to_contiguous()[..], b"five!");
    let (_, stats) = &alone.stats().tiers[0];
    assert_eq!((stats.hits, stats.misses), (1, 1));
}
