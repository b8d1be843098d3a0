//! What a server with a disk does over HTTP, on one core, with the load on another: ranges of a value that is never in
//! memory, and small values written with each durability.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use elcache_bench::content;
use elcache_bench::cpu::Processes;
use elcache_bench::load::{self, Outcome as Loaded, Plan};
use elcache_bench::protocol::Protocol;
use elcache_bench::workload::{Kind, Value, Workload};
use elcache_bench_disk::Outcome;
use elcache_bench_disk::scratch::Scratch;
use elcache_bench_disk::server::Server;
use elcache_bench_disk::table::{median, spread};
use elcache_bench_disk::tiers::Tiers;
use elcache_core::key::Key;
use elcache_disk::io::{Device, Engine, start};
use elcache_disk::{DiskConfig, Durability};
use elcache_engine::{Opened, PutOptions};
use elcache_http::health::State;
use elcache_http::{App, HttpConfig, Server as HttpServer};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::Builder;

use crate::pool::Pool;

/// Memory of the server. The value that is read is eight times as large.
const MEMORY: u64 = 128 << 20;
/// Connections, each with one request under way.
const DEPTH: usize = 32;
/// How long a server may take to write its value.
const READY: Duration = Duration::from_secs(120);
const WARM_UP: Duration = Duration::from_millis(300);
/// The ratio of processor time that is aimed for.
const TARGET: f64 = 0.75;

/// What reads in a server.
const DEVICES: [(&str, &str); 3] =
    [("uring", "elcache, io_uring"), ("pool", "tokio's spawn_blocking"), ("threads", "elcache, threads")];
const DURABILITIES: [(&str, Durability); 3] =
    [("none", Durability::None), ("process", Durability::Process), ("power", Durability::Power)];

/// A server as a child process on the first core. `what`: the device, the durability, whether it has a value to be read.
fn child(directory: &Path, what: [&str; 3]) -> Outcome<Server> {
    let program = std::env::current_exe()?;
    std::fs::create_dir_all(directory)?;
    let mut server = Server::start(|port| {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program).arg("serve").arg(directory).arg(port.to_string()).args(what);
        command
    })?;
    server.wait_for("/health", READY)?;
    Ok(server)
}

/// Loads a server from the second core.
fn load(
    server: &Server,
    workload: Workload,
    connections: usize,
    window: Duration,
    verify: bool,
) -> Outcome<Loaded> {
    let processes = Processes::below(server.id());
    let interrupted = AtomicBool::new(false);
    let plan = Plan {
        address: server.address(),
        protocol: Protocol::Http,
        workload,
        connections,
        warm_up: WARM_UP,
        window,
        verify,
        seed: 1,
        interrupted: &interrupted,
    };
    // In a thread of its own, so that nothing else stays on that core.
    let loaded = std::thread::scope(|scope| {
        let run = || {
            let mut core = CpuSet::new();
            core.set(1);
            sched_setaffinity(None, &core)?;
            Outcome::Ok(load::run(&plan, &mut || processes.time()).map_err(|error| error.to_string())?)
        };
        scope.spawn(run).join()
    });
    loaded.unwrap_or_else(|_| Err("the load has panicked".into()))
}

fn cost(loaded: &Loaded) -> f64 {
    loaded.server_cpu.as_secs_f64() * 1e6 / loaded.requests.max(1) as f64
}

/// The table of ranges.
pub(crate) fn ranges(parent: &Path, rounds: usize, window: Duration) -> Outcome<()> {
    let scratch = Scratch::below(parent, "served")?;
    let workload = Workload::new(Kind::Range, 64 << 10);
    let start =
        |(device, _): &(&str, &str)| child(&scratch.path().join(device), [device, "process", "value"]);
    let servers: Vec<Server> = DEVICES.iter().map(start).collect::<Outcome<_>>()?;
    for server in &servers {
        load(server, workload, DEPTH, WARM_UP, true)?;
    }
    let mut loaded: Vec<Vec<Loaded>> = DEVICES.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for index in (0..servers.len()).map(|index| (index + round) % servers.len()) {
            loaded[index].push(load(&servers[index], workload, DEPTH, window, false)?);
        }
    }
    println!(
        "\nOver HTTP: random ranges of 64 KiB of a value that is not in memory, {DEPTH} at once, server on one core"
    );
    println!(
        "{:28} {:>10} {:>5} {:>8} {:>8} {:>12} {:>5} {:>8}",
        "", "requests/s", "±%", "p50 us", "p99 us", "us CPU", "±%", "of pool"
    );
    for ((_, name), own) in DEVICES.iter().zip(&loaded) {
        let rates: Vec<f64> = own.iter().map(|one| one.requests as f64 / one.elapsed.as_secs_f64()).collect();
        let costs: Vec<f64> = own.iter().map(cost).collect();
        let ratios = own.iter().zip(&loaded[1]).map(|(own, pool)| cost(own) / cost(pool)).collect();
        println!(
            "{name:28} {:10.0} {:5.0} {:8.0} {:8.0} {:12.1} {:5.0} {:8.2}",
            median(rates.clone()),
            spread(&rates),
            median(own.iter().map(|one| quantile(one, 0.5)).collect()),
            median(own.iter().map(|one| quantile(one, 0.99)).collect()),
            median(costs.clone()),
            spread(&costs),
            median(ratios),
        );
    }
    println!("aimed for: io_uring at most {TARGET} of the pool's processor time");
    Ok(())
}

/// The table of small values written.
pub(crate) fn puts(parent: &Path, rounds: usize, window: Duration) -> Outcome<()> {
    let scratch = Scratch::below(parent, "puts")?;
    let workload = Workload::new(Kind::Put, 1 << 10);
    let start = |(name, _): &(&str, Durability)| child(&scratch.path().join(name), ["uring", name, "empty"]);
    let servers: Vec<Server> = DURABILITIES.iter().map(start).collect::<Outcome<_>>()?;
    println!("\nOver HTTP: values of 1 KiB written, server on one core");
    println!(
        "{:12} {:>11} {:>10} {:>5} {:>8} {:>5} {:>8} {:>5} {:>8}",
        "durability", "connections", "requests/s", "±%", "p50 us", "±%", "p99 us", "±%", "us CPU"
    );
    for connections in [1, DEPTH] {
        let mut loaded: Vec<Vec<Loaded>> = DURABILITIES.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for index in (0..servers.len()).map(|index| (index + round) % servers.len()) {
                loaded[index].push(load(&servers[index], workload, connections, window, false)?);
            }
        }
        for ((name, _), own) in DURABILITIES.iter().zip(&loaded) {
            let of = |value: &dyn Fn(&Loaded) -> f64| own.iter().map(value).collect::<Vec<f64>>();
            let rates = of(&|one| one.requests as f64 / one.elapsed.as_secs_f64());
            let (p50, p99) = (of(&|one| quantile(one, 0.5)), of(&|one| quantile(one, 0.99)));
            println!(
                "{name:12} {connections:11} {:10.0} {:5.0} {:8.0} {:5.0} {:8.0} {:5.0} {:8.1}",
                median(rates.clone()),
                spread(&rates),
                median(p50.clone()),
                spread(&p50),
                median(p99.clone()),
                spread(&p99),
                median(of(&cost)),
            );
        }
    }
    Ok(())
}

fn quantile(loaded: &Loaded, quantile: f64) -> f64 {
    loaded.latencies.quantile(quantile).as_secs_f64() * 1e6
}

/// The child: serves until it is killed. `arguments`: directory, port, device, durability, `value` or `empty`.
pub(crate) fn serve(arguments: &[String]) -> Outcome<()> {
    let [directory, port, device, durability, content] = arguments else {
        return Err("serve: five arguments".into());
    };
    let (_, durability) =
        *DURABILITIES.iter().find(|(name, _)| name == durability).ok_or("no such durability")?;
    // As `elcached` does it where it has one core.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let device: Arc<dyn Device> = match &device[..] {
            "pool" => Arc::new(Pool::start(64)?),
            "threads" => start(Engine::Threads, 64)?.device,
            _ => start(Engine::Uring, 64)?.device,
        };
        let config = DiskConfig { durability, ..DiskConfig::default() };
        let tiers = Tiers::open(Path::new(directory), MEMORY, device, config).await?;
        tiers.disk.recovered().await;
        if content == "value" {
            put(&tiers, Workload::new(Kind::Range, 64 << 10).value(0)).await?;
        }
        let app = App::new(Arc::clone(&tiers.engine), Arc::clone(&tiers.metrics), HttpConfig::default());
        app.health().set(State::Healthy);
        let listener = HttpServer::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?)))?;
        HttpServer::new(app).serve(listener, std::future::pending(), Duration::ZERO).await;
        Ok(())
    })
}

/// Stores a value past memory.
async fn put(tiers: &Tiers, value: Value) -> Outcome<()> {
    let options = PutOptions { length: Some(value.size), no_memory: true, ..PutOptions::default() };
    let failed = |error| format!("an upload failed: {error:?}");
    let opened = tiers.engine.open(Key::new(value.to_string())?, options).await;
    let Opened::Upload(mut upload) = opened.map_err(failed)? else {
        return Err("the value is known already".into());
    };
    while upload.received() < value.size {
        upload.ready().await.map_err(failed)?;
        content::fill(value.origin().wrapping_add(upload.received()), upload.space());
        let count = upload.space().len();
        upload.filled(count);
    }
    upload.finish().await.map_err(failed)?;
    Ok(())
}
