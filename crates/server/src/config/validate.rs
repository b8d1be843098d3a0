//! What no type rules out: values out of range, and values that contradict each other.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::sections::{Cluster, Config, Disk, Limits, Memory, Network, Performance, Tls, VALUE_SIZE_MAX};
use super::setting::Setting;
use super::size::Size;
use super::values::{Auto, DiskPaths, Quota, WriteAcks};

/// One thing that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The keys that it is about.
    pub keys: Vec<&'static str>,
    /// What was found and what was expected.
    pub problem: String,
}

/// The smallest budget that leaves ARC room beside connections and bookkeeping.
const MEMORY_MIN: Size = Size::mib(16);

/// The smallest directory of the disk tier: a few segments.
const DISK_MIN: Size = Size::mib(64);
/// A few chunks that are written at once wait for each other no longer than a write may.
const WRITE_RATE_MIN: Size = Size::mib(1);

/// What a segment may occupy: at the least a chunk and what goes with it.
const SEGMENT: RangeInclusive<Size> = Size::mib(8)..=Size::gib(16);

/// Unix sockets have room for this many bytes of path on Linux.
const SOCKET_PATH_MAX: usize = 107;

impl Config {
    /// Everything that is impossible in this configuration.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Violations::default();
        if let Some(name) = &self.node_name {
            found.name("node_name", name);
        }
        self.memory.check(&mut found);
        self.disk.check(&mut found);
        self.network.check(&mut found);
        self.cluster.check(&mut found);
        for origin in self.http.cors_origins.iter().filter(|origin| !is_origin(origin)) {
            found.wrong("http.cors_origins", origin, r#""*" or an origin, such as "https://example.org""#);
        }
        self.tls.check(&mut found);
        check_quotas(&self.quotas, &mut found);
        self.limits.check(&mut found);
        self.performance.check(&mut found);
        if self.network.https_port.is_some() && self.tls.cert_file.is_none() {
            found.needs("network.https_port", "tls.cert_file");
        }
        found.0
    }
}

impl Memory {
    fn check(&self, found: &mut Violations) {
        found.at_least("memory.max_size", &self.max_size, &MEMORY_MIN);
        found.watermarks(
            ("memory.low_watermark", self.low_watermark),
            ("memory.high_watermark", self.high_watermark),
        );
    }
}

impl Disk {
    fn check(&self, found: &mut Violations) {
        if self.max_size != Size::new(0) {
            found.at_least("disk.max_size", &self.max_size, &DISK_MIN);
        }
        self.path.check(found);
        if let Some(rate) = &self.write_rate_max {
            found.at_least("disk.write_rate_max", rate, &WRITE_RATE_MIN);
        }
        if let Auto::Fixed(size) = &self.segment_size {
            found.within("disk.segment_size", size, &SEGMENT);
        }
        found.within("disk.write_amplification_max", &self.write_amplification_max, &(1.0..=100.0));
        found.watermarks(
            ("disk.low_watermark", self.low_watermark),
            ("disk.high_watermark", self.high_watermark),
        );
    }
}

impl DiskPaths {
    fn check(&self, found: &mut Violations) {
        if self.0.is_empty() {
            found.add(&["disk.path"], "found an empty list, expected at least one directory".to_owned());
        }
        for (index, directory) in self.0.iter().enumerate() {
            if let Some(size) = &directory.max_size {
                found.at_least("disk.path", size, &DISK_MIN);
            }
            if self.0.iter().take(index).any(|earlier| earlier.path == directory.path) {
                found.wrong("disk.path", &directory.path, "each directory once");
            }
        }
    }
}

impl Network {
    fn check(&self, found: &mut Violations) {
        let https = ("network.https_port", self.https_port.unwrap_or_default());
        let http = ("network.http_port", self.http_port);
        let cluster = ("network.cluster_port", self.cluster_port);
        for ((one, port), (other, same)) in [(http, cluster), (http, https), (cluster, https)] {
            if port == same && port != 0 {
                found.add(&[one, other], format!("found {port} for {one} and {other}, expected two ports"));
            }
        }
        let path = self.unix_socket_path.0.as_os_str();
        if path.len() > SOCKET_PATH_MAX {
            let problem = format!("found a path of {} bytes, expected at most {SOCKET_PATH_MAX}", path.len());
            found.add(&["network.unix_socket_path"], problem);
        }
        found.at_least("network.max_connections", &self.max_connections, &1);
    }
}

impl Cluster {
    fn check(&self, found: &mut Violations) {
        found.name("cluster.cluster_name", &self.cluster_name);
        if let Some(zone) = &self.zone {
            found.name("cluster.zone", zone);
        }
        found.within("cluster.replication_factor", &self.replication_factor, &(1..=255));
        found.within("cluster.virtual_nodes", &self.virtual_nodes, &(1..=10_000));
        found.within("cluster.gossip_fanout", &self.gossip_fanout, &(1..=1_000));
        if let Auto::Fixed(weight) = &self.weight {
            found.within("cluster.weight", weight, &(0..=10_000));
        }
        self.check_acks(found);
        self.check_times(found);
    }

    fn check_acks(&self, found: &mut Violations) {
        let WriteAcks::Count(count) = self.write_acks else { return };
        if count == 0 || count > self.replication_factor {
            let copies = self.replication_factor;
            let problem = format!("found {count} write_acks, expected 1 to {copies}, the replication_factor");
            found.add(&["cluster.write_acks", "cluster.replication_factor"], problem);
        }
    }

    fn check_times(&self, found: &mut Violations) {
        let (interval, timeout) = (self.gossip_interval_ms, self.failure_detection_timeout_ms);
        found.within("cluster.gossip_interval_ms", &interval, &(1..=3_600_000));
        found.within("cluster.failure_detection_timeout_ms", &timeout, &(1..=86_400_000));
        found.within("cluster.peer_timeout_ms", &self.peer_timeout_ms, &(1..=3_600_000));
        if timeout <= interval {
            let problem = format!(
                "found a failure_detection_timeout_ms of {timeout} and a gossip_interval_ms of {interval}, \
                 expected the timeout to be longer"
            );
            found.add(&["cluster.failure_detection_timeout_ms", "cluster.gossip_interval_ms"], problem);
        }
    }
}

impl Tls {
    fn check(&self, found: &mut Violations) {
        let (cert, key) = (self.cert_file.is_some(), self.key_file.is_some());
        if cert && !key {
            found.needs("tls.cert_file", "tls.key_file");
        }
        if key && !cert {
            found.needs("tls.key_file", "tls.cert_file");
        }
        if self.client_ca_file.is_some() && !cert {
            found.needs("tls.client_ca_file", "tls.cert_file");
        }
    }
}

impl Limits {
    fn check(&self, found: &mut Violations) {
        found.at_least("limits.connections", &self.connections, &1);
        found.at_least("limits.connections_per_address", &self.connections_per_address, &1);
        found.within("limits.request_line", &self.request_line, &(Size::new(256)..=Size::mib(1)));
        found.within("limits.headers", &self.headers, &(Size::kib(1)..=Size::mib(1)));
        found.within("limits.value_size", &self.value_size, &(Size::new(1)..=VALUE_SIZE_MAX));
        found.within(
            "limits.buffered_per_connection",
            &self.buffered_per_connection,
            &(Size::kib(64)..=Size::gib(1)),
        );
        for (key, timeout) in [
            ("limits.header_timeout", self.header_timeout),
            ("limits.idle_timeout", self.idle_timeout),
            ("limits.body_stall_timeout", self.body_stall_timeout),
            ("limits.first_byte_timeout", self.first_byte_timeout),
            ("limits.upload_ttl", self.upload_ttl),
        ] {
            found.at_least(key, &timeout, &Duration::from_millis(1));
        }
    }
}

impl Performance {
    fn check(&self, found: &mut Violations) {
        if let Auto::Fixed(threads) = &self.worker_threads {
            found.within("performance.worker_threads", threads, &(1..=1_024));
        }
        let operations = 1..=65_536;
        found.within("performance.max_concurrent_disk_ops", &self.max_concurrent_disk_ops, &operations);
        found.within("performance.max_concurrent_network_ops", &self.max_concurrent_network_ops, &operations);
        found.within("performance.prefetch_chunks", &self.prefetch_chunks, &(0..=1_024));
    }
}

fn check_quotas(quotas: &[Quota], found: &mut Violations) {
    for (index, quota) in quotas.iter().enumerate() {
        if quotas.iter().take(index).any(|earlier| earlier.prefix == quota.prefix) {
            found.wrong("quotas", &quota.prefix, "each prefix once");
        }
    }
}

/// A scheme, a host and perhaps a port, as browsers send it: nothing after them, or no `Origin` ever equals it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return matches!(text, "*" | "null") };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | '*' | ',' | '\\');
    let schemed = !scheme.is_empty()
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
    schemed && !host.is_empty() && host.chars().all(plain)
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, keys: &[&'static str], problem: String) {
        self.0.push(Violation { keys: keys.to_vec(), problem });
    }

    fn wrong<T: Setting>(&mut self, key: &'static str, value: &T, expected: &str) {
        self.add(&[key], format!("found {}, expected {expected}", value.json()));
    }

    fn at_least<T: Setting + PartialOrd>(&mut self, key: &'static str, value: &T, least: &T) {
        if value < least {
            self.wrong(key, value, &format!("at least {}", least.json()));
        }
    }

    fn within<T: Setting + PartialOrd>(&mut self, key: &'static str, value: &T, range: &RangeInclusive<T>) {
        if !range.contains(value) {
            self.wrong(key, value, &format!("{} to {}", range.start().json(), range.end().json()));
        }
    }

    /// Names travel in logs, metrics and messages, so they are short and fit on a line.
    fn name(&mut self, key: &'static str, name: &String) {
        if name.len() > 255 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            self.wrong(key, name, "at most 255 bytes without spaces or control characters");
        }
    }

    fn needs(&mut self, key: &'static str, other: &'static str) {
        self.add(&[key, other], format!("found {key} without {other}, expected both"));
    }

    fn watermarks(&mut self, low: (&'static str, f64), high: (&'static str, f64)) {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        for (key, value) in [low, high].into_iter().filter(|(_, value)| !share(*value)) {
            self.wrong(key, &value, "a share above 0 and up to 1");
        }
        if low.1 >= high.1 && share(low.1) && share(high.1) {
            let problem = format!(
                "found {} {} and {} {}, expected the low one to be lower",
                low.0, low.1, high.0, high.1
            );
            self.add(&[low.0, high.0], problem);
        }
    }
}
