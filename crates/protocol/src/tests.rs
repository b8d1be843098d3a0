//! The examples of the document in both directions, and properties of what is read and written.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "nothing here comes from outside"
)]

use std::num::NonZeroU64;

use elcache_core::digest::Digest;
use proptest::option;
use proptest::prelude::*;

use crate::header::{END, MAX_DATA, MAX_FIELDS};
use crate::hello::SHARED_MEMORY;
use crate::request::{Get, Named, Put, SparseWrite, Stat};
use crate::*;

/// The blocks of the document, as bytes.
fn examples() -> Vec<Vec<u8>> {
    let document = include_str!("../../../docs/protocol.md");
    let blocks = document.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let byte = |digits| u8::from_str_radix(digits, 16).unwrap();
    blocks.map(|block| block.split_whitespace().map(byte).collect()).collect()
}

fn split(frame: &[u8]) -> (Header, &[u8], &[u8]) {
    let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
    let (fields, data) = frame[Header::LEN..].split_at(header.fields_len as usize);
    assert_eq!(data.len() as u64, header.data_len);
    (header, fields, data)
}

fn request(frame: &[u8]) -> (Header, Result<Request<'_>, Refusal>) {
    let (header, fields, _) = split(frame);
    (header, Request::parse(header.kind, header.flags, fields))
}

fn written(write: impl FnOnce(&mut Vec<u8>), data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out.extend_from_slice(data);
    out
}

#[test]
fn the_examples_of_the_document_are_read_and_written() {
    let examples = examples();
    let [hello, get, answer, put, credit, cancel] = &examples[..] else {
        panic!("the document has {} examples", examples.len())
    };
    let client = ClientHello { version_min: 1, version_max: 1, features: SHARED_MEMORY, name: None };
    let (header, fields, _) = split(hello);
    assert_eq!((header.kind, header.id, ClientHello::parse(fields)), (Kind::HELLO, 0, Ok(client.clone())));
    assert_eq!(&written(|out| client.encode(out), b""), hello);

    let wanted = Request::Get(Get { offset: 2, length: NonZeroU64::new(3), ..Get::new(b"a/b") });
    let (header, read) = request(get);
    assert_eq!((header.id, read), (7, Ok(wanted.clone())));
    assert_eq!(&written(|out| wanted.encode(out, 7, false, 0), b""), get);

    let reply = Reply { size: Some(5), length: Some(3), ..Reply::new(Status::Ok) };
    let (header, fields, data) = split(answer);
    assert_eq!((header.kind, header.is_end(), data), (Kind::REPLY, true, &b"llo"[..]));
    assert_eq!(Reply::parse(fields), Ok(reply.clone()));
    assert_eq!(&written(|out| reply.encode(out, 7, true, 3), b"llo"), answer);

    let minute = Request::Put(Put { ttl: NonZeroU64::new(60), ..Put::new(b"a/b", Some(2)) });
    let (header, read) = request(put);
    assert_eq!((header.id, header.is_end(), read), (8, true, Ok(minute.clone())));
    assert_eq!(&written(|out| minute.encode(out, 8, true, 2), b"hi"), put);

    let (header, fields, _) = split(credit);
    assert_eq!((header.kind, header.id, flow::parse_credit(fields)), (Kind::CREDIT, 8, Ok(1 << 20)));
    assert_eq!(&written(|out| flow::encode_credit(out, 8, 1 << 20), b""), credit);

    let (header, ..) = split(cancel);
    assert_eq!((header.kind, header.id), (Kind::CANCEL, 9));
    assert_eq!(&written(|out| flow::encode_cancel(out, 9), b""), cancel);
}

#[test]
fn the_preface_is_as_the_document_says() {
    let document = include_str!("../../../docs/protocol.md");
    let hex: Vec<String> = PREFACE.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(document.contains(&format!("`{}`", hex.join(" "))));
}

#[test]
fn the_status_table_of_the_document_is_that_of_the_code() {
    let document = include_str!("../../../docs/protocol.md");
    for status in Status::ALL {
        let row = format!("| {} | `{}` |", status.number(), status.as_str().to_uppercase());
        assert!(document.contains(&row), "{row}");
        assert_eq!(Status::from_number(status.number()), status);
    }
    assert_eq!(Status::from_number(17), Status::Internal);
    assert_eq!(Status::from_number(u64::MAX), Status::Internal);
}

fn field(tag: u16, value: &[u8]) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat()
}

#[test]
fn fields_are_refused_for_what_is_wrong_with_them() {
    let read = |fields: &[Vec<u8>]| Fields::parse(&fields.concat()).map(|_| ());
    let number = 5_u64.to_le_bytes();
    assert_eq!(read(&[field(2, &number), field(0x7fff, b"?"), field(31, b"")]), Ok(()));
    assert_eq!(read(&[field(0x8000, b"")]), Err(FieldError::Unknown(0x8000)));
    assert_eq!(read(&[field(2, &number), field(2, &number)]), Err(FieldError::Repeated(2)));
    assert_eq!(read(&[field(2, &number[..7])]), Err(FieldError::Malformed(2)));
    assert_eq!(read(&[field(10, &[0; 31])]), Err(FieldError::Malformed(10)));
    assert_eq!(read(&[field(15, b"\xff")]), Err(FieldError::Malformed(15)));
    assert_eq!(read(&[field(15, &[b'x'; 1025])]), Err(FieldError::Malformed(15)));
    let mut cut = field(1, b"key");
    cut.pop();
    assert_eq!(read(&[cut]), Err(FieldError::Truncated));
    assert_eq!(read(&[vec![1]]), Err(FieldError::Truncated));
}

#[test]
fn a_request_is_refused_for_what_is_wrong_with_it() {
    let key = field(1, b"k");
    let number = |tag, number: u64| field(tag, &number.to_le_bytes());
    let status =
        |kind, fields: &[Vec<u8>]| Request::parse(kind, 0, &fields.concat()).map_err(|no| no.status).err();
    assert_eq!(status(Kind::GET, std::slice::from_ref(&key)), None);
    assert_eq!(status(Kind::GET, &[]), Some(Status::Invalid));
    assert_eq!(status(Kind::GET, &[field(1, b"")]), Some(Status::Invalid));
    assert_eq!(status(Kind::GET, &[field(1, &[7; 8192])]), None);
    assert_eq!(status(Kind::GET, &[field(1, &[7; 8193])]), Some(Status::KeyTooLarge));
    assert_eq!(status(Kind::PUT, &[key.clone(), number(7, 0)]), Some(Status::Invalid));
    assert_eq!(status(Kind::PUT, &[key.clone(), number(8, 1 << 32)]), Some(Status::Invalid));
    assert_eq!(status(Kind::PUT, &[key.clone(), field(16, b"")]), Some(Status::Invalid));
    assert_eq!(status(Kind::PUT, &[key.clone(), field(16, &[1; 65])]), Some(Status::Invalid));
    assert_eq!(status(Kind::SPARSE_OPEN, std::slice::from_ref(&key)), Some(Status::Invalid));
    assert_eq!(status(Kind::SPARSE_WRITE, std::slice::from_ref(&key)), Some(Status::Invalid));
    assert_eq!(status(Kind(24), &[key]), Some(Status::Unsupported));
    assert_eq!(status(Kind::SHARE, &[]), Some(Status::Invalid));
}

#[test]
fn fields_that_cannot_be_told_apart_are_worse_than_those_that_mean_nothing() {
    let status = |fields: &[u8]| Request::parse(Kind::GET, 0, fields).map_err(|no| no.status).err();
    let key = field(1, b"k");
    assert_eq!(status(&[key.clone(), key.clone()].concat()), Some(Status::Protocol));
    assert_eq!(status(&key[..4]), Some(Status::Protocol));
    assert_eq!(status(&[key.clone(), field(2, b"7")].concat()), Some(Status::Invalid));
    assert_eq!(status(&[key, field(0x8001, b"")].concat()), Some(Status::Unsupported));
}

#[test]
fn requests_are_the_kinds_below_64_but_the_greeting() {
    let requests: Vec<u8> = (0..=255).filter(|kind| Kind(*kind).is_request()).collect();
    assert_eq!(requests, [vec![0], (2..64).collect()].concat());
}

#[test]
fn a_client_of_other_versions_is_told_so() {
    let hello = |version_min, version_max| ClientHello { version_min, version_max, features: 0, name: None };
    assert_eq!(hello(1, 1).version(), Ok(1));
    assert_eq!(hello(0, 9).version(), Ok(1));
    for (low, high) in [(2, 3), (0, 0), (2, 1)] {
        assert_eq!(hello(low, high).version().map_err(|no| no.status), Err(Status::Unsupported));
    }
}

#[test]
fn a_message_is_cut_between_two_characters() {
    let long = "\u{e9}".repeat(600);
    let frame = written(|out| Reply::error(Status::Busy, &format!("x{long}")).encode(out, 1, true, 0), b"");
    let (_, fields, _) = split(&frame);
    assert_eq!(Reply::parse(fields).unwrap().message.map(str::len), Some(1023));
}

fn digests() -> impl Strategy<Value = Option<Digest>> {
    option::of(any::<[u8; 32]>().prop_map(Digest))
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..40),
        proptest::collection::vec(any::<u8>(), 8191..=8192),
    ]
}

fn nonzero() -> impl Strategy<Value = Option<NonZeroU64>> {
    any::<u64>().prop_map(NonZeroU64::new)
}

/// What requests of every kind are made of.
#[derive(Clone, Debug)]
struct Parts {
    key: Vec<u8>,
    deadline: Option<NonZeroU64>,
    numbers: [u64; 3],
    optional: [Option<NonZeroU64>; 2],
    digest: Option<Digest>,
    operation: Option<Vec<u8>>,
    user_flags: u32,
    bits: [bool; 4],
}

prop_compose! {
    fn parts()(
        key in keys(), deadline in nonzero(), numbers in any::<[u64; 3]>(), first in nonzero(), second in nonzero(),
        digest in digests(), operation in option::of(proptest::collection::vec(any::<u8>(), 1..=64)),
        user_flags in any::<u32>(), bits in any::<[bool; 4]>(),
    ) -> Parts {
        Parts { key, deadline, numbers, optional: [first, second], digest, operation, user_flags, bits }
    }
}

impl Parts {
    fn requests(&self) -> Vec<Request<'_>> {
        let named = Named { key: &self.key, deadline: self.deadline };
        let [a, b, _] = self.numbers;
        let [first, second] = self.optional;
        let [w, x, y, z] = self.bits;
        let get = Get {
            named,
            offset: a,
            length: first,
            window: w.then_some(b),
            digest: self.digest,
            partial: x,
            copy: y,
        };
        let put = Put {
            named,
            size: Some(a),
            ttl: second,
            user_flags: self.user_flags,
            operation: self.operation.as_deref(),
            no_memory: w,
            no_disk: x,
            no_cluster: y,
            if_absent: z,
        };
        vec![
            Request::Ping,
            Request::Get(get),
            Request::Stat(Stat { named, runs: w.then_some((a, first)) }),
            Request::Put(Put { size: x.then_some(b), ..put }),
            Request::Delete(named),
            Request::SparseOpen(put),
            Request::SparseWrite(SparseWrite { named, offset: a, length: b }),
            Request::SparseFinalize(named),
            Request::SparseAbort(named),
            Request::Share { ring: a },
            Request::Map { region: b },
        ]
    }
}

prop_compose! {
    fn replies()(
        status in 0_u64..17, size in any::<Option<u64>>(), length in any::<Option<u64>>(), digest in digests(),
        rest in any::<[Option<u64>; 7]>(), user_flags in any::<Option<u32>>(), created in any::<Option<bool>>(),
    ) -> Reply<'static> {
        let [chunks, modified, expires, tier, available, covered, ring] = rest;
        Reply {
            status: Status::from_number(status), size, length, digest, chunks, modified, expires, user_flags, tier,
            created, available, covered, ring, message: created.map(|_| "why"),
        }
    }
}

proptest! {
    #[test]
    fn headers_come_back(kind: u8, flags: u16, fields_len in 0..=MAX_FIELDS, id: u64, data_len in 0..=MAX_DATA) {
        let header = Header { kind: Kind(kind), flags, fields_len, id, data_len };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn headers_are_within_the_limits_or_refused(bytes: [u8; 24]) {
        match Header::decode(&bytes) {
            Ok(header) => {
                prop_assert!(header.fields_len <= MAX_FIELDS && header.data_len <= MAX_DATA);
                prop_assert_eq!(header.encode(), bytes);
            }
            Err(HeaderError::Version(version)) => prop_assert_ne!(version, 1),
            Err(HeaderError::Fields(len)) => prop_assert!(len > MAX_FIELDS),
            Err(HeaderError::Data(len)) => prop_assert!(len > MAX_DATA),
        }
    }

    #[test]
    fn requests_come_back(parts in parts(), id: u64, is_last: bool, data_len in 0..=MAX_DATA) {
        for request in parts.requests() {
            let mut out = b"before".to_vec();
            request.encode(&mut out, id, is_last, data_len);
            let frame = &out[6..];
            let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
            prop_assert_eq!((header.kind, header.id, header.data_len), (request.kind(), id, data_len));
            prop_assert_eq!(header.flags & END != 0, is_last);
            prop_assert_eq!(header.fields_len as usize, frame.len() - Header::LEN);
            let read = Request::parse(header.kind, header.flags, &frame[Header::LEN..]);
            prop_assert_eq!(read, Ok(request));
        }
    }

    #[test]
    fn replies_come_back(reply in replies(), id: u64, is_last: bool) {
        let mut out = Vec::new();
        reply.encode(&mut out, id, is_last, 0);
        let (header, fields, _) = split(&out);
        prop_assert_eq!((header.kind, header.id, header.is_end()), (Kind::REPLY, id, is_last));
        prop_assert_eq!(Reply::parse(fields), Ok(reply));
    }

    #[test]
    fn hellos_come_back(numbers: [u64; 5], name in option::of("[ -~]{0,40}")) {
        let [version_min, version_max, features, window, size] = numbers;
        let client = ClientHello { version_min, version_max, features, name: name.as_deref() };
        let mut out = Vec::new();
        client.encode(&mut out);
        prop_assert_eq!(ClientHello::parse(split(&out).1), Ok(client));
        let server = ServerHello { version: version_min, features, name: name.as_deref(), requests: version_max, window, size };
        out.clear();
        server.encode(&mut out);
        prop_assert_eq!(ServerHello::parse(split(&out).1), Ok(server));
    }

    #[test]
    fn any_bytes_are_read_or_refused(kind: u8, flags: u16, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Fields::parse(&bytes), ClientHello::parse(&bytes), ServerHello::parse(&bytes));
        let _ = (Reply::parse(&bytes), flow::parse_credit(&bytes));
        let _ = Request::parse(Kind(kind), flags, &bytes);
    }

    #[test]
    fn fields_of_any_tags_are_read_or_refused(
        kind in 0_u8..70, flags: u16,
        fields in proptest::collection::vec((0_u16..45, proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        let bytes: Vec<u8> = fields.iter().flat_map(|(tag, value)| field(*tag, value)).collect();
        if let Ok(request) = Request::parse(Kind(kind), flags, &bytes) {
            let mut out = Vec::new();
            request.encode(&mut out, 1, true, 0);
            let (header, fields, _) = split(&out);
            prop_assert_eq!(Request::parse(header.kind, header.flags, fields), Ok(request.clone()));
        }
    }
}
