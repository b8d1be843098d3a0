//! The memory of an operation as runs of bytes, for system calls that take several.

use std::io::{self, IoSlice, IoSliceMut};

use super::{Action, Memory, Part};

/// As many runs as one system call takes (`UIO_MAXIOV`).
const RUNS_MAX: usize = 1024;

impl Memory {
    /// Of one part.
    pub fn of(part: Part) -> Self {
        Self { parts: vec![part] }
    }

    /// How many bytes there are to transfer.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs to be read into, the first `done` bytes left out and no more than a call takes; an error where a part is
    /// only to be written from.
    pub(super) fn runs_to_fill(&mut self, done: usize) -> io::Result<Vec<IoSliceMut<'_>>> {
        let mut runs = Vec::new();
        for part in &mut self.parts {
            match part {
                Part::Blocks(blocks) => runs.push(&mut blocks[..]),
                Part::Buffer(buffer) => runs.extend(buffer.spaces()),
                Part::Payload(_) => return Err(misused(Action::Read)),
            }
        }
        let mut skip = done;
        let rest = runs.into_iter().map(|run| {
            let skipped = skip.min(run.len());
            skip -= skipped;
            &mut run[skipped..]
        });
        Ok(rest.filter(|run| !run.is_empty()).take(RUNS_MAX).map(IoSliceMut::new).collect())
    }

    /// The runs to be written from; an error where a part is only to be read into.
    pub(super) fn runs_to_write(&self, done: usize) -> io::Result<Vec<IoSlice<'_>>> {
        let mut runs: Vec<&[u8]> = Vec::new();
        for part in &self.parts {
            match part {
                Part::Blocks(blocks) => runs.push(blocks),
                Part::Payload(payload) => runs.extend(payload.pieces().map(|piece| &piece[..])),
                Part::Buffer(_) => return Err(misused(Action::Write)),
            }
        }
        let mut skip = done;
        let rest = runs.into_iter().map(|run| {
            let skipped = skip.min(run.len());
            skip -= skipped;
            &run[skipped..]
        });
        Ok(rest.filter(|run| !run.is_empty()).take(RUNS_MAX).map(IoSlice::new).collect())
    }
}

impl Part {
    /// How many bytes there are to transfer: of a buffer, the room that is left.
    pub fn len(&self) -> usize {
        match self {
            Self::Blocks(blocks) => blocks.len(),
            Self::Buffer(buffer) => buffer.capacity() - buffer.filled(),
            Self::Payload(payload) => payload.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn misused(action: Action) -> io::Error {
    let what = if action == Action::Read { "a payload is written from" } else { "a buffer is read into" };
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
