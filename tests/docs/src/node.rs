//! A node of the documentation's own: on a free port, with little memory, gone when it is dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `elcached`.
pub struct Node {
    process: Child,
    address: String,
}

impl Node {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// When it cannot be started, or says nothing of an address.
    pub fn start() -> Self {
        let mut command = Command::new(programs().join("elcached"));
        command.args(["--port", "0", "--memory", "64", "--log-format", "json"]).env_clear();
        command.env("ELCACHE__NETWORK__BIND_ADDRESS", "127.0.0.1").env("ELCACHE__DISK__MAX_SIZE", "0");
        let mut process = command.stderr(Stdio::piped()).spawn().expect("elcached starts");
        let log = process.stderr.take().expect("stderr is a pipe");
        let mut lines = BufReader::new(log).lines().map(|line| line.expect("the log is text"));
        let address = lines.find_map(|line| address_in(&line)).expect("elcached says where it listens");
        // The log is read on, so that the node is never held up by a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The folder of the workspace's programs: tests lie in a folder beside them.
///
/// # Panics
/// When they have not been built.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().skip(1).find(|folder| folder.join("elcached").is_file());
    folder.expect("elcached is built: cargo build --workspace --bins").to_owned()
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn address_in(line: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| event.get(name).or_else(|| event.get("fields")?.get(name));
    Some(field("address")?.as_str()?.to_owned())
}
