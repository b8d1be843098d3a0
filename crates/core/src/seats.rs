//! How many connections there are, over all transports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts connections.
#[derive(Debug, Default)]
pub struct Seats(AtomicUsize);

/// One connection's place among them, until it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Seats {
    /// A place, or none when there are `most` connections already.
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Seat> {
        let more = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= most);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat(Arc::clone(self)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_is_given_back() {
        let seats = Arc::new(Seats::default());
        let (first, second) = (seats.take(2), seats.take(2));
        assert!(first.is_some() && second.is_some() && seats.take(2).is_none());
        // The limit may have become lower since.
        drop(first);
        assert!(seats.take(1).is_none());
        drop(second);
        assert!(seats.take(1).is_some());
        assert!(seats.take(0).is_none());
    }
}
