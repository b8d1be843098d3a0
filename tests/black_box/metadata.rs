//! What is kept with a value and what a PUT may ask for: headers, TTL, flags, operation ids, booleans, digests.

use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::{Call, Node};
use sha2::Digest;

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let word =
            three.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        let digit = |at: usize| char::from(DIGITS[(word >> (18 - 6 * at)) as usize & 63]);
        (0..4).map(|at| if at <= three.len() { digit(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", base64(&sha2::Sha256::digest(bytes)))
}

#[test]
fn kept_headers_come_back_and_others_do_not() {
    let node = Node::plain();
    let kept = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Encoding", "gzip"),
        ("Content-Disposition", "attachment; filename=\"a b.html\""),
        ("Cache-Control", "public, max-age=1"),
        ("X-ElCache-Meta-Author", "Ada"),
        ("X-ElCache-Meta-Empty", ""),
        ("x-elcache-meta-lower", "l"),
    ];
    for size in [5, 6 << 20] {
        let mut call = Call::put("/cache/a", Content::new(1).bytes(size));
        for (name, value) in kept {
            call = call.with(name, value);
        }
        let call = call.with("X-Other", "dropped").with("Expires", "0").with("Content-Language", "de");
        assert!(matches!(node.call(&call).status, 201 | 204));
        for answer in [node.get("/cache/a"), node.head("/cache/a")] {
            for (name, value) in kept {
                assert_eq!(answer.header(name), Some(value), "{name}");
            }
            assert_eq!(answer.header("X-Other"), None);
        }
        let part = node.call(&Call::get("/cache/a").with("Range", "bytes=1-2")).expect(206);
        assert_eq!(part.header("Content-Encoding"), Some("gzip"));
    }
}

#[test]
fn a_replacement_keeps_nothing_of_the_old_metadata() {
    let node = Node::plain();
    let call = Call::put("/cache/a", "one")
        .with("Content-Type", "text/plain")
        .with("X-ElCache-Meta-A", "1")
        .with("X-ElCache-Flags", "9")
        .with("X-ElCache-TTL", "1000");
    node.call(&call).expect(201);
    node.call(&Call::put("/cache/a", "two")).expect(204);
    let got = node.get("/cache/a");
    assert_eq!(got.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!((got.header("X-ElCache-Meta-A"), got.header("X-ElCache-TTL")), (None, None));
    assert_eq!(got.header("X-ElCache-Flags"), Some("0"));
}

#[test]
fn bytes_above_ascii_in_kept_headers_come_back() {
    let node = Node::plain();
    let value = b"na\xefve \xc3\xa9";
    node.call(&Call::put("/cache/a", "x").with("X-ElCache-Meta-Name", value)).expect(201);
    let expected: String = value.iter().map(|&byte| char::from(byte)).collect();
    assert_eq!(node.get("/cache/a").header("X-ElCache-Meta-Name"), Some(&*expected));
}

#[test]
fn cache_control_is_kept_and_sets_no_ttl() {
    let node = Node::plain();
    for control in ["max-age=1", "no-store", "s-maxage=0, private"] {
        let answer = node.call(&Call::put("/cache/a", "x").with("Cache-Control", control));
        assert!(matches!(answer.status, 201 | 204));
        let got = node.get("/cache/a").expect(200);
        assert_eq!((got.header("Cache-Control"), got.header("X-ElCache-TTL")), (Some(control), None));
    }
    node.call(&Call::put("/cache/a", "x").with("Cache-Control", "max-age=1")).expect(204);
    std::thread::sleep(Duration::from_millis(2100));
    node.get("/cache/a").expect(200);
    // Requests that would have an ordinary cache ask elsewhere are answered as well.
    node.call(&Call::get("/cache/a").with("Cache-Control", "no-cache")).expect(200);
}

#[test]
fn a_value_lives_as_long_as_its_ttl() {
    let node = Node::plain();
    node.call(&Call::put("/cache/short", "x").with("X-ElCache-TTL", "1")).expect(201);
    node.call(&Call::put("/cache/long", "x").with("X-ElCache-TTL", "3600")).expect(201);
    std::thread::sleep(Duration::from_millis(20));
    let short = node.get("/cache/short").expect(200);
    assert_eq!(short.header("X-ElCache-TTL"), Some("0"), "less than a second is left, floored");
    let left: u64 = node.get("/cache/long").header("X-ElCache-TTL").unwrap().parse().unwrap();
    assert!((3590..=3600).contains(&left), "{left}");
    std::thread::sleep(Duration::from_millis(1200));
    let gone = node.get("/cache/short").expect(404);
    assert_eq!(gone.header("X-ElCache-Hit"), Some("miss"));
    node.head("/cache/short").expect(404);
    node.delete("/cache/short").expect(404);
    node.get("/cache/long").expect(200);
}

#[test]
fn an_expired_value_counts_as_absent_for_writes() {
    let node = Node::plain();
    let etag = node.call(&Call::put("/cache/a", "x").with("X-ElCache-TTL", "1")).etag().to_owned();
    std::thread::sleep(Duration::from_millis(1200));
    node.call(&Call::put("/cache/a", "y").with("If-Match", &etag)).expect(412);
    node.call(&Call::put("/cache/a", "y").with("If-None-Match", "*")).expect(201);
    node.get("/cache/a").expect(200);
}

#[test]
fn what_has_expired_is_swept_without_being_asked_for() {
    let node = Node::plain();
    let mut connection = node.connect();
    for number in 0..50 {
        let target = format!("/cache/{number}");
        connection.call(&Call::put(target, "x").with("X-ElCache-TTL", "1")).expect(201);
    }
    let entries = || {
        let stats: serde_json::Value = serde_json::from_slice(&node.get("/stats").body).expect("JSON");
        stats["entry_count"].as_u64().expect("a number")
    };
    assert_eq!(entries(), 50);
    let swept = elcache_tests::node::wait_for(Duration::from_secs(20), || (entries() == 0).then_some(()));
    assert!(swept.is_some(), "{} are left", entries());
}

#[test]
fn a_ttl_that_is_none_is_400_and_stores_nothing() {
    let node = Node::plain();
    for ttl in ["0", "-1", "-0", "abc", "", "1.5", "1s", "0x10", "+5", "1,2", "1 2", "٣"] {
        node.call(&Call::put("/cache/a", "x").with("X-ElCache-TTL", ttl)).expect(400);
    }
    node.call(&Call::put("/cache/a", "x").with("X-ElCache-TTL", "5").with("X-ElCache-TTL", "6")).expect(400);
    node.get("/cache/a").expect(404);
}

#[test]
fn a_ttl_beyond_all_times_does_not_wrap() {
    let node = Node::plain();
    for ttl in ["4294967296", "9223372036854775807", "18446744073709551615"] {
        let status = node.call(&Call::put("/cache/a", "x").with("X-ElCache-TTL", ttl)).status;
        assert!(matches!(status, 201 | 204 | 400), "{ttl}: {status}");
        if status != 400 {
            let got = node.get("/cache/a").expect(200);
            assert!(got.header("X-ElCache-TTL").unwrap().parse::<u64>().unwrap() > 4_000_000_000, "{ttl}");
        }
    }
    let ttl = "99999999999999999999999999";
    assert_eq!(node.call(&Call::put("/cache/a", "x").with("X-ElCache-TTL", ttl)).status, 400);
}

#[test]
fn flags_are_32_bits() {
    let node = Node::plain();
    for flags in ["0", "1", "4294967295"] {
        node.call(&Call::put("/cache/a", "x").with("X-ElCache-Flags", flags));
        assert_eq!(node.get("/cache/a").expect(200).header("X-ElCache-Flags"), Some(flags));
    }
    for flags in ["4294967296", "-1", "x", "", "1.0", "0x1"] {
        node.call(&Call::put("/cache/a", "y").with("X-ElCache-Flags", flags)).expect(400);
    }
    assert_eq!(node.get("/cache/a").body, b"x");
}

#[test]
fn boolean_headers_take_four_words() {
    let node = Node::plain();
    for name in ["X-ElCache-No-Memory", "X-ElCache-No-Disk", "X-ElCache-No-Cluster"] {
        for no in ["false", "0"] {
            let status = node.call(&Call::put("/cache/a", "x").with(name, no)).status;
            assert!(matches!(status, 201 | 204), "{name} {no}: {status}");
        }
        for bad in ["yes", "2", "", "on", "tru", "1 1", "true, true"] {
            node.call(&Call::put("/cache/a", "y").with(name, bad)).expect(400);
        }
    }
    for name in ["X-ElCache-No-Disk", "X-ElCache-No-Cluster"] {
        for yes in ["true", "1"] {
            node.call(&Call::put("/cache/a", "x").with(name, yes)).expect(204);
        }
    }
    assert_eq!(node.get("/cache/a").body, b"x");
}

#[test]
fn a_value_that_no_tier_may_keep_is_507() {
    // Memory is the only tier of this node.
    let node = Node::plain();
    node.put("/cache/a", "old");
    for yes in ["true", "1"] {
        let answer = node.call(&Call::put("/cache/a", "new").with("X-ElCache-No-Memory", yes)).expect(507);
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    }
    assert_eq!(node.get("/cache/a").expect(200).body, b"old");
}

#[test]
fn a_retry_with_its_operation_id_gets_the_first_answer() {
    let node = Node::plain();
    let call = |body: &str, id: &str| Call::put("/cache/a", body).with("X-ElCache-Operation-Id", id);
    let first = node.call(&call("one", "op-1")).expect(201);
    let retry = node.call(&call("one", "op-1")).expect(201);
    assert_eq!(first.etag(), retry.etag());
    node.call(&call("two", "op-2")).expect(204);
    node.call(&call("two", "op-2")).expect(204);
    node.call(&call("three", "op-3")).expect(204);
    assert_eq!(node.get("/cache/a").body, b"three");
}

#[test]
fn a_retry_succeeds_though_its_own_success_fails_its_condition() {
    let node = Node::plain();
    let absent = Call::put("/cache/a", "one").with("If-None-Match", "*");
    node.call(&absent.clone().with("X-ElCache-Operation-Id", "x")).expect(201);
    node.call(&absent.clone().with("X-ElCache-Operation-Id", "x")).expect(201);
    node.call(&absent.with("X-ElCache-Operation-Id", "y")).expect(412);
    let big = Call::put("/cache/big", Content::new(1).bytes(3 << 20)).with("If-None-Match", "*");
    let first = node.call(&big.clone().with("X-ElCache-Operation-Id", "big")).expect(201);
    let again = node.call(&big.with("X-ElCache-Operation-Id", "big")).expect(201);
    assert_eq!(first.etag(), again.etag());
}

#[test]
fn a_failed_write_is_not_remembered_as_done() {
    let node = Node::plain();
    let call = Call::put("/cache/a", "new").with("X-ElCache-Operation-Id", "id");
    node.call(&call.clone().with("If-Match", "*")).expect(412);
    node.call(&call.clone().with("Content-Digest", sha256(b"other"))).expect(400);
    node.call(&call).expect(201);
    assert_eq!(node.get("/cache/a").body, b"new");
}

#[test]
fn operation_ids_have_up_to_64_bytes_and_belong_to_their_key() {
    let node = Node::plain();
    let put = |key: &str, id: &str| {
        node.call(&Call::put(format!("/cache/{key}"), key).with("X-ElCache-Operation-Id", id)).status
    };
    assert_eq!(put("a", &"i".repeat(64)), 201);
    assert_eq!(put("b", &"i".repeat(65)), 400);
    node.get("/cache/b").expect(404);
    assert_eq!(put("b", &"i".repeat(64)), 201);
    assert_eq!(node.get("/cache/b").expect(200).body, b"b");
}

#[test]
fn a_digest_that_is_right_is_taken_and_one_that_is_wrong_is_not() {
    let node = Node::plain();
    for size in [0, 10, 100_000, 5 << 20] {
        let target = format!("/cache/{size}");
        let value = Content::new(2).bytes(size);
        for name in ["Content-Digest", "Repr-Digest"] {
            let right = Call::put(&target, &value).with(name, sha256(&value));
            assert!(matches!(node.call(&right).status, 201 | 204), "{name} {size}");
            let wrong = Call::put(&target, [&value[..], b"!"].concat()).with(name, sha256(&value));
            let answer = node.call(&wrong).expect(400);
            assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
            assert!(node.get(&target).expect(200).body == value, "the old value stays");
        }
    }
    let fresh = Call::put("/cache/fresh", "x").with("Content-Digest", sha256(b"y"));
    node.call(&fresh).expect(400);
    node.get("/cache/fresh").expect(404);
}

#[test]
fn a_wrong_digest_of_a_chunked_body_is_found_too() {
    let node = Node::plain();
    let value = Content::new(2).bytes(3 << 20);
    for (digest, status) in [(sha256(b"other"), 400), (sha256(&value), 201)] {
        let mut connection = node.connect();
        connection.send(Call::new("PUT", "/cache/c").chunked().with("Repr-Digest", digest).bytes());
        connection.send([elcache_tests::call::chunk(&value), b"0\r\n\r\n".to_vec()].concat());
        assert_eq!(connection.answer().status, status);
    }
}

#[test]
fn digests_of_other_algorithms_are_passed_over_and_malformed_ones_refused() {
    let node = Node::plain();
    let put = |digest: &str| node.call(&Call::put("/cache/a", "x").with("Content-Digest", digest)).status;
    let right = sha256(b"x");
    for fine in ["sha-512=:AAAA:", "md5=:AAAA:, crc32c=:AAAA:", &format!("sha-512=:AAAA:, {right}"), ""] {
        assert!(matches!(put(fine), 201 | 204), "{fine}");
    }
    assert_eq!(put(&format!("sha-512=:AAAA:, {}", sha256(b"y"))), 400);
    for bad in ["sha-256=abc", "sha-256=:abc:", "sha-256=::", "sha-256", "sha-256=:!!!!:", "sha-256=:AAAA"] {
        assert_eq!(put(bad), 400, "{bad}");
    }
    let two = Call::put("/cache/a", "x").with("Content-Digest", &right).with("Repr-Digest", sha256(b"y"));
    node.call(&two).expect(400);
}

#[test]
fn content_range_on_a_put_is_400() {
    let node = Node::plain();
    node.put("/cache/a", "old");
    for method in ["PUT", "POST"] {
        let call = Call::new(method, "/cache/a").body("new").with("Content-Range", "bytes 0-2/3");
        node.call(&call).expect(400);
    }
    assert_eq!(node.get("/cache/a").body, b"old");
}
