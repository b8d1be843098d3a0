//! A directory in use: whose it is, and that nobody else uses it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};

use crate::format::Seeds;
use crate::format::identity::{Identity, Unusable};
use crate::io::{Action, BLOCK, Device, File, Memory, Open, Operation, Part, transfer};

const IDENTITY: &str = "IDENTITY";
const IDENTITY_NEW: &str = "IDENTITY.new";
const LOCK: &str = "LOCK";
const SEGMENTS: &str = "segments";

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
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for DirectoryError {}

/// A lock that lasts as long as this, or the process.
pub struct Lock {
    _file: std::fs::File,
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
    pub(crate) identity: Identity,
    pub(crate) seeds: Seeds,
}

/// Sixteen random bytes.
fn random_id(random: &mut dyn FnMut() -> u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random().to_le_bytes());
    id[8..].copy_from_slice(&random().to_le_bytes());
    id
}

impl Directory {
    /// Reads whose directory it is, or makes it this node's.
    pub(crate) async fn open(
        device: &Arc<dyn Device>,
        path: PathBuf,
        node_name: &str,
        now_ms: u64,
        random: &mut dyn FnMut() -> u64,
    ) -> Result<Self, DirectoryError> {
        let io = |what| move |error| DirectoryError::Io(what, error);
        let entries = device.list(&path).map_err(io("it cannot be read"))?;
        let identity = if entries.iter().any(|entry| entry.name == IDENTITY) {
            let bytes =
                read_file(device, &path.join(IDENTITY)).await.map_err(io("its IDENTITY cannot be read"))?;
            Identity::decode(&bytes).map_err(|unusable| match unusable {
                Unusable::Version(version) => DirectoryError::Version(version),
                Unusable::Damaged => DirectoryError::Damaged,
            })?
        } else {
            let segments = device.list(&path.join(SEGMENTS)).map_err(io("its segments cannot be listed"))?;
            if !segments.is_empty() {
                return Err(DirectoryError::Orphaned);
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
            write_identity(device, &path, &identity).await.map_err(io("its IDENTITY cannot be written"))?;
            identity
        };
        Ok(Self { seeds: Seeds::new(identity.secret), path, identity })
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

async fn write_identity(device: &Arc<dyn Device>, path: &Path, identity: &Identity) -> io::Result<()> {
    let new = path.join(IDENTITY_NEW);
    match device.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = device.open(&new, Open { create: true, direct: false })?;
    let bytes = identity.encode();
    let mut blocks = device.blocks(bytes.len());
    blocks[..bytes.len()].copy_from_slice(&bytes);
    perform(&**device, &file, Action::Write, 0, Memory::of(Part::Blocks(blocks))).await?;
    perform(&**device, &file, Action::Sync, 0, Memory::default()).await?;
    device.rename(&new, &path.join(IDENTITY))?;
    device.sync_directory(path)
}

/// A small file as a whole.
async fn read_file(device: &Arc<dyn Device>, path: &Path) -> io::Result<Vec<u8>> {
    let file = device.open(path, Open { create: false, direct: false })?;
    let memory = Memory::of(Part::Blocks(device.blocks(2 * BLOCK)));
    let (count, memory) = perform(&**device, &file, Action::Read, 0, memory).await?;
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
    let operation = Operation { file: Arc::clone(file), action, offset, memory, done: 0 };
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
