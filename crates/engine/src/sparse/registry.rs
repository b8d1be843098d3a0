//! All uploads of a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use elcache_core::budget::{Budget, Taken};
use elcache_core::key::Key;
use elcache_core::tier::{Hold, Tier, TierName};
use elcache_core::tree::CHUNK_SIZE;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::timeout;

use super::draft::Draft;
use super::ledger::Ledger;
use super::{SparseError, SparseUsage};
use crate::engine::{Engine, refused};
use crate::outcome::WriteError;

/// Chunks that are combined at once.
pub(crate) const COMBINING: usize = 4;
/// Nodes with less memory than this combine one at a time.
const SMALL_NODE: u64 = 256 << 20;
/// What says what is written of all uploads may take this part of the memory budget.
const BOOKKEEPING: u64 = 8;

/// All uploads, and what they share.
pub(crate) struct Registry {
    uploads: Mutex<HashMap<Key, Slot>>,
    /// The tiers, and what uploads take of those that keep drafts.
    homes: Box<[Option<Home>]>,
    pub(crate) books: Arc<Bookkeeping>,
    /// Whether it is known what uploads there are.
    restored: watch::Sender<bool>,
    pub(crate) combining: Semaphore,
    /// Memory to combine in, taken with the first upload: whoever combines must not wait for those who wait for him.
    memory: OnceCell<Option<Hold>>,
}

struct Home {
    tier: Arc<dyn Tier>,
    ledger: Arc<Ledger>,
}

enum Slot {
    /// It is being opened.
    Claimed,
    Open(Arc<Draft>),
    /// It has ended, and its home has not been able to keep that yet.
    Ending(Arc<Draft>),
}

/// The right to open an upload of a key.
pub(super) struct Claim<'a> {
    uploads: &'a Registry,
    key: Key,
}

impl Registry {
    pub(crate) fn new(tiers: &[Arc<dyn Tier>], budget: &Arc<Budget>, wait: Duration) -> Self {
        let home = |tier: &Arc<dyn Tier>| {
            tier.staging()?;
            Some(Home { tier: Arc::clone(tier), ledger: Ledger::new(Arc::clone(tier), wait) })
        };
        let combining = if budget.max_bytes() < SMALL_NODE { 1 } else { COMBINING };
        Self {
            uploads: Mutex::default(),
            homes: tiers.iter().map(home).collect(),
            books: Arc::new(Bookkeeping {
                budget: Arc::clone(budget),
                limit: budget.max_bytes() / BOOKKEEPING,
                used: AtomicU64::new(0),
            }),
            restored: watch::Sender::new(false),
            combining: Semaphore::new(combining),
            memory: OnceCell::new(),
        }
    }

    /// A tier that keeps drafts, and its ledger.
    pub(super) fn home(&self, place: usize) -> Option<(Arc<dyn Tier>, Arc<Ledger>)> {
        let home = self.homes.get(place)?.as_ref()?;
        Some((Arc::clone(&home.tier), Arc::clone(&home.ledger)))
    }

    /// The tiers that keep drafts, by their place.
    pub(super) fn homes(&self) -> impl Iterator<Item = (usize, &Arc<dyn Tier>)> {
        self.homes.iter().enumerate().filter_map(|(place, home)| Some((place, &home.as_ref()?.tier)))
    }

    /// Waits until it is known what uploads there are.
    pub(super) async fn restored(&self, patience: Duration) -> Result<(), WriteError> {
        let mut restored = self.restored.subscribe();
        if *restored.borrow() {
            return Ok(());
        }
        let known = timeout(patience, restored.wait_for(|restored| *restored)).await;
        known.map_err(|_| WriteError::Busy)?.map(drop).map_err(|_| WriteError::Failed)
    }

    pub(super) fn is_restored(&self) {
        self.restored.send_replace(true);
    }

    /// The open upload of a key.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Draft>> {
        match self.uploads.lock().get(key) {
            Some(Slot::Open(draft)) => Some(Arc::clone(draft)),
            Some(Slot::Claimed | Slot::Ending(_)) | None => None,
        }
    }

    /// Reserves a key for an upload that is being opened.
    pub(super) fn claim(&self, key: &Key, most: usize) -> Result<Claim<'_>, SparseError> {
        let mut uploads = self.uploads.lock();
        if uploads.contains_key(key) {
            return Err(SparseError::AlreadyOpen);
        }
        if uploads.len() >= most {
            return Err(SparseError::TooManyUploads);
        }
        uploads.insert(key.clone(), Slot::Claimed);
        Ok(Claim { uploads: self, key: key.clone() })
    }

    /// Takes in an upload that was found. The newest one of a key is the key's; the other one is given back.
    pub(super) fn adopt(&self, draft: &Arc<Draft>) -> Option<Arc<Draft>> {
        let mut uploads = self.uploads.lock();
        match uploads.get(&draft.opening.key) {
            Some(Slot::Open(open)) if open.opening.draft < draft.opening.draft => {
                let old = Arc::clone(open);
                uploads.insert(draft.opening.key.clone(), Slot::Open(Arc::clone(draft)));
                Some(old)
            }
            Some(_) => Some(Arc::clone(draft)),
            None => {
                uploads.insert(draft.opening.key.clone(), Slot::Open(Arc::clone(draft)));
                None
            }
        }
    }

    /// The upload has ended, but that is not kept yet.
    pub(super) fn ended(&self, draft: &Arc<Draft>) {
        self.change(draft, || Some(Slot::Ending(Arc::clone(draft))));
    }

    /// The upload has ended for good.
    pub(super) fn closed(&self, draft: &Arc<Draft>) {
        self.change(draft, || None);
    }

    fn change(&self, draft: &Arc<Draft>, slot: impl FnOnce() -> Option<Slot>) {
        let mut uploads = self.uploads.lock();
        let is_its = match uploads.get(&draft.opening.key) {
            Some(Slot::Open(there) | Slot::Ending(there)) => Arc::ptr_eq(there, draft),
            Some(Slot::Claimed) | None => false,
        };
        if is_its {
            match slot() {
                Some(slot) => uploads.insert(draft.opening.key.clone(), slot),
                None => uploads.remove(&draft.opening.key),
            };
        }
    }

    /// All uploads that are open.
    pub(super) fn open(&self) -> Vec<Arc<Draft>> {
        let uploads = self.uploads.lock();
        let open = uploads.values().filter_map(|slot| match slot {
            Slot::Open(draft) => Some(Arc::clone(draft)),
            Slot::Claimed | Slot::Ending(_) => None,
        });
        open.collect()
    }

    /// All whose end has to be kept.
    pub(super) fn ending(&self) -> Vec<Arc<Draft>> {
        let uploads = self.uploads.lock();
        let ending = uploads.values().filter_map(|slot| match slot {
            Slot::Ending(draft) => Some(Arc::clone(draft)),
            Slot::Claimed | Slot::Open(_) => None,
        });
        ending.collect()
    }

    /// Sees to it that there is memory to combine in.
    pub(super) async fn prepare_combining(&self, engine: &Engine) -> Result<(), WriteError> {
        let take = async {
            let Some(memory) = engine.tiers().first().filter(|_| engine.tiers().len() > 1) else {
                return Ok(None);
            };
            debug_assert_eq!(memory.name(), TierName::Memory);
            let wanted = self.combining.available_permits() as u64 * CHUNK_SIZE;
            memory.admit(wanted.min(memory.largest_admission())).get().await.map(Some).map_err(refused)
        };
        self.memory.get_or_try_init(|| take).await.map(drop)
    }

    pub(super) fn usage(&self) -> SparseUsage {
        let open = self.open();
        SparseUsage {
            open: open.len() as u64,
            staged_bytes: self.homes.iter().flatten().map(|home| home.ledger.used()).sum(),
            map_bytes: open.iter().map(|draft| draft.tracked.lock().bytes()).sum(),
        }
    }
}

impl Claim<'_> {
    /// It is open.
    pub(super) fn opened(self, draft: Arc<Draft>) {
        self.uploads.uploads.lock().insert(self.key.clone(), Slot::Open(draft));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut uploads = self.uploads.uploads.lock();
        if matches!(uploads.get(&self.key), Some(Slot::Claimed)) {
            uploads.remove(&self.key);
        }
    }
}

/// The memory for what says what is written of all uploads: bounded, and taken from the budget.
pub(crate) struct Bookkeeping {
    budget: Arc<Budget>,
    limit: u64,
    used: AtomicU64,
}

impl Bookkeeping {
    /// Takes bytes; `None` when there are none left for this.
    pub(super) fn take(&self, bytes: u64) -> Option<Taken> {
        let mut taken = self.budget.take(0)?;
        self.grow(&mut taken, bytes).then_some(taken)
    }

    /// Takes more; false, and nothing changes, when there is no more.
    pub(super) fn grow(&self, taken: &mut Taken, bytes: u64) -> bool {
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return false;
        }
        let granted = taken.grow(bytes);
        if !granted {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        granted
    }

    /// Gives some back.
    pub(super) fn shrink(&self, taken: &mut Taken, bytes: u64) {
        taken.shrink(bytes);
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
