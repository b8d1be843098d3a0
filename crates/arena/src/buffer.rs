//! Room that an upload fills: whole pages, and one page more for the rest.

use std::any::Any;
use std::sync::Arc;

use elcache_core::payload::Buffer;

use crate::PAGE_SIZE;
use crate::pool::{BLOCK_SIZE, Loc, Pool};

/// Pages of the pool that one owner fills from the beginning to the end. Dropping it gives them back.
pub struct PageBuffer {
    pool: Arc<Pool>,
    /// The places in order, each with the offset of its first byte.
    places: Vec<(Loc, usize)>,
    capacity: usize,
    filled: usize,
    /// Index of the place that holds the byte at `filled`.
    current: usize,
}

impl PageBuffer {
    /// Room for exactly `capacity` bytes; `None` when the pool has not got it.
    pub fn new(pool: &Arc<Pool>, capacity: usize) -> Option<Self> {
        let mut locs = Vec::new();
        if !pool.take_pages(capacity / PAGE_SIZE, &mut locs) {
            return None;
        }
        if !capacity.is_multiple_of(PAGE_SIZE) && !pool.take_pages(1, &mut locs) {
            locs.into_iter().for_each(|loc| pool.give(loc));
            return None;
        }
        let mut at = 0;
        let places = locs.into_iter().map(|loc| {
            let start = at;
            at += loc.len();
            (loc, start)
        });
        Some(Self { pool: Arc::clone(pool), places: places.collect(), capacity, filled: 0, current: 0 })
    }

    /// Gives back what was not filled, so that what remains is what a buffer of that capacity would have: whole
    /// pages and one for the rest. False, and the buffer as it was, when that takes room that is not there.
    pub fn trim(&mut self) -> bool {
        if self.filled == self.capacity {
            return true;
        }
        let whole_blocks = self.filled / BLOCK_SIZE * BLOCK_SIZE;
        let Some(mut rest) = Self::new(&self.pool, self.filled - whole_blocks) else { return false };
        while rest.filled < rest.capacity {
            let from = self.run(whole_blocks + rest.filled);
            let count = from.len().min(rest.space().len());
            rest.space()[..count].copy_from_slice(&from[..count]);
            rest.advance(count);
        }
        let mut kept = Vec::new();
        for (loc, start) in self.places.drain(..) {
            match whole_blocks.saturating_sub(start) / BLOCK_SIZE {
                0 => self.pool.give(loc),
                blocks if blocks * BLOCK_SIZE < loc.len() => {
                    kept.push((self.pool.shorten(loc, blocks), start))
                }
                _ => kept.push((loc, start)),
            }
        }
        kept.extend(rest.places.drain(..).map(|(loc, start)| (loc, whole_blocks + start)));
        self.places = kept;
        self.capacity = self.filled;
        self.current = self.places.len();
        true
    }

    /// Takes the places apart: the whole pages, and the page with the rest, which is shorter than a page.
    pub(crate) fn into_places(mut self) -> (Vec<Loc>, Option<Loc>) {
        debug_assert_eq!(self.filled, self.capacity, "a buffer is trimmed before it is taken apart");
        let mut places: Vec<Loc> = self.places.drain(..).map(|(loc, _)| loc).collect();
        let rest = if !self.capacity.is_multiple_of(PAGE_SIZE) { places.pop() } else { None };
        (places, rest)
    }

    pub(crate) fn place_count(&self) -> usize {
        self.places.len()
    }

    /// Bytes of memory that it occupies.
    pub fn footprint(&self) -> usize {
        self.places.iter().map(|(loc, _)| loc.len()).sum()
    }

    /// The place that holds the byte at `offset`, and the offset within it.
    fn locate(&self, offset: usize) -> Option<(Loc, usize)> {
        let index = self.places.partition_point(|&(_, start)| start <= offset).checked_sub(1)?;
        let &(loc, start) = self.places.get(index)?;
        Some((loc, offset - start))
    }
}

impl Buffer for PageBuffer {
    fn capacity(&self) -> usize {
        self.capacity
    }

    fn filled(&self) -> usize {
        self.filled
    }

    fn space(&mut self) -> &mut [u8] {
        let left = self.capacity - self.filled;
        let Some(&(loc, start)) = self.places.get(self.current).filter(|_| left > 0) else { return &mut [] };
        // SAFETY: the place is this buffer's, which is borrowed mutably; nobody else knows it.
        let bytes = unsafe { self.pool.bytes_mut(loc) };
        let within = self.filled - start;
        let end = bytes.len().min(within + left);
        &mut bytes[within..end]
    }

    fn spaces(&mut self) -> Vec<&mut [u8]> {
        let Self { pool, places, capacity, filled, .. } = self;
        let left = places[self.current.min(places.len())..].iter();
        let runs = left.map(|&(loc, start)| {
            // SAFETY: the places are this buffer's, which is borrowed mutably, and none of them overlaps another.
            let bytes = unsafe { pool.bytes_mut(loc) };
            let end = bytes.len().min(*capacity - start);
            &mut bytes[filled.saturating_sub(start).min(end)..end]
        });
        runs.filter(|run| !run.is_empty()).collect()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.space().len(), "more was written than there was space");
        self.filled += count;
        if self.places.get(self.current).is_some_and(|&(loc, start)| self.filled == start + loc.len()) {
            self.current += 1;
        }
    }

    fn run(&self, from: usize) -> &[u8] {
        let Some((loc, within)) = self.locate(from).filter(|_| from < self.filled) else { return &[] };
        // SAFETY: the place is this buffer's, which is borrowed, so that nobody writes it meanwhile.
        let bytes = unsafe { self.pool.bytes(loc) };
        let end = bytes.len().min(within + self.filled - from);
        &bytes[within..end]
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        self.places.drain(..).for_each(|(loc, _)| self.pool.give(loc));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fill(buffer: &mut PageBuffer, bytes: &[u8], step: usize) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = buffer.space();
            let count = rest.len().min(space.len()).min(step);
            space[..count].copy_from_slice(&rest[..count]);
            buffer.advance(count);
            rest = &rest[count..];
        }
    }

    fn content(buffer: &PageBuffer) -> Vec<u8> {
        let mut all = Vec::new();
        while !buffer.run(all.len()).is_empty() {
            all.extend_from_slice(buffer.run(all.len()));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn what_is_filled_can_be_read_and_survives_trimming(
            capacity in 1_usize..600_000, part in 0.0..=1.0_f64, step in 1_usize..100_000, holes in any::<bool>(),
        ) {
            let pool = Pool::new(4 << 20).unwrap();
            let held: Vec<_> = (0..if holes { 10 } else { 0 }).map(|_| pool.take(60_000).unwrap()).collect();
            for loc in held.iter().step_by(2) {
                pool.give(*loc);
            }
            let outside = pool.used_bytes();
            let filled = (capacity as f64 * part) as usize;
            let bytes: Vec<u8> = (0..filled).map(|i| (i * 31 % 251) as u8).collect();
            let mut buffer = PageBuffer::new(&pool, capacity).unwrap();
            prop_assert_eq!(buffer.spaces().iter().map(|run| run.len()).sum::<usize>(), capacity);
            fill(&mut buffer, &bytes, step);
            prop_assert_eq!(&content(&buffer), &bytes);
            let runs: Vec<_> = buffer.spaces().iter().map(|run| (run.as_ptr(), run.len())).collect();
            prop_assert_eq!(runs.iter().map(|(_, len)| len).sum::<usize>(), capacity - filled);
            let next = buffer.space();
            prop_assert_eq!(runs.first().copied().unwrap_or((next.as_ptr(), 0)), (next.as_ptr(), next.len()));
            prop_assert!(buffer.trim());
            prop_assert_eq!(&content(&buffer), &bytes);
            prop_assert_eq!(buffer.capacity(), filled);
            prop_assert!(buffer.space().is_empty());
            prop_assert_eq!(buffer.footprint(), filled.next_multiple_of(PAGE_SIZE));
            let (places, rest) = buffer.into_places();
            prop_assert_eq!(places.iter().map(|loc| loc.len()).sum::<usize>(), filled / PAGE_SIZE * PAGE_SIZE);
            prop_assert_eq!(rest.is_some(), !filled.is_multiple_of(PAGE_SIZE));
            places.into_iter().chain(rest).for_each(|loc| pool.give(loc));
            prop_assert_eq!(pool.used_bytes(), outside);
        }
    }

    #[test]
    fn a_buffer_that_does_not_fit_takes_nothing() {
        let pool = Pool::new(1 << 20).unwrap();
        assert!(PageBuffer::new(&pool, (1 << 20) + 1).is_none());
        assert_eq!(pool.used_bytes(), 0);
        let buffer = PageBuffer::new(&pool, 1 << 20).unwrap();
        assert!(PageBuffer::new(&pool, 1).is_none());
        drop(buffer);
        assert_eq!(pool.used_bytes(), 0);
    }
}
