//! An array that grows and shrinks by segments, so that it never moves, and whose every byte is in the budget.

use elcache_core::budget::Taken;

/// Items in a segment.
pub(super) const SEGMENT: usize = 128;
/// The list of segments grows by room for so many.
const LIST_STEP: usize = 64;

pub(super) struct Segments<T> {
    list: Vec<Box<[T; SEGMENT]>>,
    blank: T,
}

impl<T: Copy> Segments<T> {
    /// An array without room.
    pub(super) fn new(blank: T) -> Self {
        Self { list: Vec::new(), blank }
    }

    /// How many items there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.list.len() * SEGMENT
    }

    /// Adds a segment; false, and nothing changes, when the budget has no room for it.
    pub(super) fn grow(&mut self, taken: &mut Taken) -> bool {
        let full = self.list.len() == self.list.capacity();
        let list_bytes = if full { LIST_STEP * size_of::<Box<[T; SEGMENT]>>() } else { 0 };
        if !taken.grow((size_of::<[T; SEGMENT]>() + list_bytes) as u64) {
            return false;
        }
        if full {
            self.list.reserve_exact(LIST_STEP);
        }
        self.list.push(Box::new([self.blank; SEGMENT]));
        true
    }

    /// Gives back the last segments while those before them have room for so many items and one segment more:
    /// what comes and goes at the edge of a segment does not allocate each time.
    pub(super) fn shrink(&mut self, items: usize, taken: &mut Taken) {
        while items + 2 * SEGMENT <= self.capacity() {
            self.list.pop();
            taken.shrink(size_of::<[T; SEGMENT]>() as u64);
        }
        let room = self.list.capacity();
        if self.list.len() + 2 * LIST_STEP <= room {
            self.list.shrink_to(self.list.len() + LIST_STEP);
            taken.shrink(((room - self.list.capacity()) * size_of::<Box<[T; SEGMENT]>>()) as u64);
        }
    }

    pub(super) fn get(&self, index: usize) -> &T {
        &self.list[index / SEGMENT][index % SEGMENT]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        &mut self.list[index / SEGMENT][index % SEGMENT]
    }

    /// Heap bytes, counted from what is there.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> u64 {
        let list = self.list.capacity() * size_of::<Box<[T; SEGMENT]>>();
        (list + self.list.iter().map(|segment| size_of_val(&**segment)).sum::<usize>()) as u64
    }
}
