//! Every fault alone, and random sequences of five, on three directories of a node under load.
//!
//! Each client alone writes its keys, one request after the other, so that it knows what each of them may be: the value that
//! was acknowledged last, or one of those whose writes nobody knows the end of; or nothing, since what a directory had may be lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use elcache_tests::binary::elcached;
use elcache_tests::content::Content;
use elcache_tests::node::wait_for;
use elcache_tests::random::{Random, mix, seed};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Answer, Broken, Call, Connection, Node, report};

use crate::disk_causes::{Cause, FAULTS, Fault, Place, has};
use crate::disk_directories::{BACK, allow, health, is_told, target};
use crate::disk_start::{as_nobody, only};

const CLIENTS: u64 = 4;
const KEYS: u64 = 50;
/// Values of every eighth key have up to two chunks.
const LARGE: u64 = 5 << 20;
const SMALL: u64 = 80 << 10;
/// A request is answered or refused within fifteen seconds; a little more for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key, and the numbers of the writes of which one may be there.
struct Item {
    key: u64,
    may_be: Vec<u64>,
}

struct Client {
    items: Vec<Item>,
    random: Random,
    connection: Connection,
    /// The number of the next write.
    next: u64,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    written: u64,
    refused: u64,
    found: u64,
    missed: u64,
    cut_off: u64,
}

impl Item {
    fn size(&self, number: u64) -> usize {
        let max = if self.key.is_multiple_of(8) { LARGE } else { SMALL };
        Random::new(mix(self.key) ^ number).size(max) as usize
    }

    /// A value that was found is one that may be there, and whole.
    #[track_caller]
    fn observe(&mut self, answer: &Answer) {
        let number = answer.header("X-ElCache-Flags").and_then(|flags| flags.parse().ok()).unwrap_or(0);
        assert!(self.may_be.contains(&number), "{} is write {number}, may be {:?}", self.key, self.may_be);
        let right =
            answer.body.len() == self.size(number) && Content::of_write(self.key, number).is(0, &answer.body);
        assert!(right, "{} of write {number}: {} bytes, or wrong ones", self.key, answer.body.len());
        self.may_be = vec![number];
    }
}

impl Client {
    fn new(node: &Node, number: u64, seed: u64) -> Self {
        let items =
            (number * KEYS..(number + 1) * KEYS).map(|key| Item { key, may_be: Vec::new() }).collect();
        let random = Random::new(mix(seed) ^ number);
        Self { items, random, connection: node.connect(), next: 1, tally: Tally::default() }
    }

    fn work(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let at = self.random.below(KEYS) as usize;
            let began = Instant::now();
            match self.random.below(20) {
                0..=7 => _ = self.put(at),
                8 => self.delete(at),
                _ => _ = self.get(at),
            }
            assert!(began.elapsed() < PATIENCE, "a request took {:?}", began.elapsed());
        }
    }

    /// The answer, unless the node broke the connection off.
    fn call(&mut self, call: &Call) -> Option<Answer> {
        match self.connection.try_call(call) {
            Ok(answer) => {
                // What is left of a body may be too much for the connection to go on.
                if answer.status >= 500 {
                    self.connection = self.connection.again().expect("a new connection");
                }
                Some(answer)
            }
            Err(Broken::CutOff | Broken::Reset | Broken::Closed) => {
                self.tally.cut_off += 1;
                self.connection = self.connection.again().expect("a new connection");
                None
            }
            Err(broken) => panic!("{broken:?}"),
        }
    }

    /// Whether it is acknowledged.
    fn put(&mut self, at: usize) -> bool {
        let number = self.next;
        self.next += 1;
        let item = &self.items[at];
        let body = Content::of_write(item.key, number).bytes(item.size(number));
        let call = Call::put(target(item.key), body).with("X-ElCache-Flags", number.to_string());
        let answer = self.call(&call);
        let may_be = &mut self.items[at].may_be;
        match answer.map(|answer| answer.status) {
            Some(201 | 204) => {
                *may_be = vec![number];
                self.tally.written += 1;
                true
            }
            Some(503 | 507) | None => {
                may_be.push(number);
                self.tally.refused += 1;
                false
            }
            Some(status) => panic!("a PUT is answered {status}"),
        }
    }

    fn delete(&mut self, at: usize) {
        let answer = self.call(&Call::delete(target(self.items[at].key)));
        match answer.map(|answer| answer.status) {
            Some(204 | 404) => self.items[at].may_be.clear(),
            Some(503) | None => self.tally.refused += 1,
            Some(status) => panic!("a DELETE is answered {status}"),
        }
    }

    /// Whether it is there.
    fn get(&mut self, at: usize) -> bool {
        let Some(answer) = self.call(&Call::get(target(self.items[at].key))) else { return false };
        match answer.status {
            200 => {
                self.items[at].observe(&answer);
                self.tally.found += 1;
                true
            }
            404 | 503 => {
                self.tally.missed += 1;
                false
            }
            _ => panic!("{answer:?}"),
        }
    }

    /// Everything can be written, and is there then.
    fn store_all(&mut self) {
        for at in 0..self.items.len() {
            assert!(self.put(at), "{} is not taken", self.items[at].key);
        }
        self.find_all();
    }

    fn find_all(&mut self) {
        for at in 0..self.items.len() {
            assert!(self.get(at), "{} is not there", self.items[at].key);
        }
    }
}

/// Three file systems, and how nodes are started on them.
struct Machine {
    places: Vec<Place>,
    wrapper: Vec<String>,
    envs: [(&'static str, String); 5],
    // Its directory goes when nothing is mounted in it any more.
    _scratch: Scratch,
}

impl Machine {
    /// Nothing where file systems cannot be mounted.
    fn new(durability: &str) -> Option<Self> {
        if !has("setpriv") {
            report("skipped: there is no setpriv");
            return None;
        }
        let scratch = Scratch::new();
        allow(scratch.path(), 0o777);
        // The build directory may be somebody's own.
        let program = scratch.path().join("elcached");
        std::fs::copy(elcached(), &program).expect("a copy that nobody can start");
        let root = |name| scratch.path().join(name);
        let places = vec![Place::ext4(root("a"))?, Place::ext4(root("b"))?, Place::tmpfs(root("c"))?];
        let paths: Vec<_> = places.iter().map(|place| format!("\"{}\"", place.dir().display())).collect();
        let envs = [
            ("ELCACHE__DISK__PATH", format!("[{}]", paths.join(","))),
            ("ELCACHE__DISK__MAX_SIZE", "96M".to_owned()),
            ("ELCACHE__DISK__SEGMENT_SIZE", "8MiB".to_owned()),
            ("ELCACHE__DISK__IO_ENGINE", "threads".to_owned()),
            ("ELCACHE__DISK__DURABILITY", durability.to_owned()),
        ];
        let mut wrapper: Vec<_> = as_nobody().into_iter().map(str::to_owned).collect();
        wrapper.extend([program.to_str().expect("text").to_owned(), "-m".to_owned(), "64".to_owned()]);
        Some(Self { places, wrapper, envs, _scratch: scratch })
    }

    fn node(&self) -> Node {
        let line: Vec<_> = self.wrapper.iter().map(String::as_str).collect();
        let mut command = only(&line);
        self.envs.iter().for_each(|(name, value)| _ = command.env(name, value));
        let node = Node::run(command);
        node.wait_healthy();
        node
    }
}

/// Faults one after the other, each for this long; its cause goes then, or stays until all go.
fn befall(machine: &Machine, node: &Node, faults: &[Fault], time: Duration, random: &mut Random) {
    // Of each directory, and of all of them at once.
    let mut causes: [Option<Cause>; 4] = Default::default();
    for fault in faults {
        let number = random.below(if fault.needs_ext4() { 2 } else { 3 }) as usize;
        let place = &machine.places[number];
        let cause = &mut causes[if fault.is_everywhere() { 3 } else { number }];
        // What was wrong there before makes room for it.
        *cause = None;
        *cause = fault.befalls(place, node);
        if cause.is_none() {
            continue;
        }
        if fault.is_told() {
            let dir = place.dir();
            let what = if fault.is_everywhere() { "out of service" } else { dir.to_str().expect("text") };
            is_told(node, &[what]);
        }
        std::thread::sleep(time);
        if *fault == Fault::Full && faults.len() == 1 {
            assert!(!health(node).1.contains("out of service"), "{:?}", health(node));
        }
        if random.below(2) == 0 {
            *cause = None;
        }
    }
}

fn sequence(faults: &[Fault], time: Duration, seed: u64) {
    let durability = if faults.contains(&Fault::SyncsFail) { "power" } else { "process" };
    report(format_args!("{faults:?}, durability {durability}, ELCACHE_TEST_SEED={seed} repeats it"));
    let Some(machine) = Machine::new(durability) else { return };
    let node = machine.node();
    let mut random = Random::new(seed);
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(&node, number, seed)).collect();
    clients.iter_mut().for_each(Client::store_all);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        clients.iter_mut().for_each(|client| _ = scope.spawn(|| client.work(&stop)));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            befall(&machine, &node, faults, time, &mut random);
            let began = Instant::now();
            let well = wait_for(BACK * 2, || health(&node).1.contains("\"healthy\"").then_some(()));
            assert!(well.is_some(), "{:?}; {}", health(&node), node.log());
            report(format_args!("well after {:?}", began.elapsed()));
        }));
        stop.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    report(format_args!("{:?}", clients.iter().map(|client| client.tally).collect::<Vec<_>>()));
    assert!(clients.iter().all(|client| client.tally.found > 50 && client.tally.written > 50));
    clients.iter_mut().for_each(Client::store_all);
    node.assert_healthy();
    node.kill();
    let node = machine.node();
    for client in &mut clients {
        client.connection = node.connect();
        client.find_all();
    }
    node.assert_healthy();
}

#[test]
fn two_faults_one_after_the_other_and_no_wrong_answer() {
    sequence(&[Fault::ReadOnly, Fault::Removed], Duration::from_millis(500), seed());
}

#[test]
fn soak_every_fault_alone_and_no_wrong_answer() {
    let seed = seed();
    for (nth, fault) in (0..).zip(FAULTS) {
        sequence(&[fault], Duration::from_secs(4), seed + nth);
    }
}

#[test]
fn soak_sequences_of_five_faults_and_no_wrong_answer() {
    let seed = seed();
    for nth in 0..8 {
        let mut random = Random::new(mix(seed + nth));
        let faults = [(); 5].map(|()| *random.pick(&FAULTS));
        sequence(&faults, Duration::from_millis(500 + random.below(6000)), seed + nth);
    }
}
