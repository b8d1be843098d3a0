use super::*;
use crate::config::HttpConfig;
use crate::problem::Note;
use crate::range::RangeSpec;
use crate::request::{Action, Request};
use proptest::prelude::*;

const ID: &str = "0000000000000001000000000000abcd";

fn action(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Action, Problem> {
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Request::parse(method.as_bytes(), target.as_bytes(), headers, &HttpConfig::default()).action
}

#[track_caller]
fn asked(method: &str, target: &str, headers: &[(&str, &str)]) -> SparseRequest {
    match action(method, target, headers) {
        Ok(Action::Sparse(sparse)) => *sparse,
        other => panic!("{method} {target} {headers:?}: {other:?}"),
    }
}

fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
    action(method, target, headers).map_or_else(|problem| problem.status, |_| 200)
}

#[track_caller]
fn piece(target: &str, headers: &[(&str, &str)]) -> Piece {
    match asked("PATCH", target, headers).ask {
        Ask::Write(piece) => piece,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_method_has_its_meaning_or_is_not_there() {
    let range = [("Content-Range", "bytes 0-1/2"), ("X-ElCache-Size", "2")];
    for (method, target, meant) in [
        ("POST", "/sparse/k", "Open"),
        ("PUT", "/sparse/k?offset=0", "Write"),
        ("PATCH", "/sparse/k", "Write"),
        ("GET", "/sparse/k", "Status"),
        ("HEAD", "/sparse/k", "Status"),
        ("DELETE", "/sparse/k", "Abort"),
        ("GET", "/sparse/k/data", "Read"),
        ("HEAD", "/sparse/k/data", "Read"),
        ("POST", "/sparse/k/finalize", "Finalize"),
    ] {
        let headers = if method == "POST" { &range[1..] } else { &range[..] };
        let sparse = asked(method, target, headers);
        assert_eq!(sparse.key.as_bytes(), b"k");
        assert!(format!("{:?}", sparse.ask).starts_with(meant), "{method} {target}: {sparse:?}");
    }
    for (method, target, allowed) in [
        ("TRACE", "/sparse/k", "GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS"),
        ("PUT", "/sparse/k/finalize", "POST, OPTIONS"),
        ("GET", "/sparse/k/finalize", "POST, OPTIONS"),
        ("DELETE", "/sparse/k/finalize", "POST, OPTIONS"),
        ("POST", "/sparse/k/data", "GET, HEAD, OPTIONS"),
        ("PATCH", "/sparse/k/data?offset=0", "GET, HEAD, OPTIONS"),
    ] {
        let problem = action(method, target, &[]).unwrap_err();
        assert_eq!((problem.status, problem.note), (405, Note::Allow(allowed)), "{method} {target}");
        let Ok(Action::Methods(methods)) = action("OPTIONS", target, &[]) else { panic!("{target}") };
        assert_eq!(methods, allowed, "{target}");
    }
}

#[test]
fn the_suffix_is_looked_for_before_the_key_is_decoded() {
    let key = |method, target| asked(method, target, &[("X-ElCache-Size", "1")]).key.as_bytes().to_vec();
    assert_eq!(key("POST", "/sparse/a%2Ffinalize"), b"a/finalize");
    assert_eq!(key("GET", "/sparse/a%2Fdata/data"), b"a/data");
    assert_eq!(key("POST", "/sparse/finalize"), b"finalize");
    assert_eq!(key("POST", "/sparse/a/finalize/finalize"), b"a/finalize");
    assert_eq!(status("POST", "/sparse//finalize", &[]), 400);
    assert_eq!(status("GET", "/sparse//data", &[]), 400);
    assert_eq!(status("GET", "/sparse/", &[]), 400);
    assert_eq!(status("GET", "/sparse/%4", &[]), 400);
    assert_eq!(status("GET", &format!("/sparse/{}/data", "k".repeat(8193)), &[]), 400);
}

#[test]
fn an_upload_is_opened_with_a_size_and_what_a_put_takes() {
    let headers =
        [("X-ElCache-Size", "20"), ("X-ElCache-TTL", "5"), ("Content-Type", "a/b"), ("If-Match", "\"x")];
    let Ask::Open(size, put) = asked("POST", "/sparse/k", &headers).ask else { panic!("not opened") };
    assert_eq!((size, put.ttl_seconds.map(u64::from)), (20, Some(5)));
    assert_eq!(put.headers.get("Content-Type"), Some(&b"a/b"[..]));
    assert!(put.condition.is_empty(), "conditions are read when it is finalized");
    let open = |size: &str| match action("POST", "/sparse/k", &[("X-ElCache-Size", size)]) {
        Ok(Action::Sparse(sparse)) => match sparse.ask {
            Ask::Open(size, _) => Ok(size),
            other => panic!("{other:?}"),
        },
        Ok(other) => panic!("{other:?}"),
        Err(problem) => Err(problem.status),
    };
    assert_eq!(open("0"), Ok(0));
    assert_eq!(open("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(open("18446744073709551616"), Ok(u64::MAX), "413 when it is compared with the limit");
    for bad in ["", "-1", "+1", "1.0", "0x10", "1 000", "1MB", "all"] {
        assert_eq!(open(bad), Err(400), "{bad:?}");
    }
    let size = ("X-ElCache-Size", "20");
    assert_eq!(status("POST", "/sparse/k", &[]), 400);
    assert_eq!(status("POST", "/sparse/k", &[size, size]), 400);
    for refused in [
        ("X-ElCache-TTL", "0"),
        ("X-ElCache-No-Disk", "maybe"),
        ("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        ("Repr-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        ("Content-Range", "bytes 0-19/20"),
    ] {
        assert_eq!(status("POST", "/sparse/k", &[size, refused]), 400, "{refused:?}");
    }
}

#[test]
fn a_range_says_where_it_belongs() {
    let bare = Piece { from: 7, len: None, total: None, sha256: None };
    assert_eq!(piece("/sparse/k?offset=7", &[]), bare);
    let ranged = Piece { len: Some(3), total: Some(20), ..bare };
    assert_eq!(piece("/sparse/k", &[("Content-Range", "bytes 7-9/20")]), ranged);
    assert_eq!(piece("/sparse/k?offset=7", &[("Content-Range", "bytes 7-9/20")]), ranged);
    assert_eq!(piece("/sparse/k", &[("Content-Range", "bytes 7-9/*")]), Piece { total: None, ..ranged });
    assert_eq!(piece("/sparse/k?x=1&offset=18446744073709551616", &[]).from, u64::MAX);
    let digest = ("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:");
    assert!(piece("/sparse/k?offset=0", &[digest]).sha256.is_some());
    for (target, headers) in [
        ("/sparse/k", &[][..]),
        ("/sparse/k?offset", &[]),
        ("/sparse/k?offset=", &[]),
        ("/sparse/k?offset=-1", &[]),
        ("/sparse/k?offset=1&offset=1", &[]),
        ("/sparse/k?offset=%", &[]),
        ("/sparse/k?offset=6", &[("Content-Range", "bytes 7-9/20")]),
        ("/sparse/k", &[("Content-Range", "bytes 9-7/20")]),
        ("/sparse/k", &[("Content-Range", "bytes 7-20/20")]),
        ("/sparse/k", &[("Content-Range", "bytes */20")]),
        ("/sparse/k?offset=7", &[("Content-Range", "bytes=7-9/20")]),
        ("/sparse/k", &[("Content-Range", "bytes 7-9/20"), ("Content-Range", "bytes 7-9/20")]),
        ("/sparse/k?offset=7", &[("Repr-Digest", digest.1)]),
        ("/sparse/k?offset=7", &[("Content-Digest", "sha-256=:x:")]),
    ] {
        assert_eq!(status("PATCH", target, headers), 400, "{target} {headers:?}");
        assert_eq!(status("PUT", target, headers), 400, "{target} {headers:?}");
    }
}

#[test]
fn an_id_may_go_with_everything_and_has_32_digits() {
    let id = Some(Version { view: 1, sequence: 0xabcd });
    for (method, target) in [
        ("PATCH", "/sparse/k?offset=0"),
        ("GET", "/sparse/k"),
        ("DELETE", "/sparse/k"),
        ("GET", "/sparse/k/data"),
        ("POST", "/sparse/k/finalize"),
    ] {
        assert_eq!(asked(method, target, &[]).id, None);
        assert_eq!(asked(method, target, &[("X-ElCache-Upload-Id", ID)]).id, id);
        for bad in ["", "1", &ID[1..], "x0000000000000010000000000000abcd", &format!("{ID}0")] {
            assert_eq!(
                status(method, target, &[("X-ElCache-Upload-Id", bad)]),
                400,
                "{method} {target} {bad:?}"
            );
        }
        let twice = [("X-ElCache-Upload-Id", ID), ("X-ElCache-Upload-Id", ID)];
        assert_eq!(status(method, target, &twice), 400);
    }
}

#[test]
fn the_status_begins_at_an_offset() {
    let from = |target| match asked("GET", target, &[]).ask {
        Ask::Status(from) => from,
        other => panic!("{other:?}"),
    };
    assert_eq!(from("/sparse/k"), 0);
    assert_eq!(from("/sparse/k?offset=12"), 12);
    assert_eq!(from("/sparse/k?offset=99999999999999999999"), u64::MAX);
    assert_eq!(status("GET", "/sparse/k?offset=x", &[]), 400);
}

#[test]
fn what_is_read_is_a_range_as_of_a_value_and_no_if_range_holds() {
    let ranges = |method, target, headers: &[_]| match asked(method, target, headers).ask {
        Ask::Read(ranges) => ranges,
        other => panic!("{other:?}"),
    };
    let range = ("Range", "bytes=2-3");
    let one = Ranges::One(RangeSpec::From(2, Some(3)));
    assert_eq!(ranges("GET", "/sparse/k/data", &[]), Ranges::Whole);
    assert_eq!(ranges("GET", "/sparse/k/data", &[range]), one);
    assert_eq!(ranges("GET", "/sparse/k/data?range=2-2", &[]), one);
    assert_eq!(ranges("HEAD", "/sparse/k/data", &[range]), Ranges::Whole);
    assert_eq!(ranges("GET", "/sparse/k/data", &[range, ("If-Range", "\"x\"")]), Ranges::Whole);
    assert_eq!(status("GET", "/sparse/k/data?range=2-0", &[]), 400);
}

#[test]
fn finalizing_reads_conditions_and_the_operation() {
    let headers = [("If-None-Match", "*"), ("X-ElCache-Operation-Id", "op")];
    let Ask::Finalize(condition, operation) = asked("POST", "/sparse/k/finalize", &headers).ask else {
        panic!("not finalized")
    };
    assert_eq!(condition.if_none_match, Some(elcache_core::condition::Tags::Any));
    assert_eq!(operation.as_ref().map(OperationId::as_bytes), Some(&b"op"[..]));
    assert_eq!(status("POST", "/sparse/k/finalize", &[("If-Match", "\"x")]), 400);
    assert_eq!(status("POST", "/sparse/k/finalize", &[("X-ElCache-Operation-Id", "")]), 400);
}

proptest! {
    #[test]
    fn any_request_is_read_or_refused(
        method in prop_oneof![Just("GET"), Just("PUT"), Just("POST"), Just("PATCH"), Just("DELETE")],
        key in proptest::collection::vec(any::<u8>(), 0..20),
        rest in prop_oneof![Just(""), Just("/data"), Just("/finalize"), Just("?offset=3"), Just("?offset=")],
        name in prop_oneof![Just("content-range"), Just("x-elcache-size"), Just("x-elcache-upload-id"), Just("range")],
        value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let target = [b"/sparse/", &key[..], rest.as_bytes()].concat();
        let header = (name.as_bytes(), &value[..]);
        let _ = Request::parse(method.as_bytes(), &target, [header].into_iter(), &HttpConfig::default());
    }
}
