//! Readers of the same missing bytes share one read of the slower tier.

use std::collections::HashMap;
use std::sync::Arc;

use elcache_core::digest::Digest;
use elcache_core::payload::Payload;
use elcache_core::tier::{Lookup, Owner, TierName};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A chunk.
    Chunk(Digest),
    /// A value of at most one chunk.
    Value(Owner),
}

/// Bytes, and which tier gave them.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Payload,
    pub(crate) tier: TierName,
}

type Flight = Arc<OnceCell<Lookup<Read>>>;

/// The reads under way. There are at most as many as there are readers.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Target, Flight>>);

impl Flights {
    /// What `read` gives, or gave another reader who came before and waits still. A reader that goes away leaves the read
    /// to the next.
    pub(crate) async fn join(
        &self,
        target: Target,
        read: impl Future<Output = Lookup<Read>>,
    ) -> Lookup<Read> {
        let flight = Arc::clone(self.0.lock().entry(target).or_default());
        let _landing = Landing { flights: self, target, flight: &flight };
        flight.get_or_init(|| read).await.clone()
    }
}

/// Takes a read from the list when it has ended, or when its last reader goes.
struct Landing<'a> {
    flights: &'a Flights,
    target: Target,
    flight: &'a Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        let same = flights.get(&self.target).is_some_and(|listed| Arc::ptr_eq(listed, self.flight));
        // The list holds one reference and this reader one.
        if same && (self.flight.initialized() || Arc::strong_count(self.flight) <= 2) {
            flights.remove(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn many_readers_cause_one_read_and_leave_nothing_behind() {
        let (flights, reads) = (Flights::default(), AtomicUsize::new(0));
        let target = Target::Chunk(Digest([1; 32]));
        let read = || async {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Lookup::Hit(Read { bytes: Bytes::from_static(b"bytes").into(), tier: TierName::Disk })
        };
        let (a, b, c) = tokio::join!(
            flights.join(target, read()),
            flights.join(target, read()),
            flights.join(target, read())
        );
        assert!([a, b, c].iter().all(|found| matches!(found, Lookup::Hit(read) if read.bytes.len() == 5)));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        assert!(flights.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_leaves_the_read_to_the_next() {
        let flights = Flights::default();
        let target = Target::Chunk(Digest([1; 32]));
        {
            let never = std::pin::pin!(flights.join(target, std::future::pending()));
            assert!(tokio::time::timeout(std::time::Duration::from_millis(5), never).await.is_err());
        }
        assert!(flights.0.lock().is_empty());
        assert!(matches!(flights.join(target, async { Lookup::Miss }).await, Lookup::Miss));
    }
}
