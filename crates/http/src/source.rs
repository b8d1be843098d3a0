//! Where the body of a request comes from, whatever protocol it came over.

use std::future::Future;

/// Why a body does not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client has left. There is nobody to answer.
    Gone,
    /// No byte for longer than the limit.
    Stalled,
    /// Its framing is wrong, like this.
    Malformed(&'static str),
}

/// A request's body. The first call that needs bytes from the client is what it is told to go ahead by, if it asked
/// for that.
pub(crate) trait Source: Send {
    /// Its length, if that was announced.
    fn length(&self) -> Option<u64>;

    /// All of a body of announced length, which the caller has found to be small.
    fn whole(&mut self, length: usize) -> impl Future<Output = Result<&[u8], BodyError>> + Send;

    /// Whether there is another byte; waits until that is known.
    fn more(&mut self) -> impl Future<Output = Result<bool, BodyError>> + Send;

    /// Fills the beginning of `into`, which is not empty, and says how much of it; 0 at the end.
    fn read(&mut self, into: &mut [u8]) -> impl Future<Output = Result<usize, BodyError>> + Send;
}
