//! Answers on their way out.

use std::pin::pin;
use std::time::Duration;

use elcache_core::payload::Payload;
use elcache_core::span::Span;

use super::io::{Broken, Transport, Until};
use super::{Connection, End, pool};
use crate::date;
use crate::patience::within;
use crate::response::{Body, Response, copy_span, reason};
use crate::stream::Stream;
use crate::text;

/// What is said about the connection.
pub(super) const NOTHING: &[u8] = b"";
pub(super) const CLOSE: &[u8] = b"Connection: close\r\n";
pub(super) const KEEP_ALIVE: &[u8] = b"Connection: keep-alive\r\n";

/// Answers to pipelined requests are gathered up to this many bytes.
const GATHER: usize = 16 << 10;
/// A client that takes nothing for this long is slow.
const SLOW: Duration = Duration::from_secs(1);
/// What is copied for a slow client, so that it holds this much of ours and nothing of the cache's.
const SLOW_COPY: usize = 16 << 10;

impl<S: Transport> Connection<'_, S> {
    /// Writes an answer, as far as it has to be written now: the last bytes may wait for the next flush.
    pub(super) async fn send(&mut self, response: Response, persistence: &[u8]) -> Result<(), End> {
        let Response { status, headers, body, length, .. } = response;
        let now_ms = self.app.engine.clock().now_ms();
        let out = self.io.out();
        push_status_line(out, status);
        out.extend_from_slice(b"Date: ");
        date::push_date(out, now_ms / 1000);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(headers.as_bytes());
        if let Some(length) = length {
            out.extend_from_slice(b"Content-Length: ");
            text::push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(persistence);
        out.extend_from_slice(b"\r\n");
        pool::give(headers.into_buffer());
        match body {
            Body::None => {}
            Body::Text(text) => out.extend_from_slice(&text),
            Body::Small(value, span) => match value.inline() {
                Some(payload) => copy_span(payload, span, out),
                None => return Err(End::BrokeOff),
            },
            Body::Stream(mut stream) => self.send_stream(&mut stream).await?,
        }
        if self.io.pending() > GATHER {
            self.io.flush().await?;
        }
        Ok(())
    }

    async fn send_stream(&mut self, stream: &mut Stream) -> Result<(), End> {
        loop {
            let next = within(self.config.first_byte_timeout, pin!(stream.next())).await;
            match next {
                Some(Ok(Some(payload))) => self.send_payload(stream, payload).await?,
                Some(Ok(None)) => return Ok(()),
                // The status line is out: all that is left is not to look complete.
                Some(Err(_)) | None => return Err(End::BrokeOff),
            }
        }
    }

    /// Writes a payload, or only some of it: when the client turns out to be slow, the payload is let go, and the
    /// stream will give the rest again.
    async fn send_payload(&mut self, stream: &mut Stream, payload: Payload) -> Result<(), End> {
        let mut sent = 0;
        while sent < payload.len() {
            match self.io.write(&payload, sent, Until::In(SLOW)).await {
                Ok(count) => sent += count,
                Err(Broken::Timeout) => {
                    let end = payload.len().min(sent + SLOW_COPY);
                    if let Some(part) = Span::new(sent as u64, end as u64) {
                        copy_span(&payload, part, self.io.out());
                    }
                    stream.advance(end);
                    stream.let_go();
                    drop(payload);
                    return Ok(self.io.flush().await?);
                }
                Err(Broken::Gone) => return Err(End::Gone),
            }
        }
        stream.advance(sent);
        Ok(())
    }
}

fn push_status_line(out: &mut Vec<u8>, status: u16) {
    match status {
        200 => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        _ => {
            out.extend_from_slice(b"HTTP/1.1 ");
            text::push_decimal(out, u64::from(status));
            out.push(b' ');
            out.extend_from_slice(reason(status).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}
