//! `promtool check metrics`, which comes with Prometheus, reads the page and finds nothing to say about it.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use elcache_core::tier::{DirectoryUsage, TierName, Usage};
use elcache_metrics::{Format, Metrics, Snapshot, Transport, UploadUsage};

fn find_promtool() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join("promtool")).find(|program| program.is_file())
}

fn page() -> String {
    let metrics = Metrics::new();
    let memory = metrics.tier(TierName::Memory);
    memory.hits.inc();
    memory.get_latency.observe(Duration::from_micros(42));
    memory.put_latency.observe(Duration::from_secs(42));
    for (method, code) in [("GET", 200), ("PUT", 201), ("BREW", 501)] {
        metrics.http_request(method, code);
    }
    metrics.connections(Transport::Http).inc();
    let tiers = vec![(TierName::Memory, Usage::default())];
    let directory = DirectoryUsage { path: "a \"b\" \\".to_owned(), ..DirectoryUsage::default() };
    let directories = vec![directory];
    metrics.render(
        Format::Text,
        &Snapshot {
            tiers,
            directories,
            uploads: Some(UploadUsage::default()),
            uptime: Duration::from_secs(1),
        },
    )
}

#[test]
fn promtool_accepts_the_page() -> io::Result<()> {
    let Some(promtool) = find_promtool() else {
        // Written past the test harness, which would keep it to itself.
        return io::stderr().write_all(
            b"\nSKIPPED: promtool_accepts_the_page: no promtool in PATH (Debian has it in package prometheus)\n\n",
        );
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().expect("a pipe").write_all(page().as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{}\n{said}", output.status);
    Ok(())
}
