//! Where a request ends (RFC 9112 sections 6, 7 and 9): lengths that lie, chunks, pipelining, `Expect`, HTTP/1.0.

use std::time::Duration;

use elcache_tests::call::chunk;
use elcache_tests::content::Content;
use elcache_tests::curl::curl;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Broken, Call, Node};

/// Sends bytes; the first answer must be this status, and the server must close after it and answer nothing more.
#[track_caller]
fn refused(node: &Node, bytes: impl AsRef<[u8]>, status: u16) {
    let mut connection = node.connect();
    let _ = connection.try_send(&bytes);
    let answer = connection.answer();
    let sent = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    assert_eq!(answer.status, status, "{sent:?}");
    assert!(answer.closes(), "{sent:?}: {answer:?}");
    connection.finish();
    assert!(connection.is_closed(), "{sent:?}");
}

const SMUGGLED: &str = "GET /cache/smuggled HTTP/1.1\r\nHost: t\r\n\r\n";

#[test]
fn both_length_and_coding_never_split_a_request_in_two_ways() {
    let node = Node::plain();
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\ntransfer-encoding: CHUNKED\r\n",
    ] {
        let call = format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\n{head}\r\n0\r\n\r\n{SMUGGLED}");
        refused(&node, call, 400);
    }
    node.get("/cache/a").expect(404);
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let node = Node::plain();
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: 4\r\ncontent-length: 3\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 3 3\r\n",
        "Content-Length: three\r\n",
        "Content-Length: \r\n",
        "Content-Length: 3.0\r\n",
        "Content-Length: ,\r\n",
        "Content-Length : 3\r\n",
        " Content-Length: 3\r\n",
    ] {
        refused(&node, format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\n{lines}\r\nabcd{SMUGGLED}"), 400);
    }
    node.get("/cache/a").expect(404);
}

#[test]
fn one_length_said_twice_is_one_length_or_refused() {
    let node = Node::plain();
    let mut connection = node.connect();
    let lines = "Content-Length: 3\r\nContent-Length: 3\r\n";
    connection.send(format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\n{lines}\r\nabc"));
    let answer = connection.answer();
    match answer.status {
        201 => assert_eq!(node.get("/cache/a").expect(200).body, b"abc"),
        400 => assert!(answer.closes()),
        other => panic!("{other}"),
    }
}

#[test]
fn a_length_beyond_all_numbers_is_too_large_at_once() {
    let node = Node::plain();
    for length in
        ["18446744073709551616", "99999999999999999999999999", "18446744073709551615", "21990232555521"]
    {
        let mut connection = node.connect();
        connection.send(format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n"));
        let answer = connection.answer();
        assert!(matches!(answer.status, 400 | 413), "{length}: {answer:?}");
        assert!(answer.closes());
    }
    node.assert_healthy();
}

#[test]
fn codings_that_nobody_knows_are_refused() {
    let node = Node::plain();
    for (value, status) in [
        ("gzip", 501),
        ("gzip, chunked", 501),
        ("identity", 501),
        ("chunked, gzip", 501),
        ("chunked, chunked", 400),
        ("xchunked", 501),
        ("", 400),
    ] {
        let head = format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: {value}\r\n\r\n");
        refused(&node, format!("{head}0\r\n\r\n{SMUGGLED}"), status);
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    refused(&node, format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\n{twice}\r\n0\r\n\r\n{SMUGGLED}"), 400);
    // HTTP/1.0 has no codings.
    refused(&node, "PUT /cache/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

#[test]
fn a_body_shorter_than_its_length_is_no_value() {
    let node = Node::plain();
    node.put("/cache/a", "old");
    for size in [10, 100_000, 3 << 20] {
        let mut connection = node.connect();
        let head = format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n");
        connection.send([head.as_bytes(), &vec![b'x'; size - 1]].concat());
        connection.finish();
        let answer = connection.try_answer(false);
        assert!(
            matches!(&answer, Err(Broken::Closed | Broken::Reset))
                || answer.as_ref().is_ok_and(|a| a.status == 400),
            "{answer:?}"
        );
        assert_eq!(node.get("/cache/a").expect(200).body, b"old");
    }
}

#[test]
fn bytes_beyond_the_length_are_the_next_request() {
    let node = Node::plain();
    let mut connection = node.connect();
    connection.send(format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc{SMUGGLED}"));
    connection.answer().expect(201);
    connection.answer().expect(404);
    connection.send("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcdef");
    connection.answer().expect(204);
    connection.send(" /x\r\n\r\n");
    assert_eq!(connection.answer().status, 400);
    assert!(connection.is_closed());
    assert_eq!(node.get("/cache/a").body, b"abc");
}

#[test]
fn a_get_with_a_body_does_not_take_it_for_a_request() {
    let node = Node::plain();
    let mut connection = node.connect();
    for call in [Call::get("/cache/a"), Call::delete("/cache/a"), Call::new("OPTIONS", "/cache/a")] {
        let answer = connection.call(&call.body(SMUGGLED));
        assert!(matches!(answer.status, 404 | 204), "{answer:?}");
    }
    connection.send(Call::get("/cache/a").chunked().bytes());
    connection.send([chunk(SMUGGLED.as_bytes()), chunk(b"")].concat());
    connection.answer().expect(404);
    connection.call(&Call::get("/health")).expect(200);
}

#[test]
fn chunks_may_have_extensions_and_trailers() {
    let node = Node::plain();
    let mut connection = node.connect();
    connection.send(Call::new("PUT", "/cache/a").chunked().bytes());
    connection.send("5;name=value;other=\"quoted; text\"\r\nhello\r\n");
    connection.send("00006 ; x\r\n world\r\n");
    connection.send("A\r\n0123456789\r\n");
    connection.send("000;last\r\nX-Trailer: yes\r\nContent-Length: 3\r\nX-ElCache-TTL: 1\r\n\r\n");
    connection.answer().expect(201);
    let got = connection.call(&Call::get("/cache/a")).expect(200);
    assert_eq!(got.body, b"hello world0123456789");
    assert_eq!(got.header("X-ElCache-TTL"), None, "trailers are no headers");
}

#[test]
fn chunks_may_come_byte_by_byte() {
    let node = Node::plain();
    let mut connection = node.connect();
    let call = [Call::new("PUT", "/cache/a").chunked().bytes(), b"3\r\nabc\r\n0a\r\n".to_vec()].concat();
    for byte in call.iter().chain(b"defghijklm\r\n0\r\nT: x\r\n\r\n") {
        connection.send([*byte]);
    }
    connection.answer().expect(201);
    assert_eq!(connection.call(&Call::get("/cache/a")).body, b"abcdefghijklm");
}

#[test]
fn malformed_chunks_are_refused_and_leave_the_old_value() {
    let node = Node::plain();
    node.put("/cache/a", "old");
    let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(100_000));
    let long_trailer = format!("3\r\nabc\r\n0\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let many_trailers = format!("3\r\nabc\r\n0\r\n{}\r\n", "X: y\r\n".repeat(50_000));
    for body in [
        "x\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "10000000000000000\r\nabc\r\n0\r\n\r\n",
        ";x\r\nabc\r\n0\r\n\r\n",
        &long_extension,
        &long_trailer,
        &many_trailers,
    ] {
        let head = "PUT /cache/a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        refused(&node, format!("{head}{body}"), 400);
        assert_eq!(node.get("/cache/a").expect(200).body, b"old", "{:?}", &body[..body.len().min(40)]);
    }
}

#[test]
fn a_chunk_that_claims_to_be_enormous_takes_nothing() {
    let node = Node::start(&["-m", "64"], &[]);
    node.put("/cache/a", "old");
    for size in ["ffffffffffffffff", "7fffffffffffffff", "10000000000"] {
        let mut connection = node.connect();
        let head = "PUT /cache/a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.send(format!("{head}{size}\r\nabc"));
        connection.finish();
        match connection.try_answer(false) {
            Ok(answer) => assert!(matches!(answer.status, 400 | 413 | 507), "{answer:?}"),
            Err(broken) => assert!(matches!(broken, Broken::Closed | Broken::Reset), "{broken:?}"),
        }
    }
    assert_eq!(node.get("/cache/a").expect(200).body, b"old");
    assert!(node.rss_bytes() < 100 << 20);
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let node = Node::plain();
    let mut calls = Vec::new();
    for number in 0..50 {
        calls.extend(Call::put(format!("/cache/{number}"), format!("value {number}")).bytes());
        calls.extend(Call::get(format!("/cache/{number}")).bytes());
    }
    let mut connection = node.connect();
    connection.send(&calls);
    for number in 0..50 {
        connection.answer().expect(201);
        assert_eq!(connection.answer().expect(200).body, format!("value {number}").as_bytes());
    }
}

#[test]
fn pipelined_requests_of_every_kind_keep_their_order() {
    let node = Node::start(&["-m", "256"], &[]);
    let big = Content::new(8).bytes(9 << 20);
    let mut connection = node.connect();
    let calls = [
        Call::put("/cache/big", &big).bytes(),
        Call::get("/cache/none").bytes(),
        Call::get("/cache/big").bytes(),
        Call::head("/cache/big").bytes(),
        Call::get("/cache/big").with("Range", "bytes=5-6").bytes(),
        Call::new("BREW", "/cache/big").bytes(),
        Call::delete("/cache/big").bytes(),
        Call::get("/cache/big").bytes(),
    ];
    let sender = std::thread::spawn({
        let mut stream = connection.stream().try_clone().expect("a second handle");
        move || std::io::Write::write_all(&mut stream, &calls.concat())
    });
    connection.answer().expect(201);
    connection.answer().expect(404);
    assert!(connection.answer().expect(200).body == big);
    connection.answer_to_head().expect(200);
    assert_eq!(connection.answer().expect(206).body, big[5..7]);
    connection.answer().expect(501);
    connection.answer().expect(204);
    connection.answer().expect(404);
    sender.join().unwrap().unwrap();
}

#[test]
fn a_connection_is_kept_until_somebody_closes_it() {
    let node = Node::plain();
    let mut connection = node.connect();
    for _ in 0..200 {
        assert!(!connection.call(&Call::get("/cache/none")).expect(404).closes());
    }
    let last = connection.call(&Call::get("/cache/none").with("Connection", "foo, Close"));
    assert!(last.closes());
    assert!(connection.is_closed());
}

#[test]
fn http_1_0_closes_unless_asked_not_to() {
    let node = Node::plain();
    node.put("/cache/a", "value");
    let mut connection = node.connect();
    let old = Call::get("/cache/a").version("HTTP/1.0").hostless();
    let kept = connection.call(&old.clone().with("Connection", "keep-alive"));
    assert_eq!(kept.body, b"value");
    assert_eq!(kept.header("Connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
    assert_eq!(connection.call(&old).expect(200).body, b"value");
    assert!(connection.is_closed());
}

#[test]
fn versions_that_nobody_speaks() {
    let node = Node::plain();
    refused(&node, "GET / HTTP/3.0\r\nHost: t\r\n\r\n", 505);
    refused(&node, "GET / HTTP/0.9\r\nHost: t\r\n\r\n", 505);
    refused(&node, "GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505);
    refused(&node, "GET /\r\n\r\n", 400);
    refused(&node, "GET / http/1.1\r\nHost: t\r\n\r\n", 400);
    refused(&node, "GET / HTTP/11\r\nHost: t\r\n\r\n", 400);
    // A later 1.x is served as 1.1 (RFC 9110 section 2.5).
    assert_eq!(node.call(&Call::get("/health").version("HTTP/1.2")).status, 200);
}

#[test]
fn whoever_expects_100_gets_it_before_the_body() {
    let node = Node::plain();
    for size in [5, 3 << 20] {
        let value = Content::new(1).bytes(size);
        let mut connection = node.connect();
        connection.patience(Duration::from_secs(5));
        let head = format!(
            "PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
        );
        connection.send(head);
        connection.answer().expect(100);
        connection.send(&value);
        assert!(matches!(connection.answer().status, 201 | 204));
        assert!(connection.call(&Call::get("/cache/a")).body == value);
    }
    let mut connection = node.connect();
    connection.send(Call::new("PUT", "/cache/c").chunked().with("Expect", "100-Continue").bytes());
    connection.answer().expect(100);
    connection.send("3\r\nabc\r\n0\r\n\r\n");
    connection.answer().expect(201);
}

#[test]
fn whoever_does_not_wait_for_100_is_served_as_well() {
    // The body comes together with the head, in one write, as from a client that has lost its patience. Nothing more
    // will come, so a server that waits for more before it looks at what it has waits for ever.
    let node = Node::plain();
    let conditional = Call::put("/cache/b", "value").with("If-None-Match", "*");
    for call in [Call::put("/cache/a", "value"), conditional, Call::put("/cache/c", vec![7; 40_000])] {
        let mut connection = node.connect();
        connection.patience(Duration::from_secs(5));
        connection.send(call.with("Expect", "100-continue").bytes());
        let mut answer = connection.answer();
        if answer.status == 100 {
            answer = connection.answer();
        }
        answer.expect(201);
    }
}

#[test]
fn http_1_0_never_gets_an_interim_answer() {
    // RFC 9110 section 10.1.1.
    let node = Node::plain();
    let old = Call::put("/cache/a", "value").version("HTTP/1.0").with("Expect", "100-continue");
    node.call(&old).expect(201);
}

#[test]
fn a_refusal_comes_instead_of_100() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__VALUE_SIZE", "1MiB")]);
    node.put("/cache/a", "old");
    let refusals = [
        ("/cache/a", "Content-Length: 2000000\r\n", 413),
        ("/cache/a", "Content-Length: 5\r\nIf-None-Match: *\r\n", 412),
        ("/cache/a", "Content-Length: 5\r\nX-ElCache-TTL: 0\r\n", 400),
        ("/cache/a", "Content-Length: 5\r\nX-ElCache-No-Memory: true\r\n", 507),
        ("/cache/a", "Transfer-Encoding: chunked\r\nIf-Match: \"x\"\r\n", 412),
        ("/health", "Content-Length: 5\r\n", 405),
        ("/nothing", "Content-Length: 5\r\n", 404),
    ];
    for (path, lines, status) in refusals {
        let mut connection = node.connect();
        connection.send(format!("PUT {path} HTTP/1.1\r\nHost: t\r\n{lines}Expect: 100-continue\r\n\r\n"));
        let answer = connection.answer();
        assert_eq!(answer.status, status, "{path} {lines}");
        // The body may come or not, so nothing that follows can be read for sure.
        assert!(answer.closes(), "{path} {lines}: {answer:?}");
    }
    assert_eq!(node.get("/cache/a").expect(200).body, b"old");
}

#[test]
fn other_expectations_are_417() {
    let node = Node::plain();
    for value in ["200-ok", "100-continue, foo", "foo=bar"] {
        let answer = node.call(&Call::put("/cache/a", "x").with("Expect", value));
        assert_eq!(answer.status, 417, "{value}");
    }
    node.get("/cache/a").expect(404);
}

#[test]
fn curl_uploads_in_chunks_and_with_expect() {
    let node = Node::plain();
    let scratch = Scratch::new();
    let value = Content::new(6).bytes(5 << 20);
    let file = scratch.file("value", &value);
    for args in [
        &["-T", &*file, "-H", "Transfer-Encoding: chunked"][..],
        &["-T", &file, "-H", "Expect: 100-continue", "--expect100-timeout", "20"],
        &["-T", &file, "--http1.0"],
        &["-X", "POST", "--data-binary", &format!("@{file}")],
    ] {
        let put = curl(&node, "/cache/a", args);
        assert!(put.exit == 0 && matches!(put.answer.status, 201 | 204), "{args:?}: {put:?}");
        assert!(node.get("/cache/a").body == value, "{args:?}");
        node.delete("/cache/a").expect(204);
    }
}

#[test]
fn a_refused_body_does_not_cost_the_connection_when_it_is_small() {
    let node = Node::plain();
    let mut connection = node.connect();
    let answer =
        connection.call(&Call::put("/cache/a", vec![1; 1000]).with("X-ElCache-TTL", "0")).expect(400);
    assert!(!answer.closes());
    connection.call(&Call::get("/health")).expect(200);
}

#[test]
fn a_refused_large_body_does_not_hide_the_answer() {
    // The client writes everything before it reads. A server that closed at once would reset the connection, and the
    // answer with it.
    let node = Node::plain();
    let mut connection = node.connect();
    connection.call(&Call::put("/cache/a", vec![1; 20 << 20]).with("X-ElCache-TTL", "0")).expect(400);
}
