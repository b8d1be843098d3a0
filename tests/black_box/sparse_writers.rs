//! Values that many clients put together at once, while the node is killed; and values far larger than the node.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::random::{Random, seed};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Answer, Call, Connection, report};

const MIB: u64 = 1 << 20;
const WRITERS: usize = 16;
/// How much of its neighbours a range writes again, at most.
const OVERLAP: u64 = 256 << 10;
/// A writer that cannot get through for so long gives up.
const PATIENCE: Duration = Duration::from_secs(120);

fn patch(key: &str, id: &str, from: u64, size: u64, bytes: &[u8]) -> Call {
    let range = format!("bytes {from}-{}/{size}", from + bytes.len() as u64 - 1);
    Call::new("PATCH", format!("/sparse/{key}"))
        .with("Content-Range", range)
        .with("X-ElCache-Upload-Id", id)
        .body(bytes)
}

fn open(connection: &mut Connection, key: &str, size: u64) -> String {
    let open = Call::new("POST", format!("/sparse/{key}")).with("X-ElCache-Size", size.to_string());
    let opened = connection.call(&open).expect(201);
    opened.header("x-elcache-upload-id").expect("an id").to_owned()
}

fn status(connection: &mut Connection, key: &str) -> serde_json::Value {
    let status = connection.call(&Call::get(format!("/sparse/{key}"))).expect(200);
    serde_json::from_str(status.text()).expect("JSON")
}

/// The missing ranges of a status.
fn missing(status: &serde_json::Value) -> Vec<(u64, u64)> {
    let range = |range: &serde_json::Value| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
    status["missing"].as_array().expect("a list").iter().map(range).collect()
}

/// Ranges of a value in random order, cut anywhere, each with some of its neighbours.
fn ranges(size: u64, mean: u64, random: &mut Random) -> Vec<(u64, u64)> {
    let mut cuts: Vec<u64> = (0..size / mean).map(|_| random.below(size)).chain([0, size]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut ranges: Vec<_> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
    for range in &mut ranges {
        let (before, behind) = (random.below(OVERLAP), random.below(OVERLAP));
        *range = (range.0.saturating_sub(before), (range.1 + behind).min(size));
    }
    for at in (1..ranges.len()).rev() {
        ranges.swap(at, random.below(at as u64 + 1) as usize);
    }
    ranges
}

/// Sixteen writers, a `kill -9` after each of these parts of the ranges; the tag that the value gets.
fn written_through_kills(home: &Home, size: u64, kills: &[u64], seed: u64) -> (Content, String) {
    let content = Content::new(seed);
    let mut random = Random::new(seed);
    let ranges = ranges(size, MIB, &mut random);
    report(format_args!("{} ranges of {size} bytes, ELCACHE_TEST_SEED={seed} repeats it", ranges.len()));
    let node = home.node();
    node.wait_healthy();
    let id = open(&mut node.connect(), "model", size);
    let address = Mutex::new(node.address());
    let mut killed = Some(node);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let acknowledged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = None;
                    while let Some(&(from, to)) = ranges.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let mut bytes = vec![0; (to - from) as usize];
                        content.fill(from, &mut bytes);
                        insist(&address, &mut connection, &patch("model", &id, from, size, &bytes))
                            .expect(202);
                        acknowledged.lock().unwrap().push((from, to));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for kill in kills {
            while done.load(Ordering::Relaxed) * 100 < ranges.len() as u64 * kill {
                assert!(!writers.iter().any(|writer| writer.is_finished()), "a writer has ended early");
                std::thread::sleep(Duration::from_millis(5));
            }
            let known = acknowledged.lock().unwrap().clone();
            killed.take().expect("it runs").kill();
            let node = killed.insert(home.node());
            *address.lock().unwrap() = node.address();
            node.wait_healthy();
            let status = status(&mut node.connect(), "model");
            for (from, to) in missing(&status) {
                let lost = known.iter().find(|range| range.0 < to && from < range.1);
                assert_eq!(lost, None, "{from}..{to} is missing and was acknowledged");
            }
            report(format_args!("killed at {kill} %, restarted with {} %", status["completion_percent"]));
        }
    });
    let node = killed.expect("it runs");
    let status = status(&mut node.connect(), "model");
    assert_eq!((status["complete"].as_bool(), missing(&status)), (Some(true), Vec::new()));
    let began = std::time::Instant::now();
    let finalize = Call::new("POST", "/sparse/model/finalize").with("X-ElCache-Upload-Id", &id);
    let answer = node.call(&finalize).expect(201);
    report(format_args!("finalized in {:?}", began.elapsed()));
    let etag = answer.etag().to_owned();
    let mut connection = node.connect();
    connection.patience(PATIENCE);
    connection.send(Call::get("/cache/model").bytes());
    let mut right = true;
    let got = connection.try_answer_into(false, |offset, bytes| right &= content.is(offset, bytes));
    assert_eq!(got.expect("all of it").expect(200).header("content-length"), Some(&*size.to_string()));
    assert!(right, "a byte is wrong");
    node.stop();
    (content, etag)
}

/// Sends a request until it is answered, to whatever node there is.
fn insist(address: &Mutex<SocketAddr>, connection: &mut Option<Connection>, call: &Call) -> Answer {
    let began = std::time::Instant::now();
    loop {
        if connection.is_none() {
            *connection = Connection::open(*address.lock().unwrap()).ok();
        }
        match connection.as_mut().map(|connection| connection.try_call(call)) {
            Some(Ok(answer)) if answer.status != 503 => return answer,
            Some(Ok(_)) => std::thread::sleep(Duration::from_millis(50)),
            Some(Err(_)) | None => {
                *connection = None;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        assert!(began.elapsed() < PATIENCE, "nobody answers");
    }
}

#[test]
fn sixteen_writers_and_a_kill_make_the_value_that_was_meant() {
    let size = 96 * MIB + 4321;
    let home = Home::new("128", "1");
    let (content, etag) = written_through_kills(&home, size, &[30, 70], seed());
    let mut model = blake3::Hasher::new();
    let mut buffer = vec![0; MIB as usize];
    for offset in (0..size).step_by(buffer.len()) {
        let len = (size - offset).min(MIB) as usize;
        content.fill(offset, &mut buffer[..len]);
        model.update(&buffer[..len]);
    }
    assert_eq!(etag, format!("\"{}\"", model.finalize().to_hex()));
}

/// The model is a file, and `b3sum` says what its hash is.
#[test]
fn soak_sixteen_writers_of_three_gibibytes_and_a_kill() {
    let size = 3 << 30;
    let home = Home::new("512", "10");
    let (content, etag) = written_through_kills(&home, size, &[50], seed());
    let scratch = Scratch::new();
    let path = scratch.path().join("model");
    let mut file = std::fs::File::create(&path).expect("a file");
    let mut buffer = vec![0; MIB as usize];
    for offset in (0..size).step_by(buffer.len()) {
        content.fill(offset, &mut buffer);
        std::io::Write::write_all(&mut file, &buffer).expect("written");
    }
    drop(file);
    let b3sum = Command::new("b3sum").arg("--no-names").arg(&path).output();
    let b3sum = b3sum.expect("b3sum is installed (apt-get install b3sum)");
    let sum = String::from_utf8(b3sum.stdout).expect("text");
    assert_eq!(etag, format!("\"{}\"", sum.trim()));
}

/// 20 TB, of which a hundred ranges are written: memory and disk grow by these alone.
#[test]
fn an_upload_of_twenty_terabytes_takes_what_is_written() {
    let size: u64 = 20 << 40;
    // Room is taken on the disk as it is written, so that it can be counted.
    let home = Home::new("256", "4").with("ELCACHE__DISK__USE_FALLOCATE", "false");
    let node = home.node();
    node.wait_healthy();
    let mut random = Random::new(20);
    let content = Content::new(20);
    let mut ranges: Vec<(u64, u64)> =
        (0..100).map(|_| (random.below(size - MIB), 1 + random.below(200_000))).collect();
    ranges.push((size - 1, 1));
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "they do not touch");
    let mut connection = node.connect();
    // A node that has answered a request and written a value is what it grows from.
    connection.call(&Call::put("/cache/warm", vec![1; 100_000])).expect(201);
    let (resident, occupied) = (node.rss_bytes(), home.bytes());
    let began = std::time::Instant::now();
    let id = open(&mut connection, "huge", size);
    let opening = began.elapsed();
    for (from, len) in &ranges {
        let mut bytes = vec![0; *len as usize];
        content.fill(*from, &mut bytes);
        let answer = connection.call(&patch("huge", &id, *from, size, &bytes)).expect(202);
        assert_eq!(answer.header("x-elcache-completion"), Some("0%"));
    }
    for (from, len) in &ranges {
        let range = format!("bytes={from}-{}", from + len - 1);
        let got = connection.call(&Call::get("/sparse/huge/data").with("Range", range)).expect(206);
        assert!(got.body.len() as u64 == *len && content.is(*from, &got.body));
        let behind = format!("bytes={from}-{}", from + len);
        let call = Call::get("/sparse/huge/data").with("Range", behind);
        connection.call(&call).expect(if from + len == size { 206 } else { 404 });
    }
    let written: u64 = ranges.iter().map(|(_, len)| len).sum();
    let mut gaps = vec![(0, ranges[0].0)];
    gaps.extend(ranges.windows(2).map(|pair| (pair[0].0 + pair[0].1, pair[1].0)));
    let status = status(&mut connection, "huge");
    assert_eq!(missing(&status), gaps);
    assert_eq!(status["total_size"].as_u64(), Some(size));
    let grown = node.peak_rss_bytes().saturating_sub(resident);
    let more = home.bytes() - occupied;
    report(format_args!(
        "opened in {opening:?}; {written} bytes written, {grown} more resident at the most, {more} more on the disk"
    ));
    assert!(grown < 32 * MIB, "{grown}");
    // Each range has a head, and begins and ends within a block.
    assert!(more < written + ranges.len() as u64 * (16 << 10) + MIB, "{more}");
    connection.call(&Call::delete("/sparse/huge")).expect(204);
    connection.call(&Call::get("/sparse/huge")).expect(404);
    node.stop();
}
