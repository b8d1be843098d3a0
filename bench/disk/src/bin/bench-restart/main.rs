//! How long a node takes to find its small entries again, and what its index of them costs: `make bench-restart`.
//!
//! `cargo run --release -p elcache-bench-disk --bin bench-restart -- [DIRECTORY] [ENTRIES] [ROUNDS]`, with `elcached` beside it
//!
//! A directory is filled in process, as fast as that goes, and left as a process leaves it that is killed. Then `elcached` is
//! started on it, again and again: after `kill -9` and after a clean stop, with the files out of the page cache, as
//! after a reboot, and in it.
//!
//! # Layout
//! - [`fill`]: the entries, and writing them.
//! - [`restart`]: one start, measured.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

mod fill;
mod restart;

use elcache_bench_disk::Outcome;
use elcache_bench_disk::scratch::Scratch;
use elcache_bench_disk::table::{median, spread};
use restart::{Case, Measured};

/// The oldest key is to answer within this time.
const TARGET_S: f64 = 10.0;
/// An entry of the index is to take less than this.
const TARGET_BYTES: f64 = 64.0;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| "target".to_owned());
    let entries: u64 = arguments.next().map_or(Ok(10_000_000), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let scratch = Scratch::below(&parent, "bench-restart")?;
    let directory = scratch.path().join("disk");
    std::fs::create_dir_all(&directory)?;
    fill::fill(&directory, entries.max(1))?;

    // What comes before the first measured start is a kill, too.
    let mut results: Vec<Vec<Measured>> = Case::ALL.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (case, results) in Case::ALL.iter().zip(&mut results) {
            results.push(restart::measure(&directory, entries, *case)?);
        }
    }
    print(entries, &results);
    Ok(())
}

fn print(entries: u64, results: &[Vec<Measured>]) {
    println!(
        "\nRestart with {entries} entries of 16 to 100 bytes, seconds from the start of the process; medians"
    );
    println!(
        "{:44} {:>10} {:>5} {:>12} {:>5} {:>14} {:>9}",
        "", "oldest key", "±%", "all found", "±%", "index B/entry", "RSS MiB"
    );
    for (case, results) in Case::ALL.iter().zip(results) {
        let of = |value: fn(&Measured) -> f64| results.iter().map(value).collect::<Vec<f64>>();
        let (oldest, all) = (of(|found| found.oldest_s), of(|found| found.all_s));
        println!(
            "{:44} {:10.2} {:5.0} {:12.2} {:5.0} {:14.1} {:9.0}",
            case.name(),
            median(oldest.clone()),
            spread(&oldest),
            median(all.clone()),
            spread(&all),
            median(of(|found| found.index_bytes)) / entries as f64,
            median(of(|found| found.rss_bytes)) / f64::from(1 << 20),
        );
    }
    let worst = |value: fn(&Measured) -> f64| results.iter().flatten().map(value).fold(0.0, f64::max);
    let (oldest, index) = (worst(|found| found.oldest_s), worst(|found| found.index_bytes) / entries as f64);
    let word = |met: bool| if met { "met" } else { "MISSED" };
    println!("oldest key: {oldest:.2} s at most, target {TARGET_S} s: {}", word(oldest <= TARGET_S));
    println!(
        "index: {index:.1} bytes an entry at most, target {TARGET_BYTES}: {}",
        word(index < TARGET_BYTES)
    );
}
