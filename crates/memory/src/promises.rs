//! Room promised to uploads, so that those that have begun can end: an upload waits its turn before it takes memory, and
//! what it takes then evicts values, never another upload's bytes.

use std::sync::Arc;

use elcache_core::tier::{Hold, Refusal, Reply};
use tokio::sync::Semaphore;

/// What the semaphores count in, since they count to 2^29 at most on the smallest machines.
const UNIT: u64 = 4096;
/// Uploads up to here have a share of their own and never wait behind large ones.
pub(crate) const SMALL: u64 = 64 << 10;

/// Who may still begin. Both queues are first come, first served.
pub(crate) struct Promises {
    large: Arc<Semaphore>,
    large_total: u64,
    small: Arc<Semaphore>,
}

impl Promises {
    /// Shares out a tier of this capacity.
    pub(crate) fn new(capacity: u64) -> Self {
        let large_total = capacity / 10 * 9 / UNIT;
        let small_total = (capacity / 16).clamp(SMALL, 64 << 20) / UNIT;
        Self {
            large: Arc::new(Semaphore::new(large_total as usize)),
            large_total,
            small: Arc::new(Semaphore::new(small_total as usize)),
        }
    }

    /// The most that one upload can be promised, in bytes.
    pub(crate) fn largest(&self) -> u64 {
        self.large_total * UNIT
    }

    /// A promise of `bytes`, at once or when its turn comes. Dropping the result, or giving up the wait, gives it back.
    pub(crate) fn admit(&self, bytes: u64) -> Reply<'static, Result<Hold, Refusal>> {
        let units = bytes.div_ceil(UNIT);
        if units > self.large_total {
            return Reply::Ready(Err(Refusal::TooLarge));
        }
        let queue = if bytes <= SMALL { &self.small } else { &self.large };
        // Below 2^32 units: the pool is at most a tebibyte.
        let units = units as u32;
        match Arc::clone(queue).try_acquire_many_owned(units) {
            Ok(permit) => Reply::Ready(Ok(Box::new(permit))),
            Err(_) => {
                let waiting = Arc::clone(queue).acquire_many_owned(units);
                Reply::Later(Box::pin(async move {
                    let permit = waiting.await.map_err(|_| Refusal::Full)?;
                    Ok(Box::new(permit) as Hold)
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const CAPACITY: u64 = 10 << 20;

    fn at_once(reply: Reply<'static, Result<Hold, Refusal>>) -> Option<Result<Hold, Refusal>> {
        match reply {
            Reply::Ready(answer) => Some(answer),
            Reply::Later(_) => None,
        }
    }

    #[test]
    fn what_could_never_fit_is_refused_at_once() {
        let promises = Promises::new(CAPACITY);
        assert!(matches!(at_once(promises.admit(CAPACITY)), Some(Err(Refusal::TooLarge))));
        assert!(matches!(at_once(promises.admit(u64::MAX)), Some(Err(Refusal::TooLarge))));
        assert!(matches!(at_once(promises.admit(promises.largest())), Some(Ok(_))));
    }

    #[tokio::test]
    async fn large_uploads_wait_their_turn_and_small_ones_go_past_them() {
        let promises = Promises::new(CAPACITY);
        let first = promises.admit(8 << 20).get().await.unwrap();
        let mut second = Box::pin(promises.admit(4 << 20).get());
        assert!(timeout(Duration::from_millis(10), &mut second).await.is_err());
        assert!(matches!(at_once(promises.admit(SMALL)), Some(Ok(_))));
        drop(first);
        assert!(second.await.is_ok());
    }
}
