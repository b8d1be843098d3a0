//! How fast the tier may write: a bucket of bytes that fills at a constant rate.

use std::sync::Arc;
use std::time::Duration;

use elcache_core::clock::Clock;
use elcache_core::tier::Refusal;
use parking_lot::Mutex;
use tokio::time::sleep;

/// What may be written at once after a rest, in seconds of the rate.
const BURST: Duration = Duration::from_secs(1);
/// How long a write waits for its turn. A chunk and those on their way before it take a few seconds each at the lowest rate.
const PATIENCE: Duration = Duration::from_secs(30);

/// The rate of all directories together. What has been written is spent whoever wrote it; only clients' writes wait.
pub(crate) struct Pace {
    /// Bytes a second; `None` is no limit.
    rate: Option<u64>,
    clock: Arc<dyn Clock>,
    /// When all that has been spent is earned.
    earned: Mutex<Duration>,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>, clock: Arc<dyn Clock>) -> Self {
        Self { rate: rate.filter(|&rate| rate > 0), earned: Mutex::new(clock.elapsed()), clock }
    }

    /// Takes bytes out of the bucket, which may leave a debt.
    pub(crate) fn spend(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut earned = self.earned.lock();
        *earned = self.clock.elapsed().saturating_sub(BURST).max(*earned) + cost;
    }

    /// How long it takes until the debt is paid.
    fn debt(&self) -> Option<Duration> {
        self.rate?;
        let debt = self.earned.lock().saturating_sub(self.clock.elapsed());
        (!debt.is_zero()).then_some(debt)
    }

    pub(crate) fn in_debt(&self) -> bool {
        self.debt().is_some()
    }

    /// Waits until there is no debt.
    pub(crate) async fn turn(&self) -> Result<(), Refusal> {
        let began = self.clock.elapsed();
        while let Some(debt) = self.debt() {
            if self.clock.elapsed().saturating_sub(began) + debt > PATIENCE {
                return Err(Refusal::Full);
            }
            sleep(debt).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::tests::support::RuntimeClock;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn over_time_no_more_is_written_than_the_rate() {
        let pace = Pace::new(Some(MIB), RuntimeClock::new());
        let began = Instant::now();
        for _ in 0..100 {
            pace.turn().await.unwrap();
            pace.spend(MIB / 2);
        }
        let took = began.elapsed();
        assert!(took > Duration::from_secs(48) && took < Duration::from_secs(50), "{took:?}");
        // A rest is not saved up for ever.
        sleep(Duration::from_secs(1000)).await;
        pace.spend(2 * MIB + 1);
        assert!(pace.in_debt());
        sleep(Duration::from_millis(1010)).await;
        assert!(!pace.in_debt());
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_for_too_long_is_told_at_once() {
        let pace = Pace::new(Some(MIB), RuntimeClock::new());
        pace.spend(40 * MIB);
        let began = Instant::now();
        assert_eq!(pace.turn().await, Err(Refusal::Full));
        assert!(began.elapsed().is_zero());
        sleep(Duration::from_secs(20)).await;
        assert_eq!(pace.turn().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        let pace = Pace::new(None, RuntimeClock::new());
        pace.spend(u64::MAX);
        assert!(!pace.in_debt());
        assert_eq!(pace.turn().await, Ok(()));
    }
}
