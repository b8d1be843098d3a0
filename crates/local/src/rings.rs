//! A session's rings as a pipe. The socket that the session was made over wakes both sides, and its end is the client's.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use elcache_core::clock::Clock;
use tokio::net::UnixStream;

use crate::memory::Session;
use crate::pipe::Pipe;
use crate::ring::{Broken, Cell, Ring, about_to_wait, has_to_be_woken};

/// How long to look for what is to come before sleeping. Falling asleep and being woken costs about as much.
const SPIN: Duration = Duration::from_micros(20);
/// Looks between two turns of other tasks.
const LOOKS: usize = 64;

/// Who may look instead of sleeping: as many at once as there are processors besides one, since the clients need some as well.
pub(crate) struct Spinning {
    most: usize,
    now: AtomicUsize,
}

impl Spinning {
    pub(crate) fn new(processors: usize) -> Arc<Self> {
        Arc::new(Self { most: processors.saturating_sub(1), now: AtomicUsize::new(0) })
    }

    fn begin(self: &Arc<Self>, until: Duration) -> Option<Spin> {
        let one_more = |now: usize| now.checked_add(1).filter(|now| *now <= self.most);
        let began = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        began.is_ok().then(|| Spin { among: Arc::clone(self), until })
    }
}

/// One who looks, until then.
struct Spin {
    among: Arc<Spinning>,
    until: Duration,
}

impl Drop for Spin {
    fn drop(&mut self) {
        self.among.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Both rings of a client.
pub(crate) struct Rings {
    session: Arc<Session>,
    socket: Arc<UnixStream>,
    requests: Ring,
    answers: Ring,
    spinning: Arc<Spinning>,
    spin: Option<Spin>,
    /// There is nothing to look for before something has come or gone.
    has_spun: bool,
    clock: Arc<dyn Clock>,
}

impl Rings {
    pub(crate) fn new(
        session: Arc<Session>,
        socket: Arc<UnixStream>,
        spinning: Arc<Spinning>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let capacity = session.capacity();
        let (requests, answers) = (Ring::requests(capacity), Ring::answers(capacity));
        Self { session, socket, requests, answers, spinning, spin: None, has_spun: false, clock }
    }

    /// Does `attempt` until it has done something: at once, after a short while, or when the client has woken us.
    fn poll_until_done(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Self) -> Result<usize, Broken>,
    ) -> Poll<io::Result<usize>> {
        let looks = if self.may_spin() { LOOKS } else { 1 };
        for _ in 0..looks {
            let attempted = attempt(self);
            if let Some(count) = self.done(attempted)? {
                return Poll::Ready(Ok(count));
            }
            std::hint::spin_loop();
        }
        if self.spin.is_some() {
            // Another turn soon, when the others have had theirs.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            about_to_wait(&*self.session, Cell::ServerWaits);
            let attempted = attempt(self);
            if let Some(count) = self.done(attempted)? {
                return Poll::Ready(Ok(count));
            }
            if !ready!(self.poll_heard(cx))? {
                // What it sent before it ended is still to be read.
                let last = attempt(self);
                return Poll::Ready(Ok(self.done(last)?.unwrap_or(0)));
            }
        }
    }

    /// What an attempt came to; `None` when it did nothing.
    fn done(&mut self, attempt: Result<usize, Broken>) -> io::Result<Option<usize>> {
        let count = attempt.map_err(|Broken| broken())?;
        if count == 0 {
            return Ok(None);
        }
        (self.spin, self.has_spun) = (None, false);
        if has_to_be_woken(&*self.session, Cell::ClientWaits) {
            // A socket that is full of such bytes wakes the client as well, and one that has ended is seen by whoever reads.
            let _ = self.socket.try_write(&[0]);
        }
        Ok(Some(count))
    }

    fn may_spin(&mut self) -> bool {
        if self.has_spun {
            return false;
        }
        let now = self.clock.elapsed();
        match &self.spin {
            Some(spin) if now < spin.until => return true,
            Some(_) => {}
            None => self.spin = self.spinning.begin(now.saturating_add(SPIN)),
        }
        self.has_spun = self.spin.as_ref().is_none_or(|spin| now >= spin.until);
        if self.has_spun {
            self.spin = None;
        }
        !self.has_spun
    }

    /// Waits until the client says something, and takes some of what it has said; false when it has ended. One that never stops saying
    /// something is cut short by the runtime, which counts how often a task has found a socket ready.
    fn poll_heard(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        ready!(self.socket.poll_read_ready(cx))?;
        let mut bytes = [0; 256];
        Poll::Ready(match self.socket.try_read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(count) if bytes.iter().take(count).all(|byte| *byte == 0) => Ok(true),
            Ok(_) => Err(broken()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        })
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the client has broken its session")
}

impl Pipe for Rings {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_until_done(cx, |rings| rings.requests.read(&*rings.session, into))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_until_done(cx, |rings| {
            let mut total = 0_usize;
            for slice in slices {
                let count = rings.answers.write(&*rings.session, slice)?;
                total = total.saturating_add(count);
                if count < slice.len() {
                    break;
                }
            }
            Ok(total)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use elcache_core::budget::Budget;
    use elcache_core::clock::SystemClock;

    use super::*;
    use crate::memory::{RING_MIN, session_len};

    /// Such a flood once kept a thread of the node for as long as it lasted.
    #[tokio::test]
    async fn a_client_that_floods_the_socket_holds_up_nobody() {
        const FLOOD: usize = 100 << 10;
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_nonblocking(true).unwrap();
        let socket = Arc::new(UnixStream::from_std(ours).unwrap());
        let budget = Budget::new(1 << 20);
        let room = budget.take(session_len(RING_MIN)).unwrap();
        let session = Arc::new(Session::new(RING_MIN, room).unwrap());
        let mut rings = Rings::new(session, socket, Spinning::new(1), Arc::new(SystemClock));
        assert_eq!(theirs.write(&[0; FLOOD]).unwrap(), FLOOD);
        let mut turns = 0;
        while tokio::time::timeout(Duration::ZERO, rings.socket.readable()).await.is_ok() {
            let read = std::future::poll_fn(|cx| Poll::Ready(rings.poll_read(cx, &mut [0; 8]))).await;
            assert!(read.is_pending());
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns > 2, "{turns}");
    }
}
