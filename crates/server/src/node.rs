//! A node: built from a configuration, run until it is told to stop.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::SystemClock;
use elcache_core::tier::{Above, Tier};
use elcache_disk::Disks;
use elcache_engine::{Admission, Engine, EngineConfig, Keeper};
use elcache_http::health::State;
use elcache_http::{App, HttpConfig, Server};
use elcache_local::{Bound, Local, LocalConfig};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::config::{Auto, Config, Size};
use crate::disk::{self, DiskTier};
use crate::local;

/// How long requests in flight may take to end once the node is told to stop.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How long the disk may take to write what waits for it when the node stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How often the node looks whether something is wrong.
const HEALTH_ROUND: Duration = Duration::from_millis(200);

/// Why a node could not start: one line for the operator.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    pub(crate) fn new(line: String) -> Self {
        Self(line)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The parts of a node that outlive a change of configuration.
pub struct Node {
    name: String,
    app: Arc<App>,
    local: Arc<Local>,
    memory: Arc<MemoryTier>,
    disk: Option<DiskTier>,
    uploads: Keeper,
    listener: TcpListener,
    socket: Option<Bound>,
}

/// The threads that a node runs on.
pub fn runtime(config: &Config) -> Result<Runtime, StartError> {
    let workers = match config.performance.worker_threads {
        Auto::Fixed(workers) => workers as usize,
        Auto::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
    };
    // One thread needs no queues between threads: that is cheaper by a fifth for each request.
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    // Blocking threads hash, and no more can hash at once than there are cores.
    let built = builder.max_blocking_threads(workers.max(2)).thread_name("elcached").enable_all().build();
    built.map_err(|error| StartError(format!("the threads cannot be started: {error}")))
}

impl Node {
    /// Puts the node together and opens its port.
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        let http = http_config(config);
        http.validate()
            .map_err(|wrong| StartError(format!("the limits of HTTP are out of range: {wrong:?}")))?;
        let listener = listen(config)?;
        let socket = local::open(&config.network.unix_socket_path).await?;
        let clock = Arc::new(SystemClock);
        let budget = Budget::new(config.memory.max_size.bytes());
        let metrics = Metrics::new();
        let seed = RandomState::new().hash_one(std::process::id());
        let memory = MemoryTier::new(memory_config(config), &budget, clock.clone(), seed)
            .map_err(|error| StartError(format!("memory.max_size {}: {error}", config.memory.max_size)))?;
        let name = node_name(config);
        let disk = disk::open(config, &name, &budget, memory.clone(), clock.clone()).await?;
        let name = match (&config.node_name, &disk) {
            (None, Some(disk)) => disk.disks.node_name().to_owned(),
            _ => name,
        };
        let mut tiers: Vec<Arc<dyn Tier>> = vec![memory.clone()];
        tiers.extend(disk.iter().map(|disk| Arc::clone(&disk.disks) as Arc<dyn Tier>));
        let engine_config = EngineConfig {
            prefetch_chunks: config.performance.prefetch_chunks,
            admission: match config.disk.admission {
                crate::config::Admission::All => Admission::All,
                crate::config::Admission::SecondHit => Admission::SecondHit,
            },
            uploads: config.limits.uploads as usize,
            upload_ttl: config.limits.upload_ttl,
            ..EngineConfig::default()
        };
        let engine = Engine::new(engine_config, tiers, memory.clone(), clock, budget, Arc::clone(&metrics));
        if let Some(demoter) = engine.demoter() {
            memory.set_below(demoter);
        }
        if let Some(disk) = &disk {
            let above: Arc<dyn Above> = memory.clone();
            disk.disks.set_above(&above);
        }
        let uploads = engine.keep_uploads();
        let program = format!("elcached/{}", env!("CARGO_PKG_VERSION"));
        let app = App::new(Arc::clone(&engine), Arc::clone(&metrics), http);
        let sessions = local::session_room(engine.budget(), config.network.shm_size.bytes());
        let local = Local::new(engine, metrics, local_config(config), Arc::clone(app.seats()), program);
        if socket.is_some() && config.network.shm_size.bytes() > 0 {
            local::share(&local, &memory, sessions);
        }
        Ok(Self { name, app, local, memory, disk, uploads, listener, socket })
    }

    /// The address that it listens on.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where its Unix socket is, if it has one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(Bound::path)
    }

    /// What this node is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What changes of the configuration can be told to while it runs.
    pub fn controls(&self) -> Controls {
        let local = Arc::clone(&self.local);
        Controls { app: Arc::clone(&self.app), local, memory: Arc::clone(&self.memory) }
    }

    /// Serves until `stop` turns true, then ends what is in flight; false when that took too long.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> bool {
        let disks = self.disk.as_ref().map(|disk| Arc::clone(&disk.disks));
        let watch = tokio::spawn(watch_health(Arc::clone(&self.app), disks, stop.clone()));
        let app = Arc::clone(&self.app);
        let locals = serve_locals(self.local, self.socket, stop.clone());
        let stopped = async move {
            // An error means that nobody is left who could ask for a stop.
            let _ = stop.wait_for(|stop| *stop).await;
            app.health().set(State::Draining);
        };
        let server = Server::new(self.app);
        let (of_http, of_locals) = tokio::join!(server.serve(self.listener, stopped, DRAIN_LIMIT), locals);
        let finished = of_http && of_locals;
        watch.abort();
        drop(self.uploads);
        if let Some(disk) = &self.disk
            && tokio::time::timeout(CLOSE_LIMIT, disk.disks.close()).await.is_err()
        {
            tracing::warn!(
                "the disk did not take what waited for it in time; the next start reads its log again"
            );
        }
        finished
    }
}

/// Serves the Unix socket, if there is one, until `stop` turns true, as [`Node::run`] does.
async fn serve_locals(local: Arc<Local>, socket: Option<Bound>, mut stop: watch::Receiver<bool>) -> bool {
    let Some(socket) = socket else { return true };
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    elcache_local::Server::new(local).serve(socket, stopped, DRAIN_LIMIT).await
}

/// Says what is wrong with the node, until it is told to stop.
async fn watch_health(app: Arc<App>, disks: Option<Arc<Disks>>, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let condition = disks.as_ref().map(|disks| disks.condition()).unwrap_or_default();
        app.health().set(if condition.starting {
            State::Starting(vec!["the disk's index is being read".to_owned()])
        } else if condition.troubles.is_empty() {
            State::Healthy
        } else {
            State::Degraded(condition.troubles)
        });
        if *stop.borrow() {
            // The request came in between, and has to be what is said last.
            app.health().set(State::Draining);
        }
        tokio::time::sleep(HEALTH_ROUND).await;
    }
}

/// Applies a changed configuration to a running node.
pub struct Controls {
    app: Arc<App>,
    local: Arc<Local>,
    memory: Arc<MemoryTier>,
}

impl Controls {
    /// Takes over what can change while the node runs.
    pub fn apply(&self, config: &Config) {
        self.app.config().replace(http_config(config));
        self.local.configure(local_config(config));
        self.memory.reconfigure(memory_config(config));
    }
}

fn listen(config: &Config) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(config.network.bind_address, config.network.http_port);
    Server::bind(address).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there; choose another port with --port",
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege; choose another with --port"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address; see network.bind_address",
            _ => "see network.bind_address and network.http_port",
        };
        StartError(format!("cannot listen on {address}: {error} ({advice})"))
    })
}

fn memory_config(config: &Config) -> MemoryConfig {
    MemoryConfig { high_watermark: config.memory.high_watermark, low_watermark: config.memory.low_watermark }
}

fn http_config(config: &Config) -> HttpConfig {
    let limits = &config.limits;
    let bytes = |size: Size| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    HttpConfig {
        connections: limits.connections.min(config.network.max_connections) as usize,
        connections_per_address: limits.connections_per_address as usize,
        request_line: bytes(limits.request_line),
        headers: bytes(limits.headers),
        header_lines: HttpConfig::MAX_HEADER_LINES,
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        body_stall_timeout: limits.body_stall_timeout,
        first_byte_timeout: limits.first_byte_timeout,
        value_size: limits.value_size.bytes(),
        buffered_per_connection: bytes(limits.buffered_per_connection),
        cors_origins: config.http.cors_origins.clone(),
    }
}

fn local_config(config: &Config) -> LocalConfig {
    let http = http_config(config);
    LocalConfig {
        connections: http.connections,
        header_timeout: http.header_timeout,
        body_stall_timeout: http.body_stall_timeout,
        first_byte_timeout: http.first_byte_timeout,
        value_size: http.value_size,
        buffered_per_connection: http.buffered_per_connection,
    }
}

/// The configured name, or the host's with a suffix that tells nodes of one host apart.
fn node_name(config: &Config) -> String {
    let made_up = || {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}-{:06x}", RandomState::new().hash_one(&host) & 0xff_ffff)
    };
    config.node_name.clone().unwrap_or_else(made_up)
}
