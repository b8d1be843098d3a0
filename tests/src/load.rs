//! Clients that write, read and delete at the same time, and check every byte of every answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::call::Call;
use crate::content::Content;
use crate::node::Node;
use crate::random::{Random, mix};
use crate::wire::{Answer, Broken, Connection};

/// What is asked of a node.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients at a time.
    pub threads: u64,
    /// Keys of each client, which it alone writes and all read.
    pub keys: u64,
    /// Values have 1 byte to this many.
    pub size_max: u64,
    /// Every key is written once before the time begins.
    pub filled: bool,
    /// How long.
    pub time: Duration,
    /// Repeats the same load.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Values stored.
    pub writes: AtomicU64,
    /// Answers with a body, all of it right.
    pub reads: AtomicU64,
    /// Keys that were not there.
    pub misses: AtomicU64,
    /// Requests that the node refused for the moment.
    pub busy: AtomicU64,
    /// Answers that the node broke off, which it may when memory is needed.
    pub cut_off: AtomicU64,
    /// Bytes that were checked.
    pub bytes: AtomicU64,
}

impl Tally {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the body of an upload is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// By `Content-Length`.
    Length,
    /// In chunks.
    Chunked,
}

/// Runs a load. Panics at the first answer that is wrong.
pub fn run(node: &Node, load: Load) -> Tally {
    let tally = Tally::default();
    let committed: Vec<AtomicU32> = (0..load.threads * load.keys).map(|_| AtomicU32::new(0)).collect();
    let stop = AtomicBool::new(false);
    let fault = Mutex::new(None);
    std::thread::scope(|scope| {
        for thread in 0..load.threads {
            let client = Client {
                node,
                load,
                thread,
                connection: node.connect(),
                random: Random::new(mix(load.seed) ^ thread),
                committed: &committed,
                tally: &tally,
            };
            let (stop, fault) = (&stop, &fault);
            scope.spawn(move || {
                if let Err(why) = client.work(stop) {
                    stop.store(true, Ordering::Relaxed);
                    fault.lock().expect("the fault").get_or_insert(why);
                }
            });
        }
    });
    if let Some(why) = fault.into_inner().expect("the fault") {
        panic!("{why}; {tally:?}; the node's log:\n{}", node.log());
    }
    tally
}

/// The size of the value that a write puts under a key.
fn size_of(key: u64, number: u32, max: u64) -> u64 {
    Random::new(mix(key) ^ u64::from(number)).size(max)
}

struct Client<'a> {
    node: &'a Node,
    load: Load,
    thread: u64,
    connection: Connection,
    random: Random,
    /// Of each key, the last write that was acknowledged, and with it deletions.
    committed: &'a [AtomicU32],
    tally: &'a Tally,
}

impl Client<'_> {
    fn work(mut self, stop: &AtomicBool) -> Result<(), String> {
        let mut next = 1;
        if self.load.filled {
            for key in self.thread * self.load.keys..(self.thread + 1) * self.load.keys {
                self.write(key, next)?;
                next += 1;
            }
        }
        let deadline = Instant::now() + self.load.time;
        while Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
            match self.random.below(20) {
                0..=5 => {
                    let key = self.own_key();
                    self.write(key, next)?;
                    next += 1;
                }
                6 => self.delete()?,
                7..=12 => self.read(None)?,
                _ => {
                    let (from, length) = (self.random.number(), self.random.size(self.load.size_max));
                    self.read(Some((from, length)))?;
                }
            }
        }
        Ok(())
    }

    fn own_key(&mut self) -> u64 {
        self.thread * self.load.keys + self.random.below(self.load.keys)
    }

    fn reconnect(&mut self) {
        self.connection = self.node.connect();
        self.connection.patience(Duration::from_secs(60));
    }

    fn write(&mut self, key: u64, number: u32) -> Result<(), String> {
        let size = size_of(key, number, self.load.size_max);
        let content = Content::of_write(key, u64::from(number));
        let head = Call::new("PUT", format!("/cache/{key}")).with("X-ElCache-Flags", number.to_string());
        let framed = if self.random.below(3) == 0 { Framed::Chunked } else { Framed::Length };
        match upload(&mut self.connection, head, content, size, framed) {
            Ok(answer) if matches!(answer.status, 201 | 204) => {
                Tally::count(&self.tally.writes);
                self.committed[key as usize].store(number, Ordering::SeqCst);
                Ok(())
            }
            Ok(answer) if answer.status == 503 => {
                Tally::count(&self.tally.busy);
                self.reconnect();
                Ok(())
            }
            other => Err(format!("PUT of {size} bytes, {framed:?}: {other:?}")),
        }
    }

    fn delete(&mut self) -> Result<(), String> {
        let key = self.own_key();
        match self.connection.try_call(&Call::delete(format!("/cache/{key}"))) {
            Ok(answer) if matches!(answer.status, 204 | 404) => Ok(()),
            other => Err(format!("DELETE: {other:?}")),
        }
    }

    fn read(&mut self, range: Option<(u64, u64)>) -> Result<(), String> {
        let key = self.random.below(self.load.threads * self.load.keys);
        let committed = self.committed[key as usize].load(Ordering::SeqCst);
        let mut call = Call::get(format!("/cache/{key}"));
        let mut asked = None;
        if let Some((from, length)) = range {
            // What is there is likely to be the last write, so that most ranges begin within the value.
            let from = from % size_of(key, committed, self.load.size_max).max(1);
            asked = Some((from, from + length - 1));
            call = call.with("Range", format!("bytes={from}-{}", from + length - 1));
        }
        let _ = self.connection.try_send(call.bytes());
        let answer = match self.connection.try_head() {
            Ok(answer) => answer,
            Err(broken) => return Err(format!("GET: {broken:?}")),
        };
        match answer.status {
            200 | 206 => self.check(key, committed, &answer, asked),
            404 | 416 | 503 => {
                let counter = if answer.status == 503 { &self.tally.busy } else { &self.tally.misses };
                Tally::count(counter);
                self.pass(&answer).map_err(|broken| format!("an error's body: {broken:?}"))
            }
            _ => Err(format!("GET: {answer:?}")),
        }
    }

    fn pass(&mut self, answer: &Answer) -> Result<(), Broken> {
        self.connection.pass(number(answer, "Content-Length").unwrap_or(0), |_, _| ())
    }

    fn check(
        &mut self,
        key: u64,
        committed: u32,
        answer: &Answer,
        asked: Option<(u64, u64)>,
    ) -> Result<(), String> {
        let flags = number(answer, "X-ElCache-Flags").unwrap_or(0);
        let write = u32::try_from(flags).map_err(|_| format!("flags {flags}"))?;
        if write < committed {
            return Err(format!("key {key}: write {write} after {committed} was acknowledged"));
        }
        let size = size_of(key, write, self.load.size_max);
        let length = number(answer, "Content-Length").ok_or("no length")?;
        let (from, expected) = match asked {
            Some((from, last)) => (from, last.min(size - 1).saturating_sub(from) + 1),
            None => (0, size),
        };
        let range = format!("bytes {from}-{}/{size}", from + expected - 1);
        let range_is_right = asked.is_none() || answer.header("Content-Range") == Some(&range);
        if length != expected || !range_is_right || number(answer, "X-ElCache-Size") != Some(size) {
            return Err(format!("key {key}, write {write}, asked {asked:?}, size {size}: {answer:?}"));
        }
        let content = Content::of_write(key, u64::from(write));
        let mut right = true;
        let passed = self.connection.pass(length, |at, bytes| right &= content.is(from + at, bytes));
        match (passed, right) {
            (_, false) => Err(format!("wrong bytes: key {key}, write {write}, asked {asked:?}")),
            (Ok(()), true) => {
                Tally::count(&self.tally.reads);
                self.tally.bytes.fetch_add(length, Ordering::Relaxed);
                Ok(())
            }
            (Err(Broken::CutOff | Broken::Reset), true) => {
                Tally::count(&self.tally.cut_off);
                self.reconnect();
                Ok(())
            }
            (Err(broken), true) => Err(format!("within a body: {broken:?}")),
        }
    }
}

fn number(answer: &Answer, name: &str) -> Option<u64> {
    answer.header(name)?.parse().ok()
}

/// Sends a body that is made as it goes, and reads the answer.
pub fn upload(
    connection: &mut Connection,
    head: Call,
    content: Content,
    size: u64,
    framed: Framed,
) -> Result<Answer, Broken> {
    let head = match framed {
        Framed::Length => head.unframed().with("Content-Length", size.to_string()),
        Framed::Chunked => head.chunked(),
    };
    if connection.try_send(head.bytes()).is_ok() {
        // Whoever cannot go on sending may find the reason among what there is to read.
        let _ = send_body(connection, content, size, framed);
    }
    connection.try_answer(false)
}

fn send_body(
    connection: &mut Connection,
    content: Content,
    size: u64,
    framed: Framed,
) -> std::io::Result<()> {
    let mut piece = vec![0; 128 << 10];
    let mut at = 0;
    while at < size {
        let count = usize::try_from(size - at).unwrap_or(usize::MAX).min(piece.len());
        content.fill(at, &mut piece[..count]);
        match framed {
            Framed::Length => connection.try_send(&piece[..count])?,
            Framed::Chunked => connection.try_send(crate::call::chunk(&piece[..count]))?,
        }
        at += count as u64;
    }
    if framed == Framed::Chunked { connection.try_send("0\r\n\r\n") } else { Ok(()) }
}
