//! Records: finished bytes, immutable, named by a number, kept by counting.
//!
//! A record is a head of up to some 80 KiB in one place, and behind it any number of whole pages in pieces. Its number
//! names a cell: one word with the place of the head and the count of readers. Cells are never given back to the
//! allocator, so a reader may look at a cell that has meanwhile come to mean another record: taking a
//! reference is one compare-and-swap that fails when nothing is named, and whoever succeeds checks that the
//! record is the one that it looked for. That is what lets look-ups do without locks and without epochs.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use elcache_core::payload::{Backing, Buffer, Payload};
use elcache_core::shared::{Place, RecordId, Watched};
use parking_lot::Mutex;

use crate::buffer::PageBuffer;
use crate::pool::{Hint, LOC_BITS, Loc, Pool};
use crate::watch::Watch;

/// Cells in a segment. Segments are allocated as they are needed and stay.
const SEGMENT: usize = 1024;
/// A cell, from the lowest bit: whether the record is still named (its owner has not released it), how many readers
/// it has (21 bits), where its head is. While either of the first two is not zero, the record is there.
const STATE_BITS: u32 = 64 - LOC_BITS;
const STATE: u64 = (1 << STATE_BITS) - 1;
const NAMED: u64 = 1;
const READER: u64 = 2;

/// A head starts with one word: the content's length (23 bits), whether the record is tracked, the number of pieces
/// (8 bits).
const PREFIX: usize = 4;
const MAX_CONTENT: usize = 1 << 23;
const TRACKED: u32 = 1 << 23;
const PIECE: usize = 8;
/// Pieces from this length on can be sent from their file; below that a copy costs less.
const MIN_LENT: usize = 32 << 10;
/// The most pieces of a record.
const MAX_PIECES: usize = 255;

/// A record that is written and not yet named. Dropping it gives its memory back.
pub struct NewRecord {
    pool: Arc<Pool>,
    head: Loc,
    footprint: usize,
}

impl NewRecord {
    /// Writes the parts one after another as the record's content; the bytes of `body` follow, whole pages by
    /// reference and the rest by copy. A `tracked` record is not freed by its last reader but handed to
    /// [`Records::take_retired`].
    ///
    /// # Errors
    /// The body comes back when there is no room, or when it came in too many pieces.
    pub fn new(
        pool: &Arc<Pool>,
        parts: &[&[u8]],
        body: Option<PageBuffer>,
        tracked: bool,
    ) -> Result<Self, Option<PageBuffer>> {
        let rest = body.as_ref().map_or(0, |body| body.capacity() % crate::PAGE_SIZE);
        let pieces = body.as_ref().map_or(0, |body| body.place_count() - usize::from(rest > 0));
        let content = parts.iter().map(|part| part.len()).sum::<usize>() + rest;
        if pieces > MAX_PIECES || content >= MAX_CONTENT {
            return Err(body);
        }
        let Some(head) = pool.take(PREFIX + pieces * PIECE + content) else { return Err(body) };
        let mut record = Self { pool: Arc::clone(pool), head, footprint: head.len() };
        record.write_head(parts, content, pieces, tracked, body);
        Ok(record)
    }

    fn write_head(
        &mut self,
        parts: &[&[u8]],
        content: usize,
        pieces: usize,
        tracked: bool,
        body: Option<PageBuffer>,
    ) {
        let prefix = content as u32 | if tracked { TRACKED } else { 0 } | (pieces as u32) << 24;
        let (places, rest) = body.map_or((Vec::new(), None), |body| {
            let rest_len = body.capacity() % crate::PAGE_SIZE;
            let (places, rest) = body.into_places();
            (places, rest.map(|loc| (loc, rest_len)))
        });
        // SAFETY: the head was taken a moment ago and nobody else knows it.
        let mut space = unsafe { self.pool.bytes_mut(self.head) };
        let mut write = |bytes: &[u8]| {
            let (target, tail) = std::mem::take(&mut space).split_at_mut(bytes.len());
            target.copy_from_slice(bytes);
            space = tail;
        };
        write(&prefix.to_le_bytes());
        for loc in &places {
            write(&loc.to_bits().to_le_bytes());
            self.footprint += loc.len();
        }
        parts.iter().for_each(|part| write(part));
        if let Some((loc, len)) = rest {
            // SAFETY: the rest belonged to the body, which was taken apart, and to nobody else.
            write(&unsafe { self.pool.bytes(loc) }[..len]);
            self.pool.give(loc);
        }
    }

    /// Bytes of memory that the record occupies.
    pub fn footprint(&self) -> usize {
        self.footprint
    }

    /// What [`Records::get_hinted`] takes.
    pub fn hint(&self) -> Hint {
        self.head.hint()
    }
}

impl Drop for NewRecord {
    fn drop(&mut self) {
        let view = View { pool: &self.pool, head: self.head };
        free(view);
    }
}

/// The records of one shard.
pub struct Records {
    pool: Arc<Pool>,
    /// Which of the pool's these are, in the order in which they were made.
    ordinal: u32,
    segments: Box<[OnceLock<Box<[AtomicU64; SEGMENT]>>]>,
    vacant: Mutex<Vacant>,
    retired: Mutex<Vec<Loc>>,
    retired_count: AtomicUsize,
    allocated: AtomicU32,
}

#[derive(Default)]
struct Vacant {
    /// Numbers below the next one that name nothing.
    numbers: Vec<u32>,
    next: u32,
}

impl Records {
    /// No records, and room for `most` of them.
    pub fn new(pool: &Arc<Pool>, most: u32) -> Arc<Self> {
        Arc::new(Self {
            pool: Arc::clone(pool),
            ordinal: pool.number_records(),
            segments: (0..(most as usize).div_ceil(SEGMENT)).map(|_| OnceLock::new()).collect(),
            vacant: Mutex::default(),
            retired: Mutex::default(),
            retired_count: AtomicUsize::new(0),
            allocated: AtomicU32::new(0),
        })
    }

    /// Names a record. It stays until [`Records::release`] and until its last reader has gone.
    ///
    /// # Errors
    /// The record comes back when every number is taken.
    pub fn insert(&self, record: NewRecord) -> Result<u32, NewRecord> {
        self.place(record, NAMED).map(|(number, _)| number)
    }

    /// Keeps a record without a name: nobody finds it, and it goes with its last reference unless [`Records::name`] gives it
    /// one.
    ///
    /// # Errors
    /// The record comes back when every number is taken.
    pub fn hold(self: &Arc<Self>, record: NewRecord) -> Result<OwnedRef, NewRecord> {
        let (number, head) = self.place(record, READER)?;
        Ok(OwnedRef { records: Arc::clone(self), number, head })
    }

    /// Gives a record a name that has none, or none any more: from now on it stays until [`Records::release`].
    pub fn name(&self, held: &OwnedRef) -> u32 {
        debug_assert!(std::ptr::eq(self, &raw const *held.records));
        if let Some(cell) = self.cell(held.number) {
            // The reference keeps the record in its cell. The orderings are those of `give_back`, for the same reason.
            let before = cell.fetch_or(NAMED, Ordering::AcqRel);
            debug_assert!(before & STATE >= READER, "a record is named that nobody refers to");
        }
        held.number
    }

    /// Puts a record into a cell, in this state.
    fn place(&self, record: NewRecord, state: u64) -> Result<(u32, Loc), NewRecord> {
        let number = {
            let mut vacant = self.vacant.lock();
            match vacant.numbers.pop() {
                Some(number) => number,
                None if (vacant.next as usize) < self.segments.len() * SEGMENT => {
                    vacant.next += 1;
                    vacant.next - 1
                }
                None => return Err(record),
            }
        };
        let cell = &self.segments[number as usize / SEGMENT].get_or_init(|| {
            self.allocated.fetch_add(1, Ordering::Relaxed);
            Box::new([const { AtomicU64::new(0) }; SEGMENT])
        })[number as usize % SEGMENT];
        // Release: the record's bytes are written before anybody can take a reference.
        cell.store(record.head.to_bits() << STATE_BITS | state, Ordering::Release);
        let mut record = std::mem::ManuallyDrop::new(record);
        // SAFETY: the record is not dropped, so its pool is dropped here and not twice; the head lives on in the cell.
        unsafe { std::ptr::drop_in_place(&mut record.pool) };
        Ok((number, record.head))
    }

    /// A reference to the record of this number, when there is one now. Whether it is the one that the caller means,
    /// the caller finds out by reading it.
    pub fn get(&self, number: u32) -> Option<Record<'_>> {
        let cell = self.cell(number)?;
        let mut seen = cell.load(Ordering::Relaxed);
        loop {
            // A full count is refused rather than overflown.
            if seen & NAMED == 0 || seen & STATE == STATE {
                return None;
            }
            // Acquire pairs with the release in `insert`: the record's bytes are seen.
            match cell.compare_exchange_weak(seen, seen + READER, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    return Some(Record { records: self, number, head: Loc::from_bits(seen >> STATE_BITS) });
                }
                Err(now) => seen = now,
            }
        }
    }

    /// As [`Records::get`], and has the record's first bytes in the processor's caches soon. The hint came with the
    /// record that was given this number; that of another one does no harm and no good.
    pub fn get_hinted(&self, number: u32, hint: Hint) -> Option<Record<'_>> {
        self.pool.prefetch(hint);
        self.get(number)
    }

    /// A record is about to be found no more, by any name, and to be released: whoever watches it is told. To be called before anybody
    /// can find another one in its place, so that nobody reads the old one after somebody has read the new one.
    pub fn leave(&self, number: u32) -> Leaving<'_> {
        self.pool.watch().begin_change(Watch::word_of(self.ordinal, number));
        Leaving { records: self, number }
    }

    /// Takes the name from a record: nobody finds it any more, and its last reader frees it. Nothing happens when
    /// the number names none.
    pub fn release(&self, leaving: Leaving<'_>) {
        let number = leaving.number;
        let Some(cell) = self.cell(number) else { return };
        // The orderings are those of `give_back`, for the same reason.
        let before = cell.fetch_and(!NAMED, Ordering::AcqRel);
        drop(leaving);
        if before & STATE == NAMED {
            self.retire(number, Loc::from_bits(before >> STATE_BITS));
        }
    }

    /// What changes before the record loses its name, which the caller refers to. `None` when it has none any more.
    pub fn watch(&self, number: u32) -> Option<Watched> {
        let watched = self.pool.watch().read(Watch::word_of(self.ordinal, number))?;
        // The word is looked at first: if the name goes after this, the word changes.
        let named = self.cell(number)?.load(Ordering::SeqCst) & NAMED != 0;
        named.then_some(watched)
    }

    /// Tracked records whose last reference has gone, in no particular order, at most `most` of them.
    pub fn take_retired(&self, most: usize) -> Vec<Retired> {
        let mut retired = self.retired.lock();
        let from = retired.len().saturating_sub(most);
        self.retired_count.store(from, Ordering::Relaxed);
        retired.drain(from..).map(|head| Retired { pool: Arc::clone(&self.pool), head }).collect()
    }

    /// How many retired records wait to be taken.
    pub fn retired(&self) -> usize {
        self.retired_count.load(Ordering::Relaxed)
    }

    /// All numbers that have ever named a record are below this one.
    pub fn highest(&self) -> u32 {
        self.vacant.lock().next
    }

    /// Bytes of bookkeeping.
    pub fn overhead_bytes(&self) -> u64 {
        u64::from(self.allocated.load(Ordering::Relaxed)) * (SEGMENT * size_of::<AtomicU64>()) as u64
    }

    fn cell(&self, number: u32) -> Option<&AtomicU64> {
        self.segments.get(number as usize / SEGMENT)?.get()?.get(number as usize % SEGMENT)
    }

    fn give_back(&self, number: u32) {
        let Some(cell) = self.cell(number) else { return };
        // Release: this reader's reads come before the memory is used again; acquire: so do all others'.
        let before = cell.fetch_sub(READER, Ordering::AcqRel);
        debug_assert!(before & STATE >= READER, "a reference is given back twice");
        if before & STATE == READER {
            self.retire(number, Loc::from_bits(before >> STATE_BITS));
        }
    }

    /// The record is not named any more and its last reader has gone: nobody can come back to it.
    fn retire(&self, number: u32, head: Loc) {
        let view = View { pool: &self.pool, head };
        if view.prefix() & TRACKED != 0 {
            let mut retired = self.retired.lock();
            retired.push(head);
            self.retired_count.store(retired.len(), Ordering::Relaxed);
        } else {
            free(view);
        }
        self.vacant.lock().numbers.push(number);
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        drop(self.take_retired(usize::MAX));
        for cell in self.segments.iter().filter_map(OnceLock::get).flat_map(|segment| segment.iter()) {
            let cell = cell.load(Ordering::Acquire);
            if cell & STATE != 0 {
                free(View { pool: &self.pool, head: Loc::from_bits(cell >> STATE_BITS) });
            }
        }
    }
}

/// A record that is on its way out. Nobody is told to watch it.
pub struct Leaving<'a> {
    records: &'a Records,
    number: u32,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.records.pool.watch().end_change(Watch::word_of(self.records.ordinal, self.number));
    }
}

/// A counted reference to a record.
pub struct Record<'a> {
    records: &'a Records,
    number: u32,
    head: Loc,
}

impl Record<'_> {
    /// The parts and the rest of the body, as they were written.
    pub fn content(&self) -> &[u8] {
        self.view().content()
    }

    /// The number of whole-page pieces.
    pub fn piece_count(&self) -> usize {
        self.view().piece_count()
    }

    /// Whole-page piece `index`, empty when there is none.
    pub fn piece(&self, index: usize) -> &[u8] {
        self.view().piece(index)
    }

    /// Bytes of memory that the record occupies.
    pub fn footprint(&self) -> usize {
        self.view().footprint()
    }

    /// The record's number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The same reference, with a life of its own. `records` is where it came from.
    pub fn into_owned(self, records: &Arc<Records>) -> OwnedRef {
        debug_assert!(std::ptr::eq(self.records, &raw const **records));
        let owned = OwnedRef { records: Arc::clone(records), number: self.number, head: self.head };
        std::mem::forget(self);
        owned
    }

    fn view(&self) -> View<'_> {
        View { pool: &self.records.pool, head: self.head }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.records.give_back(self.number);
    }
}

/// A counted reference that keeps its shard's records alive too.
pub struct OwnedRef {
    records: Arc<Records>,
    number: u32,
    head: Loc,
}

impl OwnedRef {
    /// The parts and the rest of the body, as they were written.
    pub fn content(&self) -> &[u8] {
        self.view().content()
    }

    /// Bytes of memory that the record occupies.
    pub fn footprint(&self) -> usize {
        self.view().footprint()
    }

    /// What [`Records::get_hinted`] takes.
    pub fn hint(&self) -> Hint {
        self.head.hint()
    }

    /// Bytes in the whole-page pieces.
    pub fn pages_len(&self) -> usize {
        let view = self.view();
        (0..view.piece_count()).map(|index| view.piece(index).len()).sum()
    }

    /// The body's bytes `from..to`, where `content[rest_at..]` is what follows the whole pages. Shared, not copied.
    pub fn body(self, rest_at: usize, from: usize, to: usize) -> Payload {
        Arc::new(self).shared_body(rest_at, from, to)
    }

    /// As [`OwnedRef::body`], of a reference that others have too.
    pub fn shared_body(self: &Arc<Self>, rest_at: usize, from: usize, to: usize) -> Payload {
        let mut payload = Payload::new();
        let mut at = 0;
        let pieces = self.view().piece_count();
        for place in (0..=pieces).map(|index| (index < pieces).then_some(index)) {
            let (start, len) = match place {
                Some(index) => (0, self.view().piece(index).len()),
                None => (rest_at, self.content().len().saturating_sub(rest_at)),
            };
            let range = from.saturating_sub(at).min(len)..to.saturating_sub(at).min(len);
            if range.start < range.end {
                let before = range.start;
                let range = start + range.start..start + range.end;
                let shared = self.shared_at(place, range.start);
                let slice = Slice { record: Arc::clone(self), place, range };
                match place {
                    Some(index) if len >= MIN_LENT => {
                        let piece = LentPiece { record: Arc::clone(self), index };
                        payload.push_backed(Bytes::from_owner(slice), Some(shared), Arc::new(piece), before);
                    }
                    _ => payload.push_placed(Bytes::from_owner(slice), Some(shared)),
                }
            }
            at += len;
        }
        payload
    }

    /// Where byte `from` of a piece lies for others, or of the content.
    fn shared_at(&self, piece: Option<usize>, from: usize) -> Place {
        let view = self.view();
        let piece = piece.and_then(|index| view.place(index)).map(|loc| (loc, from));
        let (loc, from) = piece.unwrap_or((self.head, view.content_at() + from));
        let (region, offset) = self.records.pool.shared_at(loc, from);
        let record = RecordId(u64::from(self.records.ordinal) << 32 | u64::from(self.number));
        Place { region, offset, record }
    }

    fn view(&self) -> View<'_> {
        View { pool: &self.records.pool, head: self.head }
    }
}

impl Drop for OwnedRef {
    fn drop(&mut self) {
        self.records.give_back(self.number);
    }
}

/// What keeps the record alive behind [`Bytes`].
struct Slice {
    record: Arc<OwnedRef>,
    place: Option<usize>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let view = self.record.view();
        let bytes = self.place.map_or_else(|| view.content(), |index| view.piece(index));
        bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// A piece as a part of its region's file.
struct LentPiece {
    record: Arc<OwnedRef>,
    index: usize,
}

impl Backing for LentPiece {
    fn lend(&self, from: usize, len: usize) -> Option<(BorrowedFd<'_>, u64)> {
        let loc = self.record.view().place(self.index)?;
        // SAFETY: the record is referred to by this piece, so its places are in use.
        unsafe { self.record.records.pool.lend(loc, from, len) }
    }
}

/// A tracked record that no one refers to any more. Dropping it frees its memory.
pub struct Retired {
    pool: Arc<Pool>,
    head: Loc,
}

impl Retired {
    /// The record's content.
    pub fn content(&self) -> &[u8] {
        View { pool: &self.pool, head: self.head }.content()
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        free(View { pool: &self.pool, head: self.head });
    }
}

/// Reads a record. Exists only where a reference is held, or by whoever owns the record alone.
#[derive(Clone, Copy)]
struct View<'a> {
    pool: &'a Pool,
    head: Loc,
}

impl<'a> View<'a> {
    fn head(self) -> &'a [u8] {
        // SAFETY: a view exists only while the record does, and records are not written.
        unsafe { self.pool.bytes(self.head) }
    }

    fn prefix(self) -> u32 {
        self.head().first_chunk().map_or(0, |prefix| u32::from_le_bytes(*prefix))
    }

    fn content(self) -> &'a [u8] {
        let start = self.content_at();
        let len = (self.prefix() & (TRACKED - 1)) as usize;
        self.head().get(start..start + len).unwrap_or_default()
    }

    fn content_at(self) -> usize {
        PREFIX + self.piece_count() * PIECE
    }

    fn piece_count(self) -> usize {
        (self.prefix() >> 24) as usize
    }

    fn place(self, index: usize) -> Option<Loc> {
        let at = PREFIX + index * PIECE;
        let bits = self.head().get(at..)?.first_chunk().filter(|_| index < self.piece_count())?;
        Some(Loc::from_bits(u64::from_le_bytes(*bits)))
    }

    fn piece(self, index: usize) -> &'a [u8] {
        // SAFETY: the pieces belong to the record and are written by nobody.
        self.place(index).map_or(&[], |loc| unsafe { self.pool.bytes(loc) })
    }

    fn footprint(self) -> usize {
        let pieces = (0..self.piece_count()).filter_map(|index| self.place(index));
        self.head.len() + pieces.map(Loc::len).sum::<usize>()
    }
}

/// Frees a record that nobody refers to.
fn free(view: View<'_>) {
    (0..view.piece_count()).filter_map(|index| view.place(index)).for_each(|loc| view.pool.give(loc));
    view.pool.give(view.head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    fn buffer(pool: &Arc<Pool>, bytes: &[u8]) -> PageBuffer {
        let mut buffer = PageBuffer::new(pool, bytes.len()).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = buffer.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            buffer.advance(count);
            rest = &rest[count..];
        }
        buffer
    }

    fn new(pool: &Arc<Pool>, parts: &[&[u8]], body: &[u8], tracked: bool) -> NewRecord {
        let body = (!body.is_empty()).then(|| buffer(pool, body));
        NewRecord::new(pool, parts, body, tracked).ok().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn a_record_reads_as_it_was_written(
            head in proptest::collection::vec(any::<u8>(), 1..2000), len in 0_usize..300_000,
            from in 0_usize..300_000, to in 0_usize..300_000,
        ) {
            let pool = Pool::new(8 << 20).unwrap();
            let records = Records::new(&pool, 10);
            let body: Vec<u8> = (0..len).map(|i| (i * 7 % 253) as u8).collect();
            let record = new(&pool, &[&head[..1], &head[1..]], &body, false);
            let footprint = record.footprint();
            let number = records.insert(record).ok().unwrap();
            let record = records.get(number).unwrap();
            prop_assert_eq!(record.footprint(), footprint);
            prop_assert_eq!(&record.content()[..head.len()], &head[..]);
            prop_assert_eq!(record.content().len(), head.len() + len % PAGE_SIZE);
            let payload = record.into_owned(&records).body(head.len(), from, to);
            let expected = &body[from.min(to).min(len)..to.min(len)];
            prop_assert_eq!(&payload.to_contiguous()[..], expected);
            records.release(records.leave(number));
            prop_assert!(records.get(number).is_none());
            prop_assert_eq!(pool.used_bytes() > 0, !expected.is_empty());
            drop(payload);
            prop_assert_eq!(pool.used_bytes(), 0);
        }
    }

    /// What somebody else reads at these places of the regions' files.
    fn read_shared(pool: &Pool, payload: &Payload) -> Vec<u8> {
        let mut all = Vec::new();
        for (bytes, place) in payload.places() {
            let place = place.unwrap();
            let file = pool.region_file(place.region).unwrap();
            let mut read = vec![0; bytes.len()];
            assert_eq!(rustix::io::pread(&file, &mut read, u64::from(place.offset)), Ok(bytes.len()));
            all.extend(read);
        }
        all
    }

    #[test]
    fn others_find_the_bytes_at_their_places_and_are_told_when_the_record_loses_its_name() {
        let pool = Pool::new(8 << 20).unwrap();
        let (_, records) = (Records::new(&pool, 10), Records::new(&pool, 10));
        let body: Vec<u8> = (0..150_001).map(|i| (i * 7 % 253) as u8).collect();
        let number = records.insert(new(&pool, &[b"name"], &body, false)).ok().unwrap();
        let record = records.get(number).unwrap().into_owned(&records);
        let watched = records.watch(number).unwrap();
        assert_eq!(records.watch(number), Some(watched), "looking changes nothing");
        let payload = record.body(4, 3, 150_000);
        assert_eq!(read_shared(&pool, &payload), body[3..150_000]);
        let slice = payload.slice(70_000, 140_000);
        assert_eq!(read_shared(&pool, &slice), body[70_003..140_003]);
        let of = payload.places().map(|(_, place)| place.unwrap().record).collect::<Vec<_>>();
        assert!(of.iter().all(|of| of.0 == 1 << 32 | u64::from(number)), "{of:?}");
        records.release(records.leave(number));
        assert_eq!(records.watch(number), None);
        let now = pool.watch().read(watched.word).unwrap();
        assert_ne!(now, watched);
        assert_eq!(read_shared(&pool, &payload), body[3..150_000], "as long as somebody refers to it");
        assert!(pool.region_file(0).is_none() && pool.region_file(77).is_none());
    }

    #[test]
    fn a_reader_keeps_what_was_released_and_the_last_one_frees_it() {
        let pool = Pool::new(1 << 20).unwrap();
        let records = Records::new(&pool, 10);
        let number = records.insert(new(&pool, &[b"abc"], &[], false)).ok().unwrap();
        let reader = records.get(number).unwrap();
        records.release(records.leave(number));
        assert_eq!(reader.content(), b"abc");
        assert!(pool.used_bytes() > 0);
        drop(reader);
        assert_eq!(pool.used_bytes(), 0);
        let again = records.insert(new(&pool, &[b"xyz"], &[], false)).ok().unwrap();
        assert_eq!(again, number, "numbers are used again");
    }

    #[test]
    fn a_tracked_record_is_handed_over_by_its_last_reader() {
        let pool = Pool::new(1 << 20).unwrap();
        let records = Records::new(&pool, 10);
        let number = records.insert(new(&pool, &[b"root"], &[], true)).ok().unwrap();
        records.release(records.leave(number));
        let retired = records.take_retired(8);
        assert_eq!(retired.iter().map(Retired::content).collect::<Vec<_>>(), [b"root"]);
        drop(retired);
        assert_eq!(pool.used_bytes(), 0);
    }

    /// What a socket still refers to must not change when its place is used for something else: that would be another
    /// value's bytes in the middle of an answer. A pipe stands for the socket: it keeps references to pages as well.
    #[test]
    fn lent_pages_keep_their_bytes_when_their_place_is_used_again() {
        use std::io::Read;
        for len in [40 << 10, 64 << 10, 300 << 10] {
            let pool = Pool::new(1 << 20).unwrap();
            let records = Records::new(&pool, 10);
            let number = records.insert(new(&pool, &[b"old"], &vec![1; len], false)).ok().unwrap();
            let payload = records.get(number).unwrap().into_owned(&records).body(3, 0, len);
            let (file, within, run) = payload.file_run(0).unwrap();
            let (file, start) = file.lend(within, run).unwrap();
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            let mut offset = start;
            let count = run.min(32 << 10);
            let flags = rustix::pipe::SpliceFlags::empty();
            let sent = rustix::pipe::splice(file, Some(&mut offset), &writer, None, count, flags).unwrap();
            drop(payload);
            records.release(records.leave(number));
            assert_eq!(pool.used_bytes(), 0);
            let again = records.insert(new(&pool, &[b"new"], &vec![2; len], false)).ok().unwrap();
            let mut seen = vec![0; sent];
            std::fs::File::from(reader).read_exact(&mut seen).unwrap();
            assert!(seen.iter().all(|byte| *byte == 1), "a value of {len} bytes changed on its way");
            let fresh = records.get(again).unwrap().into_owned(&records).body(3, 0, len);
            assert!(fresh.to_contiguous().iter().all(|byte| *byte == 2));
        }
    }

    #[test]
    fn numbers_are_limited_and_the_records_drop_what_they_hold() {
        let pool = Pool::new(4 << 20).unwrap();
        let records = Records::new(&pool, SEGMENT as u32);
        for _ in 0..SEGMENT {
            assert!(records.insert(new(&pool, &[b"x"], &[], false)).is_ok());
        }
        assert!(records.insert(new(&pool, &[b"x"], &[], false)).is_err());
        drop(records);
        assert_eq!(pool.used_bytes(), 0);
    }

    /// Two readers run over numbers that a writer releases and reuses all the time. Whatever they get is one of the
    /// records that existed, whole.
    #[test]
    fn readers_beside_a_writer_see_whole_records_only() {
        let pool = Pool::new(4 << 20).unwrap();
        let records = Records::new(&pool, SEGMENT as u32);
        let stop = AtomicBool::new(false);
        let reads = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        for record in (0..16).filter_map(|number| records.get(number)) {
                            let content = record.content();
                            assert!(content.iter().all(|byte| *byte == content[0]));
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let mut held = Vec::new();
            for round in 0..100_000_usize {
                let content = vec![round as u8; 1 + round % 700];
                held.push(records.insert(new(&pool, &[&content], &[], false)).ok().unwrap());
                if held.len() == 12 {
                    records.release(records.leave(held.remove(round % 12)));
                }
            }
            stop.store(true, Ordering::Relaxed);
            held.into_iter().for_each(|number| records.release(records.leave(number)));
        });
        assert!(reads.load(Ordering::Relaxed) > 0);
        assert_eq!(pool.used_bytes(), 0);
    }
}
