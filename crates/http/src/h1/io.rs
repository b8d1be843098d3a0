//! One connection's bytes: what has been read and not yet used, what is to be written, and the one deadline.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::payload::{Backing, Payload};
use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::pool;

/// One read takes at most this much: the head of a request and a small body.
const READ_SIZE: usize = 20 << 10;
/// The most pieces in one vectored write.
const MAX_SLICES: usize = 16;
/// A run of a file from this length on is sent from the file. Two calls cost less than the copy then.
const MIN_FROM_FILE: usize = 32 << 10;
/// What the kernel counts in when it sends from a file, and the most pieces of one of its packets.
const PAGE: u64 = 4096;
const MAX_FRAGMENTS: u64 = 17;
/// Stands for a deadline that does not fit the clock.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// What a connection runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// From now on closing it is to look like a failure.
    fn break_off(&self) {}

    /// The socket, where bytes may pass from a file to it as they are.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Transport for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn break_off(&self) {
        // Where this fails the client still misses bytes of the announced length.
        let _ = self.set_zero_linger();
    }
}

/// Why nothing more can be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The client has left, or the connection failed.
    Gone,
    /// It took too long.
    Timeout,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// From the moment on when there is something to wait for.
    In(Duration),
    /// Until then.
    At(Instant),
}

/// This long from now.
pub(super) fn from_now(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + FAR)
}

/// One timer for everything that a connection ever waits for. Moving a timer to a later time is put off until it
/// goes off, so that a busy connection seldom touches the timer wheel.
struct Timer(Pin<Box<Sleep>>);

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }

    /// Waits for `poll`, which says how many bytes were moved.
    async fn wait(
        &mut self,
        until: Until,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Result<usize, Broken> {
        let mut deadline = None;
        poll_fn(|cx| {
            if let Poll::Ready(result) = poll(cx) {
                return Poll::Ready(result.map_err(|_| Broken::Gone));
            }
            let deadline = *deadline.get_or_insert_with(|| match until {
                Until::In(limit) => from_now(limit),
                Until::At(instant) => instant,
            });
            self.poll(cx, deadline).map(|()| Err(Broken::Timeout))
        })
        .await
    }
}

/// Bytes that were read and are not used yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl Input {
    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    pub(super) fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    /// Passes used bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.used = self.used.saturating_add(count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.used = 0;
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool::take();
        }
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// A connection.
pub(super) struct Io<S> {
    pub(super) stream: S,
    pub(super) input: Input,
    /// To be written, up to `out_sent` done already.
    out: Vec<u8>,
    out_sent: usize,
    timer: Timer,
    /// How long a client may take no byte.
    pub(super) write_limit: Duration,
}

impl<S: Transport> Io<S> {
    pub(super) fn new(stream: S, write_limit: Duration) -> Self {
        Self {
            stream,
            input: Input::default(),
            out: Vec::new(),
            out_sent: 0,
            timer: Timer(Box::pin(sleep_until(from_now(write_limit)))),
            write_limit,
        }
    }

    /// Where answers are written to.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = pool::take();
        }
        &mut self.out
    }

    /// Number of bytes that wait to be written.
    pub(super) fn pending(&self) -> usize {
        self.out.len() - self.out_sent
    }

    /// Gives buffers up that hold nothing.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() {
            pool::give(std::mem::take(&mut self.input).bytes);
        }
        if self.out.is_empty() {
            pool::give(std::mem::take(&mut self.out));
        }
    }

    /// Reads what there is behind the input; 0 at the end. Everything written goes out first, since the client may
    /// wait for it.
    pub(super) async fn fill(&mut self, until: Until) -> Result<usize, Broken> {
        self.flush().await?;
        let Self { stream, input, timer, .. } = self;
        timer.wait(until, |cx| poll_fill(stream, input, cx)).await
    }

    /// Reads straight into `into`; 0 at the end. There must be no input left.
    pub(super) async fn read(&mut self, into: &mut [u8], until: Until) -> Result<usize, Broken> {
        self.flush().await?;
        let Self { stream, timer, .. } = self;
        timer
            .wait(until, |cx| {
                let mut buffer = ReadBuf::new(into);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            })
            .await
    }

    /// Writes everything.
    pub(super) async fn flush(&mut self) -> Result<(), Broken> {
        let until = Until::In(self.write_limit);
        let Self { stream, out, out_sent, timer, .. } = self;
        while let Some(rest) = out.get(*out_sent..).filter(|rest| !rest.is_empty()) {
            match timer.wait(until, |cx| Pin::new(&mut *stream).poll_write(cx, rest)).await? {
                0 => return Err(Broken::Gone),
                written => *out_sent += written,
            }
        }
        out.clear();
        *out_sent = 0;
        Ok(())
    }

    /// One write of what is pending and of the payload behind its first `skip` bytes; there must be some. Says how many
    /// bytes of the payload went out.
    pub(super) async fn write(
        &mut self,
        payload: &Payload,
        skip: usize,
        until: Until,
    ) -> Result<usize, Broken> {
        if let Some(run) = payload.file_run(skip).filter(|(_, _, len)| *len >= MIN_FROM_FILE)
            && self.stream.socket().is_some()
        {
            return self.write_from_file(run, until).await;
        }
        let Self { stream, out, out_sent, timer, .. } = self;
        let head = out.get(*out_sent..).unwrap_or_default();
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let used = gather(head, payload, skip, &mut slices);
        let slices = slices.get(..used).unwrap_or_default();
        let written = timer.wait(until, |cx| Pin::new(&mut *stream).poll_write_vectored(cx, slices)).await?;
        if written == 0 {
            return Err(Broken::Gone);
        }
        let of_head = written.min(head.len());
        *out_sent += of_head;
        if *out_sent == out.len() {
            out.clear();
            *out_sent = 0;
        }
        Ok(written - of_head)
    }

    /// One write of what is pending, or one of a run of a file once nothing is.
    async fn write_from_file(&mut self, run: FileRun<'_>, until: Until) -> Result<usize, Broken> {
        let Self { stream, out, out_sent, timer, .. } = self;
        let socket = stream.socket().ok_or(Broken::Gone)?;
        let (backing, within, len) = run;
        let (file, mut offset) = backing.lend(within, len).ok_or(Broken::Gone)?;
        let pages = (offset % PAGE).saturating_add(len as u64).div_ceil(PAGE);
        // Head and pages go out as one where they fit one packet of the kernel's. Where they do not, a head that waited for
        // the pages would leave a rest behind them that costs more than a packet for the head.
        let more = if pages < MAX_FRAGMENTS { SendFlags::MORE } else { SendFlags::empty() };
        while let Some(head) = out.get(*out_sent..).filter(|head| !head.is_empty()) {
            let send_head = || Ok(send(socket, head, more | SendFlags::NOSIGNAL)?);
            *out_sent += timer.wait(until, |cx| poll_socket(socket, cx, send_head)).await?;
        }
        out.clear();
        *out_sent = 0;
        let mut from_file = || Ok(sendfile(socket, file, Some(&mut offset), len)?);
        match timer.wait(until, |cx| poll_socket(socket, cx, &mut from_file)).await? {
            0 => Err(Broken::Gone),
            sent => Ok(sent),
        }
    }

    /// Says that nothing more will be written.
    pub(super) async fn shut_down(&mut self) -> Result<(), Broken> {
        let limit = Until::In(self.write_limit);
        let Self { stream, timer, .. } = self;
        timer.wait(limit, |cx| Pin::new(&mut *stream).poll_shutdown(cx).map_ok(|()| 0)).await.map(|_| ())
    }

    /// The stream and what was read from it.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        let read = Bytes::copy_from_slice(self.input.data());
        (self.stream, read)
    }
}

/// What lends the file, the offset within what it lends, and the length.
type FileRun<'a> = (&'a dyn Backing, usize, usize);

/// Tries a system call until the socket would make it wait.
fn poll_socket(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, &mut call) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Reads through a buffer that all connections of a thread share, so that waiting needs none.
fn poll_fill<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut Input,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    thread_local!(static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into()));
    SHARED.with_borrow_mut(|shared| {
        let mut buffer = ReadBuf::new(shared);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        input.append(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// Lists the runs of bytes to be written and returns how many there are.
fn gather<'a>(head: &'a [u8], payload: &'a Payload, mut skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
    let mut runs = std::iter::once(head)
        .chain(payload.pieces().filter_map(|piece| {
            let passed = skip.min(piece.len());
            skip -= passed;
            piece.get(passed..)
        }))
        .filter(|run| !run.is_empty());
    slices.iter_mut().zip(runs.by_ref()).map(|(slice, run)| *slice = IoSlice::new(run)).count()
}
