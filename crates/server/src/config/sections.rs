//! The typed configuration: one struct a section, named and ordered like the keys, with the defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::size::Size;
use super::values::{Advertised, Auto, Directory, DiskPaths, HostPort, Quota, SocketPath, WriteAcks};
use super::words::{Admission, Durability, IoEngine, LogFormat, LogLevel, PartitionMode, Role};

/// The largest value there is: "20 TB" everywhere else.
pub const VALUE_SIZE_MAX: Size = Size::tib(20);

/// Every key; `docs/configuration.md` explains them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The name of this node; `None` makes one up.
    pub node_name: Option<String>,
    /// The memory tier, and the budget of the whole process.
    pub memory: Memory,
    /// The disk tier.
    pub disk: Disk,
    /// Where the server listens.
    pub network: Network,
    /// The cluster tier.
    pub cluster: Cluster,
    /// Logging.
    pub log: Log,
    /// What is particular to HTTP.
    pub http: Http,
    /// Certificates.
    pub tls: Tls,
    /// Who may do what.
    pub auth: Auth,
    /// Limits to what the keys under a prefix take up.
    pub quotas: Vec<Quota>,
    /// What one client can take from the others.
    pub limits: Limits,
    /// Threads and queues.
    pub performance: Performance,
}

/// `memory.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Budget for everything that grows with use.
    pub max_size: Size,
    /// Background eviction begins when this share is in use.
    pub high_watermark: f64,
    /// Background eviction ends when this share is in use.
    pub low_watermark: f64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { max_size: Size::gib(1), high_watermark: 0.95, low_watermark: 0.85 }
    }
}

/// `disk.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// The directories.
    pub path: DiskPaths,
    /// Capacity of each directory without one of its own; 0 turns the tier off.
    pub max_size: Size,
    /// What is taken in.
    pub admission: Admission,
    /// Bytes a second; `None` is no limit.
    pub write_rate_max: Option<Size>,
    /// Bypass the page cache.
    pub use_direct_io: bool,
    /// Reserve space before writing.
    pub use_fallocate: bool,
    /// How to talk to the kernel.
    pub io_engine: IoEngine,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Size of a segment file; `Auto` makes at least 64 of them.
    pub segment_size: Auto<Size>,
    /// Bytes written to disk for a byte taken in, at most.
    pub write_amplification_max: f64,
    /// Reclaiming begins when this share is in use.
    pub high_watermark: f64,
    /// Reclaiming ends when this share is in use.
    pub low_watermark: f64,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            path: DiskPaths(vec![Directory { path: PathBuf::from("/var/cache/elcache"), max_size: None }]),
            max_size: Size::gib(100),
            admission: Admission::All,
            write_rate_max: None,
            use_direct_io: true,
            use_fallocate: true,
            io_engine: IoEngine::Auto,
            durability: Durability::Process,
            segment_size: Auto::Auto,
            write_amplification_max: 1.3,
            high_watermark: 0.90,
            low_watermark: 0.80,
        }
    }
}

/// `network.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Address that the ports are opened on.
    pub bind_address: IpAddr,
    /// 0 picks a free one.
    pub http_port: u16,
    /// `None` is off; 0 picks a free one.
    pub https_port: Option<u16>,
    /// Address of the administrative endpoints; `None` serves them with the others.
    pub admin_address: Option<SocketAddr>,
    /// 0 picks a free one.
    pub cluster_port: u16,
    /// The Unix socket.
    pub unix_socket_path: SocketPath,
    /// Cap on the request regions of the C SDK, inside the memory budget.
    pub shm_size: Size,
    /// Open connections of all transports together.
    pub max_connections: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            http_port: 8080,
            https_port: None,
            admin_address: None,
            cluster_port: 7890,
            unix_socket_path: SocketPath(PathBuf::from("/var/run/elcache/elcache.sock")),
            shm_size: Size::mib(256),
            max_connections: 10_000,
        }
    }
}

/// `cluster.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Nodes of another name are refused.
    pub cluster_name: String,
    /// Where to find the others; the first one turns cluster mode on.
    pub seed_nodes: Vec<HostPort>,
    /// Copies of a value.
    pub replication_factor: u32,
    /// Points on the ring for a unit of weight.
    pub virtual_nodes: u32,
    /// Between two rounds of gossip.
    pub gossip_interval_ms: u64,
    /// After this long without an answer a node counts as down.
    pub failure_detection_timeout_ms: u64,
    /// Nodes told in a round.
    pub gossip_fanout: u32,
    /// What other nodes are told; `None` is the address of the route to the first seed.
    pub advertise_address: Option<Advertised>,
    /// Keep chunks fetched from peers in local memory.
    pub prefer_local: bool,
    /// Replicas are spread over zones.
    pub zone: Option<String>,
    /// Share of the ring; 0 votes and stores nothing.
    pub weight: Auto<u32>,
    /// Copies stored before a write is acknowledged.
    pub write_acks: WriteAcks,
    /// What a node does that sees only part of its cluster.
    pub partition_mode: PartitionMode,
    /// How long a peer may take to answer.
    pub peer_timeout_ms: u64,
    /// Between a death or a join and the change of the ring.
    pub rebalance_delay: Duration,
    /// File with the shared key that authenticates and encrypts gossip.
    pub secret_file: Option<PathBuf>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            cluster_name: "elcache".to_owned(),
            seed_nodes: Vec::new(),
            replication_factor: 2,
            virtual_nodes: 150,
            gossip_interval_ms: 1_000,
            failure_detection_timeout_ms: 10_000,
            gossip_fanout: 3,
            advertise_address: None,
            prefer_local: true,
            zone: None,
            weight: Auto::Auto,
            write_acks: WriteAcks::All,
            partition_mode: PartitionMode::Auto,
            peer_timeout_ms: 5_000,
            rebalance_delay: Duration::from_secs(30),
            secret_file: None,
        }
    }
}

/// `log.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Form of the lines.
    pub format: LogFormat,
    /// Least level.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: LogLevel::Info }
    }
}

/// `http.*`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http {
    /// Origins whose scripts may use the cache; `*` is all.
    pub cors_origins: Vec<String>,
}

/// `tls.*`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Authorities of client certificates; `Some` demands one.
    pub client_ca_file: Option<PathBuf>,
}

/// `auth.*`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    /// Hashed tokens with their roles.
    pub tokens_file: Option<PathBuf>,
    /// What a request without a token may do; `Auto` is everything without a tokens file, nothing with one.
    pub anonymous: Auto<Role>,
}

/// `limits.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open HTTP connections.
    pub connections: u32,
    /// Open HTTP connections of one address.
    pub connections_per_address: u32,
    /// Method, target and version.
    pub request_line: Size,
    /// All header lines together.
    pub headers: Size,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Without a byte of a body moving.
    pub body_stall_timeout: Duration,
    /// Within it a request is answered or refused.
    pub first_byte_timeout: Duration,
    /// The largest value.
    pub value_size: Size,
    /// Parallel uploads in progress.
    pub uploads: u32,
    /// How long an upload may rest.
    pub upload_ttl: Duration,
    /// Bytes held for one connection.
    pub buffered_per_connection: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 1_000,
            request_line: Size::kib(32),
            headers: Size::kib(64),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_stall_timeout: Duration::from_secs(30),
            first_byte_timeout: Duration::from_secs(15),
            value_size: VALUE_SIZE_MAX,
            uploads: 1_000,
            upload_ttl: Duration::from_secs(24 * 60 * 60),
            buffered_per_connection: Size::mib(8),
        }
    }
}

/// `performance.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Performance {
    /// Threads that serve; `Auto` is one for each core.
    pub worker_threads: Auto<u32>,
    /// Disk operations in flight.
    pub max_concurrent_disk_ops: u32,
    /// Requests to peers in flight.
    pub max_concurrent_network_ops: u32,
    /// Chunks read ahead of a sequential reader.
    pub prefetch_chunks: u32,
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            worker_threads: Auto::Auto,
            max_concurrent_disk_ops: 64,
            max_concurrent_network_ops: 256,
            prefetch_chunks: 2,
        }
    }
}
