//! Feeding a trace to a cache and counting.

use crate::trace::Request;

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

/// Replays a whole trace, in order, on this thread.
pub(crate) fn replay(cache: &mut dyn Replay, trace: &[Request]) -> Outcome {
    let mut outcome = Outcome::default();
    for &Request { key, size } in trace {
        let hit = cache.access(key, size);
        outcome.requests += 1;
        outcome.bytes += u64::from(size);
        outcome.hits += u64::from(hit);
        outcome.bytes_hit += if hit { u64::from(size) } else { 0 };
    }
    outcome
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
