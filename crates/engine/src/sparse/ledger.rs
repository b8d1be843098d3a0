use crate::outcome::WriteError;
use elcache_core::tier::Tier;
use std::sync::Arc;
use std::time::Duration;
pub(crate) enum Purpose {
    Range,
    Repeat,
    Combine,
}
pub(crate) struct Ledger {
    used: std::sync::atomic::AtomicU64,
}
use std::sync::atomic::Ordering::Relaxed;
impl Ledger {
    pub(crate) fn new(_home: Arc<dyn Tier>, _wait: Duration) -> Arc<Self> {
        Arc::new(Self { used: 0.into() })
    }
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        bytes: u64,
        _purpose: Purpose,
    ) -> Result<Reserved, WriteError> {
        Ok(Reserved { bytes, ledger: Arc::clone(self) })
    }
    pub(crate) fn take_over(self: &Arc<Self>, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
    }
    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}
pub(crate) struct Reserved {
    bytes: u64,
    ledger: Arc<Ledger>,
}
impl Reserved {
    pub(crate) fn keep(self, bytes: u64) {
        self.ledger.used.fetch_add(bytes, Relaxed);
    }
    pub(crate) fn split(&mut self, bytes: u64) -> Reserved {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Reserved { bytes, ledger: Arc::clone(&self.ledger) }
    }
    pub(crate) fn join(&mut self, other: Reserved) {
        self.bytes += other.bytes;
    }
}
