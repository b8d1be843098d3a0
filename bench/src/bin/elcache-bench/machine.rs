//! The machine that is measured on: what it is, and what else it does meanwhile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;

/// Lines that say what the numbers were measured on.
pub(crate) fn description() -> Vec<String> {
    let cpu = read("/proc/cpuinfo");
    let field = |name: &str| {
        cpu.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split(": ").nth(1))
            .unwrap_or("unknown")
    };
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory: u64 =
        read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let mut lines = vec![
        format!(
            "CPU: {}, family {} model {}, {} cores",
            field("model name"),
            field("cpu family"),
            field("model\t"),
            cores
        ),
        format!("Memory: {} GiB", memory.div_ceil(1 << 20)),
        format!("Kernel: Linux {}", read("/proc/sys/kernel/osrelease").trim()),
    ];
    if field("flags").split(' ').any(|flag| flag == "hypervisor") {
        lines.push("A virtual machine".into());
    }
    lines
}

/// Restricts this process to one core.
pub(crate) fn pin(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores))
        .map_err(|error| format!("core {core} cannot be had ({error}); the bench needs two"))
}

/// Fails when the file system of `directory` has less room than this many GiB.
pub(crate) fn need_room(directory: &Path, gib: u64) -> Result<(), String> {
    let found = statvfs(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let free = (found.blocks_available() * found.fragment_size()) >> 30;
    if free < gib {
        let directory = directory.display();
        return Err(format!("{directory} has {free} GiB free, {gib} are needed; --dir names another place"));
    }
    Ok(())
}

/// How long a core has had nothing to do since the machine began.
pub(crate) fn idle_time(core: usize) -> Duration {
    parse_idle(&read("/proc/stat"), core)
}

/// Fields 4 and 5 of the core's line, idle and waiting for a disk, in hundredths of seconds.
fn parse_idle(stat: &str, core: usize) -> Duration {
    let name = format!("cpu{core} ");
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix(&name)) else { return Duration::ZERO };
    let ticks: u64 =
        line.split_whitespace().skip(3).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_from_the_line_of_its_core() {
        let stat = "cpu  9 9 9 9 9 9\ncpu0 1 2 3 400 50 6 7 8\ncpu1 1 2 3 7 0 6 7 8\ncpu10 0 0 0 1 0\n";
        assert_eq!(parse_idle(stat, 0), Duration::from_millis(4500));
        assert_eq!(parse_idle(stat, 1), Duration::from_millis(70));
        assert_eq!(parse_idle(stat, 2), Duration::ZERO);
    }
}
