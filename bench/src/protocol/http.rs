//! HTTP/1.1, answers with a length alone: a cache that knows its values has no need of chunked bodies.

use std::io::Write as _;

use super::{Answer, Problem, number, reads};
use crate::workload::{Action, Request};

const MAX_HEADERS: usize = 32;

pub(super) fn encode(request: &Request, out: &mut Vec<u8>) -> &'static [u8] {
    let method = if reads(request) { "GET" } else { "PUT" };
    let _ = write!(out, "{method} /cache/{} HTTP/1.1\r\nHost: bench\r\n", request.value);
    let _ = match request.action {
        Action::Get { .. } => Ok(()),
        Action::Range { from, length } => write!(out, "Range: bytes={from}-{}\r\n", from + length - 1),
        Action::Put { .. } => write!(out, "Content-Length: {}\r\n", request.length()),
    };
    out.extend_from_slice(b"\r\n");
    b""
}

pub(super) fn parse(request: &Request, bytes: &[u8]) -> Result<Option<Answer>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(Problem::Malformed(error.to_string())),
    };
    let status = response.code.unwrap_or_default();
    let good = match request.action {
        Action::Get { .. } => status == 200,
        Action::Range { .. } => status == 206,
        Action::Put { .. } => matches!(status, 200 | 201 | 204),
    };
    if !good {
        return Err(Problem::Status(status.to_string()));
    }
    let mut body = (status == 204).then_some(0);
    let mut range = None;
    for header in &*response.headers {
        let value = || String::from_utf8_lossy(header.value).into_owned();
        // Names are told apart by their length first: this runs for every answer.
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => body = Some(number(&value())?),
            13 if header.name.eq_ignore_ascii_case("content-range") => range = Some(value()),
            10 if header.name.eq_ignore_ascii_case("connection") && header.value == b"close" => {
                return Err(Problem::Malformed("the server closes the connection".into()));
            }
            _ => {}
        }
    }
    check_range(request, range)?;
    let body = body.ok_or_else(|| Problem::Malformed("no Content-Length".into()))?;
    Ok(Some(Answer { head, body, ending: b"" }))
}

fn check_range(request: &Request, answered: Option<String>) -> Result<(), Problem> {
    let Action::Range { from, length } = request.action else { return Ok(()) };
    let expected = format!("bytes {from}-{}/{}", from + length - 1, request.value.size);
    match answered {
        Some(range) if range == expected => Ok(()),
        other => Err(Problem::Range(other.unwrap_or_else(|| "no Content-Range".into()))),
    }
}
