//! What the index knows records by.

use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::staging::Fragment;
use elcache_core::tier::{ChunkRef, Leaving, Owner, PageRef};

use crate::format::record::Kind;
use crate::format::staged::{self, FILLING_ID};
use crate::index::entry::Name;

/// Separates the names of pages from keys, which may be any bytes.
const PAGE_CONTEXT: &str = "elcache disk page";
/// And those of the records of drafts.
const UPLOAD_CONTEXT: &str = "elcache disk upload";
const FRAGMENT_CONTEXT: &str = "elcache disk fragment";
const FILLING_CONTEXT: &str = "elcache disk filled";

/// The name of a key's value, root or tombstone.
pub(crate) fn of_key(key: &Key) -> Name {
    key.hash().0
}

/// The name of a chunk.
pub(crate) fn of_chunk(chunk: &ChunkRef) -> Name {
    of_digest(&chunk.digest)
}

/// The name of the chunk with this digest.
pub(crate) fn of_digest(digest: &Digest) -> Name {
    short(&digest.0)
}

/// What the index knows a record of this kind and name by.
pub(crate) fn of_record(kind: Kind, name: &[u8]) -> Name {
    match kind {
        Kind::Chunk => short(name),
        Kind::Page => short(&blake3::derive_key(PAGE_CONTEXT, name)),
        Kind::Upload | Kind::Closed => short(&blake3::derive_key(UPLOAD_CONTEXT, name)),
        Kind::Fragment => short(&blake3::derive_key(FRAGMENT_CONTEXT, name)),
        // The last one of a chunk counts.
        Kind::Filling => short(&blake3::derive_key(FILLING_CONTEXT, name.get(..FILLING_ID).unwrap_or(name))),
        Kind::Value | Kind::Root | Kind::Tombstone | Kind::Index => short(blake3::hash(name).as_bytes()),
    }
}

/// The name of what says that an upload of a key is open.
pub(crate) fn of_upload(key: &Key) -> Name {
    of_record(Kind::Upload, key.as_bytes())
}

/// The name of a page.
pub(crate) fn of_page(page: &PageRef) -> Name {
    of_record(Kind::Page, &page.to_bytes())
}

/// The name of what says that a chunk of a draft is there as a whole; everything of the chunk belongs where that does.
pub(crate) fn of_filling(draft: Owner, chunk: u64) -> Name {
    of_record(Kind::Filling, &PageRef { owner: draft, number: chunk }.to_bytes())
}

/// The name of a fragment.
pub(crate) fn of_fragment(fragment: &Fragment) -> Name {
    of_record(Kind::Fragment, &staged::of_fragment(fragment))
}

/// What the index knows by what a faster tier is about to evict.
pub(crate) fn of_leaving(leaving: Leaving<'_>) -> Name {
    match leaving {
        Leaving::Value(key) => of_record(Kind::Value, key),
        Leaving::Page(page) => of_record(Kind::Page, &page.to_bytes()),
        Leaving::Chunk(digest) => of_record(Kind::Chunk, &digest.0),
    }
}

fn short(bytes: &[u8]) -> Name {
    let mut name = [0; 16];
    let len = bytes.len().min(16);
    name[..len].copy_from_slice(&bytes[..len]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_looks_like_the_name_of_a_page_is_another_name() {
        let key = Key::new(vec![7; 40]).unwrap();
        assert_eq!(of_record(Kind::Root, key.as_bytes()), of_key(&key));
        assert_ne!(of_record(Kind::Page, key.as_bytes()), of_key(&key));
    }
}
