//! RESP2.

use std::io::Write as _;

use super::{Answer, Problem, line, number, reads};
use crate::workload::Request;

pub(super) fn encode(request: &Request, out: &mut Vec<u8>) -> &'static [u8] {
    let key = request.value.to_string();
    if reads(request) {
        let _ = write!(out, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
        return b"";
    }
    let _ = write!(out, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), request.length());
    b"\r\n"
}

pub(super) fn parse(request: &Request, bytes: &[u8]) -> Result<Option<Answer>, Problem> {
    let Some((text, head)) = line(bytes)? else { return Ok(None) };
    match (reads(request), text.split_at_checked(1)) {
        (true, Some(("$", "-1"))) => Err(Problem::Miss),
        (true, Some(("$", length))) => Ok(Some(Answer { head, body: number(length)?, ending: b"\r\n" })),
        (false, Some(("+", "OK"))) => Ok(Some(Answer { head, body: 0, ending: b"" })),
        _ => Err(Problem::Status(text.into())),
    }
}
