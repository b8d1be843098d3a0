//! What is written is found, now and after every kind of restart.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::key::{Key, MAX_KEY_LEN};
use elcache_core::tier::{Body, ChunkRef, Lookup, NewBody, PageRef, Tier};
use elcache_core::tree::ChunkHasher;
use elcache_core::value::{Metadata, Version};

use super::support::{Dice, NOW_MS, Shape, Value, World, is_gone, key, same};
use crate::config::Durability;
use crate::io::sim::{Faults, Sim};
use crate::io::{Engine, start};
use crate::tier::DiskTier;

/// Values of all shapes.
fn values() -> Vec<Value> {
    let mut shapes = Vec::new();
    for len in [0, 1, 7, 4096, 20_000, 32_000, 32_768, 33 << 10, 65_535, 65_536, 65_537, 131_072, 200_001] {
        shapes.extend([Shape::Borrowed(len), Shape::Filled(len.max(1))]);
    }
    for (count, last) in [(2, 1), (2, 4096), (3, 99_999), (5, 70_000)] {
        shapes.push(Shape::Chunks(count, last));
    }
    let plain = shapes.into_iter().enumerate();
    let mut values: Vec<_> =
        plain.map(|(n, shape)| Value::new(&key(&format!("key {n}")), n as u64 + 1, shape)).collect();
    let longest = Key::new(vec![b'k'; MAX_KEY_LEN]).unwrap();
    values.push(Value::new(&longest, 100, Shape::Borrowed(10)).with_headers(61_000));
    values.push(Value::new(&key("headers"), 101, Shape::Borrowed(33_000)).with_headers(61_000));
    values.push(Value::new(&key("root with headers"), 102, Shape::Chunks(2, 5)).with_headers(61_000));
    values
}

async fn put_all(world: &World, tier: &DiskTier, values: &[Value]) {
    for value in values {
        assert_eq!(value.put(tier, &world.arena).await, Ok(()), "{:?}", value.shape);
    }
}

async fn check_all(tier: &DiskTier, values: &[Value]) {
    for value in values {
        value.assert_there(tier).await;
    }
}

#[tokio::test(start_paused = true)]
async fn values_of_all_shapes_survive_every_restart() {
    for durability in [Durability::Process, Durability::Power, Durability::None] {
        let world = World::durable(durability);
        let mut sim = Arc::new(Sim::new(1));
        let mut tier = world.open(&sim).await;
        let values = values();
        put_all(&world, &tier, &values).await;
        check_all(&tier, &values).await;
        for round in 0..8 {
            if round % 2 == 0 {
                tier.close().await;
            }
            drop(tier);
            sim = Arc::new(sim.kill(round));
            tier = world.open(&sim).await;
            check_all(&tier, &values).await;
            assert!(is_gone(&tier, &key("nobody")).await);
            let more = Value::new(&key(&format!("round {round}")), 1000 + round, Shape::Filled(50_000));
            put_all(&world, &tier, std::slice::from_ref(&more)).await;
            check_all(&tier, &[more]).await;
            assert_eq!(tier.report().damaged, 0);
        }
        for round in 0..8 {
            Value::new(&key(&format!("round {round}")), 1000 + round, Shape::Filled(50_000))
                .assert_there(&tier)
                .await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_or_deleted_stays_so() {
    let world = World::new();
    let mut sim = Arc::new(Sim::new(2));
    let mut tier = world.open(&sim).await;
    let shapes = [Shape::Borrowed(100), Shape::Filled(60_000), Shape::Chunks(3, 10), Shape::Borrowed(0)];
    let mut last = Vec::new();
    for (n, name) in (0..).zip(["a", "b", "c", "d", "e"]) {
        for sequence in 0..6 {
            let value = Value::new(&key(name), 10 * n + sequence + 1, shapes[(n + sequence) as usize % 4]);
            value.put(&tier, &world.arena).await.unwrap();
            value.assert_there(&tier).await;
            if sequence == 5 {
                last.push(value);
            }
        }
    }
    let gone = last.split_off(3);
    for value in &gone {
        assert_eq!(tier.remove(&value.key).get().await, Ok(true));
        assert_eq!(tier.remove(&value.key).get().await, Ok(false));
    }
    assert_eq!(tier.remove(&key("never")).get().await, Ok(false));
    for round in 0..5 {
        check_all(&tier, &last).await;
        for value in &gone {
            assert!(is_gone(&tier, &value.key).await, "{:?} is back", value.key);
        }
        assert_eq!(tier.usage().entries, 3);
        if round % 2 == 0 {
            tier.close().await;
        }
        drop(tier);
        sim = Arc::new(sim.kill(round));
        tier = world.open(&sim).await;
    }
    assert!(tier.recovered().await >= last[2].meta.version);
}

#[tokio::test(start_paused = true)]
async fn a_value_expires_and_stays_gone() {
    let world = World::new();
    let mut sim = Arc::new(Sim::new(3));
    let mut tier = world.open(&sim).await;
    let old = Value::new(&key("k"), 1, Shape::Borrowed(10));
    old.put(&tier, &world.arena).await.unwrap();
    let mut value = Value::new(&key("k"), 2, Shape::Borrowed(10));
    value.meta.expires_ms = Some(NOW_MS + 5000);
    value.put(&tier, &world.arena).await.unwrap();
    value.assert_there(&tier).await;
    world.clock.advance_ms(5000);
    assert!(is_gone(&tier, &value.key).await);
    for round in 0..3 {
        drop(tier);
        sim = Arc::new(sim.kill(round));
        tier = world.open(&sim).await;
        assert!(is_gone(&tier, &value.key).await);
        assert_eq!(tier.remove(&value.key).get().await, Ok(false));
    }
}

fn chunk_of(bytes: &[u8], number: u64) -> ChunkRef {
    let mut hasher = ChunkHasher::new(number);
    hasher.update(bytes);
    ChunkRef { digest: hasher.chunk().unwrap(), number, len: bytes.len() as u32 }
}

async fn check_ranges(tier: &DiskTier, chunk: &ChunkRef, bytes: &[u8], dice: &mut Dice) {
    let len = u64::from(chunk.len);
    let edges = [0, 1, 4095, 4096, 4097, len / 2, len.saturating_sub(1), len, 65_536, 131_072, 131_073];
    for _ in 0..60 {
        let mut pick = || match dice.below(3) {
            0 => dice.below(len + 1),
            _ => edges[dice.below(edges.len() as u64) as usize].min(len),
        };
        let (a, b) = (pick(), pick());
        let (from, to) = (a.min(b) as usize, a.max(b) as usize);
        match tier.chunk(chunk, from as u32, to as u32).get().await {
            Lookup::Hit(part) => same(&format!("{from}..{to}"), &part.bytes, &bytes[from..to]).unwrap(),
            other => panic!("{from}..{to} of {len}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whole_chunks_are_read_at_every_alignment_and_shared() {
    let mut world = World::with(|config| config.segment_bytes = Some(16 << 20));
    world.budget_bytes = 256 << 20;
    let mut sim = Arc::new(Sim::new(4));
    sim.set_faults(Faults { short: 0.3, ..Faults::default() });
    let mut tier = world.open(&sim).await;
    let mut dice = Dice::new(4);
    let mut chunks = Vec::new();
    for (number, len) in (0..).zip([4 << 20, 4 << 20, (4 << 20) - 1, 100_001, 4096, 1]) {
        let bytes = dice.bytes(len);
        let chunk = chunk_of(&bytes, number);
        let staged = tier.stage(chunk, world.arena.filled(&bytes, number)).get().await.unwrap();
        let written = tier.report().written_bytes;
        let again = tier.stage(chunk, world.arena.filled(&bytes, number)).get().await.unwrap();
        assert_eq!(tier.report().written_bytes, written, "a chunk that is there is not written again");
        drop((staged, again));
        chunks.push((chunk, bytes));
    }
    for round in 0..3 {
        for (chunk, bytes) in &chunks {
            assert!(tier.has_chunk(chunk).get().await);
            check_ranges(&tier, chunk, bytes, &mut dice).await;
            match tier.chunk_whole(chunk).get().await {
                Lookup::Hit(filled) => same("whole", &filled.payload(), bytes).unwrap(),
                _ => panic!("chunk {} is gone", chunk.number),
            }
        }
        assert_eq!(tier.report().damaged, 0);
        drop(tier);
        sim = Arc::new(sim.kill(round));
        tier = world.open(&sim).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_of_many_chunks_has_full_pages() {
    let world = World::new();
    let mut sim = Arc::new(Sim::new(5));
    let mut tier = world.open(&sim).await;
    let bytes = Dice::new(5).bytes(50_000);
    let chunk = chunk_of(&bytes, 0);
    let staged = tier.stage(chunk, world.arena.filled(&bytes, 0)).get().await.unwrap();
    let pages: Vec<Bytes> =
        [2048, 2048, 3].map(|count| Bytes::from(Dice::new(count).bytes(count as usize * 32))).into();
    let key = key("large");
    let version = Version { view: 1, sequence: 9 };
    let meta = Metadata::new(1 << 34, Digest([8; 32]), version, NOW_MS);
    let owner = meta.owner(key.hash());
    let mut staged = vec![staged];
    let mut kept = Vec::new();
    for (number, digests) in (0..).zip(&pages) {
        let page = PageRef { owner, number };
        kept.push(tier.stage_page(page, digests.clone(), std::mem::take(&mut staged)).get().await.unwrap());
    }
    tier.commit(&key, &meta, NewBody::Pages(kept)).get().await.unwrap();
    for round in 0..3 {
        let Lookup::Hit(root) = tier.root(&key).get().await else { panic!("no root") };
        assert_eq!(root.meta, meta);
        assert!(matches!(root.body, Body::Chunks(_)));
        for (number, page) in (0..).zip(&pages) {
            let Lookup::Hit(found) = tier.page(&PageRef { owner, number }).get().await else {
                panic!("no page {number}")
            };
            same("page", &found, page).unwrap();
        }
        drop(tier);
        sim = Arc::new(sim.kill(round));
        tier = world.open(&sim).await;
    }
}

/// On the real engines, with many writers at once.
async fn on_a_real_device(engine: Engine, name: &str) {
    let path = std::env::temp_dir().join(format!("elcache-tier-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    for durability in [Durability::Process, Durability::Power] {
        let mut world = World::durable(durability);
        world.path = path.join(format!("{durability:?}"));
        std::fs::create_dir_all(world.path.join("segments")).unwrap();
        let Ok(started) = start(engine, 32) else { return };
        let values = Arc::new(values());
        for round in 0..4 {
            let tier = world.try_open(Arc::clone(&started.device)).await.unwrap();
            tier.recovered().await;
            if round == 0 {
                let puts = values.iter().cloned().map(|value| {
                    let (tier, arena) = (Arc::clone(&tier), Arc::clone(&world.arena));
                    tokio::spawn(async move { value.put(&tier, &arena).await })
                });
                for put in puts.collect::<Vec<_>>() {
                    assert_eq!(put.await.unwrap(), Ok(()));
                }
            }
            check_all(&tier, &values).await;
            assert_eq!((tier.report().damaged, tier.report().io_errors), (0, 0));
            if round % 2 == 0 {
                tier.close().await;
            }
            drop(tier);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    std::fs::remove_dir_all(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_carry_the_tier() {
    on_a_real_device(Engine::Threads, "threads").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uring_carries_the_tier() {
    on_a_real_device(Engine::Uring, "uring").await;
}
