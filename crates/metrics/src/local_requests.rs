//! Requests of local clients by transport, operation and status: a fixed table, so that counting one needs no lock and no allocation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Transport;
use crate::counter::{Line, STRIPES, stripe, zeros};

/// The transports that local clients use.
const TRANSPORTS: [Transport; 2] = [Transport::Unix, Transport::Shm];
/// The operations that have a row: kinds of frames. The last takes all others.
const OPS: [&str; 12] = [
    "GET",
    "PUT",
    "STAT",
    "DELETE",
    "PING",
    "SPARSE_OPEN",
    "SPARSE_WRITE",
    "SPARSE_FINALIZE",
    "SPARSE_ABORT",
    "SHARE",
    "MAP",
    "other",
];
/// The statuses of the frame protocol. The last takes all others.
const STATUSES: [&str; 18] = [
    "ok",
    "partial",
    "not_found",
    "invalid",
    "range",
    "key_too_large",
    "value_too_large",
    "no_room",
    "busy",
    "timeout",
    "condition",
    "conflict",
    "incomplete",
    "cancelled",
    "unsupported",
    "protocol",
    "internal",
    "other",
];
const CELLS: usize = TRANSPORTS.len() * OPS.len() * STATUSES.len();

#[derive(Debug)]
struct Table([AtomicU64; CELLS]);

/// The requests that were answered.
#[derive(Debug)]
pub(crate) struct LocalRequests {
    stripes: Box<[Line<Table>]>,
}

impl Default for LocalRequests {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Line(Table(zeros()))).collect() }
    }
}

impl LocalRequests {
    pub(crate) fn count(&self, transport: Transport, op: &str, status: &str) {
        let Some(transport) = TRANSPORTS.iter().position(|known| *known == transport) else { return };
        let cell = (transport * OPS.len() + place(&OPS, op)) * STATUSES.len() + place(&STATUSES, status);
        self.stripes[stripe()].0.0[cell].fetch_add(1, Relaxed);
    }

    /// Calls `each` with transport, operation, status and number of requests, for all that there were any of.
    pub(crate) fn for_each(&self, mut each: impl FnMut([&'static str; 3], u64)) {
        for cell in 0..CELLS {
            let cells = self.stripes.iter().map(|table| &table.0.0[cell]);
            let requests = cells.map(|cell| cell.load(Relaxed)).sum();
            if requests > 0 {
                let (row, status) = (cell / STATUSES.len(), STATUSES[cell % STATUSES.len()]);
                each([TRANSPORTS[row / OPS.len()].as_str(), OPS[row % OPS.len()], status], requests);
            }
        }
    }
}

/// Where a word stands, or the last place.
fn place(words: &[&str], word: &str) -> usize {
    words.iter().position(|known| *known == word).unwrap_or(words.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_under_its_words_and_nowhere_else() {
        let requests = LocalRequests::default();
        for (op, status) in
            [("GET", "ok"), ("GET", "ok"), ("MAP", "internal"), ("BREW", "ok"), ("PUT", "odd")]
        {
            requests.count(Transport::Unix, op, status);
        }
        let mut all = Vec::new();
        requests.for_each(|labels, number| all.push((labels, number)));
        let expected = [
            (["unix", "GET", "ok"], 2),
            (["unix", "PUT", "other"], 1),
            (["unix", "MAP", "internal"], 1),
            (["unix", "other", "ok"], 1),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_transport_that_is_not_local_counts_nowhere() {
        let requests = LocalRequests::default();
        requests.count(Transport::Http, "GET", "ok");
        requests.for_each(|labels, _| panic!("{labels:?}"));
    }
}
