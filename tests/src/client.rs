//! Clients that others wrote, as processes: `make clients` installs them from their packages.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::content::Content;
use crate::node::wait_for;
use crate::scratch::Scratch;

/// How long one may take for anything.
const LIMIT: Duration = Duration::from_secs(600);
/// The Python that has DuckDB.
const PYTHON: &str = "ELCACHE_CLIENTS_PYTHON";

/// A client at work. Dropping it kills it.
#[derive(Debug)]
pub struct Client {
    child: Child,
    name: String,
    /// What it says, in files: nobody has to read it while it works.
    said: Scratch,
}

/// How a client ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub out: String,
    /// What it wrote to its standard error.
    pub err: String,
}

impl Client {
    /// Starts a program with these arguments, without a proxy between it and the node.
    #[track_caller]
    pub fn start(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let said = Scratch::new();
        let file = |name: &str| File::create(said.path().join(name)).expect("a file for the test");
        let mut command = Command::new(name);
        command.args(args).stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
            .iter()
            .for_each(|name| _ = command.env_remove(name));
        match command.spawn() {
            Ok(child) => Self { child, name: name.to_owned(), said },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("{name} is not installed: `make clients` installs what these tests need")
            }
            Err(error) => panic!("{name} does not start: {error}"),
        }
    }

    /// Runs a program to its end.
    #[track_caller]
    pub fn run(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ended {
        Self::start(name, args).end()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let child = &mut self.child;
        let status = wait_for(LIMIT, || child.try_wait().expect("it can be waited for"));
        let Some(status) = status else {
            panic!("{} takes longer than {LIMIT:?}: {}", self.name, self.said("err"))
        };
        Ended { code: status.code(), out: self.said("out"), err: self.said("err") }
    }

    /// Waits until the file that it writes has this length, and kills it.
    #[track_caller]
    pub fn kill_at(mut self, file: &Path, length: u64) {
        self.wait_until(|| occupied(file) >= length);
        self.child.kill().expect("it can be killed");
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.code(), None, "{} had ended before it was killed: {}", self.name, self.said("err"));
    }

    /// Waits for something while it works.
    #[track_caller]
    pub fn wait_until(&mut self, mut there: impl FnMut() -> bool) {
        let child = &mut self.child;
        let ended = wait_for(LIMIT, || match there() {
            true => Some(None),
            false => child.try_wait().expect("it can be waited for").map(Some),
        });
        match ended {
            Some(None) => {}
            Some(Some(status)) => panic!("{} ended too early, {status}: {}", self.name, self.said("err")),
            None => panic!("{} does not get on: {}", self.name, self.said("err")),
        }
    }

    fn said(&self, stream: &str) -> String {
        let bytes = std::fs::read(self.said.path().join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// What it wrote to its standard output, once it is certain that it did what it was told.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// The Python that has the packages which `make clients` installs.
#[track_caller]
pub fn python() -> PathBuf {
    let path = std::env::var_os(PYTHON).map(PathBuf::from);
    path.filter(|path| path.exists()).unwrap_or_else(|| {
        panic!("{PYTHON} names no Python with DuckDB: `make clients` installs one and runs these tests")
    })
}

/// What a file occupies, in bytes: one that is written at several places at once has its full length early.
pub fn occupied(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Fails unless the file holds the first `size` bytes of `content` and nothing else.
#[track_caller]
pub fn assert_is(file: &Path, content: Content, size: u64) {
    let mut open = File::open(file).expect("the file is there");
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = open.read(&mut piece).expect("the file can be read");
        if count == 0 {
            break;
        }
        assert!(content.is(at, &piece[..count]), "wrong bytes between {at} and {}", at + count as u64);
        at += count as u64;
    }
    assert_eq!(at, size, "the length of {file:?}");
}
