//! Whether a connection waits for a request or serves one, so that stopping the server closes the former at once and
//! lets the latter finish. One atomic word a connection, so that a request pays next to nothing for it.

use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const BUSY: u8 = 1;
/// Busy, and to be closed after the answer.
const LAST: u8 = 2;
/// Idle, and closed.
const CLOSED: u8 = 3;

/// One connection's state.
#[derive(Debug)]
pub struct Activity(AtomicU8);

impl Default for Activity {
    fn default() -> Self {
        Self(AtomicU8::new(BUSY))
    }
}

impl Activity {
    /// The connection waits for a request from now on; false when it is to be closed instead.
    pub fn rest(&self) -> bool {
        self.change(BUSY, IDLE)
    }

    /// A request has come; false when the connection was closed before.
    pub fn wake(&self) -> bool {
        self.change(IDLE, BUSY)
    }

    /// Whether the answer under way is the last one.
    pub fn is_closing(&self) -> bool {
        self.0.load(Ordering::Acquire) == LAST
    }

    /// The connection is to be closed: true when it is idle and can be dropped at once.
    pub fn close(&self) -> bool {
        if self.change(IDLE, CLOSED) {
            return true;
        }
        // It may have become idle in between.
        !self.change(BUSY, LAST) && self.change(IDLE, CLOSED)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_closes_at_once_and_a_busy_one_after_its_answer() {
        let idle = Activity::default();
        assert!(idle.rest() && idle.close());
        assert!(!idle.wake());
        let busy = Activity::default();
        assert!(!busy.close() && busy.is_closing());
        assert!(!busy.rest());
    }
}
