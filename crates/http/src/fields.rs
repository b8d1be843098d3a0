//! The headers of a request that mean something here. All others are passed over, so that an ordinary GET collects
//! nothing.

use crate::problem::Problem;

/// A header that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Accept,
    Range,
    IfRange,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    ContentType,
    ContentEncoding,
    ContentDisposition,
    ContentRange,
    ContentDigest,
    ReprDigest,
    CacheControl,
    Expect,
    Origin,
    RequestMethod,
    RequestHeaders,
    Ttl,
    Flags,
    NoMemory,
    NoDisk,
    NoCluster,
    OperationId,
    UploadId,
    Size,
    Meta,
}

/// By length, then by name: most headers of a request are told apart from all of these by their length alone.
const NAMES: [(&str, Field); 26] = [
    ("range", Field::Range),
    ("accept", Field::Accept),
    ("expect", Field::Expect),
    ("origin", Field::Origin),
    ("if-match", Field::IfMatch),
    ("if-range", Field::IfRange),
    ("repr-digest", Field::ReprDigest),
    ("content-type", Field::ContentType),
    ("cache-control", Field::CacheControl),
    ("content-range", Field::ContentRange),
    ("if-none-match", Field::IfNoneMatch),
    ("x-elcache-ttl", Field::Ttl),
    ("content-digest", Field::ContentDigest),
    ("x-elcache-size", Field::Size),
    ("x-elcache-flags", Field::Flags),
    ("content-encoding", Field::ContentEncoding),
    ("x-elcache-no-disk", Field::NoDisk),
    ("if-modified-since", Field::IfModifiedSince),
    ("x-elcache-no-memory", Field::NoMemory),
    ("content-disposition", Field::ContentDisposition),
    ("x-elcache-upload-id", Field::UploadId),
    ("if-unmodified-since", Field::IfUnmodifiedSince),
    ("x-elcache-no-cluster", Field::NoCluster),
    ("x-elcache-operation-id", Field::OperationId),
    ("access-control-request-method", Field::RequestMethod),
    ("access-control-request-headers", Field::RequestHeaders),
];
const META_PREFIX: &[u8] = b"x-elcache-meta-";

impl Field {
    fn of(name: &[u8]) -> Option<Self> {
        for (known, field) in NAMES {
            if known.len() > name.len() {
                break;
            }
            if known.len() == name.len() && known.as_bytes().eq_ignore_ascii_case(name) {
                return Some(field);
            }
        }
        let prefix = name.get(..META_PREFIX.len())?;
        (name.len() > META_PREFIX.len() && prefix.eq_ignore_ascii_case(META_PREFIX)).then_some(Self::Meta)
    }

    fn name(self) -> &'static str {
        NAMES.iter().find(|(_, field)| *field == self).map_or("x-elcache-meta-*", |(name, _)| name)
    }
}

/// Those of one request, in the order in which they were sent.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(Vec<Line<'a>>);

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) field: Field,
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Picks them out.
    pub(crate) fn collect(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let line = |(name, value)| Field::of(name).map(|field| Line { field, name, value });
        Self(headers.filter_map(line).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line<'a>> {
        self.0.iter()
    }

    /// Every value of a header that may stand several times.
    pub(crate) fn all(&self, field: Field) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |line| line.field == field).map(|line| line.value)
    }

    /// The value of a header that is ignored when it stands twice.
    pub(crate) fn only(&self, field: Field) -> Option<&'a [u8]> {
        self.single(field).ok().flatten()
    }

    /// The value of a header that may not stand twice.
    pub(crate) fn single(&self, field: Field) -> Result<Option<&'a [u8]>, Problem> {
        let mut values = self.all(field);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Problem::bad(format!("The header {} stands twice. Send it once.", field.name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_sorted_by_length() {
        assert!(NAMES.is_sorted_by_key(|(name, _)| name.len()));
        for (name, field) in NAMES {
            assert_eq!(Field::of(name.to_uppercase().as_bytes()), Some(field));
            assert_eq!(field.name(), name);
        }
        assert_eq!(Field::of(b"X-ElCache-Meta-A"), Some(Field::Meta));
        for other in ["", "host", "x-elcache-meta-", "x-elcache-mets-a", "rangf"] {
            assert_eq!(Field::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_stands_twice() {
        let headers = [(&b"Range"[..], &b"a"[..]), (b"X", b"y"), (b"range", b"b")];
        let fields = Fields::collect(headers.into_iter());
        assert!(fields.all(Field::Range).eq([b"a", b"b"]));
        assert_eq!(fields.only(Field::Range), None);
        assert_eq!(fields.single(Field::Range).unwrap_err().status, 400);
        assert_eq!(fields.single(Field::IfRange), Ok(None));
    }
}
