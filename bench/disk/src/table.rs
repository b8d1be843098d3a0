//! Medians over rounds, and ratios of rounds beside each other.

#![allow(clippy::print_stdout, reason = "it prints tables")]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What one subject did in one round.
pub struct Sample {
    /// Payload.
    pub bytes: u64,
    /// Reads or writes.
    pub operations: u64,
    /// By the clock.
    pub time: Duration,
    /// Of all processors.
    pub cpu: Duration,
}

impl Sample {
    /// MB/s.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64() / 1e6
    }

    /// Microseconds of processor time an operation.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }
}

/// A line for each subject: its name, its rounds, the rounds of the subject that it is compared with.
pub fn print<'a>(rows: impl Iterator<Item = (&'a str, &'a [Sample], &'a [Sample])>) {
    println!("{:32} {:>8} {:>5} {:>7} {:>8} {:>7}", "", "MB/s", "±%", "of fio", "us CPU", "of fio");
    for (name, own, peer) in rows {
        let rates: Vec<f64> = own.iter().map(Sample::rate).collect();
        let ratio = |value: fn(&Sample) -> f64| {
            median(own.iter().zip(peer).map(|(a, b)| value(a) / value(b)).collect())
        };
        println!(
            "{name:32} {:8.0} {:5.0} {:7.2} {:8.1} {:7.2}",
            median(rates.clone()),
            spread(&rates),
            ratio(Sample::rate),
            median(own.iter().map(Sample::cost).collect()),
            ratio(Sample::cost),
        );
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Largest less smallest, in per cent of the median.
pub fn spread(values: &[f64]) -> f64 {
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
    (high - low) / median(values.to_vec()) * 100.0
}

/// What this process has used, its threads in the kernel included.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
