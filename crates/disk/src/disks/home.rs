//! Which directory a name belongs to: weighted rendezvous hashing over the directories in service.
//!
//! Each directory draws a number for each name, exponentially distributed with its weight as the rate, and the smallest wins. So a
//! directory has its share of the names by weight, and where one goes or comes only its own names move. All of it is arithmetic
//! of whole numbers: every machine comes to the same answer.

use crate::index::entry::Name;

/// A directory's id, as its `IDENTITY` has it.
pub(crate) type DirectoryId = [u8; 16];

/// Bits behind the point of a logarithm.
const FRACTION: u32 = 32;

/// The place of the directory that a name belongs to, among directories with their weights; `None` where there is none.
pub(crate) fn home(name: &Name, directories: impl IntoIterator<Item = (DirectoryId, u64)>) -> Option<usize> {
    let mut best: Option<(usize, u64, u64, DirectoryId)> = None;
    for (place, (id, weight)) in directories.into_iter().enumerate() {
        let cost = cost(name, &id);
        let wins = best.is_none_or(|(_, least, of, by)| {
            // cost / weight < least / of
            let (mine, other) = (u128::from(cost) * u128::from(of), u128::from(least) * u128::from(weight));
            (mine, id) < (other, by)
        });
        if wins {
            best = Some((place, cost, weight, id));
        }
    }
    best.map(|(place, ..)| place)
}

/// Minus the binary logarithm of a number between 0 and 1 that follows from a name and a directory.
fn cost(name: &Name, id: &DirectoryId) -> u64 {
    let [a, b] = halves(name);
    let [c, d] = halves(id);
    let drawn = mix(mix(a ^ c) ^ b ^ d.rotate_left(32));
    let full = u64::from(u64::BITS) << FRACTION;
    // `drawn` + 1, of 2^64.
    drawn.checked_add(1).map_or(0, |drawn| full - log2(drawn))
}

fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

/// The finalizer of SplitMix64: every bit of the answer depends on every bit of the number.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// The binary logarithm of a number above 0, with [`FRACTION`] bits behind the point, floored.
fn log2(number: u64) -> u64 {
    let whole = number.ilog2();
    // The number as 1.63 bits; squaring it doubles the logarithm, the next bit of which then stands before the point.
    let mut rest = u128::from(number << (u64::BITS - 1 - whole));
    let mut log = u64::from(whole);
    for _ in 0..FRACTION {
        rest = (rest * rest) >> 63;
        let bit = (rest >> 64) as u64;
        rest >>= bit;
        log = log << 1 | bit;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name {
        let hash = blake3::hash(&number.to_le_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&hash.as_bytes()[..16]);
        name
    }

    fn id(number: u8) -> DirectoryId {
        name(1_000_000 + u64::from(number))
    }

    fn shares(directories: &[(DirectoryId, u64)], names: u64) -> Vec<u64> {
        let mut shares = vec![0; directories.len()];
        for number in 0..names {
            shares[home(&name(number), directories.iter().copied()).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn logarithms_are_right() {
        for number in [1, 2, 3, 10, 12345, 1 << 40, (1 << 63) - 1, u64::MAX] {
            let exact = (number as f64).log2();
            let found = log2(number) as f64 / f64::from(2).powi(FRACTION as i32);
            assert!((exact - found).abs() < 1e-8, "{number}: {found} instead of {exact}");
        }
        assert_eq!(log2(1 << 20), 20 << FRACTION);
    }

    /// What stands in directories depends on these: they never change.
    #[test]
    fn golden_vectors() {
        let equal: Vec<_> = (0..5).map(|n| (id(n), 100)).collect();
        let unequal: Vec<_> = (0..5).map(|n| (id(n), 1 << (30 + 2 * n))).collect();
        let homes = |directories: &[(DirectoryId, u64)]| -> Vec<usize> {
            (0..24).map(|n| home(&name(n), directories.iter().copied()).unwrap()).collect()
        };
        assert_eq!(homes(&equal), GOLDEN_EQUAL);
        assert_eq!(homes(&unequal), GOLDEN_UNEQUAL);
        assert_eq!(cost(&[0; 16], &[0; 16]), 64 << FRACTION);
        assert_eq!(cost(&name(1), &id(1)), GOLDEN_COST);
    }

    const GOLDEN_EQUAL: [usize; 24] =
        [1, 2, 4, 3, 0, 2, 1, 3, 2, 4, 4, 1, 1, 0, 1, 2, 0, 2, 1, 1, 1, 4, 4, 0];
    const GOLDEN_UNEQUAL: [usize; 24] =
        [4, 2, 4, 3, 4, 4, 4, 3, 4, 4, 4, 4, 4, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4];
    const GOLDEN_COST: u64 = 1_998_250_811;

    #[test]
    fn each_has_its_share_by_weight() {
        let weights = [100_u64, 100, 200, 50, 400];
        let directories: Vec<_> = (0..).zip(weights).map(|(n, weight)| (id(n), weight << 30)).collect();
        let names = 200_000;
        for (share, weight) in shares(&directories, names).into_iter().zip(weights) {
            let expected = (names * weight / 850) as f64;
            let off = (share as f64 - expected).abs() / expected;
            assert!(off < 0.03, "{share} names instead of {expected}");
        }
        assert_eq!(home(&name(1), []), None);
    }

    #[test]
    fn only_the_names_of_one_that_goes_or_comes_move() {
        let four: Vec<_> = (0..4).map(|n| (id(n), 1 + u64::from(n))).collect();
        for gone in 0..4 {
            let mut three = four.clone();
            three.remove(gone);
            for number in 0..20_000 {
                let before = four[home(&name(number), four.iter().copied()).unwrap()];
                let after = three[home(&name(number), three.iter().copied()).unwrap()];
                assert!(before == after || before == four[gone], "{number} moved from {before:?}");
            }
        }
    }

    #[test]
    fn the_order_in_which_they_are_listed_does_not_matter() {
        let forwards: Vec<_> = (0..6).map(|n| (id(n), 7)).collect();
        let backwards: Vec<_> = forwards.iter().copied().rev().collect();
        for number in 0..5000 {
            let a = forwards[home(&name(number), forwards.iter().copied()).unwrap()];
            let b = backwards[home(&name(number), backwards.iter().copied()).unwrap()];
            assert_eq!(a, b);
        }
    }
}
