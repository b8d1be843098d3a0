//! Every metric there is: the one place to add another, together with its row in `docs/metrics.md`.

use elcache_core::tier::{DeviceUsage, DirectoryUsage, TierName, Usage};

use crate::encode::{Samples, Value};
use crate::histogram::Histogram;
use crate::process::{Process, Stat};
use crate::{Metrics, Snapshot, TierMetrics, Transport, UploadMetrics};

/// What samples are collected from.
pub(crate) struct Source<'a> {
    pub(crate) metrics: &'a Metrics,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) process: &'a Process,
}

/// A metric with all its labels.
pub(crate) struct Family {
    /// As samples are called, with `_total` and `_info`, without `_bucket`, `_sum` and `_count`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    /// `bytes`, `seconds`, or nothing for plain numbers.
    pub(crate) unit: &'static str,
    pub(crate) help: &'static str,
    pub(crate) collect: fn(&Source<'_>, &mut Samples<'_>),
}

/// A family's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Family {
    /// The family's name in OpenMetrics, which belongs to the samples' names without their suffix.
    pub(crate) fn base_name(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// The unit, if the name ends in it: OpenMetrics knows units only there.
    pub(crate) fn unit_in_name(&self) -> Option<&'static str> {
        let rest = self.base_name().strip_suffix(self.unit)?;
        (!self.unit.is_empty() && rest.ends_with('_')).then_some(self.unit)
    }
}

/// All of them, in the order of the page.
pub(crate) static FAMILIES: &[Family] = &[
    Family {
        name: "elcache_build_info",
        kind: Kind::Info,
        labels: &["version"],
        unit: "",
        help: "The version that runs. Always 1.",
        collect: |_, to| to.put(&[env!("CARGO_PKG_VERSION")], 1_u64),
    },
    Family {
        name: "elcache_uptime_seconds",
        kind: Kind::Gauge,
        labels: &[],
        unit: "seconds",
        help: "Time since the node started.",
        collect: |from, to| to.put(&[], from.snapshot.uptime.as_secs_f64()),
    },
    Family {
        name: "elcache_cache_hits_total",
        kind: Kind::Counter,
        labels: &["tier"],
        unit: "",
        help: "Look-ups that found all of what was asked for.",
        collect: |from, to| count(from, to, |tier| tier.hits.get()),
    },
    Family {
        name: "elcache_cache_misses_total",
        kind: Kind::Counter,
        labels: &["tier"],
        unit: "",
        help: "Look-ups that found nothing.",
        collect: |from, to| count(from, to, |tier| tier.misses.get()),
    },
    Family {
        name: "elcache_cache_partial_hits_total",
        kind: Kind::Counter,
        labels: &["tier"],
        unit: "",
        help: "Look-ups that found some of what was asked for.",
        collect: |from, to| count(from, to, |tier| tier.partial_hits.get()),
    },
    Family {
        name: "elcache_bytes_read_total",
        kind: Kind::Counter,
        labels: &["tier"],
        unit: "bytes",
        help: "Bytes of values that the tier gave.",
        collect: |from, to| count(from, to, |tier| tier.bytes_read.get()),
    },
    Family {
        name: "elcache_bytes_written_total",
        kind: Kind::Counter,
        labels: &["tier"],
        unit: "bytes",
        help: "Bytes of values that the tier took.",
        collect: |from, to| count(from, to, |tier| tier.bytes_written.get()),
    },
    Family {
        name: "elcache_evictions_total",
        kind: Kind::Counter,
        labels: &["tier", "reason"],
        unit: "",
        help: "Entries that went to make room (room), or because their time was over (expired).",
        collect: |from, to| {
            for (tier, usage) in &from.snapshot.tiers {
                to.put(&[tier.as_str(), "room"], usage.evicted_for_room);
                to.put(&[tier.as_str(), "expired"], usage.evicted_expired);
            }
        },
    },
    Family {
        name: "elcache_cache_entries",
        kind: Kind::Gauge,
        labels: &["tier"],
        unit: "",
        help: "Values that the tier holds.",
        collect: |from, to| {
            for (tier, usage) in &from.snapshot.tiers {
                to.put(&[tier.as_str()], usage.entries);
            }
        },
    },
    Family {
        name: "elcache_memory_cache_size_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes that the memory tier uses, bookkeeping included.",
        collect: |from, to| memory(from, to, |usage| usage.size_bytes),
    },
    Family {
        name: "elcache_memory_cache_capacity_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes that the memory tier may use.",
        collect: |from, to| memory(from, to, |usage| usage.capacity_bytes),
    },
    Family {
        name: "elcache_memory_index_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes of elcache_memory_cache_size_bytes that are bookkeeping.",
        collect: |from, to| memory(from, to, |usage| usage.index_bytes),
    },
    Family {
        name: "elcache_disk_cache_size_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes that the files of the disk tier occupy.",
        collect: |from, to| disk(from, to, |usage| usage.size_bytes),
    },
    Family {
        name: "elcache_disk_cache_capacity_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes that the files of the disk tier may occupy.",
        collect: |from, to| disk(from, to, |usage| usage.capacity_bytes),
    },
    Family {
        name: "elcache_disk_index_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes of memory that the disk tier's index takes.",
        collect: |from, to| disk(from, to, |usage| usage.index_bytes),
    },
    Family {
        name: "elcache_disk_write_amplification",
        kind: Kind::Gauge,
        labels: &[],
        unit: "",
        help: "Bytes written to the disk for each byte of values given to it, since the start.",
        collect: |from, to| {
            let ratio = |usage: &DeviceUsage| usage.written_bytes as f64 / usage.stored_bytes as f64;
            known(to, device(from).filter(|usage| usage.stored_bytes > 0).map(|usage| ratio(&usage)));
        },
    },
    Family {
        name: "elcache_disk_read_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "bytes",
        help: "Bytes that came from the disk, with what describes and verifies them.",
        collect: |from, to| known(to, device(from).map(|usage| usage.read_bytes)),
    },
    Family {
        name: "elcache_disk_written_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "bytes",
        help: "Bytes that went to the disk, with what describes and verifies them.",
        collect: |from, to| known(to, device(from).map(|usage| usage.written_bytes)),
    },
    Family {
        name: "elcache_disk_rewritten_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "bytes",
        help: "Bytes of elcache_disk_written_bytes_total that were there before, and were written again because they are in use.",
        collect: |from, to| known(to, device(from).map(|usage| usage.rewritten_bytes)),
    },
    Family {
        name: "elcache_disk_projected_bytes_per_day",
        kind: Kind::Gauge,
        labels: &[],
        unit: "",
        help: "Bytes that would be written to the disk in a day if it went on as in the past hour.",
        collect: |from, to| known(to, device(from).map(|usage| usage.projected_bytes_per_day)),
    },
    Family {
        name: "elcache_disk_scrubbed_bytes_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "bytes",
        help: "Bytes that were read from the disk only to verify them.",
        collect: |from, to| known(to, device(from).map(|usage| usage.scrubbed_bytes)),
    },
    Family {
        name: "elcache_disk_scrub_left_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes of the disk that the present pass of verifying everything has still to look at.",
        collect: |from, to| known(to, device(from).map(|usage| usage.scrub_left_bytes)),
    },
    Family {
        name: "elcache_disk_errors_total",
        kind: Kind::Counter,
        labels: &["kind"],
        unit: "",
        help: "Operations on the disk that failed (io), and records that did not verify (damaged).",
        collect: |from, to| {
            if let Some(usage) = device(from) {
                to.put(&["io"], usage.io_errors);
                to.put(&["damaged"], usage.damaged);
            }
        },
    },
    Family {
        name: "elcache_disk_directory_in_service",
        kind: Kind::Gauge,
        labels: &["directory"],
        unit: "",
        help: "Whether the directory is read and written: 1, or 0.",
        collect: |from, to| directories(from, to, |usage| u64::from(usage.in_service)),
    },
    Family {
        name: "elcache_disk_directory_size_bytes",
        kind: Kind::Gauge,
        labels: &["directory"],
        unit: "bytes",
        help: "Bytes that the directory's files occupy, 0 while it is not in service.",
        collect: |from, to| directories(from, to, |usage| usage.size_bytes),
    },
    Family {
        name: "elcache_disk_directory_capacity_bytes",
        kind: Kind::Gauge,
        labels: &["directory"],
        unit: "bytes",
        help: "Bytes that the directory's files may occupy.",
        collect: |from, to| directories(from, to, |usage| usage.capacity_bytes),
    },
    Family {
        name: "elcache_disk_directory_errors_total",
        kind: Kind::Counter,
        labels: &["directory"],
        unit: "",
        help: "Operations on the directory that failed.",
        collect: |from, to| directories(from, to, |usage| usage.errors),
    },
    Family {
        name: "elcache_io_engine_info",
        kind: Kind::Info,
        labels: &["engine"],
        unit: "",
        help: "What reads and writes the disk. Always 1.",
        collect: |from, to| {
            if let Some(usage) = device(from) {
                to.put(&[usage.engine], 1_u64);
            }
        },
    },
    Family {
        name: "elcache_get_latency_seconds",
        kind: Kind::Histogram,
        labels: &["tier"],
        unit: "seconds",
        help: "How long gets took.",
        collect: |from, to| latency(from, to, |tier| &tier.get_latency),
    },
    Family {
        name: "elcache_put_latency_seconds",
        kind: Kind::Histogram,
        labels: &["tier"],
        unit: "seconds",
        help: "How long puts took.",
        collect: |from, to| latency(from, to, |tier| &tier.put_latency),
    },
    Family {
        name: "elcache_http_requests_total",
        kind: Kind::Counter,
        labels: &["method", "code"],
        unit: "",
        help: "HTTP requests answered, by method and status code.",
        collect: |from, to| {
            from.metrics.requests.for_each(|method, code, requests| to.put(&[method, code], requests));
        },
    },
    Family {
        name: "elcache_local_requests_total",
        kind: Kind::Counter,
        labels: &["transport", "op", "status"],
        unit: "",
        help: "Requests of local clients answered, by transport, operation and status.",
        collect: |from, to| {
            from.metrics.local_requests.for_each(|labels, requests| to.put(&labels, requests));
        },
    },
    Family {
        name: "elcache_connections",
        kind: Kind::Gauge,
        labels: &["transport"],
        unit: "",
        help: "Open connections of clients, one over shared memory under both its transports.",
        collect: |from, to| {
            for transport in Transport::ALL {
                to.put(&[transport.as_str()], from.metrics.connections(transport).get());
            }
        },
    },
    Family {
        name: "elcache_uploads",
        kind: Kind::Gauge,
        labels: &["state"],
        unit: "",
        help: "Uploads by ranges that are in progress (open).",
        collect: |from, to| {
            if let Some(usage) = from.snapshot.uploads {
                to.put(&["open"], usage.open);
            }
        },
    },
    Family {
        name: "elcache_uploads_opened_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "",
        help: "Uploads by ranges that were opened.",
        collect: |from, to| known(to, uploads(from).map(|uploads| uploads.opened.get())),
    },
    Family {
        name: "elcache_uploads_ended_total",
        kind: Kind::Counter,
        labels: &["result"],
        unit: "",
        help: "Uploads by ranges that became a value (finalized), were given up by a client (aborted), rested for too long (expired) or were lost with the place that they were in (lost).",
        collect: |from, to| {
            if let Some(uploads) = uploads(from) {
                to.put(&["finalized"], uploads.finalized.get());
                to.put(&["aborted"], uploads.aborted.get());
                to.put(&["expired"], uploads.expired.get());
                to.put(&["lost"], uploads.lost.get());
            }
        },
    },
    Family {
        name: "elcache_uploads_staged_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes of the tiers that are kept for uploads by ranges.",
        collect: |from, to| known(to, from.snapshot.uploads.map(|usage| usage.staged_bytes)),
    },
    Family {
        name: "elcache_uploads_map_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Bytes of memory that knowing which ranges are written takes.",
        collect: |from, to| known(to, from.snapshot.uploads.map(|usage| usage.map_bytes)),
    },
    Family {
        name: "elcache_upload_ranges_total",
        kind: Kind::Counter,
        labels: &["result"],
        unit: "",
        help: "Ranges of uploads that were written, that were refused or could not be written (refused), and that did not arrive to their end (cut_off).",
        collect: |from, to| {
            if let Some(uploads) = uploads(from) {
                to.put(&["written"], uploads.ranges_written.get());
                to.put(&["refused"], uploads.ranges_refused.get());
                to.put(&["cut_off"], uploads.ranges_cut_off.get());
            }
        },
    },
    Family {
        name: "elcache_upload_chunks_combined_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "",
        help: "Chunks of uploads that were put together from ranges.",
        collect: |from, to| known(to, uploads(from).map(|uploads| uploads.chunks_combined.get())),
    },
    Family {
        name: "elcache_upload_lost_ranges_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "",
        help: "Ranges of uploads that had been written and are missing again.",
        collect: |from, to| known(to, uploads(from).map(|uploads| uploads.lost_ranges.get())),
    },
    Family {
        name: "process_cpu_seconds_total",
        kind: Kind::Counter,
        labels: &[],
        unit: "seconds",
        help: "Processor time used, user and system.",
        collect: |from, to| stat(from, to, |stat| stat.cpu_seconds),
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Memory that is resident.",
        collect: |from, to| stat(from, to, |stat| stat.resident_bytes),
    },
    Family {
        name: "process_virtual_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        unit: "bytes",
        help: "Address space in use.",
        collect: |from, to| stat(from, to, |stat| stat.virtual_bytes),
    },
    Family {
        name: "process_threads",
        kind: Kind::Gauge,
        labels: &[],
        unit: "",
        help: "Threads of the process.",
        collect: |from, to| stat(from, to, |stat| stat.threads),
    },
    Family {
        name: "process_open_fds",
        kind: Kind::Gauge,
        labels: &[],
        unit: "",
        help: "File descriptors that are open.",
        collect: |from, to| known(to, from.process.open_fds),
    },
    Family {
        name: "process_max_fds",
        kind: Kind::Gauge,
        labels: &[],
        unit: "",
        help: "File descriptors that may be open.",
        collect: |from, to| known(to, from.process.max_fds),
    },
    Family {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        unit: "seconds",
        help: "When the process started, since 1970.",
        collect: |from, to| known(to, from.process.start_time_seconds),
    },
];

/// A counter of each tier.
fn count(from: &Source<'_>, to: &mut Samples<'_>, counter: fn(&TierMetrics) -> u64) {
    for (tier, _) in &from.snapshot.tiers {
        to.put(&[tier.as_str()], counter(from.metrics.tier(*tier)));
    }
}

/// A histogram of each tier.
fn latency(from: &Source<'_>, to: &mut Samples<'_>, histogram: fn(&TierMetrics) -> &Histogram) {
    for (tier, _) in &from.snapshot.tiers {
        to.histogram(&[tier.as_str()], &histogram(from.metrics.tier(*tier)).totals());
    }
}

/// A number of the memory tier, if there is one.
fn memory(from: &Source<'_>, to: &mut Samples<'_>, number: fn(&Usage) -> u64) {
    let memory = from.snapshot.tiers.iter().find(|(tier, _)| *tier == TierName::Memory);
    known(to, memory.map(|(_, usage)| number(usage)));
}

/// A number of the disk tier, if there is one.
fn disk(from: &Source<'_>, to: &mut Samples<'_>, number: fn(&Usage) -> u64) {
    let disk = from.snapshot.tiers.iter().find(|(tier, _)| *tier == TierName::Disk);
    known(to, disk.map(|(_, usage)| number(usage)));
}

/// What the disk tier does to its device, if there is one.
fn device(from: &Source<'_>) -> Option<DeviceUsage> {
    from.snapshot.tiers.iter().find_map(|(_, usage)| usage.device)
}

/// What is counted of uploads, where there can be any.
fn uploads<'a>(from: &Source<'a>) -> Option<&'a UploadMetrics> {
    from.snapshot.uploads.map(|_| &from.metrics.uploads)
}

/// A number of each directory.
fn directories(from: &Source<'_>, to: &mut Samples<'_>, number: fn(&DirectoryUsage) -> u64) {
    for directory in &from.snapshot.directories {
        to.put(&[&directory.path], number(directory));
    }
}

/// A number of the process, if it could be read.
fn stat<V: Into<Value>>(from: &Source<'_>, to: &mut Samples<'_>, number: fn(&Stat) -> V) {
    known(to, from.process.stat.as_ref().map(number));
}

fn known(to: &mut Samples<'_>, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        to.put(&[], value);
    }
}
