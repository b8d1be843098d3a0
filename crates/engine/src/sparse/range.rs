//! A range on its way in.
//!
//! Whole chunks are hashed and staged while the next is received, what is left at either end stays in its buffer. Nothing of it
//! counts before all of it has arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use elcache_core::budget::Taken;
use elcache_core::payload::{Buffer, Filled};
use elcache_core::span::Span;
use elcache_core::tier::{ChunkRef, Refusal, Staged, TierName};
use elcache_core::tree::CHUNK_SIZE;
use sha2::Sha256;
use tokio::task::JoinHandle;

use super::draft::Draft;
use super::ledger::{Purpose, Reserved};
use super::write::{Arrived, Piece};
use super::{Sparse, SparseError};
use crate::engine::{refused, to_the_end};
use crate::hashing::{self, Hashed, Job};
use crate::outcome::WriteError;
use crate::transit::{self, FIRST_BUFFER, Promises, STAGING, TRANSIT};

/// What is kept in memory of a whole chunk that has arrived and does not count yet.
const STAGED_CHUNK: u64 = 128;

/// A range on its way in. Dropping it leaves nothing behind.
pub struct Range {
    sparse: Arc<Sparse>,
    from: u64,
    /// Its length, if that is known.
    len: Option<u64>,
    received: u64,
    /// Room for what is received, and for what is on its way to where it belongs.
    reserved: Option<Reserved>,
    promises: Promises,
    buffer: Option<Box<dyn Buffer>>,
    job: Option<(u64, Job)>,
    staging: VecDeque<(u64, JoinHandle<Result<Staged, Refusal>>)>,
    pieces: Vec<Piece>,
    taken: Option<Taken>,
    /// All of it has come, or it is known that it will not be taken.
    ended: bool,
    sha256: Option<Sha256>,
    wanted: Option<[u8; 32]>,
}

impl Range {
    pub(super) async fn new(
        sparse: &Arc<Sparse>,
        from: u64,
        len: Option<u64>,
        sha256: Option<[u8; 32]>,
    ) -> Result<Self, SparseError> {
        let (draft, engine) = (&sparse.draft, &sparse.engine);
        let end = from.checked_add(len.unwrap_or(0)).ok_or(SparseError::OutOfBounds)?;
        if end > draft.opening.size {
            return Err(SparseError::OutOfBounds);
        }
        if draft.barred {
            return Err(WriteError::DoesNotFit.into());
        }
        Draft::open(*draft.state.read().await)?;
        draft.receiving.fetch_add(1, Ordering::AcqRel);
        draft.touch(engine.clock().now_ms());
        let mut range = Self {
            sparse: Arc::clone(sparse),
            from,
            len,
            received: 0,
            reserved: None,
            promises: Promises::default(),
            buffer: None,
            job: None,
            staging: VecDeque::new(),
            pieces: Vec::new(),
            taken: None,
            ended: false,
            sha256: sha256.map(|_| Sha256::default()),
            wanted: sha256,
        };
        // Whoever cannot be let in has cut nothing off.
        range.ended = true;
        if let Some(len) = len.filter(|len| *len > 0) {
            range.reserve(len).await?;
            range.promise(len.min(TRANSIT)).await?;
        }
        range.ended = false;
        Ok(range)
    }

    /// Waits until [`Range::space`] has room. To be called when there are more bytes to come, or may be.
    ///
    /// # Errors
    /// When there will be no room; the range is then to be dropped.
    pub async fn ready(&mut self) -> Result<(), SparseError> {
        let ready = self.make_room().await;
        if ready.is_err() && !std::mem::replace(&mut self.ended, true) {
            self.sparse.engine.metrics().uploads.ranges_refused.inc();
        }
        ready
    }

    async fn make_room(&mut self) -> Result<(), SparseError> {
        if self.len.is_some_and(|len| self.received >= len) {
            return Ok(());
        }
        if self.at() >= self.draft().opening.size {
            return Err(SparseError::OutOfBounds);
        }
        match &self.buffer {
            Some(buffer) if buffer.filled() < buffer.capacity() => return Ok(()),
            Some(buffer) if !self.at().is_multiple_of(CHUNK_SIZE) => {
                let whole = buffer.filled() as u64 + self.rest_of_chunk();
                return self.grow_buffer(whole).await;
            }
            Some(_) => self.piece_arrived().await?,
            None => {}
        }
        let rest = self.rest_of_chunk();
        let len = match self.len {
            Some(len) => (len - self.received).min(rest),
            None => {
                // The first bytes may be all: as much is reserved as they need, and more when there are more.
                let len = if self.received == 0 { rest.min(FIRST_BUFFER) } else { rest };
                self.reserve(len).await?;
                self.promise(if self.received == 0 { len } else { TRANSIT }).await?;
                len
            }
        };
        self.buffer = Some(transit::room(&self.sparse.engine, len).await?);
        Ok(())
    }

    /// Where the next bytes go; empty when [`Range::ready`] has to be called first, or at the end.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| buffer.space())
    }

    /// How many bytes there is room for before [`Range::ready`] has to be called again; the space may be only a part of it.
    pub fn room(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.capacity() - buffer.filled())
    }

    /// Says that the first `count` bytes of the space have been received.
    pub fn filled(&mut self, count: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.advance(count);
            self.received += count as u64;
        }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Writes what was received; how far the upload is then, in percent, floored. The caller has seen to it that it is all there.
    pub async fn finish(mut self) -> Result<u8, SparseError> {
        self.ended = true;
        let engine = Arc::clone(&self.sparse.engine);
        let counters = &engine.metrics().uploads;
        let finished = self.write().await;
        if finished.is_ok() {
            counters.ranges_written.inc()
        } else {
            counters.ranges_refused.inc()
        }
        finished
    }

    async fn write(mut self) -> Result<u8, SparseError> {
        if self.len.is_some_and(|len| len != self.received) {
            return Err(WriteError::WrongLength.into());
        }
        self.piece_arrived().await?;
        self.collect().await?;
        self.staged(0).await?;
        if !hashing::agrees(self.sha256.take(), self.wanted) {
            return Err(WriteError::DigestMismatch.into());
        }
        let draft = Arc::clone(self.draft());
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_unstable_by_key(|piece| piece.number);
        let engine = Arc::clone(&self.sparse.engine);
        to_the_end(async move {
            let received = self.received;
            let reserved = self.reserved.take();
            draft.write(&engine, pieces, reserved).await?;
            draft.touch(engine.clock().now_ms());
            engine.metrics().tier(draft.home().name()).bytes_written.add(received);
            // Promises and the bookkeeping are given back now that all of it is where it belongs.
            drop(self);
            let tracked = draft.tracked.lock();
            Ok(super::percent(tracked.map.written(), tracked.map.size()))
        })
        .await
    }

    fn draft(&self) -> &Arc<Draft> {
        &self.sparse.draft
    }

    /// The offset of the next byte.
    fn at(&self) -> u64 {
        self.from + self.received
    }

    /// Bytes from where it stands to the end of the chunk.
    fn rest_of_chunk(&self) -> u64 {
        let (at, size) = (self.at(), self.draft().opening.size);
        (CHUNK_SIZE - at % CHUNK_SIZE).min(size - at)
    }

    /// A length that was not known turns out to be more than the buffer: a larger one takes its place.
    async fn grow_buffer(&mut self, len: u64) -> Result<(), SparseError> {
        let filled = self.buffer.as_ref().map_or(0, |buffer| buffer.filled());
        // One piece of this length takes another room than two that add up to it.
        let staging = self.draft().staging()?;
        let more = staging.footprint(len as u32).saturating_sub(staging.footprint(filled as u32));
        self.reserve_room(more, Purpose::Range).await?;
        self.promise(TRANSIT).await?;
        let mut larger = transit::room(&self.sparse.engine, len).await?;
        if let Some(smaller) = self.buffer.take() {
            transit::copy(&*smaller, &mut *larger);
        }
        self.buffer = Some(larger);
        Ok(())
    }

    /// What has been received of a chunk is all that will come of it.
    async fn piece_arrived(&mut self) -> Result<(), SparseError> {
        let Some(buffer) = self.buffer.take().filter(|buffer| buffer.filled() > 0) else { return Ok(()) };
        self.draft().touch(self.sparse.engine.clock().now_ms());
        self.collect().await?;
        let from = self.at() - buffer.filled() as u64;
        let number = from / CHUNK_SIZE;
        let whole = buffer.filled() as u64 == u64::from(self.draft().chunk_len(number));
        if whole && self.draft().has_chunks() {
            self.job = Some((number, Job::start(number, buffer, self.sha256.take())));
            return Ok(());
        }
        let (from, to) = ((from % CHUNK_SIZE) as u32, (from % CHUNK_SIZE) as u32 + buffer.filled() as u32);
        let data = match self.sha256.take() {
            None => Filled::new(buffer, Vec::new()),
            sha256 => {
                let hashed = Job::start(number, buffer, sha256).wait().await.ok_or(WriteError::Busy)?;
                self.sha256 = hashed.sha256;
                hashed.data
            }
        };
        self.pieces.push(Piece { number, arrived: Arrived::Part { from, to, bytes: data.payload() } });
        Ok(())
    }

    /// Has the chunk staged that was being hashed.
    async fn collect(&mut self) -> Result<(), SparseError> {
        let Some((number, job)) = self.job.take() else { return Ok(()) };
        let Hashed { data, hasher, sha256 } = *job.wait().await.ok_or(WriteError::Busy)?;
        self.sha256 = sha256;
        // INVARIANT: a buffer is given to hashing when it holds at least one byte.
        let digest = hasher.chunk().expect("a chunk has at least one byte");
        let chunk = ChunkRef { digest, number, len: data.len() as u32 };
        self.staged(STAGING - 1).await?;
        self.remember_chunk()?;
        let (engine, home) = (Arc::clone(&self.sparse.engine), Arc::clone(self.draft().home()));
        let keep = !self.draft().opening.no_memory && home.name() != TierName::Memory;
        let staging = tokio::spawn(async move {
            let copy = keep.then(|| data.clone());
            let staged = home.stage(chunk, data).get().await;
            if let (Ok(_), Some(copy)) = (&staged, copy) {
                engine.keep_chunk(&chunk, copy);
            }
            staged
        });
        self.staging.push_back((number, staging));
        Ok(())
    }

    /// Waits until at most so many chunks are being staged.
    async fn staged(&mut self, most: usize) -> Result<(), SparseError> {
        while self.staging.len() > most
            && let Some((number, staging)) = self.staging.pop_front()
        {
            let staged = staging.await.unwrap_or(Err(Refusal::Failed)).map_err(refused)?;
            self.pieces.push(Piece { number, arrived: Arrived::Whole(staged) });
        }
        Ok(())
    }

    fn remember_chunk(&mut self) -> Result<(), WriteError> {
        let granted = match &mut self.taken {
            Some(taken) => taken.grow(STAGED_CHUNK),
            none => {
                *none = self.sparse.engine.budget().take(STAGED_CHUNK);
                none.is_some()
            }
        };
        if granted { Ok(()) } else { Err(WriteError::Busy) }
    }

    /// Takes room in the home for `len` more bytes from where it stands on.
    async fn reserve(&mut self, len: u64) -> Result<(), SparseError> {
        let (draft, start) = (self.draft(), self.at());
        // INVARIANT: nothing beyond the value's size is reserved, and that is below 2^64.
        let span = Span::new(start, start.saturating_add(len)).ok_or(SparseError::OutOfBounds)?;
        let repeats = len <= CHUNK_SIZE && draft.tracked.lock().map.covers(span);
        let purpose = if repeats { Purpose::Repeat } else { Purpose::Range };
        let footprint = draft.footprint_of(span)?;
        self.reserve_room(footprint, purpose).await
    }

    async fn reserve_room(&mut self, footprint: u64, purpose: Purpose) -> Result<(), SparseError> {
        let more = self.draft().ledger.reserve(footprint, purpose).await?;
        match &mut self.reserved {
            Some(reserved) => reserved.join(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Takes room in memory for what is on its way.
    async fn promise(&mut self, transit: u64) -> Result<(), WriteError> {
        let home = self.draft().home().name();
        self.promises.cover_transit(&self.sparse.engine, home, transit).await
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        self.draft().receiving.fetch_sub(1, Ordering::AcqRel);
        if !self.ended {
            self.sparse.engine.metrics().uploads.ranges_cut_off.inc();
        }
    }
}

impl Draft {
    /// What the bytes of a span take of the home, piece by piece.
    fn footprint_of(&self, span: Span) -> Result<u64, WriteError> {
        let staging = self.staging()?;
        let whole = staging.footprint(CHUNK_SIZE as u32);
        let first = span.first_piece().map_or(0, |piece| piece.len());
        let rest = span.skip(first).len();
        let last = (rest % CHUNK_SIZE) as u32;
        let ends = [first as u32, last].into_iter().filter(|len| *len > 0).map(|len| staging.footprint(len));
        Ok((rest / CHUNK_SIZE).saturating_mul(whole).saturating_add(ends.sum()))
    }
}
