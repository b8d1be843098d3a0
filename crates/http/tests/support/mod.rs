//! A server on a free port, with a memory tier that can be told to lose chunks, and a client that sends bytes as they
//! are.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::{Clock, SystemClock};
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::tier::{
    ChunkRef, Evicted, Hold, Leaving, Lookup, NewBody, PageRef, Part, Presence, Refusal, Reply, Root, Staged,
    StagedPage, Tier, TierName, Usage,
};
use elcache_core::value::{Metadata, Version};
use elcache_engine::{Engine, EngineConfig};
use elcache_http::health::State;
use elcache_http::{App, HttpConfig, Server};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A memory tier that loses chunks on demand.
pub struct Lossy {
    inner: Arc<MemoryTier>,
    /// Chunks from this number on are gone.
    pub gone_from: AtomicU64,
    /// Chunks from this number on are there until they are read.
    pub unreadable_from: AtomicU64,
}

impl Tier for Lossy {
    fn name(&self) -> TierName {
        self.inner.name()
    }

    fn ready(&self) -> Reply<'_, Result<Version, Refusal>> {
        self.inner.ready()
    }

    fn root(&self, key: &Key) -> Reply<'_, Lookup<Root>> {
        self.inner.root(key)
    }

    fn page(&self, page: &PageRef) -> Reply<'_, Lookup<Payload>> {
        self.inner.page(page)
    }

    fn chunk(&self, chunk: &ChunkRef, from: u32, to: u32) -> Reply<'_, Lookup<Part>> {
        if chunk.number >= self.unreadable_from.load(Ordering::Relaxed) {
            return Reply::Ready(Lookup::Miss);
        }
        self.inner.chunk(chunk, from, to)
    }

    fn has_chunk(&self, chunk: &ChunkRef) -> Reply<'_, bool> {
        if chunk.number >= self.gone_from.load(Ordering::Relaxed) {
            return Reply::Ready(false);
        }
        self.inner.has_chunk(chunk)
    }

    fn has_chunks(&self, chunks: &[ChunkRef]) -> Reply<'_, Lookup<Vec<Presence>>> {
        let gone_from = self.gone_from.load(Ordering::Relaxed);
        let here = self.inner.has_chunks(chunks).now().and_then(Lookup::hit).unwrap_or_default();
        let here = chunks.iter().zip(here);
        let presences =
            here.map(|(chunk, here)| if chunk.number < gone_from { here } else { Presence::Absent });
        Reply::Ready(Lookup::Hit(presences.collect()))
    }

    fn shrunk(&self) -> u64 {
        self.gone_from.load(Ordering::Relaxed).wrapping_neg() + self.inner.shrunk()
    }

    fn admit(&self, bytes: u64) -> Reply<'_, Result<Hold, Refusal>> {
        self.inner.admit(bytes)
    }

    fn largest_admission(&self) -> u64 {
        self.inner.largest_admission()
    }

    fn chunk_whole(&self, chunk: &ChunkRef) -> Reply<'_, Lookup<Filled>> {
        self.inner.chunk_whole(chunk)
    }

    fn stage(&self, chunk: ChunkRef, data: Filled) -> Reply<'_, Result<Staged, Refusal>> {
        self.inner.stage(chunk, data)
    }

    fn stage_page(
        &self,
        page: PageRef,
        digests: Bytes,
        chunks: Vec<Staged>,
    ) -> Reply<'_, Result<StagedPage, Refusal>> {
        self.inner.stage_page(page, digests, chunks)
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        meta: &'a Metadata,
        body: NewBody<'a>,
    ) -> Reply<'a, Result<(), Refusal>> {
        self.inner.commit(key, meta, body)
    }

    fn remove<'a>(&'a self, key: &'a Key) -> Reply<'a, Result<bool, Refusal>> {
        self.inner.remove(key)
    }

    fn keep_chunk(&self, chunk: &ChunkRef, data: Filled) -> Option<Payload> {
        self.inner.keep_chunk(chunk, data)
    }

    fn keep_page(&self, page: &PageRef, digests: &[u8]) {
        self.inner.keep_page(page, digests);
    }

    fn lacks(&self, leaving: Leaving<'_>) -> bool {
        self.inner.lacks(leaving)
    }

    fn demote(&self, evicted: Evicted) -> Reply<'_, Result<(), Refusal>> {
        self.inner.demote(evicted)
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

/// A running server.
pub struct Node {
    pub address: SocketAddr,
    pub app: Arc<App>,
    pub tier: Arc<Lossy>,
    pub budget: Arc<Budget>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<bool>,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(HttpConfig::default()).await
    }

    pub async fn start_with(config: HttpConfig) -> Self {
        let budget = Budget::new(256 << 20);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let inner = MemoryTier::new(MemoryConfig::default(), &budget, Arc::clone(&clock), 1).unwrap();
        let buffers = Arc::clone(&inner);
        let tier = Arc::new(Lossy {
            inner,
            gone_from: AtomicU64::new(u64::MAX),
            unreadable_from: AtomicU64::new(u64::MAX),
        });
        let metrics = Metrics::new();
        let tiers: Vec<Arc<dyn Tier>> = vec![Arc::clone(&tier) as _];
        let engine = Engine::new(
            EngineConfig::default(),
            tiers,
            buffers,
            clock,
            Arc::clone(&budget),
            Arc::clone(&metrics),
        );
        let app = App::new(engine, metrics, config);
        app.health().set(State::Healthy);
        let listener = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::new(Arc::clone(&app));
        let server = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve(listener, stopped, Duration::from_secs(5)).await
        });
        Self { address, app, tier, budget, stop: Some(stop), server }
    }

    /// Stops the server; true when every connection finished.
    pub async fn stop(mut self) -> bool {
        drop(self.stop.take());
        self.server.await.unwrap()
    }

    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    pub async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, unread: Vec::new() }
    }

    /// A connection that takes little at a time.
    pub async fn connect_narrow(&self) -> Client {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        Client { stream: socket.connect(self.address).await.unwrap(), unread: Vec::new() }
    }

    /// One request over a connection of its own.
    pub async fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let mut client = self.connect().await;
        client.ask(method, target, headers, body).await
    }

    pub async fn put(&self, key: &str, headers: &str, body: &[u8]) -> Answer {
        self.ask("PUT", &format!("/cache/{key}"), headers, body).await
    }

    pub async fn get(&self, key: &str, headers: &str) -> Answer {
        self.ask("GET", &format!("/cache/{key}"), headers, b"").await
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header that stands once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands twice in {}", self.head);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A connection on which bytes are sent as they are.
pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let length = match (method, body) {
            ("PUT" | "POST", body) => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}{length}\r\n")).await;
        self.send(body).await;
        self.answer(method).await
    }

    /// The next answer.
    pub async fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).await.expect("an answer")
    }

    /// The next answer; none when the connection ends before it is complete.
    pub async fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let head_len = loop {
            match self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await?,
            }
        };
        let head = String::from_utf8(self.unread[..head_len].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let has_body = method != "HEAD" && !matches!(status, 100..=199 | 204 | 304);
        let length = if has_body { answer.header("content-length").unwrap().parse().unwrap() } else { 0 };
        while self.unread.len() < head_len + length {
            self.more().await?;
        }
        answer.body = self.unread[head_len..head_len + length].to_vec();
        self.unread.drain(..head_len + length);
        Some(answer)
    }

    async fn more(&mut self) -> Option<()> {
        let reading = self.stream.read_buf(&mut self.unread);
        let count = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("bytes in time");
        (count.ok()? > 0).then_some(())
    }

    /// Everything up to the end of the connection.
    pub async fn rest(mut self) -> Vec<u8> {
        while self.more().await.is_some() {}
        self.unread
    }

    /// Whether the server has closed the connection, without anything else having come.
    pub async fn is_closed(&mut self) -> bool {
        assert!(self.unread.is_empty(), "{:?}", Bytes::copy_from_slice(&self.unread));
        self.more().await.is_none()
    }
}

/// Bytes in which every position differs from its neighbourhood.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let step = |state: &mut u32| {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state
    };
    let mut bytes = Vec::with_capacity(length + 4);
    while bytes.len() < length {
        bytes.extend_from_slice(&step(&mut state).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The entity tag of these bytes.
pub fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(bytes).to_hex())
}
