//! Many uploads at once, and enormous ones: slowed within the memory budget, not refused.

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use elcache_tests::content::Content;
use elcache_tests::load::{Framed, upload};
use elcache_tests::{Call, Node, report};

const MIB: u64 = 1 << 20;
const UPLOADS: u64 = 500;

fn five_hundred_at_once(framed: Framed) {
    let node = Node::start(&["-m", "256"], &[]);
    let size = 4 * MIB;
    let ready = Barrier::new(UPLOADS as usize);
    let failed = Mutex::new(Vec::new());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..UPLOADS {
            let (node, ready, failed) = (&node, &ready, &failed);
            let work = move || {
                let mut connection = node.connect();
                connection.patience(Duration::from_secs(100));
                ready.wait();
                let head = Call::new("PUT", format!("/cache/{number}"));
                let answer = upload(&mut connection, head, Content::new(number), size, framed);
                if !answer.as_ref().is_ok_and(|answer| answer.status == 201) {
                    failed.lock().unwrap().push(format!("{number} after {:?}: {answer:?}", start.elapsed()));
                }
            };
            std::thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).expect("a thread");
        }
    });
    let failed = failed.into_inner().unwrap();
    let peak = node.peak_rss_bytes();
    report(format_args!("{:?}, peak {} MiB", start.elapsed(), peak / MIB));
    assert!(
        failed.is_empty(),
        "{} of {UPLOADS} failed, such as {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    assert!(peak < (256 + 64) * MIB, "{} MiB resident", peak / MIB);
    // What is still there is right.
    let mut connection = node.connect();
    let found = (0..UPLOADS).filter(|&number| {
        let answer = connection.call(&Call::get(format!("/cache/{number}")));
        assert!(answer.status == 404 || Content::new(number).is(0, &answer.body), "{number}");
        answer.status == 200
    });
    assert!(found.count() > 10);
}

#[test]
fn five_hundred_uploads_of_known_length_at_once_all_succeed() {
    five_hundred_at_once(Framed::Length);
}

#[test]
fn five_hundred_chunked_uploads_at_once_all_succeed() {
    five_hundred_at_once(Framed::Chunked);
}

#[test]
fn readers_are_served_while_uploads_wait_for_room() {
    let node = Node::start(&["-m", "64"], &[]);
    node.put("/cache/hot", "hot");
    let mut stuck: Vec<_> = (0..60).map(|_| node.connect()).collect();
    for (number, connection) in stuck.iter_mut().enumerate() {
        let head =
            format!("PUT /cache/stuck-{number} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", 20 * MIB);
        connection.send(head);
        connection.patience(Duration::from_millis(100));
        let _ = connection.try_send(vec![1; 2 << 20]);
    }
    let mut reader = node.connect();
    for _ in 0..200 {
        let start = Instant::now();
        let answer = reader.call(&Call::get("/cache/hot"));
        assert!(matches!(answer.status, 200 | 404), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    node.assert_healthy();
    assert!(node.rss_bytes() < (64 + 64) * MIB);
}

#[test]
fn soak_ten_gib_go_in_and_come_out_within_the_budget() {
    let node = Node::start(&["-m", "12G"], &[]);
    let (size, content) = (10 << 30, Content::new(10));
    for (round, framed) in [Framed::Length, Framed::Chunked].into_iter().enumerate() {
        let mut connection = node.connect();
        connection.patience(Duration::from_secs(100));
        let start = Instant::now();
        let head = Call::new("PUT", format!("/cache/huge-{round}"));
        upload(&mut connection, head, content, size, framed).expect("an answer").expect(201);
        report(format_args!("PUT {framed:?}: {:?}", start.elapsed()));
        let start = Instant::now();
        connection.send(Call::get(format!("/cache/huge-{round}")).bytes());
        let head = connection.try_head().expect("a head").expect(200);
        assert_eq!(head.header("Content-Length"), Some(&*size.to_string()));
        let mut right = true;
        connection.pass(size, |at, bytes| right &= content.is(at, bytes)).expect("all of it");
        assert!(right);
        report(format_args!("GET: {:?}", start.elapsed()));
        let last =
            connection.call(&Call::get(format!("/cache/huge-{round}")).with("Range", "bytes=-7")).expect(206);
        assert!(content.is(size - 7, &last.body));
        node.delete(&format!("/cache/huge-{round}")).expect(204);
    }
    let peak = node.peak_rss_bytes();
    assert!(peak <= (12 << 30) + 64 * MIB, "{} MiB resident", peak / MIB);
}
