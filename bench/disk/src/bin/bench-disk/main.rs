//! Measures the disk tier beside fio, on a file of this machine's disk: `make bench-disk`.
//!
//! `cargo run --release -p elcache-bench-disk --bin bench-disk -- [DIRECTORY] [ROUNDS] [SECONDS]`
//!
//! Every cell of a table is measured in rounds: each subject once for so many seconds, then each again. The table has medians;
//! a ratio is the median of the ratios of rounds that lie beside each other.
//!
//! # Layout
//! - [`reads`]: random reads through the engines, and through the runtime's own pool of threads.
//! - [`fio`]: the same reads by fio.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

mod fio;
mod reads;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use elcache_bench_disk::scratch::Scratch;
use elcache_bench_disk::table::{self, Sample};
use reads::Engine;

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

/// Whoever reads.
enum Subject {
    Ours(Engine),
    Fio(fio::Engine),
}

/// Each with the subject that it is compared with.
const SUBJECTS: [(Subject, usize); 7] = [
    (Subject::Fio(fio::Engine::Uring), 0),
    (Subject::Fio(fio::Engine::UringRegistered), 0),
    (Subject::Ours(Engine::Uring { workers: 2 }), 0),
    (Subject::Ours(Engine::Uring { workers: 0 }), 0),
    (Subject::Fio(fio::Engine::Threads), 4),
    (Subject::Ours(Engine::Threads), 4),
    (Subject::Ours(Engine::Pool), 4),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| "target".to_owned());
    let rounds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let seconds = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let scratch = Scratch::below(&parent, "bench-disk")?;
    let file = scratch.path().join("file");
    reads::prepare(&file, FILE_BYTES)?;
    for (size, depth) in [(64 << 10, 1), (64 << 10, 32), (1 << 20, 1), (1 << 20, 32)] {
        let cell = Cell { size, depth, time: Duration::from_secs_f64(seconds) };
        random_reads(&file, cell, rounds)?;
    }
    Ok(())
}

/// One table: random reads of a size at a depth.
fn random_reads(file: &Path, cell: Cell, rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut samples: Vec<Vec<Sample>> = SUBJECTS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        // Another begins each time: a disk that was left alone for a moment is faster.
        for index in (0..SUBJECTS.len()).map(|index| (index + round) % SUBJECTS.len()) {
            samples[index].push(match SUBJECTS[index].0 {
                Subject::Ours(engine) => reads::measure(engine, file, FILE_BYTES, cell)?,
                Subject::Fio(engine) => fio::measure(engine, file, FILE_BYTES, cell)?,
            });
        }
    }
    println!("\nRandom reads of {} KiB, {} at once, past the page cache", cell.size >> 10, cell.depth);
    let rows = SUBJECTS
        .iter()
        .zip(&samples)
        .map(|((subject, peer), own)| (subject.name(), &own[..], &samples[*peer][..]));
    table::print(rows);
    Ok(())
}

impl Subject {
    fn name(&self) -> &'static str {
        match self {
            Self::Ours(engine) => engine.name(),
            Self::Fio(engine) => engine.name(),
        }
    }
}
