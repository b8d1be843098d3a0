//! Runs commands as a reader would, in a directory of their own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::document::{Example, Step};
use crate::expect::agrees;
use crate::node::{Node, programs, repository};

/// Where the documentation says that the node listens.
const DOCUMENTED: &str = "localhost:8080";
/// Before every command, so that one that fails in the middle fails.
const STRICT: &str = "set -eu -o pipefail\n";
/// What `curl` does in examples of which only the status is known.
const STATUS_ONLY: &str = "curl() { command curl -sS -o /dev/null -w '%{http_code}' \"$@\"; }\n";

/// A directory, and the node that the commands in it talk to.
pub struct Shell {
    node: Node,
    folder: PathBuf,
}

impl Shell {
    /// A directory with nothing in it but the built programs, and a node that holds nothing.
    ///
    /// # Panics
    /// When there is no place for temporary files.
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("elcache-docs-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // Where a reader's `make build` leaves the program.
        let target = folder.join("target");
        std::fs::create_dir_all(&target).expect("a temporary directory");
        std::os::unix::fs::symlink(programs(), target.join("release")).expect("a link in it");
        Self { node: Node::start(), folder }
    }

    /// The directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a step; what is wrong with it, if anything. A step for `make` is only looked up in the Makefile: it would
    /// start the node, or this test, once more.
    pub fn check(&self, step: &Step) -> Option<String> {
        let output = match step.command.strip_prefix("make ") {
            Some(targets) => dry_run(targets),
            None => self.run(&step.command),
        };
        let printed = text(&output.stdout);
        let is_make = step.command.starts_with("make ");
        if output.status.success() && (is_make || agrees(&step.shown, &printed)) {
            return None;
        }
        let mut what = format!("line {}: $ {}\n", step.line, step.command);
        let _ = writeln!(what, "--- shown\n{}", step.shown.join("\n"));
        let _ = writeln!(what, "--- printed, {}\n{printed}{}", output.status, text(&output.stderr));
        Some(what)
    }

    /// Runs an example; what is wrong with it, if anything.
    pub fn check_status(&self, example: &Example) -> Option<String> {
        let output = self.run(&format!("{STATUS_ONLY}B=http://{DOCUMENTED}\n{}", example.command));
        let printed = text(&output.stdout);
        let status = printed.trim().parse::<u16>().unwrap_or_default();
        let is_listed = match example.statuses.as_slice() {
            [] => (200..300).contains(&status),
            listed => listed.contains(&status),
        };
        (!output.status.success() || !is_listed).then(|| {
            let Example { line, command, statuses } = example;
            format!("line {line}: {command}\nlisted {statuses:?}, got {printed} {}\n", text(&output.stderr))
        })
    }

    fn run(&self, command: &str) -> Output {
        let script = format!("{STRICT}{}", command.replace(DOCUMENTED, self.node.address()));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(&self.folder);
        bash.output().expect("bash runs")
    }
}

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever clears temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What `make` would do, without doing it.
pub fn dry_run(targets: &str) -> Output {
    let mut make = Command::new("make");
    // An outer `make` passes its options down, and they would end up here.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("MAKELEVEL");
    make.arg("-n").args(targets.split_whitespace()).current_dir(repository());
    make.output().expect("make runs")
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
