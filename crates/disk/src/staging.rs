//! What a directory keeps of drafts: records as all others, which reclaiming never lets go of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Payload;
use elcache_core::staging::{Filling, Fragment, Opening};
use elcache_core::tier::{Lookup, PageRef, Refusal};
use elcache_core::tree::{CHUNK_SIZE, SUBTREE_SIZE};
use elcache_core::value::{Metadata, Version};

use crate::disk::Disk;
use crate::format::extent::head_blocks;
use crate::format::record::{Kind, extent_len, packed_len};
use crate::format::staged::{self, FRAGMENT};
use crate::format::{BLOCK, MAX_PACKED, RECORD_ALIGN};
use crate::index::entry::{Kind as Known, Name};
use crate::name;

/// What an entry of an index record takes, without the name.
const ENTRY: usize = 56;
/// What a chunk takes beside its extent: its record and that of its filling, and an entry for each.
const FILLED: usize = 600;

impl Disk {
    /// Writes that an upload is open.
    pub(crate) async fn put_opening(self: &Arc<Self>, opening: &Opening) -> Result<(), Refusal> {
        self.append(name::of_upload(&opening.key), &staged::of_opening(opening)).await
    }

    /// Writes that an upload of a key is open no more.
    pub(crate) async fn put_closed(self: &Arc<Self>, key: &Key, draft: Version) -> Result<(), Refusal> {
        self.append(name::of_upload(key), &staged::of_closed(key, draft, self.clock.now_ms())).await
    }

    /// Writes bytes of a chunk.
    pub(crate) async fn put_fragment(
        self: &Arc<Self>,
        fragment: &Fragment,
        bytes: Payload,
    ) -> Result<(), Refusal> {
        self.counters.stored.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let bears = staged::of_fragment(fragment);
        let hash = name::of_record(Kind::Fragment, &bears);
        // Where in the value its subtrees are means nothing: it begins anywhere.
        let nothing = vec![Digest([0; 32]); bytes.len().div_ceil(SUBTREE_SIZE)];
        self.put_record(Kind::Fragment, &bears, hash, &self.of_draft(fragment.draft.version), bytes, &nothing)
            .await
    }

    /// Writes that a chunk is there as a whole.
    pub(crate) async fn put_filling(self: &Arc<Self>, filling: &Filling) -> Result<(), Refusal> {
        let bears = staged::of_filling(filling);
        let hash = name::of_record(Kind::Filling, &bears);
        let meta = self.of_draft(filling.draft.version);
        self.put_record(Kind::Filling, &bears, hash, &meta, Payload::new(), &[]).await
    }

    fn of_draft(&self, draft: Version) -> Metadata {
        Metadata::new(0, Digest([0; 32]), draft, self.clock.now_ms())
    }

    /// A page of a draft: every write of its chunks up to this serial is in it, and the digests. This counts as no use of it.
    pub(crate) async fn find_staged_page(self: &Arc<Self>, page: &PageRef) -> Lookup<(u64, Payload)> {
        self.found_page(page).await.map(|(_, page)| page)
    }

    /// Nobody counts any more on what is under a name of what only drafts have. A copy of it that is on its way arrives all the same; it is not
    /// pinned then, and goes with its segment.
    pub(crate) fn forget(&self, name: &Name) {
        if self.index.get(name).is_some_and(|entry| entry.kind.is_staged()) {
            self.index.remove(name);
        }
    }

    /// All fillings that the index leads to.
    pub(crate) async fn fillings(self: &Arc<Self>) -> Vec<Filling> {
        let mut fillings = Vec::new();
        for stripe in 0..self.index.stripes() {
            for (_, entry) in self.index.of_kind(stripe, Known::Filling) {
                let record = self.read_any_record(&entry).await;
                fillings.extend(record.ok().and_then(|record| staged::filling(&record.name).ok()));
            }
        }
        fillings
    }
}

/// Bytes that a write of a draft of this length takes, bookkeeping included; less for what is no whole chunk.
pub(crate) fn footprint(len: u32) -> u64 {
    let meta = Metadata::new(0, Digest([0; 32]), Version::default(), 0);
    let name = [0; FRAGMENT];
    let packed = packed_len(&name, &meta, len as usize);
    let bytes = if packed <= MAX_PACKED {
        packed.next_multiple_of(RECORD_ALIGN)
    } else {
        let blocks = head_blocks(&name, &meta, len) as usize + (len as usize).div_ceil(BLOCK);
        let filled = if u64::from(len) == CHUNK_SIZE { FILLED } else { 0 };
        blocks * BLOCK + extent_len(&name, &meta).next_multiple_of(RECORD_ALIGN) + filled
    };
    (bytes + ENTRY + FRAGMENT) as u64
}
