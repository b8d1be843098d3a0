//! What is written: in any order, over and over, and read before it is whole.

use elcache_tests::Call;
use elcache_tests::call::chunk;
use elcache_tests::content::Content;
use serde_json::json;
use std::time::Duration;

use super::{MIB, TIB, everywhere, opening, problem, range};

#[test]
fn a_value_is_put_together_from_ranges_in_any_order() {
    everywhere(|client| {
        let size = 9 * MIB + 123;
        let value = Content::new(3).bytes(size as usize);
        let open = opening("k", size).with("Content-Type", "a/b").with("X-ElCache-Flags", "7");
        let open = open.with("X-ElCache-TTL", "100").with("X-ElCache-Meta-Who", "me");
        let id = client.call(&open).expect(201).header("X-ElCache-Upload-Id").unwrap().to_owned();
        let part = |from: u64, to: u64| &value[from as usize..to as usize];
        // From the back to the front, over the borders of chunks, some of it twice.
        for (from, to, percent, missing) in [
            (9 * MIB, size, "0%", json!([[0, 9 * MIB]])),
            (5 * MIB, 9 * MIB + 1, "44%", json!([[0, 5 * MIB]])),
            (MIB, 2 * MIB, "55%", json!([[0, MIB], [2 * MIB, 5 * MIB]])),
            (
                4 * MIB - 1,
                4 * MIB + 1,
                "55%",
                json!([[0, MIB], [2 * MIB, 4 * MIB - 1], [4 * MIB + 1, 5 * MIB]]),
            ),
            (2 * MIB, 6 * MIB, "88%", json!([[0, MIB]])),
            (2 * MIB, 6 * MIB, "88%", json!([[0, MIB]])),
            (0, MIB, "100%", json!([])),
        ] {
            assert_eq!(client.write("k", from, part(from, to)), percent, "{from}..{to}");
            assert_eq!(client.missing("k"), missing, "{from}..{to}");
            client.ask("GET", "/cache/k").expect(404);
        }
        let etag = format!("\"{}\"", blake3::hash(&value).to_hex());
        let finalized = client.finalize("k").expect(201);
        assert_eq!(finalized.etag(), etag);
        let got = client.ask("GET", "/cache/k").expect(200);
        assert!(got.body == value);
        assert_eq!((got.etag(), got.header("Content-Type")), (&*etag, Some("a/b")));
        assert_eq!(
            (got.header("X-ElCache-Flags"), got.header("X-ElCache-Meta-Who")),
            (Some("7"), Some("me"))
        );
        assert_eq!(got.header("X-ElCache-Chunks"), Some("3"));
        let left: u64 = got.header("X-ElCache-TTL").expect("a TTL").parse().unwrap();
        assert!((90..=100).contains(&left), "{left}");
        client.ask("GET", "/sparse/k").expect(404);
        // The answer may have been lost: with the id it comes again, without it nothing is there to be finalized.
        let repeat = Call::new("POST", "/sparse/k/finalize");
        assert_eq!(client.call(&repeat.clone().with("X-ElCache-Upload-Id", &id)).expect(201).etag(), etag);
        client.call(&repeat).expect(404);
        client.ask("DELETE", "/sparse/k").expect(404);
    });
}

#[test]
fn values_of_no_byte_of_one_byte_and_of_whole_chunks() {
    everywhere(|client| {
        for size in [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB] {
            let value = Content::new(size).bytes(size as usize);
            client.open("k", size);
            if size == 0 {
                assert_eq!(client.status("k")["completion_percent"], 100);
                assert_eq!(client.status("k")["complete"], true);
                let data = client.ask("GET", "/sparse/k/data").expect(200);
                assert_eq!((data.body.len(), data.header("Content-Length")), (0, Some("0")));
                client.call(&range("k", 0, b"")).expect(202);
            } else {
                assert_eq!(client.write("k", 0, &value), "100%");
            }
            let etag = format!("\"{}\"", blake3::hash(&value).to_hex());
            assert_eq!(client.finalize("k").expect(201).etag(), etag);
            assert!(client.ask("GET", "/cache/k").expect(200).body == value, "{size}");
        }
    });
}

#[test]
fn the_status_is_printed_for_people() {
    everywhere(|client| {
        let key = "a/b%20%22%C3%A4";
        client.open(key, 1000);
        let status = |target: &str| client.ask("GET", target).expect(200);
        let expected = |percent: u32, complete: bool, missing: &str| {
            format!(
                "{{\n  \"key\": \"{key}\",\n  \"total_size\": 1000,\n  \"completion_percent\": {percent},\n  \
                 \"complete\": {complete},\n  \"missing\": {missing}\n}}\n"
            )
        };
        let target = format!("/sparse/{key}");
        assert_eq!(status(&target).text(), expected(0, false, "[[0, 1000]]"));
        client.write(key, 0, &[1; 4]);
        client.write(key, 500, &[1; 490]);
        assert_eq!(status(&target).text(), expected(49, false, "[[4, 500], [990, 1000]]"));
        assert_eq!(status(&format!("{target}?offset=600")).text(), expected(49, false, "[[990, 1000]]"));
        assert_eq!(status(&format!("{target}?offset=2000")).text(), expected(49, false, "[]"));
        client.ask("GET", &format!("{target}?offset=x")).expect(400);
        let head = client.ask("HEAD", &target).expect(200);
        assert_eq!(head.header("Content-Length"), Some(&*status(&target).text().len().to_string()));
        client.write(key, 4, &[1; 496]);
        client.write(key, 990, &[1; 9]);
        assert_eq!(status(&target).text(), expected(99, false, "[[999, 1000]]"));
        client.write(key, 999, &[1]);
        assert_eq!(status(&target).text(), expected(100, true, "[]"));
    });
}

#[test]
fn the_digest_of_a_range_is_verified() {
    use sha2::Digest;
    let base64 = |bytes: &[u8]| {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let group = |three: &[u8]| {
            let bits =
                three.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
            (0..=three.len())
                .map(|n| char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]))
                .collect::<String>()
        };
        bytes.chunks(3).map(group).collect::<String>() + "="
    };
    everywhere(|client| {
        let size = 9 * MIB;
        let value = Content::new(1).bytes(size as usize);
        client.open("k", size);
        let digest = |bytes: &[u8]| format!("sha-256=:{}:", base64(&sha2::Sha256::digest(bytes)));
        for (from, to) in [(0, 5), (3, 8 * MIB + 7), (MIB, size)] {
            let bytes = &value[from as usize..to as usize];
            let before = client.missing("k");
            let call = range("k", from, bytes);
            problem(client.call(&call.clone().with("Content-Digest", digest(b"else"))), 400);
            assert_eq!(client.missing("k"), before);
            client.call(&call.with("Content-Digest", digest(bytes))).expect(202);
        }
        assert_eq!(client.finalize("k").expect(201).etag(), format!("\"{}\"", blake3::hash(&value).to_hex()));
    });
}

#[test]
fn a_body_of_unknown_length_ends_where_its_range_does() {
    everywhere(|client| {
        let size = 9 * MIB;
        let value = Content::new(1).bytes(size as usize);
        client.open("k", size);
        let send = |target: &str, header: Option<&str>, body: &[u8]| {
            let call = Call::new("PATCH", target);
            let call = header.iter().fold(call, |call, value| call.with("Content-Range", value));
            if client.is_http2 {
                return client.call(&call.body(body).unframed());
            }
            let mut connection = client.node.connect();
            connection.send(call.chunked().bytes());
            // A server that has refused it may not take all of it.
            for part in body.chunks(1 << 20) {
                let _ = connection.try_send(chunk(part));
            }
            let _ = connection.try_send(chunk(b""));
            connection.answer()
        };
        problem(send("/sparse/k", Some("bytes 0-9/9437184"), &value[..9]), 400);
        problem(send("/sparse/k", Some("bytes 0-9/9437184"), &value[..11]), 400);
        problem(send(&format!("/sparse/k?offset={}", size - 3), None, &value[..4]), 400);
        problem(send(&format!("/sparse/k?offset={}", size - 100_000), None, &value[..200_000]), 400);
        assert_eq!(client.missing("k"), json!([[0, size]]));
        send("/sparse/k?offset=0", None, b"").expect(202);
        send("/sparse/k", Some("bytes 0-9/*"), &value[..10]).expect(202);
        send("/sparse/k?offset=5", None, &value[5..100_000]).expect(202);
        send("/sparse/k?offset=99999", None, &value[99_999..]).expect(202);
        assert_eq!(client.finalize("k").expect(201).etag(), format!("\"{}\"", blake3::hash(&value).to_hex()));
    });
}

#[test]
fn the_last_writer_of_a_byte_wins() {
    everywhere(|client| {
        let size = 9 * MIB;
        let mut model = vec![0_u8; size as usize];
        client.open("k", size);
        let writes = [
            (0, size, 1),
            (4 * MIB - 3, 6, 2),
            (4 * MIB - 1, 1, 3),
            (5, 5, 4),
            (4 * MIB, 4 * MIB, 5),
            (8 * MIB - 1, MIB + 1, 6),
            (8 * MIB, 10, 7),
        ];
        for (from, len, byte) in writes {
            client.write("k", from, &vec![byte; len as usize]);
            model[from as usize..(from + len) as usize].fill(byte);
            let data = client.ask("GET", "/sparse/k/data").expect(200);
            assert!(data.body == model, "after {byte}");
        }
        assert_eq!(client.finalize("k").expect(201).etag(), format!("\"{}\"", blake3::hash(&model).to_hex()));
        assert!(client.ask("GET", "/cache/k").expect(200).body == model);
    });
}

#[test]
fn what_is_written_can_be_read_and_what_is_not_is_404() {
    everywhere(|client| {
        let size = 9 * MIB;
        let value = Content::new(1).bytes(size as usize);
        let data = |range: &str| client.call(&Call::get("/sparse/k/data").with("Range", range));
        client.node.put("/cache/k", "old");
        client.open("k", size);
        client.write("k", 10, &value[10..20]);
        client.write("k", 4 * MIB - 5, &value[4 * MIB as usize - 5..4 * MIB as usize + 5]);
        for (range, from, to) in [
            ("bytes=10-19".to_owned(), 10, 20),
            ("bytes=12-12".to_owned(), 12, 13),
            (format!("bytes={}-{}", 4 * MIB - 5, 4 * MIB + 4), 4 * MIB - 5, 4 * MIB + 5),
        ] {
            let answer = data(&range).expect(206);
            assert_eq!(answer.header("Content-Range"), Some(&*format!("bytes {from}-{}/{size}", to - 1)));
            assert!(answer.body == value[from as usize..to as usize], "{range}");
            assert_eq!(answer.header("Cache-Control"), Some("no-store"));
            assert_eq!((answer.header("ETag"), answer.header("Last-Modified")), (None, None));
        }
        for (range, missing) in [
            ("bytes=9-19".to_owned(), json!([[9, 10]])),
            ("bytes=10-20".to_owned(), json!([[20, 21]])),
            ("bytes=0-".to_owned(), json!([[0, 10], [20, 4 * MIB - 5], [4 * MIB + 5, size]])),
            ("bytes=-1".to_owned(), json!([[size - 1, size]])),
            ("bytes=10-19,0-1".to_owned(), json!([[0, 2]])),
        ] {
            let told = problem(data(&range), 404);
            assert_eq!(told["missing"], missing, "{range}");
            assert_eq!(told.get("missing_truncated"), None);
        }
        assert_eq!(problem(client.ask("GET", "/sparse/k/data"), 404)["missing"][0], json!([0, 10]));
        client.ask("HEAD", "/sparse/k/data").expect(404);
        let nowhere = data(&format!("bytes={size}-")).expect(416);
        assert_eq!(nowhere.header("Content-Range"), Some(&*format!("bytes */{size}")));
        let conditional = Call::get("/sparse/k/data").with("Range", "bytes=10-19").with("If-Range", "\"x\"");
        client.call(&conditional).expect(404);
        let many = data("bytes=10-14,12-19").expect(206);
        assert!(many.header("Content-Type").unwrap().starts_with("multipart/byteranges; boundary="));
        let text = String::from_utf8_lossy(&many.body).into_owned();
        assert!(text.contains(&format!("Content-Range: bytes 12-19/{size}\r\n\r\n")), "{text}");
        assert_eq!(many.header("Content-Length"), Some(&*many.body.len().to_string()));
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"old");

        client.write("k", 0, &value);
        let whole = client.ask("GET", "/sparse/k/data").expect(200);
        assert!(whole.body == value && whole.header("Content-Range").is_none());
        client.call(&conditional).expect(200);
        let head = client.ask("HEAD", "/sparse/k/data").expect(200);
        assert_eq!(head.header("Content-Length"), Some(&*size.to_string()));
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"old");
        client.finalize("k").expect(201);
        assert!(client.ask("GET", "/cache/k").expect(200).body == value);
        client.ask("GET", "/sparse/k/data").expect(404);
    });
}

#[test]
fn ranges_near_the_end_of_the_largest_value() {
    everywhere(|client| {
        let size = 20 * TIB;
        client.open("k", size);
        for from in [0, 4 * TIB + 3, size - 5] {
            assert_eq!(client.write("k", from, b"bytes"), "0%");
            let range = format!("bytes={from}-{}", from + 4);
            let data = client.call(&Call::get("/sparse/k/data").with("Range", range)).expect(206);
            assert_eq!(data.body, b"bytes");
        }
        let gaps = json!([[5, 4 * TIB + 3], [4 * TIB + 8, size - 5]]);
        assert_eq!(client.missing("k"), gaps);
        problem(client.call(&range("k", size - 4, b"bytes")), 400);
        let last = Call::get("/sparse/k/data").with("Range", "bytes=-5");
        assert_eq!(client.call(&last).expect(206).body, b"bytes");
        assert_eq!(problem(client.finalize("k"), 409)["missing"], gaps);
        client.ask("DELETE", "/sparse/k").expect(204);
    });
}

/// Each writes its own pieces and some of its neighbour's, all of the same value.
#[test]
fn many_writers_at_once_make_one_value() {
    everywhere(|client| {
        let size = 21 * MIB + 77;
        let value = Content::new(4).bytes(size as usize);
        client.open("k", size);
        let step = 300_007;
        let starts: Vec<u64> = (0..size).step_by(step).collect();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let (starts, value) = (&starts, &value);
                scope.spawn(move || {
                    let mut connection = client.node.connect();
                    connection.patience(Duration::from_secs(60));
                    for from in starts.iter().skip(writer).step_by(8) {
                        let to = (from + step as u64 + 5000).min(size);
                        let call = range("k", *from, &value[*from as usize..to as usize]);
                        connection.call(&call).expect(202);
                    }
                });
            }
        });
        let status = client.status("k");
        assert_eq!((&status["complete"], &status["completion_percent"]), (&json!(true), &json!(100)));
        assert_eq!(client.finalize("k").expect(201).etag(), format!("\"{}\"", blake3::hash(&value).to_hex()));
        assert!(client.ask("GET", "/cache/k").expect(200).body == value);
    });
}
