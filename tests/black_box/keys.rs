//! Keys: the rest of the path, percent-decoded, any bytes. Never a file path.

use elcache_tests::curl::curl;
use elcache_tests::{Call, Node};

/// The bytes that RFC 3986 lets stand in a path as they are.
fn legal_raw(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

fn encoded(byte: u8) -> String {
    format!("%{byte:02X}")
}

#[test]
fn every_byte_can_be_a_key_and_each_is_another_key() {
    let node = Node::plain();
    let mut connection = node.connect();
    for byte in 0..=255_u8 {
        let target = format!("/cache/{}", encoded(byte));
        connection.call(&Call::put(&target, [byte])).expect(201);
    }
    for byte in 0..=255_u8 {
        for target in [format!("/cache/{}", encoded(byte)), format!("/cache/%{byte:02x}")] {
            assert_eq!(connection.call(&Call::get(&target)).expect(200).body, [byte], "{target}");
        }
        if legal_raw(byte) {
            let target = [b"/cache/", &[byte][..]].concat();
            assert_eq!(connection.call(&Call::get(&target)).expect(200).body, [byte], "{target:?}");
        }
    }
}

#[test]
fn every_byte_can_stand_within_a_key() {
    let node = Node::plain();
    let mut connection = node.connect();
    let all: String = (0..=255).map(encoded).collect();
    let mixed: Vec<u8> = (0..=255_u8)
        .flat_map(|byte| if legal_raw(byte) { vec![byte] } else { encoded(byte).into_bytes() })
        .collect();
    connection.call(&Call::put(format!("/cache/{all}"), "all")).expect(201);
    let got = connection.call(&Call::get([b"/cache/", &mixed[..]].concat())).expect(200);
    assert_eq!(got.body, b"all");
}

#[test]
fn a_byte_that_no_target_may_have_is_refused_or_means_itself() {
    // RFC 9112 section 3.2 forbids them unencoded. Refusing is right; so is taking them for what they are. Cutting
    // the key short at one of them is not, and neither is anything that lets a header in.
    let node = Node::plain();
    for byte in (0..=255_u8).filter(|&byte| !legal_raw(byte) && !b"?#%".contains(&byte)) {
        let mut connection = node.connect();
        let target = [b"/cache/a", &[byte][..], b"b"].concat();
        let answer = connection.try_call(&Call::put(&target, "raw"));
        match answer.map(|answer| answer.status) {
            Ok(400) => {}
            Ok(201) => {
                let target = format!("/cache/a{}b", encoded(byte));
                assert_eq!(node.get(&target).expect(200).body, b"raw", "{byte}");
            }
            other => panic!("byte {byte}: {other:?}"),
        }
        node.get("/cache/a").expect(404);
    }
}

#[test]
fn dots_and_empty_segments_and_encoded_slashes_are_ordinary_bytes() {
    let node = Node::plain();
    let mut connection = node.connect();
    let keys =
        ["..", ".", "../..", "a/../b", "a//b", "a/b", "/", "//", "///", "a/", "/a", "a/./b", "..%2F..%2Fetc"];
    for key in keys {
        connection.call(&Call::put(format!("/cache/{key}"), key)).expect(201);
    }
    for key in keys {
        assert_eq!(connection.call(&Call::get(format!("/cache/{key}"))).expect(200).body, key.as_bytes());
    }
    // An encoded slash is the same byte as a plain one.
    assert_eq!(connection.call(&Call::get("/cache/a%2Fb")).expect(200).body, b"a/b");
    assert_eq!(connection.call(&Call::get("/cache/%2e%2E")).expect(200).body, b"..");
    connection.call(&Call::get("/cache/b")).expect(404);
    connection.call(&Call::get("/../cache/a")).expect(404);
}

#[test]
fn a_plus_is_no_space() {
    let node = Node::plain();
    node.put("/cache/a+b", "plus");
    node.put("/cache/a%20b", "space");
    assert_eq!(node.get("/cache/a%2Bb").body, b"plus");
    assert_eq!(node.get("/cache/a%20b").body, b"space");
}

#[test]
fn a_query_is_no_part_of_the_key() {
    let node = Node::plain();
    node.call(&Call::put("/cache/a?x=1", "value")).expect(201);
    assert_eq!(node.get("/cache/a").expect(200).body, b"value");
    assert_eq!(node.get("/cache/a?y=2&range").status, 400, "an empty range is malformed");
    assert_eq!(node.get("/cache/a?y=2").expect(200).body, b"value");
    node.get("/cache/a%3Fx=1").expect(404);
}

#[test]
fn broken_escapes_are_refused() {
    let node = Node::plain();
    for key in ["%", "%4", "a%", "%zz", "%4g", "%%41", "%-1", "a%2", "%u0041", "%0x"] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let answer = node.call(&Call::new(method, format!("/cache/{key}")));
            assert_eq!(answer.status, 400, "{method} {key}");
        }
    }
}

#[test]
fn keys_have_1_to_8192_bytes_after_decoding() {
    let node = Node::plain();
    let longest = "k".repeat(8192);
    node.call(&Call::put(format!("/cache/{longest}"), "long")).expect(201);
    assert_eq!(node.get(&format!("/cache/{longest}")).expect(200).body, b"long");
    // Three times as long on the wire, and the same key.
    let escaped = "%6b".repeat(8192);
    assert_eq!(node.get(&format!("/cache/{escaped}")).expect(200).body, b"long");
    for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
        let mut connection = node.connect();
        for target in [format!("/cache/{longest}k"), format!("/cache/{}", "9".repeat(9000)), "/cache/".into()]
        {
            assert_eq!(connection.call(&Call::new(method, &target)).status, 400, "{method}");
        }
        assert_eq!(connection.call(&Call::get("/health")).status, 200);
    }
    let escaped = "%6b".repeat(8193);
    node.get(&format!("/cache/{escaped}")).expect(400);
}

#[test]
fn a_key_too_long_is_refused_by_post_and_put_before_the_body_is_stored() {
    let node = Node::plain();
    let mut connection = node.connect();
    let target = format!("/cache/{}", "k".repeat(9 << 10));
    connection.call(&Call::put(&target, vec![7; 100_000])).expect(400);
    let stats: serde_json::Value = serde_json::from_slice(&node.get("/stats").body).expect("JSON");
    assert_eq!(stats["entry_count"], 0);
}

#[test]
fn absolute_targets_name_the_same_key() {
    let node = Node::plain();
    node.put("/cache/a/b", "value");
    for target in ["http://test/cache/a/b", "HTTP://test:80/cache/a%2fb", "https://other.example/cache/a/b"] {
        assert_eq!(node.get(target).expect(200).body, b"value", "{target}");
    }
    for target in ["ftp://test/cache/a/b", "cache/a/b", "a", "http://"] {
        node.get(target).expect(400);
    }
}

#[test]
fn keys_that_share_a_prefix_or_look_like_routes_stay_apart() {
    let node = Node::plain();
    let keys = ["cache/a", "health", "stats", "a", "a/finalize", "a/data", "a?", "%61%2562"];
    for (number, key) in keys.iter().enumerate() {
        node.put(&format!("/cache/{}", key.replace('?', "%3F")), [number as u8]);
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(node.get(&format!("/cache/{}", key.replace('?', "%3F"))).body, [number as u8], "{key}");
    }
    assert_eq!(node.get("/cache/a%2562").body, [7], "decoded once, not twice");
}

#[test]
fn curl_stores_keys_of_people() {
    let node = Node::plain();
    let put = curl(&node, "/cache/Gr%C3%BC%C3%9Fe%20aus%20K%C3%B6ln.txt", &["-X", "PUT", "-d", "hallo"]);
    assert_eq!(put.answer.status, 201);
    assert_eq!(node.get("/cache/Gr%c3%bc%c3%9fe%20aus%20K%c3%b6ln.txt").body, b"hallo");
    let dots = curl(&node, "/cache/../../etc/passwd", &["-X", "PUT", "-d", "key"]);
    assert_eq!(dots.answer.status, 201);
    assert_eq!(node.get("/cache/../../etc/passwd").body, b"key");
}
