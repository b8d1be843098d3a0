//! The Unix socket: many requests on one connection, each at its own pace.

use std::num::NonZeroU64;
use std::time::Duration;

use elcache_protocol::request::{Get, Named, Put, SparseWrite};
use elcache_protocol::{Request, Status};
use elcache_tests::content::Content;
use elcache_tests::node::wait_for;
use elcache_tests::random::Random;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Local, Node};

const MIB: usize = 1 << 20;

#[test]
fn no_more_comes_than_the_window_lets() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &[]);
    for size in [100_usize, 10 * MIB] {
        let content = Content::new(size as u64);
        node.put("/cache/w", content.bytes(size));
        let id = client.begin(&Request::Get(Get { window: Some(0), ..Get::new(b"w") }), b"", false);
        let mut allowed = 0;
        for more in [1_usize, 9, 30] {
            client.credit(id, more as u64);
            allowed += more;
            while client.so_far(id).len() < allowed {
                assert!(client.take());
            }
            // Whatever else comes was asked for later, and no byte of this one is among it: the client checks that.
            client.call(&Request::Ping).expect(Status::Ok);
            assert_eq!(client.so_far(id).len(), allowed);
        }
        let answer = client.answer(id).expect(Status::Ok);
        assert!(answer.data.len() == size && content.is(0, &answer.data));
    }
}

#[test]
fn a_reader_that_waits_holds_up_nobody_else() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "256"], &[]);
    let content = Content::new(1);
    node.put("/cache/slow", content.bytes(20 * MIB));
    let slow = client.begin(&Request::Get(Get { window: Some(70_000), ..Get::new(b"slow") }), b"", false);
    let other = Content::new(2).bytes(9 * MIB);
    client.put(b"other", &other);
    assert!(client.get(b"other").expect(Status::Ok).data == other);
    client.put(b"small", b"x");
    assert_eq!(client.get(b"small").expect(Status::Ok).data, b"x");
    assert_eq!(client.so_far(slow).len(), 70_000);
    let answer = client.answer(slow).expect(Status::Ok);
    assert!(answer.data.len() == 20 * MIB && content.is(0, &answer.data));
}

#[test]
fn values_are_read_and_written_in_turns_on_one_connection() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "512"], &[]);
    let seed = elcache_tests::random::seed();
    let mut random = Random::new(seed);
    let (size, old, new) = (12 * MIB, Content::new(1), Content::new(2).bytes(12 * MIB));
    (0..4).for_each(|n| _ = node.put(&format!("/cache/old{n}"), old.bytes(size)));
    let keys: Vec<String> = (0..4).map(|n| format!("old{n}")).collect();
    let gets: Vec<Request<'_>> =
        keys.iter().map(|key| Request::Get(Get { window: Some(0), ..Get::new(key.as_bytes()) })).collect();
    let reads = client.begin_all(&gets);
    let names: Vec<String> = (0..4).map(|n| format!("new{n}")).collect();
    let puts: Vec<Request<'_>> =
        names.iter().map(|name| Request::Put(Put::new(name.as_bytes(), Some(size as u64)))).collect();
    let writes = client.begin_all(&puts);
    let mut sent = [0_usize; 4];
    while sent.iter().any(|sent| *sent < size) {
        let at = random.below(4) as usize;
        let most =
            client.credit_of(writes[at]).min(random.size(300_000)).min((size - sent[at]) as u64) as usize;
        if most > 0 {
            client.data(writes[at], &new[sent[at]..sent[at] + most], sent[at] + most == size);
            sent[at] += most;
        }
        client.credit(reads[random.below(4) as usize], random.size(200_000));
        // Something always comes: credit, or the next bytes of an answer.
        let blocked = (0..4).all(|at| sent[at] == size || client.credit_of(writes[at]) == 0);
        if blocked {
            assert!(client.take(), "seed {seed}");
        }
    }
    for id in writes {
        client.answer(id).expect(Status::Ok);
    }
    for id in reads {
        let answer = client.answer(id).expect(Status::Ok);
        assert!(answer.data.len() == size && old.is(0, &answer.data), "seed {seed}");
    }
    (0..4).for_each(|n| assert!(node.get(&format!("/cache/new{n}")).expect(200).body == new, "seed {seed}"));
}

#[test]
fn many_answers_at_once_are_whole_whether_they_fit_or_not() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &[]);
    for size in [10_usize, 16_384, 16_385, 300_000, MIB, 5 * MIB] {
        let content = Content::new(size as u64);
        node.put("/cache/b", content.bytes(size));
        let gets = vec![
            Request::Get(Get { window: Some(u64::MAX), ..Get::new(b"b") });
            client.hello.requests as usize
        ];
        // All of them are sent before one answer is read.
        for id in client.begin_all(&gets) {
            let answer = client.wait(id).expect(Status::Ok);
            assert!(answer.data.len() == size && content.is(0, &answer.data), "{size}");
        }
    }
}

#[test]
fn more_requests_than_may_be_open_are_refused_and_no_others() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    assert_eq!(client.hello.requests, 64);
    node.put("/cache/v", Content::new(1).bytes(100_000));
    let waiting = Request::Get(Get { window: Some(0), ..Get::new(b"v") });
    let ids = client.begin_all(&vec![waiting; 64]);
    client.call(&Request::Put(Put::new(b"k", Some(9)))).expect(Status::Busy);
    client.cancel(ids[7]);
    client.wait(ids[7]).expect(Status::Cancelled);
    client.put(b"k", b"now it is taken");
    for id in ids.into_iter().filter(|id| *id != 8) {
        assert_eq!(client.answer(id).expect(Status::Ok).data.len(), 100_000);
    }
}

#[test]
fn what_is_given_up_ends_and_leaves_nothing() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &[]);
    node.put("/cache/v", Content::new(1).bytes(8 * MIB));
    let get = client.begin(&Request::Get(Get { window: Some(1000), ..Get::new(b"v") }), b"", false);
    while client.so_far(get).len() < 1000 {
        assert!(client.take());
    }
    client.cancel(get);
    assert_eq!(client.wait(get).expect(Status::Cancelled).data.len(), 1000);
    // Over is over: neither of these means anything now.
    client.cancel(get);
    client.credit(get, 1000);

    for size in [None, Some(8 * MIB as u64)] {
        let put = client.begin(&Request::Put(Put::new(b"v", size)), &[9; 30_000], false);
        while client.credit_of(put) < 40_000 && size.is_some() {
            assert!(client.take());
        }
        client.data(put, &[9; 30_000], false);
        client.cancel(put);
        client.data(put, &[9; 2000], true);
        client.wait(put).expect(Status::Cancelled);
    }
    client.call(&Request::SparseOpen(Put::new(b"s", Some(100)))).expect(Status::Ok);
    let write = SparseWrite { named: Named::new(b"s"), offset: 0, length: 100 };
    let range = client.begin(&Request::SparseWrite(write), &[1; 50], false);
    client.cancel(range);
    client.wait(range).expect(Status::Cancelled);
    assert!(node.get("/sparse/s").expect(200).text().contains("[[0, 100]]"));
    assert!(Content::new(1).is(0, &client.get(b"v").expect(Status::Ok).data));
}

#[test]
fn what_flows_is_not_under_a_deadline() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &[]);
    let content = Content::new(1);
    node.put("/cache/v", content.bytes(8 * MIB));
    let deadline = NonZeroU64::new(400);
    let (read, written) = (Named { key: b"v", deadline }, Named { key: b"w", deadline });
    let get =
        client.begin(&Request::Get(Get { named: read, window: Some(10), ..Get::new(b"v") }), b"", false);
    let put = client.begin(&Request::Put(Put { named: written, ..Put::new(b"w", Some(8)) }), b"some", false);
    std::thread::sleep(Duration::from_secs(1));
    client.data(put, b"more", true);
    client.wait(put).expect(Status::Ok);
    let answer = client.answer(get).expect(Status::Ok);
    assert!(answer.data.len() == 8 * MIB && content.is(0, &answer.data));
    assert_eq!(node.get("/cache/w").expect(200).body, b"somemore");
}

#[test]
fn clients_that_stall_are_given_up_request_by_request() {
    let scratch = Scratch::new();
    let limits = [("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "1500ms")];
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &limits);
    node.put("/cache/v", Content::new(1).bytes(8 * MIB));
    let get = client.begin(&Request::Get(Get { window: Some(10), ..Get::new(b"v") }), b"", false);
    let put = client.begin(&Request::Put(Put::new(b"v", Some(100))), b"some", false);
    client.wait(get).expect(Status::Timeout);
    client.wait(put).expect(Status::Timeout);
    client.call(&Request::Ping).expect(Status::Ok);
    // With nothing open there is no hurry.
    std::thread::sleep(Duration::from_secs(2));
    client.call(&Request::Ping).expect(Status::Ok);
    // A frame that is not sent to its end leaves nothing to go on with.
    client.send(&[1, 18, 0]);
    assert_eq!(client.farewell().expect("a reason").0, Status::Timeout);
}

#[test]
fn a_client_that_takes_nothing_is_let_go_and_holds_no_values() {
    let scratch = Scratch::new();
    let limits = [("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "3s")];
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &limits);
    let content = Content::new(1);
    node.put("/cache/v", content.bytes(4 * MIB));
    let all = Request::Get(Get { window: Some(u64::MAX), ..Get::new(b"v") });
    let ids = client.begin_all(&[all.clone(), all.clone()]);
    std::thread::sleep(Duration::from_millis(1800));
    // It was slow, and goes on: what it gets was copied, or looked up again.
    for id in ids {
        assert!(content.is(0, &client.wait(id).expect(Status::Ok).data));
    }
    // The same, but the value goes meanwhile: what was let go cannot be had any more.
    let id = client.begin(&all, b"", false);
    std::thread::sleep(Duration::from_millis(1800));
    node.delete("/cache/v").expect(204);
    let answer = client.wait(id);
    assert_eq!(answer.status, Status::Partial, "{answer:?}");
    assert!(answer.data.len() < 4 * MIB && content.is(0, &answer.data));

    node.put("/cache/v", content.bytes(4 * MIB));
    client.begin(&all, b"", false);
    let gone = wait_for(Duration::from_secs(10), || {
        (node.metric("elcache_connections{transport=\"unix\"}") == Some(0.0)).then_some(())
    });
    assert!(gone.is_some(), "a client that takes nothing is not waited for");
}

#[test]
fn a_client_that_vanishes_leaves_the_old_value_and_takes_nothing_with_it() {
    let scratch = Scratch::new();
    let (node, client) = Node::local(&scratch, &["-m", "64"], &[]);
    drop(client);
    node.put("/cache/v", "old");
    for _ in 0..20 {
        // Each would take most of the memory: none of it may stay taken.
        let mut client = Local::connect(&scratch.path().join("node.sock"));
        let put = client.begin(&Request::Put(Put::new(b"v", Some(30 * MIB as u64))), &[1; 50_000], false);
        while client.credit_of(put) < MIB as u64 {
            assert!(client.take());
        }
        client.data(put, &vec![1; MIB], false);
    }
    assert_eq!(node.get("/cache/v").expect(200).body, b"old");
    let mut client = Local::connect(&scratch.path().join("node.sock"));
    client.put(b"v", &Content::new(4).bytes(30 * MIB));
    assert!(Content::new(4).is(0, &node.get("/cache/v").expect(200).body));
}

#[test]
fn a_stop_lets_requests_end_and_takes_no_more() {
    let scratch = Scratch::new();
    let (mut node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let path = scratch.path().join("node.sock");
    let mut idle = Local::connect(&path);
    idle.call(&Request::Ping).expect(Status::Ok);
    let silent = elcache_tests::local::raw(&path).expect("a connection");
    let put = client.begin(&Request::Put(Put::new(b"v", Some(10))), b"12345", false);
    client.call(&Request::Ping).expect(Status::Ok);
    node.signal(elcache_tests::node::Signal::TERM);
    node.wait_for_log("stopping");
    assert_eq!(idle.farewell(), None);
    assert_eq!(elcache_tests::local::farewell(&mut { silent }), None);
    assert!(Local::try_connect(&path).is_err(), "new connections are still accepted");
    client.data(put, b"67890", true);
    client.wait(put).expect(Status::Ok);
    assert_eq!(client.farewell(), None);
    let status = node.wait_exit(Duration::from_secs(10)).expect("it ends when all is said");
    assert_eq!(status.code(), Some(0));
    assert!(!path.exists());
}
