//! The body of an answer in frames.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::budget::Taken;
use elcache_core::span::Span;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::Connection;
use crate::patience::within;
use crate::response::{self, copy_span};
use crate::stream::Stream;

/// Bytes of a value handed over at a time. They are copied: what is handed over may wait for the client as long as
/// it likes, and must not hold memory of the cache meanwhile.
pub(super) const CHUNK: usize = 64 << 10;

/// A body on its way out.
pub(super) enum Body {
    Text(Bytes),
    Stream(Box<Streaming>),
}

/// A body that is read as it goes out.
pub(super) struct Streaming {
    slot: Arc<Slot>,
    /// The next bytes, while they are waited for.
    next: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
    limit: Duration,
    connection: Arc<Connection>,
    /// What is handed over counts in the memory budget.
    _taken: Taken,
}

/// Where a stream lies while nobody reads from it.
pub(super) struct Slot {
    stream: Mutex<Option<Box<Stream>>>,
    /// Set whenever it was read from.
    is_fresh: AtomicBool,
}

/// The stream again, unless it has ended, and the next bytes.
type Step = io::Result<Option<(Box<Stream>, Bytes)>>;

impl Slot {
    /// Has the stream let go of the cache's memory when nobody has read from it since the last call.
    pub(super) fn sweep(&self) {
        if !self.is_fresh.swap(false, Ordering::Relaxed)
            && let Some(stream) = &mut *self.stream.lock()
        {
            stream.let_go();
        }
    }
}

impl Body {
    /// `None` when the memory budget has no room for it.
    pub(super) fn new(connection: &Arc<Connection>, body: response::Body, limit: Duration) -> Option<Self> {
        let response::Body::Stream(stream) = body else { return Some(Self::of(body)) };
        let taken = connection.app.engine.budget().take(CHUNK as u64)?;
        let slot = Arc::new(Slot { stream: Mutex::new(Some(stream)), is_fresh: AtomicBool::new(true) });
        connection.watch(&slot);
        let connection = Arc::clone(connection);
        Some(Self::Stream(Box::new(Streaming { slot, next: None, limit, connection, _taken: taken })))
    }

    /// A body that is here in full; a stream counts as none.
    pub(super) fn of(body: response::Body) -> Self {
        match body {
            response::Body::None | response::Body::Stream(_) => Self::Text(Bytes::new()),
            response::Body::Text(text) => Self::Text(text.into()),
            response::Body::Small(value, span) => {
                let mut bytes = Vec::new();
                if let Some(payload) = value.inline() {
                    copy_span(payload, span, &mut bytes);
                }
                Self::Text(bytes.into())
            }
        }
    }
}

async fn step(mut stream: Box<Stream>, limit: Duration) -> Step {
    let payload = match within(limit, pin!(stream.next())).await {
        Some(Ok(Some(payload))) => payload,
        Some(Ok(None)) => return Ok(None),
        // hyper turns this into a reset of the stream, which never looks like its end.
        Some(Err(_)) | None => return Err(io::Error::other("the value is no longer whole")),
    };
    let span = Span::whole(payload.len().min(CHUNK) as u64);
    let mut bytes = Vec::with_capacity(payload.len().min(CHUNK));
    copy_span(&payload, span, &mut bytes);
    stream.advance(bytes.len());
    Ok(Some((stream, bytes.into())))
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Text(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Text(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(streaming) => streaming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(bytes) => bytes.is_empty(),
            // Only the stream knows, and only when it is asked.
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.next.is_none() {
            let Some(stream) = self.slot.stream.lock().take() else { return Poll::Ready(None) };
            self.next = Some(Box::pin(step(stream, self.limit)));
        }
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let step = ready!(next.as_mut().poll(cx));
        self.next = None;
        self.connection.moved();
        Poll::Ready(match step {
            Ok(Some((stream, bytes))) => {
                self.slot.is_fresh.store(true, Ordering::Relaxed);
                *self.slot.stream.lock() = Some(stream);
                Some(Ok(Frame::data(bytes)))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        })
    }
}
