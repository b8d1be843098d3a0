//! What counting and scraping cost: `cargo bench -p elcache-metrics`. Each line is the best of several runs, in
//! nanoseconds for one operation, by one thread and by as many threads as there are processors at once.
#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use elcache_core::tier::{TierName, Usage};
use elcache_metrics::{Format, Metrics, Snapshot};

const RUNS: usize = 7;

fn main() {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    println!("{:<34}{:>12}{:>12}", "ns per operation", "1 thread", format!("{threads} threads"));
    let metrics = Metrics::new();
    let tier = metrics.tier(TierName::Memory);
    let shared = AtomicU64::new(0);
    let report = |name: &str, times: u32, operation: &(dyn Fn(u32) + Sync)| {
        let [one, all] = [1, threads].map(|threads| best(threads, times, operation));
        println!("{name:<34}{one:>12.1}{all:>12.1}");
    };
    report("one atomic for all threads", 5_000_000, &|times| {
        repeat(times, |_| _ = shared.fetch_add(1, Relaxed));
    });
    report("counter", 5_000_000, &|times| repeat(times, |_| tier.hits.inc()));
    report("histogram", 5_000_000, &|times| {
        repeat(times, |n| tier.get_latency.observe(Duration::from_nanos(u64::from(n) * 977 % 20_000_000)));
    });
    report("http_request", 5_000_000, &|times| {
        repeat(times, |_| metrics.http_request(black_box("GET"), black_box(200)));
    });
    let snapshot = Snapshot { tiers: vec![(TierName::Memory, Usage::default())], ..Snapshot::default() };
    for format in [Format::Text, Format::OpenMetrics] {
        report(&format!("render {format:?}"), 200, &|times| {
            repeat(times, |_| _ = black_box(metrics.render(format, &snapshot)));
        });
    }
}

fn repeat(times: u32, mut operation: impl FnMut(u32)) {
    for n in 0..times {
        operation(black_box(n));
    }
}

/// Nanoseconds for one operation, when each of the threads does `times` of them at the same time.
fn best(threads: usize, times: u32, operation: &(dyn Fn(u32) + Sync)) -> f64 {
    let run = || {
        let start = Barrier::new(threads);
        thread::scope(|scope| {
            let work = || {
                start.wait();
                let begun = Instant::now();
                operation(times);
                begun.elapsed()
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).max().unwrap_or_default()
        })
    };
    let shortest = (0..RUNS).map(|_| run()).min().unwrap_or_default();
    shortest.as_nanos() as f64 / f64::from(times)
}
