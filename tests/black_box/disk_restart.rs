//! A node that stops, or is killed, and starts again on the same directory: what was there is there, as it was.

use std::process::Command;
use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::node::{command_under, wait_for};
use elcache_tests::random::Random;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Answer, Call, Connection, Node, report};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Around the borders of records, extents, chunks and buffers.
const SIZES: [usize; 15] = [
    0,
    1,
    KIB,
    32 * KIB - 200,
    32 * KIB - 1,
    32 * KIB,
    32 * KIB + 1,
    64 * KIB,
    100 * KIB,
    MIB,
    4 * MIB - 1,
    4 * MIB,
    4 * MIB + 1,
    9 * MIB + 7,
    50 * MIB,
];
const KEPT: [(&str, &str); 6] = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Encoding", "br"),
    ("Content-Disposition", "attachment; filename=\"a b.html\""),
    ("Cache-Control", "public, max-age=1"),
    ("X-ElCache-Meta-Author", "Ada"),
    ("X-ElCache-Meta-Empty", ""),
];

type End = fn(Node);

fn etag_of(value: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(value).to_hex())
}

fn content(size: usize) -> Content {
    Content::new(size as u64)
}

/// The PUT of the value of this size, with everything that is kept.
fn full(size: usize) -> Call {
    let call = Call::put(format!("/cache/full/{size}"), content(size).bytes(size))
        .with("X-ElCache-Flags", (size ^ 0xbeef).to_string())
        .with("X-ElCache-TTL", "1000")
        .with("X-ElCache-Operation-Id", format!("write-of-{size}"));
    KEPT.iter().fold(call, |call, (name, value)| call.with(name, value))
}

fn fill(node: &Node) {
    let mut connection = node.connect();
    for size in SIZES {
        connection.call(&full(size)).expect(201);
        connection.call(&Call::put(format!("/cache/bare/{size}"), content(size).bytes(size))).expect(201);
        connection.call(&Call::put(format!("/cache/gone/{size}"), content(size).bytes(size))).expect(201);
        connection
            .call(&Call::put(format!("/cache/twice/{size}"), content(size + 1).bytes(size)))
            .expect(201);
    }
    for size in SIZES {
        connection.call(&Call::delete(format!("/cache/gone/{size}"))).expect(204);
        connection.call(&Call::put(format!("/cache/twice/{size}"), content(size).bytes(size))).expect(204);
    }
    connection.call(&Call::put("/cache/short", "x").with("X-ElCache-TTL", "3")).expect(201);
}

#[track_caller]
fn is_whole(answer: &Answer, size: usize, hit: &str) {
    assert!(
        content(size).is(0, &answer.body) && answer.body.len() == size,
        "{size}: {} bytes",
        answer.body.len()
    );
    assert_eq!(answer.etag(), etag_of(&content(size).bytes(size)), "{size}");
    assert_eq!(answer.header("X-ElCache-Hit"), Some(hit), "{size}");
    assert_eq!(answer.header("X-ElCache-Size"), Some(&*size.to_string()));
}

#[track_caller]
fn has_what_was_kept(answer: &Answer, size: usize) {
    for (name, value) in KEPT {
        assert_eq!(answer.header(name), Some(value), "{size}: {name}");
    }
    assert_eq!(answer.header("X-ElCache-Flags"), Some(&*(size ^ 0xbeef).to_string()));
    let left: u64 = answer.header("X-ElCache-TTL").and_then(|left| left.parse().ok()).expect("a TTL");
    assert!((800..1000).contains(&left), "{size}: {left} s are left of 1000");
}

fn check_full(connection: &mut Connection, size: usize) {
    let target = format!("/cache/full/{size}");
    let head = connection.call(&Call::head(&target)).expect(200);
    has_what_was_kept(&head, size);
    assert_eq!(head.header("Content-Length"), Some(&*size.to_string()));
    if size > 3 * KIB {
        let range = format!("bytes={}-{}", size / 3, size / 3 + 2 * KIB);
        let part = connection.call(&Call::get(&target).with("Range", range)).expect(206);
        assert!(content(size).is((size / 3) as u64, &part.body) && part.body.len() == 2 * KIB + 1, "{size}");
        has_what_was_kept(&part, size);
    }
}

fn check(node: &Node) {
    let mut connection = node.connect();
    for size in SIZES {
        for kind in ["bare", "twice"] {
            let get = Call::get(format!("/cache/{kind}/{size}"));
            is_whole(&connection.call(&get).expect(200), size, "disk");
            is_whole(&connection.call(&get).expect(200), size, "memory");
        }
        check_full(&mut connection, size);
        let whole = connection.call(&Call::get(format!("/cache/full/{size}"))).expect(200);
        assert!(content(size).is(0, &whole.body) && whole.body.len() == size);
        has_what_was_kept(&whole, size);
        let tag = whole.etag().to_owned();
        let get = Call::get(format!("/cache/full/{size}")).with("If-None-Match", &tag);
        connection.call(&get).expect(304);
        connection.call(&Call::get(format!("/cache/gone/{size}"))).expect(404);
        // A server that need not read the body may close the connection.
        let again = node.call(&full(size)).expect(201);
        assert_eq!(again.etag(), tag, "a retry hears what the first attempt heard");
    }
    let over = wait_for(Duration::from_secs(6), || (node.head("/cache/short").status == 404).then_some(()));
    assert!(over.is_some(), "a value outlives its TTL");
}

/// What the log calls the node.
fn name(node: &Node) -> String {
    let log = node.log();
    let line = log.lines().find(|line| line.contains("listening")).expect("such a line");
    let at = line.find("node=").expect("the node's name") + 5;
    line[at..].split_whitespace().next().expect("a name").to_owned()
}

/// Fills a node, ends it, and checks what the next one on its directory has. Twice, so that what was recovered is recovered.
fn warm_restart(home: &Home, end: End) {
    let node = home.node();
    let known_as = name(&node);
    fill(&node);
    end(node);
    let node = home.node();
    node.get("/cache/gone/1").expect(404);
    assert_eq!(name(&node), known_as, "the node's name is kept");
    end(node);
    let node = home.node();
    check(&node);
    node.assert_healthy();
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"damaged\"}"), Some(0.0));
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"io\"}"), Some(0.0));
    assert_eq!(name(&node), known_as);
}

fn home() -> Home {
    Home::new("256", "2G")
}

#[test]
fn a_node_that_is_stopped_starts_warm() {
    warm_restart(&home(), Node::stop);
}

#[test]
fn a_node_that_is_killed_starts_warm() {
    warm_restart(&home(), Node::kill);
}

#[test]
fn a_node_that_survives_a_loss_of_power_survives_kill_9() {
    warm_restart(&home().with("ELCACHE__DISK__DURABILITY", "power"), Node::kill);
}

#[test]
fn a_node_on_threads_starts_warm() {
    let home = home().with("ELCACHE__DISK__IO_ENGINE", "threads");
    warm_restart(&home, Node::kill);
    assert_eq!(home.node().metric("elcache_io_engine_info{engine=\"threads\"}"), Some(1.0));
}

#[test]
fn a_node_on_io_uring_starts_warm() {
    let home = home().with("ELCACHE__DISK__IO_ENGINE", "io_uring");
    if engine_of(&Home::new("64", "1G")) != "io_uring" {
        report("skipped: this machine forbids io_uring");
        return;
    }
    warm_restart(&home, Node::kill);
    assert_eq!(home.node().metric("elcache_io_engine_info{engine=\"io_uring\"}"), Some(1.0));
}

/// The engine that is chosen where nothing is said.
fn engine_of(home: &Home) -> &'static str {
    let node = home.node();
    let engines = ["io_uring", "threads"];
    let runs =
        |engine: &&str| node.metric(&format!("elcache_io_engine_info{{engine=\"{engine}\"}}")) == Some(1.0);
    engines.into_iter().find(runs).expect("an engine runs")
}

/// Compiles the launcher that forbids io_uring to what it starts.
fn launcher(scratch: &Scratch) -> String {
    let source = scratch.file("forbid_io_uring.c", include_str!("forbid_io_uring.c"));
    let program = scratch.path().join("forbid-io-uring").to_str().expect("a path of text").to_owned();
    let status = Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o", &program, &source]).status();
    assert!(status.expect("a C compiler").success());
    program
}

#[test]
fn where_io_uring_is_forbidden_threads_serve_and_the_log_says_so() {
    let scratch = Scratch::new();
    let home = home().under(&launcher(&scratch));
    warm_restart(&home, Node::stop);
    let node = home.node();
    assert!(node.log().contains("threads serve instead"), "{}", node.log());
    assert_eq!(node.metric("elcache_io_engine_info{engine=\"threads\"}"), Some(1.0));
    assert_eq!(node.metric("elcache_io_engine_info{engine=\"io_uring\"}"), None);
}

#[test]
fn io_uring_that_was_asked_for_and_is_forbidden_is_one_line_and_exit_1() {
    let scratch = Scratch::new();
    let (launcher, home) = (launcher(&scratch), home());
    let envs = [("ELCACHE__DISK__IO_ENGINE", "io_uring"), ("ELCACHE__NETWORK__HTTP_PORT", "0")];
    let mut command = command_under(&[&launcher], &home.args(), &envs);
    let output = command.output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("disk.io_engine") && stderr.contains("not permitted"), "{stderr}");
}

#[test]
fn what_may_not_be_on_disk_never_is() {
    let home = home();
    let node = home.node();
    let mut connection = node.connect();
    let before = home.bytes();
    for size in SIZES {
        let no_disk = |kind: &str| {
            let call = Call::put(format!("/cache/{kind}/{size}"), content(size).bytes(size));
            call.with("X-ElCache-No-Disk", "true")
        };
        connection.call(&no_disk("new")).expect(201);
        is_whole(&connection.call(&Call::get(format!("/cache/new/{size}"))).expect(200), size, "memory");
    }
    assert!(home.bytes() < before + 64 * KIB as u64, "{} bytes, {before} before", home.bytes());
    node.kill();
    let node = home.node();
    SIZES.iter().for_each(|size| assert_eq!(node.get(&format!("/cache/new/{size}")).status, 404, "{size}"));
}

#[test]
fn what_may_not_be_on_disk_does_not_go_there_when_memory_drops_it() {
    let home = Home::new("16", "1G");
    let node = home.node();
    let mut connection = node.connect();
    for number in 0..100 {
        let call = Call::put(format!("/cache/{number}"), Content::new(number).bytes(400 * KIB));
        connection.call(&call.with("X-ElCache-No-Disk", "true")).expect(201);
    }
    let gone = (0..100).filter(|number| node.head(&format!("/cache/{number}")).status == 404).count();
    assert!(gone > 50, "{gone} of 100 values have left a memory of 16 MiB");
    assert_eq!(node.metric("elcache_cache_entries{tier=\"disk\"}"), Some(0.0));
    node.kill();
    let node = home.node();
    (0..100).for_each(|number| _ = node.get(&format!("/cache/{number}")).expect(404));
}

#[test]
fn a_value_that_one_without_disk_replaced_does_not_return() {
    let home = home();
    let node = home.node();
    let mut connection = node.connect();
    for size in SIZES {
        let target = format!("/cache/{size}");
        connection.call(&Call::put(&target, content(size + 1).bytes(size))).expect(201);
        let call = Call::put(&target, content(size).bytes(size)).with("X-ElCache-No-Disk", "1");
        connection.call(&call).expect(204);
        is_whole(&connection.call(&Call::get(&target)).expect(200), size, "memory");
    }
    node.kill();
    let node = home.node();
    SIZES.iter().for_each(|size| assert_eq!(node.get(&format!("/cache/{size}")).status, 404, "{size}"));
}

#[test]
fn what_may_not_be_in_memory_is_read_from_disk_each_time() {
    let home = home();
    let mut node = home.node();
    for round in 0..2 {
        let mut connection = node.connect();
        for size in SIZES {
            let target = format!("/cache/{size}");
            if round == 0 {
                // An older copy in memory has to go.
                connection.call(&Call::put(&target, "older")).expect(201);
                connection.call(&Call::get(&target)).expect(200);
                let call = Call::put(&target, content(size).bytes(size)).with("X-ElCache-No-Memory", "true");
                connection.call(&call).expect(204);
            }
            for _ in 0..3 {
                is_whole(&connection.call(&Call::get(&target)).expect(200), size, "disk");
            }
        }
        node.kill();
        node = home.node();
    }
}

#[test]
fn a_value_that_may_be_nowhere_is_refused() {
    let home = home();
    let node = home.node();
    node.put("/cache/a", "old");
    for size in [0, 1, 100 * KIB, 5 * MIB] {
        let call = Call::put("/cache/a", content(size).bytes(size))
            .with("X-ElCache-No-Disk", "true")
            .with("X-ElCache-No-Memory", "true");
        node.call(&call).expect(507);
    }
    assert_eq!(node.get("/cache/a").expect(200).body, b"old");
}

#[test]
fn memory_and_disk_agree_on_who_was_last() {
    let home = home();
    let node = home.node();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let node = &node;
            scope.spawn(move || {
                let (mut connection, mut random) = (node.connect(), Random::new(thread));
                for number in 0..150 {
                    let target = format!("/cache/{}", random.below(6));
                    let most = *random.pick(&[20, 20, 20, 5000, 40 * KIB, 40 * KIB, 5 * MIB]);
                    let size = if number % 8 == 0 { most } else { most.min(50 * KIB) };
                    let call = Call::put(target, Content::of_write(thread, number).bytes(size));
                    let answer = match random.below(12) {
                        0 => connection.call(&call.with("X-ElCache-No-Memory", "1")),
                        _ => connection.call(&call),
                    };
                    assert!(matches!(answer.status, 201 | 204), "{answer:?}");
                }
            });
        }
    });
    let tags = |node: &Node| -> Vec<String> {
        (0..6).map(|key| node.get(&format!("/cache/{key}")).expect(200).etag().to_owned()).collect()
    };
    let before = tags(&node);
    node.kill();
    assert_eq!(tags(&home.node()), before);
}
