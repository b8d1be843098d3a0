//! `elcache-bench`: starts elcache and its peers, each pinned to one core, loads them in turns from another, and
//! prints one table.
//!
//! # Layout
//! - `peer`: which servers there are, what each can do, how each is started
//! - `server`: a process of ours and its directory
//! - `rounds`: filling, verifying, measuring in turns
//! - `machine`: what the numbers are measured on
//! - `table`: medians, spreads, ratios
#![forbid(unsafe_code)]

mod machine;
mod peer;
mod rounds;
mod server;
mod table;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use elcache_bench::workload::Workload;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::peer::{Peer, Running};
use crate::rounds::Bench;
use crate::server::Scratch;
use crate::table::Cell;

const WORKLOADS: [&str; 7] = ["get-1k", "get-64k", "get-4m", "range-64k", "put-1k", "put-64k", "put-4m"];
/// Many short windows, since the median over the rounds is what removes what the machine does besides: a server
/// beside itself differed by up to 16 % in three rounds of 2 s, by up to 5 % in seven of 0.7 s.
const ROUNDS: usize = 7;
/// What the windows of a quick run may take together; starting, filling and verifying take some ten seconds more.
const QUICK: Duration = Duration::from_secs(95);
const LONGEST_QUICK_WINDOW: f64 = 2.0;
/// What the two servers that keep their values in files need.
const ROOM_GIB: u64 = 2;

/// Measures elcache beside its peers, on one core each, with the load on another.
#[derive(Parser)]
#[command(name = "elcache-bench")]
struct Arguments {
    /// Two minutes: elcache and nginx, 32 connections
    #[arg(long)]
    quick: bool,
    /// The servers, by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The workloads, by commas: get-SIZE, range-SIZE, put-SIZE
    #[arg(long, value_name = "WORKLOADS", value_delimiter = ',')]
    only: Vec<Workload>,
    /// Numbers of connections, by commas
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Windows for each server, workload and number of connections
    #[arg(long)]
    rounds: Option<usize>,
    /// Length of a window
    #[arg(long)]
    seconds: Option<f64>,
    /// Verify every byte of every workload and measure nothing
    #[arg(long)]
    verify: bool,
    /// The server's program [default: elcached beside this one]
    #[arg(long, value_name = "PATH")]
    elcached: Option<PathBuf>,
    /// Write machine, method and table to a file too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Where the servers' files lie; a tmpfs, unless a disk is to be measured
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The core of the servers
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The core of the load generator
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("elcache-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(|error| error.to_string())?;
    }
    machine::pin(arguments.load_core)?;
    let elcached = arguments.elcached()?;
    let mut lines = machine::description();
    let peers = take_part(&arguments.peers(), &elcached, &mut lines)?;
    let workloads = arguments.workloads()?;
    let bench = Bench {
        connections: arguments.connections(),
        rounds: arguments.rounds(),
        warm_up: Duration::from_millis(if arguments.quick { 300 } else { 500 }),
        window: arguments.window(&peers, &workloads),
        server_core: arguments.server_core,
        load_core: arguments.load_core,
        interrupted: &interrupted,
        workloads,
    };
    lines.push(bench.method());
    lines.extend(skipped(&peers, &bench.workloads));
    let stateful = peers.iter().filter(|peer| matches!(peer, Peer::Nginx | Peer::Varnish)).count() as u64;
    machine::need_room(&arguments.dir, stateful * ROOM_GIB)?;

    // Declared before the servers, so that it is removed after they have ended.
    let scratch = Scratch::new(&arguments.dir)?;
    let servers = start(&peers, scratch.path(), &elcached, arguments.server_core, &interrupted)?;
    bench.verify(&servers)?;
    if arguments.verify {
        return print("Every byte of every answer was right.\n");
    }
    let mut cells = Vec::new();
    let outcome = bench.measure(&servers, &mut cells);
    drop(servers);
    if cells.iter().any(|cell| !cell.rounds.is_empty()) {
        report(&lines, &cells, arguments.markdown.as_deref())?;
    }
    outcome
}

/// Those of the peers that are installed; the others are named in `lines`. Without elcache a bench that was not asked
/// to leave it out measures nothing of interest.
fn take_part(peers: &[Peer], elcached: &Path, lines: &mut Vec<String>) -> Result<Vec<Peer>, String> {
    let mut present = Vec::new();
    for &peer in peers {
        match peer.version(elcached) {
            Ok(version) => {
                lines.push(format!("{peer}: {version}"));
                present.push(peer);
            }
            Err(why) if peer == Peer::Elcache => {
                return Err(format!("{why}; --peers leaves it out"));
            }
            Err(why) => lines.push(format!("{peer}: skipped: {why}")),
        }
    }
    if present.is_empty() { Err("no server to measure".into()) } else { Ok(present) }
}

fn skipped(peers: &[Peer], workloads: &[Workload]) -> Vec<String> {
    let each = peers.iter().flat_map(|peer| workloads.iter().map(move |workload| (peer, workload)));
    each.filter_map(|(peer, workload)| Some(format!("{peer} {workload}: skipped: {}", peer.skips(workload)?)))
        .collect()
}

fn start(
    peers: &[Peer],
    scratch: &Path,
    elcached: &Path,
    core: usize,
    interrupted: &AtomicBool,
) -> Result<Vec<Running>, String> {
    let mut running = Vec::with_capacity(peers.len());
    for peer in peers {
        if interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        running.push(peer.start(scratch, elcached, core)?);
    }
    Ok(running)
}

fn report(lines: &[String], cells: &[Cell], markdown: Option<&Path>) -> Result<(), String> {
    let mut text: String = lines.iter().map(|line| format!("- {line}\n")).collect();
    text.push('\n');
    text.push_str(&table::render(cells));
    if let Some(path) = markdown {
        fs::write(path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print(&text)
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(|error| format!("writing the result: {error}"))
}

/// A line for whoever waits. That nobody reads it is no reason to stop measuring.
fn progress(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Arguments {
    fn elcached(&self) -> Result<PathBuf, String> {
        if let Some(path) = &self.elcached {
            return Ok(path.clone());
        }
        let own = std::env::current_exe().map_err(|error| format!("finding elcached: {error}"))?;
        Ok(own.with_file_name("elcached"))
    }

    fn peers(&self) -> Vec<Peer> {
        match (self.peers.is_empty(), self.quick) {
            (false, _) => self.peers.clone(),
            (true, true) => Peer::QUICK.to_vec(),
            (true, false) => Peer::ALL.to_vec(),
        }
    }

    fn workloads(&self) -> Result<Vec<Workload>, String> {
        if !self.only.is_empty() {
            return Ok(self.only.clone());
        }
        WORKLOADS.iter().map(|name| name.parse()).collect()
    }

    fn connections(&self) -> Vec<usize> {
        match (self.connections.is_empty(), self.quick) {
            (false, _) => self.connections.iter().map(|&count| count.max(1)).collect(),
            (true, true) => vec![32],
            (true, false) => vec![4, 32, 512],
        }
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(ROUNDS).max(1)
    }

    /// A quick run keeps its time whatever it is asked to measure: with more of it, the windows are shorter.
    fn window(&self, peers: &[Peer], workloads: &[Workload]) -> Duration {
        let windows = rounds::pairs(peers, workloads) * self.connections().len() * self.rounds();
        let default = if self.quick {
            (QUICK.as_secs_f64() / windows.max(1) as f64 - 0.3).clamp(0.3, LONGEST_QUICK_WINDOW)
        } else {
            2.0
        };
        Duration::from_secs_f64(self.seconds.unwrap_or(default).clamp(0.05, 3600.0))
    }
}
