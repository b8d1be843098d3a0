//! A directory for a node's disk tier, which outlives the node.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::node::Node;
use crate::scratch::Scratch;

/// A directory that nodes are started on, one after the other.
#[derive(Debug, Default)]
pub struct Home {
    scratch: Scratch,
    /// What starts the node, if anything does.
    wrapper: Vec<String>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
}

impl Home {
    /// A new one that may take `size`, for nodes with so many MiB of memory.
    pub fn new(memory: &str, size: &str) -> Self {
        let mut home = Self::default();
        let dir = home.dir().to_str().expect("a path of text").to_owned();
        home.args = ["-m", memory, "-d", &dir, "-D", size].map(str::to_owned).to_vec();
        home
    }

    /// With an environment variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// From the next start on with this environment variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.envs.retain(|(known, _)| known != name);
        self.envs.push((name.to_owned(), value.to_owned()));
    }

    /// Nodes are started by this program.
    pub fn under(mut self, wrapper: &str) -> Self {
        self.wrapper = vec![wrapper.to_owned()];
        self
    }

    /// The directory. It is made by the first node.
    pub fn dir(&self) -> PathBuf {
        self.scratch.path().join("disk")
    }

    /// Starts a node on it.
    #[track_caller]
    pub fn node(&self) -> Node {
        let wrapper: Vec<_> = self.wrapper.iter().map(String::as_str).collect();
        let envs: Vec<_> = self.envs.iter().map(|(name, value)| (&**name, &**value)).collect();
        Node::run(crate::node::command_under(&wrapper, &self.args(), &envs))
    }

    /// The flags that nodes are started with.
    pub fn args(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }

    /// What its files occupy, in bytes, as `du` counts.
    pub fn bytes(&self) -> u64 {
        bytes(&self.dir())
    }

    /// What is free on the file system that it is on, in bytes, and what the disk tier leaves of that: a twentieth of all.
    pub fn file_system(&self) -> (u64, u64) {
        let space = rustix::fs::statvfs(self.scratch.path()).expect("a file system");
        (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize / 20)
    }

    /// Its files with their content.
    pub fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |path: PathBuf| std::fs::read(&path).map(|bytes| (path, bytes)).expect("a file of it");
        files(&self.dir()).into_iter().map(|(path, _)| read(path)).collect()
    }
}

/// What the files under a directory occupy, in bytes, as `du` counts.
pub fn bytes(dir: &Path) -> u64 {
    files(dir).iter().map(|(_, occupied)| occupied).sum()
}

/// The files under a directory and what they occupy, in order. Those that go in the meantime are left out.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata.blocks() * 512)),
            Err(_) => {}
        }
    }
    found.sort();
    found
}
