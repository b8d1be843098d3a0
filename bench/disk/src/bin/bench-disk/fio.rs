//! The same by fio, the yardstick of what the kernel gives.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

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

/// Runs it.
pub(crate) fn measure(engine: Engine, file: &Path, len: u64, cell: Cell) -> Result<Sample, Box<dyn Error>> {
    let output = Command::new("fio")
        .args([
            "--name=reads",
            "--rw=randread",
            "--direct=1",
            "--thread",
            "--group_reporting",
            "--time_based",
        ])
        .args(["--norandommap", "--randrepeat=0", "--output-format=json"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={len}"))
        .arg(format!("--bs={}", cell.size))
        .arg(format!("--runtime={}ms", cell.time.as_millis()))
        .args(engine.arguments(cell.depth).split(' '))
        .output()
        .map_err(|error| format!("fio does not start: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    sample(&report["jobs"][0]).ok_or_else(|| "fio's report is not understood".into())
}

/// Its processor time stands in per cent of the time that all its jobs ran.
fn sample(job: &Value) -> Option<Sample> {
    let read = &job["read"];
    let time = Duration::from_millis(read["runtime"].as_u64()?);
    let all = Duration::from_millis(job["job_runtime"].as_u64()?);
    let cpu = all.mul_f64((job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?) / 100.0);
    Some(Sample { bytes: read["io_bytes"].as_u64()?, operations: read["total_ios"].as_u64()?, time, cpu })
}
