//! The tiers of a node, in process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::SystemClock;
use elcache_core::tier::Tier;
use elcache_disk::io::Device;
use elcache_disk::{DiskConfig, DiskParts, DiskTier, lock};
use elcache_engine::{Engine, EngineConfig};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;

use crate::Outcome;

/// Memory and disk, and what coordinates them.
pub struct Tiers {
    /// The first tier.
    pub memory: Arc<MemoryTier>,
    /// The second.
    pub disk: Arc<DiskTier>,
    /// The coordinator of both.
    pub engine: Arc<Engine>,
    /// What they count.
    pub metrics: Arc<Metrics>,
}

impl Tiers {
    /// Opens a directory, with so much memory before it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub async fn open(
        path: &Path,
        memory_bytes: u64,
        device: Arc<dyn Device>,
        config: DiskConfig,
    ) -> Outcome<Self> {
        let (clock, budget, metrics) = (Arc::new(SystemClock), Budget::new(memory_bytes), Metrics::new());
        let memory = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 1)?;
        let mut chance = 0;
        let parts = DiskParts {
            config: DiskConfig { patience: Duration::from_secs(60), ..config },
            device,
            path: path.to_owned(),
            lock: Some(lock(path)?),
            node_name: "bench".to_owned(),
            budget: Arc::clone(&budget),
            buffers: memory.clone(),
            clock: clock.clone(),
            random: Box::new(move || {
                chance += 1;
                chance
            }),
        };
        let disk = DiskTier::open(parts).await?;
        let tiers: Vec<Arc<dyn Tier>> = vec![memory.clone(), disk.clone()];
        let engine =
            Engine::new(EngineConfig::default(), tiers, memory.clone(), clock, budget, Arc::clone(&metrics));
        Ok(Self { memory, disk, engine, metrics })
    }
}
