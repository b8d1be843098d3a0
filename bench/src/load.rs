//! One run: connections that each send their next request as soon as the last answer is whole, for a warm-up and then
//! for a measured window.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::connection::{Connection, Wire};
use crate::content::Random;
use crate::cpu;
use crate::error::Error;
use crate::histogram::Histogram;
use crate::protocol::Protocol;
use crate::workload::{Action, Kind, Request, Workload};

/// A server that is silent for so long while requests are out has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// A window has so many answers for each connection: what is half done at its ends must not weigh.
const LAPS: u64 = 4;
/// But a window that was meant to be shorter lasts no longer than this.
const LONGEST: Duration = Duration::from_secs(8);
/// A look that finds nothing takes well below this; in a longer one somebody else had the core.
const LONGEST_LOOK: Duration = Duration::from_micros(2);

/// What to run.
pub struct Plan<'a> {
    /// Where the server listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// What is asked.
    pub workload: Workload,
    /// How many connections, each with one request in flight.
    pub connections: usize,
    /// Not measured; at least until there is an answer for each connection.
    pub warm_up: Duration,
    /// Measured; longer if there are very few answers.
    pub window: Duration,
    /// Compares every byte, and reads back what it has put. Numbers of such a run measure the generator.
    pub verify: bool,
    /// The same seed gives the same requests.
    pub seed: u64,
    /// Ends the run early when it becomes true.
    pub interrupted: &'a AtomicBool,
}

/// What was measured in the window.
pub struct Outcome {
    /// Whole good answers.
    pub requests: u64,
    /// Payload of them, headers not counted.
    pub bytes: u64,
    /// Length of the window.
    pub elapsed: Duration,
    /// From the first byte sent to the last byte received.
    pub latencies: Histogram,
    /// Processor time of the server.
    pub server_cpu: Duration,
    /// Processor time of the generator, all of its core while nobody takes it away.
    pub load_cpu: Duration,
    /// What it spent of that looking for answers that had not come.
    pub load_waiting: Duration,
}

/// Runs the plan. `server_cpu` tells how much processor time the server has used so far; it is
/// asked when the window begins and when it ends.
pub fn run(plan: &Plan<'_>, server_cpu: &mut dyn FnMut() -> Duration) -> Result<Outcome, Error> {
    let mut load = Load::connect(plan)?;
    load.run_for(plan.warm_up, 1)?;
    load.counted = Counted::default();
    let (begin, server, own) = (Instant::now(), server_cpu(), cpu::own());
    load.run_for(plan.window, LAPS)?;
    if load.counted.latencies.is_empty() {
        return Err(Error::Stalled(begin.elapsed().as_secs()));
    }
    let counted = std::mem::take(&mut load.counted);
    let outcome = Outcome {
        requests: counted.latencies.len(),
        bytes: counted.bytes,
        elapsed: begin.elapsed(),
        latencies: counted.latencies,
        server_cpu: server_cpu().saturating_sub(server),
        load_cpu: cpu::own().saturating_sub(own),
        load_waiting: counted.waiting,
    };
    load.finish()?;
    Ok(outcome)
}

#[derive(Default)]
struct Counted {
    latencies: Histogram,
    bytes: u64,
    waiting: Duration,
}

struct Load<'a> {
    plan: &'a Plan<'a>,
    wire: Wire,
    epoll: Epoll,
    connections: Vec<Connection>,
    random: Random,
    counted: Counted,
    finishing: bool,
    now: Instant,
    last_answer: Instant,
}

impl<'a> Load<'a> {
    fn connect(plan: &'a Plan<'a>) -> Result<Self, Error> {
        let put_size = if plan.workload.kind == Kind::Put { plan.workload.size } else { 0 };
        let idle = Request::get(plan.workload.value(0));
        let mut load = Self {
            plan,
            wire: Wire::new(plan.protocol, plan.verify, put_size),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
                .map_err(Error::io("creating an epoll instance"))?,
            connections: Vec::with_capacity(plan.connections),
            random: Random::new(plan.seed),
            counted: Counted::default(),
            finishing: false,
            now: Instant::now(),
            last_answer: Instant::now(),
        };
        // Edges: a connection is registered once, and is read and written until the socket has no more to give.
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        for index in 0..plan.connections {
            let connection = Connection::open(plan.address, idle)?;
            connection.stream().set_nonblocking(true).map_err(Error::io("making a socket non-blocking"))?;
            let event = EpollEvent::new(edges, index as u64);
            load.epoll.add(connection.stream(), event).map_err(Error::io("watching a socket"))?;
            load.connections.push(connection);
        }
        for index in 0..plan.connections {
            load.begin(index, Instant::now())?;
        }
        Ok(load)
    }

    /// Runs for this long, and then until every connection has had so many answers on average, within limits.
    fn run_for(&mut self, duration: Duration, laps: u64) -> Result<(), Error> {
        let (begin, least) = (Instant::now(), laps * self.plan.connections as u64);
        while self.now < begin + duration
            || (self.counted.latencies.len() < least && self.now < begin + duration.max(LONGEST))
        {
            self.turn()?;
        }
        Ok(())
    }

    /// Lets the requests that are out come back, so that no server is left with half of one.
    fn finish(&mut self) -> Result<(), Error> {
        self.finishing = true;
        while self.connections.iter().any(Connection::is_busy) {
            self.turn()?;
        }
        Ok(())
    }

    /// Looks for sockets that are ready and serves them.
    ///
    /// It never sleeps. Waking a sleeper on another core is work for whoever sends to it, here the server, and how
    /// much depends on how deep that core sleeps: it made a server's time per request differ by a fifth between runs.
    /// A server whose clients are on other machines wakes none of them.
    fn turn(&mut self) -> Result<(), Error> {
        let mut events = [EpollEvent::empty(); 64];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::io("looking for ready sockets")(errno)),
        };
        if self.plan.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        for event in &events[..ready] {
            self.serve(event.data() as usize)?;
        }
        let now = Instant::now();
        if ready > 0 {
            self.last_answer = now;
        } else if now - self.last_answer > PATIENCE {
            return Err(Error::Stalled(PATIENCE.as_secs()));
        } else {
            self.counted.waiting += (now - self.now).min(LONGEST_LOOK);
        }
        self.now = now;
        Ok(())
    }

    fn serve(&mut self, index: usize) -> Result<(), Error> {
        let connection = &mut self.connections[index];
        if !connection.advance(&mut self.wire)? {
            return Ok(());
        }
        let now = Instant::now();
        self.counted.latencies.record(now - connection.started());
        self.counted.bytes += connection.request().length();
        if self.finishing { Ok(()) } else { self.begin(index, now) }
    }

    fn begin(&mut self, index: usize, now: Instant) -> Result<(), Error> {
        let request = self.next_request(index);
        let connection = &mut self.connections[index];
        connection.begin(&self.wire, request, now);
        connection.send(&self.wire)
    }

    /// When verifying, what was put is read back by the connection that put it, and no two connections put the same
    /// value.
    fn next_request(&mut self, index: usize) -> Request {
        let last = self.connections[index].request();
        if self.plan.verify
            && let Action::Put { origin } = last.action
        {
            return Request { value: last.value, action: Action::Get { origin } };
        }
        let mut request = self.plan.workload.next(&mut self.random);
        if let Action::Put { origin } = &mut request.action {
            *origin = self.wire.fresh_origin();
            if self.plan.verify {
                let connections = self.plan.connections as u64;
                request.value.number -= request.value.number % connections;
                request.value.number += index as u64;
            }
        }
        request
    }
}
