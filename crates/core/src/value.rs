//! What is kept with a value: its metadata, its version, its headers.

use bytes::Bytes;

use crate::digest::Digest;
use crate::key::KeyHash;
use crate::tier::Owner;
use crate::tree;

/// Orders the writes of one key: first by the view under which a write was accepted, then by the sequence number
/// that the key's primary gave it. A node alone is always in view 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// Number of the cluster view.
    pub view: u64,
    /// Number that the primary gave.
    pub sequence: u64,
}

/// The longest operation id, in bytes.
pub const MAX_OPERATION_LEN: usize = 64;

/// Names one write of one client, so that a retry recognises its own earlier success. 1 to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperationId(Bytes);

impl OperationId {
    /// `None` when there is no byte or more than [`MAX_OPERATION_LEN`].
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        (1..=MAX_OPERATION_LEN).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is known of a value besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 of the whole: the strong ETag.
    pub digest: Digest,
    /// Which write of the key this is.
    pub version: Version,
    /// The version that was reserved for it before it was committed, if its pages were written before that: they are under this one.
    pub draft: Option<Version>,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: u64,
    /// From when on it is gone, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// The client's own 32 bits.
    pub flags: u32,
    /// The id of the write, when the client sent one.
    pub operation: Option<OperationId>,
    /// Whether that write created the key, rather than replaced its value.
    pub created: bool,
    /// It is to be kept out of memory.
    pub no_memory: bool,
    /// It is to be kept off the disk.
    pub no_disk: bool,
    /// Headers that were stored with it and are given back.
    pub headers: KeptHeaders,
}

impl Metadata {
    /// What every value has; the rest is absent.
    pub fn new(size: u64, digest: Digest, version: Version, modified_ms: u64) -> Self {
        Self {
            size,
            digest,
            version,
            draft: None,
            modified_ms,
            expires_ms: None,
            flags: 0,
            operation: None,
            created: false,
            no_memory: false,
            no_disk: false,
            headers: KeptHeaders::default(),
        }
    }

    /// True when its time to live is over.
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// What its pages are addressed by, and its chunks are kept for.
    pub fn owner(&self, key: KeyHash) -> Owner {
        Owner { key, version: self.draft.unwrap_or(self.version) }
    }

    /// The number of its chunks.
    pub fn chunk_count(&self) -> u64 {
        tree::chunk_count(self.size)
    }
}

/// The most bytes that a value's kept headers take, names and lengths included.
pub const MAX_KEPT_HEADERS_LEN: usize = 60 << 10;

/// Headers kept with a value, in one run of bytes: for each a name length (u8), the name, a value length (u16,
/// little-endian), the value. The bytes are what tiers store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptHeaders(Bytes);

impl KeptHeaders {
    /// Takes bytes that [`KeptHeadersBuilder`] made. `None` when they are anything else.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = split_header(rest)?.2;
        }
        Some(Self(bytes))
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Names and values, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name, value, tail) = split_header(rest)?;
            rest = tail;
            Some((name, value))
        })
    }

    /// The value under this name, compared without regard to case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn split_header(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let (&name_len, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
    let (value_len, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*value_len)))?;
    Some((std::str::from_utf8(name).ok()?, value, rest))
}

/// Collects kept headers.
#[derive(Debug, Default)]
pub struct KeptHeadersBuilder(Vec<u8>);

/// A header that cannot be kept: its name or value is too long, or all of them are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersTooLarge;

impl KeptHeadersBuilder {
    /// Adds one header.
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), HeadersTooLarge> {
        let name_len = u8::try_from(name.len()).map_err(|_| HeadersTooLarge)?;
        let value_len = u16::try_from(value.len()).map_err(|_| HeadersTooLarge)?;
        if self.0.len() + name.len() + value.len() + 3 > MAX_KEPT_HEADERS_LEN {
            return Err(HeadersTooLarge);
        }
        self.0.push(name_len);
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(&value_len.to_le_bytes());
        self.0.extend_from_slice(value);
        Ok(())
    }

    /// The headers collected so far.
    pub fn finish(self) -> KeptHeaders {
        KeptHeaders(self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn kept_headers_come_back(headers in proptest::collection::vec(("[a-z-]{1,40}", proptest::collection::vec(any::<u8>(), 0..300)), 0..20)) {
            let mut builder = KeptHeadersBuilder::default();
            for (name, value) in &headers {
                builder.push(name, value).unwrap();
            }
            let kept = KeptHeaders::from_bytes(builder.finish().as_bytes().clone()).unwrap();
            let back: Vec<_> = kept.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
            prop_assert_eq!(back, headers);
        }

        #[test]
        fn any_other_bytes_are_refused_or_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(kept) = KeptHeaders::from_bytes(bytes.into()) {
                kept.iter().count();
            }
        }
    }

    #[test]
    fn headers_are_bounded() {
        let mut builder = KeptHeadersBuilder::default();
        assert_eq!(builder.push(&"x".repeat(256), b""), Err(HeadersTooLarge));
        assert_eq!(builder.push("x", &vec![0; 65_536]), Err(HeadersTooLarge));
        while builder.push("x", &[0; 1000]).is_ok() {}
        assert!(builder.finish().as_bytes().len() <= MAX_KEPT_HEADERS_LEN);
    }

    #[test]
    fn the_pages_of_a_value_are_under_its_draft_if_it_has_one() {
        let version = |sequence| Version { view: 1, sequence };
        let plain = Metadata::new(0, Digest([0; 32]), version(5), 0);
        let drafted = Metadata { draft: Some(version(3)), ..plain.clone() };
        let key = KeyHash([9; 16]);
        assert_eq!(plain.owner(key), Owner { key, version: version(5) });
        assert_eq!(drafted.owner(key), Owner { key, version: version(3) });
    }

    #[test]
    fn versions_order_by_view_then_sequence() {
        let version = |view, sequence| Version { view, sequence };
        assert!(version(1, 0) > version(0, u64::MAX));
        assert!(version(1, 2) > version(1, 1));
    }
}
