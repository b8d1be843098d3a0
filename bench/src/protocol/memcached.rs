//! memcached's text protocol.

use std::io::Write as _;

use super::{Answer, Problem, line, number, reads};
use crate::workload::Request;

pub(super) fn encode(request: &Request, out: &mut Vec<u8>) -> &'static [u8] {
    if reads(request) {
        let _ = write!(out, "get {}\r\n", request.value);
        return b"";
    }
    let _ = write!(out, "set {} 0 0 {}\r\n", request.value, request.length());
    b"\r\n"
}

pub(super) fn parse(request: &Request, bytes: &[u8]) -> Result<Option<Answer>, Problem> {
    let Some((text, head)) = line(bytes)? else { return Ok(None) };
    if !reads(request) {
        return match text {
            "STORED" => Ok(Some(Answer { head, body: 0, ending: b"" })),
            other => Err(Problem::Status(other.into())),
        };
    }
    let Some(rest) = text.strip_prefix("VALUE ") else {
        return Err(if text == "END" { Problem::Miss } else { Problem::Status(text.into()) });
    };
    let mut words = rest.split(' ');
    let (key, length) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
    if key != request.value.to_string() {
        return Err(Problem::Malformed(format!("the value of '{key}'")));
    }
    Ok(Some(Answer { head, body: number(length)?, ending: b"\r\nEND\r\n" }))
}
