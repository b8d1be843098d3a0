//! Preconditions of reads and writes (RFC 9110 section 13), freed of their HTTP form.

use crate::digest::Digest;
use crate::value::Metadata;

/// What a client said the current value must be, or must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any value at all.
    Any,
    /// One of these values. Tags that cannot be of ours are left out, since they match nothing.
    OneOf(Vec<Digest>),
}

impl Tags {
    fn match_value(&self, current: Option<&Metadata>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::OneOf(digests), Some(meta)) => digests.contains(&meta.digest),
        }
    }
}

/// The conditions under which a write happens. The default is: always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `If-Match`.
    pub if_match: Option<Tags>,
    /// `If-None-Match`.
    pub if_none_match: Option<Tags>,
    /// `If-Unmodified-Since`, in seconds since 1970. Looked at only without `if_match`.
    pub unmodified_since: Option<u64>,
}

impl Condition {
    /// Whether a write may go ahead, given the value that it would replace.
    pub fn holds(&self, current: Option<&Metadata>) -> bool {
        let matches = match (&self.if_match, self.unmodified_since, current) {
            (Some(tags), _, _) => tags.match_value(current),
            (None, Some(since), Some(meta)) => meta.modified_ms / 1000 <= since,
            (None, _, _) => true,
        };
        matches && !self.if_none_match.as_ref().is_some_and(|tags| tags.match_value(current))
    }

    /// True when it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Version;

    fn value(byte: u8) -> Metadata {
        Metadata::new(1, Digest([byte; 32]), Version::default(), 5_500)
    }

    #[test]
    fn if_match_wants_the_value_it_names() {
        let only =
            |byte| Condition { if_match: Some(Tags::OneOf(vec![Digest([byte; 32])])), ..Default::default() };
        let any = Condition { if_match: Some(Tags::Any), ..Default::default() };
        assert!(only(1).holds(Some(&value(1))));
        assert!(!only(2).holds(Some(&value(1))));
        assert!(!only(1).holds(None));
        assert!(any.holds(Some(&value(9))) && !any.holds(None));
    }

    #[test]
    fn if_none_match_star_is_put_if_absent() {
        let absent = Condition { if_none_match: Some(Tags::Any), ..Default::default() };
        assert!(absent.holds(None));
        assert!(!absent.holds(Some(&value(1))));
    }

    #[test]
    fn unmodified_since_yields_to_if_match_and_counts_whole_seconds() {
        let since = |s| Condition { unmodified_since: Some(s), ..Default::default() };
        assert!(since(5).holds(Some(&value(1))));
        assert!(!since(4).holds(Some(&value(1))));
        assert!(since(0).holds(None));
        let both = Condition { if_match: Some(Tags::Any), ..since(0) };
        assert!(both.holds(Some(&value(1))));
    }
}
