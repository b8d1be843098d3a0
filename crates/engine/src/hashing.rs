//! Hashing what has been received. Up to 64 KiB it is done where it is; more goes to the blocking threads, so that no
//! network thread stands still for it and the next chunk is received meanwhile.

use elcache_core::payload::{Buffer, Filled};
use elcache_core::tree::ChunkHasher;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

/// The most bytes that are hashed on a network thread.
pub(crate) const INLINE: usize = 64 << 10;

/// A chunk that has been hashed.
pub(crate) struct Hashed {
    pub(crate) data: Filled,
    pub(crate) hasher: ChunkHasher,
    /// The SHA-256 of all chunks so far, where one was asked for.
    pub(crate) sha256: Option<Sha256>,
}

/// A chunk that is being hashed.
pub(crate) enum Job {
    Done(Box<Hashed>),
    Running(JoinHandle<Box<Hashed>>),
}

impl Job {
    /// Hashes a buffer as chunk `number`.
    pub(crate) fn start(number: u64, buffer: Box<dyn Buffer>, sha256: Option<Sha256>) -> Self {
        if buffer.filled() <= INLINE {
            Self::Done(Box::new(hash(number, buffer, sha256)))
        } else {
            Self::Running(tokio::task::spawn_blocking(move || Box::new(hash(number, buffer, sha256))))
        }
    }

    /// Waits for it; `None` when the runtime is going down.
    pub(crate) async fn wait(self) -> Option<Box<Hashed>> {
        match self {
            Self::Done(hashed) => Some(hashed),
            Self::Running(handle) => handle.await.ok(),
        }
    }
}

fn hash(number: u64, buffer: Box<dyn Buffer>, mut sha256: Option<Sha256>) -> Hashed {
    let mut hasher = ChunkHasher::new(number);
    let mut at = 0;
    while !buffer.run(at).is_empty() {
        let run = buffer.run(at);
        hasher.update(run);
        if let Some(sha256) = &mut sha256 {
            sha256.update(run);
        }
        at += run.len();
    }
    let data = Filled::new(buffer, hasher.subtrees());
    Hashed { data, hasher, sha256 }
}

/// Whether a SHA-256 is the one that was asked for; true when none was.
pub(crate) fn agrees(sha256: Option<Sha256>, wanted: Option<[u8; 32]>) -> bool {
    match (sha256, wanted) {
        (Some(sha256), Some(wanted)) => sha256.finalize()[..] == wanted,
        (_, wanted) => wanted.is_none(),
    }
}
