//! What is left when memory is needed for something else: chunks of one value go one by one.

use elcache_tests::content::Content;
use elcache_tests::{Answer, Call, Node};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 20 * MIB;

/// Fills memory until a value is there in part. Its number, and the answer that said so.
fn partial_value(node: &Node) -> Option<(u64, Answer)> {
    for number in 0..60 {
        node.put(&format!("/cache/{number}"), Content::new(number).bytes(SIZE as usize));
        for earlier in 0..number {
            let answer = node.head(&format!("/cache/{earlier}"));
            if answer.header("X-ElCache-Hit") == Some("partial") {
                return Some((earlier, answer));
            }
        }
    }
    None
}

#[test]
fn a_value_that_is_there_in_part_answers_for_what_is_whole() {
    let node = Node::start(&["-m", "64"], &[]);
    let (number, answer) = partial_value(&node).expect("chunks of one value are evicted one by one");
    assert_eq!(answer.status, 404);
    let available = answer.header("X-ElCache-Available").expect("how much is there");
    let percent: u64 = available.strip_suffix('%').and_then(|percent| percent.parse().ok()).expect("percent");
    assert!((0..100).contains(&percent), "{available}");
    let target = format!("/cache/{number}");
    let (mut whole, mut missing) = (0, 0);
    let mut connection = node.connect();
    for part in 0..20 {
        let (from, last) = (part * MIB, part * MIB + 999);
        let answer = connection.call(&Call::get(&target).with("Range", format!("bytes={from}-{last}")));
        match answer.status {
            206 => {
                assert!(Content::new(number).is(from, &answer.body), "{part}");
                whole += 1;
            }
            404 => missing += 1,
            other => panic!("{other}"),
        }
    }
    assert!(missing > 0, "{percent}% and nothing is missing");
    assert!(percent == 0 || whole > 0, "{percent}% and nothing is there");
    let got = node.get(&target).expect(404);
    assert_eq!(got.header("X-ElCache-Hit"), Some("partial"));
    assert_eq!(got.header("Content-Type"), Some("application/problem+json"));
    // A range over everything is not whole either, whatever it begins with.
    node.call(&Call::get(&target).with("Range", "bytes=0-")).expect(404);
    // Stored again, it is whole again.
    node.put(&target, Content::new(number).bytes(SIZE as usize));
    assert!(Content::new(number).is(0, &node.get(&target).expect(200).body));
}

#[test]
fn what_is_asked_for_often_stays() {
    let node = Node::start(&["-m", "32"], &[]);
    let mut connection = node.connect();
    for number in 0..50 {
        connection.call(&Call::put(format!("/cache/hot-{number}"), vec![1; 10_000])).expect(201);
        connection.call(&Call::get(format!("/cache/hot-{number}"))).expect(200);
    }
    for number in 0..2000 {
        connection.call(&Call::put(format!("/cache/scan-{number}"), vec![2; 50_000])).expect(201);
        connection.call(&Call::get(format!("/cache/hot-{}", number % 50)));
    }
    let hot = (0..50).filter(|n| connection.call(&Call::get(format!("/cache/hot-{n}"))).status == 200);
    let count = hot.count();
    assert!(count >= 45, "{count} of 50 are left after a scan");
}
