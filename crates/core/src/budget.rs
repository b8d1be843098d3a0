//! The one memory budget: what the process may use for everything that grows with use.
//!
//! The memory tier gets what the others (connections, uploads' bookkeeping, ghosts, later the disk's index) leave.
//! They may not leave it less than a quarter: from there on they are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The budget and what of it is taken by others than the memory tier.
#[derive(Debug)]
pub struct Budget {
    max_bytes: u64,
    /// What may be taken.
    limit_bytes: u64,
    taken_bytes: AtomicU64,
    /// What this is a part of.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    /// A budget of this many bytes of which nothing is taken.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        let limit_bytes = max_bytes - max_bytes / 4;
        Arc::new(Self { max_bytes, limit_bytes, taken_bytes: AtomicU64::new(0), whole: None })
    }

    /// A part of another budget: what is taken of it is taken of both. So those that share it leave the rest to others.
    pub fn part_of(whole: &Arc<Self>, max_bytes: u64) -> Arc<Self> {
        let whole = Some(Arc::clone(whole));
        Arc::new(Self { max_bytes, limit_bytes: max_bytes, taken_bytes: AtomicU64::new(0), whole })
    }

    /// The whole budget in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// What others than the memory tier have taken.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Relaxed)
    }

    /// What is left for the memory tier.
    pub fn left_bytes(&self) -> u64 {
        self.max_bytes.saturating_sub(self.taken_bytes())
    }

    /// Takes bytes for as long as the result lives; `None` when that would leave the memory tier less than a
    /// quarter.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        let mut taken = Taken { budget: Arc::clone(self), bytes: 0 };
        taken.grow(bytes).then_some(taken)
    }

    fn add(&self, bytes: u64) -> bool {
        let grown = self.taken_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken.checked_add(bytes).filter(|&sum| sum <= self.limit_bytes)
        });
        if grown.is_err() {
            return false;
        }
        let has_room = self.whole.as_ref().is_none_or(|whole| whole.add(bytes));
        if !has_room {
            self.taken_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        has_room
    }

    fn subtract(&self, bytes: u64) {
        self.taken_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.whole.iter().for_each(|whole| whole.subtract(bytes));
    }
}

/// A part of the budget that is in use. Dropping it gives it back.
#[derive(Debug)]
pub struct Taken {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Taken {
    /// Takes more; false, and nothing changes, when that would leave the memory tier less than a quarter.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let grown = self.budget.add(bytes);
        self.bytes += if grown { bytes } else { 0 };
        grown
    }

    /// Gives some back, at most all.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.budget.subtract(bytes);
        self.bytes -= bytes;
    }

    /// How much this is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_leave_the_memory_tier_a_quarter() {
        let budget = Budget::new(1000);
        let mut first = budget.take(700).unwrap();
        assert!(budget.take(51).is_none());
        assert!(first.grow(50) && !first.grow(1));
        assert_eq!(budget.left_bytes(), 250);
        first.shrink(100);
        assert!(budget.take(100).is_some());
        drop(first);
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn a_part_is_taken_of_the_whole_and_no_more_than_the_part() {
        let whole = Budget::new(1000);
        let part = Budget::part_of(&whole, 300);
        let taken = part.take(200).unwrap();
        assert!(part.take(101).is_none());
        assert_eq!((part.taken_bytes(), whole.taken_bytes()), (200, 200));
        let other = whole.take(500).unwrap();
        assert!(part.take(51).is_none());
        assert_eq!((part.taken_bytes(), whole.taken_bytes()), (200, 700));
        drop(taken);
        assert_eq!((part.taken_bytes(), whole.taken_bytes()), (0, 500));
        drop(other);
        assert!(part.take(300).is_some() && part.take(301).is_none());
    }

    #[test]
    fn a_request_near_the_end_of_u64_is_refused() {
        let budget = Budget::new(1000);
        let _some = budget.take(1).unwrap();
        assert!(budget.take(u64::MAX).is_none());
    }
}
