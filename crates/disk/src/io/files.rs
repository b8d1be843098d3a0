//! What is done to files and directories as a whole, by both engines. All of it blocks.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, StatVfsMountFlags, StatxFlags, fallocate, fcntl_getfl,
    fcntl_setfl, fstat, ftruncate, statvfs, statx,
};
use rustix::io::Errno;

use super::{BLOCK, Entry, File, Open, Space};

/// The number of the next file of the process.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl File {
    /// A file of this number that nobody had before.
    pub(super) fn new(fd: Option<OwnedFd>, direct: bool) -> Arc<Self> {
        Arc::new(Self { id: NEXT.fetch_add(1, Ordering::Relaxed), fd, direct })
    }

    /// The descriptor; an error for a file of a device that only pretends.
    pub(super) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        let foreign = || io::Error::new(io::ErrorKind::InvalidInput, "a file of another device");
        Ok(self.fd.as_ref().ok_or_else(foreign)?.as_fd())
    }
}

/// Opens for reading and writing; past the page cache only if the file system can do that with blocks of ours.
pub(super) fn open(path: &Path, how: Open) -> io::Result<Arc<File>> {
    let create = if how.create { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
    let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | create, Mode::from(0o600))?;
    let direct = how.direct && make_direct(&fd)?;
    Ok(File::new(Some(fd), direct))
}

/// Asked of the open file, since opening with the flag makes the file before it is refused.
fn make_direct(fd: &OwnedFd) -> io::Result<bool> {
    let answer = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let known = answer.is_ok_and(|stat| {
        let fits = |align: u32| align != 0 && BLOCK.is_multiple_of(align as usize);
        let says = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
        says && !(fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align))
    });
    if known {
        return Ok(false);
    }
    match fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::DIRECT) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes room. Where the file system cannot, the file only becomes as long.
pub(super) fn allocate(file: &File, part: Range<u64>) -> io::Result<()> {
    let Some(len) = part.end.checked_sub(part.start).filter(|len| *len > 0) else { return Ok(()) };
    match fallocate(file.descriptor()?, FallocateFlags::empty(), part.start, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => lengthen(file.descriptor()?, part.end),
        answer => Ok(answer?),
    }
}

fn lengthen(fd: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    if fstat(fd)?.st_size.cast_unsigned() < len {
        ftruncate(fd, len)?;
    }
    Ok(())
}

/// Sets the length.
pub(super) fn truncate(file: &File, len: u64) -> io::Result<()> {
    Ok(ftruncate(file.descriptor()?, len)?)
}

/// The plain files; what is removed meanwhile is left out.
pub(super) fn list(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
            entries.push(Entry { name, len: metadata.len() });
        }
    }
    Ok(entries)
}

/// Syncs the directory's own entries.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// What the file system says of itself.
pub(super) fn space(directory: &Path) -> io::Result<Space> {
    let stat = statvfs(directory)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let read_only = stat.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(Space { total: bytes(stat.f_blocks), available: bytes(stat.f_bavail), read_only })
}

/// The methods of a device that are the same for every engine.
macro_rules! blocking_methods {
    () => {
        fn open(&self, path: &Path, how: Open) -> io::Result<Arc<File>> {
            files::open(path, how)
        }

        fn allocate(&self, file: &File, part: Range<u64>) -> io::Result<()> {
            files::allocate(file, part)
        }

        fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
            files::truncate(file, len)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            std::fs::remove_file(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            std::fs::rename(from, to)
        }

        fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
            files::list(directory)
        }

        fn sync_directory(&self, directory: &Path) -> io::Result<()> {
            files::sync_directory(directory)
        }

        fn space(&self, directory: &Path) -> io::Result<Space> {
            files::space(directory)
        }
    };
}
pub(super) use blocking_methods;
