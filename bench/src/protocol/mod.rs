//! What a request and the head of its answer look like on the wire, for each of the three protocols.
//!
//! A request is a head, the value's bytes (PUT alone) and an ending; an answer is a head that announces a body, the
//! body and an ending. Parsing is one function from the bytes that have arrived to [`Answer`], so that the body can
//! be left in the kernel.

mod http;
mod memcached;
mod redis;

use std::{fmt, io};

use crate::workload::{Action, Request};

/// The protocols that the generator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1 with kept connections; keys under `/cache/`.
    Http,
    /// RESP2: GET and SET. Ranges of 1 GiB are beyond what it stores.
    Redis,
    /// The classic text protocol: get and set.
    Memcached,
}

/// The head of an answer, understood and found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of the head.
    pub head: usize,
    /// Bytes of the body.
    pub body: u64,
    /// What follows the body.
    pub ending: &'static [u8],
}

/// Why an answer does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The status is not the one that the request must have.
    Status(String),
    /// The protocol's way to say that there is no such value.
    Miss,
    /// The head announces another length than the request must have.
    Length {
        /// Bytes announced.
        got: u64,
        /// Bytes that must come.
        expected: u64,
    },
    /// The body, or what follows it, differs.
    Byte {
        /// The first wrong byte of the body.
        offset: u64,
    },
    /// The range is not the one that was asked for.
    Range(String),
    /// No answer of this protocol.
    Malformed(String),
    /// The connection ended within an answer.
    Closed {
        /// Bytes of the body that had come.
        received: u64,
    },
    /// The connection failed.
    Broken(io::ErrorKind),
    /// An answer came before the request was sent.
    Early,
    /// Bytes came that nobody asked for.
    Surplus,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(out, "answered {status}"),
            Self::Miss => write!(out, "no such value"),
            Self::Length { got, expected } => write!(out, "announces {got} bytes instead of {expected}"),
            Self::Byte { offset } => write!(out, "byte {offset} of the body is wrong"),
            Self::Range(range) => write!(out, "answers another range: {range}"),
            Self::Malformed(what) => write!(out, "malformed answer: {what}"),
            Self::Closed { received } => write!(out, "connection closed after {received} bytes of the body"),
            Self::Broken(kind) => write!(out, "connection failed: {kind}"),
            Self::Early => write!(out, "answered before the request was sent"),
            Self::Surplus => write!(out, "more bytes came than the answer has"),
        }
    }
}

impl Protocol {
    /// Writes the head of the request and returns what follows its body.
    pub fn encode(self, request: &Request, out: &mut Vec<u8>) -> &'static [u8] {
        out.clear();
        match self {
            Self::Http => http::encode(request, out),
            Self::Redis => redis::encode(request, out),
            Self::Memcached => memcached::encode(request, out),
        }
    }

    /// Understands the head of an answer; `None` until all of it has come.
    pub fn parse(self, request: &Request, bytes: &[u8]) -> Result<Option<Answer>, Problem> {
        let answer = match self {
            Self::Http => http::parse(request, bytes),
            Self::Redis => redis::parse(request, bytes),
            Self::Memcached => memcached::parse(request, bytes),
        }?;
        match answer {
            Some(Answer { body, .. }) if reads(request) && body != request.length() => {
                Err(Problem::Length { got: body, expected: request.length() })
            }
            answer => Ok(answer),
        }
    }
}

/// Whether the answer carries the value's bytes.
pub fn reads(request: &Request) -> bool {
    !matches!(request.action, Action::Put { .. })
}

/// The first line without its CRLF, and how many bytes it takes with it. A line that does not end within 512 bytes
/// belongs to no answer of Redis or memcached.
fn line(bytes: &[u8]) -> Result<Option<(&str, usize)>, Problem> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > 512 { Err(Problem::Malformed("endless line".into())) } else { Ok(None) };
    };
    match std::str::from_utf8(&bytes[..end]) {
        Ok(text) => Ok(Some((text, end + 2))),
        Err(_) => Err(Problem::Malformed("a line that is not text".into())),
    }
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::Malformed(format!("'{text}' is no length")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Kind, Value};

    const VALUE: Value = Value { kind: Kind::Get, size: 1024, number: 7 };
    const PUT: Request = Request { value: VALUE, action: Action::Put { origin: 0 } };
    const RANGE: Request = Request { value: VALUE, action: Action::Range { from: 10, length: 20 } };

    fn encoded(protocol: Protocol, request: &Request) -> (String, &'static [u8]) {
        let mut out = b"left over".to_vec();
        let ending = protocol.encode(request, &mut out);
        (String::from_utf8(out).unwrap(), ending)
    }

    /// Feeds an answer byte by byte: nothing may be concluded before the head is whole, and bytes of the body behind
    /// it change nothing.
    fn parse(protocol: Protocol, request: &Request, head: &str) -> Result<Answer, Problem> {
        for length in 0..head.len() {
            if let Some(answer) = protocol.parse(request, &head.as_bytes()[..length])? {
                panic!("{answer:?} from {length} of {} bytes", head.len());
            }
        }
        let answer = protocol.parse(request, head.as_bytes())?.expect("the head is whole");
        let with_body = format!("{head}body\r\n\r\n");
        assert_eq!(protocol.parse(request, with_body.as_bytes()), Ok(Some(answer)));
        assert_eq!(answer.head, head.len());
        Ok(answer)
    }

    #[test]
    fn requests_are_what_the_protocols_prescribe() {
        let get = Request::get(VALUE);
        for (protocol, request, head, ending) in [
            (Protocol::Http, get, "GET /cache/get-1024-7 HTTP/1.1\r\nHost: bench\r\n\r\n", ""),
            (
                Protocol::Http,
                RANGE,
                "GET /cache/get-1024-7 HTTP/1.1\r\nHost: bench\r\nRange: bytes=10-29\r\n\r\n",
                "",
            ),
            (
                Protocol::Http,
                PUT,
                "PUT /cache/get-1024-7 HTTP/1.1\r\nHost: bench\r\nContent-Length: 1024\r\n\r\n",
                "",
            ),
            (Protocol::Redis, get, "*2\r\n$3\r\nGET\r\n$10\r\nget-1024-7\r\n", ""),
            (Protocol::Redis, PUT, "*3\r\n$3\r\nSET\r\n$10\r\nget-1024-7\r\n$1024\r\n", "\r\n"),
            (Protocol::Memcached, get, "get get-1024-7\r\n", ""),
            (Protocol::Memcached, PUT, "set get-1024-7 0 0 1024\r\n", "\r\n"),
        ] {
            assert_eq!(encoded(protocol, &request), (head.to_owned(), ending.as_bytes()));
        }
    }

    #[test]
    fn good_answers_are_understood_however_they_are_cut() {
        let get = Request::get(VALUE);
        for (protocol, request, head, body, ending) in [
            (Protocol::Http, get, "HTTP/1.1 200 OK\r\ncontent-LENGTH: 1024\r\nX: y\r\n\r\n", 1024, ""),
            (
                Protocol::Http,
                RANGE,
                "HTTP/1.1 206 P\r\nContent-Length: 20\r\nContent-Range: bytes 10-29/1024\r\n\r\n",
                20,
                "",
            ),
            (Protocol::Http, PUT, "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\n", 5, ""),
            (Protocol::Http, PUT, "HTTP/1.1 204 No Content\r\n\r\n", 0, ""),
            (Protocol::Redis, get, "$1024\r\n", 1024, "\r\n"),
            (Protocol::Redis, PUT, "+OK\r\n", 0, ""),
            (Protocol::Memcached, get, "VALUE get-1024-7 0 1024\r\n", 1024, "\r\nEND\r\n"),
            (Protocol::Memcached, PUT, "STORED\r\n", 0, ""),
        ] {
            let answer = parse(protocol, &request, head).unwrap();
            assert_eq!((answer.body, answer.ending), (body, ending.as_bytes()), "{head}");
        }
    }

    #[test]
    fn anything_else_is_a_problem_with_a_name() {
        let get = Request::get(VALUE);
        let status = |text: &str| Problem::Status(text.into());
        for (protocol, request, head, problem) in [
            (Protocol::Http, get, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", status("404")),
            (Protocol::Http, get, "HTTP/1.1 206 P\r\nContent-Length: 1024\r\n\r\n", status("206")),
            (Protocol::Http, RANGE, "HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n", status("200")),
            (
                Protocol::Http,
                RANGE,
                "HTTP/1.1 206 P\r\nContent-Length: 20\r\nContent-Range: bytes 0-19/1024\r\n\r\n",
                Problem::Range("bytes 0-19/1024".into()),
            ),
            (
                Protocol::Http,
                get,
                "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
                Problem::Length { got: 1000, expected: 1024 },
            ),
            (Protocol::Redis, get, "$-1\r\n", Problem::Miss),
            (Protocol::Redis, get, "-ERR no\r\n", status("-ERR no")),
            (Protocol::Redis, get, "$9\r\n", Problem::Length { got: 9, expected: 1024 }),
            (Protocol::Redis, PUT, "-OOM\r\n", status("-OOM")),
            (Protocol::Memcached, get, "END\r\n", Problem::Miss),
            (Protocol::Memcached, PUT, "SERVER_ERROR x\r\n", status("SERVER_ERROR x")),
        ] {
            assert_eq!(parse(protocol, &request, head), Err(problem), "{head}");
        }
        for (protocol, request, head) in [
            (Protocol::Http, get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1024\r\n\r\n"),
            (Protocol::Http, get, "HTTP/1.1 200 OK\r\n\r\n"),
            (Protocol::Http, get, "SSH-2.0-OpenSSH\r\n"),
            (Protocol::Redis, get, "$x\r\n"),
            (Protocol::Memcached, get, "VALUE get-1024-8 0 1024\r\n"),
            (Protocol::Memcached, get, &"x".repeat(600)),
        ] {
            let outcome = protocol.parse(&request, head.as_bytes());
            assert!(matches!(outcome, Err(Problem::Malformed(_))), "{head}: {outcome:?}");
        }
    }
}
