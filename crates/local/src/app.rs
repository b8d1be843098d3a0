//! What every connection shares.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use elcache_core::MAX_VALUE_SIZE;
use elcache_engine::Engine;
use elcache_metrics::{Metrics, Transport};
use tokio::sync::watch;

use crate::sharing::Sharing;

/// The limits, which may change while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Connections in all.
    pub connections: usize,
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
    config: watch::Sender<LocalConfig>,
    connections: AtomicUsize,
    sharing: OnceLock<Arc<Sharing>>,
}

impl Local {
    /// Puts it together; `name` is the program and its version.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>, config: LocalConfig, name: String) -> Arc<Self> {
        let (config, _) = watch::channel(config);
        Arc::new(Self {
            engine,
            metrics,
            name,
            config,
            connections: AtomicUsize::new(0),
            sharing: OnceLock::new(),
        })
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
pub(crate) struct Seat(Arc<Local>);

impl Seat {
    pub(crate) fn take(local: &Arc<Local>) -> Option<Self> {
        let most = local.config.borrow().connections;
        let more = |open: usize| open.checked_add(1).filter(|open| *open <= most);
        local.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        local.metrics.connections(Transport::Unix).inc();
        Some(Self(Arc::clone(local)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connections(Transport::Unix).dec();
    }
}
