//! Values far larger than memory and disk, of which some chunks are there: written by a tool, with all pages of their manifests.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use elcache_tests::binary::built;
use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::latency::Latencies;
use elcache_tests::random::{Random, seed};
use elcache_tests::{Answer, Call, Connection, Node, report};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const CHUNK: u64 = 4 * MIB;
/// The largest value that there may be.
const LARGEST: u64 = 20 << 40;
/// As `limits.first_byte_timeout` has it.
const LIMIT: Duration = Duration::from_secs(15);

/// A value under `/cache/huge`.
struct Huge {
    size: u64,
    content: Content,
    /// The numbers of the chunks that are there.
    here: BTreeSet<u64>,
}

impl Huge {
    /// Writes one into a directory that no node uses.
    fn write(home: &Home, disk_bytes: u64, size: u64, seed: u64, chunks: u64) -> Self {
        let numbers = [disk_bytes, size, seed, chunks].map(|number| number.to_string());
        let [disk_bytes, size_text, seed_text, chunks] = numbers;
        let output = Command::new(built("elcache-big-value"))
            .arg(home.dir())
            .args([&disk_bytes, "huge", &size_text, &seed_text, &chunks])
            .output()
            .expect("the tool starts");
        assert!(output.status.success(), "{output:?}");
        let numbers = String::from_utf8(output.stdout).expect("text");
        let here = numbers.lines().map(|line| line.parse().expect("a number")).collect();
        Self { size, content: Content::new(seed), here }
    }

    fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK)
    }

    /// Whether all of these bytes are there.
    fn has(&self, from: u64, len: u64) -> bool {
        (from / CHUNK..(from + len).div_ceil(CHUNK)).all(|number| self.here.contains(&number))
    }

    /// What is there, in percent, floored.
    fn percent(&self) -> u64 {
        let bytes: u64 = self.here.iter().map(|number| CHUNK.min(self.size - number * CHUNK)).sum();
        bytes * 100 / self.size
    }

    /// Reads these bytes and checks them: there, or the answer that they are not.
    fn read(&self, connection: &mut Connection, from: u64, len: u64) {
        let answer = ranged(connection, from, len);
        if self.has(from, len) {
            let answer = answer.expect(206);
            assert_eq!(
                answer.header("Content-Range"),
                Some(&*format!("bytes {from}-{}/{}", from + len - 1, self.size))
            );
            assert!(answer.body.len() as u64 == len && self.content.is(from, &answer.body), "{from} {len}");
        } else {
            assert_eq!(answer.status, 404, "{from} {len}");
            assert_eq!(answer.header("X-ElCache-Hit"), Some("partial"));
            assert_eq!(answer.header("X-ElCache-Available"), Some(&*format!("{}%", self.percent())));
        }
    }

    /// A range, most often where something is.
    fn random_range(&self, random: &mut Random) -> (u64, u64) {
        let here: Vec<_> = self.here.iter().copied().collect();
        let number = if random.below(4) == 0 { random.below(self.chunks()) } else { *random.pick(&here) };
        let from = (number * CHUNK + random.below(CHUNK)).min(self.size - 1);
        (from, random.size(6 * MIB).min(self.size - from))
    }
}

fn ranged(connection: &mut Connection, from: u64, len: u64) -> Answer {
    connection.call(&Call::get("/cache/huge").with("Range", format!("bytes={from}-{}", from + len - 1)))
}

/// How long it takes until there is an answer, which has this status.
fn timed(node: &Node, call: &Call, status: u16) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = node.call(call).expect(status);
    let took = began.elapsed();
    assert!(took < LIMIT, "{took:?}");
    (answer, took)
}

#[test]
fn of_a_value_of_20_tb_what_is_there_is_read_and_the_rest_is_a_miss() {
    let seed = seed();
    let home = Home::new("64", "2G");
    let huge = Huge::write(&home, 2 * GIB, LARGEST, seed, 24);
    let node = home.node();
    node.wait_healthy();
    let (head, took) = timed(&node, &Call::head("/cache/huge"), 404);
    assert_eq!(head.header("X-ElCache-Available"), Some("0%"));
    report(format_args!("seed {seed}; HEAD of 20 TB, cold: {took:?}"));
    let (_, took) = timed(&node, &Call::get("/cache/huge"), 404);
    report(format_args!("GET: {took:?}"));
    let (_, took) = timed(&node, &Call::get("/cache/huge").with("Range", "bytes=1-"), 404);
    report(format_args!("GET of all but a byte: {took:?}"));
    let mut random = Random::new(seed);
    let mut connection = node.connect();
    for _ in 0..300 {
        let (from, len) = huge.random_range(&mut random);
        huge.read(&mut connection, from, len);
    }
    // Both ends.
    huge.read(&mut connection, 0, 1);
    huge.read(&mut connection, LARGEST - 1, 1);
    huge.read(&mut connection, LARGEST - CHUNK, CHUNK);
    let answer = connection.call(&Call::get("/cache/huge").with("Range", format!("bytes={LARGEST}-")));
    assert_eq!(answer.expect(416).header("Content-Range"), Some(&*format!("bytes */{LARGEST}")));
    let last =
        connection.call(&Call::get(format!("/cache/huge?range={}-{}", LARGEST - 3, u64::MAX))).expect(206);
    assert!(last.body.len() == 3 && huge.content.is(LARGEST - 3, &last.body));
    connection.call(&Call::get(format!("/cache/huge?range={LARGEST}-1"))).expect(416);
    let (first, second) = (format!("0-9,{}-", LARGEST - 9), format!("0-9,{}-{}", 7 * CHUNK, 7 * CHUNK));
    connection.call(&Call::get("/cache/huge").with("Range", format!("bytes={first}"))).expect(206);
    let between = if huge.here.contains(&7) { 206 } else { 404 };
    connection.call(&Call::get("/cache/huge").with("Range", format!("bytes={second}"))).expect(between);
    let peak = node.peak_rss_bytes();
    assert!(peak < 110 * MIB, "{peak} bytes at most, of a node of 64 MiB");
    report(format_args!("RSS at most {} MiB", peak / MIB));
    // It is there as it was after a restart.
    drop(connection);
    node.stop();
    let node = home.node();
    node.wait_healthy();
    let mut connection = node.connect();
    for _ in 0..30 {
        let (from, len) = huge.random_range(&mut random);
        huge.read(&mut connection, from, len);
    }
    node.delete("/cache/huge").expect(204);
    node.get("/cache/huge").expect(404);
}

#[test]
fn how_much_is_there_is_said_to_the_percent() {
    let home = Home::new("64", "2G");
    let size = 512 * MIB + 17;
    let huge = Huge::write(&home, 2 * GIB, size, 3, 70);
    let node = home.node();
    node.wait_healthy();
    let percent = huge.percent();
    assert!((40..70).contains(&percent), "{percent}");
    let mut connection = node.connect();
    (0..huge.chunks()).for_each(|number| huge.read(&mut connection, number * CHUNK, 17));
    let head = node.head("/cache/huge").expect(404);
    assert_eq!(head.header("X-ElCache-Available"), Some(&*format!("{percent}%")));
}

#[test]
fn a_value_of_which_nothing_is_left_disappears_and_may_be_stored_again() {
    for size in [CHUNK + 1, 20 * GIB, 600 * GIB] {
        let home = Home::new("64", "2G");
        Huge::write(&home, 2 * GIB, size, 4, 0);
        let node = home.node();
        node.wait_healthy();
        let put = Call::put("/cache/huge", "new").with("If-None-Match", "*");
        node.call(&put).expect(412);
        let gone = elcache_tests::node::wait_for(LIMIT, || {
            let answer = node.get("/cache/huge").expect(404);
            match answer.header("X-ElCache-Hit") {
                Some("miss") => Some(()),
                Some("partial") => {
                    assert_eq!(answer.header("X-ElCache-Available"), Some("0%"));
                    // Only of what is too large to be counted before the first answer.
                    assert_eq!(size, 600 * GIB);
                    None
                }
                other => panic!("{other:?}"),
            }
        });
        assert!(gone.is_some(), "{size}");
        node.call(&put).expect(201);
        assert_eq!(node.get("/cache/huge").expect(200).text(), "new");
        // Also for a restart.
        node.delete("/cache/huge").expect(204);
        node.stop();
        home.node().get("/cache/huge").expect(404);
    }
}

/// 64 KiB of a value of 20 TB, beside 64 KiB of one of 100 MiB: when both are looked at for the first time, while they come to memory, and from
/// there.
#[test]
fn soak_a_range_of_20_tb_takes_no_longer_than_one_of_100_mib() {
    let home = Home::new("512", "4G");
    let huge = Huge::write(&home, 4 * GIB, LARGEST, 5, 100);
    let small = Huge { size: 100 * MIB, content: Content::new(6), here: (0..25).collect() };
    {
        let node = home.node();
        node.wait_healthy();
        node.call(&Call::put("/cache/small", small.content.bytes(100 << 20))).expect(201);
        node.stop();
    }
    let node = home.node();
    node.wait_healthy();
    let mut connection = node.connect();
    let mut random = Random::new(7);
    let (huge, small) = (("huge", &huge), ("small", &small));
    compare(&mut connection, &mut random, &[huge, small], 99, "first");
    compare(&mut connection, &mut random, &[huge, small], 2500, "then");
    compare(&mut connection, &mut random, &[huge, small], 2500, "at last");
    compare(&mut connection, &mut random, &[small, huge], 2500, "turned");
}

/// Reads 64 KiB somewhere in 25 chunks of each value in turn, and says how long it took.
fn compare(
    connection: &mut Connection,
    random: &mut Random,
    values: &[(&str, &Huge); 2],
    count: usize,
    what: &str,
) {
    const LEN: u64 = 64 << 10;
    let mut took = [Latencies::default(), Latencies::default()];
    let mut from_memory = [0, 0];
    for _ in 0..count {
        for (place, (key, value)) in values.iter().enumerate() {
            let here: Vec<_> = value.here.iter().copied().take(25).collect();
            let from = random.pick(&here) * CHUNK + random.below(CHUNK - LEN);
            let call = Call::get(format!("/cache/{key}?range={from}-{LEN}"));
            let began = Instant::now();
            let answer = connection.call(&call).expect(206);
            took[place].add(began.elapsed());
            from_memory[place] += u64::from(answer.header("X-ElCache-Hit") == Some("memory"));
            assert!(answer.body.len() as u64 == LEN && value.content.is(from, &answer.body), "{key} {from}");
        }
    }
    for ((key, _), (took, from_memory)) in values.iter().zip(took.iter().zip(from_memory)) {
        report(format_args!("{what}: {key}: {took}, {from_memory} from memory"));
    }
    let [first, second] = took.map(|took| took.quantile(0.5).as_secs_f64());
    report(format_args!("{what}: {} / {} {:.2}", values[0].0, values[1].0, first / second));
}
