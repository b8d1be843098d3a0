//! The pages about the node: `/health`, `/stats`, `/metrics`, `/cluster`; and cross-origin requests.

use std::io::Write;
use std::process::{Command, Stdio};

use elcache_tests::{Answer, Call, Node};
use serde_json::Value;

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

/// One member a line, as people read it.
fn assert_pretty(answer: &Answer) {
    for line in answer.text().lines() {
        let members = line.matches("\": ").count();
        assert!(members <= 1, "{line}");
    }
    assert!(answer.text().ends_with("}\n"));
}

#[test]
fn health_is_healthy() {
    let node = Node::plain();
    let answer = node.get("/health").expect(200);
    assert_pretty(&answer);
    assert_eq!(json(&answer), serde_json::json!({"status": "healthy"}));
    let head = node.head("/health").expect(200);
    assert_eq!(head.header("Content-Length"), answer.header("Content-Length"));
}

#[test]
fn a_lone_node_is_standalone_and_cannot_drain() {
    let node = Node::plain();
    for path in ["/cluster", "/cluster/nodes"] {
        let answer = node.get(path).expect(200);
        assert_pretty(&answer);
        assert_eq!(json(&answer), serde_json::json!({"mode": "standalone"}));
    }
    let answer = node.call(&Call::new("POST", "/cluster/drain")).expect(409);
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    node.assert_healthy();
}

#[test]
fn stats_count_what_happens() {
    let node = Node::plain();
    let stats = || json(&node.get("/stats").expect(200));
    let before = stats();
    for name in [
        "hits",
        "misses",
        "partial_hits",
        "bytes_read",
        "bytes_written",
        "evictions",
        "entry_count",
        "size_bytes",
        "hit_rate_percent",
    ] {
        assert_eq!(before[name], 0, "{name}");
        assert_eq!(before["tiers"]["memory"][name], 0, "{name}");
    }
    let capacity = before["capacity_bytes"].as_u64().unwrap();
    assert!(capacity > 32 << 20 && capacity <= 64 << 20, "{capacity}");
    for number in 0..10 {
        node.put(&format!("/cache/{number}"), vec![number; 10_000]);
    }
    for number in 0..20 {
        node.get(&format!("/cache/{number}"));
    }
    node.call(&Call::get("/cache/3").with("Range", "bytes=0-99")).expect(206);
    let after = stats();
    assert_eq!((&after["hits"], &after["misses"]), (&11.into(), &10.into()), "{after}");
    assert_eq!(after["hit_rate_percent"], 52, "floored");
    assert_eq!(after["entry_count"], 10);
    assert_eq!(after["bytes_written"], 100_000);
    assert_eq!(after["bytes_read"], 100_100);
    let size = after["size_bytes"].as_u64().unwrap();
    assert!((100_000..300_000).contains(&size), "{size}");
    assert_eq!(after["tiers"]["memory"]["entry_count"], 10);
    for number in 0..10 {
        node.delete(&format!("/cache/{number}")).expect(204);
    }
    let empty = stats();
    assert_eq!(empty["entry_count"], 0);
    assert!(empty["size_bytes"].as_u64().unwrap() < 65_536, "no more than the index: {empty}");
    assert_pretty(&node.get("/stats"));
}

#[test]
fn evictions_are_counted() {
    let node = Node::start(&["-m", "16"], &[]);
    let mut connection = node.connect();
    for number in 0..400 {
        connection.call(&Call::put(format!("/cache/{number}"), vec![1; 100_000])).expect(201);
    }
    let stats = json(&node.get("/stats"));
    let (entries, evictions) = (stats["entry_count"].as_u64().unwrap(), stats["evictions"].as_u64().unwrap());
    assert!(evictions > 0 && entries < 200, "{stats}");
    assert!(stats["size_bytes"].as_u64() <= stats["capacity_bytes"].as_u64(), "{stats}");
}

#[test]
fn metrics_come_in_both_formats() {
    let node = Node::plain();
    node.put("/cache/a", "value");
    node.get("/cache/a").expect(200);
    node.get("/cache/none").expect(404);
    let text = node.get("/metrics").expect(200);
    assert_eq!(text.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for name in [
        "elcache_cache_hits_total{tier=\"memory\"} 1",
        "elcache_cache_misses_total",
        "elcache_cache_partial_hits_total",
        "elcache_bytes_read_total",
        "elcache_bytes_written_total",
        "elcache_evictions_total",
        "elcache_memory_cache_size_bytes",
        "elcache_memory_cache_capacity_bytes",
        "elcache_memory_index_bytes",
        "elcache_get_latency_seconds_bucket",
        "elcache_put_latency_seconds_count",
        "elcache_http_requests_total{method=\"GET\",code=\"404\"} 1",
        "elcache_connections{transport=\"http\"}",
        "elcache_build_info",
        "elcache_uptime_seconds",
        "process_resident_memory_bytes",
    ] {
        assert!(text.text().lines().any(|line| line.starts_with(name)), "no {name} in\n{}", text.text());
    }
    let accept = "application/openmetrics-text; version=1.0.0, text/plain;q=0.5";
    let open = node.call(&Call::get("/metrics").with("Accept", accept)).expect(200);
    assert!(open.header("Content-Type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.text().ends_with("# EOF\n"));
    assert!(!text.text().contains("# EOF"));
}

#[test]
fn every_sample_of_the_metrics_is_announced_once_and_is_a_number() {
    let node = Node::plain();
    node.put("/cache/a", "value");
    let page = node.get("/metrics").expect(200);
    let mut announced = std::collections::HashSet::new();
    let mut samples = std::collections::HashSet::new();
    for line in page.text().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(announced.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series.to_owned()), "twice: {line}");
            let name = series.split('{').next().unwrap();
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(announced.contains(name) || stem.is_some_and(|stem| announced.contains(stem)), "{line}");
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    let node = Node::plain();
    node.put("/cache/a", "value");
    let page = node.get("/metrics").expect(200);
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = promtool else {
        eprintln!("SKIPPED: promtool is not installed, so nobody but this suite has read the metrics");
        return;
    };
    child.stdin.take().unwrap().write_all(&page.body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn cross_origin_requests_get_nothing_unless_configured() {
    let node = Node::plain();
    node.put("/cache/a", "value");
    let answer = node.call(&Call::get("/cache/a").with("Origin", "https://a.example")).expect(200);
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("Access-Control")), "{answer:?}");
}

#[test]
fn configured_origins_may_use_the_cache() {
    let origins = "[\"https://a.example\", \"https://b.example\"]";
    let node = Node::start(&["-m", "64"], &[("ELCACHE__HTTP__CORS_ORIGINS", origins)]);
    node.put("/cache/a", "value");
    for path in ["/cache/a", "/cache/none", "/health"] {
        let answer = node.call(&Call::get(path).with("Origin", "https://b.example"));
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("https://b.example"), "{path}");
        let exposed = answer.header("Access-Control-Expose-Headers").expect("exposed headers");
        assert!(exposed.contains("ETag") && exposed.contains("X-ElCache-Hit"), "{exposed}");
        assert!(answer.all("Vary").any(|value| value.contains("Origin")));
    }
    for origin in ["https://c.example", "https://a.example.evil", "null", "http://a.example"] {
        let answer = node.call(&Call::get("/cache/a").with("Origin", origin)).expect(200);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{origin}");
    }
    let preflight = Call::new("OPTIONS", "/cache/a")
        .with("Origin", "https://a.example")
        .with("Access-Control-Request-Method", "PUT")
        .with("Access-Control-Request-Headers", "x-elcache-ttl");
    let answer = node.call(&preflight).expect(204);
    assert!(answer.header("Access-Control-Allow-Methods").is_some_and(|methods| methods.contains("PUT")));
    assert_eq!(answer.header("Access-Control-Allow-Headers"), Some("x-elcache-ttl"));
}

#[test]
fn any_origin_may_be_allowed() {
    let node = Node::start(&["-m", "64"], &[("ELCACHE__HTTP__CORS_ORIGINS", "[\"*\"]")]);
    let answer = node.call(&Call::get("/cache/none").with("Origin", "https://x.example")).expect(404);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
}
