//! Heads of requests: `Host`, floods, line ends, methods and routes (RFC 9112 sections 2, 3 and 5).

use elcache_tests::{Answer, Call, Node};

#[track_caller]
fn raw(node: &Node, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = node.connect();
    // A server may refuse before it has taken everything.
    let _ = connection.try_send(bytes);
    connection.answer()
}

#[track_caller]
fn assert_refused(node: &Node, bytes: impl AsRef<[u8]>, status: u16) {
    let answer = raw(node, &bytes);
    let sent = String::from_utf8_lossy(&bytes.as_ref()[..bytes.as_ref().len().min(200)]).into_owned();
    assert_eq!(answer.status, status, "{sent:?}");
    assert!(answer.closes(), "{sent:?}: {answer:?}");
}

#[test]
fn a_request_names_one_host() {
    let node = Node::plain();
    assert_refused(&node, "GET /health HTTP/1.1\r\n\r\n", 400);
    assert_refused(&node, "GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    assert_refused(&node, "GET /health HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n", 400);
    for host in ["a b", "a,b", "a/b", "u@h", "[::1", "h:x", "a\tb", "h:1:2"] {
        assert_refused(&node, format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
    for host in ["", "a", "a:80", "[::1]:80", "xn--bcher-kva.example", "127.0.0.1", "a."] {
        let answer = raw(&node, format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 200, "{host:?}");
    }
    raw(&node, "GET /health HTTP/1.0\r\n\r\n").expect(200);
}

#[test]
fn floods_of_headers_are_431() {
    let node = Node::plain();
    let head = |lines: &str| format!("GET /health HTTP/1.1\r\nHost: t\r\n{lines}\r\n");
    assert_refused(&node, head(&"X: y\r\n".repeat(200)), 431);
    assert_refused(&node, head(&"X: y\r\n".repeat(100_000)), 431);
    assert_refused(&node, head(&format!("X: {}\r\n", "y".repeat(70_000))), 431);
    assert_refused(&node, head(&format!("X: {}\r\n", "y".repeat(10_000_000))), 431);
    assert_refused(&node, head(&format!("{}: y\r\n", "X".repeat(70_000))), 431);
    assert_refused(&node, head(&format!("X: {}\r\n", "y".repeat(1000)).repeat(70)), 431);
    node.assert_healthy();
}

#[test]
fn as_many_headers_as_the_limit_allows_are_fine() {
    let node = Node::plain();
    let head = |lines: &str| format!("GET /health HTTP/1.1\r\nHost: t\r\n{lines}\r\n");
    raw(&node, head(&"X: y\r\n".repeat(127))).expect(200);
    assert_refused(&node, head(&"X: y\r\n".repeat(128)), 431);
    raw(&node, head(&format!("X: {}\r\n", "y".repeat(60_000)))).expect(200);
    raw(&node, head(&format!("X: {}\r\n", "y".repeat(500)).repeat(120))).expect(200);
}

#[test]
fn kept_headers_as_large_as_a_head_may_be_come_back() {
    let node = Node::plain();
    let mut call = Call::put("/cache/a", "x");
    for number in 0..50 {
        call = call.with(&format!("X-ElCache-Meta-{number}"), format!("{number}").repeat(500));
    }
    node.call(&call).expect(201);
    let got = node.get("/cache/a").expect(200);
    for number in 0..50 {
        let expected = format!("{number}").repeat(500);
        assert_eq!(got.header(&format!("X-ElCache-Meta-{number}")), Some(&*expected));
    }
}

#[test]
fn long_request_lines_are_414() {
    let node = Node::plain();
    for length in [33 << 10, 60 << 10, 1 << 20] {
        let line = format!("GET /cache/{} HTTP/1.1\r\nHost: t\r\n\r\n", "k".repeat(length));
        assert_refused(&node, line, 414);
        assert_refused(&node, "k".repeat(length), 414);
    }
    let query = format!("/health?{}", "q".repeat(30_000));
    node.get(&query).expect(200);
    node.assert_healthy();
}

#[test]
fn the_limits_of_heads_can_be_set() {
    let envs = [("ELCACHE__LIMITS__REQUEST_LINE", "300"), ("ELCACHE__LIMITS__HEADERS", "1KiB")];
    let node = Node::start(&["-m", "64"], &envs);
    node.get(&format!("/health?{}", "q".repeat(200))).expect(200);
    node.get(&format!("/health?{}", "q".repeat(300))).expect(414);
    node.call(&Call::get("/health").with("X", "y".repeat(900))).expect(200);
    node.call(&Call::get("/health").with("X", "y".repeat(1100))).expect(431);
}

#[test]
fn line_ends_are_cr_lf_and_nothing_else() {
    let node = Node::plain();
    for bytes in [
        "GET /health HTTP/1.1\nHost: t\n\n",
        "GET /health HTTP/1.1\r\nHost: t\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\rX: y\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX: y\r\n folded\r\n\r\n",
        "GET /health HTTP/1.1\r\n Host: t\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost : t\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\n: empty name\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX: a\x07b\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\nX\x7f: a\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: t\r\n(x): a\r\n\r\n",
        "\r\rGET /health HTTP/1.1\r\nHost: t\r\n\r\n",
    ] {
        assert_refused(&node, bytes, 400);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let node = Node::plain();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /health  HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /health HTTP/1.1 \r\nHost: t\r\n\r\n",
        b" GET /health HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET\t/health\tHTTP/1.1\r\nHost: t\r\n\r\n",
        b"G\x00T /health HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\xff: x\r\nHost: t\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n",
    ] {
        let status = raw(&node, bytes).status;
        assert_eq!(status, 400, "{:?}", String::from_utf8_lossy(bytes));
    }
    node.assert_healthy();
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    // RFC 9112 section 2.2: some clients send one after a body.
    let node = Node::plain();
    let mut connection = node.connect();
    connection.send("\r\nGET /health HTTP/1.1\r\nHost: t\r\n\r\n");
    connection.answer().expect(200);
    connection.send("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx\r\n");
    connection.answer().expect(201);
    connection.call(&Call::get("/cache/a")).expect(200);
    assert_refused(&node, "\r\n".repeat(10_000), 400);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let node = Node::plain();
    let mut connection = node.connect();
    for byte in b"GET /health HTTP/1.1\r\nHost: t\r\nX-A: b\r\n\r\n" {
        connection.send([*byte]);
    }
    connection.answer().expect(200);
}

#[test]
fn methods_that_nobody_knows_are_501_and_those_that_do_not_fit_405() {
    let node = Node::plain();
    let mut connection = node.connect();
    for method in ["BREW", "get", "Put", "PROPFIND", "X", "CONNECTX", "M-SEARCH"] {
        let answer = connection.call(&Call::new(method, "/cache/a"));
        assert_eq!(answer.status, 501, "{method}");
    }
    for method in ["PATCH", "TRACE"] {
        let answer = connection.call(&Call::new(method, "/cache/a"));
        assert!(matches!(answer.status, 405 | 501), "{method}: {answer:?}");
    }
    for (method, path, allowed) in [
        ("PUT", "/health", "GET"),
        ("DELETE", "/stats", "GET"),
        ("POST", "/metrics", "HEAD"),
        ("PUT", "/cluster", "GET"),
        ("DELETE", "/cluster/nodes", "GET"),
        ("GET", "/cluster/drain", "POST"),
    ] {
        let answer = connection.call(&Call::new(method, path)).expect(405);
        let allow = answer.header("Allow").unwrap_or_else(|| panic!("no Allow: {answer:?}"));
        assert!(allow.split(", ").any(|one| one == allowed), "{path}: {allow}");
        assert!(!allow.split(", ").any(|one| one == method), "{path}: {allow}");
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    }
}

#[test]
fn unknown_and_reserved_routes_are_404_with_a_problem() {
    let node = Node::plain();
    let routes = [
        "/",
        "/cache",
        "/cache?prefix=a&limit=3",
        "/Cache/a",
        "/purge",
        "/ui",
        "/ui/",
        "/health/",
        "/healthz",
        "//cache/a",
        "/sparse",
        "/cluster/x",
        "/stats.json",
        "/%63ache/a",
        "/a/../cache/b",
    ];
    for route in routes {
        for method in ["GET", "POST"] {
            let answer = node.call(&Call::new(method, route));
            assert_eq!(answer.status, 404, "{method} {route}");
            let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("a problem");
            assert_eq!(problem["status"], 404);
        }
    }
}

#[test]
fn every_problem_has_its_four_members_and_its_type() {
    let node = Node::plain();
    node.put("/cache/a", "value");
    let calls = [
        (Call::get("/cache/%"), 400),
        (Call::get("/cache/none"), 404),
        (Call::put("/health", ""), 405),
        (Call::get("/cache/a").with("If-Match", "\"x\""), 412),
        (Call::get("/cache/a").with("Range", "bytes=9-"), 416),
        (Call::put("/cache/a", "x").with("Expect", "x"), 417),
        (Call::new("BREW", "/"), 501),
        (Call::put("/cache/a", "").with("X-ElCache-No-Memory", "1"), 507),
    ];
    for (call, status) in calls {
        let answer = node.call(&call).expect(status);
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{status}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        assert!(!answer.text().contains("\":\""), "printed for people: {}", answer.text());
    }
}
