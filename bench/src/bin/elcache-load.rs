//! `elcache-load`: the load generator alone, against any server that is running.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use elcache_bench::cpu::Processes;
use elcache_bench::load::{self, Outcome, Plan};
use elcache_bench::protocol::Protocol;
use elcache_bench::workload::Workload;
use elcache_bench::{Error, store};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Loads a cache with as many requests as it answers and prints what was measured.
#[derive(Parser)]
#[command(name = "elcache-load")]
struct Arguments {
    /// Address of the server
    #[arg(default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// What it speaks
    #[arg(short, long, value_enum, default_value = "http")]
    protocol: Protocol,
    /// get-SIZE, range-SIZE (of a value of 1 GiB) or put-SIZE, such as get-64k
    #[arg(short, long, default_value = "get-1k")]
    workload: Workload,
    /// How many different values there are
    #[arg(short, long)]
    keys: Option<u64>,
    /// Connections, each with one request in flight
    #[arg(short, long, default_value_t = 32)]
    connections: usize,
    /// Measured seconds
    #[arg(short, long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Write the values first
    #[arg(short, long)]
    fill: bool,
    /// Compare every byte, and read back what was put: the numbers are then those of the generator
    #[arg(long)]
    verify: bool,
    /// Process id of the server, for its processor time
    #[arg(long)]
    pid: Option<u32>,
    /// Another seed gives other requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    let written = match run(&arguments) {
        Ok(outcome) => report(&mut out, &outcome, arguments.pid.is_some()).map(|()| ExitCode::SUCCESS),
        Err(error) => writeln!(io::stderr(), "elcache-load: {error}").map(|()| ExitCode::FAILURE),
    };
    written.unwrap_or(ExitCode::FAILURE)
}

fn run(arguments: &Arguments) -> Result<Outcome, Error> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(Error::io("catching signals"))?;
    }
    let mut workload = arguments.workload;
    workload.keys = arguments.keys.unwrap_or(workload.keys).max(1);
    if arguments.fill {
        store::fill(arguments.address, arguments.protocol, &workload, &interrupted)?;
    }
    let plan = Plan {
        address: arguments.address,
        protocol: arguments.protocol,
        workload,
        connections: arguments.connections.max(1),
        warm_up: Duration::from_secs_f64(arguments.warm_up.max(0.0)),
        window: Duration::from_secs_f64(arguments.seconds.max(0.01)),
        verify: arguments.verify,
        seed: arguments.seed,
        interrupted: &interrupted,
    };
    let server = arguments.pid.map(Processes::below);
    load::run(&plan, &mut || server.as_ref().map_or(Duration::ZERO, Processes::time))
}

fn report(out: &mut impl io::Write, outcome: &Outcome, with_server: bool) -> io::Result<()> {
    let seconds = outcome.elapsed.as_secs_f64();
    let requests = outcome.requests.max(1) as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    writeln!(out, "requests/s        {:12.0}", outcome.requests as f64 / seconds)?;
    writeln!(out, "MiB/s             {:12.1}", outcome.bytes as f64 / seconds / f64::from(1 << 20))?;
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        writeln!(out, "{name:<6} us         {:12.0}", micros(outcome.latencies.quantile(quantile)))?;
    }
    let mut usage = |who: &str, time: Duration| {
        writeln!(out, "{who:<6} us/request {:12.2}", micros(time) / requests)?;
        writeln!(out, "{who:<6} core %     {:12.1}", time.as_secs_f64() / seconds * 100.0)
    };
    if with_server {
        usage("server", outcome.server_cpu)?;
    }
    usage("load", outcome.load_cpu.saturating_sub(outcome.load_waiting))
}
