//! A memfd that other processes map as well. All of it is read and written as atomics, because others may write at any moment.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fchmod, fcntl_add_seals, ftruncate, memfd_create, open,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::PAGE_SIZE;
use crate::region::renew;

const WORD: usize = size_of::<u64>();

/// What others may do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Read, from a descriptor that is made for it.
    Read,
    /// Read and write.
    Write,
}

/// Memory of a fixed size behind a file. Nobody can shrink it under our feet.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    others: Others,
}

// SAFETY: the mapping is not tied to a thread, and is reached through atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeros. `len` is rounded up to whole pages; `name` is what the kernel lists them under (`/proc/PID/maps`).
    pub fn new(name: &str, len: usize, others: Others) -> io::Result<Self> {
        let len = len.max(1).next_multiple_of(PAGE_SIZE);
        let file = shared_file(name, len, others)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0)?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, file, others })
    }

    /// The file, as it was made.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// All of it in words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping lives as long as this, starts at a page, and is read and written through atomics alone.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.len / WORD) }
    }

    /// All of it in half words.
    pub fn half_words(&self) -> &[AtomicU32] {
        // SAFETY: as for `words`.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.len / size_of::<u32>()) }
    }

    fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: as for `words`.
        unsafe { slice::from_raw_parts(self.base.as_ptr().cast(), self.len) }
    }

    /// Copies out what lies from this offset on.
    ///
    /// # Panics
    /// When that reaches over the end.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        let before = before_words(at, into.len());
        let (head, rest) = into.split_at_mut(before);
        let (body, tail) = rest.split_at_mut(rest.len() / WORD * WORD);
        let (body_at, tail_at) = (at + before, at + before + body.len());
        let load = |(target, byte): (&mut u8, &AtomicU8)| *target = byte.load(Ordering::Relaxed);
        head.iter_mut().zip(&self.bytes()[at..body_at]).for_each(load);
        let words = &self.words()[body_at.div_ceil(WORD)..][..body.len() / WORD];
        for (target, word) in body.chunks_exact_mut(WORD).zip(words) {
            target.copy_from_slice(&u64::from_le(word.load(Ordering::Relaxed)).to_le_bytes());
        }
        let bytes = &self.bytes()[tail_at..tail_at + tail.len()];
        tail.iter_mut().zip(bytes).for_each(load);
    }

    /// Copies in, from this offset on.
    ///
    /// # Panics
    /// When that reaches over the end.
    pub fn write(&self, at: usize, from: &[u8]) {
        let before = before_words(at, from.len());
        let (head, rest) = from.split_at(before);
        let (body, tail) = rest.split_at(rest.len() / WORD * WORD);
        let (body_at, tail_at) = (at + before, at + before + body.len());
        let store = |(source, byte): (&u8, &AtomicU8)| byte.store(*source, Ordering::Relaxed);
        head.iter().zip(&self.bytes()[at..body_at]).for_each(store);
        let words = &self.words()[body_at.div_ceil(WORD)..][..body.len() / WORD];
        for (source, word) in body.as_chunks::<WORD>().0.iter().zip(words) {
            word.store(u64::from_le_bytes(*source).to_le(), Ordering::Relaxed);
        }
        tail.iter().zip(&self.bytes()[tail_at..tail_at + tail.len()]).for_each(store);
    }
}

/// Bytes up to the next word, of so many from here on.
fn before_words(at: usize, len: usize) -> usize {
    (at.next_multiple_of(WORD) - at).min(len)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and nothing borrows from it any more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
        if self.others == Others::Write {
            // Whoever keeps a descriptor of it keeps no memory by that.
            let punched = renew(self.file.as_fd(), 0, self.len);
            debug_assert!(punched.is_ok());
        }
    }
}

/// A memfd of this length that nobody can shrink, grow or seal any further. Where others may only read it, its mode says so: whoever has
/// a descriptor could otherwise open it anew by its path, to write.
pub(crate) fn shared_file(name: &str, len: usize, others: Others) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, len as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    if others == Others::Read {
        fchmod(&file, Mode::RUSR)?;
    }
    Ok(file)
}

/// A descriptor of the same file that cannot write.
pub(crate) fn for_reading(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_beside_it(at in 0_usize..100, from in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mapping = Mapping::new("elcache-test", 300, Others::Write).unwrap();
            mapping.write(0, &[0xaa; 300]);
            mapping.write(at, &from);
            let mut all = [0; 300];
            mapping.read(0, &mut all);
            let mut expected = [0xaa; 300];
            expected[at..at + from.len()].copy_from_slice(&from);
            prop_assert_eq!(all, expected);
            let mut part = vec![0; from.len()];
            mapping.read(at, &mut part);
            prop_assert_eq!(part, from);
        }
    }

    /// A client that kept the descriptors of its sessions kept their memory, of which nobody knew any more.
    #[test]
    fn nobody_keeps_the_memory_of_what_others_could_write() {
        let mapping = Mapping::new("elcache-test", 1 << 20, Others::Write).unwrap();
        mapping.write(0, &[7; 1 << 20]);
        let kept = rustix::io::fcntl_dupfd_cloexec(mapping.file(), 0).unwrap();
        assert!(rustix::fs::fstat(&kept).unwrap().st_blocks > 0);
        drop(mapping);
        assert_eq!(rustix::fs::fstat(&kept).unwrap().st_blocks, 0);
    }

    #[test]
    fn a_descriptor_for_reading_cannot_write_grow_or_shrink() {
        let mapping = Mapping::new("elcache-test", 1, Others::Read).unwrap();
        mapping.words()[0].store(7, Ordering::Relaxed);
        let file = for_reading(mapping.file()).unwrap();
        let mut word = [0; 8];
        assert_eq!(rustix::io::pread(&file, &mut word, 0), Ok(8));
        assert_eq!(u64::from_le_bytes(word).to_le(), 7);
        assert!(rustix::io::pwrite(&file, &word, 0).is_err());
        assert!(ftruncate(&file, 0).is_err() && ftruncate(&mapping.file, 0).is_err());
        assert!(fcntl_add_seals(&mapping.file, SealFlags::WRITE).is_err(), "nobody adds a seal");
        // SAFETY: a new mapping, which is not to come about.
        let writable = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), PAGE_SIZE, access, MapFlags::SHARED, &file, 0)
        };
        assert!(writable.is_err());
    }
}
