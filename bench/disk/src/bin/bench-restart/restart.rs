//! One start, measured.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use elcache_bench_disk::Outcome;
use elcache_bench_disk::server::{Server, metric};
use rustix::fs::{Advice, fadvise};
use rustix::process::Signal;

use crate::fill;

/// No start takes longer.
const LIMIT: Duration = Duration::from_secs(300);
/// Entries that are read and compared when all are found.
const SAMPLES: u64 = 500;

/// How the process before ended, and where the files are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    KilledCold,
    StoppedCold,
    StoppedWarm,
}

impl Case {
    /// The end of each is the beginning of the next.
    pub(crate) const ALL: [Self; 3] = [Self::KilledCold, Self::StoppedCold, Self::StoppedWarm];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KilledCold => "after kill -9, files out of the page cache",
            Self::StoppedCold => "after a clean stop, out of the page cache",
            Self::StoppedWarm => "after a clean stop, in the page cache",
        }
    }

    /// How the next case wants this one to end.
    fn last_signal(self) -> Signal {
        if self == Self::StoppedWarm { Signal::KILL } else { Signal::TERM }
    }
}

/// What a start came to.
pub(crate) struct Measured {
    /// From the start of the process until the oldest key answered, in seconds.
    pub(crate) oldest_s: f64,
    /// Until all had been found.
    pub(crate) all_s: f64,
    /// Bytes of the index.
    pub(crate) index_bytes: f64,
    /// Resident memory.
    pub(crate) rss_bytes: f64,
}

pub(crate) fn measure(directory: &Path, entries: u64, case: Case) -> Outcome<Measured> {
    if case != Case::StoppedWarm {
        forget(&directory.join("segments"))?;
    }
    let program = std::env::current_exe()?.with_file_name("elcached");
    let mut server = Server::start(|port| {
        let mut command = Command::new(&program);
        command.args(["-m", "2G", "-D", "100G", "-p", &port.to_string(), "--log-level", "warn", "-d"]);
        command.arg(directory).stdout(Stdio::null());
        command
    })
    .map_err(|error| format!("{}: {error}", program.display()))?;
    let (oldest, bytes) = server.wait_for(&format!("/cache/{}", fill::key(0)), LIMIT)?;
    if bytes != fill::value(0) {
        return Err("the oldest value is not what was written".into());
    }
    let (all, _) = server.wait_for("/health", LIMIT)?;
    for sample in 0..SAMPLES {
        let number = sample * entries / SAMPLES;
        let answer = server.get(&format!("/cache/{}", fill::key(number)))?;
        if answer.status != 200 || answer.body != fill::value(number) {
            return Err(format!("entry {number} is not what was written: {}", answer.status).into());
        }
    }
    let page = String::from_utf8(server.get("/metrics")?.body)?;
    let gauge = |name: &str| metric(&page, name).ok_or_else(|| format!("there is no metric {name}"));
    let measured = Measured {
        oldest_s: oldest.as_secs_f64(),
        all_s: all.as_secs_f64(),
        index_bytes: gauge("elcache_disk_index_bytes")?,
        rss_bytes: gauge("process_resident_memory_bytes")?,
    };
    println!("{}: oldest key {:.2} s, all {:.2} s", case.name(), measured.oldest_s, measured.all_s);
    server.end(case.last_signal())?;
    Ok(measured)
}

/// Has the kernel write files and drop them from its cache.
fn forget(directory: &Path) -> Outcome<()> {
    for entry in fs::read_dir(directory)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
