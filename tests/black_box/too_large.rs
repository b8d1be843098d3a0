//! Bodies that are larger than what the tiers can hold, or than a value may be: `507` and `413`, of every size, announced or not.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use elcache_tests::client::Client;
use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::load::{Framed, upload};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Call, Connection, Node, report};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const VALUE_MAX: u64 = 20 * TIB;
/// Values that a node has before the one comes that is too large.
const VALUES: u64 = 24;
const MEMORY: u64 = 64 * MIB;
/// What may be on its way through the sockets when a body is refused.
const UNDERWAY: u64 = 64 * MIB;

/// A disk of this size, three quarters of it in use.
struct Filled {
    home: Home,
    node: Node,
    disk: u64,
}

impl Filled {
    fn new(disk: u64, limit: &str) -> Self {
        let home = Home::new("64", &format!("{}M", disk / MIB)).with("ELCACHE__LIMITS__VALUE_SIZE", limit);
        let node = home.node();
        let filled = Self { home, node, disk };
        filled.fill();
        assert_eq!(filled.left(), VALUES);
        filled
    }

    fn size(&self) -> u64 {
        self.disk / 32
    }

    fn fill(&self) {
        for number in 0..VALUES {
            let (head, content) = (Call::new("PUT", format!("/cache/{number}")), Content::new(number));
            let answer = upload(&mut self.node.connect(), head, content, self.size(), Framed::Length);
            let answer = answer.expect("an answer");
            assert!(matches!(answer.status, 201 | 204), "{answer:?}");
        }
    }

    /// How many of the values are there, all of their bytes right.
    fn left(&self) -> u64 {
        let mut connection = self.node.connect();
        let there = (0..VALUES).filter(|&number| {
            connection.send(Call::get(format!("/cache/{number}")).bytes());
            let (mut right, mut length) = (true, 0);
            let answer = connection.try_answer_into(false, |at, bytes| {
                right &= Content::new(number).is(at, bytes);
                length = at + bytes.len() as u64;
            });
            let status = answer.expect("an answer").status;
            assert!(status == 404 || (status == 200 && right && length == self.size()), "{number}: {status}");
            status == 200
        });
        there.count() as u64
    }

    /// Sends a body of no announced length until it is refused; the status, and how much had been sent by then.
    fn send(&self, size: u64) -> (u16, u64) {
        let mut connection = patient(&self.node);
        connection.send(Call::new("PUT", "/cache/0").chunked().bytes());
        let mut socket = connection.stream().try_clone().expect("the socket");
        let (sent, refused) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let content = Content::new(99);
                let mut piece = vec![0; MIB as usize];
                while sent.load(Ordering::Relaxed) < size && !refused.load(Ordering::Relaxed) {
                    content.fill(sent.load(Ordering::Relaxed), &mut piece);
                    if socket.write_all(&elcache_tests::call::chunk(&piece)).is_err() {
                        return;
                    }
                    sent.fetch_add(MIB, Ordering::Relaxed);
                }
                let _ = socket.write_all(b"0\r\n\r\n");
            });
            let answer = connection.try_answer(false);
            refused.store(true, Ordering::Relaxed);
            (answer.expect("an answer").status, sent.load(Ordering::Relaxed))
        })
    }

    /// It stayed within its limits, has nothing of what it refused, and takes as much as before.
    #[track_caller]
    fn assert_as_good_as_new(&self) {
        assert!(self.home.bytes() <= self.disk, "the directory takes {} of {}", self.home.bytes(), self.disk);
        let peak = self.node.peak_rss_bytes();
        assert!(peak < MEMORY + 64 * MIB, "{} MiB resident", peak / MIB);
        self.fill();
        assert_eq!(self.left(), VALUES);
        self.node.assert_healthy();
    }
}

fn patient(node: &Node) -> Connection {
    let mut connection = node.connect();
    connection.patience(Duration::from_secs(120));
    connection
}

/// Announces a body and sends nothing of it; the status.
fn announce(node: &Node, length: u64) -> u16 {
    let mut connection = node.connect();
    connection.send(format!("PUT /cache/0 HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n"));
    let answer = connection.answer();
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{answer:?}");
    answer.status
}

/// A body half as large again as the disk.
fn larger_than_the_tiers(disk: u64) {
    let filled = Filled::new(disk, "20TB");
    let node = &filled.node;
    assert_eq!(announce(node, disk * 3 / 2), 507);
    assert_eq!(announce(node, disk), 507);
    assert_eq!(filled.left(), VALUES, "what is refused at once costs nothing");
    let before = node.metric("elcache_disk_written_bytes_total").expect("it is counted");
    let (status, sent) = filled.send(disk * 3 / 2);
    assert_eq!(status, 507);
    let written = node.metric("elcache_disk_written_bytes_total").expect("it is counted") - before;
    let left = filled.left();
    report(format_args!(
        "disk of {} MiB: refused after {} MiB, of which {} MiB were written; {left} of {VALUES} values are left",
        disk / MIB,
        sent / MIB,
        written as u64 / MIB
    ));
    // Only that it does not end shows that it is too large: by then it has had nearly all that one value may have.
    assert!(sent > disk / 2 && sent < disk + UNDERWAY, "refused after {sent} bytes");
    assert!((written as u64) < disk, "{written} bytes were written");
    filled.assert_as_good_as_new();
}

/// A body that is larger than a value may be, on a disk that could hold it.
fn over_the_limit(disk: u64) {
    let limit = disk / 8;
    let filled = Filled::new(disk, &limit.to_string());
    assert_eq!(announce(&filled.node, limit + 1), 413);
    assert_eq!(announce(&filled.node, disk * 3 / 2), 413, "and larger than the tiers too");
    let (status, sent) = filled.send(limit + 2 * UNDERWAY);
    assert_eq!(status, 413);
    let left = filled.left();
    report(format_args!(
        "limit of {} MiB: refused after {} MiB; {left} of {VALUES} values are left",
        limit / MIB,
        sent / MIB
    ));
    assert!(sent >= limit && sent < limit + UNDERWAY, "refused after {sent} of {limit} bytes");
    // No more has to go than a value of that size may cost.
    assert!((VALUES - left) * filled.size() <= limit + disk / 8, "{left} of {VALUES} are left");
    filled.assert_as_good_as_new();
}

#[test]
fn a_body_larger_than_the_tiers_is_507_whether_its_length_is_known_or_not() {
    larger_than_the_tiers(256 * MIB);
}

#[test]
fn soak_a_body_of_3_gib_for_a_disk_of_2_is_507_whether_its_length_is_known_or_not() {
    larger_than_the_tiers(2 * GIB);
}

#[test]
fn a_body_over_the_limit_of_values_is_413_whether_its_length_is_known_or_not() {
    over_the_limit(256 * MIB);
}

#[test]
fn soak_a_body_over_a_limit_of_values_of_512_mib_is_413_whether_its_length_is_known_or_not() {
    over_the_limit(4 * GIB);
}

#[test]
fn lengths_up_to_the_largest_number_are_refused_before_the_body() {
    let home = Home::new("64", "256M");
    let node = home.node();
    node.put("/cache/0", "old");
    for (length, status) in
        [(VALUE_MAX, 507), (VALUE_MAX + 1, 413), (u64::MAX, 413), (1 << 63, 413), (GIB, 507)]
    {
        assert_eq!(announce(&node, length), status, "{length}");
    }
    assert_eq!(node.get("/cache/0").expect(200).body, b"old");
}

#[test]
fn curl_hears_507_and_413_before_it_sends_3_gib() {
    let home = Home::new("64", "2G");
    let node = home.node();
    let strict = Node::start(&["-m", "64"], &[("ELCACHE__LIMITS__VALUE_SIZE", "1GiB")]);
    let scratch = Scratch::new();
    let file = scratch.file("hole", "");
    let hole = std::fs::File::options().write(true).open(&file).expect("the file");
    hole.set_len(3 * GIB).expect("a hole of 3 GiB");
    for (node, status) in [(&node, "507"), (&strict, "413")] {
        let url = node.url("/cache/hole");
        let args = ["-q", "-sS", "--noproxy", "*", "-T", &file, "-o", "/dev/null"];
        let ended = Client::run("curl", args.iter().chain(&["-w", "%{http_code} %{size_upload}", &url]));
        assert_eq!(ended.expect_success(), format!("{status} 0"));
    }
}
