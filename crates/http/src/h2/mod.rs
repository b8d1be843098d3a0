//! HTTP/2 (RFC 9113) by hyper's server, for clients that begin with its preface.
//!
//! # Layout
//! - This file: the connection, and each of its requests.
//! - `source`: the body of a request; `body`: the body of an answer; `rewind`: a connection of which some was read.

mod body;
mod rewind;
mod source;

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::answer::answer;
use crate::app::App;
use crate::config::HttpConfig;
use crate::h1::Transport;
use crate::method::Method;
use crate::problem::Problem;
use crate::request::Request;
use crate::response::{Headers, Response};

use self::body::{Body, CHUNK, Slot};
use self::rewind::Rewind;
use self::source::Incomings;

/// Requests at a time on one connection.
const STREAMS: u32 = 100;
/// What a client may send on one stream before it is read, at least and at most.
const MIN_WINDOW: u32 = 65_535;
const MAX_WINDOW: u32 = 1 << 20;
const PING: Duration = Duration::from_secs(20);
/// How often answers are looked at that nobody may be taking.
const SWEEP: Duration = Duration::from_secs(1);

/// What the streams of a connection share.
struct Connection {
    app: Arc<App>,
    /// Goes up whenever bytes move.
    moves: AtomicU64,
    window: u32,
    slots: Mutex<Vec<Weak<Slot>>>,
    answer_began: Notify,
}

/// Serves a connection until it ends. `read` is what has been read from it.
pub(crate) async fn serve<S: Transport>(
    app: Arc<App>,
    stream: S,
    read: Bytes,
    mut draining: watch::Receiver<bool>,
) {
    let config = app.config.get();
    let shared = Arc::new(Connection {
        app,
        moves: AtomicU64::new(0),
        window: window(&config),
        slots: Mutex::default(),
        answer_began: Notify::new(),
    });
    let service = service_fn(|request| handle(Arc::clone(&shared), request));
    let io = TokioIo::new(Rewind::new(stream, read));
    let mut connection = pin!(builder(&config).serve_connection(io, service));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = draining.wait_for(|draining| *draining) => {}
        () = standstill(&shared, config.idle_timeout) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection.as_mut() => {}
        () = standstill(&shared, config.idle_timeout) => {}
    }
}

/// The windows of all streams together are the connection's: an upload that waits for room and is not read must not
/// keep the others from going on, and a window that adapts would grow to 16 MiB that no budget knows of.
fn window(config: &HttpConfig) -> u32 {
    let share = u32::try_from(config.buffered_per_connection).unwrap_or(u32::MAX) / STREAMS;
    share.clamp(MIN_WINDOW, MAX_WINDOW)
}

fn builder(config: &HttpConfig) -> Builder<TokioExecutor> {
    let header_list =
        config.request_line.saturating_add(config.headers).saturating_add(config.header_lines * 32);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .initial_connection_window_size(window(config) * STREAMS)
        .initial_stream_window_size(window(config))
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_send_buf_size(CHUNK);
    builder
}

/// Returns when nothing has moved for `limit`. Has answers that nobody takes let go of the cache's memory meanwhile.
async fn standstill(connection: &Connection, limit: Duration) {
    let mut seen = connection.moves.load(Ordering::Relaxed);
    let mut since = Instant::now();
    while since.elapsed() < limit {
        let pause = if connection.sweep() { SWEEP.min(limit) } else { limit.saturating_sub(since.elapsed()) };
        let began = connection.answer_began.notified();
        if tokio::time::timeout(pause, began).await.is_ok() {
            tokio::time::sleep(SWEEP.min(limit)).await;
        }
        let moves = connection.moves.load(Ordering::Relaxed);
        if moves != seen {
            (seen, since) = (moves, Instant::now());
        }
    }
}

async fn handle(
    connection: Arc<Connection>,
    request: http::Request<Incoming>,
) -> io::Result<http::Response<Body>> {
    let config = connection.app.config.get();
    connection.moved();
    let (parts, incoming) = request.into_parts();
    let parsed = parse(&parts, &config);
    let head_only = parsed.method == Method::Head;
    let mut source =
        Incomings::new(incoming, &parts.headers, config.body_stall_timeout, Arc::clone(&connection));
    let window = if source.may_send() { connection.window } else { 0 };
    // Whoever waits to be told to go ahead does not send the body when it is refused.
    let sends_on = !parsed.expects_continue;
    let taken = connection.app.engine.budget().take(u64::from(window));
    let response = match &taken {
        Some(_) => answer(&connection.app, &config, parsed, &mut source, Vec::new()).await,
        None => {
            connection.app.metrics.http_request(parsed.method.as_str(), 503);
            Some(Problem::busy().into_response(Headers::default(), head_only))
        }
    };
    let response = response.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
    if let (Some(taken), true) = (taken, sends_on && source.may_send()) {
        tokio::spawn(async move {
            source.drain().await;
            drop(taken);
        });
    }
    translate(&connection, response, config.first_byte_timeout)
}

fn parse(parts: &http::request::Parts, config: &HttpConfig) -> Request {
    let target = parts.uri.path_and_query().map_or("*", http::uri::PathAndQuery::as_str);
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    let mut request = Request::parse(parts.method.as_str().as_bytes(), target.as_bytes(), headers, config);
    if target.len() > config.request_line {
        request.action = Err(Problem::new(414, "The request target is too long."));
    } else if parts.headers.len() > config.header_lines {
        request.action = Err(Problem::new(431, "The headers are too many."));
    }
    request
}

fn translate(
    connection: &Arc<Connection>,
    response: Response,
    limit: Duration,
) -> io::Result<http::Response<Body>> {
    let Response { status, headers, body, length, .. } = response;
    let (status, headers, length, body) = match Body::new(connection, body, limit) {
        Some(body) => (status, headers, length, body),
        None => {
            let refused = Problem::busy().into_response(Headers::default(), false);
            (refused.status, refused.headers, refused.length, Body::of(refused.body))
        }
    };
    let mut translated = http::Response::new(body);
    *translated.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
    for (name, value) in headers.iter() {
        let name = HeaderName::from_bytes(name).map_err(io::Error::other)?;
        translated.headers_mut().append(name, HeaderValue::from_bytes(value).map_err(io::Error::other)?);
    }
    if let Some(length) = length {
        translated.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    }
    Ok(translated)
}

impl Connection {
    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Has an answer swept from now on.
    fn watch(&self, slot: &Arc<Slot>) {
        self.slots.lock().push(Arc::downgrade(slot));
        self.answer_began.notify_one();
    }

    /// Sweeps the answers under way; false when there are none.
    fn sweep(&self) -> bool {
        let mut slots = self.slots.lock();
        slots.retain(|slot| {
            slot.upgrade().is_some_and(|slot| {
                slot.sweep();
                true
            })
        });
        !slots.is_empty()
    }
}
