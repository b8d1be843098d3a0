//! Numbers that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator (SplitMix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// A size whose order of magnitude is as likely as any other, from 1 to `max`.
    pub fn size(&mut self, max: u64) -> u64 {
        let bits = self.below(u64::from(max.ilog2()) + 1);
        (1 + self.below(2 << bits)).min(max)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }
}

/// SplitMix64's finalizer: every bit of the result depends on every bit of `word`.
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A seed, another one each time, unless somebody wants one repeated: `ELCACHE_TEST_SEED`.
pub fn seed() -> u64 {
    let given = std::env::var("ELCACHE_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let clock =
        || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64 % 1_000_000_007;
    given.unwrap_or_else(clock)
}
