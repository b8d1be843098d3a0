//! Ranges: single, open, suffix, several in one answer, and by query (RFC 9110 section 14).

use elcache_tests::content::Content;
use elcache_tests::curl::curl;
use elcache_tests::wire::find;
use elcache_tests::{Answer, Call, Node};

const SIZE: u64 = (9 << 20) + 123;

fn node_with_value() -> (Node, Vec<u8>) {
    let node = Node::plain();
    let value = Content::new(5).bytes(SIZE as usize);
    let put = Call::put("/cache/v", &value).with("Content-Type", "text/x-test");
    node.call(&put).expect(201);
    (node, value)
}

fn ranged(node: &Node, range: &str) -> Answer {
    node.call(&Call::get("/cache/v").with("Range", range))
}

/// Reads the parts of a `multipart/byteranges` answer: where each begins, and its bytes.
fn parts(answer: &Answer) -> Vec<(u64, Vec<u8>)> {
    let kind = answer.header("Content-Type").expect("a type");
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    assert_eq!(answer.header("Content-Range"), None, "it belongs to the parts");
    let mut rest = &answer.body[..];
    let mut found = Vec::new();
    let mut opening = format!("--{boundary}\r\n");
    loop {
        if rest == format!("\r\n--{boundary}--\r\n").as_bytes() {
            return found;
        }
        rest = rest.strip_prefix(opening.as_bytes()).expect("a delimiter");
        opening = format!("\r\n--{boundary}\r\n");
        let end = find(rest, b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&rest[..end]).expect("text");
        assert!(head.contains("Content-Type: text/x-test"), "{head}");
        let range =
            head.lines().find_map(|line| line.strip_prefix("Content-Range: bytes ")).expect("a range");
        let (span, size) = range.split_once('/').expect("a size");
        assert_eq!(size.parse::<u64>().unwrap(), SIZE);
        let (first, last) = span.split_once('-').expect("a span");
        let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
        let length = (last - first + 1) as usize;
        found.push((first, rest[end + 4..end + 4 + length].to_vec()));
        rest = &rest[end + 4 + length..];
    }
}

#[test]
fn single_ranges_of_every_form() {
    let (node, value) = node_with_value();
    let mut connection = node.connect();
    let mib = 1 << 20;
    let last = SIZE - 1;
    for (range, first, last) in [
        ("bytes=0-0".to_owned(), 0, 0),
        ("bytes=0-99".to_owned(), 0, 99),
        (format!("bytes={last}-{last}"), last, last),
        ("bytes=5-".to_owned(), 5, last),
        (format!("bytes={last}-"), last, last),
        ("bytes=-1".to_owned(), last, last),
        ("bytes=-500".to_owned(), SIZE - 500, last),
        (format!("bytes=-{SIZE}"), 0, last),
        (format!("bytes=-{}", SIZE + 5), 0, last),
        ("bytes=-99999999999999999999999".to_owned(), 0, last),
        (format!("bytes=0-{}", SIZE + 100), 0, last),
        (format!("bytes=7-{}", u64::MAX), 7, last),
        ("bytes=7-99999999999999999999999".to_owned(), 7, last),
        (format!("bytes={}-{}", mib - 1, mib), mib - 1, mib),
        (format!("bytes={}-{}", 4 * mib - 1, 8 * mib), 4 * mib - 1, 8 * mib),
        ("BYTES=1-2".to_owned(), 1, 2),
        ("bytes=1-2,".to_owned(), 1, 2),
        ("bytes= 1-2 ".to_owned(), 1, 2),
        ("bytes=00001-0000002".to_owned(), 1, 2),
    ] {
        let answer = connection.call(&Call::get("/cache/v").with("Range", &range));
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("Content-Range"), Some(&*format!("bytes {first}-{last}/{SIZE}")), "{range}");
        assert!(answer.body == value[first as usize..=last as usize], "{range}");
        assert_eq!(answer.header("Content-Type"), Some("text/x-test"));
        assert_eq!(answer.header("X-ElCache-Size"), Some(&*SIZE.to_string()));
        assert!(answer.header("ETag").is_some() && answer.header("Last-Modified").is_some());
    }
}

#[test]
fn what_cannot_be_satisfied_is_416_with_the_size() {
    let (node, _) = node_with_value();
    let ranges = [
        format!("bytes={SIZE}-"),
        format!("bytes={SIZE}-{SIZE}"),
        "bytes=-0".into(),
        "bytes=99999999999-".into(),
    ];
    for range in ranges {
        let answer = ranged(&node, &range).expect(416);
        assert_eq!(answer.header("Content-Range"), Some(&*format!("bytes */{SIZE}")), "{range}");
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    }
    ranged(&node, &format!("bytes={SIZE}-,-0")).expect(416);
    node.put("/cache/v", "");
    ranged(&node, "bytes=0-").expect(416);
    ranged(&node, "bytes=0-0").expect(416);
}

#[test]
fn malformed_ranges_and_other_units_are_ignored() {
    let (node, value) = node_with_value();
    for range in [
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=2-1",
        "bytes=-",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=--1",
        "lines=1-2",
        "bytes 1-2",
        "bytes=1-2;3-4",
        "bytes=+1-2",
        "bytes=0x1-2",
        "",
        "1-2",
        "bytes=1-2,x",
        "bytes=1 -2",
        "bits=0-1",
    ] {
        let answer = ranged(&node, range);
        assert_eq!(answer.status, 200, "{range:?}");
        assert!(answer.body == value, "{range:?}");
    }
}

#[test]
fn several_ranges_come_back_in_one_answer() {
    let (node, value) = node_with_value();
    let answer = ranged(&node, "bytes=0-9, 5000000-5000099 ,-7").expect(206);
    let expected = [(0, 10), (5_000_000, 100), (SIZE - 7, 7)];
    let found = parts(&answer);
    assert_eq!(found.len(), 3);
    for ((first, bytes), (start, length)) in found.iter().zip(expected) {
        assert_eq!(*first, start);
        assert!(*bytes == value[start as usize..][..length]);
    }
    assert_eq!(answer.header("ETag"), node.head("/cache/v").header("ETag"));
}

#[test]
fn ranges_keep_their_order_and_may_overlap() {
    let (node, value) = node_with_value();
    let found = parts(&ranged(&node, "bytes=100-199,0-9,150-160").expect(206));
    assert_eq!(found.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [100, 0, 150]);
    assert!(found[2].1 == value[150..=160]);
}

#[test]
fn sixteen_parts_are_served_and_seventeen_are_not() {
    let (node, value) = node_with_value();
    let many = |count: u64| {
        let specs: Vec<_> = (0..count).map(|at| format!("{}-{}", at * 1000, at * 1000 + 9)).collect();
        format!("bytes={}", specs.join(","))
    };
    let found = parts(&ranged(&node, &many(16)).expect(206));
    assert_eq!(found.len(), 16);
    assert!(found.iter().all(|(first, bytes)| *bytes == value[*first as usize..][..10]));
    assert!(ranged(&node, &many(17)).expect(200).body == value);
    assert!(ranged(&node, &many(1000)).expect(200).body == value);
    // "As sent": those that cannot be satisfied count too.
    let sent = format!("{},{SIZE}-", many(16));
    assert!(ranged(&node, &sent).expect(200).body == value);
}

#[test]
fn parts_that_add_up_to_more_than_the_value_give_the_value() {
    let (node, value) = node_with_value();
    assert!(ranged(&node, "bytes=0-,0-0").expect(200).body == value);
    assert!(ranged(&node, &format!("bytes=0-{},1-2", SIZE - 2)).expect(200).body == value);
    let exact = format!("bytes=0-{},{}-", SIZE / 2 - 1, SIZE / 2);
    assert_eq!(parts(&ranged(&node, &exact).expect(206)).len(), 2);
}

#[test]
fn of_several_ranges_those_that_exist_are_served() {
    let (node, value) = node_with_value();
    // One that is left may come as a plain 206 (RFC 9110 section 15.3.7.2 allows both forms).
    let answer = ranged(&node, &format!("bytes=3-5,{SIZE}-")).expect(206);
    match answer.header("Content-Range") {
        Some(range) => {
            assert_eq!((range, &answer.body[..]), (&*format!("bytes 3-5/{SIZE}"), &value[3..6]));
        }
        None => assert_eq!(parts(&answer), [(3, value[3..6].to_vec())]),
    }
}

#[test]
fn the_query_range_is_offset_and_length() {
    let (node, value) = node_with_value();
    for (query, first, length) in [
        ("range=2-3", 2, 3),
        ("range=0-1", 0, 1),
        ("x=y&range=10-20", 10, 20),
        ("range=%35-3", 5, 3),
        ("range=5%2D3&z", 5, 3),
        ("range=8388600-100000000", 8_388_600, SIZE as usize - 8_388_600),
    ] {
        let answer = node.get(&format!("/cache/v?{query}")).expect(206);
        assert!(answer.body == value[first..][..length], "{query}");
        let expected = format!("bytes {first}-{}/{SIZE}", first + length - 1);
        assert_eq!(answer.header("Content-Range"), Some(&*expected));
    }
}

#[test]
fn a_malformed_query_range_is_400() {
    let (node, _) = node_with_value();
    for query in [
        "range=2-0",
        "range=0-0",
        "range=",
        "range",
        "range=a-b",
        "range=-5",
        "range=5-",
        "range=5",
        "range=1-2-3",
        "range=1-2,3-4",
        "range=%",
        "range=1--2",
        "range=+1-2",
        "range=1-2&range=3-4",
        "range=bytes=1-2",
    ] {
        assert_eq!(node.get(&format!("/cache/v?{query}")).status, 400, "{query}");
    }
    node.get(&format!("/cache/v?range={SIZE}-1")).expect(416);
    node.get("/cache/v?range=18446744073709551615-18446744073709551615").expect(416);
    node.get("/cache/v?ranges=1-2&Range=9").expect(200);
}

#[test]
fn the_query_range_beats_the_header() {
    let (node, value) = node_with_value();
    let call = Call::get("/cache/v?range=2-3").with("Range", "bytes=100-200");
    assert!(node.call(&call).expect(206).body == value[2..5]);
    let call = Call::get("/cache/v?range=2-0").with("Range", "bytes=100-200");
    node.call(&call).expect(400);
}

#[test]
fn if_range_gives_the_range_only_of_the_same_value() {
    let (node, value) = node_with_value();
    let head = node.head("/cache/v");
    let (etag, modified) = (head.etag().to_owned(), head.header("Last-Modified").unwrap().to_owned());
    let call = |if_range: &str| {
        node.call(&Call::get("/cache/v").with("Range", "bytes=1-2").with("If-Range", if_range))
    };
    assert!(call(&etag).expect(206).body == value[1..3]);
    let weak = format!("W/{etag}");
    for other in ["\"other\"", &weak, "garbage", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        assert!(call(other).expect(200).body == value, "{other}");
    }
    // A date may count as strong only when it is old enough (RFC 9110 section 13.1.5), so both are right.
    assert!(matches!(call(&modified).status, 200 | 206));
    let unsatisfiable = Call::get("/cache/v").with("Range", "bytes=99999999-").with("If-Range", "\"other\"");
    node.call(&unsatisfiable).expect(200);
}

#[test]
fn a_range_of_nothing_is_404_and_preconditions_come_first() {
    let (node, _) = node_with_value();
    node.call(&Call::get("/cache/none").with("Range", "bytes=0-1")).expect(404);
    let etag = node.head("/cache/v").etag().to_owned();
    let ranged = Call::get("/cache/v").with("Range", "bytes=0-1");
    node.call(&ranged.clone().with("If-None-Match", &etag)).expect(304);
    node.call(&ranged.with("If-Match", "\"other\"")).expect(412);
    let unsatisfiable = Call::get("/cache/v").with("Range", "bytes=99999999-").with("If-None-Match", &etag);
    node.call(&unsatisfiable).expect(304);
}

#[test]
fn two_range_headers_are_no_reason_to_guess() {
    let (node, value) = node_with_value();
    let answer = node.call(&Call::get("/cache/v").with("Range", "bytes=0-1").with("Range", "bytes=5-6"));
    match answer.status {
        200 => assert!(answer.body == value),
        206 => assert_eq!(parts(&answer).len(), 2),
        400 => {}
        other => panic!("{other}"),
    }
}

#[test]
fn curl_resumes_a_download() {
    let (node, value) = node_with_value();
    let got = curl(&node, "/cache/v", &["-r", "1000000-1999999", "--fail"]);
    assert_eq!((got.exit, got.answer.status), (0, 206));
    assert!(got.answer.body == value[1_000_000..2_000_000]);
    let rest = curl(&node, "/cache/v", &["-C", "9000000"]);
    assert_eq!((rest.exit, rest.answer.status), (0, 206));
    assert!(rest.answer.body == value[9_000_000..]);
}
