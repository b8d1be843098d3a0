//! Which keys were written not long ago: two generations of a Bloom filter, of which the older is forgotten as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use elcache_core::budget::{Budget, Taken};
use elcache_core::key::KeyHash;

/// The part of the memory budget that it takes.
const PART: u64 = 256;
/// Bits of a generation for each key: with [`PROBES`] of them set, about one key in a hundred is taken for another.
const BITS: u64 = 10;
const PROBES: u64 = 5;

/// Keys that were seen.
pub(crate) struct Seen {
    generations: [Box<[AtomicU64]>; 2],
    /// The generation that takes what comes.
    young: AtomicUsize,
    /// Keys in it.
    keys: AtomicU64,
    _room: Option<Taken>,
}

impl Seen {
    /// Remembers two or three keys for every KiB of the budget.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        let room = budget.take(budget.max_bytes() / PART);
        let words = room.as_ref().map_or(0, Taken::bytes) as usize / size_of::<u64>() / 2;
        let generation = || (0..words.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self {
            generations: [generation(), generation()],
            young: AtomicUsize::new(0),
            keys: AtomicU64::new(0),
            _room: room,
        }
    }

    /// Remembers a key; true when it was seen before, as far as is remembered. Two who say it at once may both be the first.
    pub(crate) fn again(&self, key: KeyHash) -> bool {
        let young = self.young.load(Ordering::Relaxed) & 1;
        let [of_young, of_old] = [&self.generations[young], &self.generations[1 - young]];
        let before = has(of_young, key) || has(of_old, key);
        if !has(of_young, key) {
            probes(of_young, key).for_each(|(word, bit)| _ = word.fetch_or(bit, Ordering::Relaxed));
            let most = of_young.len() as u64 * u64::from(u64::BITS) / BITS;
            if self.keys.fetch_add(1, Ordering::Relaxed) + 1 == most {
                of_old.iter().for_each(|word| word.store(0, Ordering::Relaxed));
                self.keys.store(0, Ordering::Relaxed);
                self.young.fetch_add(1, Ordering::Relaxed);
            }
        }
        before
    }
}

fn has(generation: &[AtomicU64], key: KeyHash) -> bool {
    probes(generation, key).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// The hash is as good as random: its halves are enough for any number of places.
fn probes(generation: &[AtomicU64], key: KeyHash) -> impl Iterator<Item = (&AtomicU64, u64)> {
    let hash = u128::from_le_bytes(key.0);
    let (first, step) = (hash as u64, (hash >> 64) as u64 | 1);
    (0..PROBES).filter_map(move |probe| {
        let at = first.wrapping_add(probe.wrapping_mul(step));
        let word = (u128::from(at) * generation.len() as u128) >> 64;
        Some((generation.get(word as usize)?, 1 << (at & 63)))
    })
}

#[cfg(test)]
mod tests {
    use elcache_core::key::Key;

    use super::*;

    fn key(number: u64) -> KeyHash {
        Key::new(format!("{number}")).unwrap().hash()
    }

    #[test]
    fn the_first_time_is_not_again_and_the_second_is() {
        let seen = Seen::new(&Budget::new(64 << 20));
        let wrong = (0..50_000).filter(|&number| seen.again(key(number))).count();
        assert!(wrong < 500, "{wrong} of 50,000 were taken for others");
        assert!((0..50_000).all(|number| seen.again(key(number))));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let seen = Seen::new(&Budget::new(1 << 20));
        assert!(!seen.again(key(0)));
        (1..100_000).for_each(|number| _ = seen.again(key(number)));
        assert!(!seen.again(key(0)));
        let late = (100_000..200_000).filter(|&number| seen.again(key(number))).count();
        assert!(late < 3_000, "{late} of 100,000: it has filled up");
    }

    #[test]
    fn without_memory_only_the_last_few_are_remembered() {
        let budget = Budget::new(4096);
        let _all = budget.take(3072).unwrap();
        let seen = Seen::new(&budget);
        assert!((0..100).all(|number| seen.again(key(number)) || seen.again(key(number))));
        assert!(!seen.again(key(0)));
    }
}
