//! Conditional requests (RFC 9110 section 13), on reads and on writes, and put-if-absent in a race.

use elcache_tests::curl::curl;
use elcache_tests::{Call, Node};

const OTHER: &str = "\"0000000000000000000000000000000000000000000000000000000000000000\"";
const PAST: &str = "Thu, 01 Jan 1970 00:00:01 GMT";
const FUTURE: &str = "Fri, 01 Jan 2100 00:00:00 GMT";

fn node_with_value() -> (Node, String) {
    let node = Node::plain();
    let etag = node.put("/cache/a", "value").etag().to_owned();
    (node, etag)
}

#[test]
fn if_none_match_on_reads_gives_304_without_a_body() {
    let (node, etag) = node_with_value();
    let weak = format!("W/{etag}");
    let list = format!("{OTHER}, {etag}");
    let weak_list = format!("\"x\" ,, W/{etag},\"y,z\"");
    for tag in [&*etag, &weak, &list, &weak_list, "*"] {
        for call in [Call::get("/cache/a"), Call::head("/cache/a")] {
            let answer = node.call(&call.with("If-None-Match", tag)).expect(304);
            assert_eq!(answer.etag(), etag, "{tag}");
        }
    }
    for tag in [OTHER, "\"x\"", "W/\"x\"", "\"\"", ""] {
        let answer = node.call(&Call::get("/cache/a").with("If-None-Match", tag)).expect(200);
        assert_eq!(answer.body, b"value", "{tag}");
    }
    let lines = Call::get("/cache/a").with("If-None-Match", OTHER).with("If-None-Match", &etag);
    node.call(&lines).expect(304);
}

#[test]
fn a_304_carries_what_a_200_would_that_caches_need() {
    let (node, _) = node_with_value();
    let put = Call::put("/cache/a", "v2").with("Cache-Control", "max-age=60").with("X-ElCache-TTL", "100");
    let etag = node.call(&put).expect(204).etag().to_owned();
    let answer = node.call(&Call::get("/cache/a").with("If-None-Match", &etag)).expect(304);
    assert_eq!(answer.header("Cache-Control"), Some("max-age=60"));
    for name in ["ETag", "Date"] {
        assert!(answer.header(name).is_some(), "{name}: {answer:?}");
    }
}

#[test]
fn the_connection_goes_on_after_a_304() {
    let (node, etag) = node_with_value();
    let mut connection = node.connect();
    for _ in 0..3 {
        connection.call(&Call::get("/cache/a").with("If-None-Match", &etag)).expect(304);
        assert_eq!(connection.call(&Call::get("/cache/a")).expect(200).body, b"value");
    }
}

#[test]
fn if_match_on_reads() {
    let (node, etag) = node_with_value();
    let list = format!("{OTHER},{etag}");
    for tag in [&*etag, &list, "*"] {
        node.call(&Call::get("/cache/a").with("If-Match", tag)).expect(200);
    }
    let weak = format!("W/{etag}");
    for tag in [OTHER, "\"x\"", &weak, ""] {
        let answer = node.call(&Call::get("/cache/a").with("If-Match", tag)).expect(412);
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{tag}");
        node.call(&Call::head("/cache/a").with("If-Match", tag)).expect(412);
    }
}

#[test]
fn tags_that_cannot_be_read_are_no_match() {
    let (node, _) = node_with_value();
    for tag in ["\"open", "W/", "\"a\"b\"", "W/\"open"] {
        let status = node.call(&Call::get("/cache/a").with("If-Match", tag)).status;
        assert!(matches!(status, 400 | 412), "{tag}: {status}");
        let status = node.call(&Call::put("/cache/a", "no").with("If-Match", tag)).status;
        assert!(matches!(status, 400 | 412), "{tag}: {status}");
    }
    assert_eq!(node.get("/cache/a").body, b"value");
}

#[test]
fn dates_are_compared_to_the_second() {
    let (node, _) = node_with_value();
    let modified = node.head("/cache/a").header("Last-Modified").unwrap().to_owned();
    let status = |name: &str, date: &str| node.call(&Call::get("/cache/a").with(name, date)).status;
    assert_eq!(status("If-Modified-Since", &modified), 304);
    assert_eq!(status("If-Modified-Since", PAST), 200);
    assert_eq!(status("If-Unmodified-Since", &modified), 200);
    assert_eq!(status("If-Unmodified-Since", FUTURE), 200);
    assert_eq!(status("If-Unmodified-Since", PAST), 412);
    for unreadable in ["yesterday", "", "Thu, 99 Foo 1970 00:00:01 GMT", "0", "2026-01-01T00:00:00Z"] {
        assert_eq!(status("If-Modified-Since", unreadable), 200, "{unreadable:?}");
        assert_eq!(status("If-Unmodified-Since", unreadable), 200, "{unreadable:?}");
    }
}

#[test]
fn dates_of_all_three_forms_are_read() {
    let (node, _) = node_with_value();
    for date in
        ["Thu, 01 Jan 1970 00:00:01 GMT", "Thursday, 01-Jan-70 00:00:01 GMT", "Thu Jan  1 00:00:01 1970"]
    {
        let answer = node.call(&Call::get("/cache/a").with("If-Unmodified-Since", date));
        assert_eq!(answer.status, 412, "{date}");
    }
}

#[test]
fn tags_beat_dates() {
    let (node, etag) = node_with_value();
    let modified = node.head("/cache/a").header("Last-Modified").unwrap().to_owned();
    let call = Call::get("/cache/a").with("If-None-Match", OTHER).with("If-Modified-Since", &modified);
    node.call(&call).expect(200);
    let call = Call::get("/cache/a").with("If-None-Match", &etag).with("If-Modified-Since", PAST);
    node.call(&call).expect(304);
    let call = Call::get("/cache/a").with("If-Match", &etag).with("If-Unmodified-Since", PAST);
    node.call(&call).expect(200);
    // If-Match fails first, whatever If-None-Match says.
    let call = Call::get("/cache/a").with("If-Match", OTHER).with("If-None-Match", &etag);
    node.call(&call).expect(412);
}

#[test]
fn preconditions_of_an_absent_key() {
    let node = Node::plain();
    for tag in ["*", OTHER] {
        node.call(&Call::get("/cache/none").with("If-Match", tag)).expect(404);
        node.call(&Call::head("/cache/none").with("If-Match", tag)).expect(404);
        node.call(&Call::delete("/cache/none").with("If-Match", tag)).expect(404);
        node.call(&Call::put("/cache/none", "x").with("If-Match", tag)).expect(412);
        node.call(&Call::get("/cache/none").with("If-None-Match", tag)).expect(404);
    }
    node.get("/cache/none").expect(404);
    node.call(&Call::put("/cache/none", "x").with("If-None-Match", OTHER)).expect(201);
}

#[test]
fn writes_happen_only_where_their_condition_holds() {
    let (node, etag) = node_with_value();
    let put = |body: &str| Call::put("/cache/a", body);
    node.call(&put("no").with("If-Match", OTHER)).expect(412);
    node.call(&put("no").with("If-Match", format!("W/{etag}"))).expect(412);
    node.call(&put("no").with("If-None-Match", "*")).expect(412);
    node.call(&put("no").with("If-None-Match", &etag)).expect(412);
    node.call(&put("no").with("If-Unmodified-Since", PAST)).expect(412);
    assert_eq!(node.get("/cache/a").body, b"value");
    let second = node.call(&put("two").with("If-Match", &etag)).expect(204);
    node.call(&put("no").with("If-Match", &etag)).expect(412);
    node.call(&put("three").with("If-Match", format!("{OTHER}, {}", second.etag()))).expect(204);
    node.call(&put("four").with("If-Match", "*")).expect(204);
    node.call(&put("five").with("If-None-Match", OTHER)).expect(204);
    assert_eq!(node.get("/cache/a").body, b"five");
}

#[test]
fn delete_honours_if_match() {
    let (node, etag) = node_with_value();
    node.call(&Call::delete("/cache/a").with("If-Match", OTHER)).expect(412);
    assert_eq!(node.get("/cache/a").expect(200).body, b"value");
    node.call(&Call::delete("/cache/a").with("If-Match", &etag)).expect(204);
    node.put("/cache/a", "value");
    node.call(&Call::delete("/cache/a").with("If-Match", "*")).expect(204);
    node.get("/cache/a").expect(404);
}

#[test]
fn a_condition_that_fails_is_said_before_the_body_is_sent() {
    let (node, _) = node_with_value();
    let mut connection = node.connect();
    let head = "PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000\r\nIf-None-Match: *\r\n\r\n";
    connection.send(head);
    connection.answer().expect(412);
}

#[test]
fn a_condition_is_checked_again_when_the_write_commits() {
    let (node, etag) = node_with_value();
    let mut slow = node.connect();
    let call =
        format!("PUT /cache/a HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\nIf-Match: {etag}\r\n\r\nslow ");
    slow.send(call);
    std::thread::sleep(std::time::Duration::from_millis(200));
    node.put("/cache/a", "quick");
    slow.send("value");
    slow.answer().expect(412);
    assert_eq!(node.get("/cache/a").body, b"quick");
}

#[test]
fn of_twenty_curls_that_put_if_absent_one_wins() {
    let node = Node::plain();
    let won: Vec<usize> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..20)
            .map(|number| {
                let node = &node;
                scope.spawn(move || {
                    let body = format!("from {number}");
                    let args = ["-X", "PUT", "-H", "If-None-Match: *", "-d", &body];
                    curl(node, "/cache/race", &args).answer.status
                })
            })
            .collect();
        let statuses: Vec<u16> = attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| matches!(status, 201 | 412)), "{statuses:?}");
        (0..20).filter(|&number| statuses[number] == 201).collect()
    });
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(node.get("/cache/race").body, format!("from {}", won[0]).as_bytes());
}

#[test]
fn of_many_writers_with_one_tag_one_wins_each_round() {
    let node = Node::plain();
    let mut etag = node.put("/cache/a", "start").etag().to_owned();
    for round in 0..20 {
        let winners: Vec<String> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|writer| {
                    let call = Call::put("/cache/a", format!("{round} {writer}").repeat(3000))
                        .with("If-Match", &etag);
                    let node = &node;
                    scope.spawn(move || node.call(&call))
                })
                .collect();
            let answers = writers.into_iter().map(|writer| writer.join().unwrap());
            answers.filter(|answer| answer.status == 204).map(|answer| answer.etag().to_owned()).collect()
        });
        assert_eq!(winners.len(), 1);
        etag.clone_from(&winners[0]);
        assert_eq!(node.head("/cache/a").etag(), etag);
    }
}
