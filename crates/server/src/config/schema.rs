//! The table of keys. Reading, printing, reloading, announcing and documenting a key all start from its line here,
//! so that a new key is one field, one line, one row in the documentation and one entry in the example.

use serde_json::Value as Json;

use super::node::{Fault, Node};
use super::sections::Config;
use super::setting::Setting;

/// One key and what can be done with it.
pub(super) struct Key {
    /// Dotted: `memory.max_size`.
    pub(super) path: &'static str,
    pub(super) availability: Availability,
    pub(super) change: Change,
    pub(super) read: fn(&mut Config, &Node) -> Result<(), Vec<Fault>>,
    pub(super) json: fn(&Config) -> Json,
    /// From the first to the second.
    pub(super) copy: fn(&Config, &mut Config),
}

/// Whether a key has an effect in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Now,
    /// It comes with this part of the server.
    With(&'static str),
}

/// Whether a running server can take over a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Live,
    Restart,
}

use Availability::{Now, With};
use Change::{Live, Restart};

macro_rules! key {
    ($name:ident, $availability:expr, $change:expr) => {
        key!(@ stringify!($name), ($name), $availability, $change)
    };
    ($section:ident . $name:ident, $availability:expr, $change:expr) => {
        key!(@ concat!(stringify!($section), ".", stringify!($name)), ($section.$name), $availability, $change)
    };
    (@ $path:expr, ($($field:ident).+), $availability:expr, $change:expr) => {
        Key {
            path: $path,
            availability: $availability,
            change: $change,
            read: |config, node| {
                config.$($field).+ = Setting::read(node)?;
                Ok(())
            },
            json: |config| config.$($field).+.json(),
            copy: |from, to| to.$($field).+.clone_from(&from.$($field).+),
        }
    };
}

const CLUSTER: Availability = With("cluster mode");
const SECURITY: Availability = With("TLS and access control");

/// In the order of the documentation. What is not available yet says `Restart` until its feature knows better.
pub(super) static KEYS: &[Key] = &[
    key!(node_name, Now, Restart),
    key!(memory.max_size, Now, Restart),
    key!(memory.high_watermark, Now, Live),
    key!(memory.low_watermark, Now, Live),
    key!(disk.path, Now, Restart),
    key!(disk.max_size, Now, Restart),
    key!(disk.admission, Now, Restart),
    key!(disk.write_rate_max, Now, Restart),
    key!(disk.use_direct_io, Now, Restart),
    key!(disk.use_fallocate, Now, Restart),
    key!(disk.io_engine, Now, Restart),
    key!(disk.durability, Now, Restart),
    key!(disk.segment_size, Now, Restart),
    key!(disk.write_amplification_max, Now, Restart),
    key!(disk.high_watermark, Now, Restart),
    key!(disk.low_watermark, Now, Restart),
    key!(network.bind_address, Now, Restart),
    key!(network.http_port, Now, Restart),
    key!(network.https_port, SECURITY, Restart),
    key!(network.admin_address, SECURITY, Restart),
    key!(network.cluster_port, CLUSTER, Restart),
    key!(network.unix_socket_path, Now, Restart),
    key!(network.shm_size, Now, Restart),
    key!(network.max_connections, Now, Live),
    key!(cluster.cluster_name, CLUSTER, Restart),
    key!(cluster.seed_nodes, CLUSTER, Restart),
    key!(cluster.replication_factor, CLUSTER, Restart),
    key!(cluster.virtual_nodes, CLUSTER, Restart),
    key!(cluster.gossip_interval_ms, CLUSTER, Restart),
    key!(cluster.failure_detection_timeout_ms, CLUSTER, Restart),
    key!(cluster.gossip_fanout, CLUSTER, Restart),
    key!(cluster.advertise_address, CLUSTER, Restart),
    key!(cluster.prefer_local, CLUSTER, Restart),
    key!(cluster.zone, CLUSTER, Restart),
    key!(cluster.weight, CLUSTER, Restart),
    key!(cluster.write_acks, CLUSTER, Restart),
    key!(cluster.partition_mode, CLUSTER, Restart),
    key!(cluster.peer_timeout_ms, CLUSTER, Restart),
    key!(cluster.rebalance_delay, CLUSTER, Restart),
    key!(cluster.secret_file, CLUSTER, Restart),
    key!(log.format, Now, Restart),
    key!(log.level, Now, Live),
    key!(http.cors_origins, Now, Live),
    key!(tls.cert_file, SECURITY, Restart),
    key!(tls.key_file, SECURITY, Restart),
    key!(tls.client_ca_file, SECURITY, Restart),
    key!(auth.tokens_file, SECURITY, Restart),
    key!(auth.anonymous, SECURITY, Restart),
    key!(quotas, SECURITY, Restart),
    key!(limits.connections, Now, Live),
    key!(limits.connections_per_address, Now, Live),
    key!(limits.request_line, Now, Restart),
    key!(limits.headers, Now, Restart),
    key!(limits.header_timeout, Now, Live),
    key!(limits.idle_timeout, Now, Live),
    key!(limits.body_stall_timeout, Now, Live),
    key!(limits.first_byte_timeout, Now, Live),
    key!(limits.value_size, Now, Live),
    key!(limits.uploads, Now, Restart),
    key!(limits.upload_ttl, Now, Restart),
    key!(limits.buffered_per_connection, Now, Restart),
    key!(performance.worker_threads, Now, Restart),
    key!(performance.max_concurrent_disk_ops, Now, Restart),
    key!(performance.max_concurrent_network_ops, CLUSTER, Restart),
    key!(performance.prefetch_chunks, Now, Restart),
];

impl Key {
    /// Values here lead to credentials. Someone may have pasted the credential itself, so no message repeats them.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.path, "cluster.secret_file" | "tls.key_file" | "auth.tokens_file")
    }

    /// `Some` with the part of the server that is missing, if this value asks for it.
    pub(super) fn waits_for(&self, config: &Config) -> Option<&'static str> {
        let With(part) = self.availability else { return None };
        ((self.json)(config) != (self.json)(&Config::default())).then_some(part)
    }
}

/// What the environment variables begin with.
pub(super) const PREFIX: &str = "ELCACHE__";

/// The environment variable of a key, or what those of a section begin with.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}

pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names of the keys in a section; the empty section is the top level, with its sections. Empty for no section.
pub(super) fn names_in(section: &str) -> Vec<&'static str> {
    let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
    let rests = KEYS.iter().filter_map(|key| key.path.strip_prefix(prefix.as_str()));
    let mut names: Vec<_> = rests.filter_map(|rest| rest.split('.').next()).collect();
    names.dedup();
    names
}

pub(super) fn is_section(path: &str) -> bool {
    !path.is_empty() && !names_in(path).is_empty()
}

/// Everything that may be meant by a misspelt name: keys and sections.
pub(super) fn all_names() -> Vec<&'static str> {
    let sections = names_in("").into_iter().filter(|name| is_section(name));
    sections.chain(KEYS.iter().map(|key| key.path)).collect()
}
