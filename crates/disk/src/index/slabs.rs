//! An array that grows and shrinks by slabs, so that it never moves, and whose every byte is in the budget.

use elcache_core::budget::Taken;

/// Items in a slab.
pub(super) const SLAB: usize = 128;
/// The list of slabs grows by room for so many.
const LIST_STEP: usize = 64;

pub(super) struct Slabs<T> {
    list: Vec<Box<[T; SLAB]>>,
    blank: T,
}

impl<T: Copy> Slabs<T> {
    /// An array without room.
    pub(super) fn new(blank: T) -> Self {
        Self { list: Vec::new(), blank }
    }

    /// How many items there is room for.
    pub(super) fn capacity(&self) -> usize {
        self.list.len() * SLAB
    }

    /// Adds a slab; false, and nothing changes, when the budget has no room for it.
    pub(super) fn grow(&mut self, taken: &mut Taken) -> bool {
        let full = self.list.len() == self.list.capacity();
        let list_bytes = if full { LIST_STEP * size_of::<Box<[T; SLAB]>>() } else { 0 };
        if !taken.grow((size_of::<[T; SLAB]>() + list_bytes) as u64) {
            return false;
        }
        if full {
            self.list.reserve_exact(LIST_STEP);
        }
        self.list.push(Box::new([self.blank; SLAB]));
        true
    }

    /// Gives back the last slabs while those before them have room for so many items and one slab more:
    /// what comes and goes at the edge of a slab does not allocate each time.
    pub(super) fn shrink(&mut self, items: usize, taken: &mut Taken) {
        while items + 2 * SLAB <= self.capacity() {
            self.list.pop();
            taken.shrink(size_of::<[T; SLAB]>() as u64);
        }
        let room = self.list.capacity();
        if self.list.len() + 2 * LIST_STEP <= room {
            self.list.shrink_to(self.list.len() + LIST_STEP);
            taken.shrink(((room - self.list.capacity()) * size_of::<Box<[T; SLAB]>>()) as u64);
        }
    }

    pub(super) fn get(&self, index: usize) -> &T {
        &self.list[index / SLAB][index % SLAB]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut T {
        &mut self.list[index / SLAB][index % SLAB]
    }

    /// Heap bytes, counted from what is there.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> u64 {
        let list = self.list.capacity() * size_of::<Box<[T; SLAB]>>();
        (list + self.list.iter().map(|slab| size_of_val(&**slab)).sum::<usize>()) as u64
    }
}
