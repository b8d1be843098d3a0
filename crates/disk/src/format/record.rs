//! Records: what a log consists of.

use bytes::{Buf, BufMut, Bytes};
use elcache_core::digest::Digest;
use elcache_core::value::{KeptHeaders, Metadata, OperationId, Version};

use super::entries::Place;
use super::{Damaged, RECORD_ALIGN, Seeds, Spot, take, take_array};

/// Check and length, which come before what is checked and what an extent's head repeats.
pub(crate) const PREFIX: usize = 8;
/// Bytes before the name.
const FIXED: usize = 88;
/// The longest record.
pub(crate) const MAX_RECORD: usize = 128 << 10;

const EXTENT: u8 = 1;
const EXPIRES: u8 = 2;
const FLAGS: u8 = 4;
const OPERATION: u8 = 8;
const HEADERS: u8 = 16;
const CREATED: u8 = 32;
const NO_MEMORY: u8 = 64;
const DRAFT: u8 = 128;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A value of at most one chunk.
    Value = 1,
    /// The root of a larger value.
    Root = 2,
    /// A page of a manifest.
    Page = 3,
    /// A chunk.
    Chunk = 4,
    /// There is no value under this key.
    Tombstone = 5,
    /// What is in the log before it.
    Index = 6,
    /// An upload is open.
    Upload = 7,
    /// An upload is open no more.
    Closed = 8,
    /// Bytes of a chunk of a draft.
    Fragment = 9,
    /// A chunk of a draft is there as a whole.
    Filling = 10,
}

impl Kind {
    pub(crate) fn from_u8(byte: u8) -> Result<Self, Damaged> {
        let of_values = [Self::Value, Self::Root, Self::Page, Self::Chunk, Self::Tombstone, Self::Index];
        let of_drafts = [Self::Upload, Self::Closed, Self::Fragment, Self::Filling];
        of_values.into_iter().chain(of_drafts).find(|kind| *kind as u8 == byte).ok_or(Damaged)
    }
}

/// Where the payload of a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// In the record.
    Packed(Bytes),
    /// In the data file.
    Extent(Extent),
}

/// A place in the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Extent {
    /// The first block of its head.
    pub(crate) block: u32,
    /// Blocks in its head.
    pub(crate) head_blocks: u32,
    /// Bytes of its payload.
    pub(crate) len: u32,
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Self::Packed(bytes) => bytes.len(),
            Self::Extent(extent) => extent.len as usize,
        }
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) name: Bytes,
    pub(crate) meta: Metadata,
    pub(crate) body: Body,
}

impl Record {
    /// Its length in the log, without the zeros behind it.
    pub(crate) fn len(&self) -> usize {
        match &self.body {
            Body::Packed(bytes) => packed_len(&self.name, &self.meta, bytes.len()),
            Body::Extent(_) => extent_len(&self.name, &self.meta),
        }
    }

    /// Where it is, when it stands at `offset` of a log with `len` bytes.
    pub(crate) fn place(&self, offset: u64, len: usize) -> Place {
        match self.body {
            Body::Extent(extent) => Place::Data(extent),
            Body::Packed(_) => Place::Log { offset, len: len as u32 },
        }
    }

    /// Appends it as the record at `offset` of a log, zeros behind it included, and says how long it is without them.
    /// `batch` is where its batch began.
    pub(crate) fn encode(
        &self,
        out: &mut Vec<u8>,
        seeds: &Seeds,
        segment: u32,
        offset: u64,
        batch: u64,
    ) -> usize {
        let start = out.len();
        out.put_u64_le(0);
        let extent = if let Body::Extent(extent) = &self.body { Some(extent) } else { None };
        let batch = (batch / RECORD_ALIGN as u64) as u32;
        encode_plain(out, self.kind, &self.name, &self.meta, self.body.len() as u32, batch, extent);
        if let Body::Packed(bytes) = &self.body {
            out.put_slice(bytes);
        }
        close(out, start, seeds.seed(segment, Spot::Record, offset))
    }

    /// Reads the record at `offset` of a log. `bytes` begin there and hold it whole.
    pub(crate) fn decode(bytes: &Bytes, seeds: &Seeds, segment: u32, offset: u64) -> Result<Self, Damaged> {
        Self::decode_in_batch(bytes, seeds, segment, offset).map(|(record, _)| record)
    }

    /// As [`Record::decode`], with the place where its batch began.
    pub(crate) fn decode_in_batch(
        bytes: &Bytes,
        seeds: &Seeds,
        segment: u32,
        offset: u64,
    ) -> Result<(Self, u64), Damaged> {
        let mut rest = verified(bytes, seeds.seed(segment, Spot::Record, offset))?;
        let (plain, extent) = Plain::decode(&mut rest)?;
        let Plain { kind, name, meta, payload_len, batch } = plain;
        let body = match extent {
            Some((block, head_blocks)) => Body::Extent(Extent { block, head_blocks, len: payload_len }),
            None if rest.len() == payload_len as usize => Body::Packed(bytes.slice_ref(rest)),
            None => return Err(Damaged),
        };
        let batch = u64::from(batch) * RECORD_ALIGN as u64;
        Ok((Self { kind, name: bytes.slice_ref(name), meta, body }, batch))
    }
}

/// What stands in a record and in the head of an extent alike.
pub(crate) struct Plain<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a [u8],
    pub(crate) meta: Metadata,
    pub(crate) payload_len: u32,
    batch: u32,
}

/// Bytes of [`encode_plain`] without an extent.
pub(crate) fn plain_len(name: &[u8], meta: &Metadata) -> usize {
    let operation = meta.operation.as_ref().map_or(0, |id| 1 + id.as_bytes().len());
    let headers = meta.headers.as_bytes().len();
    FIXED - PREFIX
        + name.len()
        + meta.expires_ms.map_or(0, |_| 8)
        + if meta.flags != 0 { 4 } else { 0 }
        + operation
        + if headers > 0 { 2 + headers } else { 0 }
        + meta.draft.map_or(0, |_| 16)
}

/// The length of a record that carries its payload itself.
pub(crate) fn packed_len(name: &[u8], meta: &Metadata, payload: usize) -> usize {
    PREFIX + plain_len(name, meta) + payload
}

/// The length of a record whose payload is in an extent.
pub(crate) fn extent_len(name: &[u8], meta: &Metadata) -> usize {
    PREFIX + plain_len(name, meta) + 8
}

/// Writes a record from its byte 8 on, without a payload.
pub(crate) fn encode_plain(
    out: &mut Vec<u8>,
    kind: Kind,
    name: &[u8],
    meta: &Metadata,
    payload_len: u32,
    batch: u32,
    extent: Option<&Extent>,
) {
    let headers = meta.headers.as_bytes();
    let bit = |present: bool, bit: u8| if present { bit } else { 0 };
    out.put_u8(kind as u8);
    out.put_u8(
        bit(extent.is_some(), EXTENT)
            | bit(meta.expires_ms.is_some(), EXPIRES)
            | bit(meta.flags != 0, FLAGS)
            | bit(meta.operation.is_some(), OPERATION)
            | bit(!headers.is_empty(), HEADERS)
            | bit(meta.created, CREATED)
            | bit(meta.no_memory, NO_MEMORY)
            | bit(meta.draft.is_some(), DRAFT),
    );
    out.put_u16_le(name.len() as u16);
    out.put_u32_le(payload_len);
    out.put_u64_le(meta.version.view);
    out.put_u64_le(meta.version.sequence);
    out.put_u64_le(meta.modified_ms);
    out.put_u64_le(meta.size);
    out.put_slice(&meta.digest.0);
    out.put_u32_le(batch);
    out.put_u32_le(0);
    out.put_slice(name);
    if let Some(extent) = extent {
        out.put_u32_le(extent.block);
        out.put_u32_le(extent.head_blocks);
    }
    if let Some(expires_ms) = meta.expires_ms {
        out.put_u64_le(expires_ms);
    }
    if meta.flags != 0 {
        out.put_u32_le(meta.flags);
    }
    if let Some(operation) = &meta.operation {
        out.put_u8(operation.as_bytes().len() as u8);
        out.put_slice(operation.as_bytes());
    }
    if !headers.is_empty() {
        out.put_u16_le(headers.len() as u16);
        out.put_slice(headers);
    }
    if let Some(draft) = meta.draft {
        out.put_u64_le(draft.view);
        out.put_u64_le(draft.sequence);
    }
}

impl<'a> Plain<'a> {
    /// Reads what [`encode_plain`] wrote, and where the extent is that it names.
    pub(crate) fn decode(rest: &mut &'a [u8]) -> Result<(Self, Option<(u32, u32)>), Damaged> {
        let kind = Kind::from_u8(rest.try_get_u8()?)?;
        let fields = rest.try_get_u8()?;
        let name_len = usize::from(rest.try_get_u16_le()?);
        let payload_len = rest.try_get_u32_le()?;
        let version = read_version(rest)?;
        let modified_ms = rest.try_get_u64_le()?;
        let size = rest.try_get_u64_le()?;
        let digest = Digest(take_array(rest)?);
        let batch = rest.try_get_u32_le()?;
        rest.try_get_u32_le()?;
        let name = take(rest, name_len)?;
        let extent = match fields & EXTENT {
            0 => None,
            _ => Some((rest.try_get_u32_le()?, rest.try_get_u32_le()?)),
        };
        let expires_ms = if fields & EXPIRES != 0 { Some(rest.try_get_u64_le()?) } else { None };
        let flags = if fields & FLAGS != 0 { rest.try_get_u32_le()? } else { 0 };
        let operation = match fields & OPERATION {
            0 => None,
            _ => {
                let len = usize::from(rest.try_get_u8()?);
                Some(OperationId::new(Bytes::copy_from_slice(take(rest, len)?)).ok_or(Damaged)?)
            }
        };
        let headers = match fields & HEADERS {
            0 => KeptHeaders::default(),
            _ => {
                let len = usize::from(rest.try_get_u16_le()?);
                KeptHeaders::from_bytes(Bytes::copy_from_slice(take(rest, len)?)).ok_or(Damaged)?
            }
        };
        let draft = if fields & DRAFT != 0 { Some(read_version(rest)?) } else { None };
        let meta = Metadata {
            draft,
            expires_ms,
            flags,
            operation,
            created: fields & CREATED != 0,
            no_memory: fields & NO_MEMORY != 0,
            headers,
            ..Metadata::new(size, digest, version, modified_ms)
        };
        Ok((Self { kind, name, meta, payload_len, batch }, extent))
    }
}

fn read_version(rest: &mut &[u8]) -> Result<Version, Damaged> {
    Ok(Version { view: rest.try_get_u64_le()?, sequence: rest.try_get_u64_le()? })
}

/// Appends padding of `len` bytes, a multiple of 8, at `offset` of a log: two words that say so, and zeros.
pub(crate) fn pad(out: &mut Vec<u8>, len: usize, seeds: &Seeds, segment: u32, offset: u64) {
    let start = out.len();
    out.put_u64_le(0);
    close(out, start, seeds.seed(segment, Spot::Record, offset));
    out.resize(start + len, 0);
}

/// What stands at a place of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A record of so many bytes, if it verifies.
    Record(usize),
    /// Padding: the next record begins with the next block.
    Padding,
}

/// What stands at `offset` of a log, by its first bytes.
pub(crate) fn next(bytes: &[u8], seeds: &Seeds, segment: u32, offset: u64) -> Result<Next, Damaged> {
    let mut head = bytes;
    head.try_get_u32_le()?;
    match head.try_get_u32_le()? as usize {
        PREFIX => verified(bytes, seeds.seed(segment, Spot::Record, offset)).map(|_| Next::Padding),
        len if (FIXED..=MAX_RECORD).contains(&len) => Ok(Next::Record(len)),
        _ => Err(Damaged),
    }
}

/// Fills in the first two words of what was written from `start` on, and zeros behind it.
fn close(out: &mut Vec<u8>, start: usize, seed: u32) -> usize {
    let len = out.len() - start;
    let record = &mut out[start..];
    record[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    let check = crc32c::crc32c_append(seed, &record[4..]);
    record[..4].copy_from_slice(&check.to_le_bytes());
    out.resize(start + len.next_multiple_of(RECORD_ALIGN), 0);
    len
}

/// What follows the first two words of a record, if it verifies.
fn verified(bytes: &[u8], seed: u32) -> Result<&[u8], Damaged> {
    let mut head = bytes;
    let check = head.try_get_u32_le()?;
    let len = head.try_get_u32_le()? as usize;
    let record = bytes.get(..len).filter(|record| record.len() >= PREFIX).ok_or(Damaged)?;
    if crc32c::crc32c_append(seed, &record[4..]) == check { Ok(&record[PREFIX..]) } else { Err(Damaged) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use elcache_core::value::KeptHeadersBuilder;
    use proptest::prelude::*;

    prop_compose! {
        pub(crate) fn metadata()(
            size: u64, digest: [u8; 32], view: u64, sequence: u64, draft: Option<(u64, u64)>, modified_ms: u64,
            expires_ms: Option<u64>, flags in prop_oneof![Just(0), any::<u32>()], created: bool, no_memory: bool,
            operation in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=64)),
            headers in proptest::collection::vec(("[a-z-]{1,20}", proptest::collection::vec(any::<u8>(), 0..50)), 0..4),
        ) -> Metadata {
            let mut builder = KeptHeadersBuilder::default();
            headers.iter().for_each(|(name, value)| builder.push(name, value).unwrap());
            Metadata {
                size, digest: Digest(digest), version: Version { view, sequence }, modified_ms, expires_ms, flags,
                draft: draft.map(|(view, sequence)| Version { view, sequence }),
                operation: operation.and_then(OperationId::new), created, no_memory, no_disk: false,
                headers: builder.finish(),
            }
        }
    }

    prop_compose! {
        fn record()(
            kind in 1_u8..=10, name in proptest::collection::vec(any::<u8>(), 0..100), meta in metadata(),
            packed in proptest::collection::vec(any::<u8>(), 0..300), extent: Option<(u32, u32, u32)>,
        ) -> Record {
            let body = match extent {
                Some((block, head_blocks, len)) => Body::Extent(Extent { block, head_blocks, len }),
                None => Body::Packed(packed.into()),
            };
            Record { kind: Kind::from_u8(kind).unwrap(), name: name.into(), meta, body }
        }
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_no_flipped_bit_goes_unnoticed(record in record(), bit: proptest::sample::Index, offset: u64) {
            let seeds = Seeds::new([3; 16]);
            let mut bytes = vec![9; 3];
            let len = record.encode(&mut bytes, &seeds, 5, offset, 72);
            prop_assert_eq!(len, record.len());
            prop_assert!((bytes.len() - 3).is_multiple_of(8));
            let bytes = Bytes::from(bytes).slice(3..);
            prop_assert_eq!(next(&bytes, &seeds, 5, offset), Ok(Next::Record(len)));
            prop_assert_eq!(Record::decode_in_batch(&bytes, &seeds, 5, offset), Ok((record, 72)));
            prop_assert_eq!(Record::decode(&bytes, &seeds, 5, offset ^ 8), Err(Damaged));
            let bit = bit.index(len * 8);
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&flipped.into(), &seeds, 5, offset), Err(Damaged));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let seeds = Seeds::new([3; 16]);
            let _ = (next(&bytes, &seeds, 1, 8), Plain::decode(&mut &bytes[..]).is_ok());
            prop_assert!(Record::decode(&bytes.into(), &seeds, 1, 8).is_err());
        }
    }

    #[test]
    fn padding_leads_to_the_next_block() {
        let seeds = Seeds::new([3; 16]);
        for len in [8, 16, 4088] {
            let mut bytes = Vec::new();
            pad(&mut bytes, len, &seeds, 5, 64);
            assert_eq!(bytes.len(), len);
            assert_eq!(next(&bytes, &seeds, 5, 64), Ok(Next::Padding));
            assert_eq!(next(&bytes, &seeds, 5, 72), Err(Damaged));
        }
        assert_eq!(next(&[0; 100], &seeds, 5, 64), Err(Damaged));
    }
}
