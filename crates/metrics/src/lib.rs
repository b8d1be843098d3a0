//! Metrics of one node: their names, the counters behind them, and the page that exposes them.
//!
//! Whoever does the work counts it in [`Metrics`]; whoever answers a scrape calls [`Metrics::render`] with a
//! [`Snapshot`] of what only the tiers know. `docs/metrics.md` lists every metric.
//!
//! # Layout
//! - `counter`: counters striped over threads, and gauges.
//! - `histogram`: latencies in fixed buckets.
//! - `requests`: the table of HTTP requests by method and status code; `local_requests`: that of local clients.
//! - `process`: what the kernel says of this process.
//! - `families`: the table of every metric: name, type, labels, unit, help, and where its samples come from.
//! - `encode`: that table as text.
//! - `format`: the two formats, and the choice between them by `Accept`.
//!
//! # Invariants
//! Counting takes no lock and allocates nothing, so it may be done anywhere. Labels are bounded: every label's
//! value comes from a list in this crate. A tier is exposed when the snapshot has it, and not before.
//!
//! It must not know what a request, a tier or a connection does, only that it did.
#![forbid(unsafe_code)]

pub mod counter;
mod encode;
mod families;
pub mod format;
pub mod histogram;
mod local_requests;
mod process;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use elcache_core::tier::{DirectoryUsage, TierName, Usage};

use crate::counter::{Counter, Gauge};
pub use crate::format::Format;
use crate::histogram::Histogram;
use crate::local_requests::LocalRequests;
use crate::process::Process;
use crate::requests::Requests;

/// Everything that a node counts. One for a node, shared by whoever counts.
#[derive(Debug, Default)]
pub struct Metrics {
    memory: TierMetrics,
    disk: TierMetrics,
    cluster: TierMetrics,
    requests: Requests,
    http_connections: Gauge,
    local_requests: LocalRequests,
    unix_connections: Gauge,
    shm_connections: Gauge,
    /// Uploads by ranges.
    pub uploads: UploadMetrics,
}

/// What is counted of one tier.
#[derive(Debug, Default)]
pub struct TierMetrics {
    /// Look-ups that found all of what was asked for.
    pub hits: Counter,
    /// Look-ups that found nothing.
    pub misses: Counter,
    /// Look-ups that found some of what was asked for.
    pub partial_hits: Counter,
    /// Bytes of values that it gave.
    pub bytes_read: Counter,
    /// Bytes of values that it took.
    pub bytes_written: Counter,
    /// How long gets took.
    pub get_latency: Histogram,
    /// How long puts took.
    pub put_latency: Histogram,
}

/// What is counted of uploads by ranges.
#[derive(Debug, Default)]
pub struct UploadMetrics {
    /// Uploads that were opened.
    pub opened: Counter,
    /// Those that became a value.
    pub finalized: Counter,
    /// Those that were given up by a client.
    pub aborted: Counter,
    /// Those to which nothing was written for too long.
    pub expired: Counter,
    /// Those whose place failed.
    pub lost: Counter,
    /// Ranges that were written.
    pub ranges_written: Counter,
    /// Ranges that were not taken, or could not be written.
    pub ranges_refused: Counter,
    /// Ranges that did not arrive to their end.
    pub ranges_cut_off: Counter,
    /// Chunks that were put together from ranges.
    pub chunks_combined: Counter,
    /// Ranges that had been written and are not there any more.
    pub lost_ranges: Counter,
}

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The HTTP port.
    Http,
    /// The Unix socket.
    Unix,
    /// Shared memory.
    Shm,
}

impl Transport {
    /// Every transport there is.
    pub const ALL: [Self; 3] = [Self::Http, Self::Unix, Self::Shm];

    /// The word for it in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Unix => "unix",
            Self::Shm => "shm",
        }
    }
}

/// What is known only at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The tiers that exist, each once, and how full they are.
    pub tiers: Vec<(TierName, Usage)>,
    /// The directories that they are in.
    pub directories: Vec<DirectoryUsage>,
    /// What uploads by ranges take up, where there can be any.
    pub uploads: Option<UploadUsage>,
    /// Since the node started.
    pub uptime: Duration,
}

/// What uploads by ranges take up.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadUsage {
    /// Uploads that are open.
    pub open: u64,
    /// Bytes of the tiers that are kept for them.
    pub staged_bytes: u64,
    /// Bytes of memory that knowing what is written takes.
    pub map_bytes: u64,
}

impl Metrics {
    /// All of them zero.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The counters of a tier. They count whether or not the tier is exposed.
    pub fn tier(&self, name: TierName) -> &TierMetrics {
        match name {
            TierName::Memory => &self.memory,
            TierName::Disk => &self.disk,
            TierName::Cluster => &self.cluster,
        }
    }

    /// Counts an answered HTTP request. A method or code out of the ordinary counts as `other`.
    pub fn http_request(&self, method: &'static str, code: u16) {
        self.requests.count(method, code);
    }

    /// Counts a request that a local client had answered. A word out of the ordinary counts as `other`.
    pub fn local_request(&self, transport: Transport, op: &str, status: &str) {
        self.local_requests.count(transport, op, status);
    }

    /// The connections that are open.
    pub fn connections(&self, transport: Transport) -> &Gauge {
        match transport {
            Transport::Http => &self.http_connections,
            Transport::Unix => &self.unix_connections,
            Transport::Shm => &self.shm_connections,
        }
    }

    /// The page that answers a scrape. Reads `/proc`: some tens of microseconds, longer where the kernel is older
    /// than 6.2 and thousands of files are open.
    pub fn render(&self, format: Format, snapshot: &Snapshot) -> String {
        self.render_with(format, snapshot, &Process::read())
    }

    fn render_with(&self, format: Format, snapshot: &Snapshot, process: &Process) -> String {
        encode::page(format, &families::Source { metrics: self, snapshot, process })
    }
}

#[cfg(test)]
mod tests;
