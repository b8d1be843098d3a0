//! A server as a process of ours: pinned, in a directory of its own, ended by its process id.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use elcache_bench::cpu::Processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STARTS_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A directory that is removed with its owner.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(parent: &Path) -> Result<Self, String> {
        let path = parent.join(format!("elcache-bench.{}", std::process::id()));
        make_directory(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left behind; there is nobody to tell at this point.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    processes: Processes,
    log: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts `command` on one core and waits until it accepts connections at `address`. Its output goes to a file in
    /// `directory`, whose end is part of the error if it does not come up.
    pub(crate) fn start(
        command: &Command,
        address: SocketAddr,
        core: usize,
        directory: &Path,
    ) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = directory.join("output.log");
        let output = || File::create(&log).map_err(|error| format!("{}: {error}", log.display()));
        let child = pinned(command, core)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(Stdio::from(output()?))
            .spawn()
            .map_err(|error| format!("starting {name}: {error}"))?;
        let mut server = Self { processes: Processes::below(child.id()), child, log, address };
        server.wait_until_ready().map_err(|why| format!("{name} {why}{}", server.last_words()))?;
        server.processes = Processes::below(server.child.id());
        Ok(server)
    }

    /// Processor time of it and its children.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.processes.time()
    }

    /// The end of what it has written, each line after a line break.
    pub(crate) fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(10)..].iter().map(|line| format!("\n  {line}")).collect()
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < STARTS_WITHIN {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended at its start with {status}"));
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            sleep(POLL);
        }
        Err(format!("accepts no connection after {} s", STARTS_WITHIN.as_secs()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let processes = Processes::below(self.child.id());
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < ENDS_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(POLL);
        }
        for pid in processes.ids() {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// `command` on one core, asked to end by the kernel should the bench be killed without a chance to do so.
fn pinned(command: &Command, core: usize) -> Command {
    let mut pinned = Command::new("setpriv");
    pinned.args(["--pdeathsig", "TERM", "taskset", "-c"]).arg(core.to_string());
    pinned.arg(command.get_program()).args(command.get_args());
    let set = |(name, value): (&OsStr, Option<&OsStr>)| Some((name.to_owned(), value?.to_owned()));
    pinned.envs(command.get_envs().filter_map(set));
    pinned
}

/// A port that nothing listens on. Another program may take it before the server does, which then says so.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("finding a free port: {error}"))
}

pub(crate) fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error: io::Error| format!("{}: {error}", path.display()))
}
