//! Requests for which the node takes its time, and what others on the same connection notice of that.

mod support;

use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use elcache_core::key::Key;
use elcache_engine::Found;
use elcache_local::LocalConfig;
use elcache_protocol::request::{Get, Named, Put, Stat};
use elcache_protocol::{Request, Status};
use elcache_tests::Local;
use elcache_tests::node::wait_for;
use support::Node;

const SOON: Duration = Duration::from_secs(10);

fn within(named: &'static [u8], ms: u64) -> Named<'static> {
    Named { key: named, deadline: NonZeroU64::new(ms) }
}

#[test]
fn a_slow_request_holds_up_no_other() {
    let node = Node::start(LocalConfig::default());
    let mut client = Local::connect(&node.path);
    let slow: Vec<u64> = [
        Request::Get(Get::new(b"slow get")),
        Request::Stat(Stat { named: Named::new(b"slow stat"), runs: None }),
        Request::Delete(Named::new(b"slow delete")),
        Request::Put(Put::new(b"slow put", Some(0))),
    ]
    .iter()
    .map(|request| client.begin(request, b"", matches!(request, Request::Put(_))))
    .collect();
    client.put(b"quick", &vec![5; 3 << 20]);
    assert_eq!(client.get(b"quick").expect(Status::Ok).data.len(), 3 << 20);
    node.tier.open.send_replace(true);
    let statuses: Vec<Status> = slow.into_iter().map(|id| client.wait(id).status).collect();
    assert_eq!(statuses, [Status::NotFound, Status::NotFound, Status::NotFound, Status::Ok]);
}

#[test]
fn a_deadline_is_for_the_time_that_the_node_thinks() {
    let node = Node::start(LocalConfig::default());
    let mut client = Local::connect(&node.path);
    let began = Instant::now();
    let get = client.begin(&Request::Get(Get { named: within(b"slow", 300), ..Get::new(b"") }), b"", false);
    let stat = Stat { named: within(b"slow", 300), runs: None };
    let stat = client.begin(&Request::Stat(stat), b"", false);
    let small = Put { named: within(b"slow", 300), ..Put::new(b"", Some(1)) };
    let small = client.begin(&Request::Put(small), b"x", true);
    // That of a write begins with its last byte.
    let large = Put { named: within(b"slow", 300), ..Put::new(b"", Some(40_000)) };
    let large = client.begin(&Request::Put(large), &[1; 20_000], false);
    for id in [get, stat, small] {
        client.wait(id).expect(Status::Timeout);
    }
    assert!((Duration::from_millis(300)..SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
    let last = Instant::now();
    client.data(large, &[1; 20_000], true);
    client.wait(large).expect(Status::Timeout);
    assert!((Duration::from_millis(300)..SOON).contains(&last.elapsed()), "{:?}", last.elapsed());
    client.call(&Request::Ping).expect(Status::Ok);
}

#[test]
fn the_nodes_own_patience_ends_as_well() {
    let config = LocalConfig { first_byte_timeout: Duration::from_millis(200), ..LocalConfig::default() };
    let node = Node::start(config);
    let mut client = Local::connect(&node.path);
    client.get(b"slow").expect(Status::Timeout);
    // A later deadline is no reason to wait longer.
    client.call(&Request::Delete(within(b"slow", 60_000))).expect(Status::Timeout);
    client.call(&Request::Ping).expect(Status::Ok);
}

#[test]
fn what_is_given_up_while_the_node_thinks_is_answered_at_once() {
    let node = Node::start(LocalConfig::default());
    let mut client = Local::connect(&node.path);
    let ids = [b"slow 1", b"slow 2"].map(|key| client.begin(&Request::Get(Get::new(key)), b"", false));
    client.cancel(ids[1]);
    client.wait(ids[1]).expect(Status::Cancelled);
    node.tier.open.send_replace(true);
    client.wait(ids[0]).expect(Status::NotFound);
    // Nothing more comes of the one that was given up: the client would complain.
    client.call(&Request::Ping).expect(Status::Ok);
}

#[test]
fn what_breaks_is_answered_and_breaks_nothing_else() {
    let node = Node::start(LocalConfig::default());
    let mut client = Local::connect(&node.path);
    let broken = client.begin(&Request::Get(Get::new(b"broken")), b"", false);
    let slow = client.begin(&Request::Get(Get::new(b"slow")), b"", false);
    client.put(b"k", b"v");
    node.tier.open.send_replace(true);
    client.wait(broken).expect(Status::Internal);
    client.wait(slow).expect(Status::NotFound);
    assert_eq!(client.get(b"k").expect(Status::Ok).data, b"v");
}

/// The window that the greeting names is taken without waiting for anything: a client that sends it and then something else must
/// not find that stuck behind it.
#[test]
fn the_first_window_of_a_write_is_taken_while_it_waits_for_room() {
    let node = Node::start(LocalConfig::default());
    node.tier.admits.send_replace(false);
    let mut client = Local::connect(&node.path);
    let window = client.hello.window as usize;
    let size = 3 * window;
    let requests: Vec<u64> = (0..20_u8)
        .map(|number| {
            let key = [number];
            client.begin(&Request::Put(Put::new(&key, Some(size as u64))), &vec![number; window], false)
        })
        .collect();
    client.put(b"small", b"goes by");
    assert!(requests.iter().all(|id| client.credit_of(*id) == 0));
    node.tier.admits.send_replace(true);
    for (id, number) in requests.into_iter().zip(0..) {
        while client.credit_of(id) < 2 * window as u64 {
            assert!(client.take());
        }
        client.data(id, &vec![number; 2 * window], true);
        client.wait(id).expect(Status::Ok);
        assert!(client.get(&[number]).expect(Status::Ok).data == vec![number; size]);
    }
}

#[test]
fn a_write_whose_client_goes_while_it_is_committed_is_written_all_the_same() {
    let node = Node::start(LocalConfig::default());
    let mut client = Local::connect(&node.path);
    let put = client.begin(&Request::Put(Put::new(b"held", Some(100_000))), &[7; 65_536], false);
    while client.credit_of(put) < 34_464 {
        assert!(client.take());
    }
    client.data(put, &[7; 34_464], true);
    let at_the_gate = || (node.tier.commits.load(Ordering::SeqCst) == 1).then_some(());
    assert!(wait_for(SOON, at_the_gate).is_some());
    drop(client);
    // The connection is gone for the node too before the commit goes on.
    let mut other = Local::connect(&node.path);
    other.get(b"held").expect(Status::NotFound);
    std::thread::sleep(Duration::from_millis(200));
    node.tier.open.send_replace(true);
    let written = wait_for(SOON, || (other.get(b"held").status == Status::Ok).then_some(()));
    assert!(written.is_some());
    let key = Key::new(&b"held"[..]).unwrap();
    let Found::Value(value) = node.runtime.block_on(node.engine.get(&key)) else { panic!("it is there") };
    assert_eq!(value.meta.size, 100_000);
}
