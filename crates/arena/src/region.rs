//! A region: 64 MiB of shared memory behind a file descriptor.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes in a region.
pub(crate) const REGION_SIZE: usize = 64 << 20;

/// One mapped memfd. Pages cost memory from the first time that they are touched.
pub(crate) struct Region {
    base: NonNull<u8>,
    /// Kept for the clients that will map the region too.
    _file: OwnedFd,
}

// SAFETY: the region owns its mapping, which no thread is tied to.
unsafe impl Send for Region {}

impl Region {
    /// Maps fresh memory, sealed against shrinking and growing.
    pub(crate) fn new() -> io::Result<Self> {
        let file = memfd_create("elcache", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, REGION_SIZE as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours, and the seals keep
        // the file as long as the mapping.
        let base = unsafe {
            mmap(
                ptr::null_mut(),
                REGION_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, _file: file })
    }

    /// Where it begins.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this size; the pool drops a region only when no place in it is
        // in use.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), REGION_SIZE) };
        debug_assert!(unmapped.is_ok());
    }
}
