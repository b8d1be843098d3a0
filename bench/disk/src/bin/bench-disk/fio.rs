//! The same by fio, the yardstick of what the kernel gives.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use elcache_bench_disk::Outcome;
use elcache_bench_disk::table::Sample;

use crate::Cell;

/// Which of its engines.
#[derive(Clone, Copy)]
pub(crate) enum Engine {
    /// A ring.
    Uring,
    /// A ring that knows memory and file beforehand.
    UringRegistered,
    /// As many threads as there are reads at once.
    Threads,
}

impl Engine {
    /// As the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring => "fio, io_uring",
            Self::UringRegistered => "fio, io_uring, registered",
            Self::Threads => "fio, threads",
        }
    }

    fn arguments(self, depth: usize) -> String {
        match self {
            Self::Uring => format!("--ioengine=io_uring --iodepth={depth}"),
            Self::UringRegistered => {
                format!("--ioengine=io_uring --fixedbufs --registerfiles --iodepth={depth}")
            }
            Self::Threads => format!("--ioengine=psync --numjobs={depth}"),
        }
    }
}

/// Random reads.
pub(crate) fn read(engine: Engine, file: &Path, len: u64, cell: Cell) -> Outcome<Sample> {
    let fixed = "--rw=randread --time_based --group_reporting --norandommap --randrepeat=0";
    let which = format!(
        "--size={len} --bs={} --runtime={}ms {}",
        cell.size,
        cell.time.as_millis(),
        engine.arguments(cell.depth)
    );
    run(file, &format!("{fixed} {which}"), "read")
}

/// One file from its beginning to its end, which it has room for already.
pub(crate) fn write(file: &Path, len: u64, depth: usize) -> Outcome<Sample> {
    run(file, &format!("--rw=write --size={len} --bs=4M --ioengine=io_uring --iodepth={depth}"), "write")
}

fn run(file: &Path, arguments: &str, part: &str) -> Outcome<Sample> {
    let output = Command::new("fio")
        .args(["--name=bench", "--direct=1", "--thread", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("fio does not start: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    sample(&report["jobs"][0], part).ok_or_else(|| "fio's report is not understood".into())
}

/// Its processor time stands in per cent of the time that all its jobs ran.
fn sample(job: &Value, part: &str) -> Option<Sample> {
    let done = &job[part];
    let time = Duration::from_millis(done["runtime"].as_u64()?);
    let all = Duration::from_millis(job["job_runtime"].as_u64()?);
    let cpu = all.mul_f64((job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?) / 100.0);
    Some(Sample { bytes: done["io_bytes"].as_u64()?, operations: done["total_ios"].as_u64()?, time, cpu })
}
