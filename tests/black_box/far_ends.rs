//! Numbers at the far ends: near 2^64, near 20 TB, and larger than any word.

use elcache_tests::{Call, Connection, Node};

/// The largest value that there may be: 20 TB.
const LARGEST: u64 = 20 << 40;
/// 2^64 and beyond: as a client may write it, and no word holds it.
const BEYOND: [&str; 3] =
    ["18446744073709551616", "99999999999999999999999999", "340282366920938463463374607431768211456"];

#[test]
fn ranges_at_the_far_end_of_the_numbers() {
    let node = Node::plain();
    node.put("/cache/v", "0123456789");
    let mut connection = node.connect();
    let mut ask =
        |range: &str| connection.call(&Call::get("/cache/v").with("Range", format!("bytes={range}")));
    let max = u64::MAX.to_string();
    let far = [max.as_str(), "18446744073709551614", "21990232555520"].into_iter().chain(BEYOND);
    for far in far {
        for range in [format!("{far}-"), format!("{far}-{far}"), format!("{far}-{}", BEYOND[2])] {
            let answer = ask(&range).expect(416);
            assert_eq!(answer.header("Content-Range"), Some("bytes */10"), "{range}");
        }
        for range in [format!("7-{far}"), format!("7-,{far}-"), format!("7-{far},{far}-{far}")] {
            let answer = ask(&range).expect(206);
            assert_eq!(
                (answer.header("Content-Range"), answer.text()),
                (Some("bytes 7-9/10"), "789"),
                "{range}"
            );
        }
        let suffix = ask(&format!("-{far}")).expect(206);
        assert_eq!((suffix.header("Content-Range"), suffix.text()), (Some("bytes 0-9/10"), "0123456789"));
        // Their sum is far more than any word holds, and more than the value: all of it.
        assert_eq!(ask(&format!("0-{far},0-{far},-{far}")).expect(200).text(), "0123456789");
    }
    node.assert_healthy();
}

#[test]
fn ranges_in_the_query_at_the_far_end_of_the_numbers() {
    let node = Node::plain();
    node.put("/cache/v", "0123456789");
    let mut connection = node.connect();
    let mut ask = |range: &str| connection.call(&Call::get(format!("/cache/v?range={range}")));
    let max = u64::MAX.to_string();
    for far in [max.as_str(), "18446744073709551614", "21990232555520"].into_iter().chain(BEYOND) {
        for range in [format!("{far}-1"), format!("{far}-{far}"), format!("10-{far}")] {
            ask(&range).expect(416);
        }
        let answer = ask(&format!("7-{far}")).expect(206);
        assert_eq!((answer.header("Content-Range"), answer.text()), (Some("bytes 7-9/10"), "789"));
        for range in [format!("{far}-0"), format!("{far}-"), format!("-{far}"), format!("{far}-x")] {
            ask(&range).expect(400);
        }
    }
    node.assert_healthy();
}

fn announce(node: &Node, length: &str) -> Connection {
    let mut connection = node.connect();
    connection.send(format!("PUT /cache/v HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n"));
    connection
}

#[test]
fn a_body_of_more_than_20_tb_is_refused_by_its_length() {
    let node = Node::plain();
    node.put("/cache/v", "old");
    for length in [LARGEST + 1, LARGEST * 2, 1 << 63, u64::MAX - 1, u64::MAX] {
        announce(&node, &length.to_string()).answer().expect(413);
    }
    for length in [LARGEST, LARGEST - 1, 1 << 40] {
        // It may be so large, and this node cannot hold it.
        announce(&node, &length.to_string()).answer().expect(507);
    }
    for length in BEYOND {
        let answer = announce(&node, length).answer();
        assert!(matches!(answer.status, 400 | 413), "{length}: {answer:?}");
    }
    assert_eq!(node.get("/cache/v").expect(200).text(), "old");
    node.assert_healthy();
}

#[test]
fn a_chunk_of_a_body_that_is_longer_than_any_value_is_refused() {
    let node = Node::plain();
    node.put("/cache/v", "old");
    for size in ["FFFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFE", "10000000000000000", "140000000001", "140000000000"]
    {
        let mut connection = node.connect();
        connection.send("PUT /cache/v HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
        // What no node can hold shows when so much has come: this one has 64 MiB.
        let _ = connection.try_send(format!("{size}\r\n"));
        let piece = vec![7; 1 << 20];
        for _ in 0..80 {
            if connection.try_send(&piece).is_err() {
                break;
            }
        }
        let answer = connection.try_answer(false);
        let status = answer.as_ref().map(|answer| answer.status);
        assert!(matches!(status, Ok(400 | 413 | 507)), "{size}: {answer:?}");
    }
    assert_eq!(node.get("/cache/v").expect(200).text(), "old");
    node.assert_healthy();
}
