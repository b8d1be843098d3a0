//! Values and the methods that a key has: PUT, POST, GET, HEAD, DELETE and OPTIONS, from nothing to 20 MiB.

use elcache_tests::content::Content;
use elcache_tests::curl::curl;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Call, Node};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Around the borders of chunks and of everything else that may treat sizes differently.
const SIZES: [usize; 24] = [
    0,
    1,
    7,
    1023,
    1024,
    4095,
    4096,
    16 * KIB - 1,
    16 * KIB,
    16 * KIB + 1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    MIB - 1,
    MIB,
    MIB + 1,
    4 * MIB - 1,
    4 * MIB,
    4 * MIB + 1,
    8 * MIB - 1,
    8 * MIB,
    8 * MIB + 1,
    20 * MIB,
    20 * MIB + 1,
];

fn etag_of(value: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(value).to_hex())
}

#[test]
fn a_value_comes_back_as_it_was_stored_whatever_its_size() {
    let node = Node::start(&["-m", "256"], &[]);
    for size in SIZES {
        let value = Content::new(size as u64).bytes(size);
        let stored = node.call(&Call::put("/cache/sized", &value));
        assert_eq!(stored.etag(), etag_of(&value), "{size}");
        let got = node.get("/cache/sized").expect(200);
        assert!(got.body == value, "{size}");
        assert_eq!(got.etag(), etag_of(&value), "{size}");
        assert_eq!(got.header("X-ElCache-Size"), Some(&*size.to_string()));
        assert_eq!(got.header("Content-Length"), Some(&*size.to_string()));
    }
}

#[test]
fn a_chunked_value_has_the_same_tag_as_one_of_known_length() {
    let node = Node::start(&["-m", "256"], &[]);
    for size in SIZES {
        let value = Content::new(size as u64).bytes(size);
        let mut connection = node.connect();
        connection.send(Call::new("PUT", "/cache/chunked").chunked().bytes());
        for piece in value.chunks(100 * KIB + 7) {
            connection.send(elcache_tests::call::chunk(piece));
        }
        connection.send("0\r\n\r\n");
        let stored = connection.answer();
        assert!(matches!(stored.status, 201 | 204), "{size}: {stored:?}");
        assert_eq!(stored.etag(), etag_of(&value), "{size}");
        assert!(connection.call(&Call::get("/cache/chunked")).expect(200).body == value, "{size}");
    }
}

#[test]
fn the_first_put_creates_and_the_next_replaces() {
    let node = Node::plain();
    let first = node.call(&Call::put("/cache/a", "one")).expect(201);
    assert_eq!(first.header("Content-Length"), Some("0"));
    let second = node.call(&Call::put("/cache/a", "two")).expect(204);
    assert_eq!(second.etag(), etag_of(b"two"));
    assert_eq!(node.get("/cache/a").expect(200).body, b"two");
    node.delete("/cache/a").expect(204);
    node.call(&Call::put("/cache/a", "three")).expect(201);
}

#[test]
fn post_is_put() {
    let node = Node::plain();
    node.call(&Call::new("POST", "/cache/a").body("one")).expect(201);
    assert_eq!(node.get("/cache/a").body, b"one");
    node.call(&Call::new("POST", "/cache/a").body("two").with("X-ElCache-Flags", "7")).expect(204);
    let got = node.get("/cache/a");
    assert_eq!((&got.body[..], got.header("X-ElCache-Flags")), (&b"two"[..], Some("7")));
}

#[test]
fn a_get_says_everything_that_the_contract_promises() {
    let node = Node::start(&["-m", "256"], &[]);
    node.put("/cache/a", Content::new(1).bytes(9 * MIB));
    let got = node.get("/cache/a").expect(200);
    assert_eq!(got.header("Accept-Ranges"), Some("bytes"));
    assert_eq!(got.header("Age"), Some("0"));
    assert_eq!(got.header("X-ElCache-Hit"), Some("memory"));
    assert_eq!(got.header("X-ElCache-Size"), Some("9437184"));
    assert!(got.header("X-ElCache-Chunks").unwrap().parse::<u64>().unwrap() > 1);
    assert_eq!(got.header("X-ElCache-Flags"), Some("0"));
    assert_eq!(got.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(got.header("X-ElCache-TTL"), None);
    assert_eq!(got.header("X-ElCache-Stale"), None);
    for date in ["Last-Modified", "Date"] {
        let date = got.header(date).unwrap_or_else(|| panic!("no {date}"));
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date:?}");
    }
}

#[test]
fn an_empty_value_is_a_value() {
    let node = Node::plain();
    node.call(&Call::put("/cache/empty", "")).expect(201);
    let got = node.get("/cache/empty").expect(200);
    assert_eq!((got.header("Content-Length"), got.header("X-ElCache-Size")), (Some("0"), Some("0")));
    assert_eq!(got.etag(), "\"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\"");
    let head = node.head("/cache/empty").expect(200);
    assert_eq!(head.header("Content-Length"), Some("0"));
    node.delete("/cache/empty").expect(204);
    node.get("/cache/empty").expect(404);
}

#[test]
fn a_put_without_any_framing_stores_nothing_at_all() {
    // RFC 9112 section 6.3: neither length nor coding means a body of no bytes.
    let node = Node::plain();
    let answer = node.call(&Call::new("PUT", "/cache/a").unframed());
    assert!(matches!(answer.status, 201 | 411), "{answer:?}");
    if answer.status == 201 {
        assert_eq!(node.get("/cache/a").expect(200).body, b"");
    }
}

#[test]
fn a_missing_value_is_404_with_a_problem_and_a_miss() {
    let node = Node::plain();
    let answer = node.get("/cache/nothing").expect(404);
    assert_eq!(answer.header("X-ElCache-Hit"), Some("miss"));
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["status"], 404);
    for member in ["type", "title", "detail"] {
        assert!(problem[member].is_string(), "{problem}");
    }
    let head = node.head("/cache/nothing").expect(404);
    assert_eq!(head.header("X-ElCache-Hit"), Some("miss"));
}

#[test]
fn head_is_get_without_the_body() {
    let node = Node::start(&["-m", "256"], &[]);
    for size in [0, 5, 100 * KIB, 6 * MIB] {
        node.put("/cache/a", Content::new(3).bytes(size));
        let mut connection = node.connect();
        let head = connection.call(&Call::head("/cache/a")).expect(200);
        // The same connection: a body that was sent after all would be read as the next answer.
        let got = connection.call(&Call::get("/cache/a")).expect(200);
        let names = |answer: &elcache_tests::Answer| {
            let lines = answer.headers.iter().filter(|(name, _)| !matches!(&**name, "Date" | "Age"));
            lines.cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&head), names(&got), "{size}");
        let ranged = connection.call(&Call::head("/cache/a").with("Range", "bytes=0-1")).expect(200);
        assert_eq!(ranged.header("Content-Length"), Some(&*size.to_string()));
        assert_eq!(ranged.header("Content-Range"), None);
    }
}

#[test]
fn delete_deletes_once() {
    let node = Node::plain();
    for size in [3, 5 * MIB] {
        node.put("/cache/a", Content::new(3).bytes(size));
        node.delete("/cache/a").expect(204);
        node.get("/cache/a").expect(404);
        node.delete("/cache/a").expect(404);
    }
}

#[test]
fn options_tells_what_a_key_has() {
    let node = Node::plain();
    let answer = node.call(&Call::new("OPTIONS", "/cache/whatever")).expect(204);
    let allow = answer.header("Allow").expect("Allow");
    for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"] {
        assert!(allow.split(", ").any(|allowed| allowed == method), "{allow}");
    }
    assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
    node.call(&Call::new("OPTIONS", "*")).expect(204);
}

#[test]
fn deleting_one_key_leaves_another_with_the_same_content() {
    let node = Node::plain();
    let value = Content::new(9).bytes(5 * MIB);
    node.put("/cache/a", &value);
    node.put("/cache/b", &value);
    node.delete("/cache/a").expect(204);
    assert!(node.get("/cache/b").expect(200).body == value);
    node.put("/cache/b", "small");
    node.put("/cache/a", &value);
    assert!(node.get("/cache/a").expect(200).body == value);
}

#[test]
fn age_and_last_modified_follow_the_clock() {
    let node = Node::plain();
    node.put("/cache/a", "x");
    let before = node.get("/cache/a");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let after = node.get("/cache/a");
    let age: u64 = after.header("Age").unwrap().parse().unwrap();
    assert!((2..=10).contains(&age), "{age}");
    assert_eq!(before.header("Last-Modified"), after.header("Last-Modified"));
}

#[test]
fn curl_puts_gets_and_deletes_a_file() {
    let node = Node::plain();
    let scratch = Scratch::new();
    let value = Content::new(4).bytes(3 * MIB + 5);
    let file = scratch.file("value", &value);
    let put = curl(&node, "/cache/dir/file.bin", &["-T", &file]);
    assert_eq!((put.exit, put.answer.status, &*put.version), (0, 201, "1.1"), "{put:?}");
    let got = curl(&node, "/cache/dir/file.bin", &["--fail"]);
    assert_eq!((got.exit, got.answer.status), (0, 200));
    assert!(got.answer.body == value);
    let stdin = curl(&node, "/cache/dir/file.bin", &["-T", "-", "--expect100-timeout", "5"]);
    assert_eq!((stdin.exit, stdin.answer.status), (0, 204), "an upload of nothing from stdin: {stdin:?}");
    let gone = curl(&node, "/cache/dir/file.bin", &["-X", "DELETE"]);
    assert_eq!((gone.exit, gone.answer.status), (0, 204));
    assert_eq!(curl(&node, "/cache/dir/file.bin", &["--fail"]).exit, 22);
}
