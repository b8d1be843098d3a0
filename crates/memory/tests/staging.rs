//! The memory tier as a place for drafts.

#[path = "suite/staging.rs"]
mod suite;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use elcache_core::budget::Budget;
use elcache_core::clock::ManualClock;
use elcache_core::tier::Tier;
use elcache_memory::{MemoryConfig, MemoryTier};
use suite::Place;

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

async fn with_place(check: impl AsyncFnOnce(&Place<'_>)) {
    let node = Node::new(128 << 20);
    let in_use = || node.in_use();
    check(&Place { tier: &*node.tier, buffers: &*node.tier, in_use: &in_use }).await;
    eventually("everything is given back", || node.in_use() == 0);
    let usage = node.tier.usage();
    assert_eq!(usage.size_bytes, usage.index_bytes);
}

#[tokio::test]
async fn fragments_come_back() {
    with_place(suite::fragments_come_back).await;
}

#[tokio::test]
async fn chunks_stay_while_something_counts_on_them() {
    with_place(suite::chunks_stay_while_something_counts_on_them).await;
}

#[tokio::test]
async fn what_is_taken_comes_back() {
    with_place(suite::what_is_taken_comes_back).await;
}

#[tokio::test]
async fn a_draft_becomes_a_value() {
    with_place(suite::a_draft_becomes_a_value).await;
}
