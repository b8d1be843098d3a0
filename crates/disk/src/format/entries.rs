//! The content of index records: what is in the log before them.

use bytes::{Buf, BufMut};
use elcache_core::value::Version;

use super::record::{Extent, Kind};
use super::{Damaged, RECORD_ALIGN, take, take_array};

/// Bytes before the entries.
const FIXED: usize = 16;
const IN_LOG: u8 = 0;
const IN_DATA: u8 = 1;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In the log.
    Log {
        /// Where it begins.
        offset: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// In the data file, metadata and all.
    Data(Extent),
}

/// A record as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    /// What the memory index knows it by.
    pub(crate) hash: [u8; 16],
    pub(crate) version: Version,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) name: &'a [u8],
}

impl Entry<'_> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.kind as u8);
        let (file, at, len, head_blocks) = match self.place {
            Place::Log { offset, len } => (IN_LOG, (offset / RECORD_ALIGN as u64) as u32, len, 0),
            Place::Data(extent) => (IN_DATA, extent.block, extent.len, extent.head_blocks),
        };
        out.put_u8(file);
        out.put_u16_le(self.name.len() as u16);
        out.put_u32_le(at);
        out.put_u32_le(len);
        out.put_u32_le(head_blocks);
        out.put_slice(&self.hash);
        out.put_u64_le(self.version.view);
        out.put_u64_le(self.version.sequence);
        out.put_u64_le(self.expires_ms.unwrap_or(0));
        out.put_slice(self.name);
    }

    fn decode<'a>(from: &mut &'a [u8]) -> Result<Entry<'a>, Damaged> {
        let kind = Kind::from_u8(from.try_get_u8()?)?;
        let file = from.try_get_u8()?;
        let name_len = usize::from(from.try_get_u16_le()?);
        let (at, len, head_blocks) = (from.try_get_u32_le()?, from.try_get_u32_le()?, from.try_get_u32_le()?);
        let place = match file {
            IN_LOG => Place::Log { offset: u64::from(at) * RECORD_ALIGN as u64, len },
            IN_DATA => Place::Data(Extent { block: at, head_blocks, len }),
            _ => return Err(Damaged),
        };
        Ok(Entry {
            kind,
            place,
            hash: take_array(from)?,
            version: Version { view: from.try_get_u64_le()?, sequence: from.try_get_u64_le()? },
            expires_ms: Some(from.try_get_u64_le()?).filter(|&at| at != 0),
            name: take(from, name_len)?,
        })
    }
}

/// Entries on their way into an index record.
#[derive(Default)]
pub(crate) struct Collected {
    entries: Vec<u8>,
    count: u32,
}

impl Collected {
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        entry.encode(&mut self.entries);
        self.count += 1;
    }

    /// Bytes of the entries so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The payload of an index record with these entries. `before` is the offset of the index record before it.
    pub(crate) fn take(&mut self, before: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.entries.len());
        out.put_u64_le(before);
        out.put_u32_le(self.count);
        out.put_u32_le(0);
        out.append(&mut self.entries);
        self.count = 0;
        out
    }
}

/// The entries of an index record's payload in the order of the log, and the offset of the index record before it.
pub(crate) fn decode(mut payload: &[u8]) -> Result<(u64, Vec<Entry<'_>>), Damaged> {
    let before = payload.try_get_u64_le()?;
    let count = payload.try_get_u32_le()?;
    payload.try_get_u32_le()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(Entry::decode(&mut payload)?);
    }
    if payload.is_empty() { Ok((before, entries)) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn parts()(
            kind in 1_u8..=10, at in 0_u64..1 << 32, len: u32, head_blocks: Option<u32>, hash: [u8; 16], view: u64, sequence: u64,
            expires_ms in proptest::option::of(1_u64..), name in proptest::collection::vec(any::<u8>(), 0..50),
        ) -> (Vec<u8>, Entry<'static>) {
            let place = match head_blocks {
                Some(head_blocks) => Place::Data(Extent { block: at as u32, head_blocks, len }),
                None => Place::Log { offset: at * 8, len },
            };
            let kind = Kind::from_u8(kind).unwrap();
            (name, Entry { kind, place, hash, version: Version { view, sequence }, expires_ms, name: &[] })
        }
    }

    proptest! {
        #[test]
        fn entries_come_back(parts in proptest::collection::vec(parts(), 0..20), before: u64) {
            let entries: Vec<_> = parts.iter().map(|(name, entry)| Entry { name, ..entry.clone() }).collect();
            let mut collected = Collected::default();
            entries.iter().for_each(|entry| collected.push(entry));
            let payload = collected.take(before);
            prop_assert!(collected.is_empty());
            prop_assert_eq!(decode(&payload), Ok((before, entries)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
