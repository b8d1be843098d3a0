//! Room that all uploads by ranges hold together in a tier. It asks the tier for promises as they grow and gives those back as
//! they shrink, so that what is written never depends on what else wants room.
//!
//! A part of what uploads may hold is kept from ranges, so that none can stop what was written before from being combined, which
//! takes room for a chunk before it gives back that of its fragments. Half of that part a repeat may draw on: the answer to a range
//! that has been written must not be that there is no room for it.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use elcache_core::tier::{Hold, Tier};
use elcache_core::tree::CHUNK_SIZE;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::engine::refused;
use crate::outcome::WriteError;

/// Chunks that are kept from ranges, on a tier that has room for many more.
const KEPT_CHUNKS: u64 = 8;
/// By how much promises grow at a time, on a tier that is large enough.
const STEP: u64 = 16 << 20;
/// What is asked for is a multiple of this: the disk counts in it and leaves out the rest, and memory has a share for small
/// uploads that nobody is to hold for long.
const UNIT: u64 = 1 << 20;

/// What room is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Bytes that nobody has written yet.
    Range,
    /// Bytes that were written before, at most a chunk of them, wherever it begins: more is as any range.
    Repeat,
    /// What takes the place of fragments, and is no larger than they.
    Combine,
}

/// What uploads may hold in a tier.
#[derive(Clone, Copy, Debug)]
struct Limits {
    largest: u64,
    /// What they may hold in all.
    allowed: u64,
    /// Kept from ranges.
    from_ranges: u64,
    /// The part of that which is kept from repeats too.
    from_repeats: u64,
    /// What a chunk takes.
    chunk: u64,
}

impl Limits {
    fn new(largest: u64, chunk: u64) -> Self {
        let allowed = largest / 6 * 5;
        let from_ranges = (allowed / 4).clamp(chunk, KEPT_CHUNKS * chunk).min(allowed);
        let from_repeats = (from_ranges / 2).max(chunk).min(allowed);
        Self { largest, allowed, from_ranges, from_repeats, chunk }
    }

    /// How much is promised at a time when this is promised already.
    fn step(&self, promised: u64) -> u64 {
        STEP.min(self.largest / 64).max(promised / 64).max(UNIT)
    }
}

/// The sums, and what the tier has promised.
struct Book<H> {
    /// In use.
    kept: u64,
    /// Reserved for ranges and repeats.
    ranges: u64,
    /// Reserved for combining.
    combining: u64,
    promised: u64,
    holds: Vec<(u64, H)>,
}

impl<H> Book<H> {
    fn new() -> Self {
        Self { kept: 0, ranges: 0, combining: 0, promised: 0, holds: Vec::new() }
    }

    fn taken(&self) -> u64 {
        self.kept.saturating_add(self.ranges).saturating_add(self.combining)
    }

    /// Whether uploads may hold so much more now, or will when ranges that are on their way in have ended.
    fn admits(&self, bytes: u64, purpose: Purpose, limits: &Limits) -> Result<bool, WriteError> {
        let kept_from = match purpose {
            // There is always room for one: it makes room. The others may come back when it has.
            Purpose::Combine => {
                let fits = self.combining == 0 || self.combining.saturating_add(bytes) <= limits.from_repeats;
                return if fits { Ok(true) } else { Err(WriteError::Busy) };
            }
            Purpose::Repeat if bytes < 2 * limits.chunk => limits.from_repeats,
            Purpose::Repeat | Purpose::Range => limits.from_ranges,
        };
        // What others have reserved they may yet give back, as all do that write what is written already.
        let held = self.kept.saturating_add(bytes);
        let may_hold = limits.allowed - kept_from;
        if held > may_hold {
            Err(WriteError::DoesNotFit)
        } else {
            Ok(held.saturating_add(self.ranges) <= may_hold)
        }
    }

    /// What has to be promised so that this much more is. Nothing is asked for above what is allowed, although more may be in use
    /// when a tier has become smaller.
    fn missing(&self, bytes: u64, limits: &Limits) -> u64 {
        self.taken().saturating_add(bytes).min(limits.allowed).saturating_sub(self.promised)
    }

    fn reserved(&mut self, purpose: Purpose) -> &mut u64 {
        if purpose == Purpose::Combine { &mut self.combining } else { &mut self.ranges }
    }

    fn add(&mut self, bytes: u64, hold: H) {
        self.promised += bytes;
        self.holds.push((bytes, hold));
    }

    /// Takes out what is promised and not needed, when that is much.
    fn surplus(&mut self, limits: &Limits) -> Vec<H> {
        let step = limits.step(self.promised);
        let (most, least) = if self.taken() == 0 { (0, 0) } else { (2 * step, step) };
        let mut gone = Vec::new();
        while self.promised.saturating_sub(self.taken()) > most {
            let room = self.promised - self.taken() - least;
            let fitting = self.holds.iter().enumerate().filter(|(_, (bytes, _))| *bytes <= room);
            let Some((at, _)) = fitting.max_by_key(|(_, (bytes, _))| *bytes) else { break };
            let (bytes, hold) = self.holds.swap_remove(at);
            self.promised -= bytes;
            gone.push(hold);
        }
        gone
    }
}

/// What uploads hold in one tier.
pub(crate) struct Ledger {
    home: Arc<dyn Tier>,
    /// How long a reservation may wait for promises.
    wait: Duration,
    book: Mutex<Book<Hold>>,
    /// One at a time asks for promises.
    turn: tokio::sync::Mutex<()>,
    /// Less is taken than before.
    freed: Notify,
}

impl Ledger {
    pub(crate) fn new(home: Arc<dyn Tier>, wait: Duration) -> Arc<Self> {
        Arc::new(Self {
            home,
            wait,
            book: Mutex::new(Book::new()),
            turn: tokio::sync::Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Room for so many bytes more. Waits for its turn, as any write does; but to combine waits for nobody, since others wait for
    /// whoever does: it is over soon, and what it takes for the moment tiers have beside what they promise.
    ///
    /// # Errors
    /// [`WriteError::DoesNotFit`] when what is written leaves no room for it, [`WriteError::Busy`] when others hold that for the moment.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<Reserved, WriteError> {
        // Whoever finds enough promised goes past those who wait for more.
        if let Some(reserved) = self.try_reserve(bytes, purpose)? {
            return Ok(reserved);
        }
        timeout(self.wait, self.reserve_in_turn(bytes, purpose)).await.unwrap_or(Err(WriteError::Busy))
    }

    /// Takes in what a restart has found, also if it is more than is allowed: then only what is new is refused.
    pub(crate) fn take_over(self: &Arc<Self>, bytes: u64) {
        {
            let mut book = self.book.lock();
            book.kept = book.kept.saturating_add(bytes);
        }
        let ledger = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = ledger.turn.lock().await;
            // What it does not get now, whoever reserves next asks for.
            while ledger.missing(0).is_some() && ledger.promise_more(0).await.is_ok() {}
        });
    }

    /// So many bytes of what was kept are no more.
    pub(crate) fn release(&self, bytes: u64) {
        self.change(|book| {
            debug_assert!(bytes <= book.kept, "{bytes} bytes are released, {} are kept", book.kept);
            book.kept = book.kept.saturating_sub(bytes);
        });
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.book.lock().kept
    }

    async fn reserve_in_turn(self: &Arc<Self>, bytes: u64, purpose: Purpose) -> Result<Reserved, WriteError> {
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            if let Some(reserved) = self.try_reserve(bytes, purpose)? {
                return Ok(reserved);
            }
            if self.admits(bytes, purpose)? {
                self.promise_more(bytes).await?;
            } else {
                freed.await;
            }
        }
    }

    fn admits(&self, bytes: u64, purpose: Purpose) -> Result<bool, WriteError> {
        let limits = self.limits();
        self.book.lock().admits(bytes, purpose, &limits)
    }

    /// `None` when it has to be promised first, or to be waited for.
    fn try_reserve(self: &Arc<Self>, bytes: u64, purpose: Purpose) -> Result<Option<Reserved>, WriteError> {
        let limits = self.limits();
        let mut book = self.book.lock();
        let admitted = book.admits(bytes, purpose, &limits)?;
        if !admitted || purpose != Purpose::Combine && book.missing(bytes, &limits) > 0 {
            return Ok(None);
        }
        let reserved = book.reserved(purpose);
        *reserved = reserved.saturating_add(bytes);
        Ok(Some(Reserved { ledger: Arc::clone(self), bytes, purpose }))
    }

    /// How much is missing for so many bytes more, and how much it is good to ask for then.
    fn missing(&self, bytes: u64) -> Option<(u64, u64)> {
        let limits = self.limits();
        let book = self.book.lock();
        let missing = book.missing(bytes, &limits);
        let left = limits.allowed.saturating_sub(book.promised);
        let whole = |bytes: u64| bytes.next_multiple_of(UNIT).min(limits.largest);
        let step = limits.step(book.promised).min(left).max(missing);
        (missing > 0).then(|| (whole(missing), whole(step)))
    }

    /// Has more promised: a step, where that can be had at once, or else what is missing.
    async fn promise_more(&self, bytes: u64) -> Result<(), WriteError> {
        let Some((missing, step)) = self.missing(bytes) else { return Ok(()) };
        let at_once = timeout(Duration::ZERO, self.home.admit(step).get()).await;
        let (promised, hold) = match at_once {
            Ok(Ok(hold)) => (step, hold),
            _ => (missing, self.home.admit(missing).get().await.map_err(refused)?),
        };
        self.book.lock().add(promised, hold);
        Ok(())
    }

    fn limits(&self) -> Limits {
        let chunk = self.home.staging().map_or(CHUNK_SIZE, |staging| staging.footprint(CHUNK_SIZE as u32));
        Limits::new(self.home.largest_admission(), chunk)
    }

    /// Changes what is taken to less, and gives back what is not needed then.
    fn change(&self, change: impl FnOnce(&mut Book<Hold>)) {
        let limits = self.limits();
        let mut book = self.book.lock();
        change(&mut book);
        let surplus = book.surplus(&limits);
        drop(book);
        drop(surplus);
        // One alone waits, whose turn it is.
        self.freed.notify_one();
    }
}

/// Room that is promised. Dropped, it is given back.
pub(crate) struct Reserved {
    ledger: Arc<Ledger>,
    bytes: u64,
    purpose: Purpose,
}

impl Reserved {
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many of its bytes are in use from now on. The rest is given back.
    pub(crate) fn keep(mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "{bytes} bytes are kept of {}", self.bytes);
        let reserved = std::mem::take(&mut self.bytes);
        self.ledger.change(|book| {
            *book.reserved(self.purpose) -= reserved;
            book.kept = book.kept.saturating_add(bytes);
        });
    }

    /// Takes in other room of the same ledger, which is not for combining either.
    pub(crate) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.ledger, &other.ledger), "they are of one ledger");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes so many of its bytes out, at most all.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { ledger: Arc::clone(&self.ledger), bytes, purpose: self.purpose }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.ledger.change(|book| *book.reserved(self.purpose) -= self.bytes);
        }
    }
}
