//! HTTP/1.1 on the wire: framing, pipelining, limits, and clients that do not behave.

mod support;

use std::time::{Duration, Instant};

use elcache_http::HttpConfig;
use support::{Node, etag, pattern};
use tokio::io::AsyncWriteExt;

const MIB: usize = 1 << 20;

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = Node::start().await;
    let mut client = node.connect().await;
    let mut requests = String::new();
    for number in 0..50 {
        requests +=
            &format!("PUT /cache/{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{number:02}");
        requests += &format!("GET /cache/{number} HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    client.send(&requests).await;
    for number in 0..50 {
        assert_eq!(client.answer("PUT").await.status, 201);
        assert_eq!(client.answer("GET").await.text(), format!("{number:02}"));
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let node = Node::start().await;
    let mut client = node.connect().await;
    let request = "PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\nGET /cache/k HTTP/1.1\r\nHost: h\r\n\r\n";
    for byte in request.bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.answer("PUT").await.status, 201);
    assert_eq!(client.answer("GET").await.text(), "abcde");
}

#[tokio::test]
async fn large_chunked_bodies() {
    let node = Node::start().await;
    let value = pattern(9 * MIB + 3);
    let mut client = node.connect().await;
    client.send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for piece in value.chunks(100_000) {
        client.send(format!("{:x}\r\n", piece.len())).await;
        client.send(piece).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer("PUT").await.header("etag"), Some(&*etag(&value)));
    assert!(client.ask("GET", "/cache/k", "", b"").await.body == value);
}

#[tokio::test]
async fn expectations_are_answered_when_the_body_is_wanted() {
    let node = Node::start().await;
    for size in [5, 100_000] {
        let value = pattern(size);
        let head =
            format!("PUT /cache/k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n");
        let mut client = node.connect().await;
        client.send(format!("{head}\r\n")).await;
        assert_eq!(client.answer("PUT").await.status, 100);
        client.send(&value).await;
        assert!(matches!(client.answer("PUT").await.status, 201 | 204));

        let mut refused = node.connect().await;
        refused.send(format!("{head}If-None-Match: *\r\n\r\n")).await;
        let answer = refused.answer("PUT").await;
        assert_eq!((answer.status, answer.header("connection")), (412, Some("close")));
        assert!(refused.is_closed().await);
        assert!(node.get("k", "").await.body == value);
    }
    let mut chunked = node.connect().await;
    chunked
        .send(
            "PUT /cache/k HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    assert_eq!(chunked.answer("PUT").await.status, 100);
    chunked.send("1\r\nx\r\n0\r\n\r\n").await;
    assert_eq!(chunked.answer("PUT").await.status, 204);
    assert_eq!(node.put("k", "Expect: something\r\n", b"x").await.status, 417);
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_read_or_the_connection_closed() {
    let node = Node::start().await;
    let mut client = node.connect().await;
    client.send("GET /cache/none HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.answer("GET").await.status, 404);
    client
        .send("POST /health HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.answer("POST").await.status, 405);
    client
        .send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nX-ElCache-TTL: 0\r\nContent-Length: 200000\r\n\r\n")
        .await;
    assert_eq!(client.answer("PUT").await.status, 400);
    client.send(vec![0; 200_000]).await;
    assert_eq!(client.ask("GET", "/health", "", b"").await.status, 200);
    client
        .send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nX-ElCache-TTL: 0\r\nContent-Length: 300000\r\n\r\n")
        .await;
    assert_eq!(client.answer("PUT").await.header("connection"), Some("close"));
    client.send(vec![0; 300_000]).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_refused_upload_hears_why_although_it_is_still_sending() {
    let node = Node::start_with(HttpConfig { value_size: MIB as u64, ..HttpConfig::default() }).await;
    let mut client = node.connect().await;
    client.send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n").await;
    client.send(vec![0; 20_000_000]).await;
    assert_eq!(client.answer("PUT").await.status, 413);
    let mut chunked = node.connect().await;
    chunked.send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nF00000\r\n").await;
    chunked.send(vec![0; 0x50_0000]).await;
    assert_eq!(chunked.answer("PUT").await.status, 413);
    assert_eq!(node.get("k", "").await.status, 404);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_the_old_value() {
    let node = Node::start().await;
    node.put("k", "", b"old").await;
    for request in [
        "PUT /cache/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello",
        "PUT /cache/k HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhello",
        "PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = node.connect().await;
        client.send(request).await;
        client.stream.shutdown().await.unwrap();
        assert!(client.is_closed().await, "{request:?}");
    }
    assert_eq!(node.get("k", "").await.text(), "old");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_closed() {
    let node = Node::start().await;
    for (request, status) in [
        ("GET /cache/k HTTP/1.1\r\n\r\n", 400),
        ("GET /cache/k HTTP/1.1\nHost: h\n\n", 400),
        (
            "PUT /cache/k HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\nx", 400),
        ("PUT /cache/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy", 400),
        ("GET / HTTP/3.0\r\n\r\n", 505),
    ] {
        let mut client = node.connect().await;
        client.send(request).await;
        let answer = client.answer("GET").await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request:?}");
        client.stream.shutdown().await.unwrap();
        assert!(client.is_closed().await, "{request:?}");
    }
}

#[tokio::test]
async fn who_asks_to_close_is_closed_and_old_clients_by_default() {
    let node = Node::start().await;
    let mut client = node.connect().await;
    assert_eq!(
        client.ask("GET", "/health", "Connection: close\r\n", b"").await.header("connection"),
        Some("close")
    );
    assert!(client.is_closed().await);
    let mut old = node.connect().await;
    old.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(old.answer("GET").await.header("connection"), Some("keep-alive"));
    old.send("GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer("GET").await.header("connection"), Some("close"));
    assert!(old.is_closed().await);
    let mut half = node.connect().await;
    half.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n").await;
    half.stream.shutdown().await.unwrap();
    assert_eq!(half.answer("GET").await.status, 200);
}

#[tokio::test]
async fn patience_ends() {
    let config = HttpConfig {
        header_timeout: millis(200),
        idle_timeout: millis(400),
        body_stall_timeout: millis(200),
        ..HttpConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut head = node.connect().await;
    head.send("GET / HT").await;
    let answer = head.answer("GET").await;
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    for body in [
        "Content-Length: 9\r\n\r\nx",
        "Content-Length: 99999\r\n\r\nx",
        "Transfer-Encoding: chunked\r\n\r\n1",
    ] {
        let mut stalled = node.connect().await;
        stalled.send(format!("PUT /cache/k HTTP/1.1\r\nHost: h\r\n{body}")).await;
        assert_eq!(stalled.answer("PUT").await.status, 408, "{body:?}");
    }
    let mut idle = node.connect().await;
    let since = Instant::now();
    assert!(idle.is_closed().await);
    assert!((millis(350)..millis(1500)).contains(&since.elapsed()));
    let mut between = node.connect().await;
    between.ask("GET", "/health", "", b"").await;
    tokio::time::sleep(millis(250)).await;
    between.ask("GET", "/health", "", b"").await;
    assert!(between.is_closed().await);
}

#[tokio::test]
async fn a_reader_that_stops_is_given_up_and_one_that_is_slow_gets_every_byte() {
    let config = HttpConfig { idle_timeout: millis(2500), ..HttpConfig::default() };
    let node = Node::start_with(config).await;
    let value = pattern(60 * MIB);
    node.put("k", "", &value).await;
    let mut slow = node.connect().await;
    slow.send("GET /cache/k HTTP/1.1\r\nHost: h\r\n\r\n").await;
    tokio::time::sleep(millis(1500)).await;
    assert!(slow.answer("GET").await.body == value);
    let mut stopped = node.connect().await;
    stopped.send("GET /cache/k HTTP/1.1\r\nHost: h\r\n\r\n").await;
    tokio::time::sleep(millis(4500)).await;
    assert_eq!(stopped.try_answer("GET").await, None);
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_a_value_in_memory() {
    let node = Node::start().await;
    let value = pattern(4 * MIB);
    for (deleted, complete) in [(false, true), (true, false)] {
        node.put("k", "", &value).await;
        let mut slow = node.connect_narrow().await;
        slow.send("GET /cache/k HTTP/1.1\r\nHost: h\r\n\r\n").await;
        tokio::time::sleep(millis(1500)).await;
        if deleted {
            node.ask("DELETE", "/cache/k", "", b"").await;
        }
        let answer = slow.try_answer("GET").await;
        assert_eq!(answer.is_some_and(|answer| answer.body == value), complete);
    }
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let config = HttpConfig { connections_per_address: 2, ..HttpConfig::default() };
    let node = Node::start_with(config).await;
    let mut first = node.connect().await;
    first.ask("GET", "/health", "", b"").await;
    let mut second = node.connect().await;
    second.ask("GET", "/health", "", b"").await;
    let mut third = node.connect().await;
    let answer = third.answer("GET").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    drop(third);
    drop(second);
    tokio::time::sleep(millis(100)).await;
    assert_eq!(node.ask("GET", "/health", "", b"").await.status, 200);
    drop(first);
    tokio::time::sleep(millis(100)).await;
    assert_eq!(node.budget.taken_bytes(), 0);
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    let mut node = Node::start().await;
    let mut idle = node.connect().await;
    idle.ask("GET", "/health", "", b"").await;
    let mut busy = node.connect().await;
    busy.send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe").await;
    tokio::time::sleep(millis(100)).await;
    node.begin_stop();
    assert!(idle.is_closed().await);
    busy.send("llo").await;
    let answer = busy.answer("PUT").await;
    assert_eq!((answer.status, answer.header("connection")), (201, Some("close")));
    assert!(busy.is_closed().await);
    assert!(node.stop().await);
}

#[tokio::test]
async fn new_limits_hold_for_connections_that_are_open() {
    let node = Node::start().await;
    let mut client = node.connect().await;
    assert_eq!(client.ask("PUT", "/cache/k", "", &[0; 100]).await.status, 201);
    node.app.config().replace(HttpConfig { value_size: 10, ..HttpConfig::default() });
    assert_eq!(client.ask("PUT", "/cache/k", "", &[0; 100]).await.status, 413);
}
