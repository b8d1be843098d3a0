//! Conditional requests (RFC 9110 section 13): the headers read, and judged in the order of section 13.2.2.

use elcache_core::condition::{Condition, Tags};
use elcache_core::digest::Digest;
use elcache_core::value::Metadata;

use crate::date;
use crate::text::trim;

/// How entity tags are compared (section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// A weak tag matches nothing.
    Strong,
    /// A weak tag matches like a strong one.
    Weak,
}

/// The conditions of a read. A write looks at `condition` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preconditions {
    /// What reads and writes have in common.
    pub(crate) condition: Condition,
    /// `If-Modified-Since`, in seconds since 1970.
    pub(crate) modified_since: Option<u64>,
}

/// What they come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// `304`.
    NotModified,
    /// `412`.
    Failed,
}

impl Preconditions {
    /// Judges a GET or HEAD of this value.
    pub(crate) fn judge(&self, meta: &Metadata) -> Verdict {
        if self.condition.is_empty() && self.modified_since.is_none() {
            return Verdict::Proceed;
        }
        let Condition { if_match, if_none_match, unmodified_since } = &self.condition;
        let first = Condition {
            if_match: if_match.clone(),
            if_none_match: None,
            unmodified_since: *unmodified_since,
        };
        if !first.holds(Some(meta)) {
            return Verdict::Failed;
        }
        let unchanged = match (if_none_match, self.modified_since) {
            (Some(Tags::Any), _) => true,
            (Some(Tags::OneOf(digests)), _) => digests.contains(&meta.digest),
            (None, Some(since)) => meta.modified_ms / 1000 <= since,
            (None, None) => false,
        };
        if unchanged { Verdict::NotModified } else { Verdict::Proceed }
    }
}

/// A list of entity tags that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadTags;

/// Reads the lines of `If-Match` or `If-None-Match` as one list. A tag without quotes is taken as it is, since that
/// is what people type. Tags that are none of ours are left out, since they match nothing.
pub(crate) fn parse_tags<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    comparison: Comparison,
) -> Result<Option<Tags>, BadTags> {
    let mut digests = Vec::new();
    let (mut any, mut some) = (false, false);
    for line in lines {
        let mut rest = trim(line);
        some = true;
        if rest == b"*" {
            any = true;
            continue;
        }
        while let Some((tag, tail)) = next_tag(rest)? {
            digests.extend(tag.digest(comparison));
            rest = tail;
        }
    }
    Ok(match (some, any) {
        (false, _) => None,
        (true, true) => Some(Tags::Any),
        (true, false) => Some(Tags::OneOf(digests)),
    })
}

struct Tag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl Tag<'_> {
    fn digest(&self, comparison: Comparison) -> Option<Digest> {
        if self.weak && comparison == Comparison::Strong { None } else { Digest::from_hex(self.opaque) }
    }
}

/// The first tag of a list and what follows it; `None` at the end.
fn next_tag(list: &[u8]) -> Result<Option<(Tag<'_>, &[u8])>, BadTags> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','));
    let Some(list) = start.and_then(|start| list.get(start..)) else { return Ok(None) };
    let (weak, list) = match list.strip_prefix(b"W/") {
        Some(rest) => (true, rest),
        None => (false, list),
    };
    let (opaque, rest) = match list.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = memchr::memchr(b'"', quoted).ok_or(BadTags)?;
            (quoted.get(..end).ok_or(BadTags)?, quoted.get(end + 1..).ok_or(BadTags)?)
        }
        None => {
            let (tag, rest) = list.split_at(memchr::memchr(b',', list).unwrap_or(list.len()));
            (bare_tag(tag)?, rest)
        }
    };
    match trim(rest).first() {
        None | Some(b',') => Ok(Some((Tag { weak, opaque }, rest))),
        Some(_) => Err(BadTags),
    }
}

fn bare_tag(tag: &[u8]) -> Result<&[u8], BadTags> {
    let tag = trim(tag);
    let stray = |byte: &u8| matches!(byte, b'"' | b'*' | b' ' | b'\t');
    if tag.is_empty() || tag.iter().any(stray) { Err(BadTags) } else { Ok(tag) }
}

/// `If-Range` (section 13.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfRange {
    /// The value must have this digest.
    Tag(Digest),
    /// The value must have been written in exactly this second.
    Date(u64),
    /// Something that no value of ours matches, a weak tag for one.
    Never,
}

impl IfRange {
    /// Reads the header.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let opaque = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        match Digest::from_hex(opaque.unwrap_or(value)) {
            Some(digest) => Self::Tag(digest),
            None => date::parse(value).map_or(Self::Never, Self::Date),
        }
    }

    /// Whether the range may be answered.
    pub(crate) fn holds(&self, meta: &Metadata) -> bool {
        match *self {
            Self::Tag(digest) => digest == meta.digest,
            Self::Date(seconds) => seconds == meta.modified_ms / 1000,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elcache_core::value::Version;
    use proptest::prelude::*;

    fn value() -> Metadata {
        Metadata::new(1, Digest([0xab; 32]), Version::default(), 5_500)
    }

    fn tags(list: &str, comparison: Comparison) -> Result<Option<Tags>, BadTags> {
        parse_tags([list.as_bytes()].into_iter(), comparison)
    }

    fn ours() -> String {
        "ab".repeat(32)
    }

    #[test]
    fn lists_of_tags() {
        let one = || Ok(Some(Tags::OneOf(vec![value().digest])));
        let none = Ok(Some(Tags::OneOf(Vec::new())));
        let hex = ours();
        for list in
            [format!("\"{hex}\""), hex.clone(), format!("\"a,b\" , \"{hex}\"\t,"), format!("x,{hex}, y")]
        {
            assert_eq!(tags(&list, Comparison::Strong), one(), "{list}");
        }
        assert_eq!(tags(&format!("W/\"{hex}\""), Comparison::Strong), none);
        assert_eq!(tags(&format!("W/\"{hex}\""), Comparison::Weak), one());
        assert_eq!(tags("", Comparison::Weak), none);
        assert_eq!(tags(" * ", Comparison::Weak), Ok(Some(Tags::Any)));
        assert_eq!(parse_tags(std::iter::empty(), Comparison::Weak), Ok(None));
        let lines = [b"\"x\"".as_slice(), hex.as_bytes()];
        assert_eq!(parse_tags(lines.into_iter(), Comparison::Strong), one());
        for bad in ["\"a", "\"a\"b", "a b", "*, \"a\"", "\"a\", *", "W/", "a\"b"] {
            assert_eq!(tags(bad, Comparison::Weak), Err(BadTags), "{bad}");
        }
    }

    #[test]
    fn reads_are_judged_in_the_order_of_the_rfc() {
        let digests = |digest| Some(Tags::OneOf(vec![digest]));
        let (same, other) = (value().digest, Digest([1; 32]));
        let judge = |if_match, unmodified_since, if_none_match, modified_since| {
            let condition = Condition { if_match, if_none_match, unmodified_since };
            Preconditions { condition, modified_since }.judge(&value())
        };
        assert_eq!(judge(None, None, None, None), Verdict::Proceed);
        assert_eq!(judge(digests(other), None, digests(same), None), Verdict::Failed);
        assert_eq!(judge(digests(same), Some(1), digests(same), None), Verdict::NotModified);
        assert_eq!(judge(None, Some(4), None, None), Verdict::Failed);
        assert_eq!(judge(None, Some(5), Some(Tags::Any), None), Verdict::NotModified);
        assert_eq!(judge(None, None, digests(other), Some(9)), Verdict::Proceed);
        assert_eq!(judge(None, None, None, Some(5)), Verdict::NotModified);
        assert_eq!(judge(None, None, None, Some(4)), Verdict::Proceed);
    }

    #[test]
    fn if_range_wants_the_very_value() {
        let holds = |header: &str| IfRange::parse(header.as_bytes()).holds(&value());
        assert!(holds(&format!("\"{}\"", ours())) && holds("Thu, 01 Jan 1970 00:00:05 GMT"));
        for other in
            [format!("W/\"{}\"", ours()), "Thu, 01 Jan 1970 00:00:06 GMT".into(), "\"x\"".into(), "".into()]
        {
            assert!(!holds(&other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b','), Just(b'W'), Just(b'/')], 0..40)) {
            let _ = parse_tags([&bytes[..]].into_iter(), Comparison::Weak);
            IfRange::parse(&bytes);
        }
    }
}
