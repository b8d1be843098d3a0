//! A node as a child process.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

use crate::binary::elcached;
use crate::call::Call;
use crate::local::Local;
use crate::scratch::Scratch;
use crate::wire::{Answer, Connection};

/// How long a node may take to start. Generous, since machines that test are busy.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A node that runs. Dropping it ends it, and fails the test if it has crashed or panicked before.
#[derive(Debug)]
pub struct Node {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Node {
    /// Starts one on a free port of the loopback with these flags and environment variables.
    #[track_caller]
    pub fn start(args: &[&str], envs: &[(&str, &str)]) -> Self {
        Self::run(command(args, envs))
    }

    /// Runs a command that [`command`] or [`command_under`] made, on a free port.
    #[track_caller]
    pub fn run(mut command: Command) -> Self {
        let mut child = command
            .env("ELCACHE__NETWORK__HTTP_PORT", "0")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("elcached starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || collect(stderr, &log)
        });
        let address = wait_for(START_LIMIT, || listening(&log.lock().expect("the log")));
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("elcached does not listen; its log:\n{}", log.lock().expect("the log"));
        };
        Self { child, address, log, reader: Some(reader), status: None }
    }

    /// One with 64 MiB and nothing else out of the ordinary.
    #[track_caller]
    pub fn plain() -> Self {
        Self::start(&["-m", "64"], &[])
    }

    /// One with these flags and a Unix socket in a directory of the test's own, and a client of that.
    #[track_caller]
    pub fn local(scratch: &Scratch, args: &[&str], envs: &[(&str, &str)]) -> (Self, Local) {
        let path = scratch.path().join("node.sock");
        let socket = path.to_str().expect("a path of text");
        let node = Self::start(&[args, &["-u", socket]].concat(), envs);
        let client = Local::connect(&path);
        (node, client)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until the log says this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        let found = wait_for(Duration::from_secs(10), || self.log().contains(text).then_some(()));
        assert!(found.is_some(), "the log does not say {text:?}:\n{}", self.log());
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        status_bytes(self.pid(), "VmRSS:")
    }

    /// The most resident memory there ever was, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        status_bytes(self.pid(), "VmHWM:")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let child = &mut self.child;
        self.status = wait_for(limit, || child.try_wait().expect("the process can be waited for"));
        self.status
    }

    /// Ends it as an operator does.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait_exit(START_LIMIT).expect("it stops in time");
        assert!(status.success(), "{status}; its log:\n{}", self.log());
    }

    /// Ends it as the kernel does when memory is short: `kill -9`.
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        let status = self.wait_exit(START_LIMIT).expect("nothing survives SIGKILL");
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}; its log:\n{}", self.log());
    }

    /// Waits until it says that it is healthy.
    #[track_caller]
    pub fn wait_healthy(&self) {
        let healthy = wait_for(START_LIMIT, || (self.get("/health").status == 200).then_some(()));
        assert!(healthy.is_some(), "{:?}; its log:\n{}", self.get("/health"), self.log());
    }

    /// The value of a series of `/metrics`, if it is there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let page = self.get("/metrics").expect(200);
        let line = page.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().expect("a number"))
    }

    /// Bytes of values that its tiers have given.
    #[track_caller]
    pub fn bytes_read(&self) -> u64 {
        let tiers = ["memory", "disk"].map(|tier| format!("elcache_bytes_read_total{{tier=\"{tier}\"}}"));
        tiers.iter().filter_map(|series| self.metric(series)).sum::<f64>() as u64
    }

    /// A new connection.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("the node accepts a connection")
    }

    /// One request over a connection of its own.
    #[track_caller]
    pub fn call(&self, call: &Call) -> Answer {
        self.connect().call(call)
    }

    /// A GET.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.call(&Call::get(target))
    }

    /// A PUT that must succeed.
    #[track_caller]
    pub fn put(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        let answer = self.call(&Call::put(target, body));
        assert!(matches!(answer.status, 201 | 204), "PUT {target}: {answer:?}");
        answer
    }

    /// A HEAD.
    #[track_caller]
    pub fn head(&self, target: &str) -> Answer {
        self.call(&Call::head(target))
    }

    /// A DELETE.
    #[track_caller]
    pub fn delete(&self, target: &str) -> Answer {
        self.call(&Call::delete(target))
    }

    /// Fails the test unless the node is alive and healthy.
    #[track_caller]
    pub fn assert_healthy(&self) {
        self.get("/health").expect(200);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let died = self.status.is_none() && !matches!(self.child.try_wait(), Ok(None));
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let log = self.log();
        if (died || log.contains("panicked at")) && !std::thread::panicking() {
            panic!("the node died or panicked; its log:\n{log}");
        }
    }
}

/// `elcached` with these flags, listening nowhere but on the loopback and on the Unix socket that they name, and without a disk unless
/// they give it a size.
pub fn command(args: &[&str], envs: &[(&str, &str)]) -> Command {
    command_under(&[], args, envs)
}

/// The same, started by another program: the first of `wrapper`, which gets the rest of it and then the command line.
pub fn command_under(wrapper: &[&str], args: &[&str], envs: &[(&str, &str)]) -> Command {
    let mut line = wrapper.iter().map(OsStr::new).chain([elcached().as_os_str()]);
    let mut command = Command::new(line.next().expect("a program"));
    command
        .args(line)
        .args(args)
        .env("ELCACHE__NETWORK__BIND_ADDRESS", "127.0.0.1")
        .env("ELCACHE__DISK__MAX_SIZE", "0")
        .env("ELCACHE__NETWORK__UNIX_SOCKET_PATH", "")
        .envs(envs.iter().copied());
    command
}

/// Tries until there is something or the time is over.
pub fn wait_for<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = attempt();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn collect(stderr: impl Read, log: &Mutex<String>) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        log.lock().expect("the log").push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

/// The address in the line that says so, whatever the form of the log.
fn listening(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("listening"))?;
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(SocketAddr::from(([127, 0, 0, 1], digits.parse().ok()?)))
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line of it");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number") << 10
}
