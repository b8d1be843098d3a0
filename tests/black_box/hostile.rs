//! Hostile clients: requests mutated at random, from a seed, while a well-behaved client checks every answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use elcache_tests::call::chunk;
use elcache_tests::content::Content;
use elcache_tests::random::Random;
use elcache_tests::{Broken, Call, Node, report};

/// Timeouts that end a connection whose request never does.
const ENVS: [(&str, &str); 4] = [
    ("ELCACHE__LIMITS__HEADER_TIMEOUT", "1s"),
    ("ELCACHE__LIMITS__BODY_STALL_TIMEOUT", "1s"),
    ("ELCACHE__LIMITS__IDLE_TIMEOUT", "2s"),
    ("ELCACHE__LIMITS__VALUE_SIZE", "8MiB"),
];

/// Texts that parsers trip over.
const WORDS: [&[u8]; 22] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"%",
    b"%00",
    b"%zz",
    b"\xff",
    b"\"",
    b"-1",
    b"18446744073709551616",
    b"99999999999999999999",
    b"0\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"bytes=0-,-1,5-",
    b"HTTP/1.1",
];

fn valid(random: &mut Random) -> Vec<u8> {
    let key = format!("/cache/fuzz-{}", random.below(20));
    let size = random.size(100_000) as usize;
    let body = Content::new(random.number()).bytes(size);
    match random.below(9) {
        0 => Call::get(&key).with("Range", "bytes=0-9,20-29,-5").with("If-Range", "\"x\"").bytes(),
        1 => Call::get(format!("{key}?range=5-10")).with("If-None-Match", "W/\"a\", \"b\"").bytes(),
        2 => Call::put(&key, body).with("X-ElCache-TTL", "5").with("X-ElCache-Meta-A", "b").bytes(),
        3 => [Call::new("PUT", &key).chunked().bytes(), chunk(&body), chunk(b"tail"), chunk(b"")].concat(),
        4 => Call::put(&key, body).with("Expect", "100-continue").with("If-Match", "*").bytes(),
        5 => Call::delete(&key).with("If-Match", "\"a\"").bytes(),
        6 => [Call::head(&key).bytes(), Call::get("/stats").bytes(), Call::new("OPTIONS", &key).bytes()].concat(),
        7 => Call::put(&key, body).with("Content-Digest", "sha-256=:AAAA:").with("X-ElCache-Flags", "1").bytes(),
        _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01\x82\x86\x84\x41\0".to_vec(),
    }
}

/// Changes a request in a few places, mostly within its head.
fn mutate(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let reach = if random.below(4) == 0 { bytes.len() } else { bytes.len().min(300) };
        let at = random.below(reach as u64 + 1) as usize;
        let end = (at + random.below(20) as usize).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = random.number() as u8,
            1 => drop(bytes.drain(at..end)),
            2 => {
                let repeated = bytes[at..end].repeat(random.below(50) as usize);
                bytes.splice(at..at, repeated);
            }
            3 => bytes.truncate(at),
            4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => drop(bytes.splice(at..at, random.pick(&WORDS).iter().copied())),
        }
    }
    bytes
}

/// One hostile connection. What comes back must be answers, or an end.
fn attack(node: &Node, random: &mut Random) -> u64 {
    let mut connection = node.connect();
    connection.patience(Duration::from_secs(15));
    let mut sent = Vec::new();
    for _ in 0..=random.below(3) {
        let request = valid(random);
        sent.extend(mutate(request, random));
    }
    let pieces = if random.below(4) == 0 { 1 + random.below(200) as usize } else { sent.len().max(1) };
    let is_http2 = sent.starts_with(b"PRI");
    for piece in sent.chunks(pieces).take(300) {
        if connection.try_send(piece).is_err() {
            break;
        }
    }
    // Whoever neither leaves nor says that this was all waits for a timeout, which takes its time.
    match random.below(16) {
        0..=2 => return 0,
        3..=14 => connection.finish(),
        _ => {}
    }
    let mut answers = 0;
    loop {
        // Whether an answer is one to a HEAD cannot be known here, so only heads are read.
        match connection.try_head() {
            Ok(answer) => {
                answers += 1;
                assert!((100..600).contains(&answer.status), "{answer:?}");
                assert_ne!(answer.status, 500, "{answer:?} to {:?}", String::from_utf8_lossy(&sent));
                let length = answer.header("Content-Length").and_then(|length| length.parse::<u64>().ok());
                if answer.closes() || sent.windows(4).any(|four| four == b"HEAD") || length.is_none() {
                    return answers;
                }
                if connection.pass(length.unwrap_or(0), |_, _| ()).is_err() {
                    return answers;
                }
            }
            Err(Broken::TimedOut) => panic!("it hangs after {:?}", String::from_utf8_lossy(&sent)),
            Err(Broken::Malformed(_)) if is_http2 => return answers,
            Err(Broken::Malformed(why)) => panic!("{why} to {:?}", String::from_utf8_lossy(&sent)),
            Err(_) => return answers,
        }
    }
}

/// Stores and reads its own keys until told to stop; every answer must be right.
fn behave(node: &Node, stop: &AtomicBool) -> u64 {
    let mut connection = node.connect();
    let mut rounds = 0;
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let content = Content::new(rounds);
        let size = 1 + (rounds * 7919 % 200_000) as usize;
        let target = format!("/cache/good-{}", rounds % 10);
        let start = Instant::now();
        let put = connection.call(&Call::put(&target, content.bytes(size)));
        assert!(matches!(put.status, 201 | 204), "{put:?}");
        let got = connection.call(&Call::get(&target)).expect(200);
        assert!(got.body.len() == size && content.is(0, &got.body), "round {rounds}");
        slowest = slowest.max(start.elapsed());
        rounds += 1;
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    rounds
}

fn fuzz(time: Duration, seed: u64) {
    let node = Node::start(&["-m", "128"], &ENVS);
    let (stop, attacks, answers) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let rounds = std::thread::scope(|scope| {
        let good = scope.spawn(|| behave(&node, &stop));
        let attackers: Vec<_> = (0..8)
            .map(|attacker| {
                let (node, attacks, answers) = (&node, &attacks, &answers);
                scope.spawn(move || {
                    let mut random = Random::new(seed * 1000 + attacker);
                    let deadline = Instant::now() + time;
                    while Instant::now() < deadline {
                        answers.fetch_add(attack(node, &mut random), Ordering::Relaxed);
                        attacks.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = attackers.into_iter().map(|attacker| attacker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        let rounds = good.join().expect("the well-behaved client");
        for outcome in outcomes {
            outcome.expect("an attacker");
        }
        rounds
    });
    report(format_args!("{attacks:?} attacks, {answers:?} answers, {rounds} rounds of good behaviour"));
    assert!(attacks.into_inner() > 500 && rounds > 10);
    node.assert_healthy();
    assert!(node.peak_rss_bytes() < (128 + 64) << 20, "{}", node.peak_rss_bytes());
}

#[test]
fn mutated_requests_neither_crash_nor_hang_nor_disturb() {
    fuzz(Duration::from_secs(20), 1);
}

#[test]
fn soak_mutated_requests_for_ten_minutes() {
    fuzz(Duration::from_secs(600), 2);
}
