//! The Unix socket: what is written there is read over HTTP and the other way round, every request of the frame protocol.

use std::num::NonZeroU64;
use std::time::Duration;

use elcache_protocol::request::{Get, Named, Put, SparseWrite, Stat};
use elcache_protocol::{Request, Status};
use elcache_tests::content::Content;
use elcache_tests::node::wait_for;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Call, Local, Node};

const CHUNK: u64 = 4 << 20;

fn get_range(client: &mut Local, key: &[u8], offset: u64, length: u64) -> elcache_tests::local::Answer {
    client.call(&Request::Get(Get { offset, length: NonZeroU64::new(length), ..Get::new(key) }))
}

#[test]
fn what_one_writes_the_other_reads() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "256"], &[]);
    for (number, size) in
        [0, 1, 16_384, 16_385, 65_536, 65_537, 1 << 20, CHUNK, CHUNK + 1, 20 << 20].into_iter().enumerate()
    {
        let content = Content::new(size);
        let bytes = content.bytes(size as usize);
        let (here, there) = (format!("local/{number}"), format!("http/{number}"));
        let stored = client.put(here.as_bytes(), &bytes);
        assert_eq!(stored.fields.created, Some(true), "{size}");
        let got = node.get(&format!("/cache/{here}")).expect(200);
        assert!(got.body == bytes, "{size}");
        assert_eq!(got.etag(), stored.etag(), "{size}");
        assert_eq!(client.put(here.as_bytes(), &bytes).fields.created, Some(false));

        let put = node.put(&format!("/cache/{there}"), &bytes);
        let got = client.get(there.as_bytes()).expect(Status::Ok);
        assert!(got.data == bytes, "{size}");
        assert_eq!(
            (got.etag().as_str(), got.fields.size, got.fields.length),
            (put.etag(), Some(size), Some(size))
        );
        assert_eq!((got.fields.chunks, got.fields.tier), (Some(size.div_ceil(CHUNK)), Some(1)));
        let known = client.stat(there.as_bytes()).expect(Status::Ok);
        assert_eq!((known.fields.digest, known.fields.length), (got.fields.digest, None));
        assert!(known.data.is_empty());
    }
    let ok = |op| format!("elcache_local_requests_total{{transport=\"unix\",op=\"{op}\",status=\"ok\"}}");
    assert_eq!(["GET", "PUT", "STAT"].map(|op| node.metric(&ok(op))), [Some(10.0), Some(20.0), Some(10.0)]);
    assert_eq!(node.metric("elcache_connections{transport=\"unix\"}"), Some(1.0));
    client.call(&Request::Ping).expect(Status::Ok);
}

#[test]
fn values_of_unknown_length_are_put_together_from_what_comes() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "256"], &[]);
    for size in [0_usize, 5, 65_536, 65_537, 9 << 20] {
        let bytes = Content::new(3).bytes(size);
        client.upload(&Request::Put(Put::new(b"k", None)), &bytes).expect(Status::Ok);
        assert!(node.get("/cache/k").expect(200).body == bytes, "{size}");
    }
    // In frames of a few bytes, with an empty one at the end.
    let id = client.begin(&Request::Put(Put::new(b"k", None)), b"", false);
    b"abcdefghij".chunks(3).for_each(|part| client.data(id, part, false));
    client.data(id, b"", true);
    client.answer(id).expect(Status::Ok);
    assert_eq!(node.get("/cache/k").expect(200).body, b"abcdefghij");
}

#[test]
fn ranges_are_those_of_the_value() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "128"], &[]);
    for size in [100_u64, 10 << 20] {
        let content = Content::new(size);
        node.put("/cache/r", content.bytes(size as usize));
        for (offset, length) in [(0, 1), (1, 0), (7, 50), (size - 1, 1), (size - 1, 99), (size, 0), (size, 5)]
        {
            let wanted = if length == 0 { size - offset } else { length.min(size - offset) };
            let answer = get_range(&mut client, b"r", offset, length).expect(Status::Ok);
            assert!(content.is(offset, &answer.data), "{offset} {length}");
            assert_eq!(
                (answer.data.len() as u64, answer.fields.length),
                (wanted, Some(wanted)),
                "{offset} {length}"
            );
            assert_eq!(answer.fields.size, Some(size));
        }
        for offset in [size + 1, u64::MAX] {
            let answer = get_range(&mut client, b"r", offset, 1).expect(Status::Range);
            assert_eq!((answer.fields.size, answer.data.len()), (Some(size), 0));
        }
        assert_eq!(get_range(&mut client, b"r", 1, u64::MAX).expect(Status::Ok).data.len() as u64, size - 1);
    }
    let over_chunks = get_range(&mut client, b"r", CHUNK - 3, 6).expect(Status::Ok);
    assert!(Content::new(10 << 20).is(CHUNK - 3, &over_chunks.data));
}

#[test]
fn metadata_goes_both_ways() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    for size in [3_usize, 100_000] {
        let put =
            Put { ttl: NonZeroU64::new(3600), user_flags: u32::MAX, ..Put::new(b"m", Some(size as u64)) };
        client.upload(&Request::Put(put), &vec![7; size]).expect(Status::Ok);
        let answer = node.get("/cache/m").expect(200);
        assert_eq!(answer.header("X-ElCache-Flags"), Some("4294967295"));
        let left: u64 = answer.header("X-ElCache-TTL").and_then(|left| left.parse().ok()).expect("a TTL");
        assert!((3500..=3600).contains(&left), "{left}");
    }
    node.call(&Call::put("/cache/n", "x").with("X-ElCache-TTL", "1").with("X-ElCache-Flags", "5"))
        .expect(201);
    let known = client.stat(b"n").expect(Status::Ok).fields;
    assert_eq!(known.user_flags, Some(5));
    let (modified, expires) = (known.modified.expect("a time"), known.expires.expect("an end"));
    assert_eq!(expires, modified + 1000);
    assert_eq!(client.stat(b"m").expect(Status::Ok).fields.chunks, Some(1));
    let gone =
        wait_for(Duration::from_secs(10), || (client.stat(b"n").status == Status::NotFound).then_some(()));
    assert!(gone.is_some(), "a value whose time is over is gone");
    client.get(b"n").expect(Status::NotFound);
}

#[test]
fn what_is_not_there_is_not_found_and_deleting_says_whether_it_was() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    client.get(b"x").expect(Status::NotFound);
    client.stat(b"x").expect(Status::NotFound);
    client.delete(b"x").expect(Status::NotFound);
    node.put("/cache/x", "1");
    client.delete(b"x").expect(Status::Ok);
    node.get("/cache/x").expect(404);
    client.put(b"x", b"2");
    node.delete("/cache/x").expect(204);
    client.get(b"x").expect(Status::NotFound);
}

#[test]
fn keys_are_any_bytes_up_to_their_longest() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let longest = vec![0xff; 8192];
    for key in [&b"\0"[..], b"../../etc/passwd", b"a/b//c", b"\xff\xfe", &longest] {
        client.put(key, key);
        assert_eq!(client.get(key).expect(Status::Ok).data, key);
    }
    assert_eq!(node.get("/cache/..%2F..%2Fetc%2Fpasswd").expect(200).body, b"../../etc/passwd");
    client.get(&vec![1; 8193]).expect(Status::KeyTooLarge);
    client.get(b"").expect(Status::Invalid);
    client.call(&Request::Ping).expect(Status::Ok);
}

#[test]
fn conditions_digests_and_operations_hold() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    for size in [4_usize, 200_000] {
        let body = vec![1; size];
        let absent = Put { if_absent: true, ..Put::new(b"c", Some(size as u64)) };
        client.upload(&Request::Put(absent), &body).expect(Status::Ok);
        client.upload(&Request::Put(absent), &body).expect(Status::Condition);
        let digest = client.stat(b"c").fields.digest;
        client.call(&Request::Get(Get { digest, ..Get::new(b"c") })).expect(Status::Ok);
        node.put("/cache/c", "other");
        client.call(&Request::Get(Get { digest, ..Get::new(b"c") })).expect(Status::Condition);
        client.delete(b"c").expect(Status::Ok);

        let named = Put { operation: Some(b"write-1"), ..Put::new(b"o", Some(size as u64)) };
        let first = client.upload(&Request::Put(named), &body).expect(Status::Ok);
        let again = client.upload(&Request::Put(named), &body).expect(Status::Ok);
        assert_eq!((first.fields.created, again.fields.created), (Some(true), Some(true)));
        client.delete(b"o").expect(Status::Ok);
    }
}

#[test]
fn values_that_are_too_large_are_refused_before_their_data() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[("ELCACHE__LIMITS__VALUE_SIZE", "1M")]);
    assert_eq!(client.hello.size, 1 << 20);
    let id = client.begin(&Request::Put(Put::new(b"big", Some((1 << 20) + 1))), b"begin", false);
    client.answer(id).expect(Status::ValueTooLarge);
    // What is still on its way is passed over.
    client.data(id, b"more", true);
    client
        .upload(&Request::Put(Put::new(b"big", None)), &vec![0; (1 << 20) + 1])
        .expect(Status::ValueTooLarge);
    node.get("/cache/big").expect(404);
    client.put(b"fits", &vec![0; 1 << 20]);
    let scratch = Scratch::new();
    let (_small, mut small) = Node::local(&scratch, &["-m", "64"], &[]);
    let id = small.begin(&Request::Put(Put::new(b"big", Some(1 << 40))), b"", false);
    small.answer(id).expect(Status::NoRoom);
    let nowhere = Put { no_memory: true, ..Put::new(b"k", Some(1)) };
    small.upload(&Request::Put(nowhere), b"x").expect(Status::NoRoom);
}

#[test]
fn many_writers_put_a_value_together() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "256"], &[]);
    let path = scratch.path().join("node.sock");
    let size = 3 * CHUNK + 12_345;
    let content = Content::new(9);
    let open = Request::SparseOpen(Put { user_flags: 7, ..Put::new(b"s", Some(size)) });
    client.call(&Request::SparseFinalize(Named::new(b"s"))).expect(Status::NotFound);
    client.call(&open).expect(Status::Ok);
    client.call(&open).expect(Status::Conflict);
    client.call(&Request::SparseFinalize(Named::new(b"s"))).expect(Status::Incomplete);
    let pieces: Vec<u64> = (0..size).step_by(1 << 20).collect();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (pieces, path) = (&pieces, &path);
            scope.spawn(move || {
                let mut client = Local::connect(path);
                for offset in pieces.iter().copied().skip(writer).step_by(3) {
                    let length = (size - offset).min(1 << 20);
                    let mut bytes = vec![0; length as usize];
                    content.fill(offset, &mut bytes);
                    let write = SparseWrite { named: Named::new(b"s"), offset, length };
                    client.upload(&Request::SparseWrite(write), &bytes).expect(Status::Ok);
                }
            });
        }
    });
    assert!(node.get("/sparse/s").expect(200).text().contains("\"complete\": true"));
    let stored = client.call(&Request::SparseFinalize(Named::new(b"s"))).expect(Status::Ok);
    let got = node.get("/cache/s").expect(200);
    assert!(content.is(0, &got.body) && got.body.len() as u64 == size);
    assert_eq!((got.etag(), got.header("X-ElCache-Flags")), (stored.etag().as_str(), Some("7")));
}

#[test]
fn ranges_that_cannot_be_are_refused_and_uploads_are_given_up() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let named = Named::new(b"s");
    let write = |offset, length| Request::SparseWrite(SparseWrite { named, offset, length });
    client.upload(&write(0, 1), b"x").expect(Status::NotFound);
    client.call(&Request::SparseOpen(Put::new(b"s", Some(10)))).expect(Status::Ok);
    client.upload(&write(8, 3), b"abc").expect(Status::Invalid);
    client.upload(&write(u64::MAX, 3), b"abc").expect(Status::Invalid);
    client.upload(&write(0, 3), b"ab").expect(Status::Invalid);
    client.upload(&write(0, 3), b"abcd").expect(Status::Invalid);
    client.upload(&write(0, 0), b"").expect(Status::Ok);
    client.upload(&write(2, 3), b"abc").expect(Status::Ok);
    assert!(node.get("/sparse/s").expect(200).text().contains("[[0, 2], [5, 10]]"));
    client.call(&Request::SparseAbort(named)).expect(Status::Ok);
    client.call(&Request::SparseAbort(named)).expect(Status::NotFound);
    node.get("/sparse/s").expect(404);
    client.put(b"s", b"there");
    client
        .call(&Request::SparseOpen(Put { if_absent: true, ..Put::new(b"s", Some(10)) }))
        .expect(Status::Condition);
    node.call(&Call::new("POST", "/sparse/t").with("X-ElCache-Size", "4").body("")).expect(201);
    let whole = Request::SparseWrite(SparseWrite { named: Named::new(b"t"), offset: 0, length: 4 });
    client.upload(&whole, b"both").expect(Status::Ok);
    node.call(&Call::new("POST", "/sparse/t/finalize").body("")).expect(201);
    assert_eq!(client.get(b"t").expect(Status::Ok).data, b"both");
}

#[test]
fn runs_tell_which_bytes_are_there() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let runs = |client: &mut Local, key: &[u8], offset, length| {
        let named = Named::new(key);
        client.call(&Request::Stat(Stat { named, runs: Some((offset, NonZeroU64::new(length))) }))
    };
    client.put(b"small", b"0123456789");
    let told = runs(&mut client, b"small", 3, 4).expect(Status::Ok);
    assert_eq!((told.runs(), told.fields.covered), (vec![(3, 4)], Some(7)));
    assert_eq!(runs(&mut client, b"small", 10, 0).expect(Status::Ok).runs(), []);
    runs(&mut client, b"small", 11, 0).expect(Status::Range);

    let size = 20 << 20;
    let (number, whole) = partial_value(&node, &mut client, size);
    assert!(!whole.is_empty(), "something is left");
    let key = format!("{number}");
    let content = Content::new(number);
    let told = runs(&mut client, key.as_bytes(), 0, 0).expect(Status::Ok);
    assert_eq!(told.fields.covered, Some(size));
    assert!(told.runs().windows(2).all(|two| two[0].0 + two[0].1 < two[1].0), "{:?}", told.runs());
    for (offset, length) in told.runs() {
        let got = get_range(&mut client, key.as_bytes(), offset, length).expect(Status::Ok);
        assert!(content.is(offset, &got.data) && got.data.len() as u64 == length);
    }
    // What there is from the beginning of the first run to its end, though more was asked for.
    let (start, length) = told.runs()[0];
    let partial = Get { offset: start, partial: true, ..Get::new(key.as_bytes()) };
    let got = client.call(&Request::Get(partial));
    if start + length < size {
        assert_eq!((got.status, got.fields.length), (Status::Partial, Some(length)));
        assert!(got.fields.available.is_some_and(|percent| percent < 100));
        let refused = client.call(&Request::Get(Get { partial: false, ..partial })).expect(Status::Partial);
        assert!(refused.data.is_empty() && refused.fields.available == got.fields.available);
    }
    assert!(content.is(start, &got.data) && got.data.len() as u64 == length);
}

/// Fills memory until a value is there in part, and not from its beginning to its end; its number, and its runs.
#[track_caller]
fn partial_value(node: &Node, client: &mut Local, size: u64) -> (u64, Vec<(u64, u64)>) {
    for number in 0..60 {
        node.put(&format!("/cache/{number}"), Content::new(number).bytes(size as usize));
        for earlier in 0..number {
            let key = format!("{earlier}");
            let stat = Stat { named: Named::new(key.as_bytes()), runs: Some((0, None)) };
            let told = client.call(&Request::Stat(stat));
            let there: u64 = told.runs().iter().map(|(_, length)| length).sum();
            if told.status == Status::Ok && (1..size).contains(&there) {
                return (earlier, told.runs());
            }
        }
    }
    panic!("chunks of one value are evicted one by one");
}

#[test]
fn what_only_the_disk_has_is_read_from_there() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("disk");
    let args = ["-m", "64", "-D", "1", "-d", dir.to_str().expect("text")];
    let (node, mut client) = Node::local(&scratch, &args, &[]);
    let sizes = [10_u64, 100_000, 2 << 20, 12 << 20];
    for size in sizes {
        let put = Put { no_memory: true, ..Put::new(b"", Some(size)) };
        let key = format!("k{size}");
        let put = Put { named: Named::new(key.as_bytes()), ..put };
        client.upload(&Request::Put(put), &Content::new(size).bytes(size as usize)).expect(Status::Ok);
    }
    let keys: Vec<String> = sizes.iter().map(|size| format!("k{size}")).collect();
    let gets: Vec<Request<'_>> = keys.iter().map(|key| Request::Get(Get::new(key.as_bytes()))).collect();
    let ids = client.begin_all(&gets);
    for (id, size) in ids.into_iter().zip(sizes) {
        let got = client.answer(id).expect(Status::Ok);
        assert_eq!((got.fields.tier, got.data.len() as u64), (Some(2), size));
        assert!(Content::new(size).is(0, &got.data));
    }
    node.stop();
}
