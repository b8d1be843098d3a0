//! Mixed load with every byte checked, and what it costs in memory: resident, reported, and for each value.

use std::sync::atomic::Ordering;
use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::load::{Load, run};
use elcache_tests::random::Random;
use elcache_tests::{Call, Node, report};

const MIB: u64 = 1 << 20;

fn stat(node: &Node, name: &str) -> u64 {
    let stats: serde_json::Value =
        serde_json::from_slice(&node.get("/stats").expect(200).body).expect("JSON");
    stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

fn mixed_load(time: Duration, seed: u64) {
    let node = Node::start(&["-m", "256"], &[]);
    let tally = run(&node, Load { threads: 8, keys: 40, size_max: 64 * MIB, filled: false, time, seed });
    let peak = node.peak_rss_bytes();
    report(format_args!("{tally:?}, peak {} MiB", peak / MIB));
    assert!(peak < (256 + 64) * MIB, "{} MiB resident", peak / MIB);
    let seconds = time.as_secs();
    assert!(tally.writes.load(Ordering::Relaxed) > seconds, "{tally:?}");
    assert!(tally.reads.load(Ordering::Relaxed) > seconds, "{tally:?}");
    assert!(stat(&node, "size_bytes") <= 256 * MIB);
    node.assert_healthy();
}

#[test]
fn twenty_seconds_of_mixed_load_give_no_wrong_byte_and_stay_within_memory() {
    mixed_load(Duration::from_secs(20), 1);
}

#[test]
fn soak_ten_minutes_of_mixed_load() {
    mixed_load(Duration::from_secs(600), 2);
}

#[test]
fn small_values_under_eviction_give_no_wrong_byte() {
    let node = Node::start(&["-m", "16"], &[]);
    let time = Duration::from_secs(5);
    let tally = run(&node, Load { threads: 6, keys: 2000, size_max: 32 << 10, filled: false, time, seed: 3 });
    assert!(stat(&node, "evictions") > 0, "{tally:?}");
    assert!(node.peak_rss_bytes() < (16 + 64) * MIB, "{}", node.peak_rss_bytes());
}

/// Stores values of these sizes, pipelined, under keys of 16 bytes.
fn fill(node: &Node, sizes: impl Iterator<Item = usize>) {
    let mut connection = node.connect();
    let mut sizes = sizes.enumerate().peekable();
    while sizes.peek().is_some() {
        let (mut calls, mut count) = (Vec::new(), 0);
        while let Some((number, size)) = sizes.next_if(|_| count < 100 && calls.len() < 1 << 20) {
            let value = Content::new(number as u64).bytes(size);
            calls.extend(Call::put(format!("/cache/{number:016}"), value).bytes());
            count += 1;
        }
        connection.send(&calls);
        for _ in 0..count {
            connection.answer().expect(201);
        }
    }
}

/// Growth of resident memory and of what the node reports, by what `work` does.
fn growth(node: &Node, work: impl FnOnce(&Node)) -> (u64, u64) {
    // The first requests bring in what every process needs once.
    node.put("/cache/warm-up", vec![1; 100_000]);
    node.delete("/cache/warm-up").expect(204);
    let (rss, reported) = (node.rss_bytes(), stat(node, "size_bytes"));
    work(node);
    std::thread::sleep(Duration::from_millis(500));
    (node.rss_bytes() - rss, stat(node, "size_bytes") - reported)
}

#[test]
fn reported_sizes_agree_with_resident_memory() {
    let node = Node::start(&["-m", "512"], &[]);
    let mut random = Random::new(5);
    let mut left = 400 * MIB;
    let sizes = std::iter::from_fn(move || {
        let size = random.size(8 * MIB);
        left = left.checked_sub(size)?;
        Some(size as usize)
    });
    let (resident, reported) = growth(&node, |node| fill(node, sizes));
    report(format_args!("resident {resident}, reported {reported}"));
    assert_eq!(stat(&node, "evictions"), 0);
    assert!(resident.abs_diff(reported) * 20 <= resident, "resident {resident}, reported {reported}");
}

#[test]
fn a_cached_value_of_1_kib_costs_at_most_120_bytes_beyond_key_and_value() {
    const COUNT: u64 = 200_000;
    let node = Node::start(&["-m", "512"], &[]);
    let (resident, reported) = growth(&node, |node| fill(node, std::iter::repeat_n(1024, COUNT as usize)));
    assert_eq!((stat(&node, "entry_count"), stat(&node, "evictions")), (COUNT, 0));
    let overhead = |bytes: u64| (bytes / COUNT).saturating_sub(1024 + 16);
    report(format_args!("overhead: {} resident, {} reported", overhead(resident), overhead(reported)));
    assert!(overhead(resident) <= 120, "{} bytes of resident memory", overhead(resident));
    assert!(overhead(reported) <= 120, "{} bytes as reported", overhead(reported));
    assert!(resident.abs_diff(reported) * 20 <= resident, "resident {resident}, reported {reported}");
}

#[test]
fn memory_is_given_back_to_new_values_of_other_sizes() {
    // Size classes must not keep what one kind of value once needed.
    let node = Node::start(&["-m", "64"], &[]);
    for (round, size) in [700, 5000, 70_000, 3 * MIB, 300, 20 * MIB, 1024].into_iter().enumerate() {
        let mut connection = node.connect();
        let count = (96 * MIB / size).min(20_000);
        let mut lost = 0;
        for number in 0..count {
            let target = format!("/cache/{round}-{number}");
            let content = Content::new(number);
            let answer = connection.call(&Call::put(&target, content.bytes(size as usize)));
            assert_eq!(answer.status, 201, "round {round}, {number} of {size} bytes");
            match connection.try_call(&Call::get(&target)) {
                Ok(got) if got.status == 200 => assert!(content.is(0, &got.body)),
                Ok(got) => lost += u64::from(got.expect(404).status == 404),
                Err(_) => {
                    lost += 1;
                    connection = node.connect();
                }
            }
        }
        // A PUT seldom evicts itself: background eviction sees to that.
        assert!(lost <= 1 + count / 50, "{lost} of {count} values of {size} bytes were gone at once");
    }
    assert!(node.peak_rss_bytes() < (64 + 64) * MIB, "{}", node.peak_rss_bytes());
}
