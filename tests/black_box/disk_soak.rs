//! A working set far beyond memory, for a long time: every byte right, and nothing grows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use elcache_tests::home::Home;
use elcache_tests::load::{Load, Tally, run};
use elcache_tests::{Node, report};

const MIB: u64 = 1 << 20;
const THREADS: u64 = 8;
/// Values have 5 MB on average.
const WORKING_SET: u64 = 10 << 30;
const KEYS: u64 = WORKING_SET / (64 * MIB * 2 / 27) / THREADS;

/// What a node held at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    resident_bytes: usize,
    /// Descriptors of anything but the disk's files.
    descriptors: usize,
    /// Descriptors of the disk's files.
    files: usize,
    threads: usize,
}

impl Sample {
    fn of(node: &Node, home: &Home) -> Self {
        let process = format!("/proc/{}", node.pid());
        let entries = std::fs::read_dir(format!("{process}/fd")).expect("the process is there");
        let links: Vec<_> = entries.flatten().flat_map(|entry| std::fs::read_link(entry.path())).collect();
        let files = links.iter().filter(|link| link.starts_with(home.dir())).count();
        Self {
            resident_bytes: node.rss_bytes() as usize,
            descriptors: links.len() - files,
            files,
            threads: std::fs::read_dir(format!("{process}/task")).map_or(0, Iterator::count),
        }
    }
}

/// The load, and what the node held meanwhile.
fn watched(node: &Node, home: &Home, load: Load) -> (Tally, Vec<Sample>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut samples = Vec::new();
            while !done.load(Ordering::Relaxed) {
                samples.push(Sample::of(node, home));
                std::thread::sleep(Duration::from_millis(200));
            }
            samples
        });
        let tally = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(node, load)));
        done.store(true, Ordering::Relaxed);
        let samples = sampler.join().expect("the samples");
        (tally.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), samples)
    })
}

fn work(time: Duration, keys: u64, size: &str) {
    let home = Home::new("64", size);
    let node = home.node();
    let load = Load { threads: THREADS, keys, size_max: 64 * MIB, filled: true, time, seed: 4 };
    let (tally, samples) = watched(&node, &home, load);
    let peak = node.peak_rss_bytes();
    report(format_args!("{tally:?}, peak {} MiB, at the end {:?}", peak / MIB, samples.last()));
    assert!(peak < (64 + 64) * MIB, "{} MiB resident", peak / MIB);
    let warm = samples.len() / 2;
    let most = |samples: &[Sample], of: fn(&Sample) -> usize| samples.iter().map(of).max().unwrap_or(0);
    let resident = most(&samples, |sample| sample.resident_bytes);
    report(format_args!("{} MiB resident at most, as sampled", resident >> 20));
    let descriptors = |samples: &[Sample]| most(samples, |sample| sample.descriptors);
    let (before, after) = (descriptors(&samples[..warm]), descriptors(&samples[warm..]));
    assert!(after <= before + 2, "{after} descriptors, and {before} before; {samples:?}");
    // Those of the pools for what blocks come and go.
    assert!(most(&samples, |sample| sample.threads) < 64, "{samples:?}");
    // Some 128 segments, of two files each; those that are not quite full take the place of fewer.
    assert!(most(&samples, |sample| sample.files) < 400, "{samples:?}");
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert!(count(&tally.reads) > 10 * count(&tally.cut_off), "{tally:?}");
    assert!(count(&tally.reads) + count(&tally.writes) > 10 * count(&tally.busy), "{tally:?}");
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"damaged\"}"), Some(0.0));
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"io\"}"), Some(0.0));
    node.assert_healthy();
}

#[test]
fn ten_seconds_of_load_beyond_memory_give_no_wrong_byte_and_stay_within_memory() {
    work(Duration::from_secs(10), 8, "2G");
}

/// Ten minutes, or `ELCACHE_SOAK_SECONDS`.
#[test]
fn soak_ten_minutes_of_a_working_set_of_10_gib_with_64_mib_of_memory() {
    let seconds = std::env::var("ELCACHE_SOAK_SECONDS").map_or(600, |text| text.parse().expect("seconds"));
    work(Duration::from_secs(seconds), KEYS, "16G");
}
