//! The pool: which blocks of which regions are in use, and how blocks are cut into slots.
//!
//! A block of 64 KiB is free, cut into slots of one class, or part of a run of whole blocks. All of that is behind
//! one mutex, which is held for a few dozen instructions and never while memory is read, written or mapped away.
//!
//! Places can be lent: sent from the region's file without a copy. Sockets then refer to their pages for as long as a
//! client takes, and a client on the same machine for as long as it does not read. So the pages of a block that was lent
//! are never written again: before a place in it is used anew, they are taken out of the file and fresh ones come.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::PAGE_SIZE;
use crate::class::{self, Class};
use crate::life::Life;
use crate::prefetch;
use crate::region::{self, REGION_SIZE, Region};
use crate::watch::Watch;

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 64 << 10;
const REGION_BLOCKS: usize = REGION_SIZE / BLOCK_SIZE;
const WORDS: usize = REGION_BLOCKS / 64;
/// Free memory that is kept mapped: a region is given back only when this many blocks would still be free.
const SPARE_BLOCKS: usize = REGION_BLOCKS;

/// A place in the pool, in 42 bits: region (14), block (10), slot or number of blocks (10), class or [`RUN`] (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loc(u64);

/// Where a place begins, in cache lines from the beginning of the pool; above 256 GiB the count begins again. Good enough
/// to fetch what may be there early, and for nothing else.
pub type Hint = u32;

const CACHE_LINE: usize = 64;
const REGION_LINES: usize = REGION_SIZE / CACHE_LINE;
/// Cache lines that a hint brings: small records are there as a whole, of the others the name and what follows it.
const HINTED_LINES: usize = 3;

/// Bits in a [`Loc`].
pub(crate) const LOC_BITS: u32 = 42;
const MAX_REGIONS: usize = 1 << 14;
/// In place of a class: whole blocks.
const RUN: u64 = 0xff;

impl Loc {
    fn slot(region: usize, block: usize, slot: usize, class: Class) -> Self {
        Self((region << 28 | block << 18 | slot << 8) as u64 | u64::from(class))
    }

    fn run(region: usize, block: usize, blocks: usize) -> Self {
        Self((region << 28 | block << 18 | blocks << 8) as u64 | RUN)
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// Only for bits that [`Loc::to_bits`] gave.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn region(self) -> usize {
        (self.0 >> 28) as usize
    }

    fn block(self) -> usize {
        (self.0 >> 18) as usize & (REGION_BLOCKS - 1)
    }

    fn number(self) -> usize {
        (self.0 >> 8) as usize & 0x3ff
    }

    fn class(self) -> Option<Class> {
        let class = self.0 & 0xff;
        (class != RUN).then_some(class as Class)
    }

    /// The blocks that it lies in.
    fn blocks(self) -> std::ops::Range<usize> {
        self.block()..self.block() + self.class().map_or(self.number(), |_| 1)
    }

    /// Bytes from the beginning of the region.
    fn offset(self) -> usize {
        let within = self.class().map_or(0, |class| self.number() * class::size(class));
        self.block() * BLOCK_SIZE + within
    }

    pub(crate) fn hint(self) -> Hint {
        (self.region() * REGION_LINES + self.offset() / CACHE_LINE) as Hint
    }

    /// Bytes at this place.
    pub(crate) fn len(self) -> usize {
        self.class().map_or(self.number() * BLOCK_SIZE, class::size)
    }
}

/// All payload memory of one cache.
pub struct Pool {
    /// Where each region begins; null where there is none. Readers look here without the lock.
    bases: Box<[AtomicPtr<u8>]>,
    /// The regions' files, as far as there are regions.
    files: Box<[AtomicI32]>,
    /// What others call each region. Another one in the same place is called otherwise.
    names: Box<[AtomicU32]>,
    named: AtomicU32,
    watch: Arc<Watch>,
    /// The records that have been made on this pool.
    records: AtomicU32,
    /// One bit a block, set when a place in it has been lent.
    lent: Box<[AtomicU64]>,
    limit_blocks: AtomicUsize,
    used_blocks: AtomicUsize,
    /// Of so many neighbouring classes only the largest is used: in a small pool, a block of every class would be most of
    /// it.
    class_stride: Class,
    inner: Mutex<Inner>,
}

impl Pool {
    /// An empty pool whose limit is `max_bytes`; the limit may be lowered and raised again, up to that.
    pub fn new(max_bytes: u64) -> io::Result<Arc<Self>> {
        let max_blocks = usize::try_from(max_bytes / BLOCK_SIZE as u64).unwrap_or(usize::MAX);
        let regions = max_blocks.div_ceil(REGION_BLOCKS) + 1;
        if regions > MAX_REGIONS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more than 1 TiB of memory is not supported",
            ));
        }
        Ok(Arc::new(Self {
            bases: (0..regions).map(|_| AtomicPtr::default()).collect(),
            files: (0..regions).map(|_| AtomicI32::new(-1)).collect(),
            names: (0..regions).map(|_| AtomicU32::new(0)).collect(),
            named: AtomicU32::new(0),
            watch: Arc::new(Watch::new()?),
            records: AtomicU32::new(0),
            lent: (0..regions * WORDS).map(|_| AtomicU64::new(0)).collect(),
            limit_blocks: AtomicUsize::new(max_blocks),
            used_blocks: AtomicUsize::new(0),
            class_stride: match max_bytes >> 20 {
                0..64 => 4,
                64..200 => 2,
                _ => 1,
            },
            inner: Mutex::new(Inner::new()),
        }))
    }

    /// Sets the limit, at most to what the pool was made for. Lowering it frees nothing: it refuses what is new.
    pub fn set_limit_bytes(&self, bytes: u64) {
        let most = (self.bases.len() - 1) * REGION_BLOCKS;
        let blocks = usize::try_from(bytes / BLOCK_SIZE as u64).unwrap_or(usize::MAX).min(most);
        self.limit_blocks.store(blocks, Ordering::Relaxed);
    }

    /// Bytes in blocks that may be in use.
    pub fn limit_bytes(&self) -> u64 {
        (self.limit_blocks.load(Ordering::Relaxed) * BLOCK_SIZE) as u64
    }

    /// Bytes in blocks that are in use, wholly or in part.
    pub fn used_bytes(&self) -> u64 {
        (self.used_blocks.load(Ordering::Relaxed) * BLOCK_SIZE) as u64
    }

    /// The file of the words that tell whether what was read is good, to be read only.
    pub fn watch_file(&self) -> io::Result<OwnedFd> {
        self.watch.file()
    }

    /// Says to whoever reads in the pool that this process lives, for as long as the result does.
    pub fn begin_life(&self) -> io::Result<Life> {
        Life::begin(Arc::clone(&self.watch))
    }

    /// The file of a region, to be read only; `None` when it is not there any more.
    pub fn region_file(&self, name: u32) -> Option<Arc<OwnedFd>> {
        // Under the lock, so that it does not go meanwhile.
        let inner = self.inner.lock();
        let index = self.names.iter().position(|known| known.load(Ordering::Relaxed) == name);
        let state = index.filter(|_| name != 0).and_then(|index| inner.regions.get(index)?.as_ref());
        state.map(|state| state.region.share())
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// A number for new records.
    pub(crate) fn number_records(&self) -> u32 {
        self.records.fetch_add(1, Ordering::Relaxed)
    }

    /// What a place's region is called, and where in it byte `from` of the place lies.
    pub(crate) fn shared_at(&self, loc: Loc, from: usize) -> (u32, u32) {
        (self.names[loc.region()].load(Ordering::Relaxed), (loc.offset() + from) as u32)
    }

    /// A slot or run of at least `len` bytes; `None` when there is no room.
    pub(crate) fn take(&self, len: usize) -> Option<Loc> {
        let mut inner = self.inner.lock();
        match class::for_len(len) {
            Some(class) => self.take_slot(&mut inner, class::coarser(class, self.class_stride)),
            None => {
                let blocks = len.div_ceil(BLOCK_SIZE);
                let loc = self.take_run(&mut inner, blocks)?;
                if loc.number() == blocks {
                    return Some(loc);
                }
                self.give_blocks(&mut inner, loc.region(), loc.block(), loc.number());
                None
            }
        }
    }

    /// Places for exactly `pages` pages, in as few pieces as can be had; false, and nothing taken, without room.
    pub(crate) fn take_pages(&self, pages: usize, places: &mut Vec<Loc>) -> bool {
        const BLOCK_PAGES: usize = BLOCK_SIZE / PAGE_SIZE;
        let before = places.len();
        let mut inner = self.inner.lock();
        let mut blocks = pages / BLOCK_PAGES;
        let mut rest = pages % BLOCK_PAGES;
        let whole = loop {
            let taken = if blocks > 0 {
                self.take_run(&mut inner, blocks)
            } else if rest > 0 {
                let piece = 1 << rest.ilog2();
                class::for_len(piece * PAGE_SIZE).and_then(|class| self.take_slot(&mut inner, class))
            } else {
                break true;
            };
            let Some(loc) = taken else { break false };
            match loc.class() {
                None => blocks -= loc.number(),
                Some(_) => rest -= loc.len() / PAGE_SIZE,
            }
            places.push(loc);
        };
        if !whole {
            places.drain(before..).for_each(|loc| self.give_locked(&mut inner, loc));
        }
        whole
    }

    /// The file that a place lies in, and the offset there of its byte `from`. The pages of these `len` bytes will not be
    /// written again. `None` when they are not all in the place.
    ///
    /// # Safety
    /// The place is in use for as long as the result lives.
    pub(crate) unsafe fn lend(&self, loc: Loc, from: usize, len: usize) -> Option<(BorrowedFd<'_>, u64)> {
        let end = from.checked_add(len).filter(|end| *end <= loc.len())?;
        let start = loc.offset() + from;
        for block in start / BLOCK_SIZE..(loc.offset() + end).div_ceil(BLOCK_SIZE) {
            self.lent[loc.region() * WORDS + block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        }
        // SAFETY: a place in use lies in a region that is there, and so is its file.
        Some((unsafe { BorrowedFd::borrow_raw(self.raw_file(loc)) }, start as u64))
    }

    /// Gives a place back. The caller owns it, and no reference into it is left.
    pub(crate) fn give(&self, loc: Loc) {
        if !self.renew_lent(loc) {
            // Its pages may still be on their way to a client, so it can never be used again.
            return;
        }
        let mut inner = self.inner.lock();
        self.give_locked(&mut inner, loc);
        let empty = self.unmap_spare(&mut inner);
        drop(inner);
        drop(empty);
    }

    /// Keeps the first `blocks` blocks of a run and gives the others back. The caller owns it.
    pub(crate) fn shorten(&self, run: Loc, blocks: usize) -> Loc {
        debug_assert!(run.class().is_none() && 0 < blocks && blocks <= run.number());
        if blocks < run.number() {
            let mut inner = self.inner.lock();
            self.give_blocks(&mut inner, run.region(), run.block() + blocks, run.number() - blocks);
        }
        Loc::run(run.region(), run.block(), blocks)
    }

    /// The bytes of a place.
    ///
    /// # Safety
    /// The place is in use, and nobody writes it, for as long as the result lives.
    pub(crate) unsafe fn bytes(&self, loc: Loc) -> &[u8] {
        // SAFETY: a place in use lies within a mapped region; the caller answers for writers.
        unsafe { slice::from_raw_parts(self.pointer(loc), loc.len()) }
    }

    /// Has what begins here in the processor's caches soon, if anything does.
    pub(crate) fn prefetch(&self, hint: Hint) {
        let Some(base) = self.bases.get(hint as usize / REGION_LINES) else { return };
        let start = base.load(Ordering::Relaxed).wrapping_add(hint as usize % REGION_LINES * CACHE_LINE);
        (0..HINTED_LINES).for_each(|line| prefetch::line(start.wrapping_add(line * CACHE_LINE)));
    }

    /// The bytes of a place, to be written.
    ///
    /// # Safety
    /// The place is in use and the caller is the only one who reads or writes it while the result lives.
    #[expect(clippy::mut_from_ref, reason = "the caller owns the place; the pool only knows where it is")]
    pub(crate) unsafe fn bytes_mut(&self, loc: Loc) -> &mut [u8] {
        // SAFETY: as for `bytes`, and the caller answers for being alone.
        unsafe { slice::from_raw_parts_mut(self.pointer(loc), loc.len()) }
    }

    /// Sees to fresh pages where a place's have been lent; false when they cannot be had.
    fn renew_lent(&self, loc: Loc) -> bool {
        let word = |block: usize| &self.lent[loc.region() * WORDS + block / 64];
        let is_lent = |block: usize| word(block).load(Ordering::Relaxed) & 1 << (block % 64) != 0;
        if !loc.blocks().any(is_lent) || !loc.len().is_multiple_of(PAGE_SIZE) {
            return true;
        }
        // SAFETY: the caller owns the place, so its region and the region's file are there.
        let file = unsafe { BorrowedFd::borrow_raw(self.raw_file(loc)) };
        let renewed = region::renew(file, loc.offset(), loc.len()).is_ok();
        if renewed && loc.class().is_none() {
            for block in loc.blocks() {
                word(block).fetch_and(!(1 << (block % 64)), Ordering::Relaxed);
            }
        }
        renewed
    }

    fn raw_file(&self, loc: Loc) -> RawFd {
        self.files[loc.region()].load(Ordering::Acquire)
    }

    fn pointer(&self, loc: Loc) -> *mut u8 {
        // Acquire: the region was mapped before its address was stored.
        self.bases[loc.region()].load(Ordering::Acquire).wrapping_add(loc.offset())
    }

    fn take_slot(&self, inner: &mut Inner, class: Class) -> Option<Loc> {
        if inner.partial[usize::from(class)].is_empty() {
            let run = self.take_run(inner, 1)?;
            inner.cut(run.region(), run.block(), class);
        }
        inner.take_slot(class)
    }

    /// Takes a run of `blocks` blocks, or the longest shorter one; `None` when no block is to be had.
    fn take_run(&self, inner: &mut Inner, blocks: usize) -> Option<Loc> {
        let room = self
            .limit_blocks
            .load(Ordering::Relaxed)
            .checked_sub(self.used_blocks.load(Ordering::Relaxed))?;
        let wanted = blocks.min(room).min(REGION_BLOCKS - 1);
        if wanted == 0 {
            return None;
        }
        // Several short runs of memory that is in the process already cost less than one long run of new memory: what was
        // touched once stays.
        if inner.free_blocks < wanted {
            self.map_region(inner);
        }
        let run = inner.longest_run(wanted)?;
        inner.mark(run, true);
        self.used_blocks.fetch_add(run.len, Ordering::Relaxed);
        Some(Loc::run(run.region, run.block, run.len))
    }

    /// Adds a region, where that can be done. A failure to map is a lack of memory like any other: the caller makes do
    /// with what there is.
    fn map_region(&self, inner: &mut Inner) {
        let vacant = self.bases.iter().position(|base| base.load(Ordering::Relaxed).is_null());
        let (Some(vacant), Ok(region)) = (vacant, Region::new()) else { return };
        self.files[vacant].store(region.file().as_raw_fd(), Ordering::Release);
        let name = self.named.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.names[vacant].store(name, Ordering::Relaxed);
        self.bases[vacant].store(region.base().as_ptr(), Ordering::Release);
        inner.add_region(vacant, region);
    }

    fn give_locked(&self, inner: &mut Inner, loc: Loc) {
        match loc.class() {
            None => self.give_blocks(inner, loc.region(), loc.block(), loc.number()),
            Some(class) => {
                if inner.give_slot(loc, class) {
                    let word = &self.lent[loc.region() * WORDS + loc.block() / 64];
                    word.fetch_and(!(1 << (loc.block() % 64)), Ordering::Relaxed);
                    self.give_blocks(inner, loc.region(), loc.block(), 1);
                }
            }
        }
    }

    fn give_blocks(&self, inner: &mut Inner, region: usize, block: usize, len: usize) {
        inner.mark(Run { region, block, len }, false);
        self.used_blocks.fetch_sub(len, Ordering::Relaxed);
    }

    /// Takes a wholly free region out, for the caller to drop outside the lock.
    fn unmap_spare(&self, inner: &mut Inner) -> Option<Box<RegionState>> {
        let index = inner.spare_region()?;
        self.bases[index].store(std::ptr::null_mut(), Ordering::Relaxed);
        self.names[index].store(0, Ordering::Relaxed);
        inner.remove_region(index)
    }
}

/// Neighbouring blocks of one region.
#[derive(Clone, Copy)]
struct Run {
    region: usize,
    block: usize,
    len: usize,
}

struct Inner {
    regions: Vec<Option<Box<RegionState>>>,
    /// For each class, the blocks with at least one free slot.
    partial: Vec<Vec<(u16, u16)>>,
    free_blocks: usize,
}

struct RegionState {
    /// One bit a block, set while it is in use.
    used: [u64; WORDS],
    free: usize,
    cut: Vec<Option<Box<CutBlock>>>,
    region: Region,
}

/// A block that is cut into slots.
struct CutBlock {
    free: u16,
    /// Where the block stands in its class's list of blocks with free slots, while it has one.
    position: u32,
    /// One bit a slot, set while it is in use.
    used: Box<[u64]>,
}

impl Inner {
    fn new() -> Self {
        Self { regions: Vec::new(), partial: vec![Vec::new(); class::COUNT], free_blocks: 0 }
    }

    fn add_region(&mut self, index: usize, region: Region) {
        if self.regions.len() <= index {
            self.regions.resize_with(index + 1, || None);
        }
        let cut = std::iter::repeat_with(|| None).take(REGION_BLOCKS).collect();
        let state = RegionState { used: [0; WORDS], free: REGION_BLOCKS, cut, region };
        self.regions[index] = Some(Box::new(state));
        self.free_blocks += REGION_BLOCKS;
    }

    fn remove_region(&mut self, index: usize) -> Option<Box<RegionState>> {
        self.free_blocks -= REGION_BLOCKS;
        self.regions[index].take()
    }

    fn spare_region(&self) -> Option<usize> {
        if self.free_blocks < REGION_BLOCKS + SPARE_BLOCKS {
            return None;
        }
        self.regions.iter().rposition(|state| state.as_ref().is_some_and(|state| state.free == REGION_BLOCKS))
    }

    fn region(&mut self, index: usize) -> &mut RegionState {
        // INVARIANT: places in use lie in regions that are there.
        self.regions[index].as_mut().expect("a place in use lies in a mapped region")
    }

    /// The first run of at least `wanted` free blocks, cut to that; otherwise the longest there is.
    fn longest_run(&self, wanted: usize) -> Option<Run> {
        let mut best: Option<Run> = None;
        for (region, state) in self.regions.iter().enumerate() {
            let Some(state) = state.as_ref().filter(|state| state.free > best.map_or(0, |run| run.len))
            else {
                continue;
            };
            let (block, len) = state.longest_run(wanted);
            if len > best.map_or(0, |run| run.len) {
                best = Some(Run { region, block, len });
            }
            if len == wanted {
                break;
            }
        }
        best
    }

    fn mark(&mut self, run: Run, used: bool) {
        let state = self.region(run.region);
        for block in run.block..run.block + run.len {
            let bit = 1 << (block % 64);
            debug_assert_eq!(state.used[block / 64] & bit == 0, used, "block {block} is marked twice");
            state.used[block / 64] ^= bit;
        }
        if used {
            state.free -= run.len;
            self.free_blocks -= run.len;
        } else {
            state.free += run.len;
            self.free_blocks += run.len;
        }
    }

    /// Cuts a block that is in use into slots.
    fn cut(&mut self, region: usize, block: usize, class: Class) {
        let slots = class::slots(class);
        let list = &mut self.partial[usize::from(class)];
        let position = list.len() as u32;
        list.push((region as u16, block as u16));
        let mut used = vec![0; slots.div_ceil(64)].into_boxed_slice();
        if !slots.is_multiple_of(64) {
            used[slots / 64] = !0 << (slots % 64);
        }
        self.region(region).cut[block] = Some(Box::new(CutBlock { free: slots as u16, position, used }));
    }

    fn cut_block(&mut self, region: usize, block: usize) -> &mut CutBlock {
        // INVARIANT: a slot in use, and an entry of a class's list, lies in a block that is cut.
        self.region(region).cut[block].as_mut().expect("a slot lies in a block that is cut")
    }

    fn take_slot(&mut self, class: Class) -> Option<Loc> {
        let &(region, block) = self.partial[usize::from(class)].last()?;
        let (region, block) = (usize::from(region), usize::from(block));
        let cut = self.cut_block(region, block);
        let word = cut.used.iter().position(|&word| word != !0)?;
        let bit = cut.used[word].trailing_ones() as usize;
        cut.used[word] |= 1 << bit;
        cut.free -= 1;
        if cut.free == 0 {
            self.partial[usize::from(class)].pop();
        }
        Some(Loc::slot(region, block, word * 64 + bit, class))
    }

    /// Frees a slot; true when that leaves its block without a slot in use, and the block is no longer cut.
    fn give_slot(&mut self, loc: Loc, class: Class) -> bool {
        let (region, block) = (loc.region(), loc.block());
        let list_len = self.partial[usize::from(class)].len() as u32;
        let cut = self.cut_block(region, block);
        let bit = 1 << (loc.number() % 64);
        debug_assert!(cut.used[loc.number() / 64] & bit != 0, "a slot is freed twice");
        cut.used[loc.number() / 64] &= !bit;
        cut.free += 1;
        let (free, position) = (usize::from(cut.free), cut.position as usize);
        if free == 1 {
            cut.position = list_len;
            self.partial[usize::from(class)].push((region as u16, block as u16));
        }
        if free < class::slots(class) {
            return false;
        }
        let position = if free == 1 { list_len as usize } else { position };
        let list = &mut self.partial[usize::from(class)];
        list.swap_remove(position);
        if let Some(&(moved_region, moved_block)) = list.get(position) {
            self.cut_block(usize::from(moved_region), usize::from(moved_block)).position = position as u32;
        }
        self.region(region).cut[block] = None;
        true
    }
}

impl RegionState {
    /// The first run of at least `wanted` free blocks, cut to that, or the longest there is: (first block, blocks).
    fn longest_run(&self, wanted: usize) -> (usize, usize) {
        let mut best = (0, 0);
        let mut block = 0;
        while block < REGION_BLOCKS {
            let ahead = self.used[block / 64] >> (block % 64);
            if ahead & 1 == 1 {
                block += (ahead.trailing_ones() as usize).max(1);
                continue;
            }
            let start = block;
            while block < REGION_BLOCKS && block - start < wanted {
                let ahead = self.used[block / 64] >> (block % 64);
                if ahead & 1 == 1 {
                    break;
                }
                block += (ahead.trailing_zeros() as usize).min(64 - block % 64);
            }
            let len = (block - start).min(wanted);
            if len > best.1 {
                best = (start, len);
            }
            if len == wanted {
                break;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(blocks: usize) -> Arc<Pool> {
        Pool::new((blocks * BLOCK_SIZE) as u64).unwrap()
    }

    #[test]
    fn the_limit_holds_and_freed_memory_is_used_again() {
        let pool = pool(4);
        let taken: Vec<_> = std::iter::from_fn(|| pool.take(32 << 10)).collect();
        assert_eq!(taken.len(), 8);
        assert_eq!(pool.used_bytes(), pool.limit_bytes());
        assert!(pool.take(1).is_none());
        taken.into_iter().for_each(|loc| pool.give(loc));
        assert_eq!(pool.used_bytes(), 0);
        assert!(pool.take(200 << 10).is_some());
    }

    #[test]
    fn pages_come_in_pieces_when_no_run_is_long_enough() {
        let pool = pool(8);
        let mut single: Vec<_> = (0..8).map(|_| pool.take(40 << 10).unwrap()).collect();
        for index in [7, 5, 3, 1] {
            pool.give(single.remove(index));
        }
        let mut places = Vec::new();
        assert!(pool.take_pages(3 * 16 + 4, &mut places));
        assert_eq!(places.iter().map(|loc| loc.len()).sum::<usize>(), (3 * 16 + 4) * PAGE_SIZE);
        assert!(places.iter().all(|loc| loc.offset() % PAGE_SIZE == 0));
        let before = pool.used_bytes();
        assert!(!pool.take_pages(17, &mut places));
        assert_eq!(pool.used_bytes(), before, "a request that fails takes nothing");
    }

    #[test]
    fn empty_regions_are_given_back_but_one() {
        let pool = pool(4 * REGION_BLOCKS);
        let mut places = Vec::new();
        assert!(pool.take_pages(4 * REGION_BLOCKS * 16, &mut places));
        let mapped = || pool.bases.iter().filter(|base| !base.load(Ordering::Relaxed).is_null()).count();
        assert!(mapped() >= 4);
        places.into_iter().for_each(|loc| pool.give(loc));
        assert_eq!(mapped(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Pages(usize),
        Give(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1_usize..100_000).prop_map(Step::Take),
            (1_usize..1500).prop_map(Step::Pages),
            any::<usize>().prop_map(Step::Give),
            any::<usize>().prop_map(Step::Give),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn places_in_use_never_overlap_and_everything_comes_back(steps in steps()) {
            let pool = pool(300);
            let mut held: Vec<Loc> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(len) => held.extend(pool.take(len).inspect(|loc| assert!(loc.len() >= len))),
                    Step::Pages(pages) => { pool.take_pages(pages, &mut held); }
                    Step::Give(which) if !held.is_empty() => pool.give(held.swap_remove(which % held.len())),
                    Step::Give(_) => {}
                }
                prop_assert!(pool.used_bytes() <= pool.limit_bytes());
                let mut extents: Vec<_> =
                    held.iter().map(|loc| (loc.region() * REGION_SIZE + loc.offset(), loc.len())).collect();
                extents.sort_unstable();
                prop_assert!(extents.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
            }
            held.drain(..).for_each(|loc| pool.give(loc));
            prop_assert_eq!(pool.used_bytes(), 0);
        }
    }
}
