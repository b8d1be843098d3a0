//! What every connection shares.

use std::sync::Arc;
use std::time::Instant;

use elcache_core::seats::Seats;
use elcache_engine::Engine;
use elcache_metrics::{Metrics, Snapshot, UploadUsage};

use crate::config::{ConfigHandle, HttpConfig};
use crate::connections::Connections;
use crate::health::Health;

/// The node as HTTP sees it.
pub struct App {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: ConfigHandle,
    pub(crate) connections: Connections,
    health: Health,
    started: Instant,
}

impl App {
    /// Puts them together. The node counts as starting until its health is set.
    pub fn new(engine: Arc<Engine>, metrics: Arc<Metrics>, config: HttpConfig) -> Arc<Self> {
        Arc::new(Self {
            engine,
            metrics,
            config: ConfigHandle::new(config),
            connections: Connections::default(),
            health: Health::default(),
            started: Instant::now(),
        })
    }

    /// What `/health` says.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Where its connections are counted, among those of other transports.
    pub fn seats(&self) -> &Arc<Seats> {
        &self.connections.all
    }

    /// The limits, to be changed while the server runs.
    pub fn config(&self) -> &ConfigHandle {
        &self.config
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let tiers = self.engine.stats().tiers.into_iter().map(|(name, stats)| (name, stats.usage)).collect();
        let uploads = self.engine.sparse_usage();
        let uploads = UploadUsage {
            open: uploads.open,
            staged_bytes: uploads.staged_bytes,
            map_bytes: uploads.map_bytes,
        };
        Snapshot {
            tiers,
            directories: self.engine.directories(),
            uploads: Some(uploads),
            uptime: self.started.elapsed(),
        }
    }
}
