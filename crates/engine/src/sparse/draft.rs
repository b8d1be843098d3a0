//! One upload at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use elcache_core::budget::Taken;
use elcache_core::staging::{Gone, Opening, Staging};
use elcache_core::tier::{ChunkRef, Owner, PageRef, Tier};
use elcache_core::tree::{self, CHUNK_SIZE};
use parking_lot::Mutex;

use super::SparseError;
use super::ledger::{Ledger, Reserved};
use super::map::Map;
use super::registry::{Bookkeeping, Registry};
use crate::outcome::{Stored, WriteError};

/// Locks of an upload's chunks. Writers of two chunks that share one wait for each other.
const LOCKS: usize = 64;
/// What the tier's index takes for a fragment, at least.
const FRAGMENT_ENTRY: u64 = 40;

/// What has become of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    Finalized(Stored),
    /// Given up, expired or lost.
    Over,
}

/// An upload that is open.
pub(crate) struct Draft {
    pub(crate) opening: Opening,
    pub(crate) owner: Owner,
    home: Arc<dyn Tier>,
    pub(crate) ledger: Arc<Ledger>,
    /// No tier may have the value: nothing can be written.
    pub(crate) barred: bool,
    /// Read while a write is made to count, and written where nothing may be on its way: for a page, for the end.
    pub(crate) state: Arc<tokio::sync::RwLock<State>>,
    pub(crate) chunks: [tokio::sync::Mutex<()>; LOCKS],
    pub(crate) tracked: Mutex<Tracked>,
    serial: AtomicU64,
    /// When it was last in use, and which time of that is kept.
    pub(crate) touched_ms: AtomicU64,
    pub(crate) kept_ms: AtomicU64,
    /// Ranges on their way in.
    pub(crate) receiving: AtomicUsize,
    /// Up to which of its home's generations it has been verified.
    pub(crate) generation: AtomicU64,
    /// Bytes of the ledger that are its.
    kept_bytes: AtomicU64,
    /// It is kept that it is over, and everything has been let go of.
    pub(crate) closed: AtomicBool,
}

/// What is written, and the memory that it takes to say so.
pub(crate) struct Tracked {
    pub(crate) map: Map,
    /// Writes that are on their way into the map.
    arriving: u64,
    taken: Taken,
    /// What of it does not depend on what is written.
    alone: u64,
    books: Arc<Bookkeeping>,
}

impl Draft {
    /// An upload of which nothing is written; `None` when there is no memory for it.
    pub(crate) fn new(uploads: &Registry, home: usize, barred: bool, opening: Opening) -> Option<Arc<Self>> {
        let owner = opening.owner();
        let (home, ledger) = uploads.home(home)?;
        let alone = size_of::<Self>() + opening.key.as_bytes().len() + opening.headers.as_bytes().len();
        let alone = alone as u64;
        let tracked = Tracked {
            map: Map::new(owner, opening.size),
            arriving: 0,
            taken: uploads.books.take(alone)?,
            alone,
            books: Arc::clone(&uploads.books),
        };
        Some(Arc::new(Self {
            touched_ms: opening.touched_ms.into(),
            kept_ms: opening.touched_ms.into(),
            generation: home.staging()?.generation().into(),
            opening,
            owner,
            home,
            ledger,
            barred,
            state: Arc::new(State::Open.into()),
            chunks: [const { tokio::sync::Mutex::const_new(()) }; LOCKS],
            tracked: tracked.into(),
            serial: AtomicU64::new(1),
            receiving: AtomicUsize::new(0),
            kept_bytes: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }))
    }

    /// Where its bytes are.
    pub(crate) fn home(&self) -> &Arc<dyn Tier> {
        &self.home
    }

    pub(crate) fn staging(&self) -> Result<&dyn Staging, WriteError> {
        self.home.staging().ok_or(WriteError::Failed)
    }

    pub(crate) fn chunk_len(&self, number: u64) -> u32 {
        tree::chunk_len(self.opening.size, number) as u32
    }

    /// A value of at most one chunk is one record in the end: its chunk is never one before.
    pub(crate) fn has_chunks(&self) -> bool {
        self.opening.size > CHUNK_SIZE
    }

    pub(crate) fn page(&self, number: u64) -> PageRef {
        PageRef { owner: self.owner, number }
    }

    pub(crate) fn chunk(&self, number: u64, digest: elcache_core::digest::Digest) -> ChunkRef {
        ChunkRef { digest, number, len: self.chunk_len(number) }
    }

    /// The lock under which a chunk is written.
    pub(crate) async fn lock(&self, number: u64) -> tokio::sync::MutexGuard<'_, ()> {
        self.chunks[number as usize % LOCKS].lock().await
    }

    /// The place of a write in the order of writes. To be called under the chunk's lock.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Serials go on above this one, with a gap for what a directory that comes back later may know.
    pub(crate) fn serials_above(&self, last: u64) {
        self.serial.fetch_max(last.saturating_add(1 << 20), Ordering::Relaxed);
    }

    pub(crate) fn touch(&self, now_ms: u64) {
        self.touched_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// What all of its data takes of its home.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    /// So many of the reserved bytes are in use from now on, and so many that were in use are no more.
    pub(crate) fn account(&self, reserved: Option<Reserved>, used: u64, freed: u64) {
        if let Some(reserved) = reserved {
            reserved.keep(used);
            self.kept_bytes.fetch_add(used, Ordering::Relaxed);
        }
        let freed = freed.min(self.kept_bytes());
        self.kept_bytes.fetch_sub(freed, Ordering::Relaxed);
        self.ledger.release(freed);
    }

    /// Takes over what a restart has found.
    pub(crate) fn account_found(&self, bytes: u64) {
        self.ledger.take_over(bytes);
        self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What the tier gets back when it is told that these are gone.
    pub(crate) fn footprint(&self, gone: &[Gone]) -> u64 {
        let Ok(staging) = self.staging() else { return 0 };
        let bytes = gone.iter().map(|gone| match gone {
            Gone::Fragment(fragment) => staging.footprint(fragment.to - fragment.from),
            Gone::Chunk(chunk) => staging.footprint(chunk.len),
            Gone::Filling(_) => 0,
        });
        bytes.sum()
    }

    /// Changes the map, and lets go of what it gives back.
    pub(crate) fn change(&self, act: impl FnOnce(&mut Map) -> Vec<Gone>) -> Vec<Gone> {
        let gone = {
            let mut tracked = self.tracked.lock();
            let gone = act(&mut tracked.map);
            tracked.settle();
            gone
        };
        if let (Ok(staging), false) = (self.staging(), gone.is_empty()) {
            staging.forget(self.owner, &gone);
        }
        gone
    }

    /// Fails when it is not open any more. To be asked under [`Draft::state`].
    pub(crate) fn open(state: State) -> Result<(), SparseError> {
        if state == State::Open { Ok(()) } else { Err(SparseError::NoUpload) }
    }
}

impl Tracked {
    /// Takes memory for one more write; to be followed by [`Tracked::arrived`]. False when there is none.
    pub(crate) fn begin(&mut self) -> bool {
        self.arriving += 1;
        let wanted = self.wanted();
        let more = wanted.saturating_sub(self.taken.bytes());
        let granted = more == 0 || self.books.grow(&mut self.taken, more);
        self.arriving -= u64::from(!granted);
        granted
    }

    /// The write is in the map, or will not be.
    pub(crate) fn arrived(&mut self) {
        self.arriving -= 1;
        self.settle();
    }

    /// Takes the memory that the map takes, if there is so much.
    pub(crate) fn settle(&mut self) {
        let (wanted, taken) = (self.wanted(), self.taken.bytes());
        if wanted > taken {
            self.books.grow(&mut self.taken, wanted - taken);
        } else {
            self.books.shrink(&mut self.taken, taken - wanted);
        }
    }

    fn wanted(&self) -> u64 {
        let map = self.map.heap_bytes() + self.map.fragments() * FRAGMENT_ENTRY;
        map + self.arriving * (Map::<CHUNK_SIZE>::GROWTH + FRAGMENT_ENTRY) + self.alone
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.taken.bytes()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let bytes = self.taken.bytes();
        self.books.shrink(&mut self.taken, bytes);
    }
}
