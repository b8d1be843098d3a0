//! The Unix socket and clients that do not keep to the protocol: each loses its own connection, and is told why.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use elcache_protocol::request::{Get, Put};
use elcache_protocol::{ClientHello, Header, Kind, PREFACE, Request, Status, flow};
use elcache_tests::local::{farewell, raw};
use elcache_tests::random::Random;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Local, Node};

/// What a client is told that begins with these bytes.
#[track_caller]
fn told(path: &Path, bytes: &[u8]) -> Option<Status> {
    let mut stream = raw(path).expect("a connection");
    // The node may have closed it before all was sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    farewell(&mut stream).map(|(status, _)| status)
}

/// What a client is told that greets, and then sends these bytes.
#[track_caller]
fn told_later(path: &Path, bytes: &[u8]) -> Option<Status> {
    let mut client = Local::connect(path);
    let _ = client.stream().write_all(bytes);
    client.farewell().map(|(status, _)| status)
}

fn hello(version_min: u64, version_max: u64) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    ClientHello { version_min, version_max, features: 0, name: None }.encode(&mut bytes);
    bytes
}

fn header(kind: Kind, fields_len: u32, id: u64, data_len: u64) -> Header {
    Header { kind, flags: 0, fields_len, id, data_len }
}

fn request(id: u64, request: &Request<'_>, data_len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out, id, false, data_len);
    out
}

#[test]
fn who_does_not_greet_is_told_so() {
    let scratch = Scratch::new();
    let (node, mut good) = Node::local(&scratch, &["-m", "64"], &[]);
    let path = scratch.path().join("node.sock");
    let protocol = Some(Status::Protocol);
    assert_eq!(told(&path, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), protocol);
    assert_eq!(told(&path, &[0; 100]), protocol);
    assert_eq!(told(&path, b"ELCACHE\r"), protocol);
    assert_eq!(told(&path, &[&PREFACE[..], &request(1, &Request::Ping, 0)].concat()), protocol);
    assert_eq!(told(&path, &[&PREFACE[..], &[2; 24]].concat()), protocol);
    assert_eq!(told(&path, &[&PREFACE[..], &header(Kind::HELLO, 65_537, 0, 0).encode()].concat()), protocol);
    assert_eq!(told(&path, &[&PREFACE[..], &header(Kind::HELLO, 0, 0, 0).encode()].concat()), protocol);
    assert_eq!(told(&path, &hello(2, 9)), Some(Status::Unsupported));
    assert_eq!(told(&path, &hello(0, 0)), Some(Status::Unsupported));
    // One that leaves in the middle is owed nothing.
    assert_eq!(told(&path, &PREFACE[..5]), None);
    assert_eq!(told(&path, &hello(1, 1)[..40]), None);
    // Byte by byte is as good as at once, and what follows at once is taken as well.
    let mut slow = raw(&path).expect("a connection");
    for byte in [hello(0, 7), request(1, &Request::Ping, 0)].concat() {
        slow.write_all(&[byte]).expect("it is taken");
    }
    let greeting = elcache_tests::local::read_frame(&mut slow).expect("a frame").expect("a frame");
    let answer = elcache_tests::local::read_frame(&mut slow).expect("a frame").expect("a frame");
    assert_eq!((greeting.header.kind, answer.reply().status), (Kind::HELLO, Status::Ok));
    good.call(&Request::Ping).expect(Status::Ok);
    node.assert_healthy();
}

#[test]
fn who_breaks_the_protocol_loses_the_connection() {
    let scratch = Scratch::new();
    let (node, mut good) = Node::local(&scratch, &["-m", "64"], &[]);
    let path = scratch.path().join("node.sock");
    let ping = request(1, &Request::Ping, 0);
    let get = request(1, &Request::Get(Get::new(b"k")), 0);
    let data = |id: u64, len: usize| {
        let mut out = Vec::new();
        flow::encode_data(&mut out, id, false, len as u64);
        out.resize(out.len() + len, 0);
        out
    };
    let mut version = ping.clone();
    version[0] = 2;
    let put = [request(1, &Request::Put(Put::new(b"k", None)), 0), data(1, 40_000)].concat();
    let mut cancel = Vec::new();
    flow::encode_cancel(&mut cancel, 5);
    let framed =
        |fields: &[u8]| [&header(Kind::GET, fields.len() as u32, 1, 0).encode()[..], fields].concat();
    // A CREDIT with data went round the window of its request: two bytes for a value of one byte turned for ever, eight MiB a frame were kept
    // while a value waited for its turn.
    let mut credit = request(1, &Request::Put(Put::new(b"k", Some(1))), 0);
    credit.extend_from_slice(&header(Kind::CREDIT, 12, 1, 2).encode());
    credit.extend_from_slice(&[5, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
    let mut cancelled = ping.clone();
    cancelled.extend_from_slice(&header(Kind::CANCEL, 0, 1, 1).encode());
    let wrong: [(&str, Vec<u8>); 18] = [
        ("a field that is cut off", framed(&[1, 0, 9, 0, b'k'])),
        ("a field twice", framed(&[1, 0, 1, 0, b'k', 1, 0, 1, 0, b'k'])),
        ("another version", version),
        ("fields that are too long", header(Kind::GET, 65_537, 1, 0).encode().to_vec()),
        ("data that are too long", header(Kind::PUT, 0, 1, (8 << 20) + 1).encode().to_vec()),
        ("a frame of the server's", header(Kind::REPLY, 0, 1, 0).encode().to_vec()),
        ("a kind that nobody knows", header(Kind(200), 0, 1, 0).encode().to_vec()),
        ("an id twice", [ping.clone(), ping.clone()].concat()),
        ("the id 0", request(0, &Request::Ping, 0)),
        ("data of nothing", data(1, 3)),
        ("a request that is not there given up", cancel),
        (
            "data of a request that has none",
            [request(1, &Request::Get(Get::new(b"k")), 3), b"abc".to_vec()].concat(),
        ),
        ("more than the window at once", request(1, &Request::Put(Put::new(b"k", None)), 65_537)),
        ("more than the window in two", [put.clone(), data(1, 40_000)].concat()),
        ("credit without a number", [get, header(Kind::CREDIT, 0, 1, 0).encode().to_vec()].concat()),
        ("a second greeting", hello(1, 1)[8..].to_vec()),
        ("credit with data", credit),
        ("data of a request that is given up", cancelled),
    ];
    for (what, bytes) in wrong {
        assert_eq!(told_later(&path, &bytes), Some(Status::Protocol), "{what}");
    }
    good.get(b"k").expect(Status::NotFound);
    node.assert_healthy();
}

#[test]
fn what_is_wrong_within_a_request_is_answered_and_the_connection_goes_on() {
    let scratch = Scratch::new();
    let (_node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let key = [1, 0, 1, 0, b'k'];
    let fields: [(&str, &[u8], Status); 4] = [
        ("no key", &[], Status::Invalid),
        ("a number of one byte", &[2, 0, 1, 0, 7], Status::Invalid),
        ("a tag that has to be known", &[0, 0x80, 0, 0], Status::Unsupported),
        ("a tag that need not be", &[1, 0, 1, 0, b'k', 0xff, 0x7f, 0, 0], Status::NotFound),
    ];
    for (what, fields, status) in fields {
        let id = client.begin(&Request::Ping, b"", false);
        client.wait(id).expect(Status::Ok);
        let (stream, next) = (client.stream(), id + 1);
        let frame = [&header(Kind::GET, fields.len() as u32, next, 0).encode()[..], fields].concat();
        stream.write_all(&frame).expect("it is taken");
        let answer = elcache_tests::local::read_frame(stream).expect("a frame").expect("a frame");
        assert_eq!((answer.header.id, answer.reply().status), (next, status), "{what}");
        client.skip_id();
    }
    // A request of a kind that is to come, with data: they are passed over.
    let id = client.begin(&Request::Ping, b"", false);
    client.wait(id).expect(Status::Ok);
    let unknown = [&header(Kind(40), 0, id + 1, 70_000).encode()[..], &vec![7; 70_000]].concat();
    client.send(&unknown);
    let answer = elcache_tests::local::read_frame(client.stream()).expect("a frame").expect("a frame");
    assert_eq!(answer.reply().status, Status::Unsupported);
    client.skip_id();
    client.call(&Request::Map { region: 0 }).expect(Status::Unsupported);
    // 64 KiB of fields are a request like any other, if they say one thing that counts.
    let mut long = key.to_vec();
    for tag in 100_u16..107 {
        long.extend_from_slice(&tag.to_le_bytes());
        long.extend_from_slice(&9000_u16.to_le_bytes());
        long.resize(long.len() + 9000, 0);
    }
    let id = client.begin(&Request::Ping, b"", false);
    client.wait(id).expect(Status::Ok);
    client.send(&[&header(Kind::GET, long.len() as u32, id + 1, 0).encode()[..], &long].concat());
    let answer = elcache_tests::local::read_frame(client.stream()).expect("a frame").expect("a frame");
    assert_eq!(answer.reply().status, Status::NotFound);
}

#[test]
fn who_takes_too_long_to_greet_is_told_so() {
    let scratch = Scratch::new();
    let (_node, mut good) =
        Node::local(&scratch, &["-m", "64"], &[("ELCACHE__LIMITS__HEADER_TIMEOUT", "1s")]);
    let mut slow = raw(&scratch.path().join("node.sock")).expect("a connection");
    let began = std::time::Instant::now();
    for byte in hello(1, 1) {
        // Each of them is in time, all of them are not.
        if slow.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(farewell(&mut slow).map(|(status, _)| status), Some(Status::Timeout));
    assert!(began.elapsed() < Duration::from_secs(20));
    good.call(&Request::Ping).expect(Status::Ok);
}

#[test]
fn no_bytes_do_harm() {
    let scratch = Scratch::new();
    let (node, mut good) = Node::local(&scratch, &["-m", "64"], &[]);
    let path = scratch.path().join("node.sock");
    let seed = elcache_tests::random::seed();
    let mut random = Random::new(seed);
    good.put(b"k", b"v");
    for _ in 0..300 {
        let mut bytes = Vec::new();
        let mut id = 0;
        for _ in 0..random.below(20) {
            id += random.below(3);
            let kind = *random.pick(&[2_u8, 16, 17, 18, 19, 20, 21, 22, 23, 48, 49, 64, 65, 66, 128, 33]);
            let fields = fields(&mut random);
            let data_len =
                if matches!(kind, 18 | 21 | 64) { random.size(40_000) } else { random.below(50) / 49 };
            let flags = random.below(32) as u16;
            let header = Header { kind: Kind(kind), flags, fields_len: fields.len() as u32, id, data_len };
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&fields);
            bytes.resize(bytes.len() + data_len as usize, 1);
        }
        if random.below(4) == 0 && !bytes.is_empty() {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        let mut client = Local::connect(&path);
        let _ = client.stream().write_all(&bytes);
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        client.farewell();
    }
    assert!(good.get(b"k").status != Status::Internal, "seed {seed}");
    node.assert_healthy();
    drop(good);
    let quiet = elcache_tests::node::wait_for(Duration::from_secs(10), || {
        (node.metric("elcache_connections{transport=\"unix\"}") == Some(0.0)).then_some(())
    });
    assert!(quiet.is_some(), "seed {seed}");
}

/// Fields that are right more often than not.
fn fields(random: &mut Random) -> Vec<u8> {
    let mut out = vec![1, 0, 1, 0, b'k'];
    for _ in 0..random.below(4) {
        let tag = random.below(45) as u16;
        let len = *random.pick(&[8_u16, 8, 8, 32, 3]);
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        let small = random.below(2) == 0;
        out.extend((0..len).map(|at| if small && at > 1 { 0 } else { random.below(256) as u8 }));
    }
    out
}
