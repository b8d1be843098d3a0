//! `multipart/byteranges` (RFC 9110 section 14.6): several spans of one value in one body.

use std::collections::VecDeque;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::span::Span;

use crate::stream::Part;
use crate::text;

/// The delimiters of one answer.
pub(crate) struct Multipart<'a> {
    pub(crate) boundary: Vec<u8>,
    pub(crate) content_type: &'a [u8],
    pub(crate) size: u64,
}

/// The boundary for parts of a value. It is made of the value's own digest: a value in which that occurs cannot be found.
pub(crate) fn boundary_of(digest: &Digest) -> Vec<u8> {
    let hex = digest.to_hex();
    [b"elcache-", hex.get(..40).unwrap_or_default()].concat()
}

impl Multipart<'_> {
    /// The value of `Content-Type`.
    pub(crate) fn content_type(&self) -> Vec<u8> {
        [b"multipart/byteranges; boundary=", &self.boundary[..]].concat()
    }

    /// The whole body, and its length.
    pub(crate) fn parts(&self, spans: &[Span]) -> (VecDeque<Part>, u64) {
        let mut parts = VecDeque::with_capacity(spans.len() * 2 + 1);
        let mut length = 0_u64;
        for (number, &span) in spans.iter().enumerate() {
            let opening = self.opening(span, number == 0);
            length = length.saturating_add(opening.len() as u64).saturating_add(span.len());
            parts.push_back(Part::Text(opening));
            parts.push_back(Part::Span(span));
        }
        let closing = self.closing();
        length = length.saturating_add(closing.len() as u64);
        parts.push_back(Part::Text(closing));
        (parts, length)
    }

    /// What stands before a part. The line break that ends the part before belongs to it.
    fn opening(&self, span: Span, is_first: bool) -> Bytes {
        let mut out = if is_first { b"--".to_vec() } else { b"\r\n--".to_vec() };
        out.extend_from_slice(&self.boundary);
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(self.content_type);
        out.extend_from_slice(b"\r\nContent-Range: ");
        push_content_range(&mut out, span, self.size);
        out.extend_from_slice(b"\r\n\r\n");
        out.into()
    }

    /// What stands behind the last part.
    fn closing(&self) -> Bytes {
        [&b"\r\n--"[..], &self.boundary, b"--\r\n"].concat().into()
    }
}

/// Appends the value of `Content-Range`. The span is not empty.
pub(crate) fn push_content_range(out: &mut Vec<u8>, span: Span, size: u64) {
    out.extend_from_slice(b"bytes ");
    text::push_decimal(out, span.start());
    out.push(b'-');
    text::push_decimal(out, span.end().saturating_sub(1));
    out.push(b'/');
    text::push_decimal(out, size);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_two_parts() {
        let digest = Digest([0xab; 32]);
        let parts = Multipart { boundary: boundary_of(&digest), content_type: b"text/plain", size: 100 };
        let boundary = format!("elcache-{}", "ab".repeat(20));
        assert_eq!(parts.content_type(), format!("multipart/byteranges; boundary={boundary}").as_bytes());
        let opening = parts.opening(Span::new(2, 5).unwrap(), false);
        let expected =
            format!("\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 2-4/100\r\n\r\n");
        assert_eq!(opening, expected.as_bytes());
        assert_eq!(parts.opening(Span::new(2, 5).unwrap(), true), &expected.as_bytes()[2..]);
        assert_eq!(parts.closing(), format!("\r\n--{boundary}--\r\n").as_bytes());
    }
}
