//! Replays the reference traces and prints what the memory tier's policies reach, beside what is known of them.
//!
//! `cargo run --release -p elcache-memory --example traces [PART OF A TRACE'S NAME]`
//!
//! The core is replayed alone, and inside the concurrent shell with its default shards and with eight, on one thread
//! and on two. The shell's difference is to the core, in percentage points.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

#[path = "traces/arc_core.rs"]
mod arc_core;
#[path = "traces/replay.rs"]
mod replay;
#[path = "traces/shell.rs"]
mod shell;

use std::time::Instant;

use arc_core::ArcCore;
use elcache_traces::Request;
use replay::{Outcome, replay, replay_on};
use shell::Shell;

/// Shards asked for, `None` for the default; threads.
const SHELLS: &[(Option<usize>, usize)] = &[(None, 1), (None, 2), (Some(8), 1), (Some(8), 2)];

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
    let Some(folder) = elcache_traces::folder() else {
        eprintln!("{}", elcache_traces::absent("the table of hit ratios"));
        return Ok(());
    };
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!(
        "{:<23}{:>12}  {:<20}{:>9}{:>9}{:>9}{:>12}  difference",
        "trace", "capacity", "shards x threads", "hits", "ratio %", "bytes %", "ns/request"
    );
    for (name, rows) in REFERENCES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let requests = elcache_traces::load(&folder, name)?;
        for (capacity, known) in *rows {
            let (core, row) = run(&requests, || replay(&mut ArcCore::new(*capacity), &requests));
            println!("{name:<23}{capacity:>12}  {:<20}{row}  {}", "core", compare(&core, known));
            let mut default_shards = 0;
            for &(shards, threads) in SHELLS {
                let shell = match known {
                    Known::Hits(_) => Shell::of_pages(*capacity, shards),
                    Known::Ratios(..) => Shell::of_bytes(*capacity, shards),
                };
                match shards {
                    None => default_shards = shell.shards(),
                    Some(forced) if forced == default_shards => continue,
                    Some(_) => {}
                }
                let label = format!("shell {} x {threads}", shell.shards());
                let (outcome, row) = run(&requests, || replay_on(threads, &shell, &requests));
                println!("{name:<23}{capacity:>12}  {label:<20}{row}  {}", beside(&outcome, &core));
            }
        }
    }
    Ok(())
}

/// Replays, and writes hits, both ratios in per cent and nanoseconds for each request.
fn run(requests: &[Request], go: impl FnOnce() -> Outcome) -> (Outcome, String) {
    let start = Instant::now();
    let outcome = go();
    let each = start.elapsed().as_nanos() as f64 / requests.len().max(1) as f64;
    let (ratio, bytes) = (outcome.hit_ratio(), outcome.byte_hit_ratio());
    (outcome, format!("{:>9}{ratio:>9.2}{bytes:>9.2}{each:>12.0}", outcome.hits))
}

/// The core beside what is known of ARC.
fn compare(outcome: &Outcome, known: &Known) -> String {
    match known {
        Known::Hits(hits) => format!("{:+} hits to the reference", outcome.hits as i64 - *hits as i64),
        Known::Ratios(requests, bytes) => {
            let (requests, bytes) = (outcome.hit_ratio() - requests, outcome.byte_hit_ratio() - bytes);
            format!("{requests:+.2} / {bytes:+.2} pp to the reference")
        }
    }
}

/// The shell beside the core.
fn beside(shell: &Outcome, core: &Outcome) -> String {
    let requests = shell.hit_ratio() - core.hit_ratio();
    let bytes = shell.byte_hit_ratio() - core.byte_hit_ratio();
    format!("{requests:+.2} / {bytes:+.2} pp to the core")
}
