//! One of three directories goes under load and comes back: whoever asks for what the others have notices nothing.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use elcache_tests::content::Content;
use elcache_tests::latency::Latencies;
use elcache_tests::random::Random;
use elcache_tests::{Call, Node, report};

use crate::disk_directories::{Place, VALUE, in_service, is_told, is_well_again, target};

/// Keys that are read, and as many that are written meanwhile.
const KEYS: u64 = 600;
const READERS: u64 = 3;
/// Between two requests of a client, so that what is measured is not how many there are.
const PAUSE: Duration = Duration::from_micros(500);
const STAGES: [&str; 4] = ["before", "while it goes", "without it", "when it is back"];

/// An answer to a GET.
struct Read {
    stage: usize,
    number: u64,
    is_hit: bool,
    status: u16,
    took: Duration,
}

/// No copy of it in memory: what is read comes from its directory.
fn put(number: u64) -> Call {
    Call::put(target(number), Content::new(number).bytes(VALUE)).with("X-ElCache-No-Memory", "true")
}

fn read(node: &Node, seed: u64, stage: &AtomicUsize, stop: &AtomicBool, all: &Mutex<Vec<Read>>) {
    let mut connection = node.connect();
    let mut random = Random::new(seed);
    let mut reads = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = random.below(KEYS);
        let at = stage.load(Ordering::Relaxed);
        let began = Instant::now();
        let answer = connection.call(&Call::get(target(number)));
        let took = began.elapsed();
        let is_hit = answer.status == 200;
        assert!(is_hit || matches!(answer.status, 404 | 503), "{answer:?}");
        assert!(
            !is_hit || answer.body.len() == VALUE && Content::new(number).is(0, &answer.body),
            "{number}"
        );
        reads.push(Read { stage: at, number, is_hit, status: answer.status, took });
        std::thread::sleep(PAUSE);
    }
    all.lock().expect("the reads").extend(reads);
}

fn write(node: &Node, stop: &AtomicBool) {
    let mut connection = node.connect();
    let mut random = Random::new(KEYS);
    while !stop.load(Ordering::Relaxed) {
        let answer = connection.call(&put(KEYS + random.below(KEYS)));
        assert!(matches!(answer.status, 201 | 204 | 503), "{answer:?}");
        std::thread::sleep(PAUSE * 10);
    }
}

/// Runs the stages, each for this long, while clients read and write; all reads.
fn reads(place: &Place, node: &Node, time: Duration) -> Vec<Read> {
    let (stage, stop, all) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
    let next = || _ = stage.fetch_add(1, Ordering::Relaxed);
    let (dir, away) = (place.dir("b"), place.dir("away"));
    std::thread::scope(|scope| {
        let (stage, stop, all) = (&stage, &stop, &all);
        (0..READERS).for_each(|seed| _ = scope.spawn(move || read(node, seed, stage, stop, all)));
        scope.spawn(|| write(node, stop));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::sleep(time);
            next();
            std::fs::rename(&dir, &away).expect("the directory goes");
            is_told(node, &["out of service"]);
            // The others have to agree to go on without it.
            node.wait_for_log("go on without this one");
            next();
            std::thread::sleep(time);
            std::fs::rename(&away, &dir).expect("the directory is back");
            next();
            is_well_again(node);
            assert_eq!(in_service(node, &dir), 1.0);
            std::thread::sleep(time);
        }));
        stop.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    all.into_inner().expect("the reads")
}

fn one_goes(time: Duration) {
    let place = Place::of(&["a", "b", "c"], "1G");
    let node = place.node();
    let mut connection = node.connect();
    (0..KEYS).for_each(|number| _ = connection.call(&put(number)).expect(201));
    let reads = reads(&place, &node, time);
    let others: BTreeSet<u64> =
        reads.iter().filter(|read| read.stage == 2 && read.is_hit).map(|read| read.number).collect();
    let part = others.len() as f64 / KEYS as f64;
    assert!((0.5..0.8).contains(&part), "two thirds of the values are in other directories, and not {part}");
    let mut latencies: [Latencies; STAGES.len()] = Default::default();
    for Read { stage, number, is_hit, status, took } in
        reads.iter().filter(|read| others.contains(&read.number))
    {
        assert!(
            is_hit,
            "{number}, which another directory has, is no hit {} {status} {took:?}",
            STAGES[*stage]
        );
        latencies[*stage].add(*took);
    }
    for (stage, latencies_of) in STAGES.iter().zip(&latencies) {
        let ratio = latencies_of.p99_over(&latencies[0]);
        report(format_args!("hits of the others {stage}: {latencies_of}, p99 {ratio:.2} times"));
        assert!(latencies_of.count() > 100, "{stage}");
    }
}

#[test]
fn hits_on_the_others_go_on_when_one_directory_goes() {
    one_goes(Duration::from_secs(1));
}

#[test]
fn soak_hits_on_the_others_go_on_when_one_directory_goes() {
    one_goes(Duration::from_secs(20));
}
