//! What every connection shares.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use elcache_core::MAX_VALUE_SIZE;
use elcache_core::budget::Budget;
use elcache_core::seats::{self, Seats};
use elcache_engine::Engine;
use elcache_metrics::{Metrics, Transport};
use tokio::sync::watch;

use crate::sharing::Sharing;

/// Which part of the memory budget.
const LEFTOVERS: u64 = 8;

/// The limits, which may change while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Connections in all, over all transports.
    pub connections: usize,
    /// From the beginning of a connection to the end of its greeting.
    pub header_timeout: Duration,
    /// How long a client may leave data out that it announced, or not take an answer.
    pub body_stall_timeout: Duration,
    /// How long a step of a request may take: a look-up, a piece of an answer, a commit.
    pub first_byte_timeout: Duration,
    /// The largest value, in bytes.
    pub value_size: u64,
    /// The most bytes that are buffered for one connection.
    pub buffered_per_connection: usize,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_timeout: Duration::from_secs(10),
            body_stall_timeout: Duration::from_secs(30),
            first_byte_timeout: Duration::from_secs(15),
            value_size: MAX_VALUE_SIZE,
            buffered_per_connection: 8 << 20,
        }
    }
}

/// The node as its local clients see it.
pub struct Local {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    /// Names the program in `HELLO`.
    pub(crate) name: String,
    /// What clients may leave here together, of what they began to say and of answers that they do not take.
    pub(crate) leftovers: Arc<Budget>,
    config: watch::Sender<LocalConfig>,
    seats: Arc<Seats>,
    sharing: OnceLock<Arc<Sharing>>,
}

impl Local {
    /// Puts it together; `name` is the program and its version, in `seats` connections of all transports are counted.
    pub fn new(
        engine: Arc<Engine>,
        metrics: Arc<Metrics>,
        config: LocalConfig,
        seats: Arc<Seats>,
        name: String,
    ) -> Arc<Self> {
        let (config, _) = watch::channel(config);
        let leftovers = Budget::part_of(engine.budget(), engine.budget().max_bytes() / LEFTOVERS);
        Arc::new(Self { engine, metrics, name, leftovers, config, seats, sharing: OnceLock::new() })
    }

    /// From now on these limits hold.
    pub fn configure(&self, config: LocalConfig) {
        self.config.send_replace(config);
    }

    /// From now on clients that ask for it share memory with the node. Only the first one counts.
    pub fn share(&self, sharing: Arc<Sharing>) {
        let _ = self.sharing.set(sharing);
    }

    pub(crate) fn sharing(&self) -> Option<&Arc<Sharing>> {
        self.sharing.get()
    }

    pub(crate) fn config(&self) -> watch::Receiver<LocalConfig> {
        self.config.subscribe()
    }
}

/// A connection's place among those that there may be, until it is dropped.
pub(crate) struct Seat {
    local: Arc<Local>,
    _among_all: seats::Seat,
}

impl Seat {
    pub(crate) fn take(local: &Arc<Local>) -> Option<Self> {
        let among_all = local.seats.take(local.config.borrow().connections)?;
        local.metrics.connections(Transport::Unix).inc();
        Some(Self { local: Arc::clone(local), _among_all: among_all })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.local.metrics.connections(Transport::Unix).dec();
    }
}
