//! Counters that many threads add to at once, and gauges.

use std::array;
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads share this many stripes of each counter. A power of two.
pub(crate) const STRIPES: usize = 8;

/// The calling thread's stripe, below [`STRIPES`]. Threads take the stripes in turn, each when it first counts.
pub(crate) fn stripe() -> usize {
    const NONE: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(NONE) };
    }
    MINE.with(|mine| {
        if mine.get() == NONE {
            mine.set(NEXT.fetch_add(1, Relaxed) % STRIPES);
        }
        // Once more, so that the compiler sees the bound.
        mine.get() % STRIPES
    })
}

/// One per stripe of whatever is counted, on cache lines that no other stripe touches: two lines apart, since
/// processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter {
    stripes: [Line<AtomicU64>; STRIPES],
}

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.stripes[stripe()].0.fetch_add(n, Relaxed);
    }

    /// All that was counted. What other threads count meanwhile may be missing from it.
    pub fn get(&self) -> u64 {
        self.stripes.iter().map(|line| line.0.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// A number that goes up and down, as seldom as connections come and go.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How many there are. Below zero only when `dec` was called more often than `inc`.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// `N` zeros.
pub(crate) fn zeros<const N: usize>() -> [AtomicU64; N] {
    array::from_fn(|_| AtomicU64::new(0))
}
