//! Fills the servers, verifies their answers, and measures them in turns.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use elcache_bench::load::{self, Plan};
use elcache_bench::workload::Workload;
use elcache_bench::{Error, store};

use crate::machine::idle_time;
use crate::peer::{Peer, Running};
use crate::progress;
use crate::table::{Cell, Sample};

/// How long and with how many connections the bytes of each workload are verified before it is measured.
const VERIFY_FOR: Duration = Duration::from_millis(200);
const VERIFY_CONNECTIONS: usize = 16;

/// What to measure, and how.
pub(crate) struct Bench<'a> {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) connections: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) server_core: usize,
    pub(crate) load_core: usize,
    pub(crate) interrupted: &'a AtomicBool,
}

impl Bench<'_> {
    /// One line that says how the numbers came about.
    pub(crate) fn method(&self) -> String {
        format!(
            "Method: servers on core {}, elcache-load on core {}, {} rounds of {:.1} s after {:.1} s in turns, medians",
            self.server_core,
            self.load_core,
            self.rounds,
            self.window.as_secs_f64(),
            self.warm_up.as_secs_f64()
        )
    }

    /// Writes every value to every peer, reads each back, then verifies each workload under a little load.
    pub(crate) fn verify(&self, peers: &[Running]) -> Result<(), String> {
        for workload in &self.workloads {
            for running in peers.iter().filter(|running| running.peer.skips(workload).is_none()) {
                let said = self.verify_one(running, workload);
                said.map_err(|error| failed(running, workload, &error))?;
            }
        }
        Ok(())
    }

    fn verify_one(&self, running: &Running, workload: &Workload) -> Result<(), Error> {
        let begin = Instant::now();
        let protocol = running.peer.protocol();
        store::fill(running.fill_address(), protocol, workload, self.interrupted)?;
        store::check(running.address(), protocol, workload, self.interrupted)?;
        let plan = Plan {
            connections: VERIFY_CONNECTIONS,
            warm_up: Duration::ZERO,
            window: VERIFY_FOR,
            verify: true,
            ..self.plan(running, workload, 0, 0)
        };
        let outcome = load::run(&plan, &mut || Duration::ZERO)?;
        progress(&format!(
            "{:9} {workload}: {} values and {} answers verified in {:.1} s",
            running.peer,
            workload.keys,
            outcome.requests,
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Measures all workloads with all numbers of connections. What has been measured until an error is in `cells`.
    pub(crate) fn measure(&self, peers: &[Running], cells: &mut Vec<Cell>) -> Result<(), String> {
        for workload in &self.workloads {
            for &connections in &self.connections {
                self.take_turns(peers, workload, connections, cells)?;
            }
        }
        Ok(())
    }

    /// Every peer once, then every peer again: what the machine does meanwhile happens to all of them.
    fn take_turns(
        &self,
        peers: &[Running],
        workload: &Workload,
        connections: usize,
        cells: &mut Vec<Cell>,
    ) -> Result<(), String> {
        let takers: Vec<&Running> =
            peers.iter().filter(|running| running.peer.skips(workload).is_none()).collect();
        let first = cells.len();
        let cell = |peer| Cell { workload: *workload, connections, peer, rounds: Vec::new() };
        cells.extend(takers.iter().map(|running| cell(running.peer)));
        for round in 0..self.rounds {
            for (index, running) in takers.iter().enumerate() {
                let what = format!("{:9} {workload}, {connections} connections", running.peer);
                let sample = self
                    .window(running, workload, connections, round)
                    .map_err(|error| failed(running, workload, &error))?;
                let Sample { requests_per_s, cpu_us, .. } = sample;
                let turn = format!("round {} of {}", round + 1, self.rounds);
                progress(&format!(
                    "{what}, {turn}: {requests_per_s:.0} requests/s, CPU {cpu_us:.2} us/request"
                ));
                cells[first + index].rounds.push(sample);
            }
        }
        Ok(())
    }

    fn window(
        &self,
        running: &Running,
        workload: &Workload,
        connections: usize,
        round: usize,
    ) -> Result<Sample, Error> {
        let plan = self.plan(running, workload, connections, round);
        let cores = [self.server_core, self.load_core];
        let mut idle = Vec::with_capacity(2);
        let outcome = load::run(&plan, &mut || {
            idle.push(cores.map(idle_time));
            running.cpu_time()
        })?;
        let foreign = |core: usize, own: Duration| {
            let idled = |at: Option<&[Duration; 2]>| at.map_or(Duration::ZERO, |times| times[core]);
            outcome.elapsed.saturating_sub(own + idled(idle.last()).saturating_sub(idled(idle.first())))
        };
        let foreign = foreign(0, outcome.server_cpu).max(foreign(1, outcome.load_cpu));
        Ok(Sample::new(&outcome, foreign))
    }

    fn plan(&self, running: &Running, workload: &Workload, connections: usize, round: usize) -> Plan<'_> {
        Plan {
            address: running.address(),
            protocol: running.peer.protocol(),
            workload: *workload,
            connections,
            warm_up: self.warm_up,
            window: self.window,
            verify: false,
            // The same for all peers of a round.
            seed: round as u64,
            interrupted: self.interrupted,
        }
    }
}

fn failed(running: &Running, workload: &Workload, error: &Error) -> String {
    let said = if matches!(error, Error::Interrupted) { String::new() } else { running.last_words() };
    format!("{} with {workload}: {error}{said}", running.peer)
}

/// How many pairs there are of a peer and a workload that it takes part in.
pub(crate) fn pairs(peers: &[Peer], workloads: &[Workload]) -> usize {
    let takers = |workload| peers.iter().filter(|peer| peer.skips(workload).is_none()).count();
    workloads.iter().map(takers).sum()
}
