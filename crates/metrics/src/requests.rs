//! HTTP requests by method and status code: a fixed table, so that counting one needs no lock and no allocation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counter::{Line, STRIPES, stripe, zeros};

/// The methods that have a row. The last takes all others.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "other"];
const OTHER_METHOD: usize = METHODS.len() - 1;

const FIRST_CODE: u16 = 100;
const LAST_CODE: u16 = 599;
/// The column for codes that are not status codes of HTTP.
const OTHER_CODE: usize = (LAST_CODE - FIRST_CODE) as usize + 1;
const COLUMNS: usize = OTHER_CODE + 1;

#[derive(Debug)]
struct Table([AtomicU64; METHODS.len() * COLUMNS]);

/// The requests that were answered. A table of 39 KiB for each stripe.
#[derive(Debug)]
pub(crate) struct Requests {
    stripes: Box<[Line<Table>]>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Line(Table(zeros()))).collect() }
    }
}

impl Requests {
    pub(crate) fn count(&self, method: &str, code: u16) {
        let cell = row(method) * COLUMNS + column(code);
        self.stripes[stripe()].0.0[cell].fetch_add(1, Relaxed);
    }

    /// Calls `each` with method, code and number of requests, for all that there were any of.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&'static str, &str, u64)) {
        for (row, method) in METHODS.iter().enumerate() {
            for column in 0..COLUMNS {
                let cells = self.stripes.iter().map(|table| &table.0.0[row * COLUMNS + column]);
                match cells.map(|cell| cell.load(Relaxed)).sum() {
                    0 => {}
                    requests if column == OTHER_CODE => each(method, "other", requests),
                    requests => each(method, &(usize::from(FIRST_CODE) + column).to_string(), requests),
                }
            }
        }
    }
}

fn row(method: &str) -> usize {
    METHODS[..OTHER_METHOD].iter().position(|known| *known == method).unwrap_or(OTHER_METHOD)
}

fn column(code: u16) -> usize {
    match code {
        FIRST_CODE..=LAST_CODE => usize::from(code - FIRST_CODE),
        _ => OTHER_CODE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: &Requests) -> Vec<(&'static str, String, u64)> {
        let mut all = Vec::new();
        requests.for_each(|method, code, number| all.push((method, code.to_owned(), number)));
        all
    }

    #[test]
    fn a_request_counts_under_its_method_and_code_and_nowhere_else() {
        let requests = Requests::default();
        for (method, code) in [("GET", 200), ("GET", 200), ("GET", 599), ("HEAD", 100), ("CONNECT", 501)] {
            requests.count(method, code);
        }
        let expected = [("GET", "200", 2), ("GET", "599", 1), ("HEAD", "100", 1), ("CONNECT", "501", 1)];
        assert_eq!(counted(&requests), expected.map(|(method, code, n)| (method, code.to_owned(), n)));
    }

    #[test]
    fn what_nobody_knows_counts_as_other() {
        let requests = Requests::default();
        for method in ["BREW", "get", "", "other"] {
            requests.count(method, 501);
        }
        for code in [0, 99, 600, u16::MAX] {
            requests.count("GET", code);
        }
        let expected = [("GET", "other", 4), ("other", "501", 4)];
        assert_eq!(counted(&requests), expected.map(|(method, code, n)| (method, code.to_owned(), n)));
    }
}
