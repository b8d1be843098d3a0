//! Latencies, counted in fixed buckets.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::counter::{Line, STRIPES, stripe, zeros};

/// Buckets with an upper bound; one more takes what is above all of them.
pub(crate) const BOUNDS: usize = 19;

/// The upper bounds in nanoseconds, each the last that its bucket takes.
pub(crate) const BOUNDS_NANOS: [u64; BOUNDS] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The same bounds in seconds, written as OpenMetrics wants its numbers. The classic format takes any spelling, and
/// so gets the same one: the series keep their labels when a scraper changes formats.
pub(crate) const BOUNDS_LE: [&str; BOUNDS] = [
    "1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
    "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0",
];

#[derive(Debug)]
struct Stripe {
    buckets: [AtomicU64; BOUNDS + 1],
    sum_nanos: AtomicU64,
}

impl Default for Stripe {
    fn default() -> Self {
        Self { buckets: zeros(), sum_nanos: AtomicU64::new(0) }
    }
}

/// Durations, sorted into buckets from 10 us to 10 s.
#[derive(Debug, Default)]
pub struct Histogram {
    stripes: [Line<Stripe>; STRIPES],
}

/// What a histogram holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// For each bound, how many were at most that; the last element is how many there were in all.
    pub(crate) at_most: [u64; BOUNDS + 1],
    pub(crate) sum_nanos: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        let stripe = &self.stripes[stripe()].0;
        stripe.buckets[bucket].fetch_add(1, Relaxed);
        stripe.sum_nanos.fetch_add(nanos, Relaxed);
    }

    /// How many durations there were.
    pub fn count(&self) -> u64 {
        self.totals().at_most[BOUNDS]
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.totals().sum_nanos)
    }

    /// The number of durations is taken from the buckets, so the two always agree; the sum may be ahead or behind by
    /// what is being counted meanwhile.
    pub(crate) fn totals(&self) -> Totals {
        let all = |bucket: usize| -> u64 {
            self.stripes.iter().map(|stripe| stripe.0.buckets[bucket].load(Relaxed)).sum()
        };
        let mut so_far = 0;
        let at_most = array::from_fn(|bucket| {
            so_far += all(bucket);
            so_far
        });
        let sums = self.stripes.iter().map(|stripe| stripe.0.sum_nanos.load(Relaxed));
        Totals { at_most, sum_nanos: sums.fold(0, u64::wrapping_add) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_bounds_are_the_same_numbers_in_rising_order() {
        for (nanos, le) in BOUNDS_NANOS.iter().zip(BOUNDS_LE) {
            let seconds: f64 = le.parse().expect("a number");
            assert_eq!((seconds * 1e9).round() as u64, *nanos, "{le}");
        }
        assert!(BOUNDS_NANOS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_bucket_takes_its_bound_and_not_one_nanosecond_more() {
        for (bucket, bound) in BOUNDS_NANOS.iter().enumerate() {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(*bound));
            histogram.observe(Duration::from_nanos(bound + 1));
            let at_most = histogram.totals().at_most;
            assert_eq!((at_most[bucket], at_most[bucket + 1]), (1, 2), "{bound}");
            assert!(at_most[..bucket].iter().all(|count| *count == 0), "{bound}");
        }
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::ZERO);
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.totals().at_most[0], 1);
        assert_eq!(histogram.count(), 2);
    }
}
