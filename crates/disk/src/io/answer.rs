//! How the end of an operation comes from the thread where it happens to whoever awaits it.

use std::io;

use tokio::sync::oneshot;

use super::{Done, Memory, Pending};

/// The end that the engine holds. What nobody awaits is dropped here.
pub(super) struct Answer(oneshot::Sender<Done>);

/// Both ends.
pub(super) fn answer() -> (Answer, Pending) {
    let (sender, receiver) = oneshot::channel();
    (Answer(sender), Box::pin(async { receiver.await.unwrap_or_else(|_| lost()) }))
}

impl Answer {
    /// Says how it ended, and gives the memory back.
    pub(super) fn give(self, result: io::Result<usize>, memory: Memory) {
        // Nobody awaits it any more: the memory is dropped.
        let _ = self.0.send(Done { result, memory });
    }
}

/// The engine has dropped the operation with its answer, which it does only where a thread of its own panics.
fn lost() -> Done {
    Done { result: Err(io::Error::other("the engine has lost the operation")), memory: Memory::default() }
}
