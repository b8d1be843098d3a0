//! The hot paths, each a thousand times. What is prepared outside is not counted.
#![allow(missing_docs, reason = "the macros make public items that nobody uses")]
#![allow(clippy::disallowed_methods, reason = "the harness's main exits the process")]

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use elcache_core::budget::Budget;
use elcache_core::clock::ManualClock;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::{Body, Lookup, NewBody, Reply, Root, Tier};
use elcache_core::value::{Metadata, Version};
use elcache_engine::{Engine, EngineConfig, Found};
use elcache_guards::{TIMES, bounds};
use elcache_http::range::{Ranges, Selection};
use elcache_memory::policy::Policy;
use elcache_memory::{MemoryConfig, MemoryTier, Store, StoreConfig};
use elcache_metrics::Metrics;
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};

const VALUE: [u8; 1024] = [7; 1024];
const RANGE: &[u8] = b"bytes=4294967200-4295032735";
const VALUE_SIZE: u64 = 10 << 30;

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    config.tool(callgrind);
    config
}

fn metadata() -> Metadata {
    Metadata::new(VALUE.len() as u64, Digest([0; 32]), Version { view: 0, sequence: 1 }, 1)
}

fn keys(from: u64) -> Vec<Key> {
    let key = |number: u64| Key::new(format!("guards/of/hot/{number:010}")).expect("a key");
    (from..from + TIMES).map(key).collect()
}

/// A store full of the first keys: one value more, and one has to go.
fn full_store() -> (Store, Vec<Key>) {
    let budget = Budget::new(64 << 20);
    let make = |capacity| StoreConfig { shards: Some(2), capacity_bytes: Some(capacity), seed: 7 };
    let fill = |store: &Store, keys: &[Key]| {
        keys.iter().for_each(|key| store.put_value(key.as_bytes(), &metadata(), &VALUE).expect("room"));
    };
    let first = keys(0);
    let probe = Store::new(&make(32 << 20), Arc::clone(&budget)).expect("a store");
    fill(&probe, &first);
    let store = Store::new(&make(probe.used_bytes()), budget).expect("a store");
    fill(&store, &first);
    (store, first)
}

fn store_and_new_keys() -> (Store, Vec<Key>) {
    (full_store().0, keys(TIMES))
}

fn tier() -> (Arc<MemoryTier>, Vec<Key>) {
    let clock = Arc::new(ManualClock::new(1));
    let tier = MemoryTier::new(MemoryConfig::default(), &Budget::new(64 << 20), clock, 7).expect("a tier");
    let keys = keys(0);
    for key in &keys {
        let Reply::Ready(done) = tier.commit(key, &metadata(), NewBody::Borrowed(&VALUE)) else { continue };
        done.expect("room");
    }
    (tier, keys)
}

fn engine() -> (Arc<Engine>, Vec<Key>) {
    let (tier, keys) = tier();
    let clock = Arc::new(ManualClock::new(1));
    let engine = Engine::new(
        EngineConfig::default(),
        vec![tier.clone()],
        tier,
        clock,
        Budget::new(64 << 20),
        Metrics::new(),
    );
    (engine, keys)
}

/// A policy with as many residents of weight 1 as it has room for, half of them used twice.
fn policy() -> Policy {
    let mut policy = Policy::new(TIMES);
    for slot in 0..TIMES {
        let admission = policy.admit(slot, 1);
        policy.insert(slot as u32, 1, admission);
    }
    (0..TIMES as u32).step_by(2).for_each(|slot| policy.hit(slot));
    policy
}

#[library_benchmark(config = at_most(bounds::STORE_HIT))]
#[bench::of_1_kib(full_store())]
fn store_hit((store, keys): (Store, Vec<Key>)) -> (usize, Store, Vec<Key>) {
    let hit = |key: &&Key| {
        store.get(black_box(key.as_bytes())).is_some_and(|record| record.content().first() == Some(&1))
    };
    let hits = keys.iter().filter(hit).count();
    assert_eq!(hits as u64, TIMES);
    (hits, store, keys)
}

#[library_benchmark(config = at_most(bounds::STORE_MISS))]
#[bench::of_a_new_key(store_and_new_keys())]
fn store_miss((store, keys): (Store, Vec<Key>)) -> (Store, Vec<Key>) {
    assert!(!keys.iter().any(|key| store.get(black_box(key.as_bytes())).is_some()));
    (store, keys)
}

#[library_benchmark(config = at_most(bounds::STORE_INSERT))]
#[bench::of_1_kib(store_and_new_keys())]
fn store_insert((store, keys): (Store, Vec<Key>)) -> (Store, Vec<Key>) {
    let meta = metadata();
    keys.iter().for_each(|key| store.put_value(black_box(key.as_bytes()), &meta, &VALUE).expect("room"));
    (store, keys)
}

#[library_benchmark(config = at_most(bounds::TIER_HIT))]
#[bench::of_1_kib(tier())]
fn tier_hit((tier, keys): (Arc<MemoryTier>, Vec<Key>)) -> (u64, Arc<MemoryTier>, Vec<Key>) {
    let mut bytes = 0;
    for key in &keys {
        if let Reply::Ready(Lookup::Hit(Root { body: Body::Here(data), .. })) = tier.root(black_box(key)) {
            bytes += data.len() as u64;
        }
    }
    assert_eq!(bytes, TIMES * VALUE.len() as u64);
    (bytes, tier, keys)
}

#[library_benchmark(config = at_most(bounds::ENGINE_HIT))]
#[bench::of_1_kib(engine())]
fn engine_hit((engine, keys): (Arc<Engine>, Vec<Key>)) -> (u64, Arc<Engine>, Vec<Key>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut hits = 0;
    for key in &keys {
        let found = pin!(engine.get(black_box(key))).poll(&mut context);
        hits += u64::from(matches!(found, Poll::Ready(Found::Value(_))));
    }
    assert_eq!(hits, TIMES);
    (hits, engine, keys)
}

#[library_benchmark(config = at_most(bounds::ARC_HIT))]
#[bench::of_any_resident(policy())]
fn arc_hit(mut policy: Policy) -> Policy {
    // A step that is prime to the number of residents comes by all of them, in no order of theirs.
    (0..TIMES).for_each(|step| policy.hit(black_box((step * 387 % TIMES) as u32)));
    policy
}

#[library_benchmark(config = at_most(bounds::ARC_INSERT))]
#[bench::with_an_eviction(policy())]
fn arc_insert(mut policy: Policy) -> Policy {
    for id in TIMES..2 * TIMES {
        let admission = policy.admit(black_box(id), 1);
        let Some(victim) = policy.victim(admission) else { break };
        policy.evict(victim, id - TIMES);
        policy.insert(victim, 1, admission);
    }
    policy
}

#[library_benchmark(config = at_most(bounds::RANGE_PLAN))]
#[bench::across_two_chunks(RANGE)]
fn range_plan(header: &[u8]) -> u64 {
    let mut bytes = 0;
    for _ in 0..TIMES {
        if let Selection::One(span) = Ranges::parse(black_box(header)).select(black_box(VALUE_SIZE)) {
            bytes += pieces(span);
        }
    }
    assert_eq!(bytes, TIMES << 16);
    bytes
}

/// The bytes in a span's pieces, cut one after another as a reader does.
fn pieces(mut span: Span) -> u64 {
    let mut bytes = 0;
    while let Some(piece) = span.first_piece() {
        bytes += black_box(piece).len();
        span = span.skip(piece.len());
    }
    bytes
}

library_benchmark_group!(
    name = memory,
    benchmarks = [store_hit, store_miss, store_insert, tier_hit, engine_hit]
);
library_benchmark_group!(name = decisions, benchmarks = [arc_hit, arc_insert, range_plan]);
main!(library_benchmark_groups = [memory, decisions]);
