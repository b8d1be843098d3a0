//! What was measured, as one table: aligned for a terminal, and Markdown at the same time.

use std::fmt::Write as _;
use std::time::Duration;

use elcache_bench::load::Outcome;
use elcache_bench::workload::Workload;

use crate::peer::Peer;

/// One window of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) requests_per_s: f64,
    pub(crate) bytes_per_s: f64,
    /// p50, p99 and p99.9 in microseconds.
    pub(crate) latencies_us: [f64; 3],
    pub(crate) cpu_us: f64,
    pub(crate) load_us: f64,
    /// Shares of their core that server and generator used.
    pub(crate) server_share: f64,
    pub(crate) load_share: f64,
    /// The larger share of one of the two cores that went to neither.
    pub(crate) foreign_share: f64,
}

impl Sample {
    /// `foreign` is processor time that others used on the cores of server and generator.
    pub(crate) fn new(outcome: &Outcome, foreign: Duration) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let requests = outcome.requests.max(1) as f64;
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let load = outcome.load_cpu.saturating_sub(outcome.load_waiting);
        Self {
            requests_per_s: outcome.requests as f64 / seconds,
            bytes_per_s: outcome.bytes as f64 / seconds,
            latencies_us: [0.5, 0.99, 0.999].map(|quantile| micros(outcome.latencies.quantile(quantile))),
            cpu_us: micros(outcome.server_cpu) / requests,
            load_us: micros(load) / requests,
            server_share: outcome.server_cpu.as_secs_f64() / seconds,
            load_share: load.as_secs_f64() / seconds,
            foreign_share: foreign.as_secs_f64() / seconds,
        }
    }
}

/// All rounds of a peer, with one workload and one number of connections.
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) connections: usize,
    pub(crate) peer: Peer,
    pub(crate) rounds: Vec<Sample>,
}

impl Cell {
    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// Largest less smallest, in percent of the median.
    fn spread(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let values = || self.rounds.iter().map(&of);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        (most - least) / self.median(&of) * 100.0
    }

    /// The median over the rounds of what `ours` has for each of what this one has: rounds that lie beside each other
    /// in time are compared, so that a machine that slows down slows both.
    fn ratio(&self, ours: &Self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(ours.rounds.iter().zip(&self.rounds).map(|(ours, theirs)| of(ours) / of(theirs)).collect())
    }

    fn notes(&self) -> String {
        let mut notes = Vec::new();
        if self.median(|sample| sample.load_share) > 0.95 && self.median(|sample| sample.server_share) < 0.9 {
            notes.push("the generator is the limit".to_owned());
        }
        let foreign = self.rounds.iter().map(|sample| sample.foreign_share).fold(0.0, f64::max);
        if foreign > 0.05 {
            notes.push(format!("disturbed ({:.0} % of a core)", foreign * 100.0));
        }
        notes.join(", ")
    }
}

const COLUMNS: [&str; 17] = [
    "workload",
    "connections",
    "server",
    "requests/s",
    "±%",
    "MiB/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "CPU us/request",
    "±%",
    "CPU s/GiB",
    "core %",
    "load us/request",
    "elcache requests/s",
    "elcache CPU",
    "notes",
];
/// Columns of text; the others are numbers and stand at the right.
const TEXT: [usize; 3] = [0, 2, 16];

/// The table. The two columns of ratios say how often elcache's requests per second and its processor time per
/// request contain the other server's.
pub(crate) fn render(cells: &[Cell]) -> String {
    let measured = cells.iter().filter(|cell| !cell.rounds.is_empty());
    let rows: Vec<[String; 17]> = measured.map(|cell| row(cell, reference(cells, cell))).collect();
    let mut widths = COLUMNS.map(|name| name.chars().count());
    for row in &rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    line(&mut out, &COLUMNS.map(str::to_owned), &widths);
    for (column, width) in widths.iter().enumerate() {
        let end = if TEXT.contains(&column) { '-' } else { ':' };
        let _ = write!(out, "|{}{end}", "-".repeat(width + 1));
    }
    out.push_str("|\n");
    for row in &rows {
        line(&mut out, row, &widths);
    }
    out
}

fn reference<'a>(cells: &'a [Cell], to: &Cell) -> Option<&'a Cell> {
    let same = |cell: &&Cell| cell.workload == to.workload && cell.connections == to.connections;
    cells.iter().filter(same).find(|cell| cell.peer == Peer::Elcache && !cell.rounds.is_empty())
}

fn row(cell: &Cell, ours: Option<&Cell>) -> [String; 17] {
    let ours = ours.filter(|_| cell.peer != Peer::Elcache);
    let ratio = |of: fn(&Sample) -> f64| {
        ours.map_or_else(String::new, |ours| format!("x {}", significant(cell.ratio(ours, of))))
    };
    let requests = |sample: &Sample| sample.requests_per_s;
    let cpu = |sample: &Sample| sample.cpu_us;
    let latency = |index: usize| significant(cell.median(|sample| sample.latencies_us[index]));
    let cpu_per_gib = cell.median(cpu) / 1e6 / cell.workload.size as f64 * f64::from(1 << 30);
    [
        cell.workload.to_string(),
        cell.connections.to_string(),
        cell.peer.to_string(),
        significant(cell.median(requests)),
        format!("{:.1}", cell.spread(requests)),
        significant(cell.median(|sample| sample.bytes_per_s) / f64::from(1 << 20)),
        latency(0),
        latency(1),
        latency(2),
        significant(cell.median(cpu)),
        format!("{:.1}", cell.spread(cpu)),
        significant(cpu_per_gib),
        format!("{:.0}", cell.median(|sample| sample.server_share) * 100.0),
        significant(cell.median(|sample| sample.load_us)),
        ratio(requests),
        ratio(cpu),
        cell.notes(),
    ]
}

fn line(out: &mut String, texts: &[String; 17], widths: &[usize; 17]) {
    for (column, (text, width)) in texts.iter().zip(widths).enumerate() {
        let _ = if TEXT.contains(&column) {
            write!(out, "| {text:<width$} ")
        } else {
            write!(out, "| {text:>width$} ")
        };
    }
    out.push_str("|\n");
}

/// Three digits that mean something, and never an exponent.
fn significant(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(peer: Peer, rounds: &[(f64, f64)]) -> Cell {
        let sample = |&(requests_per_s, cpu_us): &(f64, f64)| Sample {
            requests_per_s,
            bytes_per_s: requests_per_s * 1024.0,
            latencies_us: [1.0, 20.0, 300.0],
            cpu_us,
            load_us: 5.0,
            server_share: 1.0,
            load_share: 0.5,
            foreign_share: 0.0,
        };
        let workload = "get-1k".parse().unwrap();
        Cell { workload, connections: 32, peer, rounds: rounds.iter().map(sample).collect() }
    }

    #[test]
    fn ratios_compare_the_rounds_that_ran_beside_each_other() {
        // A machine that became twice as slow in the second half changes no ratio.
        let ours = cell(Peer::Elcache, &[(200.0, 5.0), (100.0, 10.0), (100.0, 10.0)]);
        let theirs = cell(Peer::Nginx, &[(100.0, 10.0), (50.0, 20.0), (50.0, 20.0)]);
        assert!((theirs.ratio(&ours, |sample| sample.requests_per_s) - 2.0).abs() < 1e-9);
        assert!((theirs.ratio(&ours, |sample| sample.cpu_us) - 0.5).abs() < 1e-9);
        assert!((theirs.spread(|sample| sample.requests_per_s) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_table_is_markdown_whose_columns_stand_below_each_other() {
        let cells = [
            cell(Peer::Elcache, &[(200_000.0, 5.0)]),
            cell(Peer::Nginx, &[(100.0, 10.0)]),
            cell(Peer::Redis, &[]),
        ];
        let table = render(&cells);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 4, "a peer without rounds has no row:\n{table}");
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        assert!(table.contains("x 2000") && table.contains("x 0.500"), "{table}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    }
}
