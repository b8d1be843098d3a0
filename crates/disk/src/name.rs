//! What the index knows records by.

use elcache_core::key::Key;
use elcache_core::tier::{ChunkRef, Leaving};

use crate::format::record::Kind;
use crate::index::entry::Name;

/// Separates the names of pages from keys, which may be any bytes.
const PAGE_CONTEXT: &str = "elcache disk page";

/// The name of a key's value, root or tombstone.
pub(crate) fn of_key(key: &Key) -> Name {
    key.hash().0
}

/// The name of a chunk.
pub(crate) fn of_chunk(chunk: &ChunkRef) -> Name {
    of_digest(&chunk.digest.0)
}

/// The name of the chunk of a digest.
pub(crate) fn of_digest(digest: &[u8]) -> Name {
    short(digest)
}

/// What the index knows a record of this kind and name by.
pub(crate) fn of_record(kind: Kind, name: &[u8]) -> Name {
    match kind {
        Kind::Chunk => of_digest(name),
        Kind::Page => short(&blake3::derive_key(PAGE_CONTEXT, name)),
        Kind::Value | Kind::Root | Kind::Tombstone | Kind::Index => short(blake3::hash(name).as_bytes()),
    }
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
