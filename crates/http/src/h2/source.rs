//! The body of a request that comes in frames.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;

use super::Connection;
use crate::patience::within;
use crate::source::{BodyError, Source};
use crate::text::parse_decimal;

/// So much of a body that nobody wants is read all the same, and for so long.
const UNWANTED: usize = 256 << 10;
const UNWANTED_FOR: Duration = Duration::from_secs(5);

/// A body that is being read. That it is as long as announced, h2 sees to.
pub(super) struct Incomings {
    incoming: Incoming,
    frame: Bytes,
    length: Option<u64>,
    whole: Vec<u8>,
    stall: Duration,
    connection: Arc<Connection>,
}

impl Incomings {
    pub(super) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        stall: Duration,
        connection: Arc<Connection>,
    ) -> Self {
        let announced = headers.get(http::header::CONTENT_LENGTH);
        let length = match announced.and_then(|value| parse_decimal(value.as_bytes()).ok()) {
            Some(length) => Some(length),
            None if incoming.is_end_stream() => Some(0),
            None => None,
        };
        Self { incoming, frame: Bytes::new(), length, whole: Vec::new(), stall, connection }
    }

    /// Reads what is left after the answer, if that is little. A stream is reset when its body is dropped unread, and some
    /// clients (curl 7.88) forget the answer then, which RFC 9113 section 8.1 forbids.
    pub(super) async fn drain(mut self) {
        let rest = async {
            let mut seen = 0_usize;
            while seen <= UNWANTED && matches!(self.more().await, Ok(true)) {
                seen = seen.saturating_add(std::mem::take(&mut self.frame).len());
            }
        };
        // Either way it is dropped, which tells the client to stop.
        let _ = tokio::time::timeout(UNWANTED_FOR, rest).await;
    }

    /// Whether there may be a body.
    pub(super) fn may_send(&self) -> bool {
        !self.incoming.is_end_stream()
    }
}

impl Source for Incomings {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn whole(&mut self, length: usize) -> Result<&[u8], BodyError> {
        while self.whole.len() < length {
            if !self.more().await? {
                return Err(BodyError::Gone);
            }
            let count = self.frame.len().min(length - self.whole.len());
            self.whole.extend_from_slice(self.frame.get(..count).unwrap_or_default());
            self.frame.advance(count);
        }
        Ok(&self.whole)
    }

    async fn more(&mut self) -> Result<bool, BodyError> {
        while self.frame.is_empty() {
            let frame = poll_fn(|cx| Pin::new(&mut self.incoming).poll_frame(cx));
            match within(self.stall, pin!(frame)).await {
                None => return Err(BodyError::Stalled),
                Some(None) => return Ok(false),
                Some(Some(Err(_))) => return Err(BodyError::Gone),
                Some(Some(Ok(frame))) => self.frame = frame.into_data().unwrap_or_default(),
            }
            self.connection.moved();
        }
        Ok(true)
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        if !self.more().await? {
            return Ok(0);
        }
        let count = self.frame.len().min(into.len());
        into.iter_mut().zip(&self.frame).for_each(|(to, from)| *to = *from);
        self.frame.advance(count);
        Ok(count)
    }
}
