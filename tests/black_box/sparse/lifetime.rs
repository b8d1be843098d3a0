//! From opening to the end: conditions, time, restarts, and what is counted.

use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::node::wait_for;
use elcache_tests::{Call, Node};
use serde_json::{Value, json};

use super::{MIB, everywhere, opening, problem, range};

#[test]
fn conditions_count_when_the_value_becomes_visible() {
    everywhere(|client| {
        client.open("k", 3);
        client.write("k", 0, b"new");
        let old = client.node.put("/cache/k", "old").etag().to_owned();
        let finalize =
            |name: &str, value: &str| client.call(&Call::new("POST", "/sparse/k/finalize").with(name, value));
        problem(finalize("If-None-Match", "*"), 412);
        problem(finalize("If-Match", "\"x\""), 412);
        problem(finalize("If-Match", "\"x"), 400);
        assert_eq!(client.status("k")["complete"], true);
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"old");
        finalize("If-Match", &old).expect(201);
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"new");
        // What is opened under a condition is not bound to it.
        client.call(&opening("k", 0).with("If-None-Match", "*")).expect(201);
        client.finalize("k").expect(201);
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"");
    });
}

#[test]
fn the_time_to_live_begins_when_the_value_becomes_visible() {
    let node = Node::plain();
    node.call(&opening("k", 1).with("X-ElCache-TTL", "2")).expect(201);
    node.call(&range("k", 0, b"x")).expect(202);
    std::thread::sleep(Duration::from_millis(2100));
    node.call(&Call::new("POST", "/sparse/k/finalize")).expect(201);
    assert!(matches!(node.get("/cache/k").expect(200).header("X-ElCache-TTL"), Some("1" | "2")));
    let gone = wait_for(Duration::from_secs(10), || (node.get("/cache/k").status == 404).then_some(()));
    assert!(gone.is_some());
}

#[test]
fn a_known_operation_hears_its_answer_again() {
    everywhere(|client| {
        let open = opening("k", 1).with("X-ElCache-Operation-Id", "op-1");
        let id = client.call(&open).expect(201).header("X-ElCache-Upload-Id").unwrap().to_owned();
        let again = client.call(&open).expect(201);
        assert_eq!(again.header("X-ElCache-Upload-Id"), Some(&*id));
        client.call(&opening("k", 1).with("X-ElCache-Operation-Id", "op-2")).expect(409);
        client.call(&opening("k", 1).with("X-ElCache-Operation-Id", "x".repeat(65))).expect(400);
        client.ask("DELETE", "/sparse/k").expect(204);
    });
}

#[test]
fn a_put_beside_an_upload_and_an_upload_given_up_leave_each_other_alone() {
    everywhere(|client| {
        client.node.put("/cache/k", "first");
        client.open("k", 6 * MIB);
        client.write("k", 0, &vec![1; 5 * MIB as usize]);
        client.node.put("/cache/k", "second");
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"second");
        assert_eq!(client.missing("k"), json!([[5 * MIB, 6 * MIB]]));
        client.node.delete("/cache/k").expect(204);
        assert_eq!(client.missing("k"), json!([[5 * MIB, 6 * MIB]]));
        client.node.put("/cache/k", "third");
        client.ask("DELETE", "/sparse/k").expect(204);
        assert_eq!(client.ask("GET", "/cache/k").expect(200).body, b"third");
        for method in ["GET", "DELETE"] {
            client.ask(method, "/sparse/k").expect(404);
        }
        client.call(&range("k", 0, b"late")).expect(404);
        client.finalize("k").expect(404);
    });
}

#[test]
fn only_so_many_uploads_are_open() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__UPLOADS", "2")]);
    for key in ["a", "b"] {
        node.call(&opening(key, 5)).expect(201);
    }
    let refused = node.call(&opening("c", 5));
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    problem(refused, 503);
    node.call(&opening("a", 5)).expect(409);
    assert_eq!(node.metric("elcache_uploads{state=\"open\"}"), Some(2.0));
    node.call(&Call::delete("/sparse/a")).expect(204);
    node.call(&opening("c", 5)).expect(201);
    node.call(&range("c", 0, b"value")).expect(202);
    node.call(&Call::new("POST", "/sparse/c/finalize")).expect(201);
    node.call(&opening("d", 5)).expect(201);
}

#[test]
fn an_upload_that_rests_for_too_long_is_given_up() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__UPLOAD_TTL", "1s")]);
    node.call(&opening("k", 5)).expect(201);
    node.call(&range("k", 0, b"xx")).expect(202);
    let gone = wait_for(Duration::from_secs(20), || (node.get("/sparse/k").status == 404).then_some(()));
    assert!(gone.is_some());
    assert_eq!(node.metric("elcache_uploads_ended_total{result=\"expired\"}"), Some(1.0));
    node.call(&opening("k", 5)).expect(201);
}

#[test]
fn uploads_are_counted() {
    let node = Node::plain();
    for key in ["a", "b", "c"] {
        node.call(&opening(key, 6 * MIB)).expect(201);
    }
    node.call(&range("a", 0, &vec![1; 3 * MIB as usize])).expect(202);
    node.call(&range("a", 3 * MIB, &vec![1; 3 * MIB as usize])).expect(202);
    node.call(&range("a", 6 * MIB, b"x")).expect(400);
    let mut connection = node.connect();
    connection.send("PATCH /sparse/a?offset=0 HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nby");
    connection.finish();
    let _ = connection.try_answer(false);
    let staged = node.metric("elcache_uploads_staged_bytes").expect("a number");
    assert!(staged >= (6 * MIB) as f64, "{staged}");
    assert!(node.metric("elcache_uploads_map_bytes").expect("a number") > 0.0);
    node.call(&Call::new("POST", "/sparse/a/finalize")).expect(201);
    node.call(&Call::delete("/sparse/b")).expect(204);
    for (series, expected) in [
        ("elcache_uploads{state=\"open\"}", 1.0),
        ("elcache_uploads_opened_total", 3.0),
        ("elcache_uploads_ended_total{result=\"finalized\"}", 1.0),
        ("elcache_uploads_ended_total{result=\"aborted\"}", 1.0),
        ("elcache_uploads_ended_total{result=\"expired\"}", 0.0),
        ("elcache_upload_ranges_total{result=\"written\"}", 2.0),
        ("elcache_upload_ranges_total{result=\"refused\"}", 1.0),
        ("elcache_upload_ranges_total{result=\"cut_off\"}", 1.0),
        ("elcache_upload_lost_ranges_total", 0.0),
    ] {
        let counted =
            wait_for(Duration::from_secs(5), || node.metric(series).filter(|value| *value == expected));
        assert_eq!(counted.or_else(|| node.metric(series)), Some(expected), "{series}");
    }
    assert!(node.metric("elcache_upload_chunks_combined_total") >= Some(1.0));
}

#[test]
fn an_upload_goes_on_after_a_restart_and_after_a_kill() {
    let home = Home::new("64", "256M");
    let size = 13 * MIB;
    let value = Content::new(9).bytes(size as usize);
    let node = home.node();
    node.wait_healthy();
    let opened =
        node.call(&opening("k", size).with("X-ElCache-Flags", "3").with("Content-Type", "a/b")).expect(201);
    let id = opened.header("X-ElCache-Upload-Id").unwrap().to_owned();
    let part = |from: u64, to: u64| {
        range("k", from, &value[from as usize..to as usize]).with("X-ElCache-Upload-Id", &id)
    };
    let missing = |node: &Node| -> Value {
        let status = node.call(&Call::get("/sparse/k").with("X-ElCache-Upload-Id", &id)).expect(200);
        serde_json::from_slice::<Value>(&status.body).unwrap()["missing"].clone()
    };
    node.call(&part(0, 6 * MIB)).expect(202);
    node.call(&part(7 * MIB, 7 * MIB + 1)).expect(202);
    node.stop();

    let node = home.node();
    node.wait_healthy();
    assert_eq!(missing(&node), json!([[6 * MIB, 7 * MIB], [7 * MIB + 1, size]]));
    node.call(&part(5 * MIB, 9 * MIB)).expect(202);
    node.call(&part(size - 10, size)).expect(202);
    node.kill();

    let node = home.node();
    node.wait_healthy();
    assert_eq!(missing(&node), json!([[9 * MIB, size - 10]]));
    let data = node.call(&Call::get("/sparse/k/data").with("Range", "bytes=0-9437183")).expect(206);
    assert!(data.body == value[..9 << 20]);
    node.call(&part(9 * MIB, size)).expect(202);
    let finalize = Call::new("POST", "/sparse/k/finalize").with("X-ElCache-Upload-Id", &id);
    let etag = format!("\"{}\"", blake3::hash(&value).to_hex());
    assert_eq!(node.call(&finalize).expect(201).etag(), etag);
    node.kill();

    let node = home.node();
    node.wait_healthy();
    let got = node.get("/cache/k").expect(200);
    assert!(got.body == value);
    assert_eq!(
        (got.etag(), got.header("X-ElCache-Flags"), got.header("Content-Type")),
        (&*etag, Some("3"), Some("a/b"))
    );
    assert_eq!(node.call(&finalize).expect(201).etag(), etag);
    node.get("/sparse/k").expect(404);
}
