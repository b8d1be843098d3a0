//! While a node finds out what its directory has: nothing that is there is said to be missing.

use std::time::{Duration, Instant};

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::{Call, Connection, Node, report};

const ENTRIES: u64 = 300_000;
const WRITERS: u64 = 4;
/// Requests that are sent before their answers are read.
const PIPELINED: u64 = 500;

fn target(number: u64) -> String {
    format!("/cache/{number:08}")
}

fn value(number: u64) -> Vec<u8> {
    Content::new(number).bytes(20 + (number % 50) as usize)
}

/// Stores these entries, pipelined.
fn store(mut connection: Connection, numbers: impl Iterator<Item = u64>) {
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let some: Vec<u64> = numbers.by_ref().take(PIPELINED as usize).collect();
        let calls: Vec<u8> = some.iter().flat_map(|&n| Call::put(target(n), value(n)).bytes()).collect();
        connection.send(calls);
        some.iter().for_each(|_| _ = connection.answer().expect(201));
    }
}

fn fill(node: &Node, entries: u64) {
    let began = Instant::now();
    store(node.connect(), 0..1);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (connection, share) = (node.connect(), entries / WRITERS);
            scope.spawn(move || store(connection, (writer * share).max(1)..(writer + 1) * share));
        }
    });
    report(format_args!("{entries} entries in {:?}", began.elapsed()));
}

/// Asks for the health until it is good, which it has to become; what was said before.
fn health_until_good(mut connection: Connection) -> Vec<String> {
    let (mut said, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while Instant::now() < deadline {
        let answer = connection.call(&Call::get("/health"));
        match answer.status {
            200 => return said,
            503 => {
                assert!(answer.header("Retry-After").is_some());
                said.push(answer.text().to_owned());
            }
            other => panic!("{other}"),
        }
    }
    panic!("it never gets healthy: {said:?}");
}

fn find_everything_at_once(node: &Node, entries: u64, round: usize) {
    let health = node.connect();
    let (mut oldest, mut absent) = (node.connect(), node.connect());
    oldest.send(Call::get(target(0)).bytes());
    absent.send(Call::get("/cache/absent").bytes());
    let said = health_until_good(health);
    report(format_args!("{} times not healthy yet", said.len()));
    assert!(said.iter().all(|said| said.contains("starting")), "{said:?}");
    assert_eq!(oldest.answer().expect(200).body, value(0));
    absent.answer().expect(404);
    for number in (0..entries).step_by(997) {
        assert_eq!(oldest.call(&Call::get(target(number))).expect(200).body, value(number));
    }
    oldest.call(&Call::put(format!("/cache/new/{round}"), "x")).expect(201);
    oldest.call(&Call::put(target(0), "y").with("If-None-Match", "*")).expect(412);
}

#[test]
fn the_oldest_of_many_entries_is_found_at_once_after_a_restart() {
    let home = Home::new("128", "4G");
    let mut node = home.node();
    fill(&node, ENTRIES);
    for (round, end) in [Node::kill, Node::stop].into_iter().enumerate() {
        end(node);
        let began = Instant::now();
        node = home.node();
        find_everything_at_once(&node, ENTRIES, round);
        report(format_args!("healthy and looked through in {:?}", began.elapsed()));
    }
    assert_eq!(node.metric("elcache_cache_entries{tier=\"disk\"}"), Some((ENTRIES + 2) as f64));
}
