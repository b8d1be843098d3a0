//! More data than memory, and more than the disk: what is read is right, and neither grows beyond what it may be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::load::{Framed, upload};
use elcache_tests::node::wait_for;
use elcache_tests::random::{Random, mix};
use elcache_tests::{Call, Connection, Node, report};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn target(number: u64) -> String {
    format!("/cache/{number}")
}

/// The size of the value of this number.
fn size(number: u64, max: u64) -> u64 {
    Random::new(mix(number)).size(max)
}

/// Stores values of up to `max` bytes until they are so many bytes; how many values.
fn store(connection: &mut Connection, bytes: u64, max: u64) -> u64 {
    let (mut stored, mut number) = (0, 0);
    while stored < bytes {
        let size = size(number, max);
        let framed = if number % 3 == 0 { Framed::Chunked } else { Framed::Length };
        let head = Call::new("PUT", target(number));
        let answer = upload(connection, head, Content::new(number), size, framed).expect("an answer");
        assert_eq!(answer.status, 201, "value {number} of {size} bytes: {answer:?}");
        stored += size;
        number += 1;
    }
    number
}

/// Reads a value as it comes; its status, and which tier it is said to be from. Its bytes have to be right.
fn read(connection: &mut Connection, number: u64, size: u64) -> (u16, String) {
    let mut right = true;
    let mut length = 0;
    connection.send(Call::get(target(number)).bytes());
    let answer = connection.try_answer_into(false, |at, bytes| {
        right &= Content::new(number).is(at, bytes);
        length = at + bytes.len() as u64;
    });
    let answer = answer.expect("a whole answer");
    assert!(
        answer.status != 200 || (right && length == size),
        "{number}: {length} of {size} bytes, right: {right}"
    );
    (answer.status, answer.header("X-ElCache-Hit").unwrap_or_default().to_owned())
}

#[track_caller]
fn is_within_memory(node: &Node) {
    let peak = node.peak_rss_bytes();
    report(format_args!("peak {} MiB", peak / MIB));
    assert!(peak < (64 + 64) * MIB, "{} MiB resident", peak / MIB);
    node.assert_healthy();
}

#[test]
fn five_hundred_mebibytes_are_served_with_memory_of_64() {
    const MAX: u64 = 24 * MIB;
    let home = Home::new("64", "2G");
    let node = home.node();
    let mut connection = node.connect();
    let count = store(&mut connection, 500 * MIB, MAX);
    let mut random = Random::new(count);
    let mut from_disk = 0;
    for _ in 0..count {
        let number = random.below(count);
        let (status, hit) = read(&mut connection, number, size(number, MAX));
        assert!(status == 200 && ["memory", "disk"].contains(&&*hit), "{number}: {status} {hit}");
        from_disk += u64::from(hit == "disk");
    }
    for number in 0..count {
        assert_eq!(read(&mut connection, number, size(number, MAX)).0, 200, "{number} is gone");
    }
    assert!(from_disk > count / 10, "{from_disk} of {count} reads from the disk");
    is_within_memory(&node);
}

#[test]
fn ranges_of_a_value_larger_than_memory_are_right() {
    const SIZE: u64 = 150 * MIB;
    let home = Home::new("64", "2G");
    let node = home.node();
    let mut connection = node.connect();
    upload(&mut connection, Call::new("PUT", target(0)), Content::new(0), SIZE, Framed::Length)
        .expect("an answer")
        .expect(201);
    let mut random = Random::new(1);
    for round in 0..400 {
        // Half of them lie at the border of a chunk.
        let from = if round % 2 == 0 { random.below(SIZE) } else { (1 + random.below(36)) * 4 * MIB - 100 };
        let last = (from + random.size(6 * MIB)).min(SIZE) - 1;
        let answer = connection.call(&Call::get(target(0)).with("Range", format!("bytes={from}-{last}")));
        assert_eq!(answer.status, 206, "bytes {from} to {last}");
        assert_eq!(answer.body.len() as u64, last - from + 1);
        assert!(Content::new(0).is(from, &answer.body), "bytes {from} to {last}");
    }
    is_within_memory(&node);
}

#[test]
fn a_value_larger_than_memory_streams_through() {
    const SIZE: u64 = 200 * MIB;
    let home = Home::new("64", "2G");
    let mut node = home.node();
    for (number, framed) in [(0, Framed::Length), (1, Framed::Chunked)] {
        let mut connection = node.connect();
        let head = Call::new("PUT", target(number));
        upload(&mut connection, head, Content::new(number), SIZE, framed).expect("an answer").expect(201);
        for _ in 0..2 {
            assert_eq!(read(&mut connection, number, SIZE), (200, "disk".to_owned()));
        }
    }
    is_within_memory(&node);
    node.kill();
    node = home.node();
    let mut connection = node.connect();
    (0..2).for_each(|number| assert_eq!(read(&mut connection, number, SIZE).0, 200));
    is_within_memory(&node);
}

/// Bytes that came from the disk.
fn read_bytes(node: &Node) -> u64 {
    node.metric("elcache_disk_read_bytes_total").expect("it is counted") as u64
}

#[test]
fn readers_of_the_same_cold_value_share_one_read() {
    const SIZE: u64 = 3 * MIB;
    let home = Home::new("256", "2G");
    let node = home.node();
    (0..8).for_each(|number| _ = node.put(&target(number), Content::new(number).bytes(SIZE as usize)));
    node.stop();
    let node = home.node();
    node.wait_healthy();
    let before = read_bytes(&node);
    assert_eq!(read(&mut node.connect(), 0, SIZE), (200, "disk".to_owned()));
    let alone = read_bytes(&node) - before;
    assert!(alone >= SIZE, "{alone} bytes");
    for number in 1..8 {
        let before = read_bytes(&node);
        std::thread::scope(|scope| {
            for _ in 0..32 {
                let mut connection = node.connect();
                scope.spawn(move || assert_eq!(read(&mut connection, number, SIZE).0, 200));
            }
        });
        // Each reader looks at the head before it finds out that the rest is being read.
        let together = read_bytes(&node) - before;
        assert!(together < alone * 3 / 2, "{together} bytes for 32 readers, {alone} for one");
    }
}

/// Runs `work` and returns the most that `measure` ever gave in the meantime.
fn most<T>(measure: impl Fn() -> u64 + Sync, work: impl FnOnce() -> T) -> (u64, T) {
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let worked = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(measure(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        worked
    });
    (most.into_inner().max(measure()), worked)
}

const FULL: u64 = 128 * MIB;
const PIECE: u64 = 3 * MIB;

/// Of values stored in this order the newest are there and the oldest gone; the number of the first that is there.
fn newest_are_there(node: &Node, count: u64) -> u64 {
    let mut connection = node.connect();
    let there: Vec<bool> = (0..count)
        .map(|number| match read(&mut connection, number, size(number, PIECE)) {
            (200, _) => true,
            (404, _) => false,
            other => panic!("{number}: {other:?}"),
        })
        .collect();
    let bytes: u64 = (0..count).filter(|&n| there[n as usize]).map(|n| size(n, PIECE)).sum();
    assert!(bytes > FULL / 2, "{} MiB are left", bytes / MIB);
    let last_gone = there.iter().rposition(|there| !there).expect("the oldest are gone") as u64;
    let newer: u64 = (last_gone + 1..count).map(|number| size(number, PIECE)).sum();
    assert!(newer > FULL / 2, "{last_gone} of {count} is gone, and after it came {} MiB", newer / MIB);
    let first = there.iter().position(|&there| there).expect("the newest are there") as u64;
    let older: u64 = (0..first).map(|number| size(number, PIECE)).sum();
    assert!(older > 1024 * MIB - FULL, "what is older than all is {} MiB", older / MIB);
    first
}

/// Tries to store more than memory and disk could ever hold; the status.
fn put_too_much(node: &Node, framed: Framed) -> u16 {
    let head = Call::new("PUT", "/cache/x");
    upload(&mut node.connect(), head, Content::new(1), 200 * MIB, framed).expect("an answer").status
}

#[test]
fn a_full_disk_drops_what_is_oldest_and_never_takes_more_than_it_may() {
    let home = Home::new("16", "128M");
    let node = home.node();
    let (most_bytes, count) = most(|| home.bytes(), || store(&mut node.connect(), 1024 * MIB, PIECE));
    report(format_args!("{count} values, the directory had up to {} KiB", most_bytes / KIB));
    assert!(most_bytes <= FULL, "the directory took {most_bytes} bytes of {FULL}");
    newest_are_there(&node, count);
    assert_eq!(put_too_much(&node, Framed::Length), 507);
    node.kill();
    let node = home.node();
    let kept = newest_are_there(&node, count);
    let (most_bytes, ()) = most(
        || home.bytes(),
        || {
            let mut connection = node.connect();
            for number in 0..100 {
                let call =
                    Call::put(format!("/cache/later/{number}"), Content::new(number).bytes(MIB as usize));
                connection.call(&call).expect(201);
            }
        },
    );
    assert!(most_bytes <= FULL, "the directory took {most_bytes} bytes of {FULL}");
    assert_eq!(node.head(&target(kept)).status, 404, "what was oldest went first");
    assert!(Content::new(99).is(0, &node.get("/cache/later/99").expect(200).body));
    let fits = wait_for(Duration::from_secs(5), || (home.bytes() < FULL * 95 / 100).then_some(()));
    assert!(fits.is_some(), "room is made in the background: {} bytes", home.bytes());
    let (most_bytes, status) = most(|| home.bytes(), || put_too_much(&node, Framed::Chunked));
    assert_eq!(status, 507);
    assert!(most_bytes <= FULL, "the directory took {most_bytes} bytes of {FULL}");
    node.get("/cache/x").expect(404);
    node.put("/cache/x", "a value that fits");
    node.assert_healthy();
}
