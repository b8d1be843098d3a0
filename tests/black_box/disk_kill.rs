//! `kill -9` at any moment: what was acknowledged is there, what was deleted is gone, and nothing old comes back.
//!
//! Each client alone writes its keys, one request after the other, so that it knows what each of them may be: one state
//! that was acknowledged, and beside it that of a request which had no answer when the node died.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use elcache_tests::call::chunk;
use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::node::Signal;
use elcache_tests::random::{Random, mix, seed};
use elcache_tests::{Answer, Broken, Call, Connection, Node, report};

const CLIENTS: u64 = 4;
const KEYS: u64 = 40;
/// Values of every eighth key have up to three chunks.
const LARGE: u64 = 9 << 20;
const SMALL: u64 = 80 << 10;
/// Rounds on one directory.
const ROUNDS_OF_A_HOME: u64 = 50;
const DURABILITIES: [&str; 3] = ["process", "power", "none"];

/// What a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// The write of this number.
    Written(u64),
    /// The same, in memory alone: it goes with the process, or earlier.
    Passing(u64),
}

impl State {
    /// The number of the write that is there, if any may be.
    fn number(self) -> Option<u64> {
        match self {
            Self::Absent => None,
            Self::Written(number) | Self::Passing(number) => Some(number),
        }
    }
}

/// What a client does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Put(State),
    Delete,
}

/// A key and all that it may be.
#[derive(Clone, Debug)]
struct Item {
    key: u64,
    may_be: Vec<State>,
    /// The tag of the write that is known to be there.
    tag: Option<String>,
    /// Whether there is too little room to keep it.
    may_go: bool,
}

impl Item {
    fn target(&self) -> String {
        format!("/cache/{}", self.key)
    }

    /// The answer to a GET; none where the value may go, and went while it was read: then the connection ends within the answer.
    fn read(&self, call: &Call, connection: &mut Connection) -> Result<Option<Answer>, End> {
        let may_go = self.may_go || self.may_be.iter().any(|state| matches!(state, State::Passing(_)));
        match connection.try_call(call) {
            Err(Broken::CutOff | Broken::Reset) if may_go => match connection.again() {
                Ok(again) => {
                    *connection = again;
                    Ok(None)
                }
                Err(error) => Err(End::Gone(format!("no new connection: {error}"))),
            },
            Err(broken) => Err(match broken.into() {
                End::Gone(why) => End::Gone(format!("{why}: reading {self:?}")),
                fault @ End::Fault(_) => fault,
            }),
            Ok(answer) => Ok(Some(answer)),
        }
    }

    fn size(&self, number: u64) -> u64 {
        let max = if self.key.is_multiple_of(8) { LARGE } else { SMALL };
        Random::new(mix(self.key) ^ number).size(max)
    }

    /// What was acknowledged.
    fn is(&mut self, state: State, tag: Option<String>) {
        self.may_be = vec![state];
        if matches!(state, State::Passing(_)) || (self.may_go && state != State::Absent) {
            self.may_be.push(State::Absent);
        }
        self.tag = tag;
    }

    /// What may have happened.
    fn may_be(&mut self, state: State) {
        self.may_be.push(state);
        if self.may_go || matches!(state, State::Passing(_)) {
            self.may_be.push(State::Absent);
        }
        self.tag = None;
    }

    fn crashed(&mut self) {
        for state in &mut self.may_be {
            if let State::Passing(_) = state {
                *state = State::Absent;
            }
        }
    }

    /// Checks a whole answer to a GET, and takes it for what the key is.
    fn observe(&mut self, answer: &Answer) -> Result<(), String> {
        let wrong = |item: &Self, why: &str| {
            Err(format!(
                "key {}: {why}: {} with {:?}, may be {:?}",
                item.key, answer.status, answer.headers, item.may_be
            ))
        };
        match answer.status {
            // Of what memory alone has, some chunks are gone: there is a value still, for who replaces or deletes it.
            404 if answer.header("X-ElCache-Hit") == Some("partial")
                && self.may_be.contains(&State::Absent) =>
            {
                return Ok(());
            }
            // What memory has dropped may be on its way to the disk.
            404 if self.may_go && self.may_be.contains(&State::Absent) => return Ok(()),
            404 if self.may_be.contains(&State::Absent) => {
                self.is(State::Absent, None);
                return Ok(());
            }
            404 => return wrong(self, "it is lost"),
            200 => {}
            _ => return wrong(self, "it is not answered"),
        }
        let number =
            answer.header("X-ElCache-Flags").and_then(|flags| flags.parse().ok()).unwrap_or(u64::MAX);
        let Some(state) = self.may_be.iter().copied().find(|state| state.number() == Some(number)) else {
            return wrong(self, "this write is not the last");
        };
        let content = Content::of_write(self.key, number);
        if answer.body.len() as u64 != self.size(number) || !content.is(0, &answer.body) {
            return wrong(self, "wrong bytes");
        }
        if answer.header("Content-Type") != Some(&format!("test/{number}")) {
            return wrong(self, "wrong headers");
        }
        self.is(state, Some(answer.etag().to_owned()));
        Ok(())
    }
}

/// A client, its keys, and what it does next.
struct Client {
    items: Vec<Item>,
    random: Random,
    /// The number of its next write.
    next: u64,
    /// Requests that were answered.
    answered: u64,
}

/// How a client's round ended.
enum End {
    /// The connection ended: the node died, if it was killed.
    Gone(String),
    /// Something is wrong.
    Fault(String),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed | Broken::CutOff | Broken::Reset => Self::Gone(format!("{broken:?}")),
            other => Self::Fault(format!("{other:?}")),
        }
    }
}

impl Client {
    fn new(number: u64, seed: u64, may_go: bool) -> Self {
        let item = |key| Item { key, may_be: vec![State::Absent], tag: None, may_go };
        let items = (number * KEYS..(number + 1) * KEYS).map(item).collect();
        Self { items, random: Random::new(mix(seed) ^ number), next: 1, answered: 0 }
    }

    /// Looks at every key, then works until the node dies.
    fn round(&mut self, node: &Node, killing: &AtomicBool) -> Result<(), String> {
        self.items.iter_mut().for_each(Item::crashed);
        let Ok(mut connection) = Connection::open(node.address()) else { return Ok(()) };
        let ended = self.check(&mut connection).and_then(|()| {
            loop {
                self.step(&mut connection)?;
                self.answered += 1;
            }
        });
        match ended {
            Err(End::Gone(why)) if !killing.load(Ordering::SeqCst) => Err(why),
            Ok(()) | Err(End::Gone(_)) => Ok(()),
            Err(End::Fault(why)) => Err(why),
        }
    }

    /// Looks at every key, in an order that recovery does not follow.
    fn check(&mut self, connection: &mut Connection) -> Result<(), End> {
        let first = self.random.below(KEYS) as usize;
        self.items.rotate_left(first);
        for item in &mut self.items {
            let Some(answer) = item.read(&Call::get(item.target()), connection)? else { continue };
            item.observe(&answer).map_err(|why| End::Fault(format!("after a restart, {why}")))?;
        }
        Ok(())
    }

    fn step(&mut self, connection: &mut Connection) -> Result<(), End> {
        let at = self.random.below(KEYS) as usize;
        match self.random.below(20) {
            0..=9 => self.put(at, connection),
            10..=12 => self.delete(at, connection),
            13..=16 => self.get(at, connection),
            _ => self.range(at, connection),
        }
    }

    fn get(&mut self, at: usize, connection: &mut Connection) -> Result<(), End> {
        let item = &mut self.items[at];
        match item.read(&Call::get(item.target()), connection)? {
            Some(answer) => item.observe(&answer).map_err(End::Fault),
            None => Ok(()),
        }
    }

    fn range(&mut self, at: usize, connection: &mut Connection) -> Result<(), End> {
        let item = &self.items[at];
        let [State::Written(number)] = item.may_be[..] else { return Ok(()) };
        let from = self.random.below(item.size(number));
        let last = (from + self.random.size(LARGE)).min(item.size(number)) - 1;
        let call = Call::get(item.target()).with("Range", format!("bytes={from}-{last}"));
        let Some(answer) = item.read(&call, connection)? else { return Ok(()) };
        let right = answer.status == 206
            && answer.body.len() as u64 == last - from + 1
            && Content::of_write(item.key, number).is(from, &answer.body);
        if right { Ok(()) } else { Err(End::Fault(format!("{item:?}, bytes {from} to {last}: {answer:?}"))) }
    }

    /// A PUT, with a condition now and then that holds or does not.
    fn put(&mut self, at: usize, connection: &mut Connection) -> Result<(), End> {
        let (number, item) = (self.next, &mut self.items[at]);
        self.next += 1;
        let mut call = Call::new("PUT", item.target())
            .with("X-ElCache-Flags", number.to_string())
            .with("Content-Type", format!("test/{number}"));
        let mut state = State::Written(number);
        match self.random.below(10) {
            0 => {
                call = call.with("X-ElCache-No-Disk", "true");
                state = State::Passing(number);
            }
            1 => call = call.with("X-ElCache-No-Memory", "true"),
            _ => {}
        }
        let mut holds = true;
        match (self.random.below(5), &item.may_be[..], &item.tag) {
            (0, [State::Absent], _) => call = call.with("If-None-Match", "*"),
            (0, [State::Written(_)], _) => {
                call = call.with("If-None-Match", "*");
                holds = false;
            }
            (1, [State::Written(_)], Some(tag)) => call = call.with("If-Match", tag),
            (1, [_], _) => {
                call = call.with("If-Match", "\"0\"");
                holds = false;
            }
            _ => {}
        }
        let body = Content::of_write(item.key, number).bytes(item.size(number) as usize);
        let call = match self.random.below(3) {
            0 => call.chunked().body([chunk(&body), chunk(b"")].concat()),
            _ => call.body(&body),
        };
        self.write(at, connection, &call, Write::Put(state), holds)
    }

    fn delete(&mut self, at: usize, connection: &mut Connection) -> Result<(), End> {
        let item = &self.items[at];
        let mut call = Call::delete(item.target());
        let mut holds = true;
        match (self.random.below(4), &item.may_be[..], &item.tag) {
            (0, [State::Written(_)], Some(tag)) => call = call.with("If-Match", tag),
            (1, [State::Written(_)], _) => {
                call = call.with("If-Match", "\"0\"");
                holds = false;
            }
            _ => {}
        }
        self.write(at, connection, &call, Write::Delete, holds)
    }

    /// Sends a write and notes what it makes of the key.
    fn write(
        &mut self,
        at: usize,
        connection: &mut Connection,
        call: &Call,
        write: Write,
        holds: bool,
    ) -> Result<(), End> {
        let state = match write {
            Write::Put(state) => state,
            Write::Delete => State::Absent,
        };
        let answer = connection.try_call(call);
        let item = &mut self.items[at];
        let answer = match answer {
            Ok(answer) => answer,
            Err(broken) => {
                if holds {
                    item.may_be(state);
                }
                return Err(match broken.into() {
                    End::Gone(why) => End::Gone(format!("{why}: {write:?}, holds: {holds}, of {item:?}")),
                    fault @ End::Fault(_) => fault,
                });
            }
        };
        let was_there = item.may_be.iter().any(|state| state.number().is_some());
        let was_absent = item.may_be.contains(&State::Absent);
        let fits = match (write, answer.status) {
            (_, 412) => !holds,
            (Write::Put(_), 201) => holds && was_absent,
            (Write::Put(_) | Write::Delete, 204) => holds && was_there,
            (Write::Delete, 404) => was_absent,
            // Uploads of unknown length ask for more room than there is for several.
            (Write::Put(_), 503) => false,
            _ => false,
        };
        if !fits {
            return Err(End::Fault(format!("{write:?}, holds: {holds}, of {item:?}: {answer:?}")));
        }
        // What is left of a chunked body may be too much for the connection to go on.
        if matches!(answer.status, 412 | 503) {
            *connection = match connection.again() {
                Ok(again) => again,
                Err(_) => return Err(End::Gone("no new connection".to_owned())),
            };
        }
        match answer.status {
            412 => {}
            503 => item.may_be(state),
            404 => item.is(State::Absent, None),
            _ => item.is(
                state,
                (write != Write::Delete).then(|| answer.header("ETag").map(str::to_owned)).flatten(),
            ),
        }
        Ok(())
    }
}

/// A node's memory, its disk, and whether that is too little for all that is stored.
#[derive(Clone, Copy)]
struct Room {
    memory: &'static str,
    disk: &'static str,
    segment: &'static str,
    is_little: bool,
}

const PLENTY: Room = Room { memory: "64", disk: "8G", segment: "16MiB", is_little: false };
/// What was written long ago leaves the disk, and goes there again when memory drops it.
const LITTLE: Room = Room { memory: "24", disk: "64M", segment: "8MiB", is_little: true };

/// Rounds of load that a kill ends.
fn rounds(count: u64, seed: u64, room: Room) {
    report(format_args!("{count} rounds, ELCACHE_TEST_SEED={seed} repeats them"));
    let mut random = Random::new(seed);
    let (mut answered, mut began) = (0, 0);
    while began < count {
        let mut home = Home::new(room.memory, room.disk).with("ELCACHE__DISK__SEGMENT_SIZE", room.segment);
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|number| Client::new(number, random.number(), room.is_little)).collect();
        let end = count.min(began + ROUNDS_OF_A_HOME);
        for round in began..end {
            home.set("ELCACHE__DISK__DURABILITY", DURABILITIES[(round % 3) as usize]);
            // Every other one soon: while the index is recovered, or by then.
            let time = if round % 2 == 0 { random.size(200) } else { 100 + random.below(400) };
            let time = Duration::from_millis(time);
            one_round(home.node(), &mut clients, Some(time), &format!("round {round}, seed {seed}"));
        }
        one_round(home.node(), &mut clients, None, &format!("after round {end}, seed {seed}"));
        answered += clients.iter().map(|client| client.answered).sum::<u64>();
        began = end;
    }
    report(format_args!("{answered} requests answered"));
}

/// Has the clients work for this long, or look at their keys once.
fn one_round(node: Node, clients: &mut [Client], time: Option<Duration>, what: &str) {
    let (faults, killing) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for client in clients {
            let (node, faults, killing) = (&node, &faults, &killing);
            scope.spawn(move || {
                let done = match time {
                    Some(_) => client.round(node, killing),
                    None => client.last_look(node),
                };
                if let Err(why) = done {
                    faults.lock().expect("the faults").push(why);
                }
            });
        }
        if let Some(time) = time {
            // The moment is to be a random one: there is no condition to wait for.
            std::thread::sleep(time);
            killing.store(true, Ordering::SeqCst);
            node.signal(Signal::KILL);
        }
    });
    let faults = faults.into_inner().expect("the faults");
    assert!(faults.is_empty(), "{what}: {faults:#?}; the node's log:\n{}", node.log());
    node.kill();
}

impl Client {
    /// Looks at every key of a node that lives on.
    fn last_look(&mut self, node: &Node) -> Result<(), String> {
        self.items.iter_mut().for_each(Item::crashed);
        match self.check(&mut node.connect()) {
            Ok(()) => Ok(()),
            Err(End::Gone(why) | End::Fault(why)) => Err(why),
        }
    }
}

#[test]
fn fifty_kills_lose_nothing_and_bring_nothing_back() {
    rounds(50, seed(), PLENTY);
}

#[test]
fn kills_on_a_full_disk_bring_nothing_back() {
    rounds(16, seed(), LITTLE);
}

#[test]
fn soak_five_hundred_kills_on_a_full_disk_bring_nothing_back() {
    rounds(500, seed(), LITTLE);
}

#[test]
fn soak_a_thousand_kills_lose_nothing_and_bring_nothing_back() {
    rounds(1000, seed(), PLENTY);
}
