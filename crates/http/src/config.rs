//! What of the HTTP side can be configured, and the handle through which it changes while the server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elcache_core::MAX_VALUE_SIZE;
use parking_lot::RwLock;

/// Limits and settings. The defaults are what a public listener survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// The longest request line, in bytes.
    pub request_line: usize,
    /// The most bytes of all headers of a request together.
    pub headers: usize,
    /// The most header lines of a request, at most [`HttpConfig::MAX_HEADER_LINES`].
    pub header_lines: usize,
    /// From the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// Between two requests, and between two bytes that a client takes of an answer.
    pub idle_timeout: Duration,
    /// Between two bytes of a request's body.
    pub body_stall_timeout: Duration,
    /// Within it a request is answered or refused.
    pub first_byte_timeout: Duration,
    /// The largest value, in bytes.
    pub value_size: u64,
    /// The most bytes that are buffered for one connection.
    pub buffered_per_connection: usize,
    /// Origins whose pages may read answers in a browser; `*` is all. None: no CORS headers at all.
    pub cors_origins: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 1000,
            request_line: 32 << 10,
            headers: 64 << 10,
            header_lines: Self::MAX_HEADER_LINES,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_stall_timeout: Duration::from_secs(30),
            first_byte_timeout: Duration::from_secs(15),
            value_size: MAX_VALUE_SIZE,
            buffered_per_connection: 8 << 20,
            cors_origins: Vec::new(),
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The field of [`HttpConfig`].
    pub field: &'static str,
    /// What it should be.
    pub expected: &'static str,
}

impl HttpConfig {
    /// The parser's table of header lines has this many rows.
    pub const MAX_HEADER_LINES: usize = 128;

    /// Everything that is wrong, at once.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let moment = Duration::from_millis(1);
        let checks = [
            (self.connections >= 1, "connections", "at least 1"),
            (self.connections_per_address >= 1, "connections_per_address", "at least 1"),
            ((256..=1 << 20).contains(&self.request_line), "request_line", "256 bytes to 1 MiB"),
            ((256..=1 << 20).contains(&self.headers), "headers", "256 bytes to 1 MiB"),
            ((1..=Self::MAX_HEADER_LINES).contains(&self.header_lines), "header_lines", "1 to 128"),
            (self.header_timeout >= moment, "header_timeout", "at least 1 ms"),
            (self.idle_timeout >= moment, "idle_timeout", "at least 1 ms"),
            (self.body_stall_timeout >= moment, "body_stall_timeout", "at least 1 ms"),
            (self.first_byte_timeout >= moment, "first_byte_timeout", "at least 1 ms"),
            (
                (1..=MAX_VALUE_SIZE).contains(&self.value_size),
                "value_size",
                "1 byte to 20 TB (20 x 2^40 bytes)",
            ),
            (
                (64 << 10..=1 << 30).contains(&self.buffered_per_connection),
                "buffered_per_connection",
                "64 KiB to 1 GiB",
            ),
            (
                self.cors_origins.iter().all(|origin| origin_is_valid(origin)),
                "cors_origins",
                "\"*\", or scheme://host[:port] without a path",
            ),
        ];
        let wrong: Vec<_> = checks
            .into_iter()
            .filter(|(fine, ..)| !fine)
            .map(|(_, field, expected)| Invalid { field, expected })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn origin_is_valid(origin: &str) -> bool {
    let host = origin.split_once("://").map(|(_, host)| host);
    let plain =
        |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    origin == "*" || origin == "null" || host.is_some_and(plain)
}

/// The configuration in force. It may be replaced at any time; every request is served under one of them.
#[derive(Debug)]
pub struct ConfigHandle {
    current: RwLock<Arc<HttpConfig>>,
    number: AtomicU64,
}

impl ConfigHandle {
    /// Starts with this one.
    pub fn new(config: HttpConfig) -> Self {
        Self { current: RwLock::new(Arc::new(config)), number: AtomicU64::new(0) }
    }

    /// From now on this one.
    pub fn replace(&self, config: HttpConfig) {
        *self.current.write() = Arc::new(config);
        self.number.fetch_add(1, Ordering::Release);
    }

    /// The one in force.
    pub fn get(&self) -> Arc<HttpConfig> {
        Arc::clone(&self.current.read())
    }

    /// A view that is cheap to bring up to date.
    pub(crate) fn view(&self) -> ConfigView {
        let number = self.number.load(Ordering::Acquire);
        ConfigView { config: self.get(), number }
    }
}

/// A connection's own copy of the reference: most of the time it only has to see that nothing has changed.
#[derive(Debug)]
pub(crate) struct ConfigView {
    config: Arc<HttpConfig>,
    number: u64,
}

impl ConfigView {
    /// Takes over what is in force now.
    pub(crate) fn refresh(&mut self, handle: &ConfigHandle) {
        if handle.number.load(Ordering::Acquire) != self.number {
            *self = handle.view();
        }
    }
}

impl std::ops::Deref for ConfigView {
    type Target = HttpConfig;

    fn deref(&self) -> &HttpConfig {
        &self.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_everything_wrong_is_named_at_once() {
        assert_eq!(HttpConfig::default().validate(), Ok(()));
        let wrong = HttpConfig {
            connections: 0,
            header_lines: 129,
            value_size: MAX_VALUE_SIZE + 1,
            cors_origins: vec!["*".into(), "https://a.example".into(), "a.example/x".into()],
            ..HttpConfig::default()
        };
        let fields: Vec<_> = wrong.validate().unwrap_err().iter().map(|wrong| wrong.field).collect();
        assert_eq!(fields, ["connections", "header_lines", "value_size", "cors_origins"]);
    }

    #[test]
    fn a_view_follows_the_handle() {
        let handle = ConfigHandle::new(HttpConfig::default());
        let mut view = handle.view();
        handle.replace(HttpConfig { connections: 7, ..HttpConfig::default() });
        assert_eq!(view.connections, 10_000);
        view.refresh(&handle);
        assert_eq!((view.connections, handle.get().connections), (7, 7));
    }
}
