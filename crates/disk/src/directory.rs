//! A directory in use: whose it is, and that nobody else uses it.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{FlockOperation, flock};

use crate::format::Seeds;
use crate::format::identity::{Identity, Unusable};
use crate::io::{Action, BLOCK, Device, File, Gate, Memory, Open, Operation, Part, transfer};

pub(crate) const IDENTITY: &str = "IDENTITY";
const IDENTITY_NEW: &str = "IDENTITY.new";
const LOCK: &str = "LOCK";
pub(crate) const SEGMENTS: &str = "segments";

/// Why a directory is not used. It is left as it is.
#[derive(Debug)]
pub enum DirectoryError {
    /// Another process uses it.
    Locked,
    /// It is of another version of the format.
    Version(u32),
    /// Its `IDENTITY` does not verify.
    Damaged,
    /// It has segments and no `IDENTITY`.
    Orphaned,
    /// It belongs to another node than this one does.
    Foreign(PathBuf),
    /// It is a copy of this one.
    Copy(PathBuf),
    /// It is not the directory that was there before.
    Other,
    /// Something could not be done with it.
    Io(&'static str, io::Error),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another process uses it (its LOCK is taken)"),
            Self::Version(version) => write!(
                f,
                "it was written in version {version} of the format, and this program knows version {}; use the program \
                 that wrote it, or another directory",
                crate::format::FORMAT_VERSION
            ),
            Self::Damaged => {
                f.write_str("its IDENTITY is damaged; restore it, or move the directory away to begin anew")
            }
            Self::Orphaned => f.write_str(
                "it has segments and no IDENTITY; restore it, or move the directory away to begin anew",
            ),
            Self::Foreign(other) => write!(
                f,
                "it belongs to another node than {}; use the directories of one node, or move it away to begin anew",
                other.display()
            ),
            Self::Copy(other) => {
                write!(f, "it is a copy of {}; use one of the two, and an empty directory", other.display())
            }
            Self::Other => f.write_str(
                "another directory is in its place; put back what was there, or start the node again",
            ),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for DirectoryError {}

/// A lock that lasts as long as this, or the process.
pub struct Lock {
    _file: std::fs::File,
}

impl Lock {
    /// Whether this is the lock of what is at this path now.
    fn is_of(&self, path: &Path) -> bool {
        let here = std::fs::metadata(path.join(LOCK));
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        matches!((self._file.metadata(), here), (Ok(held), Ok(here)) if same(&held, &here))
    }
}

/// Takes a directory again, of which something may have been taken away meanwhile. One that is gone is not made: what belongs
/// there may not be mounted. Blocks.
pub(crate) fn lock_again(path: &Path, held: Option<Arc<Lock>>) -> Result<Arc<Lock>, DirectoryError> {
    let is_there = std::fs::metadata(path).map_err(|error| DirectoryError::Io("it is not there", error))?;
    if !is_there.is_dir() {
        return Err(DirectoryError::Io("it is not a directory", io::ErrorKind::NotADirectory.into()));
    }
    let held = held.filter(|held| held.is_of(path) && path.join(SEGMENTS).is_dir());
    held.map_or_else(|| lock(path).map(Arc::new), Ok)
}

/// Makes a directory, where it is missing, and takes it for this process. Blocks.
pub fn lock(path: &Path) -> Result<Lock, DirectoryError> {
    let io = |what| move |error| DirectoryError::Io(what, error);
    std::fs::create_dir_all(path.join(SEGMENTS)).map_err(io("it cannot be made"))?;
    let mut open = std::fs::OpenOptions::new();
    let file = open.create(true).truncate(false).read(true).write(true).open(path.join(LOCK));
    let file = file.map_err(io("its LOCK cannot be opened"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DirectoryError::Locked),
        Err(error) => Err(DirectoryError::Io("its LOCK cannot be taken", error.into())),
    }
}

/// A directory and what is known of it.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// As it was when the directory was opened.
    pub(crate) identity: Identity,
    /// The epoch that it takes part in now.
    pub(crate) epoch: AtomicU64,
    pub(crate) seeds: Seeds,
}

/// A device, and the gate that it is behind.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) gate: Arc<Gate>,
}

impl Reach {
    /// Does something that blocks.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Device) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let device = Arc::clone(&self.device);
        self.gate
            .blocking(move || work(&*device))
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the node stops")))
    }
}

/// Sixteen random bytes.
pub(crate) fn random_id(random: &mut dyn FnMut() -> u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random().to_le_bytes());
    id[8..].copy_from_slice(&random().to_le_bytes());
    id
}

impl Directory {
    /// Reads whose directory it is, or makes it this node's.
    pub(crate) async fn open(
        reach: &Reach,
        path: PathBuf,
        node_name: &str,
        now_ms: u64,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Self, DirectoryError> {
        if let Some(identity) = read_identity(reach, &path).await? {
            return Ok(Self::new(path, identity));
        }
        let id = random_id(random);
        let identity = Identity {
            directory: id,
            node: random_id(random),
            epoch: 1,
            secret: random_id(random),
            created_ms: now_ms,
            node_name: node_name.to_owned(),
            siblings: vec![id],
        };
        let written = write_identity(reach, &path, &identity).await;
        written.map_err(|error| DirectoryError::Io("its IDENTITY cannot be written", error))?;
        Ok(Self::new(path, identity))
    }

    /// The directory that has this identity.
    pub(crate) fn new(path: PathBuf, identity: Identity) -> Self {
        Self { seeds: Seeds::new(identity.secret), path, epoch: AtomicU64::new(identity.epoch), identity }
    }

    /// Where the segments are.
    pub(crate) fn segments(&self) -> PathBuf {
        self.path.join(SEGMENTS)
    }

    /// The path of a segment's log.
    pub(crate) fn log(&self, segment: u32) -> PathBuf {
        self.segments().join(format!("{segment:08x}.log"))
    }

    /// The path of a segment's data file.
    pub(crate) fn data(&self, segment: u32) -> PathBuf {
        self.segments().join(format!("{segment:08x}.data"))
    }
}

/// The segment whose file this is, and whether it is the log.
pub(crate) fn parse_name(name: &str) -> Option<(u32, bool)> {
    let (number, kind) = name.split_once('.')?;
    let log = match kind {
        "log" => true,
        "data" => false,
        _ => return None,
    };
    let plain = number.len() == 8 && number.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    u32::from_str_radix(number, 16).ok().filter(|_| plain).map(|number| (number, log))
}

/// Whose directory it is; `None` for one that is new.
pub(crate) async fn read_identity(reach: &Reach, path: &Path) -> Result<Option<Identity>, DirectoryError> {
    let io = |what| move |error| DirectoryError::Io(what, error);
    let (here, segments) = (path.to_owned(), path.join(SEGMENTS));
    let entries = reach.blocking(move |device| device.list(&here)).await.map_err(io("it cannot be read"))?;
    if entries.iter().any(|entry| entry.name == IDENTITY) {
        let bytes = read_file(reach, path.join(IDENTITY)).await.map_err(io("its IDENTITY cannot be read"))?;
        let identity = Identity::decode(&bytes).map_err(|unusable| match unusable {
            Unusable::Version(version) => DirectoryError::Version(version),
            Unusable::Damaged => DirectoryError::Damaged,
        });
        return identity.map(Some);
    }
    let segments = reach.blocking(move |device| device.list(&segments)).await;
    if !segments.map_err(io("its segments cannot be listed"))?.is_empty() {
        return Err(DirectoryError::Orphaned);
    }
    Ok(None)
}

/// Makes a directory the one that has this identity, for good.
pub(crate) async fn write_identity(reach: &Reach, path: &Path, identity: &Identity) -> io::Result<()> {
    let (new, named, path) = (path.join(IDENTITY_NEW), path.join(IDENTITY), path.to_owned());
    write_file(reach, new.clone(), &identity.encode()).await?;
    let renamed = reach.blocking(move |device| {
        device.rename(&new, &named)?;
        device.sync_directory(&path)
    });
    renamed.await
}

/// Makes a file anew, writes and syncs it.
pub(crate) async fn write_file(reach: &Reach, path: PathBuf, bytes: &[u8]) -> io::Result<()> {
    let file = reach.blocking(move |device| {
        match device.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        device.open(&path, Open { create: true, direct: false })
    });
    let (file, device) = (file.await?, &*reach.device);
    let mut blocks = device.blocks(bytes.len());
    blocks[..bytes.len()].copy_from_slice(bytes);
    perform(device, &file, Action::Write, 0, Memory::of(Part::Blocks(blocks))).await?;
    perform(device, &file, Action::Sync, 0, Memory::default()).await.map(|_| ())
}

/// A small file as a whole.
pub(crate) async fn read_file(reach: &Reach, path: PathBuf) -> io::Result<Vec<u8>> {
    let file =
        reach.blocking(move |device| device.open(&path, Open { create: false, direct: false })).await?;
    let memory = Memory::of(Part::Blocks(reach.device.blocks(2 * BLOCK)));
    let (count, memory) = perform(&*reach.device, &file, Action::Read, 0, memory).await?;
    match memory.parts.into_iter().next() {
        Some(Part::Blocks(blocks)) => Ok(blocks.get(..count).unwrap_or_default().to_vec()),
        _ => Ok(Vec::new()),
    }
}

/// An operation, as far as it goes: how much was transferred, and the memory.
pub(crate) async fn perform(
    device: &dyn Device,
    file: &Arc<File>,
    action: Action,
    offset: u64,
    memory: Memory,
) -> io::Result<(usize, Memory)> {
    let operation = Operation { file: Arc::clone(file), action, offset, memory, done: 0, ticket: None };
    let done = transfer(device, operation).await;
    done.result.map(|count| (count, done.memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_segments_are_names_of_segments() {
        assert_eq!(parse_name("0000002a.log"), Some((42, true)));
        assert_eq!(parse_name("ffffffff.data"), Some((u32::MAX, false)));
        for other in ["2a.log", "0000002A.log", "+000002a.log", "0000002a.txt", "0000002a", "", "IDENTITY"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_directory_is_locked_by_one_process_at_a_time() {
        let path = std::env::temp_dir().join(format!("elcache-lock-{}", std::process::id()));
        let held = lock(&path).unwrap();
        assert!(matches!(lock(&path), Err(DirectoryError::Locked)));
        drop(held);
        assert!(lock(&path).is_ok());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
