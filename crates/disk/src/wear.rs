//! What a day of writing comes to, if it goes on as in the past hour.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What was written so long ago counts a third as much as what is written now.
const MEMORY: Duration = Duration::from_secs(3600);
/// Of less time than this nothing is concluded: it counts as this.
const LEAST: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An average that forgets.
pub(crate) struct Wear {
    began: Instant,
    recent: Mutex<Recent>,
}

/// Bytes, those of long ago in part, as they counted then.
struct Recent {
    bytes: f64,
    at: Instant,
}

impl Recent {
    fn now(&mut self) -> &mut f64 {
        let now = Instant::now();
        self.bytes *= (-(now - self.at).div_duration_f64(MEMORY)).exp();
        self.at = now;
        &mut self.bytes
    }
}

impl Default for Wear {
    fn default() -> Self {
        let began = Instant::now();
        Self { began, recent: Mutex::new(Recent { bytes: 0.0, at: began }) }
    }
}

impl Wear {
    pub(crate) fn add(&self, bytes: u64) {
        *self.recent.lock().now() += bytes as f64;
    }

    /// Bytes in a day.
    pub(crate) fn per_day(&self) -> u64 {
        let age = self.began.elapsed().max(LEAST);
        // What constant writing since the beginning would have come to by now, in seconds of it.
        let seconds = MEMORY.as_secs_f64() * (1.0 - (-age.div_duration_f64(MEMORY)).exp());
        (*self.recent.lock().now() / seconds * DAY.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    async fn write(wear: &Wear, minutes: u32, bytes_a_second: u64) {
        for _ in 0..minutes * 60 {
            sleep(Duration::from_secs(1)).await;
            wear.add(bytes_a_second);
        }
    }

    fn is_about(value: u64, expected: f64) {
        assert!((value as f64 / expected - 1.0).abs() < 0.01, "{value}, not {expected}");
    }

    #[tokio::test(start_paused = true)]
    async fn constant_writing_is_told_from_the_beginning_and_forgotten_in_time() {
        let wear = Wear::default();
        assert_eq!(wear.per_day(), 0);
        let day = 1000.0 * DAY.as_secs_f64();
        for minutes in [2, 10, 60, 600] {
            write(&wear, minutes, 1000).await;
            is_about(wear.per_day(), day);
        }
        sleep(MEMORY).await;
        is_about(wear.per_day(), day / std::f64::consts::E);
        sleep(24 * MEMORY).await;
        assert_eq!(wear.per_day(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_burst_is_not_blown_up() {
        let wear = Wear::default();
        wear.add(6000);
        is_about(wear.per_day(), 100.0 * DAY.as_secs_f64());
    }
}
