//! Measures the disk tier beside fio, and a server with it over HTTP: `make bench-disk`.
//!
//! `cargo run --release -p elcache-bench-disk --bin bench-disk -- [DIRECTORY] [ROUNDS] [SECONDS] [PART]`, where a part is one of
//! `reads`, `ingest`, `ranges`, `puts`; all of them without one.
//!
//! Every cell of a table is measured in rounds: each subject once for so many seconds, then each again. The table has medians;
//! ±% is largest less smallest; a ratio is the median of the ratios of rounds that lie beside each other.
//!
//! # Layout
//! - [`reads`]: random reads through the engines, and through the runtime's own pool of threads. [`tier`]: through all of the tier.
//! - [`ingest`]: large values written in process.
//! - [`served`]: a server as a child process, on a core of its own. [`pool`]: the device that it is compared with.
//! - [`fio`]: the same by fio.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

mod fio;
mod ingest;
mod pool;
mod reads;
mod served;
mod tier;

use std::path::Path;
use std::time::Duration;

use elcache_bench_disk::Outcome;
use elcache_bench_disk::scratch::Scratch;
use elcache_bench_disk::table::{self, Sample};
use reads::Engine;
use tier::Chunks;

/// Bytes in the file that is read.
const FILE_BYTES: u64 = 2 << 30;

/// What is asked of every subject.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    /// Bytes in a read.
    pub(crate) size: usize,
    /// Reads at once.
    pub(crate) depth: usize,
    /// How long.
    pub(crate) time: Duration,
}

/// Operations that the engine under the whole tier begins at once.
const MAX_OPS: usize = 64;

/// Whoever reads.
enum Subject<'a> {
    Ours(Engine),
    Tier(&'a Chunks),
    Fio(fio::Engine),
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = &arguments[..]
        && first == "serve"
    {
        return served::serve(rest);
    }
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().unwrap_or_else(|| "target".to_owned());
    let rounds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let window = Duration::from_secs_f64(arguments.next().map_or(Ok(2.0), |text| text.parse())?);
    let part = arguments.next();
    let wanted = |name: &str| part.as_ref().is_none_or(|part| part == name);
    let parent = Path::new(&parent);
    if wanted("reads") {
        all_random_reads(parent, rounds, window)?;
    }
    if wanted("ingest") {
        ingest::compare(parent, rounds)?;
    }
    if wanted("ranges") {
        served::ranges(parent, rounds, window)?;
    }
    if wanted("puts") {
        served::puts(parent, rounds, window)?;
    }
    Ok(())
}

fn all_random_reads(parent: &Path, rounds: usize, time: Duration) -> Outcome<()> {
    let scratch = Scratch::below(parent, "bench-disk")?;
    let file = scratch.path().join("file");
    reads::prepare(&file, FILE_BYTES)?;
    let chunks = Chunks::prepare(Scratch::below(parent, "bench-tier")?, FILE_BYTES, MAX_OPS)?;
    // Each with the subject that it is compared with.
    let subjects = [
        (Subject::Fio(fio::Engine::Uring), 0),
        (Subject::Fio(fio::Engine::UringRegistered), 0),
        (Subject::Ours(Engine::Uring { workers: 2 }), 0),
        (Subject::Ours(Engine::Uring { workers: 0 }), 0),
        (Subject::Tier(&chunks), 0),
        (Subject::Fio(fio::Engine::Threads), 5),
        (Subject::Ours(Engine::Threads), 5),
        (Subject::Ours(Engine::Pool), 5),
    ];
    for (size, depth) in [(64 << 10, 1), (64 << 10, 32), (1 << 20, 1), (1 << 20, 32)] {
        random_reads(&subjects, &file, Cell { size, depth, time }, rounds)?;
    }
    Ok(())
}

/// One table: random reads of a size at a depth.
fn random_reads(subjects: &[(Subject<'_>, usize)], file: &Path, cell: Cell, rounds: usize) -> Outcome<()> {
    let mut samples: Vec<Vec<Sample>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        // Another begins each time: a disk that was left alone for a moment is faster.
        for index in (0..subjects.len()).map(|index| (index + round) % subjects.len()) {
            samples[index].push(match subjects[index].0 {
                Subject::Ours(engine) => reads::measure(engine, file, FILE_BYTES, cell)?,
                Subject::Tier(chunks) => chunks.measure(cell)?,
                Subject::Fio(engine) => fio::read(engine, file, FILE_BYTES, cell)?,
            });
        }
    }
    println!("\nRandom reads of {} KiB, {} at once, past the page cache", cell.size >> 10, cell.depth);
    let rows = subjects
        .iter()
        .zip(&samples)
        .map(|((subject, peer), own)| (subject.name(), &own[..], &samples[*peer][..]));
    table::print(rows);
    Ok(())
}

impl Subject<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Ours(engine) => engine.name(),
            Self::Tier(_) => "elcache, the whole tier",
            Self::Fio(engine) => engine.name(),
        }
    }
}
