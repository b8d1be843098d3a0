//! A region: 64 MiB of shared memory behind a file descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::mapping::{Others, for_reading, shared_file};

/// Bytes in a region.
pub(crate) const REGION_SIZE: usize = 64 << 20;
/// What a region's address is a multiple of, so that huge pages can back it.
const HUGE_PAGE: usize = 2 << 20;

/// One mapped memfd. Pages cost memory from the first time that they are touched.
pub(crate) struct Region {
    base: NonNull<u8>,
    file: OwnedFd,
    /// The same for others, who can only read.
    readable: Arc<OwnedFd>,
    /// Others may have mapped it.
    shared: AtomicBool,
}

// SAFETY: the region owns its mapping, which no thread is tied to.
unsafe impl Send for Region {}

impl Region {
    /// Maps fresh memory, sealed against shrinking and growing.
    pub(crate) fn new() -> io::Result<Self> {
        let file = shared_file("elcache-region", REGION_SIZE, Others::Read)?;
        let readable = Arc::new(for_reading(file.as_fd())?);
        let base = map_aligned(&file)?;
        // SAFETY: the advice changes how the mapping is backed and nothing that is in it. It helps where the system allows huge
        // pages for shared memory (`shmem_enabled` is `advise`) and is refused elsewhere, which is no error.
        let _ = unsafe { madvise(base.as_ptr().cast(), REGION_SIZE, Advice::LinuxHugepage) };
        Ok(Self { base, readable, file, shared: AtomicBool::new(false) })
    }

    /// Where it begins.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The memory as a file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A descriptor for others, which can only read. No system call: it is asked for under the pool's lock.
    pub(crate) fn share(&self) -> Arc<OwnedFd> {
        self.shared.store(true, Ordering::Relaxed);
        Arc::clone(&self.readable)
    }
}

/// Takes the pages at this place out of the file: fresh ones, full of zeros, come in their place when they are touched.
/// Whoever still refers to the old ones, a socket for one, keeps them as they are.
pub(crate) fn renew(file: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<()> {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, hole, offset as u64, len as u64)?)
}

/// Maps the file at an address that is a multiple of a huge page.
fn map_aligned(file: &OwnedFd) -> io::Result<NonNull<u8>> {
    // SAFETY: new mappings at addresses of the kernel's choice touch no memory of ours; the one at a fixed address lies within
    // the reservation just made, whose rest is given back. The seals keep the file as long as the mapping.
    let base = unsafe {
        let reserved = REGION_SIZE + HUGE_PAGE;
        let start = mmap_anonymous(ptr::null_mut(), reserved, ProtFlags::empty(), MapFlags::PRIVATE)?;
        let before = start.align_offset(HUGE_PAGE);
        let base = start.wrapping_byte_add(before);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let mapped = mmap(base, REGION_SIZE, ProtFlags::READ | ProtFlags::WRITE, flags, file, 0);
        if mapped.is_err() {
            munmap(start, reserved)?;
        }
        let base = mapped?;
        if before > 0 {
            munmap(start, before)?;
        }
        munmap(base.wrapping_byte_add(REGION_SIZE), HUGE_PAGE - before)?;
        base
    };
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this size; the pool drops a region only when no place in it is
        // in use.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), REGION_SIZE) };
        debug_assert!(unmapped.is_ok());
        if self.shared.load(Ordering::Relaxed) {
            // Whoever has it mapped still is to hold no memory by that.
            let punched = renew(self.file.as_fd(), 0, REGION_SIZE);
            debug_assert!(punched.is_ok());
        }
    }
}
