//! Feeding a trace to a cache and counting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use elcache_traces::Request;

/// A cache as a trace sees it.
pub(crate) trait Replay {
    /// Asks for a key and, on a miss, brings it in; true on a hit.
    fn access(&mut self, key: u64, size: u32) -> bool;
}

/// What came of a trace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_hit: u64,
}

impl Outcome {
    /// Requests served from the cache, in per cent.
    pub(crate) fn hit_ratio(&self) -> f64 {
        percent(self.hits, self.requests)
    }

    /// Bytes served from the cache, in per cent.
    pub(crate) fn byte_hit_ratio(&self) -> f64 {
        percent(self.bytes_hit, self.bytes)
    }
}

/// A cache that several threads use at once.
pub(crate) trait SharedReplay: Sync {
    /// As [`Replay::access`].
    fn access(&self, key: u64, size: u32) -> bool;
}

impl Outcome {
    fn count(&mut self, size: u32, hit: bool) {
        self.requests += 1;
        self.bytes += u64::from(size);
        self.hits += u64::from(hit);
        self.bytes_hit += if hit { u64::from(size) } else { 0 };
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.bytes += other.bytes;
        self.bytes_hit += other.bytes_hit;
    }
}

/// Replays a whole trace, in order, on this thread.
pub(crate) fn replay(cache: &mut dyn Replay, trace: &[Request]) -> Outcome {
    let mut outcome = Outcome::default();
    for &Request { key, size } in trace {
        let hit = cache.access(key, size);
        outcome.count(size, hit);
    }
    outcome
}

/// Replays a whole trace on several threads. Each takes the next request that no other has taken, so the order is the
/// trace's but for the requests that are being served at the same moment.
pub(crate) fn replay_on(threads: usize, cache: &dyn SharedReplay, trace: &[Request]) -> Outcome {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut outcome = Outcome::default();
        while let Some(&Request { key, size }) = trace.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hit = cache.access(key, size);
            outcome.count(size, hit);
        }
        outcome
    };
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            // A worker that panicked has failed the whole replay.
            outcome.add(&worker.join().expect("a worker that replays to the end"));
        }
    });
    outcome
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
