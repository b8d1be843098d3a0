//! What recovery finds of drafts: the names of their records say everything.

use std::collections::HashMap;
use std::sync::Arc;

use elcache_core::budget::{Budget, Taken};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::staging::{Filling, Fragment};
use elcache_core::tier::Owner;
use elcache_core::value::Version;

use crate::format::entries::Entry as LogEntry;
use crate::format::record::Kind;
use crate::format::staged;
use crate::index::Index;
use crate::index::entry::{Kind as Known, Name};
use crate::name;

/// What is taken of the budget for a record, beside its name: its place in a table.
const OVERHEAD: u64 = 64;

/// Drafts of which a directory has something. Newer records are noted before older ones.
#[derive(Default)]
pub(crate) struct Found {
    /// Keys of which an upload is open, with its draft.
    openings: HashMap<Name, (Key, Version)>,
    drafts: HashMap<Owner, Parts>,
    taken: Option<Taken>,
}

/// What a directory has of drafts.
pub(crate) struct FoundDrafts {
    /// Keys of open uploads, and their drafts.
    pub(crate) openings: Vec<(Key, Version)>,
    pub(crate) drafts: HashMap<Owner, Parts>,
    /// The memory that all of it takes.
    pub(crate) taken: Option<Taken>,
}

/// What there is of a draft.
#[derive(Default)]
pub(crate) struct Parts {
    fragments: Vec<Part>,
    fillings: Vec<(u64, u64, Digest)>,
}

/// A fragment, of a draft that is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    chunk: u64,
    serial: u64,
    from: u32,
    to: u32,
}

impl Found {
    /// Notes a record of a draft; false when there is no memory for it.
    pub(crate) fn note(&mut self, entry: &LogEntry<'_>, budget: &Arc<Budget>) -> bool {
        let bytes = entry.name.len() as u64 + OVERHEAD;
        let room = match &mut self.taken {
            Some(taken) => taken.grow(bytes),
            none => {
                *none = budget.take(bytes);
                none.is_some()
            }
        };
        match entry.kind {
            Kind::Upload => {
                if let Ok(key) = Key::new(entry.name.to_vec()) {
                    self.openings.entry(entry.hash).or_insert((key, entry.version));
                }
            }
            Kind::Fragment => {
                if let Ok(Fragment { draft, chunk, serial, from, to }) = staged::fragment(entry.name) {
                    self.drafts.entry(draft).or_default().fragments.push(Part { chunk, serial, from, to });
                }
            }
            Kind::Filling => {
                if let Ok(Filling { draft, chunk, serial, digest }) = staged::filling(entry.name) {
                    self.drafts.entry(draft).or_default().fillings.push((chunk, serial, digest));
                }
            }
            _ => {}
        }
        room
    }

    /// What has been found. Of each name only what the index leads to counts.
    pub(crate) fn take(&mut self, index: &Index) -> FoundDrafts {
        let Self { openings, mut drafts, taken } = std::mem::take(self);
        let is = |name: &Name, kind: Known| index.get(name).is_some_and(|entry| entry.kind == kind);
        let openings = openings.into_iter().filter(|(name, _)| is(name, Known::Upload));
        for (draft, parts) in &mut drafts {
            // The sort is stable: of a chunk, the newest filling stays the first.
            parts.fillings.sort_by_key(|(chunk, ..)| *chunk);
            parts.fillings.dedup_by_key(|(chunk, ..)| *chunk);
            parts.fillings.retain(|(chunk, ..)| is(&name::of_filling(*draft, *chunk), Known::Filling));
            // A copy has the same name.
            parts.fragments.sort_unstable();
            parts.fragments.dedup();
            parts.fragments.retain(|part| is(&name::of_fragment(&part.of(*draft)), Known::Fragment));
        }
        FoundDrafts { openings: openings.map(|(_, opening)| opening).collect(), drafts, taken }
    }
}

impl Parts {
    pub(crate) fn fragments(&self, draft: Owner) -> impl Iterator<Item = Fragment> {
        self.fragments.iter().map(move |part| part.of(draft))
    }

    pub(crate) fn fillings(&self, draft: Owner) -> impl Iterator<Item = Filling> {
        self.fillings.iter().map(move |&(chunk, serial, digest)| Filling { draft, chunk, serial, digest })
    }

    /// Names of all records.
    pub(crate) fn names(&self, draft: Owner) -> impl Iterator<Item = Name> {
        let fragments = self.fragments(draft).map(|fragment| name::of_fragment(&fragment));
        fragments.chain(self.fillings.iter().map(move |(chunk, ..)| name::of_filling(draft, *chunk)))
    }
}

impl Part {
    fn of(self, draft: Owner) -> Fragment {
        let Self { chunk, serial, from, to } = self;
        Fragment { draft, chunk, serial, from, to }
    }
}
