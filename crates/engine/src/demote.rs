//! What the fastest tier evicts and a slower one has not is offered to that one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use elcache_core::tier::{Below, Evicted, Leaving, Tier};
use tokio::sync::mpsc;

use crate::order::{Order, Stamp};

/// Entries that may be on their way.
const ON_THE_WAY: usize = 1024;

/// Takes what is evicted, as far as the slower tier keeps up; the rest goes.
pub struct Demoter {
    order: Arc<Order>,
    slower: Arc<dyn Tier>,
    queue: mpsc::Sender<(Evicted, Stamp)>,
    /// Bytes on their way, which are in memory still.
    bytes: Arc<AtomicU64>,
    max_bytes: u64,
    /// Only what has been asked for.
    asked_for: bool,
}

impl Demoter {
    /// A demoter from the fastest tier to this one, that holds at most so many bytes back from being freed.
    pub(crate) fn start(
        order: Arc<Order>,
        slower: Arc<dyn Tier>,
        max_bytes: u64,
        asked_for: bool,
    ) -> Arc<Self> {
        let (queue, evicted) = mpsc::channel(ON_THE_WAY);
        let bytes = Arc::<AtomicU64>::default();
        tokio::spawn(demote(evicted, Arc::clone(&order), Arc::clone(&slower), Arc::clone(&bytes)));
        Arc::new(Self { order, slower, queue, bytes, max_bytes, asked_for })
    }
}

impl Below for Demoter {
    fn wants(&self, leaving: Leaving<'_>, asked_for: &dyn Fn() -> bool) -> Option<u64> {
        let full = self.bytes.load(Ordering::Relaxed) >= self.max_bytes;
        let worth_it = !self.asked_for || asked_for();
        if full || !worth_it || self.slower.is_overused() || !self.slower.lacks(leaving) {
            return None;
        }
        Some(match leaving {
            Leaving::Value(key) => self.order.stamp(key).0,
            Leaving::Page(_) | Leaving::Chunk(_) => 0,
        })
    }

    fn take(&self, evicted: Evicted, told: u64) {
        let len = len(&evicted);
        self.bytes.fetch_add(len, Ordering::Relaxed);
        if self.queue.try_send((evicted, Stamp(told))).is_err() {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
        }
    }
}

/// Until the fastest tier is gone.
async fn demote(
    mut evicted: mpsc::Receiver<(Evicted, Stamp)>,
    order: Arc<Order>,
    slower: Arc<dyn Tier>,
    bytes: Arc<AtomicU64>,
) {
    while let Some((evicted, stamp)) = evicted.recv().await {
        let len = len(&evicted);
        let key = match &evicted {
            Evicted::Value(key, ..) | Evicted::Root(key, _) => Some(key.clone()),
            Evicted::Page(..) | Evicted::Chunk(..) => None,
        };
        let writing = match &key {
            // What was evicted is older than what has been written since, and must not come after it.
            Some(key) => order.write_unchanged(key, stamp).await.map(Some),
            None => Some(None),
        };
        if let Some(_writing) = writing {
            // What it does not take is gone, as it would be without it.
            let _ = slower.demote(evicted).get().await;
        }
        bytes.fetch_sub(len, Ordering::Relaxed);
    }
}

fn len(evicted: &Evicted) -> u64 {
    match evicted {
        Evicted::Value(_, _, body) | Evicted::Page(_, body) | Evicted::Chunk(_, body) => body.len() as u64,
        Evicted::Root(..) => 0,
    }
}
