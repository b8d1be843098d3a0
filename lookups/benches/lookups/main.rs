//! How many hits a second the memory tier answers, beside moka, quick_cache and foyer's memory cache.
//!
//! `cargo bench [-- NAME]` in this folder, or `make lookups`; with NAME only the caches of that name.
//!
//! A million keys of 24 bytes, all of them resident, asked for by Zipf's law with exponent 0.99, on one thread and on two. A
//! look-up ends with reading the value's first byte, which is checked. All caches live in this process and take turns of a
//! fraction of a second; a ratio is the median over the rounds of what two of them did in the same round, so that a machine
//! that slows down for a while slows them all.

mod caches;
mod zipf;

use std::hint::black_box;
use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use caches::{ElCache, Foyer, FoyerS3Fifo, Lookups, Moka, Name, QuickCache};
use zipf::{Random, Zipf};

const KEYS: usize = 1_000_000;
const EXPONENT: f64 = 0.99;
const LOOKUPS_PER_TURN: usize = 1 << 20;
const ROUNDS: usize = 15;
const THREADS: [usize; 2] = [1, 2];

/// One cache's turn: so many threads, each with its own sequence of keys.
type Turn = Box<dyn Fn(&[Vec<Name>]) -> Duration>;

fn main() -> io::Result<()> {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let keys: Vec<Name> = (0..KEYS).map(name).collect();
    let sequences = sequences(&keys);
    let mut turns: Vec<(&str, Turn)> = Vec::new();
    let mut add = |name: &'static str, make: fn(&[Name]) -> io::Result<Turn>| -> io::Result<()> {
        if name.contains(&wanted) {
            turns.push((name, make(&keys)?));
        }
        Ok(())
    };
    add("elcache", turn_of::<ElCache>)?;
    add("moka", turn_of::<Moka>)?;
    add("quick_cache", turn_of::<QuickCache>)?;
    add("foyer", turn_of::<Foyer>)?;
    add("foyer s3-fifo", turn_of::<FoyerS3Fifo>)?;
    for threads in THREADS {
        measure(&turns, &sequences[..threads]);
    }
    Ok(())
}

fn turn_of<C: Lookups + 'static>(keys: &[Name]) -> io::Result<Turn> {
    let cache = C::filled(keys)?;
    Ok(Box::new(move |sequences| take_turn(&cache, sequences)))
}

/// The time from when all threads start to when the last is done.
fn take_turn<C: Lookups>(cache: &C, sequences: &[Vec<Name>]) -> Duration {
    let barrier = Barrier::new(sequences.len());
    let go = |sequence: &[Name]| {
        barrier.wait();
        let start = Instant::now();
        let wrong = sequence.iter().filter(|key| black_box(cache.first_byte(key)) != Some(key[23])).count();
        assert_eq!(wrong, 0, "look-ups that missed or read another value");
        (start, Instant::now())
    };
    let go = &go;
    thread::scope(|scope| {
        let threads: Vec<_> = sequences.iter().map(|sequence| scope.spawn(move || go(sequence))).collect();
        let times: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a turn")).collect();
        let first = times.iter().map(|(start, _)| *start).min().expect("a thread");
        let last = times.iter().map(|(_, end)| *end).max().expect("a thread");
        last - first
    })
}

/// Lets all take turns, and prints what came of it.
fn measure(turns: &[(&str, Turn)], sequences: &[Vec<Name>]) {
    for (_, turn) in turns {
        turn(sequences);
    }
    // Rates of each round, in the order of `turns`.
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|round| {
            let mut rates = vec![0.0; turns.len()];
            // Another one first in every round.
            for index in (0..turns.len()).map(|index| (index + round) % turns.len()) {
                let lookups = (LOOKUPS_PER_TURN * sequences.len()) as f64;
                rates[index] = lookups / turns[index].1(sequences).as_secs_f64();
            }
            rates
        })
        .collect();
    println!("\n{} threads, median of {ROUNDS} rounds", sequences.len());
    println!("{:<15}{:>12}{:>10}{:>20}{:>18}", "", "Mlookups/s", "ns", "lowest, highest", "elcache to it");
    for (index, (name, _)) in turns.iter().enumerate() {
        let mut rates: Vec<f64> = rounds.iter().map(|rates| rates[index] / 1e6).collect();
        let ratio = median(&mut rounds.iter().map(|rates| rates[0] / rates[index]).collect::<Vec<_>>());
        let rate = median(&mut rates);
        let spread = format!("{:.1}, {:.1}", rates[0], rates[ROUNDS - 1]);
        let each = 1e3 / rate * sequences.len() as f64;
        println!("{name:<15}{rate:>12.1}{each:>10.0}{spread:>20}{ratio:>18.2}");
    }
}

/// Sorts, and takes the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn name(number: usize) -> Name {
    let mut name = *b"lookups/key-000000000000";
    let digits = format!("{number:012}");
    name[12..].copy_from_slice(digits.as_bytes());
    name
}

/// The keys that each thread asks for. They are copied, so that reading them costs every cache the same and little.
fn sequences(keys: &[Name]) -> Vec<Vec<Name>> {
    let zipf = Zipf::new(keys.len(), EXPONENT);
    (1..=THREADS[THREADS.len() - 1] as u64)
        .map(|seed| {
            let mut random = Random(seed);
            // Frequent keys lie anywhere among the others: a prime step visits every one once.
            let draw = |_| keys[zipf.draw(&mut random) * 611_953 % keys.len()];
            (0..LOOKUPS_PER_TURN).map(draw).collect()
        })
        .collect()
}
