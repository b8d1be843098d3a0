//! How a record of the memory tier is laid out. Fields that most values do without take no room.
//!
//! ```text
//! kind u8 | fields u8 | name length u16 | name
//!   value, root:  digest 32 | sequence u64 | modified u48 | the fields that `fields` names, in this order:
//!                 view u64 | draft: view u64, sequence u64 | expires u64 | flags u32 | operation: length u8, bytes |
//!                 headers: length u16, bytes; then, in a root alone: size u64
//!   chunk:        its number in a value, u64
//!   page:         nothing
//! then the rest of the body: what is left of it behind its whole pages
//! ```
//! Numbers are little-endian. Names: of a value or root its key; of a page the owner's key hash, view, sequence and
//! the page's number; of a chunk its digest. Times are milliseconds since 1970 and fit 48 bits for 8900 years.

use elcache_core::digest::Digest;
use elcache_core::key::KeyHash;
use elcache_core::tier::{ChunkRef, Leaving, Owner, PageRef};
use elcache_core::value::{KeptHeaders, Metadata, OperationId, Version};

use bytes::Bytes;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value of at most one chunk, with its bytes.
    Value = 1,
    /// The root of a larger value.
    Root = 2,
    /// A page of a manifest.
    Page = 3,
    /// A chunk.
    Chunk = 4,
}

impl Kind {
    fn from_u8(byte: u8) -> Option<Self> {
        [Self::Value, Self::Root, Self::Page, Self::Chunk].into_iter().find(|kind| *kind as u8 == byte)
    }
}

const VIEW: u8 = 1;
const DRAFT: u8 = 2;
const EXPIRES: u8 = 4;
const FLAGS: u8 = 8;
const OPERATION: u8 = 16;
const HEADERS: u8 = 32;
const CREATED: u8 = 64;
const NO_DISK: u8 = 128;

/// Bytes before the name.
const PREFIX: usize = 4;
const U48: usize = 6;

/// The bytes before the body of a page or chunk.
pub(crate) fn encode_plain(kind: Kind, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + name.len());
    encode_name(&mut out, kind, 0, name);
    out
}

/// The bytes before the body of a value or root.
pub(crate) fn encode_value(kind: Kind, key: &[u8], meta: &Metadata) -> Vec<u8> {
    let headers = meta.headers.as_bytes();
    let operation = meta.operation.as_ref().map_or(&[][..], OperationId::as_bytes);
    let field = |present: bool, bit: u8| if present { bit } else { 0 };
    let fields = field(meta.version.view != 0, VIEW)
        | field(meta.draft.is_some(), DRAFT)
        | field(meta.expires_ms.is_some(), EXPIRES)
        | field(meta.flags != 0, FLAGS)
        | field(!operation.is_empty(), OPERATION)
        | field(!headers.is_empty(), HEADERS)
        | field(meta.created, CREATED)
        | field(meta.no_disk, NO_DISK);
    let mut out = Vec::with_capacity(PREFIX + key.len() + 80 + operation.len() + headers.len());
    encode_name(&mut out, kind, fields, key);
    out.extend_from_slice(&meta.digest.0);
    out.extend_from_slice(&meta.version.sequence.to_le_bytes());
    out.extend_from_slice(&meta.modified_ms.to_le_bytes()[..U48]);
    let mut optional = |bit: u8, bytes: &[u8]| {
        if fields & bit != 0 {
            out.extend_from_slice(bytes);
        }
    };
    optional(VIEW, &meta.version.view.to_le_bytes());
    let draft = meta.draft.unwrap_or_default();
    optional(DRAFT, &draft.view.to_le_bytes());
    optional(DRAFT, &draft.sequence.to_le_bytes());
    optional(EXPIRES, &meta.expires_ms.unwrap_or_default().to_le_bytes());
    optional(FLAGS, &meta.flags.to_le_bytes());
    optional(OPERATION, &[operation.len() as u8]);
    optional(OPERATION, operation);
    optional(HEADERS, &(headers.len() as u16).to_le_bytes());
    optional(HEADERS, headers);
    if kind == Kind::Root {
        out.extend_from_slice(&meta.size.to_le_bytes());
    }
    out
}

fn encode_name(out: &mut Vec<u8>, kind: Kind, fields: u8, name: &[u8]) {
    out.extend_from_slice(&[kind as u8, fields]);
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name);
}

/// Whether a record's content bears this name. Quick: it is what every look-up does.
pub(crate) fn is_named(content: &[u8], kind: Kind, name: &[u8]) -> bool {
    let same_kind = match content.first() {
        // A key names a value or a root; the caller does not know which.
        Some(&byte) => byte == kind as u8 || (kind == Kind::Value && byte == Kind::Root as u8),
        None => false,
    };
    same_kind && content.get(2..4).is_some_and(|len| len == (name.len() as u16).to_le_bytes()) && {
        content.get(PREFIX..PREFIX + name.len()) == Some(name)
    }
}

/// The kind and the name of a record.
pub(crate) fn name_of(content: &[u8]) -> Option<(Kind, &[u8])> {
    let &[kind, _, len_low, len_high] = content.first_chunk::<PREFIX>()?;
    let len = usize::from(u16::from_le_bytes([len_low, len_high]));
    Some((Kind::from_u8(kind)?, content.get(PREFIX..PREFIX + len)?))
}

/// The bytes before the body of a chunk.
pub(crate) fn encode_chunk(chunk: &ChunkRef) -> Vec<u8> {
    let mut out = encode_plain(Kind::Chunk, &chunk_name(chunk));
    out.extend_from_slice(&chunk.number.to_le_bytes());
    out
}

/// The number in a value that a chunk came with.
pub(crate) fn chunk_number(content: &[u8]) -> Option<u64> {
    let (_, name) = name_of(content)?;
    content.get(PREFIX + name.len()..)?.first_chunk().map(|number| u64::from_le_bytes(*number))
}

/// Where the rest of the body begins in a page or chunk.
pub(crate) fn plain_body_at(content: &[u8]) -> usize {
    let after_name = |kind| if kind == Kind::Chunk { size_of::<u64>() } else { 0 };
    name_of(content).map_or(content.len(), |(kind, name)| PREFIX + name.len() + after_name(kind))
}

/// Whether a value is to be kept off the disk.
pub(crate) fn is_no_disk(content: &[u8]) -> bool {
    content.get(1).is_some_and(|fields| fields & NO_DISK != 0)
}

/// What a slower tier is asked about a record.
pub(crate) fn leaving(content: &[u8]) -> Option<Leaving<'_>> {
    let (kind, name) = name_of(content)?;
    Some(match kind {
        Kind::Value | Kind::Root => Leaving::Value(name),
        Kind::Page => Leaving::Page(PageRef::from_bytes(name)?),
        Kind::Chunk => Leaving::Chunk(Digest(*name.first_chunk()?)),
    })
}

/// When a value or root is over; `None` for what never is. For sweeping and look-ups, so without reading the rest.
pub(crate) fn expires_ms(content: &[u8]) -> Option<u64> {
    if content.get(1)? & EXPIRES == 0 {
        return None;
    }
    Reader::of_value(content)?.fields().expires_ms
}

/// A value's or root's metadata, and where the rest of its body begins. `body_len` is what its whole pages hold.
pub(crate) fn decode_value(content: &[u8], pages_len: usize) -> Option<(Metadata, usize)> {
    let mut reader = Reader::of_value(content)?;
    let fields = reader.fields();
    let body_at = reader.at;
    let rest = content.len().checked_sub(body_at)?;
    let meta = Metadata {
        size: fields.size.unwrap_or((pages_len + rest) as u64),
        digest: fields.digest,
        version: fields.version,
        draft: fields.draft,
        modified_ms: fields.modified_ms,
        expires_ms: fields.expires_ms,
        flags: fields.flags,
        operation: OperationId::new(Bytes::copy_from_slice(fields.operation)),
        created: content.get(1)? & CREATED != 0,
        // What is to be kept out of memory is not in it.
        no_memory: false,
        no_disk: content.get(1)? & NO_DISK != 0,
        headers: KeptHeaders::from_bytes(Bytes::copy_from_slice(fields.headers))?,
    };
    Some((meta, body_at))
}

/// The owner and the size of a root.
pub(crate) fn root_owner(content: &[u8], key: KeyHash) -> Option<(Owner, u64)> {
    let fields = Reader::of_value(content)?.fields();
    Some((Owner { key, version: fields.draft.unwrap_or(fields.version) }, fields.size?))
}

struct Fields<'a> {
    digest: Digest,
    version: Version,
    draft: Option<Version>,
    modified_ms: u64,
    size: Option<u64>,
    expires_ms: Option<u64>,
    flags: u32,
    operation: &'a [u8],
    headers: &'a [u8],
}

/// Reads a record that this module wrote: what would run over the end reads as zero.
struct Reader<'a> {
    content: &'a [u8],
    at: usize,
    fields: u8,
    is_root: bool,
}

impl<'a> Reader<'a> {
    fn of_value(content: &'a [u8]) -> Option<Self> {
        let (kind, name) = name_of(content)?;
        let is_root = kind == Kind::Root;
        Some(Self { content, at: PREFIX + name.len(), fields: *content.get(1)?, is_root })
    }

    fn fields(&mut self) -> Fields<'a> {
        let digest = Digest(self.array());
        let sequence = u64::from_le_bytes(self.array());
        let mut modified = [0; 8];
        modified[..U48].copy_from_slice(&self.array::<U48>());
        let view = self.optional(VIEW, Self::u64).unwrap_or(0);
        let draft = self.optional(DRAFT, |r| Version { view: r.u64(), sequence: r.u64() });
        Fields {
            digest,
            version: Version { view, sequence },
            draft,
            modified_ms: u64::from_le_bytes(modified),
            expires_ms: self.optional(EXPIRES, Self::u64),
            flags: self.optional(FLAGS, |r| u32::from_le_bytes(r.array())).unwrap_or(0),
            operation: self
                .optional(OPERATION, |r| {
                    let [len] = r.array();
                    r.bytes(usize::from(len))
                })
                .unwrap_or_default(),
            headers: self
                .optional(HEADERS, |r| {
                    let len = u16::from_le_bytes(r.array());
                    r.bytes(usize::from(len))
                })
                .unwrap_or_default(),
            size: self.is_root.then(|| self.u64()),
        }
    }

    fn optional<T>(&mut self, bit: u8, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.fields & bit != 0).then(|| read(self))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let array = self.content.get(self.at..).and_then(|rest| rest.first_chunk()).copied();
        self.at += N;
        array.unwrap_or([0; N])
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let bytes = self.content.get(self.at..self.at + len).unwrap_or_default();
        self.at += len;
        bytes
    }
}

/// The name of a chunk's record.
pub(crate) fn chunk_name(chunk: &ChunkRef) -> [u8; 32] {
    chunk.digest.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use elcache_core::value::KeptHeadersBuilder;
    use proptest::prelude::*;

    prop_compose! {
        fn metadata()(
            digest: [u8; 32], view in prop_oneof![Just(0), any::<u64>()], sequence: u64, modified_ms in 0_u64..1 << 48,
            expires_ms: Option<u64>, flags in prop_oneof![Just(0), any::<u32>()], created: bool, no_disk: bool,
            operation in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=64)), draft: Option<(u64, u64)>,
            headers in proptest::collection::vec(("[a-z-]{1,20}", proptest::collection::vec(any::<u8>(), 0..50)), 0..4),
        ) -> Metadata {
            let mut builder = KeptHeadersBuilder::default();
            headers.iter().for_each(|(name, value)| builder.push(name, value).unwrap());
            Metadata {
                size: 0, digest: Digest(digest), version: Version { view, sequence }, modified_ms, expires_ms, flags,
                draft: draft.map(|(view, sequence)| Version { view, sequence }),
                operation: operation.and_then(OperationId::new), created, no_memory: false, no_disk,
                headers: builder.finish(),
            }
        }
    }

    proptest! {
        #[test]
        fn metadata_comes_back(meta in metadata(), key in proptest::collection::vec(any::<u8>(), 1..100), size in 0_usize..100, root: bool) {
            let meta = Metadata { size: size as u64, ..meta };
            let kind = if root { Kind::Root } else { Kind::Value };
            let mut content = encode_value(kind, &key, &meta);
            let head = content.len();
            if !root {
                content.extend(vec![7; size]);
            }
            prop_assert!(is_named(&content, Kind::Value, &key));
            prop_assert!(!is_named(&content, Kind::Chunk, &key) && !is_named(&content, Kind::Value, &key[1..]));
            prop_assert_eq!(name_of(&content), Some((kind, &key[..])));
            prop_assert_eq!(expires_ms(&content), meta.expires_ms);
            let owner = meta.owner(KeyHash([1; 16]));
            prop_assert_eq!(root_owner(&content, owner.key), root.then_some((owner, meta.size)));
            prop_assert_eq!(decode_value(&content, 0), Some((meta, head)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (name_of(&content), expires_ms(&content), decode_value(&content, 5), plain_body_at(&content));
        }
    }

    #[test]
    fn a_plain_value_has_fifty_bytes_of_metadata() {
        let meta = Metadata::new(0, Digest([0; 32]), Version { view: 0, sequence: 1 }, 1);
        assert_eq!(encode_value(Kind::Value, b"key", &meta).len(), 50 + 3);
    }
}
