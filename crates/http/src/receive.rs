//! A body on its way from its source into the room that the engine gives.

use std::future::Future;

use elcache_engine::{Range, SparseError, Upload, WriteError};

use crate::problem::Problem;
use crate::source::{BodyError, Source};

/// Why nothing was stored.
pub(crate) enum Failed {
    /// The client hears this.
    Problem(Problem),
    /// There is no client any more.
    Gone,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<BodyError> for Failed {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Gone => Self::Gone,
            BodyError::Stalled => Self::Problem(Problem::stalled()),
            BodyError::Malformed(why) => Self::Problem(Problem::bad(why).closing()),
        }
    }
}

/// What takes a body.
pub(crate) trait Sink: Send {
    type Error: Send;

    /// Waits until there is space for another byte.
    fn ready(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Where the next bytes go.
    fn space(&mut self) -> &mut [u8];

    /// Says that the first `count` bytes of the space have been received.
    fn filled(&mut self, count: usize);
}

/// Receives all of a body.
pub(crate) async fn receive<S: Source, K: Sink>(
    body: &mut S,
    sink: &mut K,
    problem: impl Fn(K::Error) -> Problem,
) -> Result<(), Failed> {
    // Waits for room only when another byte is known to come, so that nobody waits for room that nothing needs.
    while body.more().await? {
        sink.ready().await.map_err(&problem)?;
        let count = body.read(sink.space()).await?;
        if count == 0 {
            return Err(Failed::Gone);
        }
        sink.filled(count);
    }
    Ok(())
}

impl Sink for Upload {
    type Error = WriteError;

    fn ready(&mut self) -> impl Future<Output = Result<(), WriteError>> + Send {
        self.ready()
    }

    fn space(&mut self) -> &mut [u8] {
        self.space()
    }

    fn filled(&mut self, count: usize) {
        self.filled(count);
    }
}

impl Sink for Range {
    type Error = SparseError;

    async fn ready(&mut self) -> Result<(), SparseError> {
        self.ready().await?;
        // A body of unknown length may be longer than its range.
        if self.space().is_empty() { Err(WriteError::WrongLength.into()) } else { Ok(()) }
    }

    fn space(&mut self) -> &mut [u8] {
        self.space()
    }

    fn filled(&mut self, count: usize) {
        self.filled(count);
    }
}
