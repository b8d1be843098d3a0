//! What one client can take from the others: sizes, connections, time.

use std::time::{Duration, Instant};

use elcache_tests::content::Content;
use elcache_tests::node::wait_for;
use elcache_tests::{Broken, Call, Connection, Node};

const MIB: usize = 1 << 20;

fn is_refused(connection: &mut Connection) -> bool {
    match connection.try_call(&Call::get("/health")) {
        Ok(answer) => {
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
            assert!(answer.status == 200 || answer.header("Retry-After").is_some(), "{answer:?}");
            answer.status == 503
        }
        Err(_) => true,
    }
}

#[test]
fn a_value_over_the_limit_is_413_however_it_comes() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__VALUE_SIZE", "1MiB")]);
    node.call(&Call::put("/cache/a", vec![1; MIB])).expect(201);
    // Its length is known: refused without reading the body.
    let mut connection = node.connect();
    connection.send(format!("PUT /cache/b HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", MIB + 1));
    let answer = connection.answer().expect(413);
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    let mut connection = node.connect();
    connection.send(Call::new("PUT", "/cache/c").chunked().bytes());
    for _ in 0..17 {
        let _ = connection.try_send(elcache_tests::call::chunk(&vec![1; MIB / 16]));
    }
    connection.answer().expect(413);
    node.get("/cache/b").expect(404);
    node.get("/cache/c").expect(404);
    let old = Call::put("/cache/a", vec![2; MIB + 1]);
    node.call(&old).expect(413);
    assert!(node.get("/cache/a").expect(200).body == vec![1; MIB], "the old value stays");
}

#[test]
fn a_value_larger_than_the_tiers_is_507_before_its_body_is_read() {
    let node = Node::start(&["-m", "64"], &[]);
    node.put("/cache/a", "old");
    let mut connection = node.connect();
    connection.send(format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", 65 * MIB));
    let answer = connection.answer().expect(507);
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(node.get("/cache/a").expect(200).body, b"old");
}

#[test]
fn a_chunked_value_larger_than_the_tiers_is_507_once_that_shows() {
    let node = Node::start(&["-m", "64"], &[]);
    node.put("/cache/a", "old");
    let mut connection = node.connect();
    connection.send(Call::new("PUT", "/cache/a").chunked().bytes());
    let chunk = elcache_tests::call::chunk(&vec![9; MIB]);
    let sent = (0..200).take_while(|_| connection.try_send(&chunk).is_ok()).count();
    connection.answer().expect(507);
    assert!(sent > 30, "refused after {sent} MiB");
    assert!(node.rss_bytes() < (64 + 64) << 20);
    node.assert_healthy();
    assert_eq!(node.get("/cache/a").expect(200).body, b"old");
    node.put("/cache/b", Content::new(1).bytes(20 * MIB));
    node.get("/cache/b").expect(200);
}

#[test]
fn connections_are_limited_in_all() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__CONNECTIONS", "5")]);
    let mut open: Vec<Connection> = (0..5).map(|_| node.connect()).collect();
    for connection in &mut open {
        connection.call(&Call::get("/health")).expect(200);
    }
    assert!(is_refused(&mut node.connect()));
    for connection in &mut open {
        connection.call(&Call::get("/health")).expect(200);
    }
    open.pop();
    let again = wait_for(Duration::from_secs(5), || (!is_refused(&mut node.connect())).then_some(()));
    assert!(again.is_some(), "a place that was left is free again");
}

#[test]
fn connections_are_limited_per_address() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__CONNECTIONS_PER_ADDRESS", "3")]);
    let mut open: Vec<Connection> = (0..3).map(|_| node.connect()).collect();
    for connection in &mut open {
        connection.call(&Call::get("/health")).expect(200);
    }
    assert!(is_refused(&mut node.connect()));
    drop(open);
    let again = wait_for(Duration::from_secs(5), || (!is_refused(&mut node.connect())).then_some(()));
    assert!(again.is_some());
}

#[test]
fn a_head_that_does_not_end_is_408() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__HEADER_TIMEOUT", "500ms")]);
    let mut connection = node.connect();
    let start = Instant::now();
    connection.send("GET /health HTTP/1.1\r\nHost: t\r\n");
    // Bytes that trickle in do not buy time.
    let answer = loop {
        std::thread::sleep(Duration::from_millis(100));
        if connection.try_send("X: y\r\n").is_err() || start.elapsed() > Duration::from_millis(900) {
            break connection.answer();
        }
    };
    assert_eq!(answer.status, 408);
    assert!(answer.closes());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn an_idle_connection_is_closed() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__IDLE_TIMEOUT", "500ms")]);
    let mut never_used = node.connect();
    let mut used = node.connect();
    used.call(&Call::get("/health")).expect(200);
    let start = Instant::now();
    for connection in [&mut never_used, &mut used] {
        match connection.try_answer(false) {
            Err(Broken::Closed | Broken::Reset) => {}
            Ok(answer) => assert_eq!(answer.status, 408),
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(start.elapsed() > Duration::from_millis(200), "closed too early: {:?}", start.elapsed());
}

#[test]
fn a_body_that_stalls_is_408_and_leaves_the_old_value() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "500ms")]);
    node.put("/cache/a", "old");
    for head in ["Content-Length: 10", "Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        let mut connection = node.connect();
        let start = Instant::now();
        connection.send(format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\n{head}\r\n\r\n5\r\n12"));
        let answer = connection.answer().expect(408);
        assert!(answer.closes());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(node.get("/cache/a").expect(200).body, b"old");
    }
}

#[test]
fn a_slow_body_that_does_not_stall_arrives() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "800ms")]);
    let mut connection = node.connect();
    connection.send("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n");
    for byte in b"0123456789" {
        std::thread::sleep(Duration::from_millis(150));
        connection.send([*byte]);
    }
    connection.answer().expect(201);
}

#[test]
fn a_reader_that_stops_is_cut_off() {
    let envs = [("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "1s"), ("ELCACHE__LIMITS__IDLE_TIMEOUT", "1s")];
    let node = Node::start(&["-m", "256"], &envs);
    node.put("/cache/a", Content::new(1).bytes(60 * MIB));
    let mut connection = node.connect();
    connection.send(Call::get("/cache/a").bytes());
    std::thread::sleep(Duration::from_secs(5));
    let mut seen = 0;
    let outcome = connection.try_answer_into(false, |_, bytes| seen += bytes.len());
    assert!(outcome.is_err(), "{seen} bytes, and it looks complete");
}

#[test]
fn a_slow_reader_disturbs_nobody_and_gets_all_of_its_value() {
    let node = Node::start(&["-m", "128"], &[]);
    let big = Content::new(3);
    node.put("/cache/big", big.bytes(40 * MIB));
    let mut slow: Vec<Connection> = (0..10).map(|_| node.connect()).collect();
    for connection in &mut slow {
        connection.send(Call::get("/cache/big").bytes());
    }
    let mut quick = node.connect();
    let mut slowest = Duration::ZERO;
    for number in 0..300 {
        let start = Instant::now();
        let target = format!("/cache/{}", number % 10);
        quick.call(&Call::put(&target, Content::new(number).bytes(100_000)));
        assert!(Content::new(number).is(0, &quick.call(&Call::get(&target)).expect(200).body));
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for connection in &mut slow {
        let mut right = true;
        let answer =
            connection.try_answer_into(false, |at, bytes| right &= big.is(at, bytes)).expect("an answer");
        assert!(answer.status == 200 && right);
    }
}

#[test]
fn a_value_that_is_replaced_or_deleted_while_it_is_read_comes_out_whole() {
    let node = Node::start(&["-m", "256"], &[]);
    for replace in [true, false] {
        let old = Content::new(3);
        node.put("/cache/a", old.bytes(40 * MIB));
        let mut reader = node.connect();
        reader.send(Call::get("/cache/a").bytes());
        let head = reader.try_head().expect("a head").expect(200);
        if replace {
            node.put("/cache/a", Content::new(4).bytes(40 * MIB));
        } else {
            node.delete("/cache/a").expect(204);
        }
        let length = head.header("Content-Length").unwrap().parse().unwrap();
        let mut right = true;
        // Cut off would be allowed if the memory were needed; there is plenty.
        reader.pass(length, |at, bytes| right &= old.is(at, bytes)).expect("all of it");
        assert!(right);
    }
}
