//! Where the socket is, and who may connect to it.
//!
//! Anybody who may connect reads whatever is cached, so the file's mode is in force before the first connection can be made: it is
//! set while the socket is bound and does not listen yet. Nothing but a socket that nobody serves is ever replaced.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{error, fmt};

use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::{sleep, timeout};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 1024;
/// Owner and group.
const MODE: u32 = 0o660;
/// Of a directory that is made for the socket: others may look for it, the socket's own mode decides.
const DIRECTORY_MODE: u32 = 0o755;
/// How long to wait for another node that is looking at the same directory.
const TURN: Duration = Duration::from_secs(1);
const TURN_ROUND: Duration = Duration::from_millis(10);

/// Why a socket cannot be had.
#[derive(Debug)]
pub enum BindError {
    /// A program serves it.
    Served,
    /// Something else is there.
    NotASocket,
    /// The system refused this.
    System(&'static str, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => f.write_str("another program serves it; choose another path with --unix"),
            Self::NotASocket => f.write_str(
                "there is something else than a socket, which is left alone; choose another path with --unix",
            ),
            Self::System(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl error::Error for BindError {}

/// A socket that listens. Its file is gone when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct Bound {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl Bound {
    /// Opens a socket there. Must be called within a runtime.
    pub async fn open(path: &Path) -> Result<Self, BindError> {
        let system = |what| move |error| BindError::System(what, error);
        let _turn = take_turn(path).await?;
        clear(path).await?;
        let socket = UnixSocket::new_stream().map_err(system("no socket can be made"))?;
        socket.bind(path).map_err(system("the socket cannot be bound"))?;
        let opened = fs::set_permissions(path, Permissions::from_mode(MODE)).and_then(|()| {
            let file = identity(path)?;
            Ok(Self { listener: socket.listen(BACKLOG)?, path: path.to_owned(), file })
        });
        opened.map_err(|error| {
            let _ = fs::remove_file(path);
            BindError::System("the socket cannot be opened", error)
        })
    }

    /// The same, in a directory that is made if it is not there.
    pub async fn open_with_directory(path: &Path) -> Result<Self, BindError> {
        if let Some(directory) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
            made.map_err(|error| BindError::System("its directory cannot be made", error))?;
        }
        Self::open(path).await
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Two nodes that look at the same stale socket must not take each other's new one for it: one at a time, by a lock on the directory.
async fn take_turn(path: &Path) -> Result<File, BindError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let opened =
        File::open(directory).map_err(|error| BindError::System("its directory cannot be read", error))?;
    let taken = async {
        while flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err() {
            sleep(TURN_ROUND).await;
        }
    };
    let busy =
        |_| BindError::System("its directory is locked by another program", io::ErrorKind::TimedOut.into());
    timeout(TURN, taken).await.map_err(busy)?;
    Ok(opened)
}

/// Removes a socket that nobody serves.
async fn clear(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BindError::System("it cannot be looked at", error)),
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| BindError::System("the old socket cannot be removed", error)),
        // Somebody listens whose queue may be full.
        Ok(_) => Err(BindError::Served),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Served),
        Err(error) => Err(BindError::System("it is not known whether another program serves it", error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as Silent;

    use elcache_tests::scratch::Scratch;

    use super::*;

    #[tokio::test]
    async fn one_of_many_that_find_a_stale_socket_gets_it() {
        for _ in 0..20 {
            let scratch = Scratch::new();
            let path = scratch.path().join("s");
            drop(Silent::bind(&path).unwrap());
            let mut opening = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let path = path.clone();
                opening.spawn(async move { Bound::open(&path).await });
            }
            let opened = opening.join_all().await;
            assert_eq!(opened.iter().filter(|bound| bound.is_ok()).count(), 1);
            let refused = opened.iter().filter(|bound| matches!(bound, Err(BindError::Served))).count();
            assert_eq!(refused, 7, "{opened:?}");
            UnixStream::connect(&path).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_file_of_another_that_took_its_place_stays() {
        let scratch = Scratch::new();
        let path = scratch.path().join("s");
        let first = Bound::open(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = Bound::open(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn who_holds_the_directory_is_not_waited_for_long() {
        let scratch = Scratch::new();
        let held = File::open(scratch.path()).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        let opened = Bound::open(&scratch.path().join("s")).await;
        assert!(matches!(opened, Err(BindError::System(..))), "{opened:?}");
        drop(held);
        Bound::open_with_directory(&scratch.path().join("deeper/s")).await.unwrap();
        assert_eq!(fs::metadata(scratch.path().join("deeper")).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
