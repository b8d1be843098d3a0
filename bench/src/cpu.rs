//! Processor time of a server: of the process that was started and of all its children (nginx and Varnish serve from
//! those).

use std::fs;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// The processes of one server.
pub struct Processes(Vec<Pid>);

impl Processes {
    /// The process and its descendants as they are now. Servers fork when they start, so this is asked once they
    /// answer.
    pub fn below(root: u32) -> Self {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, parent(pid)?)))
            .collect();
        let mut found = vec![root];
        let mut next = 0;
        while let Some(&pid) = found.get(next) {
            found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
            next += 1;
        }
        Self(found.into_iter().map(|pid| Pid::from_raw(pid.cast_signed())).collect())
    }

    /// The process ids.
    pub fn ids(&self) -> &[Pid] {
        &self.0
    }

    /// User and system time since they began, with that of threads that have ended. The kernel's CPU clock of a
    /// process counts nanoseconds; `/proc/PID/stat` counts hundredths of seconds.
    pub fn time(&self) -> Duration {
        self.0.iter().filter_map(|pid| clock_getcpuclockid(*pid).ok()?.now().ok()).map(duration).sum()
    }
}

/// What this thread has used.
pub fn own() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::ZERO, duration)
}

fn duration(time: TimeSpec) -> Duration {
    Duration::from(time)
}

/// Field 4 of `/proc/PID/stat`; the name in field 2 may hold anything, parentheses included.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn a_child_belongs_to_its_parent_and_its_work_is_counted() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & echo; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        let mut processes = Processes::below(shell.id());
        while processes.ids().len() < 2 && begin.elapsed() < Duration::from_secs(10) {
            processes = Processes::below(shell.id());
        }
        while processes.time() < Duration::from_millis(20) && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let time = processes.time();
        for pid in processes.ids() {
            let _ = nix::sys::signal::kill(*pid, nix::sys::signal::Signal::SIGKILL);
        }
        shell.wait().unwrap();
        assert_eq!(processes.ids().len(), 2);
        assert!(time >= Duration::from_millis(20), "{time:?}");
    }
}
