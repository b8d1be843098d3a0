//! A disk that is filled many times over as fast as clients can: it stays within its limits, and what is new is there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::latency::Latencies;
use elcache_tests::random::{Random, mix};
use elcache_tests::{Call, Connection, Node, report};

const MIB: u64 = 1 << 20;
const CLIENTS: u64 = 6;
/// Sizes of every order of magnitude up to this.
const SIZE_MAX: u64 = 4 * MIB;
/// What is larger than this goes past the page cache.
const SMALL_MAX: u64 = 32 << 10;
/// What was written less than this part of the disk ago has to be there.
const RECENT: u64 = 4;
/// Up to this part of its room a disk counts as empty: nothing has to go yet.
const EMPTY: f64 = 0.8;

/// How much is written into how much.
#[derive(Clone, Copy)]
struct Plan {
    disk: u64,
    fills: u64,
}

/// What all clients have written so far.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    stop: AtomicBool,
}

/// Ends the others when a client fails.
struct EndsAll<'a>(&'a AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

/// What a client has measured of its PUTs, by size: while the disk was empty, and when it was full.
#[derive(Default)]
struct Measured {
    empty: [Latencies; 2],
    full: [Latencies; 2],
    reads: u64,
}

impl Measured {
    fn add(&mut self, other: &Self) {
        for (all, one) in [(&mut self.empty, &other.empty), (&mut self.full, &other.full)] {
            all.iter_mut().zip(one).for_each(|(all, one)| all.extend(one));
        }
        self.reads += other.reads;
    }
}

fn size(key: u64) -> u64 {
    Random::new(mix(key)).size(SIZE_MAX)
}

/// Puts new values, and looks at one of the last ones now and then, until all has been written.
fn client(node: &Node, number: u64, plan: Plan, progress: &Progress) -> Measured {
    let _ends_all = EndsAll(&progress.stop);
    let mut measured = Measured::default();
    let mut connection = node.connect();
    let mut random = Random::new(number);
    // Its last values, and how much all had written by then.
    let mut recent = VecDeque::new();
    for nth in 0.. {
        let before = progress.bytes.load(Ordering::Relaxed);
        if before >= plan.disk * plan.fills || progress.stop.load(Ordering::Relaxed) {
            break;
        }
        let key = |nth: u64| nth * CLIENTS + number;
        let size = size(key(nth));
        let call = Call::put(target(key(nth)), Content::new(key(nth)).bytes(size as usize));
        let began = Instant::now();
        let answer = connection.call(&call);
        let took = began.elapsed();
        assert_eq!(answer.status, 201, "{} of {size} bytes: {answer:?}", key(nth));
        progress.bytes.fetch_add(size, Ordering::Relaxed);
        let of = usize::from(size > SMALL_MAX);
        if (before as f64) < plan.disk as f64 * EMPTY {
            measured.empty[of].add(took);
        } else if before > plan.disk {
            measured.full[of].add(took);
        }
        let now = progress.bytes.load(Ordering::Relaxed);
        recent.push_back((key(nth), now));
        while recent.front().is_some_and(|(_, written)| written + plan.disk / RECENT < now) {
            recent.pop_front();
        }
        if nth % 4 == 0 && !recent.is_empty() {
            is_there(&mut connection, recent[random.below(recent.len() as u64) as usize].0);
            measured.reads += 1;
        }
    }
    measured
}

fn target(key: u64) -> String {
    format!("/cache/{key}")
}

/// What was written a moment ago is there, and all of it right.
#[track_caller]
fn is_there(connection: &mut Connection, key: u64) {
    let answer = connection.call(&Call::get(target(key))).expect(200);
    assert_eq!(answer.body.len() as u64, size(key), "the length of {key}");
    assert!(Content::new(key).is(0, &answer.body), "wrong bytes of {key}");
}

/// The most that the directory's files and the process's memory ever were, looked at until the end.
fn watch(home: &Home, node: &Node, progress: &Progress) -> (u64, u64) {
    let (mut bytes, mut resident) = (0, 0);
    while !progress.stop.load(Ordering::Relaxed) {
        bytes = home.bytes().max(bytes);
        resident = node.rss_bytes().max(resident);
        std::thread::sleep(Duration::from_millis(20));
    }
    (bytes, resident)
}

fn fill(plan: Plan) {
    let home = Home::new("64", &format!("{}M", plan.disk / MIB));
    let node = home.node();
    let progress = Progress::default();
    let began = Instant::now();
    let mut measured = Measured::default();
    let (most, resident) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&home, &node, &progress));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (node, progress) = (&node, &progress);
                scope.spawn(move || client(node, number, plan, progress))
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        progress.stop.store(true, Ordering::Relaxed);
        let most = watcher.join().expect("a watcher");
        ended.into_iter().for_each(|ended| measured.add(&ended.expect("a client")));
        most
    });
    let peak = node.peak_rss_bytes();
    let written = progress.bytes.into_inner();
    let seconds = began.elapsed().as_secs_f64();
    let speed = (written / MIB) as f64 / seconds;
    report(format_args!(
        "{} MiB in {seconds:.0} s, {speed:.0} MiB/s, {} reads",
        written / MIB,
        measured.reads
    ));
    report(format_args!(
        "at most {most} of {} bytes; {} MiB resident, peak {} MiB",
        plan.disk,
        resident / MIB,
        peak / MIB
    ));
    for (what, empty, full) in [
        ("up to 32 KiB", &measured.empty[0], &measured.full[0]),
        ("larger", &measured.empty[1], &measured.full[1]),
        ("all", &all(&measured.empty), &all(&measured.full)),
    ] {
        report(format_args!(
            "PUT {what}: empty: {empty}; full: {full}; p99 {:.2} times",
            full.p99_over(empty)
        ));
    }
    let again = node.metric("elcache_disk_rewritten_bytes_total").expect("it is counted");
    report(format_args!("{} MiB were written again", again as u64 / MIB));
    assert!(most <= plan.disk, "the directory took {most} bytes of {}", plan.disk);
    assert!(peak < (64 + 64) * MIB, "{} MiB resident", peak / MIB);
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"damaged\"}"), Some(0.0));
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"io\"}"), Some(0.0));
    node.assert_healthy();
}

fn all(by_size: &[Latencies; 2]) -> Latencies {
    let mut all = Latencies::default();
    by_size.iter().for_each(|one| all.extend(one));
    all
}

#[test]
fn a_disk_filled_four_times_over_at_full_speed_stays_within_its_limits() {
    fill(Plan { disk: 128 * MIB, fills: 4 });
}

#[test]
fn soak_a_disk_filled_ten_times_over_at_full_speed_stays_within_its_limits() {
    fill(Plan { disk: 2048 * MIB, fills: 10 });
}
