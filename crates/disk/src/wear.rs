//! What a day of writing comes to, if it goes on as in the past hour.

use std::time::Duration;

use parking_lot::Mutex;

/// What was written so long ago counts a third as much as what is written now.
const MEMORY: Duration = Duration::from_secs(3600);
/// Of less time than this nothing is concluded: it counts as this.
const LEAST: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// An average that forgets. Times are since any one moment.
#[derive(Default)]
pub(crate) struct Wear {
    began: Duration,
    recent: Mutex<Recent>,
}

/// Bytes, those of long ago in part, as they counted then.
#[derive(Default)]
struct Recent {
    bytes: f64,
    at: Duration,
}

impl Recent {
    fn at(&mut self, now: Duration) -> &mut f64 {
        self.bytes *= (-now.saturating_sub(self.at).div_duration_f64(MEMORY)).exp();
        self.at = now.max(self.at);
        &mut self.bytes
    }
}

impl Wear {
    pub(crate) fn new(began: Duration) -> Self {
        Self { began, recent: Mutex::new(Recent { bytes: 0.0, at: began }) }
    }

    pub(crate) fn add(&self, bytes: u64, now: Duration) {
        *self.recent.lock().at(now) += bytes as f64;
    }

    /// Bytes in a day.
    pub(crate) fn per_day(&self, now: Duration) -> u64 {
        let age = now.saturating_sub(self.began).max(LEAST);
        // What constant writing since the beginning would have come to by now, in seconds of it.
        let seconds = MEMORY.as_secs_f64() * (1.0 - (-age.div_duration_f64(MEMORY)).exp());
        (*self.recent.lock().at(now) / seconds * DAY.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Duration = Duration::from_secs(5000);

    fn is_about(value: u64, expected: f64) {
        assert!((value as f64 / expected - 1.0).abs() < 0.01, "{value}, not {expected}");
    }

    #[test]
    fn constant_writing_is_told_from_the_beginning_and_forgotten_in_time() {
        let wear = Wear::new(BEGAN);
        assert_eq!(wear.per_day(BEGAN), 0);
        let day = 1000.0 * DAY.as_secs_f64();
        let mut now = BEGAN;
        for minutes in [2, 10, 60, 600] {
            for _ in 0..minutes * 60 {
                now += Duration::from_secs(1);
                wear.add(1000, now);
            }
            is_about(wear.per_day(now), day);
        }
        is_about(wear.per_day(now + MEMORY), day / std::f64::consts::E);
        assert_eq!(wear.per_day(now + 25 * MEMORY), 0);
    }

    #[test]
    fn a_first_burst_is_not_blown_up() {
        let wear = Wear::new(BEGAN);
        wear.add(6000, BEGAN);
        is_about(wear.per_day(BEGAN), 100.0 * DAY.as_secs_f64());
    }
}
