//! The order of the writes of a key: locks, and a count by which a reader learns that a key may have been written since.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use elcache_core::key::Key;
use tokio::sync::{Mutex, MutexGuard};

/// Two keys that share a lock wait for each other for the time of a commit.
const LOCKS: usize = 1024;

/// The locks.
pub(crate) struct Order {
    hashes: RandomState,
    stripes: Box<[Stripe]>,
}

#[derive(Default)]
struct Stripe {
    lock: Mutex<()>,
    /// Rises when a write begins and when it ends.
    writes: AtomicU64,
}

/// What the order of a key's writes was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) u64);

/// The right to write a key.
pub(crate) struct Writing<'a> {
    stripe: &'a Stripe,
    _lock: MutexGuard<'a, ()>,
}

impl Order {
    pub(crate) fn new() -> Self {
        Self { hashes: RandomState::new(), stripes: (0..LOCKS).map(|_| Stripe::default()).collect() }
    }

    /// Waits for the right to write a key.
    pub(crate) async fn write(&self, key: &Key) -> Writing<'_> {
        let stripe = self.stripe(key.as_bytes());
        let lock = stripe.lock.lock().await;
        stripe.writes.fetch_add(1, Ordering::AcqRel);
        Writing { stripe, _lock: lock }
    }

    /// As [`Order::write`], unless the key has been or is being written since the stamp.
    pub(crate) async fn write_unchanged(&self, key: &Key, stamp: Stamp) -> Option<Writing<'_>> {
        let stripe = self.stripe(key.as_bytes());
        let lock = stripe.lock.lock().await;
        if stripe.writes.load(Ordering::Acquire) != stamp.0 {
            return None;
        }
        stripe.writes.fetch_add(1, Ordering::AcqRel);
        Some(Writing { stripe, _lock: lock })
    }

    /// To be taken before a key is looked up.
    pub(crate) fn stamp(&self, key: &[u8]) -> Stamp {
        Stamp(self.stripe(key).writes.load(Ordering::Acquire))
    }

    /// Does something to what was found under a key, unless the key has been or is being written since the stamp: a
    /// copy that is made of it is then not older than the key's value.
    pub(crate) fn if_unchanged<R>(&self, key: &Key, stamp: Stamp, then: impl FnOnce() -> R) -> Option<R> {
        let stripe = self.stripe(key.as_bytes());
        let _lock = stripe.lock.try_lock().ok()?;
        (stripe.writes.load(Ordering::Acquire) == stamp.0).then(then)
    }

    fn stripe(&self, key: &[u8]) -> &Stripe {
        &self.stripes[self.hashes.hash_one(key) as usize % LOCKS]
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.stripe.writes.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_was_overtaken_by_a_write_does_not_write() {
        let (order, key) = (Order::new(), Key::new("k").unwrap());
        let before = order.stamp(b"k");
        drop(order.write_unchanged(&key, before).await.expect("nobody has written"));
        assert!(order.write_unchanged(&key, before).await.is_none());
        let writing = order.write(&key).await;
        let during = order.stamp(b"k");
        drop(writing);
        assert!(order.write_unchanged(&key, during).await.is_none());
    }

    #[tokio::test]
    async fn a_stamp_holds_until_a_write_begins() {
        let (order, key) = (Order::new(), Key::new("k").unwrap());
        let before = order.stamp(b"k");
        assert_eq!(order.if_unchanged(&key, before, || 1), Some(1));
        let writing = order.write(&key).await;
        let during = order.stamp(b"k");
        assert_eq!(order.if_unchanged(&key, before, || 1), None);
        assert_eq!(order.if_unchanged(&key, during, || 1), None);
        drop(writing);
        assert_eq!(order.if_unchanged(&key, before, || 1), None);
        assert_eq!(
            order.if_unchanged(&key, during, || 1),
            None,
            "what was seen during a write may be older than it"
        );
        assert_eq!(order.if_unchanged(&key, order.stamp(b"k"), || 1), Some(1));
    }
}
