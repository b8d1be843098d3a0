//! Memory at addresses that direct I/O takes: from the heap, or from slots that the kernel has been shown once and need
//! not look up for every operation.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::BLOCK;

/// Bytes in a slot.
pub(super) const SLOT: usize = 128 << 10;
/// What the slots' address is a multiple of, so that huge pages can back them.
const HUGE_PAGE: usize = 2 << 20;

/// Whole blocks of memory at an address that is a multiple of [`BLOCK`].
pub struct Blocks {
    start: NonNull<u8>,
    len: usize,
    home: Home,
}

enum Home {
    Heap,
    /// Pages of its own, which the system has back at once: the heap would keep many of them.
    Pages,
    Slot(Arc<Slots>, usize),
}

// SAFETY: the memory is owned, and no thread is tied to it.
unsafe impl Send for Blocks {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Blocks {}

impl Blocks {
    /// At least `len` bytes, zeroed.
    pub fn zeroed(len: usize) -> Self {
        let len = whole(len);
        if len > SLOT {
            return Self::mapped(len);
        }
        let layout = layout(len, BLOCK);
        // SAFETY: the layout has a length.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, len, home: Home::Heap }
    }

    fn mapped(len: usize) -> Self {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, flags) };
        let start = start.ok().and_then(|start| NonNull::new(start.cast()));
        let start = start.unwrap_or_else(|| handle_alloc_error(layout(len, BLOCK)));
        Self { start, len, home: Home::Pages }
    }

    /// Whether they lie in one of these slots.
    pub(super) fn is_in(&self, slots: &Arc<Slots>) -> bool {
        matches!(&self.home, Home::Slot(own, _) if Arc::ptr_eq(own, slots))
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is this value's alone, and was zeroed or written as a whole when it was made.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// For `Bytes::from_owner`.
impl AsRef<[u8]> for Blocks {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        match &self.home {
            // SAFETY: allocated in `zeroed` with this layout.
            Home::Heap => unsafe { dealloc(self.start.as_ptr(), layout(self.len, BLOCK)) },
            // SAFETY: mapped in `mapped` with this length, and nobody refers to it any more.
            Home::Pages => _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) },
            Home::Slot(slots, index) => slots.free.lock().push(*index),
        }
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// A number of slots in one run, each in use once at a time.
pub(super) struct Slots {
    start: NonNull<u8>,
    len: usize,
    free: Mutex<Vec<usize>>,
}

// SAFETY: slots are handed out under the lock, each to one owner; the run itself is never touched.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// `count` of them; `None` where there is no memory for that.
    pub(super) fn new(count: usize) -> Option<Arc<Self>> {
        let len = (count.max(1) * SLOT).next_multiple_of(HUGE_PAGE);
        // SAFETY: the layout has a length.
        let start = NonNull::new(unsafe { alloc_zeroed(layout(len, HUGE_PAGE)) })?;
        // SAFETY: the advice changes how the memory is backed and nothing that is in it; that it is refused is no error.
        let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
        Some(Arc::new(Self { start, len, free: Mutex::new((0..count).rev().collect()) }))
    }

    /// A free slot for so many bytes, which hold what they held before.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Option<Blocks> {
        let len = whole(len);
        let index = if len <= SLOT { self.free.lock().pop()? } else { return None };
        // SAFETY: the index is below their count, so that the place lies within the run.
        let start = unsafe { self.start.add(index * SLOT) };
        Some(Blocks { start, len, home: Home::Slot(Arc::clone(self), index) })
    }

    /// The run that they lie in.
    pub(super) fn run(&self) -> (NonNull<u8>, usize) {
        (self.start, self.len)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; each slot that is in use holds a reference, so none is.
        unsafe { dealloc(self.start.as_ptr(), layout(self.len, HUGE_PAGE)) }
    }
}

/// The whole blocks that hold so many bytes.
fn whole(len: usize) -> usize {
    len.max(1).next_multiple_of(BLOCK)
}

fn layout(len: usize, align: usize) -> Layout {
    // INVARIANT: both alignments are powers of two, and no length comes near the end of the address space.
    Layout::from_size_align(len, align).expect("a length of memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_aligned_and_zeroed() {
        for len in [0, 1, 4096, 4097, 200_000] {
            let blocks = Blocks::zeroed(len);
            assert!(
                blocks.len() >= len.max(1)
                    && blocks.len() < len + 2 * BLOCK
                    && blocks.len().is_multiple_of(BLOCK)
            );
            assert_eq!(blocks.as_ptr() as usize % BLOCK, 0);
            assert!(blocks.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_slot_is_in_use_once_and_comes_back() {
        let slots = Slots::new(2).unwrap();
        let (mut a, b) = (slots.take(SLOT).unwrap(), slots.take(1).unwrap());
        assert!(slots.take(1).is_none() && a.is_in(&slots) && !Blocks::zeroed(1).is_in(&slots));
        assert_eq!((a.len(), b.len()), (SLOT, BLOCK));
        assert!(a.as_ptr_range().end <= b.as_ptr() || b.as_ptr_range().end <= a.as_ptr());
        a.fill(7);
        drop(a);
        let again = slots.take(BLOCK).unwrap();
        assert!(again.iter().all(|&byte| byte == 7));
        assert!(slots.take(SLOT + 1).is_none());
    }

    #[test]
    fn slots_outlive_their_last_user() {
        let slots = Slots::new(1).unwrap();
        let mut last = slots.take(1).unwrap();
        drop(slots);
        last.fill(1);
    }
}
