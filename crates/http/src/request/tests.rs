use super::*;
use crate::range::RangeSpec;
use proptest::prelude::*;

fn parse(method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Request::parse(method.as_bytes(), target.as_bytes(), headers, &HttpConfig::default())
}

fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
    parse(method, target, headers).action.map_or_else(|problem| problem.status, |_| 200)
}

fn put(headers: &[(&str, &str)]) -> Result<Box<Put>, Problem> {
    match parse("PUT", "/cache/k", headers).action? {
        Action::Put(put) => Ok(put),
        other => panic!("{other:?}"),
    }
}

fn get(method: &str, target: &str, headers: &[(&str, &str)]) -> Box<Get> {
    match parse(method, target, headers).action {
        Ok(Action::Get(get)) => get,
        other => panic!("{other:?}"),
    }
}

#[test]
fn methods_and_routes() {
    assert_eq!(status("GET", "/cache/k", &[]), 200);
    assert_eq!(status("POST", "/cache/k", &[]), 200);
    assert_eq!(status("OPTIONS", "*", &[]), 200);
    assert_eq!(status("OPTIONS", "/stats", &[]), 200);
    assert_eq!(status("GET", "*", &[]), 405);
    assert_eq!(status("PATCH", "/cache/k", &[]), 405);
    assert_eq!(status("TRACE", "/cache/k", &[]), 405);
    assert_eq!(status("PUT", "/health", &[]), 405);
    assert_eq!(status("GET", "/cluster/drain", &[]), 405);
    assert_eq!(status("BREW", "/cache/k", &[]), 501);
    assert_eq!(status("get", "/cache/k", &[]), 501);
    assert_eq!(status("CONNECT", "h:80", &[]), 501);
    assert_eq!(status("GET", "h:80", &[]), 400);
    for unknown in ["/", "/cache", "/cache?prefix=a", "/sparse", "/purge", "/ui"] {
        assert_eq!(status("GET", unknown, &[]), 404, "{unknown}");
    }
    let problem = parse("DELETE", "/metrics", &[]).action.unwrap_err();
    assert_eq!(problem.note, Note::Allow("GET, HEAD, OPTIONS"));
}

#[test]
fn keys_are_any_bytes_and_the_query_is_no_part_of_them() {
    let key = |target| get("GET", target, &[]).key.as_bytes().to_vec();
    assert_eq!(key("/cache/a%00%2f../%FF?x=y"), b"a\0/../\xff");
    assert_eq!(key("http://h/cache/a+b"), b"a+b");
    assert_eq!(status("GET", "/cache/", &[]), 400);
    assert_eq!(status("GET", "/cache/?range=0-1", &[]), 400);
    assert_eq!(status("GET", "/cache/%4", &[]), 400);
    let long = "%41".repeat(8192);
    assert_eq!(status("GET", &format!("/cache/{long}"), &[]), 200);
    assert_eq!(status("GET", &format!("/cache/{long}x"), &[]), 400);
}

#[test]
fn the_query_beats_the_range_header_and_head_ignores_both() {
    let header = [("Range", "bytes=0-0"), ("If-Range", "\"x\"")];
    let queried = get("GET", "/cache/k?range=2-3", &header);
    assert_eq!((&queried.ranges, queried.if_range), (&Ranges::One(RangeSpec::From(2, Some(4))), None));
    let ranged = get("GET", "/cache/k?other=1", &header);
    assert_eq!(
        (&ranged.ranges, ranged.if_range),
        (&Ranges::One(RangeSpec::From(0, Some(0))), Some(IfRange::Never))
    );
    assert_eq!(get("HEAD", "/cache/k?range=2-3", &header).ranges, Ranges::Whole);
    for bad in ["range", "range=", "range=1", "range=1-0", "range=a-b", "range=1-2&range=1-2", "range=%"] {
        assert_eq!(status("GET", &format!("/cache/k?{bad}"), &[]), 400, "{bad}");
    }
}

#[test]
fn the_options_of_a_put() {
    let options = put(&[
        ("x-elcache-ttl", "60"),
        ("X-ElCache-Flags", "4294967295"),
        ("X-ElCache-No-Memory", "true"),
        ("X-ElCache-No-Disk", "1"),
        ("X-ElCache-No-Cluster", "0"),
        ("X-ElCache-Operation-Id", "op"),
        ("If-None-Match", "*"),
    ])
    .unwrap();
    assert_eq!((options.ttl_seconds.map(NonZeroU64::get), options.flags), (Some(60), u32::MAX));
    assert_eq!((options.no_memory, options.no_disk, options.no_cluster), (true, true, false));
    assert_eq!(options.operation.as_ref().map(OperationId::as_bytes), Some(&b"op"[..]));
    assert_eq!(options.condition.if_none_match, Some(elcache_core::condition::Tags::Any));
    let forever = put(&[("X-ElCache-TTL", "18446744073709551615")]).unwrap();
    assert_eq!(forever.ttl_seconds.map(NonZeroU64::get), Some(MAX_TTL_SECONDS));
}

#[test]
fn options_that_cannot_be_read_are_refused() {
    let long = "x".repeat(65);
    let bad = [
        ("X-ElCache-TTL", "0"),
        ("X-ElCache-TTL", "-1"),
        ("X-ElCache-TTL", "1.5"),
        ("X-ElCache-TTL", ""),
        ("X-ElCache-TTL", "18446744073709551616"),
        ("X-ElCache-Flags", "4294967296"),
        ("X-ElCache-Flags", "0x1"),
        ("X-ElCache-No-Memory", "yes"),
        ("X-ElCache-No-Disk", "True"),
        ("X-ElCache-No-Cluster", ""),
        ("X-ElCache-Operation-Id", &long),
        ("X-ElCache-Operation-Id", ""),
        ("Content-Range", "bytes 0-1/2"),
        ("Content-Digest", "sha-256=:x:"),
        ("If-Match", "\"x"),
    ];
    for header in bad {
        assert_eq!(put(&[header]).unwrap_err().status, 400, "{header:?}");
    }
    assert_eq!(put(&[("X-ElCache-TTL", "1"), ("X-ElCache-TTL", "1")]).unwrap_err().status, 400);
}

#[test]
fn headers_are_kept_under_their_names() {
    let kept = put(&[
        ("content-type", "text/plain"),
        ("x-elcache-meta-Owner", "me"),
        ("cache-control", "no-store"),
        ("accept", "x"),
    ]);
    let kept = kept.unwrap().headers;
    let lines: Vec<_> = kept.iter().collect();
    let expected: [(&str, &[u8]); 3] =
        [("Content-Type", b"text/plain"), ("x-elcache-meta-Owner", b"me"), ("Cache-Control", b"no-store")];
    assert_eq!(lines, expected);
    let large = "x".repeat(61 << 10);
    assert_eq!(put(&[("X-ElCache-Meta-A", &large)]).unwrap_err().status, 431);
}

#[test]
fn digests_of_one_body_agree() {
    let empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let other = "sha-256=:AAAAQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    assert!(put(&[("Content-Digest", empty), ("Repr-Digest", empty)]).unwrap().sha256.is_some());
    assert_eq!(put(&[("Repr-Digest", "sha-512=:x:")]).unwrap().sha256, None);
    assert_eq!(put(&[("Content-Digest", empty), ("Repr-Digest", other)]).unwrap_err().status, 400);
}

#[test]
fn only_one_expectation_can_be_met() {
    assert!(parse("PUT", "/cache/k", &[("Expect", "100-Continue")]).expects_continue);
    let other = parse("PUT", "/cache/k", &[("Expect", "200-ok")]);
    let problem = other.action.unwrap_err();
    assert_eq!((problem.status, problem.close), (417, true));
}

proptest! {
    #[test]
    fn any_request_is_read_or_refused(
        method in prop_oneof![Just("GET"), Just("PUT"), Just("DELETE"), Just("OPTIONS")],
        target in proptest::collection::vec(any::<u8>(), 0..40),
        name in 0_usize..24,
        value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let names = ["range", "if-match", "if-none-match", "x-elcache-ttl", "x-elcache-flags", "content-digest",
            "if-range", "if-modified-since", "expect", "origin", "accept", "content-type"];
        let header = (names[name % names.len()].as_bytes(), &value[..]);
        let target = [b"/cache/", &target[..]].concat();
        let _ = Request::parse(method.as_bytes(), &target, [header].into_iter(), &HttpConfig::default());
    }
}
