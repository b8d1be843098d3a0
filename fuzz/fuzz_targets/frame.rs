//! Frames: whatever a client sends is read or refused, and what was read comes back when it is written.
#![no_main]

use elcache_protocol::{ClientHello, Header, Reply, Request, ServerHello, flow};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((head, rest)) = bytes.split_first_chunk() else { return };
    let Ok(header) = Header::decode(head) else { return };
    assert_eq!(&header.encode(), head);
    let fields = rest.get(..header.fields_len as usize).unwrap_or(rest);
    let _ = flow::parse_credit(fields);
    if let Ok(request) = Request::parse(header.kind, header.flags, fields) {
        let (header, fields) = split(|out| request.encode(out, header.id, header.is_end(), header.data_len));
        assert_eq!(Request::parse(header.kind, header.flags, &fields), Ok(request));
    }
    if let Ok(reply) = Reply::parse(fields) {
        let (_, fields) = split(|out| reply.encode(out, header.id, header.is_end(), header.data_len));
        assert_eq!(Reply::parse(&fields), Ok(reply));
    }
    if let Ok(hello) = ServerHello::parse(fields) {
        assert!(hello.name.is_none_or(|name| name.len() <= fields.len()));
    }
    if let Ok(hello) = ClientHello::parse(fields) {
        let spoken = hello.version_min <= 1 && 1 <= hello.version_max;
        assert_eq!(hello.version().is_ok(), spoken);
    }
});

fn split(write: impl FnOnce(&mut Vec<u8>)) -> (Header, Vec<u8>) {
    let mut out = Vec::new();
    write(&mut out);
    let header = Header::decode(out.first_chunk().expect("a header")).expect("a header of ours");
    let fields = out.split_off(Header::LEN);
    assert_eq!(fields.len(), header.fields_len as usize);
    (header, fields)
}
