//! Clients that leave in the middle: the old value stays, nothing leaks, nobody else notices.

use std::net::Shutdown;
use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::node::wait_for;
use elcache_tests::{Call, Node};

const MIB: usize = 1 << 20;

fn stat(node: &Node, name: &str) -> u64 {
    let stats: serde_json::Value =
        serde_json::from_slice(&node.get("/stats").expect(200).body).expect("JSON");
    stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

#[test]
fn a_client_that_leaves_within_a_put_changes_nothing() {
    let node = Node::start(&["-m", "64"], &[]);
    let old = Content::new(1).bytes(2 * MIB);
    node.put("/cache/a", &old);
    let size = stat(&node, "size_bytes");
    for sent in [0, 1, 1000, MIB, 5 * MIB] {
        for head in [format!("Content-Length: {}", 9 * MIB), "Transfer-Encoding: chunked".to_owned()] {
            for abruptly in [true, false] {
                let mut connection = node.connect();
                connection.send(format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n900000\r\n"));
                connection.send(vec![7; sent]);
                let how = if abruptly { Shutdown::Both } else { Shutdown::Write };
                let _ = connection.stream().shutdown(how);
                drop(connection);
            }
        }
    }
    assert!(node.get("/cache/a").expect(200).body == old);
    let back = wait_for(Duration::from_secs(10), || (stat(&node, "size_bytes") == size).then_some(()));
    assert!(back.is_some(), "{} bytes, {size} before", stat(&node, "size_bytes"));
    assert_eq!(stat(&node, "entry_count"), 1);
}

#[test]
fn five_hundred_clients_that_leave_within_a_put_leave_no_memory_behind() {
    let node = Node::start(&["-m", "64"], &[]);
    for round in 0..5 {
        let mut connections: Vec<_> = (0..100).map(|_| node.connect()).collect();
        for (number, connection) in connections.iter_mut().enumerate() {
            let head =
                format!("PUT /cache/{round}-{number} HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n");
            connection.send(head);
            let _ = connection.stream().set_write_timeout(Some(Duration::from_millis(50)));
            let _ = connection.try_send(vec![1; 300_000]);
        }
    }
    // What is left is the index, which does not shrink for a moment's peace.
    let empty = wait_for(Duration::from_secs(10), || (stat(&node, "size_bytes") < 65_536).then_some(()));
    assert!(empty.is_some(), "{} bytes", stat(&node, "size_bytes"));
    // All of the memory can be used again.
    let value = Content::new(1).bytes(40 * MIB);
    node.put("/cache/a", &value);
    assert!(node.get("/cache/a").expect(200).body == value);
    assert!(node.peak_rss_bytes() < (64 + 64) << 20, "{}", node.peak_rss_bytes());
}

#[test]
fn a_client_that_leaves_within_a_get_disturbs_nobody() {
    let node = Node::start(&["-m", "128"], &[]);
    let content = Content::new(2);
    node.put("/cache/a", content.bytes(40 * MIB));
    for round in 0..60 {
        let mut connection = node.connect();
        connection.send(Call::get("/cache/a").bytes());
        if round % 3 > 0 {
            connection.try_head().expect("a head").expect(200);
            connection.pass(round * 1000, |_, _| ()).expect("the beginning");
        }
        let _ = connection.stream().shutdown(if round % 2 == 0 { Shutdown::Both } else { Shutdown::Read });
    }
    assert!(content.is(0, &node.get("/cache/a").expect(200).body));
    let connections = || {
        let page = node.get("/metrics").expect(200);
        let line =
            page.text().lines().find(|line| line.starts_with("elcache_connections{transport=\"http\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("a number of connections")
    };
    let gone = wait_for(Duration::from_secs(10), || (connections() <= 1.0).then_some(()));
    assert!(gone.is_some(), "{} connections", connections());
}

#[test]
fn what_a_reader_held_is_free_after_it_has_left() {
    let node = Node::start(&["-m", "64"], &[]);
    for round in 0..5 {
        node.put("/cache/a", Content::new(round).bytes(30 * MIB));
        let mut readers: Vec<_> = (0..8).map(|_| node.connect()).collect();
        for reader in &mut readers {
            reader.send(Call::get("/cache/a").bytes());
            reader.try_head().expect("a head").expect(200);
        }
    }
    let value = Content::new(9).bytes(40 * MIB);
    let stored = wait_for(Duration::from_secs(10), || {
        let answer = node.call(&Call::put("/cache/b", &value));
        matches!(answer.status, 201 | 204).then_some(())
    });
    assert!(stored.is_some());
    assert!(node.get("/cache/b").expect(200).body == value);
}

#[test]
fn half_closed_clients_get_their_answers() {
    let node = Node::plain();
    let value = Content::new(1).bytes(9 * MIB);
    node.put("/cache/a", &value);
    let mut connection = node.connect();
    connection.send([Call::get("/cache/a").bytes(), Call::get("/health").bytes()].concat());
    connection.finish();
    assert!(connection.answer().expect(200).body == value);
    connection.answer().expect(200);
    assert!(connection.is_closed());
}

#[test]
fn connections_that_say_nothing_or_little_are_no_trouble() {
    let node = Node::plain();
    for bytes in
        ["", "G", "GET /cache/a HTTP/1.1\r\nHo", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        for _ in 0..20 {
            let mut connection = node.connect();
            connection.send(bytes);
        }
    }
    node.assert_healthy();
}
