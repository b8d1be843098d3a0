//! `Content-Range` of a request (RFC 9110 section 14.4): which bytes of a value its body is.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice)]

use elcache_core::span::Span;

use crate::text::parse_decimal;

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes, at least one.
    pub span: Span,
    /// The length of the whole, at least up to the end of the span, where it is not `*`.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes first-last/total`. `None` for anything else: a body cannot be written to a range that is not valid, so
    /// nothing is guessed or passed over, and a last byte of 2^64 - 1 has no end that could be written down.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, rest) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let (range, total) = split_once(rest, b'/')?;
        let (first, last) = split_once(range, b'-')?;
        let end = parse_decimal(last).ok()?.checked_add(1)?;
        let span = Span::new(parse_decimal(first).ok()?, end).filter(|span| !span.is_empty())?;
        let total = match total {
            b"*" => None,
            digits => Some(parse_decimal(digits).ok().filter(|total| *total >= end)?),
        };
        Some(Self { span, total })
    }
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(memchr::memchr(separator, bytes)?)?;
    Some((before, rest.get(1..)?))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "nothing here comes from outside")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(value: &str) -> Option<(u64, u64, Option<u64>)> {
        let range = ContentRange::parse(value.as_bytes())?;
        Some((range.span.start(), range.span.end(), range.total))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(first in any::<u64>(), more in any::<u64>(), behind in any::<u64>(), shift in 0_u32..64) {
            let (first, more, behind) = (first >> shift, more >> shift, behind >> shift);
            let (last, total) = (u128::from(first) + u128::from(more), u128::from(first) + u128::from(more) + 1 + u128::from(behind));
            let fits = total <= u128::from(u64::MAX);
            let end = |last: u128| u64::try_from(last + 1).ok();
            prop_assert_eq!(parse(&format!("bytes {first}-{last}/{total}")), end(last).filter(|_| fits).map(|end| (first, end, Some(total as u64))));
            prop_assert_eq!(parse(&format!("bytes {first}-{last}/*")), end(last).map(|end| (first, end, None)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'-'), Just(b'/'), b'0'..=b'9'], 0..60)) {
            for bytes in [bytes.clone(), [b"bytes ", &bytes[..]].concat()] {
                if let Some(ContentRange { span, total }) = ContentRange::parse(&bytes) {
                    prop_assert!(!span.is_empty() && total.is_none_or(|total| span.end() <= total));
                }
            }
        }
    }

    #[test]
    fn the_first_and_the_last_byte_that_there_can_be() {
        assert_eq!(parse("bytes 0-0/1"), Some((0, 1, Some(1))));
        assert_eq!(parse("BYTES 5-9/*"), Some((5, 10, None)));
        let last = u64::MAX - 1;
        assert_eq!(
            parse(&format!("bytes {last}-{last}/{}", u64::MAX)),
            Some((last, u64::MAX, Some(u64::MAX)))
        );
        assert_eq!(parse(&format!("bytes 0-{}/*", u64::MAX)), None);
        assert_eq!(parse("bytes 0-18446744073709551616/*"), None);
        assert_eq!(parse("bytes 0-0/18446744073709551616"), None);
    }

    #[test]
    fn what_is_no_range_of_a_body_is_refused() {
        let refused = [
            "",
            "bytes",
            "bytes ",
            "bytes=0-1/2",
            "bytes 0-1",
            "bytes 0-1/",
            "bytes */2",
            "bytes 0/2",
            "bytes -1/2",
            "bytes 0-/2",
            "bytes 1-0/2",
            "bytes 5-3/9",
            "bytes 0-2/2",
            "bytes  0-1/2",
            "bytes 0 -1/2",
            "bytes 0-1/2 ",
            "bytes 0-1/2/2",
            "bytes 0-1-2/3",
            "bytes +0-1/2",
            "bytes 0-1,2-3/4",
            "items 0-1/2",
            "bytes 0-1/**",
        ];
        for value in refused {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
