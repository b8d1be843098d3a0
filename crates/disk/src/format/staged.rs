//! Records of drafts: their names, which say everything that a restart has to know, and what the record of an upload carries.

use std::num::NonZeroU64;

use bytes::{Buf, BufMut, Bytes};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::staging::{Filling, Fragment, Opening};
use elcache_core::tier::{Owner, PageRef};
use elcache_core::value::{Metadata, Version};

use super::record::{Body, Kind, Record};
use super::{Damaged, take_array};

/// The length of a fragment's name.
pub(crate) const FRAGMENT: usize = 56;
/// The length of a filling's name.
const FILLING: usize = 80;
/// What of that says which chunk it is of.
pub(crate) const FILLING_ID: usize = 40;

const NO_CLUSTER: u64 = 1;
const NO_DISK: u64 = 2;

/// The draft and the number of a chunk of it.
fn put_chunk(out: &mut impl BufMut, draft: Owner, chunk: u64) {
    out.put_slice(&PageRef { owner: draft, number: chunk }.to_bytes());
}

fn read_chunk(from: &mut &[u8]) -> Result<(Owner, u64), Damaged> {
    let name: [u8; FILLING_ID] = take_array(from)?;
    PageRef::from_bytes(&name).map(|page| (page.owner, page.number)).ok_or(Damaged)
}

/// The name of a fragment's record.
pub(crate) fn of_fragment(fragment: &Fragment) -> [u8; FRAGMENT] {
    let mut name = [0; FRAGMENT];
    let mut out = &mut name[..];
    put_chunk(&mut out, fragment.draft, fragment.chunk);
    out.put_u64_le(fragment.serial);
    out.put_u32_le(fragment.from);
    out.put_u32_le(fragment.to);
    name
}

/// The fragment of a name.
pub(crate) fn fragment(mut name: &[u8]) -> Result<Fragment, Damaged> {
    let (draft, chunk) = read_chunk(&mut name)?;
    let serial = name.try_get_u64_le()?;
    let (from, to) = (name.try_get_u32_le()?, name.try_get_u32_le()?);
    if name.is_empty() { Ok(Fragment { draft, chunk, serial, from, to }) } else { Err(Damaged) }
}

/// The name of a filling's record.
pub(crate) fn of_filling(filling: &Filling) -> [u8; FILLING] {
    let mut name = [0; FILLING];
    let mut out = &mut name[..];
    put_chunk(&mut out, filling.draft, filling.chunk);
    out.put_u64_le(filling.serial);
    out.put_slice(&filling.digest.0);
    name
}

/// The filling of a name.
pub(crate) fn filling(mut name: &[u8]) -> Result<Filling, Damaged> {
    let (draft, chunk) = read_chunk(&mut name)?;
    let serial = name.try_get_u64_le()?;
    let digest = Digest(take_array(&mut name)?);
    if name.is_empty() { Ok(Filling { draft, chunk, serial, digest }) } else { Err(Damaged) }
}

/// What says that an upload is open.
pub(crate) fn of_opening(opening: &Opening) -> Record {
    let meta = Metadata {
        flags: opening.flags,
        operation: opening.operation.clone(),
        no_memory: opening.no_memory,
        headers: opening.headers.clone(),
        ..Metadata::new(opening.size, Digest([0; 32]), opening.draft, opening.touched_ms)
    };
    let mut payload = Vec::with_capacity(16);
    payload.put_u64_le(opening.ttl_seconds.map_or(0, NonZeroU64::get));
    let bit = |set: bool, bit: u64| if set { bit } else { 0 };
    payload.put_u64_le(bit(opening.no_cluster, NO_CLUSTER) | bit(opening.no_disk, NO_DISK));
    let name = Bytes::copy_from_slice(opening.key.as_bytes());
    Record { kind: Kind::Upload, name, meta, body: Body::Packed(payload.into()) }
}

/// What a record says of an upload.
pub(crate) fn opening(record: Record) -> Result<Opening, Damaged> {
    let Record { kind: Kind::Upload, name, meta, body: Body::Packed(payload) } = record else {
        return Err(Damaged);
    };
    let mut payload = &payload[..];
    let ttl_seconds = NonZeroU64::new(payload.try_get_u64_le()?);
    let bits = payload.try_get_u64_le()?;
    Ok(Opening {
        key: Key::new(name).map_err(|_| Damaged)?,
        draft: meta.version,
        size: meta.size,
        touched_ms: meta.modified_ms,
        ttl_seconds,
        flags: meta.flags,
        no_memory: meta.no_memory,
        no_disk: bits & NO_DISK != 0,
        no_cluster: bits & NO_CLUSTER != 0,
        operation: meta.operation,
        headers: meta.headers,
    })
}

/// What says that it is open no more.
pub(crate) fn of_closed(key: &Key, draft: Version, now_ms: u64) -> Record {
    let meta = Metadata::new(0, Digest([0; 32]), draft, now_ms);
    let name = Bytes::copy_from_slice(key.as_bytes());
    Record { kind: Kind::Closed, name, meta, body: Body::Packed(Bytes::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::tests::metadata;
    use elcache_core::key::KeyHash;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_come_back(
            key: [u8; 16], view: u64, sequence: u64, chunk: u64, serial: u64, from: u32, to: u32, digest: [u8; 32],
        ) {
            let draft = Owner { key: KeyHash(key), version: Version { view, sequence } };
            let of = Fragment { draft, chunk, serial, from, to };
            prop_assert_eq!(fragment(&of_fragment(&of)), Ok(of));
            let of = Filling { draft, chunk, serial, digest: Digest(digest) };
            prop_assert_eq!(filling(&of_filling(&of)), Ok(of));
        }

        #[test]
        fn an_opening_comes_back(
            key in proptest::collection::vec(any::<u8>(), 1..100), meta in metadata(), ttl: u64, no_disk: bool, no_cluster: bool,
        ) {
            let of = Opening {
                key: Key::new(key).unwrap(), draft: meta.version, size: meta.size, touched_ms: meta.modified_ms,
                ttl_seconds: NonZeroU64::new(ttl), flags: meta.flags, no_memory: meta.no_memory, no_disk, no_cluster,
                operation: meta.operation, headers: meta.headers,
            };
            prop_assert_eq!(opening(of_opening(&of)), Ok(of));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (fragment(&bytes), filling(&bytes));
        }
    }
}
