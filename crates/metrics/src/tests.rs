//! The page as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use proptest::prelude::*;

use elcache_core::tier::{DeviceUsage, DirectoryUsage};

use super::*;
use crate::families::{FAMILIES, Family};
use crate::histogram::BOUNDS;
use crate::process::Stat;

const FORMATS: [Format; 2] = [Format::Text, Format::OpenMetrics];

fn process() -> Process {
    Process {
        stat: Some(Stat {
            cpu_seconds: 12.5,
            threads: 6,
            started_seconds: 1000.25,
            virtual_bytes: 1 << 30,
            resident_bytes: 64 << 20,
        }),
        start_time_seconds: Some(1_700_001_000.25),
        open_fds: Some(17),
        max_fds: Some(f64::INFINITY),
    }
}

fn directories(has_disk: bool) -> Vec<DirectoryUsage> {
    let directory = |path: &str, in_service| DirectoryUsage {
        path: path.to_owned(),
        in_service,
        size_bytes: if in_service { 2_500_000 } else { 0 },
        capacity_bytes: 1 << 29,
        errors: u64::from(!in_service),
    };
    if has_disk { vec![directory("/a", true), directory("/b \"\\\n", false)] } else { Vec::new() }
}

fn snapshot(tiers: &[TierName]) -> Snapshot {
    let usage = Usage {
        entries: 3,
        size_bytes: 5_000_000,
        capacity_bytes: 1 << 30,
        index_bytes: 4096,
        staged_bytes: 0,
        evicted_for_room: 7,
        evicted_expired: 2,
        device: None,
    };
    let device = DeviceUsage {
        engine: "io_uring",
        stored_bytes: 100,
        written_bytes: 110,
        rewritten_bytes: 5,
        projected_bytes_per_day: 9000,
        scrubbed_bytes: 70,
        scrub_left_bytes: 30,
        ..DeviceUsage::default()
    };
    let of = |tier: TierName| Usage { device: (tier == TierName::Disk).then_some(device), ..usage };
    Snapshot {
        tiers: tiers.iter().map(|tier| (*tier, of(*tier))).collect(),
        directories: directories(tiers.contains(&TierName::Disk)),
        uploads: Some(UploadUsage { open: 2, staged_bytes: 6_000_000, map_bytes: 700 }),
        uptime: Duration::from_millis(90_500),
    }
}

/// Metrics with something in every family.
fn touched() -> Arc<Metrics> {
    let metrics = Metrics::new();
    let memory = metrics.tier(TierName::Memory);
    memory.hits.add(10);
    memory.misses.inc();
    memory.partial_hits.add(2);
    memory.bytes_read.add(1 << 40);
    memory.bytes_written.add(4096);
    for micros in [3, 10, 11, 700, 20_000_000] {
        memory.get_latency.observe(Duration::from_micros(micros));
    }
    memory.put_latency.observe(Duration::from_millis(2));
    for (method, code) in [("GET", 200), ("GET", 200), ("PUT", 201), ("BREW", 418), ("GET", 999)] {
        metrics.http_request(method, code);
    }
    for (op, status) in [("GET", "ok"), ("PUT", "busy")] {
        metrics.local_request(Transport::Unix, op, status);
    }
    for _ in 0..3 {
        metrics.connections(Transport::Http).inc();
    }
    metrics.connections(Transport::Http).dec();
    let uploads = &metrics.uploads;
    let counters = [
        (&uploads.opened, 12),
        (&uploads.finalized, 4),
        (&uploads.aborted, 3),
        (&uploads.expired, 2),
        (&uploads.lost, 1),
        (&uploads.ranges_written, 90),
        (&uploads.ranges_refused, 8),
        (&uploads.ranges_cut_off, 7),
        (&uploads.chunks_combined, 6),
        (&uploads.lost_ranges, 5),
    ];
    counters.iter().for_each(|(counter, count)| counter.add(*count));
    metrics
}

fn touched_page(format: Format) -> String {
    touched().render_with(format, &snapshot(&[TierName::Memory, TierName::Disk]), &process())
}

fn with_version(golden: &str) -> String {
    golden.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
}

#[test]
fn the_page_is_exactly_this_as_text() {
    assert_eq!(touched_page(Format::Text), with_version(include_str!("golden/page.txt")));
}

#[test]
fn the_page_is_exactly_this_as_open_metrics() {
    assert_eq!(touched_page(Format::OpenMetrics), with_version(include_str!("golden/page.openmetrics.txt")));
}

/// A page read back.
#[derive(Debug, Default)]
struct Parsed {
    /// Family to type.
    types: BTreeMap<String, String>,
    helped: BTreeSet<String>,
    units: BTreeMap<String, String>,
    /// Family, sample's name, labels as written, value.
    samples: Vec<(String, String, String, f64)>,
}

impl Parsed {
    /// Reads a page, and checks the order that both formats ask for: a family's samples stand together under its
    /// header.
    fn of(page: &str) -> Self {
        let mut parsed = Self::default();
        let mut family = String::new();
        assert!(page.ends_with('\n'));
        for line in page.lines().filter(|line| *line != "# EOF") {
            if let Some(header) = line.strip_prefix("# ") {
                let [what, name, rest] = header.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                name.clone_into(&mut family);
                let first = match what {
                    "HELP" => parsed.helped.insert(name.to_owned()),
                    "TYPE" => parsed.types.insert(name.to_owned(), rest.to_owned()).is_none(),
                    "UNIT" => parsed.units.insert(name.to_owned(), rest.to_owned()).is_none(),
                    _ => panic!("{line}"),
                };
                assert!(first, "twice: {line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("an end of labels")),
                None => (series, ""),
            };
            assert!(name.starts_with(&family), "{line} stands under {family}");
            let value = value.parse().expect("a number");
            parsed.samples.push((family.clone(), name.to_owned(), labels.to_owned(), value));
        }
        parsed
    }

    fn value(&self, name: &str, labels: &str) -> Option<f64> {
        let sample = self.samples.iter().find(|sample| sample.1 == name && sample.2 == labels);
        sample.map(|(.., value)| *value)
    }

    fn series(&self) -> BTreeSet<(&str, &str)> {
        self.samples.iter().map(|(_, name, labels, _)| (name.as_str(), labels.as_str())).collect()
    }
}

#[test]
fn every_sample_reads_back_with_type_and_help_and_no_series_comes_twice() {
    for format in FORMATS {
        let parsed = Parsed::of(&touched_page(format));
        assert_eq!(parsed.types.len(), FAMILIES.len());
        assert!(parsed.types.keys().eq(&parsed.helped));
        assert_eq!(parsed.series().len(), parsed.samples.len());
        let memory = "tier=\"memory\"";
        let value = |name| parsed.value(name, memory).expect("a sample");
        assert_eq!(value("elcache_bytes_read_total"), (1_u64 << 40) as f64);
        assert_eq!(value("elcache_get_latency_seconds_count"), 5.0);
        assert_eq!(value("elcache_get_latency_seconds_sum"), 20.000_724);
        assert_eq!(
            parsed.value("elcache_get_latency_seconds_bucket", "tier=\"memory\",le=\"1e-05\""),
            Some(2.0)
        );
        assert_eq!(parsed.value("elcache_http_requests_total", "method=\"GET\",code=\"200\""), Some(2.0));
        assert_eq!(parsed.value("process_max_fds", ""), Some(f64::INFINITY));
    }
}

#[test]
fn both_formats_have_the_same_series_with_the_same_values() {
    let [text, open] = FORMATS.map(|format| Parsed::of(&touched_page(format)));
    let series = |parsed: Parsed| -> Vec<_> {
        parsed.samples.into_iter().map(|(_, name, labels, value)| (name, labels, value.to_bits())).collect()
    };
    assert_eq!(series(text), series(open));
}

#[test]
fn open_metrics_ends_in_eof_and_names_families_without_their_suffix() {
    let page = touched_page(Format::OpenMetrics);
    assert!(page.ends_with("\n# EOF\n"));
    assert_eq!(page.matches("# EOF").count(), 1);
    let parsed = Parsed::of(&page);
    for (family, kind) in &parsed.types {
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "info" => &["_info"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => panic!("{kind}"),
        };
        assert!(!family.ends_with("_total") && !family.ends_with("_info"), "{family}");
        for (_, name, ..) in parsed.samples.iter().filter(|sample| sample.0 == *family) {
            assert!(suffixes.contains(&&name[family.len()..]), "{name} of {family}");
        }
    }
    for (family, unit) in &parsed.units {
        assert!(family.ends_with(&format!("_{unit}")), "{family} {unit}");
    }
    assert!(!touched_page(Format::Text).contains("# EOF"));
}

#[test]
fn only_tiers_that_exist_are_exposed() {
    let metrics = touched();
    metrics.tier(TierName::Disk).hits.inc();
    let render = |tiers: &[TierName]| metrics.render(Format::Text, &snapshot(tiers));
    assert!(!render(&[TierName::Memory]).contains("disk"));
    let both = Parsed::of(&render(&[TierName::Memory, TierName::Disk]));
    assert_eq!(both.value("elcache_cache_hits_total", "tier=\"disk\""), Some(1.0));
    let none = render(&[]);
    assert!(!none.contains("tier=") && !none.contains("elcache_memory_"), "{none}");
}

#[test]
fn a_family_without_samples_is_left_out_with_its_header() {
    let page = Metrics::new().render_with(Format::Text, &Snapshot::default(), &Process::default());
    let parsed = Parsed::of(&page);
    let left: Vec<&str> = parsed.types.keys().map(String::as_str).collect();
    assert_eq!(left, ["elcache_build_info", "elcache_connections", "elcache_uptime_seconds"]);
}

#[test]
fn names_end_as_their_types_ask() {
    for Family { name, labels, help, .. } in FAMILIES {
        assert!(name.starts_with("elcache_") || name.starts_with("process_"), "{name}");
        assert!(help.ends_with('.') && !help.contains(['\n', '\\', '"', '|']), "{name}");
        assert!(!labels.contains(&"le"), "{name}");
    }
    for family in FAMILIES {
        let (total, info) = (family.name.ends_with("_total"), family.name.ends_with("_info"));
        assert_eq!((total, info), (family.kind.as_str() == "counter", family.kind.as_str() == "info"));
        assert!(["", "bytes", "seconds"].contains(&family.unit), "{}", family.name);
        assert!(family.unit.is_empty() || family.name.contains(family.unit), "{}", family.name);
    }
}

#[test]
fn the_documentation_and_the_table_agree_both_ways() {
    let document = include_str!("../../../docs/metrics.md");
    let documented: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 6).collect();
    let row = |family: &Family| {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let cells = [&format!("`{}`", family.name), family.kind.as_str(), &labels, family.unit, family.help];
        format!("| {} |", cells.join(" | ")).replace("|  |", "| |").replace("|  |", "| |")
    };
    let rows: Vec<String> = FAMILIES.iter().map(row).collect();
    assert_eq!(documented, rows, "the table in docs/metrics.md should be:\n{}\n", rows.join("\n"));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Hit,
    Read(u32),
    Get(u32),
    Request(&'static str, u16),
    Open,
    Close,
}

fn event() -> impl Strategy<Value = Event> {
    let method = prop::sample::select(vec!["GET", "PUT", "DELETE", "BREW"]);
    prop_oneof![
        Just(Event::Hit),
        any::<u32>().prop_map(Event::Read),
        any::<u32>().prop_map(Event::Get),
        (method, 90_u16..610).prop_map(|(method, code)| Event::Request(method, code)),
        Just(Event::Open),
        Just(Event::Close),
    ]
}

fn count(metrics: &Metrics, event: Event) {
    let memory = metrics.tier(TierName::Memory);
    match event {
        Event::Hit => memory.hits.inc(),
        Event::Read(bytes) => memory.bytes_read.add(bytes.into()),
        Event::Get(micros) => memory.get_latency.observe(Duration::from_micros(micros.into())),
        Event::Request(method, code) => metrics.http_request(method, code),
        Event::Open => metrics.connections(Transport::Http).inc(),
        Event::Close => metrics.connections(Transport::Http).dec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_many_threads_count_is_what_one_thread_counts(
        work in prop::collection::vec(prop::collection::vec(event(), 0..200), 1..12),
    ) {
        let (together, alone) = (Metrics::new(), Metrics::new());
        thread::scope(|scope| {
            for events in &work {
                scope.spawn(|| events.iter().for_each(|event| count(&together, *event)));
            }
        });
        work.iter().flatten().for_each(|event| count(&alone, *event));
        let page = |metrics: &Metrics| {
            metrics.render_with(Format::Text, &snapshot(&[TierName::Memory]), &process())
        };
        prop_assert_eq!(page(&together), page(&alone));

        let all = || work.iter().flatten();
        let memory = together.tier(TierName::Memory);
        let gets = all().filter(|event| matches!(event, Event::Get(_))).count() as u64;
        let requests = all().filter(|event| matches!(event, Event::Request(..))).count() as f64;
        let parsed = Parsed::of(&page(&together));
        let shown: f64 =
            parsed.samples.iter().filter(|s| s.1 == "elcache_http_requests_total").map(|s| s.3).sum();
        prop_assert_eq!(memory.hits.get(), all().filter(|event| matches!(event, Event::Hit)).count() as u64);
        prop_assert_eq!(memory.get_latency.count(), gets);
        prop_assert_eq!(shown, requests);
    }

    #[test]
    fn buckets_only_rise_and_end_in_the_count(micros in prop::collection::vec(any::<u64>(), 0..100)) {
        let histogram = Histogram::default();
        micros.iter().for_each(|micros| histogram.observe(Duration::from_micros(micros >> (micros % 64))));
        let at_most = histogram.totals().at_most;
        prop_assert!(at_most.is_sorted());
        prop_assert_eq!(at_most[BOUNDS], micros.len() as u64);
    }
}
