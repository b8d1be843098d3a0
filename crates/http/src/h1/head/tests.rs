use super::*;
use proptest::prelude::*;

fn config() -> HttpConfig {
    HttpConfig::default()
}

fn scan(data: &[u8]) -> Result<Option<usize>, u16> {
    Scanner::default().scan(data, &config()).map_err(|problem| problem.status)
}

/// The head of these bytes, or the status with which they are refused.
fn parse(text: &str) -> Result<Head, u16> {
    let mut bytes = text.as_bytes().to_vec();
    let end = scan(&bytes)?.expect("the head is complete");
    Head::parse(&mut bytes[..end], &config()).map_err(|problem| {
        assert!(problem.close, "{text:?}");
        problem.status
    })
}

fn refusal(lines: &str) -> u16 {
    match parse(&format!("{lines}\r\n")) {
        Ok(head) => head.request.action.err().map_or(200, |problem| problem.status),
        Err(status) => status,
    }
}

#[test]
fn ordinary_requests() {
    let head = parse("GET /cache/k HTTP/1.1\r\nHost: h:1\r\n\r\n").unwrap();
    assert!(head.keep_alive && !head.is_http10 && matches!(head.framing, Framing::Length(0)));
    let head =
        parse("\r\nPUT /cache/k HTTP/1.1\r\nHOST: h\r\ncontent-length:5 \r\nConnection: x, Close\r\n\r\n")
            .unwrap();
    assert!(!head.keep_alive && matches!(head.framing, Framing::Length(5)));
    let head = parse("PUT /cache/k HTTP/1.1\r\nHost:\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap();
    assert!(matches!(head.framing, Framing::Chunked(_)));
    let old = parse("GET /cache/k HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert!(old.is_http10 && !old.keep_alive && !old.request.expects_continue);
    assert!(parse("GET /cache/k HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
    let newer = parse("GET /cache/HTTP/1.9 HTTP/1.7\r\nHost: h\r\n\r\n").unwrap();
    assert!(newer.keep_alive && newer.request.action.is_ok());
}

#[test]
fn heads_that_two_readers_could_read_differently_are_refused() {
    let host = "GET /cache/k HTTP/1.1\r\nHost: h\r\n";
    let bad = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Host: h\r\n",
        "Host : h\r\n",
        "A : b\r\n",
        " A: b\r\n",
        "A: b\r\n c\r\n",
        "A: b\0c\r\n",
        "A: b\x01\r\n",
        "A: b\x7f\r\n",
        "A\r\n",
        ": b\r\n",
        "A b: c\r\n",
        "A\u{e9}: c\r\n",
    ];
    for lines in bad {
        assert_eq!(refusal(&format!("{host}{lines}")), 400, "{lines:?}");
    }
    assert_eq!(refusal(&format!("{host}Content-Length: 5, 5\r\nContent-Length: 05\r\n")), 200);
    assert_eq!(refusal(&format!("{host}Transfer-Encoding: gzip, chunked\r\n")), 501);
    assert_eq!(refusal(&format!("{host}Transfer-Encoding: xchunked\r\n")), 501);
    assert_eq!(refusal("PUT /cache/k HTTP/1.0\r\nTransfer-Encoding: chunked\r\n"), 400);
}

#[test]
fn hosts_and_request_lines() {
    assert_eq!(refusal("GET /cache/k HTTP/1.1\r\n"), 400);
    assert_eq!(refusal("GET /cache/k HTTP/1.1\r\nHost: a b\r\n"), 400);
    assert_eq!(refusal("GET /cache/k HTTP/1.1\r\nHost: a/b\r\n"), 400);
    assert_eq!(refusal("GET /cache/k HTTP/1.0\r\n"), 200);
    let host = "\r\nHost: h\r\n";
    for (line, status) in [
        ("GET /cache/k HTTP/2.0", 505),
        ("GET /cache/k HTTP/0.9", 505),
        ("GET /cache/k HTTP/11", 400),
        ("GET /cache/k http/1.1", 400),
        ("GET /cache/k", 400),
        ("GET  /cache/k HTTP/1.1", 400),
        ("GET /cache/k  HTTP/1.1", 400),
        ("GET /cache/a b HTTP/1.1", 400),
        (" GET /cache/k HTTP/1.1", 400),
        ("G\u{1}T /cache/k HTTP/1.1", 400),
        ("GET /cache/\u{1} HTTP/1.1", 400),
        ("BREW /cache/k HTTP/1.1", 501),
        ("CONNECT h:80 HTTP/1.1", 501),
        ("GET http://h/cache/k HTTP/1.1", 200),
        ("OPTIONS * HTTP/1.1", 200),
    ] {
        assert_eq!(refusal(&format!("{line}{host}")), status, "{line:?}");
    }
}

#[test]
fn line_ends_are_cr_lf() {
    for bad in
        ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nA: b\nC: d\r\n", "GET / HTTP/1.1\rA", "\n", "\r\r", "GET\r /"]
    {
        assert_eq!(scan(bad.as_bytes()), Err(400), "{bad:?}");
    }
    assert_eq!(scan("\r\n".repeat(33).as_bytes()), Err(400));
    assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\n\r\nx"), Ok(Some(22)));
}

#[test]
fn sizes_are_limited() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(length));
    let limit = config().request_line;
    assert!(matches!(scan(target(limit - 14).as_bytes()), Ok(Some(_))));
    assert_eq!(scan(target(limit - 13).as_bytes()), Err(414));
    assert_eq!(scan("x".repeat(limit + 1).as_bytes()), Err(414));
    let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert!(matches!(scan(lines(128).as_bytes()), Ok(Some(_))));
    assert_eq!(scan(lines(129).as_bytes()), Err(431));
    let long = |length: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(length));
    assert!(matches!(scan(long(config().headers - 10).as_bytes()), Ok(Some(_))));
    assert_eq!(scan(long(config().headers).as_bytes()), Err(431));
}

proptest! {
    #[test]
    fn a_head_is_found_however_it_is_cut(cuts in proptest::collection::vec(1_usize..9, 1..40), bad in any::<bool>()) {
        let text = if bad { "\r\nGET /x HTTP/1.1\r\nHost: h\r\nA: b\nc\r\n\r\n" } else { "\r\nGET /x HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\nbody\n" };
        let mut scanner = Scanner::default();
        let mut end = 0;
        let mut found = Ok(None);
        for cut in cuts.iter().cycle() {
            end = (end + cut).min(text.len());
            found = scanner.scan(&text.as_bytes()[..end], &config()).map_err(|problem| problem.status);
            if found != Ok(None) || end == text.len() {
                break;
            }
        }
        prop_assert_eq!(found, scan(text.as_bytes()));
    }

    #[test]
    fn any_bytes_are_read_or_refused_whole_or_cut(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..80), cut in 0_usize..80) {
        let mut scanner = Scanner::default();
        let first = scanner.scan(&bytes[..cut.min(bytes.len())], &config());
        let whole = scan(&bytes);
        if let Ok(None) = first {
            prop_assert_eq!(scanner.scan(&bytes, &config()).map_err(|problem| problem.status), whole);
        }
        let mut head = [b"GET /cache/k HTTP/1.1\r\nHost: h\r\n", &bytes[..], b"\r\n\r\n"].concat();
        let _ = Head::parse(&mut head, &config());
        let mut bytes = bytes;
        let _ = Head::parse(&mut bytes, &config());
    }
}
