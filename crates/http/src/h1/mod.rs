//! HTTP/1.1 and 1.0 (RFC 9112), by a server of our own: docs/decisions/0005-own-http1-lane.md says why.
//!
//! # Layout
//! - `head` finds and reads the head of a request, `chunked` and `body` its body.
//! - `io` is the connection's bytes and its one deadline, `pool` where buffers go when it is idle.
//! - `send` writes answers.
//! - This file leads from one request to the next.

mod body;
mod chunked;
mod head;
mod io;
mod pool;
mod send;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::answer::answer;
use crate::app::App;
use crate::config::ConfigView;
use crate::problem::Problem;
use crate::response::Headers;
use elcache_core::activity::Activity;

use self::body::Body;
use self::head::{Head, Scanner};
pub(crate) use self::io::Transport;
use self::io::{Broken, Io, Until, from_now};

/// How HTTP/2 begins on a connection of which nothing else is known (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";
/// How long, and for how many bytes, a connection is read after the last answer.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 128 << 20;

/// How a connection ended.
pub(crate) enum Ended<S> {
    /// It is over.
    Closed,
    /// The client speaks HTTP/2: the connection, and what was read from it.
    Http2(S, Bytes),
}

/// Why no more requests are taken.
enum End {
    /// Everything was said.
    Done,
    /// The client may still be sending.
    Linger,
    /// What was sent is not all that was announced.
    BrokeOff,
    /// There is no client any more.
    Gone,
    Http2,
}

impl From<Broken> for End {
    fn from(_: Broken) -> Self {
        Self::Gone
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve<S: Transport>(app: &Arc<App>, stream: S, activity: &Activity) -> Ended<S> {
    let config = app.config.view();
    let io = Io::new(stream, config.idle_timeout);
    let mut connection = Connection { app, activity, config, io, is_first: true };
    let end = connection.run().await;
    connection.end(end).await
}

struct Connection<'a, S> {
    app: &'a Arc<App>,
    activity: &'a Activity,
    config: ConfigView,
    io: Io<S>,
    is_first: bool,
}

impl<S: Transport> Connection<'_, S> {
    async fn run(&mut self) -> End {
        loop {
            let head_len = match self.next_head().await {
                Ok(head_len) => head_len,
                Err(end) => return end,
            };
            self.is_first = false;
            self.config.refresh(&self.app.config);
            self.io.write_limit = self.config.idle_timeout;
            let bytes = self.io.input.data_mut().get_mut(..head_len).unwrap_or_default();
            let head = match Head::parse(bytes, &self.config) {
                Ok(head) => head,
                Err(problem) => return self.refuse(problem).await,
            };
            self.io.input.consume(head_len);
            if let ControlFlow::Break(end) = self.exchange(head).await {
                return end;
            }
        }
    }

    /// Waits for the next head and says how long it is.
    async fn next_head(&mut self) -> Result<usize, End> {
        if self.io.input.is_empty() {
            self.wait_for_request().await?;
        }
        let mut scanner = Scanner::default();
        let mut deadline: Option<Instant> = None;
        loop {
            let data = self.io.input.data();
            if self.is_first && data.starts_with(PREFACE) {
                return Err(End::Http2);
            }
            match scanner.scan(data, &self.config) {
                Ok(Some(head_len)) => return Ok(head_len),
                Ok(None) => {}
                Err(problem) => return Err(self.refuse(problem).await),
            }
            let deadline = *deadline.get_or_insert_with(|| from_now(self.config.header_timeout));
            match self.io.fill(Until::At(deadline)).await {
                Ok(0) | Err(Broken::Gone) => return Err(End::Gone),
                Ok(_) => {}
                Err(Broken::Timeout) => return Err(self.refuse(Problem::stalled()).await),
            }
        }
    }

    /// Waits, holding nothing, for the first byte of a request.
    async fn wait_for_request(&mut self) -> Result<(), End> {
        self.io.flush().await?;
        self.io.rest();
        if !self.activity.rest() {
            return Err(End::Done);
        }
        let count = self.io.fill(Until::In(self.config.idle_timeout)).await;
        match (count, self.activity.wake()) {
            (Ok(1..), true) => Ok(()),
            _ => Err(End::Done),
        }
    }

    /// One request and its answer.
    async fn exchange(&mut self, head: Head) -> ControlFlow<End> {
        let Head { request, framing, is_http10, keep_alive } = head;
        let expects = request.expects_continue;
        let mut body = Body::new(&mut self.io, framing, expects, self.config.body_stall_timeout);
        let Some(response) = answer(self.app, &self.config, request, &mut body, pool::take()).await else {
            return ControlFlow::Break(End::Gone);
        };
        let rest = body.into_rest();
        let keep_alive = keep_alive && !response.close && rest.is_small() && !self.activity.is_closing();
        let persistence = match (keep_alive, is_http10) {
            (false, _) => send::CLOSE,
            (true, true) => send::KEEP_ALIVE,
            (true, false) => send::NOTHING,
        };
        let malformed = response.close;
        if let Err(end) = self.send(response, persistence).await {
            return ControlFlow::Break(end);
        }
        let is_empty = rest.is_empty();
        if keep_alive && (is_empty || rest.drain(&mut self.io).await) {
            ControlFlow::Continue(())
        } else if is_empty && !malformed && self.io.input.is_empty() {
            ControlFlow::Break(End::Done)
        } else {
            ControlFlow::Break(End::Linger)
        }
    }

    /// Answers what is no request, after which nothing on the connection can be trusted.
    async fn refuse(&mut self, problem: Problem) -> End {
        self.app.metrics.http_request("other", problem.status);
        let response = problem.into_response(Headers::in_buffer(pool::take()), false);
        match self.send(response, send::CLOSE).await {
            Ok(()) => End::Linger,
            Err(end) => end,
        }
    }

    async fn end(mut self, end: End) -> Ended<S> {
        match end {
            End::Gone => {}
            End::BrokeOff => self.io.stream.break_off(),
            End::Done => {
                if self.io.flush().await.is_ok() {
                    let _ = self.io.shut_down().await;
                }
            }
            End::Linger => self.linger().await,
            End::Http2 => {
                let (stream, read) = self.io.into_parts();
                return Ended::Http2(stream, read);
            }
        }
        Ended::Closed
    }

    /// Closes a connection on which the client may still be sending. Closing it at once would make the kernel send
    /// a reset, which may overtake the answer.
    async fn linger(&mut self) {
        if self.io.flush().await.is_err() || self.io.shut_down().await.is_err() {
            return;
        }
        let deadline = Until::At(from_now(LINGER_TIME));
        let mut seen = 0_usize;
        while seen < LINGER_BYTES {
            self.io.input.clear();
            match self.io.fill(deadline).await {
                Ok(count @ 1..) => seen = seen.saturating_add(count),
                _ => break,
            }
        }
    }
}
