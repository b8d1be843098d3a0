//! Operations carried on until they are whole.

use std::io;
use std::sync::Arc;

use super::{Action, BLOCK, Device, Done, File, Operation};

/// How often in a row an operation is begun again that a signal or a lack of memory has ended, or that got no further.
const RETRIES_MAX: u32 = 16;

/// Performs an operation, again and again where only a part of it is done, until it is whole or the file has ended. The
/// result counts bytes transferred here, `done` of the operation not included.
///
/// # Errors
/// [`io::ErrorKind::WriteZero`] where nothing more is written. The memory may be transferred in part on every error.
pub async fn transfer(device: &dyn Device, operation: Operation) -> Done {
    let Operation { file, action, offset, mut memory, done, .. } = operation;
    let len = if action == Action::Sync { 0 } else { memory.len() };
    let mut reached = done;
    let mut retries = 0;
    loop {
        let from = resume(&file, reached, done);
        let part = Operation { file: Arc::clone(&file), action, offset, memory, done: from, ticket: None };
        let answer = device.submit(part).await;
        memory = answer.memory;
        match answer.result {
            Ok(count) if from + count > reached => {
                reached = from + count;
                retries = 0;
            }
            // A part of a block was transferred again, and less of it.
            Ok(count)
                if retries < RETRIES_MAX && 0 < count && !is_end(action, from + count, reached, len) =>
            {
                retries += 1;
            }
            Ok(_) if reached < len && action == Action::Write => {
                return Done { result: Err(io::ErrorKind::WriteZero.into()), memory };
            }
            Ok(_) => return Done { result: Ok(reached - done), memory },
            Err(error) if retries < RETRIES_MAX && is_passing(&error) => {
                retries += 1;
                tokio::task::yield_now().await;
            }
            Err(error) => return Done { result: Err(error), memory },
        }
        if reached >= len {
            return Done { result: Ok(reached - done), memory };
        }
    }
}

/// Where to go on: direct I/O begins on a block, so that a part of one is transferred again.
fn resume(file: &File, reached: usize, done: usize) -> usize {
    if file.direct { (reached / BLOCK * BLOCK).max(done) } else { reached }
}

/// Whether nothing more will come: what is read ends twice at the same place only at the end of the file.
fn is_end(action: Action, at: usize, reached: usize, len: usize) -> bool {
    reached >= len || (action == Action::Read && at == reached)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
