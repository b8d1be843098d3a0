//! What goes to the disk at all, and how fast.

use std::time::{Duration, Instant};

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::node::wait_for;
use elcache_tests::{Call, Node};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn target(number: u64) -> String {
    format!("/cache/{number}")
}

fn put(number: u64, size: usize) -> Call {
    Call::put(target(number), Content::new(number).bytes(size))
}

fn entries(node: &Node) -> f64 {
    node.metric("elcache_cache_entries{tier=\"disk\"}").expect("entries of the disk")
}

#[test]
fn with_second_hit_a_restart_keeps_what_came_twice_or_was_asked_for() {
    let home = Home::new("64", "1G").with("ELCACHE__DISK__ADMISSION", "second_hit");
    let node = home.node();
    let mut connection = node.connect();
    let sizes = [0, 100, 50 * KIB, MIB, 9 * MIB];
    for (number, size) in (0..).zip(sizes) {
        connection.call(&put(number, size)).expect(201);
        connection.call(&put(10 + number, size)).expect(201);
        connection.call(&put(10 + number, size)).expect(204);
    }
    assert_eq!(entries(&node), 5.0);
    // The large one that is asked for goes to the disk at once.
    connection.call(&put(20, 9 * MIB)).expect(201);
    connection.call(&Call::get(target(20))).expect(200);
    assert!(wait_for(Duration::from_secs(10), || (entries(&node) == 6.0).then_some(())).is_some());
    drop(connection);
    node.kill();
    let node = home.node();
    for (number, size) in (0..).zip(sizes) {
        assert_eq!(node.get(&target(number)).status, 404, "{size}, came once");
        assert!(node.get(&target(10 + number)).expect(200).body == Content::new(10 + number).bytes(size));
    }
    assert!(node.get(&target(20)).expect(200).body == Content::new(20).bytes(9 * MIB));
}

/// 24 MiB at 4 MiB a second, of which a second's worth goes at once, and what was on its way before the rate was known to be too high.
#[test]
fn no_more_is_written_than_the_rate() {
    let home = Home::new("64", "1G").with("ELCACHE__DISK__WRITE_RATE_MAX", "4MiB");
    let node = home.node();
    let mut connection = node.connect();
    let began = Instant::now();
    for number in 0..24 {
        connection.call(&put(number, MIB)).expect(201);
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs_f64((24.0 - 4.0 - 2.0) / 4.0), "{took:?}");
    let written = node.metric("elcache_disk_written_bytes_total").expect("bytes");
    let projected = node.metric("elcache_disk_projected_bytes_per_day").expect("bytes");
    // A first minute counts as a whole one.
    let expected = written * 24.0 * 60.0;
    assert!((0.9..1.1).contains(&(projected / expected)), "{projected}, not {expected}");
    connection.call(&Call::delete(target(0))).expect(204);
    drop(connection);
    node.kill();
    let node = home.node();
    assert_eq!(node.get(&target(0)).status, 404);
    for number in 1..24 {
        assert!(node.get(&target(number)).expect(200).body == Content::new(number).bytes(MIB));
    }
}

#[test]
fn with_second_hit_what_is_too_much_for_the_rate_stays_in_memory() {
    let home = Home::new("256", "1G")
        .with("ELCACHE__DISK__ADMISSION", "second_hit")
        .with("ELCACHE__DISK__WRITE_RATE_MAX", "1MiB");
    let node = home.node();
    let mut connection = node.connect();
    for _ in 0..2 {
        for number in 0..40 {
            let status = connection.call(&put(number, MIB)).status;
            assert!(matches!(status, 201 | 204), "{status}");
        }
    }
    assert!((1.0..30.0).contains(&entries(&node)), "{} of 40 values on the disk", entries(&node));
    for number in 0..40 {
        assert!(
            connection.call(&Call::get(target(number))).expect(200).body == Content::new(number).bytes(MIB)
        );
    }
}
