//! What requests mean, whatever protocol they come over.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use elcache_http::HttpConfig;
use support::{Node, etag, pattern};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_value_comes_back_with_everything_that_is_known_of_it() {
    let node = Node::start().await;
    let headers = "Content-Type: text/plain\r\nContent-Encoding: x\r\nContent-Disposition: inline\r\nCache-Control: \
                   max-age=5\r\nX-ElCache-Meta-Owner: me\r\nX-ElCache-TTL: 100\r\nX-ElCache-Flags: 7\r\n";
    let put = node.put("k", headers, b"hello").await;
    assert_eq!((put.status, put.header("etag")), (201, Some(&*etag(b"hello"))));
    assert_eq!(put.header("content-length"), Some("0"));
    let again = node.put("k", headers, b"hello").await;
    assert_eq!((again.status, again.header("content-length")), (204, None));

    let get = node.get("k", "").await;
    assert_eq!((get.status, get.text()), (200, "hello"));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-encoding", "x"),
        ("content-disposition", "inline"),
        ("cache-control", "max-age=5"),
        ("x-elcache-meta-owner", "me"),
        ("x-elcache-flags", "7"),
        ("x-elcache-size", "5"),
        ("x-elcache-chunks", "1"),
        ("x-elcache-hit", "memory"),
        ("accept-ranges", "bytes"),
        ("age", "0"),
        ("etag", &etag(b"hello")),
    ] {
        assert_eq!(get.header(name), Some(value), "{name}");
    }
    assert!(matches!(get.header("x-elcache-ttl"), Some("99" | "100")));
    assert!(get.header("last-modified").unwrap().ends_with(" GMT") && get.header("date").is_some());

    let head = node.ask("HEAD", "/cache/k", "Range: bytes=0-1\r\n", b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("5"), 0));
    assert_eq!(head.header("etag"), get.header("etag"));
}

#[tokio::test]
async fn a_value_of_unknown_type_is_octets_and_without_a_ttl_there_is_none() {
    let node = Node::start().await;
    node.put("k", "", b"").await;
    let get = node.get("k", "").await;
    assert_eq!(
        (get.status, get.header("content-length"), get.header("x-elcache-chunks")),
        (200, Some("0"), Some("0"))
    );
    assert_eq!(get.header("content-type"), Some("application/octet-stream"));
    assert_eq!(get.header("x-elcache-ttl"), None);
    assert_eq!(node.get("k", "Range: bytes=0-\r\n").await.header("content-range"), Some("bytes */0"));
    assert_eq!(node.get("k", "Range: bytes=-1\r\n").await.status, 200);
}

#[tokio::test]
async fn absent_keys() {
    let node = Node::start().await;
    let miss = node.get("k", "If-Match: \"x\"\r\n").await;
    assert_eq!((miss.status, miss.header("x-elcache-hit")), (404, Some("miss")));
    assert_eq!(miss.header("content-type"), Some("application/problem+json"));
    assert!(miss.text().contains("\"status\": 404,\n"), "{}", miss.text());
    let head = node.ask("HEAD", "/cache/k", "", b"").await;
    assert_eq!((head.status, head.header("content-length").is_some()), (404, true));
    assert_eq!(node.ask("DELETE", "/cache/k", "If-Match: *\r\n", b"").await.status, 404);
    assert_eq!(node.put("k", "If-Match: *\r\n", b"x").await.status, 412);
    assert_eq!(node.put("k", "If-None-Match: *\r\n", b"x").await.status, 201);
    assert_eq!(node.put("k", "If-None-Match: *\r\n", b"y").await.status, 412);
    assert_eq!(node.ask("DELETE", "/cache/k", "If-Match: \"x\"\r\n", b"").await.status, 412);
    let delete = node.ask("DELETE", "/cache/k", &format!("If-Match: {}\r\n", etag(b"x")), b"").await;
    assert_eq!((delete.status, delete.header("content-length")), (204, None));
    assert_eq!(node.get("k", "").await.status, 404);
}

#[tokio::test]
async fn conditional_reads() {
    let node = Node::start().await;
    node.put("k", "Cache-Control: max-age=5\r\n", b"hello").await;
    let modified = node.get("k", "").await.header("last-modified").unwrap().to_owned();
    let same = etag(b"hello");
    let fresh = node.get("k", &format!("If-None-Match: W/{same}\r\n")).await;
    assert_eq!(
        (fresh.status, fresh.header("etag"), fresh.header("cache-control")),
        (304, Some(&*same), Some("max-age=5"))
    );
    assert_eq!(fresh.header("content-length"), None);
    for (condition, status) in [
        (format!("If-Modified-Since: {modified}"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}"), 200),
        ("If-Modified-Since: yesterday".into(), 200),
        (format!("If-Match: {same}"), 200),
        (format!("If-Match: W/{same}"), 412),
        ("If-Match: \"x\", *".into(), 400),
        ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT".into(), 412),
        (format!("If-Unmodified-Since: {modified}"), 200),
        (format!("If-Match: {same}\r\nIf-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"), 200),
        (format!("If-None-Match: {same}\r\nRange: bytes=0-0"), 304),
        (format!("If-Range: {same}\r\nRange: bytes=0-0"), 206),
        (format!("If-Range: {modified}\r\nRange: bytes=0-0"), 206),
        ("If-Range: \"x\"\r\nRange: bytes=0-0".into(), 200),
        ("If-Range: \"x\"\r\nRange: bytes=9-".into(), 200),
        ("Range: bytes=9-".into(), 416),
    ] {
        assert_eq!(node.get("k", &format!("{condition}\r\n")).await.status, status, "{condition}");
    }
}

#[tokio::test]
async fn ranges_of_small_and_large_values() {
    let node = Node::start().await;
    for size in [10, 20 * 1024, 9 * MIB + 5] {
        let value = pattern(size);
        let k = &*size.to_string();
        assert_eq!(node.put(k, "Content-Type: a/b\r\n", &value).await.header("etag"), Some(&*etag(&value)));
        let get = node.get(k, "").await;
        let same = get.body.iter().zip(&value).take_while(|(a, b)| a == b).count();
        assert_eq!((get.status, get.body.len(), same), (200, size, size));
        let middle = size / 2;
        let one = node.get(k, &format!("Range: bytes={middle}-{}\r\n", middle + 2)).await;
        assert_eq!((one.status, &one.body[..]), (206, &value[middle..middle + 3]));
        assert_eq!(one.header("content-range"), Some(&*format!("bytes {middle}-{}/{size}", middle + 2)));
        assert_eq!(
            (one.header("content-type"), one.header("x-elcache-size")),
            (Some("a/b"), Some(&*size.to_string()))
        );
        let queried = node.get(&format!("{k}?range={middle}-3"), "Range: bytes=0-0\r\n").await;
        assert_eq!((queried.status, &queried.body), (206, &one.body));
        let rest = node.get(k, "Range: bytes=3-\r\n").await;
        assert!(rest.status == 206 && rest.body == value[3..]);

        let many = node.get(k, &format!("Range: bytes=0-1,-2,{middle}-{middle}\r\n")).await;
        assert_eq!(many.status, 206);
        let boundary =
            many.header("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
        let part = |from: usize, to: usize| {
            let head = format!(
                "--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes {from}-{}/{size}\r\n\r\n",
                to - 1
            );
            [head.as_bytes(), &value[from..to], b"\r\n"].concat()
        };
        let closing = format!("--{boundary}--\r\n").into_bytes();
        let expected = [part(0, 2), part(size - 2, size), part(middle, middle + 1), closing].concat();
        assert_eq!(many.body, expected);
        assert_eq!(node.get(k, "Range: bytes=0-,0-\r\n").await.status, 200);
        let beyond = node.get(k, &format!("Range: bytes={size}-\r\n")).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(&*format!("bytes */{size}"))));
    }
}

#[tokio::test]
async fn a_value_is_replaced_by_one_of_any_other_size() {
    let node = Node::start().await;
    for size in [9 * MIB, 10, 5 * MIB, 100_000, 9 * MIB, 0] {
        let value = pattern(size);
        node.put("k", "", &value).await;
        let get = node.get("k", "").await;
        assert!(get.body == value, "{} bytes instead of {size}", get.body.len());
    }
    assert_eq!(node.ask("DELETE", "/cache/k", "", b"").await.status, 204);
    assert_eq!(node.get("k", "").await.status, 404);
}

#[tokio::test]
async fn what_was_evicted_is_partial_and_what_is_whole_is_served() {
    let node = Node::start().await;
    let value = pattern(9 * MIB);
    node.put("k", "", &value).await;
    node.tier.gone_from.store(1, Ordering::Relaxed);
    let whole = node.get("k", "").await;
    assert_eq!((whole.status, whole.header("x-elcache-hit")), (404, Some("partial")));
    assert_eq!(whole.header("x-elcache-available"), Some("44%"));
    assert_eq!(node.ask("HEAD", "/cache/k", "", b"").await.status, 404);
    assert_eq!(node.get("k", "If-None-Match: *\r\n").await.status, 404);
    let first = node.get("k", "Range: bytes=5-9\r\n").await;
    assert_eq!((first.status, &first.body[..]), (206, &value[5..10]));
    assert_eq!(node.get("k", "Range: bytes=5000000-\r\n").await.status, 404);
}

#[tokio::test]
async fn a_value_that_goes_before_its_first_byte_is_an_error_and_later_breaks_the_connection() {
    let node = Node::start().await;
    node.put("k", "", &pattern(9 * MIB)).await;
    node.tier.unreadable_from.store(0, Ordering::Relaxed);
    let early = node.get("k", "").await;
    assert_eq!((early.status, early.header("retry-after")), (503, Some("1")));
    node.tier.unreadable_from.store(1, Ordering::Relaxed);
    let mut client = node.connect().await;
    client.send("GET /cache/k HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.try_answer("GET").await, None);
}

#[tokio::test]
async fn digests_are_verified_for_small_and_large_values() {
    let node = Node::start().await;
    let wrong = "Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n";
    assert_eq!(node.put("k", wrong, b"").await.status, 201);
    assert_eq!(node.put("k", wrong, b"x").await.status, 400);
    assert_eq!(node.put("k", wrong, &pattern(5 * MIB)).await.status, 400);
    assert_eq!(node.get("k", "").await.header("content-length"), Some("0"));
}

#[tokio::test]
async fn a_retry_hears_its_first_answer() {
    let node = Node::start().await;
    for value in [pattern(10), pattern(5 * MIB)] {
        let headers = format!("X-ElCache-Operation-Id: op{}\r\n", value.len());
        let key = value.len().to_string();
        assert_eq!(node.put(&key, &headers, &value).await.status, 201);
        let again = node.put(&key, &headers, &value).await;
        assert_eq!((again.status, again.header("etag")), (201, Some(&*etag(&value))));
    }
}

#[tokio::test]
async fn limits_on_values() {
    let node = Node::start_with(HttpConfig { value_size: 1000, ..HttpConfig::default() }).await;
    assert_eq!(node.put("k", "", &[0; 1000]).await.status, 201);
    assert_eq!(node.put("k", "", &[0; 1001]).await.status, 413);
    let node = Node::start().await;
    let mut client = node.connect().await;
    client.send("PUT /cache/k HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000\r\n\r\n").await;
    assert_eq!(client.answer("PUT").await.status, 507);
    let refused = node.put("k", "X-ElCache-No-Memory: true\r\n", b"x").await;
    assert_eq!(refused.status, 507);
}

#[tokio::test]
async fn pages_about_the_node() {
    let node = Node::start().await;
    node.put("k", "", b"x").await;
    node.get("k", "").await;
    let ask = async |target: &str| node.ask("GET", target, "", b"").await;
    let health = ask("/health").await;
    assert_eq!((health.status, health.text()), (200, "{\n  \"status\": \"healthy\"\n}\n"));
    let stats = ask("/stats").await;
    assert!(
        stats.text().contains("\n  \"hits\": 1,\n") && stats.text().contains("\n    \"memory\": {\n"),
        "{}",
        stats.text()
    );
    assert_eq!(ask("/cluster").await.text(), "{\n  \"mode\": \"standalone\"\n}\n");
    assert_eq!(ask("/cluster/nodes").await.status, 200);
    assert_eq!(node.ask("POST", "/cluster/drain", "", b"").await.status, 409);
    let metrics = ask("/metrics").await;
    assert!(metrics.text().contains("elcache_http_requests_total{"), "{}", metrics.text());
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let open = node.ask("GET", "/metrics", "Accept: application/openmetrics-text\r\n", b"").await;
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    node.app.health().set(elcache_http::health::State::Draining);
    let draining = ask("/health").await;
    assert_eq!((draining.status, draining.header("retry-after")), (503, Some("1")));
}

#[tokio::test]
async fn methods_that_a_resource_does_not_have() {
    let node = Node::start().await;
    let patch = node.ask("PATCH", "/cache/k", "", b"").await;
    assert_eq!((patch.status, patch.header("allow")), (405, Some("GET, HEAD, PUT, POST, DELETE, OPTIONS")));
    let options = node.ask("OPTIONS", "/cache/k", "", b"").await;
    assert_eq!((options.status, options.header("accept-ranges")), (204, Some("bytes")));
    assert_eq!(options.header("allow"), patch.header("allow"));
    assert_eq!(node.ask("BREW", "/cache/k", "", b"").await.status, 501);
    for (target, allowed) in [
        ("/sparse/k", "GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS"),
        ("/sparse/k/data", "GET, HEAD, OPTIONS"),
        ("/sparse/k/finalize", "POST, OPTIONS"),
    ] {
        let options = node.ask("OPTIONS", target, "", b"").await;
        assert_eq!((options.status, options.header("allow")), (204, Some(allowed)), "{target}");
        let trace = node.ask("TRACE", target, "", b"").await;
        assert_eq!((trace.status, trace.header("allow")), (405, Some(allowed)), "{target}");
    }
}

#[tokio::test]
async fn a_ttl_ends() {
    let node = Node::start().await;
    node.put("k", "X-ElCache-TTL: 1\r\n", b"x").await;
    assert!(matches!(node.get("k", "").await.header("x-elcache-ttl"), Some("0" | "1")));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(node.get("k", "").await.status, 404);
}

#[tokio::test]
async fn pages_of_other_origins() {
    let config = HttpConfig { cors_origins: vec!["https://a.example".into()], ..HttpConfig::default() };
    let node = Node::start_with(config).await;
    let get = node.get("k", "Origin: https://a.example\r\n").await;
    assert_eq!(get.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(node.get("k", "").await.header("vary"), Some("Origin"));
}
