//! What is refused, and that it leaves no trace.

use elcache_tests::home::Home;
use elcache_tests::{Answer, Call, Connection, Node};
use serde_json::{Value, json};

use super::{MIB, NO_SUCH_ID, TIB, everywhere, opening, problem, range};

#[test]
fn opening_needs_a_size_that_there_can_be() {
    everywhere(|client| {
        let open = |size: &str| client.call(&Call::new("POST", "/sparse/k").with("X-ElCache-Size", size));
        client.ask("POST", "/sparse/k").expect(400);
        for bad in ["-1", "+1", "1.5", "0x10", "1MB", "all"] {
            problem(open(bad), 400);
        }
        for large in [20 * TIB + 1, u64::MAX - 1, u64::MAX] {
            problem(open(&large.to_string()), 413);
        }
        problem(open("18446744073709551616"), 413);
        for refused in [
            ("X-ElCache-TTL", "0"),
            ("X-ElCache-TTL", "x"),
            ("X-ElCache-Flags", "-1"),
            ("X-ElCache-No-Disk", "yes"),
            ("Content-Range", "bytes 0-4/5"),
            ("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
            ("Repr-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        ] {
            problem(client.call(&opening("k", 5).with(refused.0, refused.1)), 400);
        }
        client.ask("GET", "/sparse/k").expect(404);
        // Larger than everything that there is: nothing is reserved.
        client.open("k", 20 * TIB);
        problem(open("5"), 409);
        assert_eq!(client.status("k")["total_size"], 20 * TIB);
        client.ask("DELETE", "/sparse/k").expect(204);
        client.ask("DELETE", "/sparse/k").expect(404);
        client.open("k", 5);
    });
}

#[test]
fn sizes_are_limited_as_those_of_values_are() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__VALUE_SIZE", "1MiB")]);
    node.call(&opening("k", MIB + 1)).expect(413);
    node.call(&opening("k", MIB)).expect(201);
}

#[test]
fn suffixes_are_recognised_before_keys_are_decoded_and_for_every_method() {
    everywhere(|client| {
        for (key, plain) in [
            ("a%2Ffinalize", "a/finalize"),
            ("b%2Fdata", "b/data"),
            ("finalize", "finalize"),
            ("data", "data"),
        ] {
            client.open(key, 4);
            assert_eq!(client.status(key)["key"], plain);
            client.write(key, 0, b"text");
            assert_eq!(client.ask("GET", &format!("/sparse/{key}/data")).expect(200).body, b"text");
            client.finalize(key).expect(201);
            assert_eq!(client.ask("GET", &format!("/cache/{key}")).expect(200).body, b"text");
        }
        for (target, allowed) in [
            ("/sparse/a", "GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS"),
            ("/sparse/a/data", "GET, HEAD, OPTIONS"),
            ("/sparse/a/finalize", "POST, OPTIONS"),
        ] {
            assert_eq!(client.ask("OPTIONS", target).expect(204).header("Allow"), Some(allowed), "{target}");
            assert_eq!(client.ask("TRACE", target).expect(405).header("Allow"), Some(allowed), "{target}");
        }
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            client.ask(method, "/sparse/a/finalize").expect(405);
        }
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            client.ask(method, "/sparse/a/data").expect(405);
        }
        for target in ["/sparse/", "/sparse//data", "/sparse/%", "/sparse/%zz/data"] {
            problem(client.ask("GET", target), 400);
        }
        problem(client.ask("POST", "/sparse//finalize"), 400);
        problem(client.ask("GET", &format!("/sparse/{}", "k".repeat(8193))), 400);
        problem(client.ask("BREW", "/sparse/a"), 501);
    });
}

#[test]
fn an_id_keeps_late_writers_from_newer_uploads() {
    everywhere(|client| {
        let requests = [
            ("PATCH", "/sparse/k?offset=0"),
            ("PUT", "/sparse/k?offset=0"),
            ("GET", "/sparse/k"),
            ("GET", "/sparse/k/data"),
            ("POST", "/sparse/k/finalize"),
            ("DELETE", "/sparse/k"),
        ];
        let with = |(method, target): (&str, &str), id: &str| {
            client.call(&Call::new(method, target).with("X-ElCache-Upload-Id", id))
        };
        for request in requests {
            client.ask(request.0, request.1).expect(404);
            problem(with(request, NO_SUCH_ID), 404);
            for malformed in
                ["x", "1", &NO_SUCH_ID[1..], &format!("{NO_SUCH_ID}0"), &NO_SUCH_ID.replace('1', "g")]
            {
                problem(with(request, malformed), 400);
            }
        }
        let old = client.open("k", 3);
        client.ask("DELETE", "/sparse/k").expect(204);
        let new = client.open("k", 3);
        assert_ne!(old, new);
        client.write("k", 0, b"new");
        for request in requests {
            problem(with(request, &old), 409);
            problem(with(request, NO_SUCH_ID), 409);
        }
        assert_eq!(with(requests[3], &new).expect(200).body, b"new");
        let late = range("k", 0, b"old").with("X-ElCache-Upload-Id", &old);
        client.call(&late).expect(409);
        with(requests[4], &new.to_uppercase()).expect(201);
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"new");
        // It has become this value; the other one never did.
        with(requests[4], &new).expect(201);
        problem(with(requests[4], &old), 404);
        problem(with(requests[0], &new), 404);
    });
}

#[test]
fn ranges_that_cannot_be_right_are_400_and_count_nothing() {
    everywhere(|client| {
        client.open("k", 100);
        let content = |value: &str, body: &[u8]| {
            client.call(&Call::new("PUT", "/sparse/k").with("Content-Range", value).body(body))
        };
        for value in [
            "bytes 0-8/100",
            "bytes 0-10/100",
            "bytes 0-9/101",
            "bytes 0-9/99",
            "bytes 95-104/105",
            "bytes 95-104/*",
            "bytes 100-109/*",
            "bytes 9-0/100",
            "bytes 0-/100",
            "bytes -10/100",
            "bytes */100",
            "bytes=0-9/100",
            "lines 0-9/100",
            "0-9/100",
            "bytes 0-18446744073709551615/*",
            "bytes 18446744073709551606-18446744073709551615/18446744073709551616",
            "bytes 99999999999999999999-100000000000000000008/*",
        ] {
            problem(content(value, &[1; 10]), 400);
        }
        for target in [
            "/sparse/k",
            "/sparse/k?offset",
            "/sparse/k?offset=",
            "/sparse/k?offset=-1",
            "/sparse/k?offset=1e1",
            "/sparse/k?offset=91",
            "/sparse/k?offset=100",
            "/sparse/k?offset=101",
            "/sparse/k?offset=18446744073709551615",
            "/sparse/k?offset=18446744073709551606",
            "/sparse/k?offset=18446744073709551616",
            "/sparse/k?offset=0&offset=0",
        ] {
            problem(client.call(&Call::new("PATCH", target).body([1; 10])), 400);
        }
        let both = Call::new("PATCH", "/sparse/k?offset=1").with("Content-Range", "bytes 0-9/100");
        problem(client.call(&both.body([1; 10])), 400);
        let repr = range("k", 0, &[1; 10]);
        let digest = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        problem(client.call(&repr.clone().with("Repr-Digest", digest)), 400);
        problem(client.call(&repr.clone().with("Content-Digest", digest)), 400);
        problem(client.call(&repr.with("Content-Digest", "sha-256=:x:")), 400);
        assert_eq!(client.missing("k"), json!([[0, 100]]));
        assert_eq!(client.status("k")["completion_percent"], 0);
        // The right ones, and no byte at either end.
        content("bytes 0-9/100", &[1; 10]).expect(202);
        content("BYTES 10-19/*", &[1; 10]).expect(202);
        let both = Call::new("PATCH", "/sparse/k?offset=90").with("Content-Range", "bytes 90-99/100");
        client.call(&both.body([1; 10])).expect(202);
        client.call(&range("k", 100, b"")).expect(202);
        problem(client.call(&range("k", 101, b"")), 400);
        assert_eq!(client.missing("k"), json!([[20, 90]]));
    });
}

#[test]
fn a_range_that_is_cut_off_counts_nothing() {
    everywhere(|client| {
        let size = 9 * MIB;
        client.open("k", size);
        for sent in [1, 100_000, 5 * MIB, size - 1] {
            let mut connection = client.node.connect();
            connection.send(format!(
                "PATCH /sparse/k?offset=0 HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
            ));
            connection.send(vec![1; sent as usize]);
            connection.finish();
            let _ = connection.try_answer(false);
            drop(connection);
            assert_eq!(client.missing("k"), json!([[0, size]]), "{sent}");
        }
        client.write("k", 0, &vec![2; size as usize]);
        assert_eq!(client.missing("k"), json!([]));
    });
}

#[test]
fn what_is_not_complete_cannot_be_finalized() {
    everywhere(|client| {
        let size = 12 * MIB;
        client.open("k", size);
        assert_eq!(problem(client.finalize("k"), 409)["missing"], json!([[0, size]]));
        client.write("k", 5, b"xx");
        let told = problem(client.finalize("k"), 409);
        assert_eq!(told["missing"], json!([[0, 5], [7, size]]));
        assert_eq!((told.get("missing_truncated"), &told["status"]), (None, &json!(409)));
        client.ask("GET", "/cache/k").expect(404);
        client.write("k", 0, &vec![1; size as usize]);
        client.finalize("k").expect(201);
    });
}

#[test]
fn at_most_a_thousand_missing_ranges_are_listed() {
    let node = Node::plain();
    let size = 12 * MIB;
    let mut connection = node.connect();
    connection.call(&opening("k", size)).expect(201);
    let places = (0..3).flat_map(|chunk| (0..340).map(move |n| chunk * 4 * MIB + n * 1000 + 1));
    let mut written = 0;
    for from in places {
        connection.call(&range("k", from, b"x")).expect(202);
        written += 1;
        // As many gaps as what was written, and one before it.
        if [1, 998, 999, 1000].contains(&written) {
            let told = problem(connection.call(&Call::new("POST", "/sparse/k/finalize")), 409);
            let listed = told["missing"].as_array().expect("a list").len();
            assert_eq!(listed, (written + 1).min(1000), "{written}");
            assert_eq!(told.get("missing_truncated"), (written == 1000).then_some(&json!(true)), "{written}");
        }
    }
    let told = problem(connection.call(&Call::get("/sparse/k/data")), 404);
    assert_eq!(
        (told["missing"].as_array().map(Vec::len), &told["missing_truncated"]),
        (Some(1000), &json!(true))
    );
    let status: Value =
        serde_json::from_slice(&connection.call(&Call::get("/sparse/k")).expect(200).body).unwrap();
    assert_eq!(
        (status["missing"].as_array().map(Vec::len), status.get("missing_truncated")),
        (Some(1021), None)
    );
}

#[test]
fn what_no_tier_may_keep_is_opened_and_every_range_of_it_is_507() {
    everywhere(|client| {
        let nowhere = opening("k", 5).with("X-ElCache-No-Memory", "1").with("X-ElCache-No-Disk", "1");
        client.call(&nowhere).expect(201);
        problem(client.call(&range("k", 0, b"value")), 507);
        assert_eq!(client.missing("k"), json!([[0, 5]]));
        client.ask("DELETE", "/sparse/k").expect(204);
    });
}

/// A range that holds more than the tiers do is refused before it is sent; what was written stays.
#[test]
fn a_range_that_does_not_fit_is_507_before_its_body_is_read() {
    for home in [None, Some(Home::new("64", "128M"))] {
        let node = home.as_ref().map_or_else(Node::plain, Home::node);
        node.wait_healthy();
        let size = TIB;
        node.call(&opening("k", size)).expect(201);
        node.call(&range("k", 0, b"first")).expect(202);
        let mut connection = node.connect();
        connection.send(format!(
            "PATCH /sparse/k?offset=5 HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
            200 * MIB
        ));
        problem(connection.answer(), 507);
        let data = node.call(&Call::get("/sparse/k/data").with("Range", "bytes=0-4")).expect(206);
        assert_eq!(data.body, b"first");
        node.call(&Call::delete("/sparse/k")).expect(204);
    }
}

fn expecting(node: &Node, target: &str, headers: &str) -> (Connection, Answer) {
    let mut connection = node.connect();
    connection.send(format!(
        "PATCH {target} HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n{headers}\r\n"
    ));
    let answer = connection.try_head().expect("an answer");
    (connection, answer)
}

#[test]
fn whoever_waits_to_be_told_to_go_on_is_refused_before_the_body() {
    let node = Node::plain();
    expecting(&node, "/sparse/k?offset=0", "").1.expect(404);
    node.call(&opening("k", 10)).expect(201);
    expecting(&node, "/sparse/k?offset=6", "").1.expect(400);
    expecting(&node, "/sparse/k", "").1.expect(400);
    expecting(&node, "/sparse/k", "Content-Range: bytes 0-5/10\r\n").1.expect(400);
    expecting(&node, "/sparse/k", "Content-Range: bytes 0-4/11\r\n").1.expect(400);
    expecting(&node, "/sparse/k?offset=0", &format!("X-ElCache-Upload-Id: {NO_SUCH_ID}\r\n")).1.expect(409);
    let (mut connection, answer) = expecting(&node, "/sparse/k?offset=5", "");
    answer.expect(100);
    connection.send("bytes");
    connection.answer().expect(202);
}
