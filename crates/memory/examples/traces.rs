//! Replays the reference traces and prints what the memory tier's policies reach, beside what is known of them.
//!
//! `cargo run --release -p elcache-memory --example traces [PART OF A TRACE'S NAME]`
//!
//! To add a policy: a file in `traces/` with its `Replay`, and a line in `POLICIES`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

#[path = "traces/arc_core.rs"]
mod arc_core;
#[path = "traces/replay.rs"]
mod replay;
#[path = "traces/trace.rs"]
mod trace;

use std::time::Instant;

use arc_core::ArcCore;
use replay::{Outcome, Replay, replay};
use trace::Request;

/// Builds a policy for a capacity in the trace's unit, pages or bytes.
type Build = fn(u64) -> Box<dyn Replay>;

const POLICIES: &[(&str, Build)] = &[("arc core", |capacity| Box::new(ArcCore::new(capacity)))];

/// What ARC is known to reach on a trace at a capacity.
enum Known {
    /// Exact hits of the paper's algorithm, pages.
    Hits(u64),
    /// Request and byte hit ratios of a byte-weighted ARC, in per cent.
    Ratios(f64, f64),
}

const REFERENCES: &[(&str, &[(u64, Known)])] = &[
    (
        "oltp",
        &[
            (1000, Known::Hits(355_999)),
            (2000, Known::Hits(421_227)),
            (5000, Known::Hits(505_072)),
            (10_000, Known::Hits(565_609)),
            (15_000, Known::Hits(597_855)),
        ],
    ),
    (
        "arc_p3",
        &[(4096, Known::Hits(91_241)), (32_768, Known::Hits(669_507)), (131_072, Known::Hits(1_980_713))],
    ),
    ("cloudphysics_io", &[(202_976_972, Known::Ratios(22.37, 8.56))]),
    ("tencent_block_ns3300", &[(343_224_934, Known::Ratios(49.65, 41.64))]),
    ("cachelib_cdn_synthetic", &[(1_205_711_636, Known::Ratios(25.26, 26.00))]),
];

fn main() -> std::io::Result<()> {
    let Some(folder) = trace::folder() else {
        eprintln!("{}", trace::absent("the table of hit ratios"));
        return Ok(());
    };
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!(
        "{:<23}{:>12}  {:<12}{:>9}{:>9}{:>9}{:>10}{:>9}  {:<22}ns/request",
        "trace", "capacity", "policy", "hits", "ratio %", "ref", "bytes %", "ref", "difference"
    );
    for (name, rows) in REFERENCES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let requests = trace::load(&folder, name)?;
        for (capacity, known) in *rows {
            for (policy, build) in POLICIES {
                let row = run(build(*capacity), &requests, known);
                println!("{name:<23}{capacity:>12}  {policy:<12}{row}");
            }
        }
    }
    Ok(())
}

/// Replays, and writes the columns from the hits on.
fn run(mut cache: Box<dyn Replay>, requests: &[Request], known: &Known) -> String {
    let start = Instant::now();
    let outcome = replay(cache.as_mut(), requests);
    let each = start.elapsed().as_nanos() as f64 / requests.len().max(1) as f64;
    format!("{:>9}{}{each:>10.0}", outcome.hits, compare(&outcome, known))
}

fn compare(outcome: &Outcome, known: &Known) -> String {
    let (ratio, bytes) = (outcome.hit_ratio(), outcome.byte_hit_ratio());
    match known {
        Known::Hits(hits) => {
            let reference = 100.0 * *hits as f64 / outcome.requests.max(1) as f64;
            let difference = format!("{:+} hits", outcome.hits as i64 - *hits as i64);
            format!("{ratio:>9.2}{reference:>9.2}{:>10}{:>9}  {difference:<22}", "", "")
        }
        Known::Ratios(requests, byte) => {
            let difference = format!("{:+.2} / {:+.2} pp", ratio - requests, bytes - byte);
            format!("{ratio:>9.2}{requests:>9.2}{bytes:>10.2}{byte:>9.2}  {difference:<22}")
        }
    }
}
