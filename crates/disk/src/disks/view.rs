//! The directories that count, as they are at a moment, and what of them has a name.
//!
//! A directory *serves* as long as its gate is open. One that does not, and that the others have not left, is *held*: what it has
//! cannot be read, and may neither be replaced nor deleted, so that it is true when it serves again.

use std::collections::HashSet;
use std::sync::Arc;

use elcache_core::tier::Presence;
use parking_lot::Mutex;

use super::home::{DirectoryId, home};
use crate::disk::{Disk, Recovery};
use crate::format::identity::Identity;
use crate::index::entry::{Entry, Name};
use crate::tier::DiskTier;

/// A directory that counts.
pub(crate) struct Member {
    /// Its number in the configuration.
    pub(crate) seat: usize,
    pub(crate) id: DirectoryId,
    /// What its files may occupy: its share of the names.
    weight: u64,
    pub(crate) disk: Arc<Disk>,
    pub(crate) tier: Arc<DiskTier>,
    /// As it stands in its file.
    pub(crate) identity: Mutex<Identity>,
    /// The sets that may stand there: more than one where writing it has failed.
    pub(crate) sets: Mutex<Vec<Vec<DirectoryId>>>,
    /// Names whose last write has failed when it stopped serving: whether they are there nobody knows.
    doubts: Mutex<HashSet<Name>>,
}

impl Member {
    pub(crate) fn new(seat: usize, tier: Arc<DiskTier>) -> Arc<Self> {
        let disk = Arc::clone(&tier.disk);
        let identity = disk.directory.identity.clone();
        Arc::new(Self {
            seat,
            id: identity.directory,
            weight: disk.config.max_bytes,
            disk,
            tier,
            sets: Mutex::new(vec![identity.siblings.clone()]),
            identity: Mutex::new(identity),
            doubts: Mutex::default(),
        })
    }

    pub(crate) fn serves(&self) -> bool {
        !self.disk.gate.is_shut()
    }

    pub(crate) fn is_recovering(&self) -> bool {
        matches!(*self.disk.recovery.borrow(), Recovery::Running(_))
    }

    /// Whether all is known that is in it.
    pub(crate) fn is_complete(&self) -> bool {
        *self.disk.recovery.borrow() == Recovery::Done
    }

    /// Whether it is held, and has this name or may have it.
    fn holds(&self, name: &Name) -> bool {
        !self.serves()
            && (!self.is_complete()
                || self.disk.index.get(name).is_some()
                || self.doubts.lock().contains(name))
    }
}

/// A write to a directory under way. If it fails, and the directory with it, the directory may have the name or not.
pub(crate) struct Doubt<'a> {
    pub(crate) member: &'a Member,
    pub(crate) name: Name,
    pub(crate) is_written: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        let member = self.member;
        if !self.is_written && (!member.serves() || member.disk.state.lock().failed) {
            member.doubts.lock().insert(self.name);
        }
    }
}

/// Where a name is.
pub(crate) enum Found {
    /// In some that serve.
    Here,
    /// Nowhere.
    Nowhere,
    /// In one that is held, or perhaps in one.
    Held,
    /// Not found yet.
    NotYet,
}

/// All directories that count.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) members: Vec<Arc<Member>>,
}

impl View {
    /// Those that serve.
    pub(crate) fn serving(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(|member| member.serves())
    }

    /// Where a name belongs; `None` where none serves.
    pub(crate) fn home(&self, name: &Name) -> Option<&Arc<Member>> {
        self.home_among(name, |_| true)
    }

    /// Where a name belongs, if only these count.
    pub(crate) fn home_among(&self, name: &Name, may: impl Fn(&Member) -> bool) -> Option<&Arc<Member>> {
        if let [only] = &self.members[..] {
            return Some(only).filter(|only| only.serves() && may(only));
        }
        let candidates: Vec<_> = self.serving().filter(|member| may(member)).collect();
        let place = home(name, candidates.iter().map(|member| (member.id, member.weight)));
        place.and_then(|place| candidates.get(place).copied())
    }

    /// The directory of a seat, if it counts.
    pub(crate) fn of_seat(&self, seat: usize) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.seat == seat)
    }

    /// Whether a name may neither be written nor deleted, and cannot be read.
    pub(crate) fn is_held(&self, name: &Name) -> bool {
        self.members.iter().any(|member| member.holds(name))
    }

    /// Whether all that is held is known.
    pub(crate) fn knows_all(&self) -> bool {
        self.members.iter().all(|member| member.serves() || member.is_complete())
    }

    /// Looks for a name in all indexes.
    pub(crate) fn find(&self, name: &Name, is: fn(&Entry) -> bool) -> Found {
        let mut found = Found::Nowhere;
        for member in &self.members {
            let has = member.disk.index.get(name).is_some_and(|entry| is(&entry));
            match (has, member.serves()) {
                (true, true) => return Found::Here,
                (true, false) => found = Found::Held,
                (false, false) if member.holds(name) => found = Found::Held,
                (false, true) if member.is_recovering() && matches!(found, Found::Nowhere) => {
                    // It may have been entered since it was looked for.
                    if member.disk.index.get(name).is_some_and(|entry| is(&entry)) {
                        return Found::Here;
                    }
                    found = Found::NotYet;
                }
                _ => {}
            }
        }
        found
    }

    /// Which of these names are in the indexes; `None` where that is not known yet of one of them.
    pub(crate) fn presences(&self, names: &[Name], is: fn(&Entry) -> bool) -> Option<Vec<Presence>> {
        let presence = |name| match self.find(name, is) {
            Found::Here => Some(Presence::Here),
            Found::Nowhere => Some(Presence::Absent),
            Found::Held => Some(Presence::OutOfReach),
            Found::NotYet => None,
        };
        names.iter().map(presence).collect()
    }

    /// Those that serve and have a name, where it belongs first.
    pub(crate) fn holders(&self, name: &Name, is: fn(&Entry) -> bool) -> Vec<Arc<Member>> {
        let has = |member: &&Arc<Member>| member.disk.index.get(name).is_some_and(|entry| is(&entry));
        let mut holders: Vec<_> = self.serving().filter(has).cloned().collect();
        if holders.len() > 1
            && let Some(home) = self.home(name)
            && let Some(place) = holders.iter().position(|holder| Arc::ptr_eq(holder, home))
        {
            holders.swap(0, place);
        }
        holders
    }
}
