//! Byte ranges (RFC 9110 section 14): what a client asked for, and which spans of a value that selects.

use elcache_core::span::Span;

use crate::text::{self, NumberError};

/// More parts than this, as sent, are answered with the whole value.
pub const MAX_PARTS: usize = 16;

/// One range as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-` or `first-last`, both included.
    From(u64, Option<u64>),
    /// `-length`: the last bytes.
    Last(u64),
}

/// What part of a value a client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// All of it.
    #[default]
    Whole,
    /// One range.
    One(RangeSpec),
    /// Two to [`MAX_PARTS`] ranges.
    Many(Vec<RangeSpec>),
}

/// What a value of known size gives for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The whole value, answered with `200`.
    Whole,
    /// One part, answered with `206`.
    One(Span),
    /// Several parts in the order in which they were asked for, answered with `206` and `multipart/byteranges`.
    Many(Vec<Span>),
    /// Nothing of it exists: `416`.
    Unsatisfiable,
}

impl Ranges {
    /// Reads the value of a `Range` header. Whatever is malformed, of another unit or of too many parts asks for
    /// the whole (section 14.2: such a header is ignored).
    pub fn parse(value: &[u8]) -> Self {
        Self::parse_set(value).unwrap_or_default()
    }

    fn parse_set(value: &[u8]) -> Option<Self> {
        let (unit, set) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let mut specs = text::list(set);
        let first = RangeSpec::parse(specs.next()?)?;
        let Some(second) = specs.next() else { return Some(Self::One(first)) };
        let mut many = vec![first, RangeSpec::parse(second)?];
        for spec in specs {
            if many.len() == MAX_PARTS {
                return None;
            }
            many.push(RangeSpec::parse(spec)?);
        }
        Some(Self::Many(many))
    }

    /// Chooses the spans that exist in a value of `size` bytes.
    pub fn select(&self, size: u64) -> Selection {
        match self {
            Self::Whole => Selection::Whole,
            Self::One(spec) => match spec.span(size) {
                Some(span) => select_one(span),
                None => Selection::Unsatisfiable,
            },
            Self::Many(specs) => select_many(specs.iter().filter_map(|spec| spec.span(size)).collect(), size),
        }
    }
}

/// The last bytes of an empty value are no bytes, which `Content-Range` cannot say.
fn select_one(span: Span) -> Selection {
    if span.is_empty() { Selection::Whole } else { Selection::One(span) }
}

fn select_many(spans: Vec<Span>, size: u64) -> Selection {
    // At most 16 spans of at most 2^64 - 1 bytes: the sum fits 128 bits.
    let sum: u128 = spans.iter().map(|span| u128::from(span.len())).sum();
    match spans[..] {
        [] => Selection::Unsatisfiable,
        [span] => select_one(span),
        _ if size == 0 || sum > u128::from(size) => Selection::Whole,
        _ => Selection::Many(spans),
    }
}

impl RangeSpec {
    fn parse(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
        match (first, last) {
            ([], last) => Some(Self::Last(offset(last)?)),
            (first, []) => Some(Self::From(offset(first)?, None)),
            (first, last) => {
                let (first, last) = (offset(first)?, offset(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    fn span(&self, size: u64) -> Option<Span> {
        match *self {
            Self::Last(0) => None,
            Self::Last(length) => Span::new(size.saturating_sub(length), size),
            Self::From(first, _) if first >= size => None,
            Self::From(first, last) => {
                Span::new(first, last.map_or(size, |last| last.saturating_add(1).min(size)))
            }
        }
    }
}

/// No value reaches behind `u64`, so an offset there means the same as the last one.
fn offset(digits: &[u8]) -> Option<u64> {
    match text::parse_decimal(digits) {
        Ok(offset) => Some(offset),
        Err(NumberError::TooLarge) => Some(u64::MAX),
        Err(NumberError::Malformed) => None,
    }
}

/// Reads the value of the query member `range`: `OFFSET-LENGTH`, with a length of at least 1.
pub fn parse_query(value: &[u8]) -> Option<Ranges> {
    let dash = value.iter().position(|&byte| byte == b'-')?;
    let (first, length) = (offset(value.get(..dash)?)?, offset(value.get(dash + 1..)?)?);
    let last = first.saturating_add(length.checked_sub(1)?);
    Some(Ranges::One(RangeSpec::From(first, Some(last))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(start: u64, end: u64) -> Span {
        Span::new(start, end).unwrap()
    }

    fn select(header: &str, size: u64) -> Selection {
        Ranges::parse(header.as_bytes()).select(size)
    }

    /// The bytes of a value of `size` that one range names, found by looking at every one of them.
    fn naive(spec: &str, size: u64) -> Vec<u64> {
        let (first, last) = spec.split_once('-').unwrap();
        let number = |text: &str| text.parse::<u64>().unwrap();
        let named = |at: &u64| match (first, last) {
            ("", length) => *at + number(length) >= size,
            (first, "") => *at >= number(first),
            (first, last) => (number(first)..=number(last)).contains(at),
        };
        (0..size).filter(named).collect()
    }

    fn spec() -> impl Strategy<Value = String> {
        prop_oneof![
            (0_u64..40).prop_map(|first| format!("{first}-")),
            (0_u64..40).prop_map(|length| format!("-{length}")),
            (0_u64..40, 0_u64..40).prop_map(|(first, more)| format!("{first}-{}", first + more)),
        ]
    }

    proptest! {
        #[test]
        fn ranges_select_what_a_naive_reading_selects(specs in proptest::collection::vec(spec(), 1..20), size in 1_u64..40) {
            let header = format!("bytes={}", specs.join(", "));
            let expected: Vec<_> = specs.iter().map(|spec| naive(spec, size)).filter(|bytes| !bytes.is_empty()).collect();
            let sum: usize = expected.iter().map(Vec::len).sum();
            let bytes = |span: &Span| (span.start()..span.end()).collect::<Vec<_>>();
            match select(&header, size) {
                Selection::Whole => prop_assert!(specs.len() > MAX_PARTS || (expected.len() > 1 && sum as u64 > size)),
                Selection::Unsatisfiable => prop_assert!(expected.is_empty()),
                Selection::One(span) => prop_assert_eq!(vec![bytes(&span)], expected),
                Selection::Many(spans) => prop_assert_eq!(spans.iter().map(bytes).collect::<Vec<_>>(), expected),
            }
        }

        #[test]
        fn any_bytes_and_any_size_are_answered_without_a_panic(header in proptest::collection::vec(any::<u8>(), 0..60), size in any::<u64>()) {
            let prefixed = [b"bytes=", &header[..]].concat();
            for header in [&header, &prefixed] {
                if let Selection::One(span) = Ranges::parse(header).select(size) {
                    prop_assert!(span.end() <= size && !span.is_empty());
                }
                let _ = parse_query(header);
            }
        }

        #[test]
        fn the_query_names_an_offset_and_a_length(first in 0_u64..50, length in 1_u64..50, size in 1_u64..60) {
            let ranges = parse_query(format!("{first}-{length}").as_bytes()).unwrap();
            let expected = if first >= size { Selection::Unsatisfiable } else { Selection::One(span(first, (first + length).min(size))) };
            prop_assert_eq!(ranges.select(size), expected);
        }
    }

    #[test]
    fn what_is_malformed_or_of_another_unit_asks_for_the_whole() {
        let headers = [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=1-2,x",
            "items=0-1",
            "bytes =0-1",
            "bytes=0 -1",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=--1",
        ];
        for header in headers {
            assert_eq!(select(header, 10), Selection::Whole, "{header:?}");
        }
    }

    #[test]
    fn what_is_well_formed_and_nowhere_cannot_be_satisfied() {
        for header in
            ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=10-,11-12", "bytes=99999999999999999999-"]
        {
            assert_eq!(select(header, 10), Selection::Unsatisfiable, "{header:?}");
        }
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn ends_are_clipped_and_units_have_no_case() {
        assert_eq!(select("Bytes=7-99999999999999999999", 10), Selection::One(span(7, 10)));
        assert_eq!(select("bytes=-99999999999999999999", 10), Selection::One(span(0, 10)));
        assert_eq!(select("bytes= 0-0 , ", 10), Selection::One(span(0, 1)));
        assert_eq!(select("bytes=-1", 0), Selection::Whole);
    }

    #[test]
    fn parts_that_add_up_to_more_than_the_value_give_the_whole() {
        assert_eq!(select("bytes=0-4,5-9", 10), Selection::Many(vec![span(0, 5), span(5, 10)]));
        assert_eq!(select("bytes=0-5,5-9", 10), Selection::Whole);
        assert_eq!(select("bytes=0-0,20-30", 10), Selection::One(span(0, 1)));
        let sixteen = |n| format!("bytes={}", vec!["1-1"; n].join(","));
        assert!(matches!(select(&sixteen(16), 100), Selection::Many(spans) if spans.len() == 16));
        assert_eq!(select(&sixteen(17), 100), Selection::Whole);
    }

    #[test]
    fn a_query_of_no_bytes_is_malformed() {
        for bad in ["", "5", "-5", "5-", "5-0", "a-1", "1-2-3", " 1-2"] {
            assert_eq!(parse_query(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_query(b"2-3"), Some(Ranges::One(RangeSpec::From(2, Some(4)))));
    }
}
