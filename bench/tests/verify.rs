//! The generator against a toy server: good answers count, and whatever is wrong with one ends the run and is named.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use elcache_bench::load::{self, Outcome, Plan};
use elcache_bench::protocol::{Problem, Protocol};
use elcache_bench::workload::Workload;
use elcache_bench::{Error, store};

/// What the toy does wrong with its reads.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    WrongByte(usize),
    ShortBody,
    ShortLength,
    WrongStatus,
    WrongRange,
    /// Keeps the first content of a value for ever.
    Stale,
}

type Values = Arc<Mutex<HashMap<String, Vec<u8>>>>;

fn toy(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let values = Values::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let values = Arc::clone(&values);
            thread::spawn(move || serve(stream.unwrap(), &values, fault));
        }
    });
    address
}

fn serve(mut stream: TcpStream, values: &Values, fault: Fault) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let field = |name: &str| head.iter().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
        let key = head[0].split(' ').nth(1)?.to_owned();
        if let Some(length) = field("Content-Length: ") {
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).ok()?;
            let mut values = values.lock().unwrap();
            if fault != Fault::Stale || !values.contains_key(&key) {
                values.insert(key, body);
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
        } else {
            let values = values.lock().unwrap();
            answer(&mut stream, values.get(&key)?, field("Range: bytes="), fault)?;
        }
    }
}

fn answer(stream: &mut TcpStream, value: &[u8], range: Option<String>, fault: Fault) -> Option<()> {
    let total = value.len();
    let (mut status, mut extra, mut body) = ("200 OK", String::new(), value.to_vec());
    if let Some((from, to)) = range.as_deref().and_then(|range| range.split_once('-')) {
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        let shown = if fault == Fault::WrongRange { from + 1 } else { from };
        status = "206 Partial Content";
        extra = format!("Content-Range: bytes {shown}-{to}/{total}\r\n");
        body = value[from..=to].to_vec();
    }
    let mut length = body.len();
    match fault {
        Fault::WrongByte(at) => body[at] ^= 1,
        Fault::ShortBody => body.truncate(length - 1),
        Fault::ShortLength => {
            length -= 1;
            body.truncate(length);
        }
        Fault::WrongStatus => status = "503 Service Unavailable",
        Fault::None | Fault::WrongRange | Fault::Stale => {}
    }
    let head = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {length}\r\n\r\n");
    // In two pieces, so that a head that arrives alone is part of the test.
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()?;
    if fault == Fault::ShortBody { None } else { Some(()) }
}

fn run(fault: Fault, workload: &str, verify: bool) -> Result<Outcome, Error> {
    let mut workload: Workload = workload.parse().unwrap();
    workload.value_size = workload.value_size.min(1 << 20);
    workload.keys = workload.keys.min(4);
    let address = toy(fault);
    let interrupted = AtomicBool::new(false);
    store::fill(address, Protocol::Http, &workload, &interrupted)?;
    let plan = Plan {
        address,
        protocol: Protocol::Http,
        workload,
        connections: 3,
        warm_up: Duration::from_millis(20),
        window: Duration::from_millis(200),
        verify,
        seed: 1,
        interrupted: &interrupted,
    };
    load::run(&plan, &mut || Duration::ZERO)
}

fn problem(fault: Fault, workload: &str, verify: bool) -> Problem {
    match run(fault, workload, verify) {
        Err(Error::Answer { problem, .. }) => problem,
        Err(other) => panic!("{workload}: {other}"),
        Ok(outcome) => panic!("{workload}: {} answers and no problem", outcome.requests),
    }
}

#[test]
fn good_answers_are_counted_with_their_bytes() {
    for workload in ["get-1k", "get-1m", "range-64k", "put-1k", "put-1m"] {
        for verify in [false, true] {
            let outcome = run(Fault::None, workload, verify).unwrap();
            let size = workload.parse::<Workload>().unwrap().size;
            assert!(outcome.requests > 0, "{workload}");
            assert_eq!(outcome.bytes, outcome.requests * size, "{workload}");
            assert_eq!(outcome.latencies.len(), outcome.requests, "{workload}");
        }
    }
}

#[test]
fn verification_catches_a_wrong_byte_wherever_it_is() {
    for (workload, at) in
        [("get-1k", 0), ("get-1k", 1023), ("get-1m", 777_777), ("range-64k", 65_535), ("put-64k", 9)]
    {
        let expected = Problem::Byte { offset: at as u64 };
        assert_eq!(problem(Fault::WrongByte(at), workload, true), expected, "{workload}");
    }
}

#[test]
fn verification_catches_a_value_that_was_not_replaced() {
    assert!(matches!(problem(Fault::Stale, "put-1k", true), Problem::Byte { .. }));
}

#[test]
fn a_short_body_a_wrong_status_a_wrong_length_and_a_wrong_range_are_caught_with_and_without_verification() {
    for verify in [false, true] {
        assert_eq!(problem(Fault::WrongStatus, "get-1k", verify), Problem::Status("503".into()));
        assert_eq!(
            problem(Fault::ShortLength, "get-1k", verify),
            Problem::Length { got: 1023, expected: 1024 }
        );
        assert_eq!(problem(Fault::ShortBody, "get-64k", verify), Problem::Closed { received: 65_535 });
        assert!(matches!(problem(Fault::WrongRange, "range-64k", verify), Problem::Range(_)));
    }
}

#[test]
fn reading_every_value_back_finds_the_one_that_is_wrong() {
    let workload: Workload = "get-100".parse().unwrap();
    let few = Workload { keys: 3, ..workload };
    let interrupted = AtomicBool::new(false);
    for (fault, good) in [(Fault::None, true), (Fault::WrongByte(99), false)] {
        let address = toy(fault);
        store::fill(address, Protocol::Http, &few, &interrupted).unwrap();
        let checked = store::check(address, Protocol::Http, &few, &interrupted);
        assert_eq!(checked.is_ok(), good);
    }
}

#[test]
fn a_run_ends_at_once_when_the_user_wants_it() {
    let address = toy(Fault::None);
    let interrupted = AtomicBool::new(true);
    let workload: Workload = "get-1k".parse().unwrap();
    assert!(matches!(store::fill(address, Protocol::Http, &workload, &interrupted), Err(Error::Interrupted)));
}
