//! An answer: status, headers in one run of bytes, and a plan for the body. Knows no connection and no socket.

use elcache_core::payload::Payload;
use elcache_core::span::Span;
use elcache_engine::Value;

use crate::stream::Stream;
use crate::text;

/// Header lines as HTTP/1.1 writes them, `Name: value` and CRLF each.
#[derive(Debug, Default)]
pub(crate) struct Headers(Vec<u8>);

impl Headers {
    /// Uses this buffer, emptied.
    pub(crate) fn in_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self(buffer)
    }

    /// Gives the buffer back.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds finished lines, each with its CRLF.
    pub(crate) fn line(&mut self, lines: &'static str) {
        self.0.extend_from_slice(lines.as_bytes());
    }

    /// Adds what another one holds.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Adds a header. The value must come from a parser that refuses control characters, or from here.
    pub(crate) fn text(&mut self, name: &str, value: &[u8]) {
        self.write(name, |out| out.extend_from_slice(value));
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.write(name, |out| text::push_decimal(out, value));
    }

    /// Adds a header whose value `fill` appends.
    pub(crate) fn write(&mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        fill(&mut self.0);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Names and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|&byte| byte == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            Some((line.get(..colon)?, line.get(colon + 2..)?))
        })
    }
}

/// What a request is answered with.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Body,
    /// `Content-Length`. None where there can be no content.
    pub(crate) length: Option<u64>,
    /// The connection cannot be used any further.
    pub(crate) close: bool,
}

/// Where the body comes from.
#[expect(clippy::large_enum_variant, reason = "a box would cost every small GET an allocation")]
pub(crate) enum Body {
    /// There is none.
    None,
    /// These bytes.
    Text(Vec<u8>),
    /// A few bytes of a value that is here, cheaper copied than referred to.
    Small(Value, Span),
    /// Read as it goes out.
    Stream(Box<Stream>),
}

impl Response {
    /// An answer without content, such as 204.
    pub(crate) fn bare(status: u16, headers: Headers) -> Self {
        Self { status, headers, body: Body::None, length: None, close: false }
    }

    /// A document. A HEAD gets only its length.
    pub(crate) fn document(
        mut headers: Headers,
        status: u16,
        content_type: &str,
        document: Vec<u8>,
        head_only: bool,
    ) -> Self {
        headers.text("Content-Type", content_type.as_bytes());
        let length = Some(document.len() as u64);
        let body = if head_only { Body::None } else { Body::Text(document) };
        Self { status, headers, body, length, close: false }
    }
}

/// Appends the bytes of `span` to `out`.
pub(crate) fn copy_span(payload: &Payload, span: Span, out: &mut Vec<u8>) {
    let (mut skip, mut left) = (span.start(), span.len());
    for piece in payload.pieces() {
        let piece_len = piece.len() as u64;
        let from = skip.min(piece_len);
        let to = (from + left.min(piece_len - from)).min(piece_len);
        out.extend_from_slice(piece.get(from as usize..to as usize).unwrap_or_default());
        skip -= from;
        left -= to - from;
    }
}

/// The reason phrase of a status.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_copied_span_is_the_span(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6),
            from in 0_usize..130, len in 0_usize..130,
        ) {
            let whole = pieces.concat();
            let (from, to) = (from.min(whole.len()), (from + len).min(whole.len()));
            let mut payload = Payload::new();
            pieces.into_iter().for_each(|piece| payload.push(piece.into()));
            let mut out = b"x".to_vec();
            let span = Span::new(from.min(to) as u64, to as u64).unwrap();
            copy_span(&payload, span, &mut out);
            prop_assert_eq!(&out[1..], &whole[from.min(to)..to]);
        }
    }

    #[test]
    fn headers_read_as_they_were_added() {
        let mut headers = Headers::default();
        headers.text("ETag", b"\"a: b\"");
        headers.number("Age", 7);
        headers.line("X-A: 1\r\nX-B: \r\n");
        let read: Vec<_> = headers.iter().collect();
        let expected: [(&[u8], &[u8]); 4] =
            [(b"ETag", b"\"a: b\""), (b"Age", b"7"), (b"X-A", b"1"), (b"X-B", b"")];
        assert_eq!(read, expected);
    }
}
