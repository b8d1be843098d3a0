//! Which directories may be used with what is in them.
//!
//! The directories of a node that take part are a *set*; each set has a number, its *epoch*, and every directory says in its
//! `IDENTITY` which set it last was in. A directory that is not in the set misses writes. What is in it is not looked at
//! again: it gets a new id when it comes back, and no id that has left a set is ever in one again.
//!
//! Nothing is written anywhere that a directory would have to know of before the set without it stands in all that are left.
//! Plain functions; the reading and writing is elsewhere.

use super::home::DirectoryId;

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    /// Its id.
    pub(crate) id: DirectoryId,
    /// The epoch that it last took part in.
    pub(crate) epoch: u64,
    /// The set of that epoch.
    pub(crate) set: Vec<DirectoryId>,
}

/// What becomes of a directory at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is new.
    New,
    /// It is used as it is.
    Kept,
    /// What is in it is given up.
    Emptied(Why),
}

/// Why what is in a directory is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The others have gone on without it.
    Unlisted,
    /// Too many of the others are missing: nobody knows whether they have gone on without it.
    Few {
        /// Directories of the last epoch that are there.
        here: usize,
        /// Directories of the last epoch.
        all: usize,
    },
    /// They have gone on without each other: two tell different sets of one epoch, or sets that have nothing in common.
    Disputed,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unlisted => f.write_str("the other directories have gone on without it"),
            Self::Few { here, all } => write!(
                f,
                "{here} of the {all} directories of its last epoch are here, and what the others have taken over \
                 is not known"
            ),
            Self::Disputed => f.write_str("directories have gone on without one another"),
        }
    }
}

/// What becomes of all directories at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The highest epoch that any of them knows.
    pub(crate) epoch: u64,
    /// Each one's.
    pub(crate) fates: Vec<Fate>,
    /// All of them are kept, are the whole set of that epoch, and know it: nothing is to be written.
    pub(crate) settled: bool,
}

/// Judges the directories that can be read; `None` is one that is new.
pub(crate) fn judge(directories: &[Option<Says>]) -> Verdict {
    let epoch = directories.iter().flatten().map(|says| says.epoch).max().unwrap_or(0);
    let mut latest =
        directories.iter().flatten().filter(|says| says.epoch == epoch).map(|says| sorted(&says.set));
    let set = latest.next().unwrap_or_default();
    // One that was left knew some of those that went on; one that knows none of them has begun anew without them.
    let apart = |says: &Says| !says.set.iter().any(|id| set.contains(id));
    let disputed = latest.any(|other| other != set) || directories.iter().flatten().any(apart);
    let here = directories.iter().flatten().filter(|says| set.contains(&says.id)).count();
    let fate = |says: &Option<Says>| match says {
        None => Fate::New,
        Some(_) if disputed => Fate::Emptied(Why::Disputed),
        Some(says) if !set.contains(&says.id) => Fate::Emptied(Why::Unlisted),
        Some(_) if here * 2 <= set.len() => Fate::Emptied(Why::Few { here, all: set.len() }),
        Some(_) => Fate::Kept,
    };
    let fates: Vec<_> = directories.iter().map(fate).collect();
    let settled = fates.iter().all(|fate| *fate == Fate::Kept)
        && here == set.len()
        && directories.iter().flatten().all(|says| says.epoch == epoch);
    Verdict { epoch, fates, settled }
}

/// Whether those in service may go on without those that are out, of which each knows this set: whatever of the latter a later
/// start finds without any of the former must not be enough to be believed.
pub(crate) fn may_leave<'a>(
    out: impl IntoIterator<Item = &'a [DirectoryId]>,
    in_service: &[DirectoryId],
) -> bool {
    out.into_iter().all(|set| set.iter().filter(|id| in_service.contains(id)).count() * 2 >= set.len())
}

fn sorted(set: &[DirectoryId]) -> Vec<DirectoryId> {
    let mut set = set.to_vec();
    set.sort_unstable();
    set.dedup();
    set
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn ids(names: &str) -> Vec<DirectoryId> {
        names.bytes().map(|name| [name; 16]).collect()
    }

    /// `a3abc`: the directory a, which knows epoch 3 of a, b and c. `-` is a new one.
    fn says(text: &str) -> Option<Says> {
        let (id, rest) = text.split_at_checked(1).filter(|_| text != "-")?;
        let (epoch, set) = rest.split_at(1);
        Some(Says { id: ids(id)[0], epoch: epoch.parse().unwrap(), set: ids(set) })
    }

    const FEW: fn(usize, usize) -> Fate = |here, all| Fate::Emptied(Why::Few { here, all });
    const UNLISTED: Fate = Fate::Emptied(Why::Unlisted);
    const DISPUTED: Fate = Fate::Emptied(Why::Disputed);

    #[test]
    fn directories_are_judged_like_this() {
        use Fate::{Kept, New};
        let cases: &[(&str, &[Fate], bool)] = &[
            // One directory, as most have it.
            ("-", &[New], false),
            ("a1a", &[Kept], true),
            // As they were left.
            ("a1ab b1ab", &[Kept, Kept], true),
            ("a4abc b4cba c4bca", &[Kept, Kept, Kept], true),
            // One was added.
            ("a1a -", &[Kept, New], false),
            ("a1ab b1ab - -", &[Kept, Kept, New, New], false),
            // One was taken out while the node ran, and is here again.
            ("a2ab b2ab c1abc", &[Kept, Kept, UNLISTED], false),
            ("a2a b1ab", &[Kept, UNLISTED], false),
            // Who was told last does not matter.
            ("a2ab b1abc c1abc", &[Kept, Kept, UNLISTED], false),
            ("a2abcd b1abc c1abc d2abcd", &[Kept, Kept, Kept, Kept], false),
            // One is missing.
            ("a1abc b1abc", &[Kept, Kept], false),
            ("a1abc", &[FEW(1, 3)], false),
            ("a1ab", &[FEW(1, 2)], false),
            ("a1abcd b1abcd", &[FEW(2, 4), FEW(2, 4)], false),
            // The ones that went on are missing.
            ("b2ab c1abc", &[FEW(1, 2), UNLISTED], false),
            ("a1abc b1abc -", &[Kept, Kept, New], false),
            // They went on without one another.
            ("a2a b2b", &[DISPUTED, DISPUTED], false),
            ("a2ac b2bc c1abc", &[DISPUTED, DISPUTED, DISPUTED], false),
            ("a4a b2b", &[DISPUTED, DISPUTED], false),
            ("a4ab b4ab c2cd d2cd", &[DISPUTED, DISPUTED, DISPUTED, DISPUTED], false),
            ("a2a b2b -", &[DISPUTED, DISPUTED, New], false),
        ];
        for (directories, fates, settled) in cases {
            let all: Vec<_> = directories.split(' ').map(says).collect();
            let verdict = judge(&all);
            assert_eq!((&verdict.fates[..], verdict.settled), (*fates, *settled), "{directories}");
            let highest = all.iter().flatten().map(|says| says.epoch).max().unwrap_or(0);
            assert_eq!(verdict.epoch, highest, "{directories}");
        }
    }

    #[test]
    fn those_left_go_on_where_they_are_enough() {
        let cases = [
            ("a", "", false),
            ("ab", "a", true),
            ("abc", "ab", true),
            ("abc", "a", false),
            ("abcd", "ab", true),
            ("abcd", "a", false),
            ("a", "b", false),
        ];
        for (set, in_service, may) in cases {
            assert_eq!(
                may_leave([&ids(set)[..]], &ids(in_service)),
                may,
                "{set} without all but {in_service}"
            );
        }
        assert!(!may_leave([&ids("abc")[..], &ids("d")[..]], &ids("bc")));
    }

    /// A small generator of numbers.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// Directories fail and come back in every order, some of them told of a change and some not. Whatever part of them a
    /// start then finds: where it believes one that was left, it is as if nothing had been written since.
    #[test]
    fn no_start_believes_a_directory_that_was_left() {
        for seed in 0..3000 {
            let mut dice = Dice(seed);
            let mut disks: BTreeMap<u64, Says> = BTreeMap::new();
            let (mut next, mut epoch) = (1_u8, 1);
            let all = 1 + dice.below(5);
            let first: Vec<DirectoryId> = (1..=all as u8).map(|n| [n; 16]).collect();
            for disk in 0..all {
                let id = [next; 16];
                next += 1;
                disks.insert(disk, Says { id, epoch, set: first.clone() });
            }
            let mut in_set: BTreeSet<u64> = (0..all).collect();
            let mut out = BTreeSet::new();
            for _ in 0..dice.below(12) {
                let disk = dice.below(all);
                match dice.below(3) {
                    0 => _ = out.insert(disk),
                    1 => {
                        // Those in service leave the ones that are out behind.
                        let serving: Vec<u64> = in_set.difference(&out).copied().collect();
                        let ids: Vec<_> = serving.iter().map(|disk| disks[disk].id).collect();
                        let left: Vec<_> =
                            in_set.intersection(&out).map(|disk| &disks[disk].set[..]).collect();
                        if !serving.is_empty() && !left.is_empty() && may_leave(left, &ids) {
                            epoch += 1;
                            let told = dice.below(serving.len() as u64 + 1) as usize;
                            let told = if dice.below(3) == 0 { told } else { serving.len() };
                            for disk in &serving[..told] {
                                let says = disks.get_mut(disk).unwrap();
                                (says.epoch, says.set) = (epoch, ids.clone());
                            }
                            if told == serving.len() {
                                in_set = serving.into_iter().collect();
                            }
                        }
                    }
                    _ if out.remove(&disk) && !in_set.contains(&disk) => {
                        // It comes back, empty, beside all that are in the set, whether in service or not.
                        epoch += 1;
                        let id = [next; 16];
                        next += 1;
                        let mut set: Vec<_> = in_set.iter().map(|disk| disks[disk].id).collect();
                        set.push(id);
                        disks.insert(disk, Says { id, epoch, set: set.clone() });
                        in_set.insert(disk);
                        for disk in in_set.difference(&out) {
                            let says = disks.get_mut(disk).unwrap();
                            (says.epoch, says.set) = (epoch, set.clone());
                        }
                    }
                    _ => {}
                }
            }
            let valid: BTreeSet<_> = in_set.iter().map(|disk| disks[disk].id).collect();
            for mask in 1..1_u64 << all {
                let here: Vec<_> = (0..all)
                    .filter(|disk| mask >> disk & 1 == 1)
                    .map(|disk| Some(disks[&disk].clone()))
                    .collect();
                let verdict = judge(&here);
                for (says, fate) in here.iter().flatten().zip(verdict.fates) {
                    assert!(
                        fate != Fate::Kept || valid.contains(&says.id),
                        "seed {seed}: {says:?} is believed beside {here:?}"
                    );
                }
            }
        }
    }
}
