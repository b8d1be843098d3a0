//! The sized traces, replayed against the whole tier on a real disk, beside an exact LRU. (The simulated disk remembers what a loss of
//! power would undo: all that is never synced, so everything.)

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::tier::{Lookup, NewBody, Tier};
use elcache_core::value::{Metadata, Version};
use elcache_traces::Request;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::support::{Dice, NOW_MS, World};
use crate::io::{Engine, start};
use crate::tier::DiskTier;

/// Traces, and bytes of the cache.
const TRACES: [(&str, u64); 3] = [
    ("cloudphysics_io", 202_976_972),
    ("tencent_block_ns3300", 343_224_934),
    ("cachelib_cdn_synthetic", 1_205_711_636),
];
const SEGMENTS: u64 = 64;

/// Hits of an exact LRU of so many bytes, payloads alone.
fn lru(requests: &[Request], capacity: u64) -> usize {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut order: BTreeMap<usize, Request> = BTreeMap::new();
    let (mut used, mut hits) = (0, 0);
    for (now, request) in requests.iter().enumerate() {
        match places.insert(request.key, now) {
            Some(before) => {
                order.remove(&before);
                hits += 1;
            }
            None => used += u64::from(request.size),
        }
        order.insert(now, *request);
        while used > capacity {
            let Some((_, oldest)) = order.pop_first() else { break };
            places.remove(&oldest.key);
            used -= u64::from(oldest.size);
        }
    }
    hits
}

/// Locks for keys: whoever asks for what somebody else is storing waits for it, as with any client that fetches it once.
const LOCKS: u64 = 4096;

/// Asks for everything in order, `clients` at once, and stores what is missing.
async fn replay(tier: &Arc<DiskTier>, world: &World, requests: &Arc<Vec<Request>>, clients: usize) -> usize {
    let largest = requests.iter().map(|request| request.size).max().unwrap_or(0);
    let content = Bytes::from(Dice::new(1).bytes(largest as usize));
    let next = Arc::new(AtomicUsize::new(0));
    let locks: Arc<Vec<_>> = Arc::new((0..LOCKS).map(|_| Mutex::new(())).collect());
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (tier, arena, requests) = (Arc::clone(tier), Arc::clone(&world.arena), Arc::clone(requests));
        let (content, next, locks) = (content.clone(), Arc::clone(&next), Arc::clone(&locks));
        tasks.spawn(async move {
            let mut hits = 0;
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(at) else { return hits };
                let _alone = locks[(request.key % LOCKS) as usize].lock().await;
                let key = Key::new(request.key.to_le_bytes().to_vec()).unwrap();
                match tier.root(&key).get().await {
                    Lookup::Hit(_) => hits += 1,
                    Lookup::Miss => {
                        let bytes = content.slice(..request.size as usize);
                        let version = Version { view: 1, sequence: at as u64 };
                        let meta = Metadata::new(bytes.len() as u64, Digest([0; 32]), version, NOW_MS);
                        let body = if bytes.len() <= 64 << 10 {
                            NewBody::Borrowed(&bytes)
                        } else {
                            NewBody::Filled(arena.filled(&bytes, 0))
                        };
                        tier.commit(&key, &meta, body).get().await.unwrap();
                    }
                    Lookup::Busy => panic!("busy"),
                }
            }
        });
    }
    tasks.join_all().await.iter().sum()
}

/// Prints a table; `make traces` runs this too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_sized_traces_beside_an_exact_lru() {
    let mut out = std::io::stderr();
    let Some(folder) = elcache_traces::folder() else {
        writeln!(out, "{}", elcache_traces::absent("the disk tier on the sized traces")).unwrap();
        return;
    };
    writeln!(out, "The disk tier, {SEGMENTS} segments, default watermarks, beside an exact LRU of the bytes below the high one\n").unwrap();
    writeln!(
        out,
        "{:<24}{:>8}{:>10}{:>10}{:>12}{:>14}{:>16}",
        "trace", "clients", "LRU %", "tier %", "pp", "written again", "written/stored"
    )
    .unwrap();
    for (name, usable) in TRACES {
        let requests = Arc::new(elcache_traces::load(&folder, name).unwrap());
        let percent = |hits: usize| 100.0 * hits as f64 / requests.len() as f64;
        let exact = percent(lru(&requests, usable));
        for clients in [1, 32] {
            let mut world = World::with(|config| {
                config.max_bytes = (usable as f64 / config.high_watermark) as u64;
                config.segment_bytes = Some(config.max_bytes / SEGMENTS);
            });
            world.path = std::env::temp_dir().join(format!("elcache-traces-{}", std::process::id()));
            let lock = crate::lock(&world.path).unwrap();
            let device = start(Engine::Auto, 64).unwrap().device;
            let tier = world.open_with(device, Some(lock)).await.unwrap();
            tier.recovered().await;
            let hits = percent(replay(&tier, &world, &requests, clients).await);
            let report = tier.report();
            let first = report.written_bytes - report.rewritten_bytes;
            writeln!(
                out,
                "{name:<24}{clients:>8}{exact:>10.2}{hits:>10.2}{:>+12.2}{:>14.3}{:>16.3}",
                hits - exact,
                report.written_bytes as f64 / first as f64,
                report.written_bytes as f64 / report.stored_bytes as f64,
            )
            .unwrap();
            drop(tier);
            std::fs::remove_dir_all(&world.path).unwrap();
            assert_eq!((report.io_errors, report.damaged), (0, 0));
            assert!(hits > exact - 1.0, "{hits} is more than a point below {exact}");
            assert!(report.written_bytes as f64 <= 1.3 * first as f64, "too much is written again");
        }
    }
}
