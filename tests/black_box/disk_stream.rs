//! Far more than memory and disk can hold streams through a node, as values of every size: what it answers is right, and it grows
//! beyond neither.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use elcache_tests::content::Stamped;
use elcache_tests::home::Home;
use elcache_tests::load::Framed;
use elcache_tests::random::{Random, mix};
use elcache_tests::{Answer, Broken, Call, Connection, Node, report};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const CLIENTS: u64 = 6;
/// Of more than this, a range is read, and seldom all of it.
const READ_MAX: u64 = 8 * MIB;
/// A client that cannot get on for so long gives up: longer than a node lets one wait for room.
const PATIENCE: Duration = Duration::from_secs(150);

/// What streams through what.
#[derive(Clone, Copy)]
struct Plan {
    memory: u64,
    disk: u64,
    largest: u64,
    /// Written as values of every size, first until the disk is full, then in rounds.
    stream: u64,
    rounds: u64,
    /// Values of 64 MiB, written between two rounds with nothing beside them: what the disk tier takes.
    alone: u64,
}

/// What is written at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Values of 1 byte to the largest, with and without a length, and some are read.
    Stream,
    /// Values of 64 MiB.
    Alone,
}

/// What came of it.
#[derive(Debug, Default)]
struct Tally {
    writes: AtomicU64,
    /// Writes that were refused for the moment.
    busy: AtomicU64,
    reads: AtomicU64,
    /// Values that had gone, as a whole or in part.
    misses: AtomicU64,
    /// Answers that were broken off, since what was read went meanwhile.
    cut_off: AtomicU64,
    read_bytes: AtomicU64,
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// Clients of a node, one phase after the other.
struct Stream<'a> {
    node: &'a Node,
    plan: Plan,
    next: AtomicU64,
    /// Bytes of all values so far.
    sent: AtomicU64,
    tally: Tally,
    fault: Mutex<Option<String>>,
}

/// How far a phase has come.
struct Progress {
    began: Instant,
    goal: u64,
    sent: AtomicU64,
    /// When the goal was reached: until then all clients are busy.
    reached: OnceLock<Duration>,
}

impl Progress {
    fn sent(&self, bytes: u64) {
        if self.sent.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.goal {
            self.reached.get_or_init(|| self.began.elapsed());
        }
    }
}

impl Stream<'_> {
    /// Writes so many bytes; how long that took.
    fn write(&self, phase: Phase, goal: u64) -> Duration {
        let (began, sent) = (Instant::now(), AtomicU64::new(0));
        let progress = Progress { began, goal, sent, reached: OnceLock::new() };
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let mut client = Client::new(self, phase);
                let progress = &progress;
                scope.spawn(move || {
                    while progress.reached.get().is_none() && self.fault.lock().expect("the fault").is_none()
                    {
                        if let Err(why) = client.put(progress).and_then(|()| client.look()) {
                            self.fault.lock().expect("the fault").get_or_insert(why);
                        }
                    }
                });
            }
        });
        if let Some(why) = self.fault.lock().expect("the fault").take() {
            panic!("{why}; {:?}; the node's log:\n{}", self.tally, self.node.log());
        }
        progress.reached.into_inner().expect("it was reached")
    }

    /// The size of the value of this key: of every order of magnitude, and more of them small than large.
    fn size(&self, key: u64) -> u64 {
        let mut random = Random::new(mix(key));
        let largest = self.plan.largest;
        let max = match random.below(8) {
            0 => largest,
            1 | 2 => largest / 64,
            3 | 4 => (largest / 4096).max(64 * KIB),
            _ => 64 * KIB,
        };
        random.size(max)
    }
}

struct Client<'a> {
    of: &'a Stream<'a>,
    phase: Phase,
    connection: Connection,
    content: Stamped,
    random: Random,
}

impl<'a> Client<'a> {
    fn new(of: &'a Stream<'a>, phase: Phase) -> Self {
        let random = Random::new(count(&of.next));
        Self { of, phase, connection: connect(of.node), content: Stamped::default(), random }
    }

    fn put(&mut self, progress: &Progress) -> Result<(), String> {
        let key = count(&self.of.next);
        let (call, size) = match self.phase {
            Phase::Stream => (Call::new("PUT", target(key)), self.of.size(key)),
            Phase::Alone => (Call::new("PUT", format!("/cache/alone/{key}")), 64 * MIB),
        };
        let framed = if self.phase == Phase::Stream && key.is_multiple_of(3) {
            Framed::Chunked
        } else {
            Framed::Length
        };
        let began = Instant::now();
        match self.upload(call, key, size, framed, progress) {
            Ok(Answer { status: 201, .. }) => _ = count(&self.of.tally.writes),
            Ok(answer) if answer.status == 503 && answer.header("Retry-After").is_some() => {
                count(&self.of.tally.busy);
                report(format_args!("{size} bytes, {framed:?}, are refused after {:?}", began.elapsed()));
                self.connection = connect(self.of.node);
            }
            other => return Err(format!("PUT {key} of {size} bytes, {framed:?}: {other:?}")),
        }
        Ok(())
    }

    fn upload(
        &mut self,
        call: Call,
        key: u64,
        size: u64,
        framed: Framed,
        progress: &Progress,
    ) -> Result<Answer, Broken> {
        let head = match framed {
            Framed::Length => call.unframed().with("Content-Length", size.to_string()),
            Framed::Chunked => call.chunked(),
        };
        // Whoever cannot go on sending finds the reason among what there is to read.
        let _ = self.send(head, key, size, framed, progress);
        self.connection.try_answer(false)
    }

    fn send(
        &mut self,
        head: Call,
        key: u64,
        size: u64,
        framed: Framed,
        progress: &Progress,
    ) -> std::io::Result<()> {
        self.connection.try_send(head.bytes())?;
        for number in 0..size.div_ceil(Stamped::PIECE) {
            let length = (size - number * Stamped::PIECE).min(Stamped::PIECE);
            let piece = &self.content.piece(key, number)[..length as usize];
            if framed == Framed::Chunked {
                self.connection.try_send(format!("{length:x}\r\n"))?;
            }
            self.connection.try_send(piece)?;
            if framed == Framed::Chunked {
                self.connection.try_send("\r\n")?;
            }
            progress.sent(length);
            self.of.sent.fetch_add(length, Ordering::Relaxed);
        }
        if framed == Framed::Chunked { self.connection.try_send("0\r\n\r\n") } else { Ok(()) }
    }

    /// Reads something now and then, half of the time of what was written last.
    fn look(&mut self) -> Result<(), String> {
        if self.phase == Phase::Alone || self.random.below(4) > 0 {
            return Ok(());
        }
        let written = self.of.next.load(Ordering::Relaxed);
        let among = if self.random.below(2) == 0 { written } else { written.min(20 * CLIENTS) };
        let key = written - 1 - self.random.below(among);
        let size = self.of.size(key);
        let mut call = Call::get(target(key));
        let mut part = 0..size;
        if size > READ_MAX && self.random.below(8) > 0 {
            let from = self.random.below(size);
            part = from..(from + self.random.size(READ_MAX)).min(size);
            call = call.with("Range", format!("bytes={from}-{}", part.end - 1));
        }
        self.read(key, size, &call, part)
    }

    fn read(&mut self, key: u64, size: u64, call: &Call, part: std::ops::Range<u64>) -> Result<(), String> {
        let Self { connection, content, of, .. } = self;
        let tally = &of.tally;
        let mut right = true;
        let mut read = 0;
        let _ = connection.try_send(call.bytes());
        let head = connection.try_head().map_err(|broken| format!("GET {key}: {broken:?}"))?;
        let length = head.header("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if head.status == 404 && matches!(head.header("X-ElCache-Hit"), Some("miss" | "partial")) {
            count(&tally.misses);
            return connection.pass(length, |_, _| ()).map_err(|broken| format!("GET {key}: {broken:?}"));
        }
        let total = head.header("X-ElCache-Size").and_then(|size| size.parse().ok());
        if !matches!(head.status, 200 | 206) || total != Some(size) || length != part.end - part.start {
            return Err(format!("GET {key} of {size} bytes, {part:?}: {head:?}"));
        }
        let passed = connection.pass(length, |at, bytes| {
            right &= content.is(key, part.start + at, bytes);
            read += bytes.len() as u64;
        });
        tally.read_bytes.fetch_add(read, Ordering::Relaxed);
        match (right, passed) {
            (false, _) => return Err(format!("GET {key} of {size} bytes, {part:?}: wrong bytes")),
            (true, Ok(())) => _ = count(&tally.reads),
            (true, Err(Broken::CutOff | Broken::Reset)) => {
                count(&tally.cut_off);
                *connection = connect(of.node);
            }
            (true, Err(broken)) => return Err(format!("GET {key}, {part:?}: {broken:?}")),
        }
        Ok(())
    }
}

fn target(key: u64) -> String {
    format!("/cache/{key}")
}

fn connect(node: &Node) -> Connection {
    let mut connection = node.connect();
    connection.patience(PATIENCE);
    connection
}

/// The most that the directory's files ever were, looked at until the end.
fn watch(home: &Home, done: &AtomicBool) -> u64 {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = home.bytes().max(most);
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}

/// What phases of a kind took.
#[derive(Clone, Copy, Default)]
struct Speed {
    seconds: f64,
    /// Of all of the node's processors.
    cpu_seconds: f64,
    bytes: u64,
}

impl Speed {
    /// Of one phase.
    fn of(stream: &Stream<'_>, phase: Phase, bytes: u64) -> Self {
        let cpu = || stream.node.metric("process_cpu_seconds_total").expect("it is counted");
        let before = (cpu(), stream.sent.load(Ordering::Relaxed));
        let took = stream.write(phase, bytes);
        let sent = stream.sent.load(Ordering::Relaxed) - before.1;
        // What clients end after the goal takes no part in the time, but in the processor time.
        let cpu_seconds = (cpu() - before.0) * bytes as f64 / sent as f64;
        Self { seconds: took.as_secs_f64(), cpu_seconds, bytes }
    }

    fn and(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            bytes: self.bytes + other.bytes,
        }
    }

    fn mib_per_second(self) -> f64 {
        (self.bytes / MIB) as f64 / self.seconds
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cpu = self.cpu_seconds / (self.bytes as f64 / GIB as f64);
        write!(f, "{:.0} MiB/s, {cpu:.2} s of processors a GiB", self.mib_per_second())
    }
}

/// All that the plan says; the speeds of the stream and of values of 64 MiB alone.
fn work(stream: &Stream<'_>) -> (Speed, Speed) {
    let plan = stream.plan;
    stream.write(Phase::Stream, plan.disk);
    let (mut streamed, mut alone) = (Speed::default(), Speed::default());
    let part = (plan.stream - plan.disk) / plan.rounds;
    for round in 0..plan.rounds {
        let (taken, speed) =
            (Speed::of(stream, Phase::Alone, plan.alone), Speed::of(stream, Phase::Stream, part));
        report(format_args!("round {round}: {speed}; 64 MiB alone: {taken}"));
        (streamed, alone) = (streamed.and(speed), alone.and(taken));
    }
    (streamed, alone)
}

fn streamed_through(plan: Plan) {
    let home = Home::new(&(plan.memory / MIB).to_string(), &format!("{}M", plan.disk / MIB));
    let (free, kept) = home.file_system();
    assert!(
        free > plan.disk + kept,
        "{free} bytes are free, {kept} of them the disk tier leaves: that is too little"
    );
    let node = home.node();
    let stream = Stream {
        node: &node,
        plan,
        next: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        tally: Tally::default(),
        fault: Mutex::default(),
    };
    let done = AtomicBool::new(false);
    let (most, (streamed, alone)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&home, &done));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&stream)));
        done.store(true, Ordering::Relaxed);
        let most = watcher.join().expect("a watcher");
        (most, worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let ratio = streamed.mib_per_second() / alone.mib_per_second();
    report(format_args!("{streamed}; the disk tier takes {alone}: {ratio:.2}"));
    let tally = stream.tally;
    let peak = node.peak_rss_bytes();
    report(format_args!("{tally:?}; at most {most} of {} bytes, peak {} MiB", plan.disk, peak / MIB));
    assert!(most <= plan.disk, "the directory took {most} bytes of {}", plan.disk);
    assert!(peak < plan.memory + 64 * MIB, "{} MiB resident", peak / MIB);
    let [writes, busy, reads, cut_off] =
        [tally.writes, tally.busy, tally.reads, tally.cut_off].map(AtomicU64::into_inner);
    assert!(
        reads > 0 && cut_off * 10 <= reads && busy * 100 <= writes,
        "{writes}, {busy}, {reads}, {cut_off}"
    );
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"damaged\"}"), Some(0.0));
    assert_eq!(node.metric("elcache_disk_errors_total{kind=\"io\"}"), Some(0.0));
    node.assert_healthy();
}

#[test]
fn a_gibibyte_of_every_size_streams_through_a_quarter_of_it() {
    let (memory, disk, largest) = (64 * MIB, 256 * MIB, 16 * MIB);
    streamed_through(Plan { memory, disk, largest, stream: GIB, rounds: 1, alone: 192 * MIB });
}

#[test]
fn soak_stream_100_gib_of_1_byte_to_4_gib_through_1_gib_of_memory_and_10_gib_of_disk() {
    let (memory, disk, largest) = (GIB, 10 * GIB, 4 * GIB);
    streamed_through(Plan { memory, disk, largest, stream: 100 * GIB, rounds: 5, alone: 4 * GIB });
}
