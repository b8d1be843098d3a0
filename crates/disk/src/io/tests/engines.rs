//! What holds for the engines that reach the kernel. Descriptors, threads and processor time are those of the process, of which
//! nextest gives each test its own.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::suite::{engine, has_uring, runtime};
use super::*;
use crate::io::{Engine, start};

/// Those that run here.
fn engines() -> Vec<Engine> {
    if has_uring() { vec![Engine::Uring, Engine::Threads] } else { vec![Engine::Threads] }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Waits until it holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn descriptors_do_not_leak() {
    // The first runtime of a process opens what all of them share, for good.
    drop(runtime(2));
    let before = descriptors();
    for choice in engines() {
        let directory = Directory::new();
        runtime(2).block_on(async {
            let device = engine(choice);
            let at_start = descriptors();
            for i in 0..50 {
                let file = device.open(&directory.join(&i.to_string()), NEW_DIRECT).unwrap();
                drop(device.submit(operation(&file, Action::Write, 0, vec![filled(&*device, BLOCK, 1)])));
                drop(device.submit(sync(&file)));
                let last = device.submit(read(&file, 0, device.room(BLOCK))).await;
                assert!(last.result.is_ok());
            }
            until("the files are closed", || descriptors() == at_start);
        });
    }
    until("the rings are closed", || descriptors() == before);
    assert!(getrlimit(Resource::Nofile).current.is_none_or(|most| most > 50));
}

#[test]
fn an_idle_engine_does_nothing() {
    for choice in engines() {
        let directory = Directory::new();
        runtime(1).block_on(async {
            let device = engine(choice);
            let file = device.open(&directory.join("a"), NEW).unwrap();
            assert!(device.submit(write(&file, 0, vec![1; BLOCK])).await.result.is_ok());
            tokio::time::sleep(Duration::from_millis(50)).await;
            let before = cpu_time();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let used = cpu_time().saturating_sub(before);
            assert!(used < Duration::from_millis(10), "{choice:?}: {used:?}");
        });
    }
}

#[test]
fn operations_end_when_the_engine_goes() {
    for choice in engines() {
        let directory = Directory::new();
        runtime(1).block_on(async {
            let device = engine(choice);
            let file = device.open(&directory.join("a"), NEW_DIRECT).unwrap();
            let parts = |i| vec![filled(&*device, 1 << 20, i)];
            let last: Vec<_> = (0..40_u8)
                .map(|i| device.submit(operation(&file, Action::Write, u64::from(i) << 20, parts(i))))
                .collect();
            drop(device);
            for pending in last {
                assert_eq!(count(&pending.await), 1 << 20);
            }
        });
        let all = content(&directory.join("a")).unwrap();
        assert!((0..40).all(|i| all[i << 20..(i + 1) << 20].iter().all(|&byte| byte == i as u8)));
    }
}

#[test]
fn operations_end_when_the_runtime_goes() {
    for choice in engines() {
        let directory = Directory::new();
        let ended = runtime(1);
        let (device, file, pending) = ended.block_on(async {
            let device = engine(choice);
            let file = device.open(&directory.join("a"), NEW_DIRECT).unwrap();
            let pending: Vec<_> = (0..40)
                .map(|i| {
                    device.submit(operation(
                        &file,
                        Action::Write,
                        i << 20,
                        vec![filled(&*device, 1 << 20, 1)],
                    ))
                })
                .collect();
            (device, file, pending)
        });
        drop(ended);
        runtime(0).block_on(async {
            for pending in pending {
                assert_eq!(count(&pending.await), 1 << 20);
            }
            // Who submits now waits for it.
            assert_eq!(count(&device.submit(read(&file, 0, device.room(BLOCK))).await), BLOCK);
        });
    }
}

#[test]
fn threads_outside_the_runtime_may_submit_and_end() {
    for choice in engines() {
        let directory = Directory::new();
        runtime(1).block_on(async {
            let device = engine(choice);
            let file = device.open(&directory.join("a"), NEW).unwrap();
            let submit = |i: u64| {
                let (device, file) = (Arc::clone(&device), Arc::clone(&file));
                // Their queued work is given up by the kernel when they end, and begun again by us.
                std::thread::spawn(move || device.submit(write(&file, i << 20, vec![1; 1 << 20])))
            };
            for pending in (0..30).map(submit).collect::<Vec<_>>() {
                assert_eq!(count(&pending.join().unwrap().await), 1 << 20);
            }
        });
        assert_eq!(content(&directory.join("a")).unwrap(), vec![1; 30 << 20]);
    }
}

#[test]
fn threads_come_as_needed_and_no_more_than_operations_at_once() {
    runtime(0).block_on(async {
        let before = threads();
        let device = engine(Engine::Threads);
        assert_eq!(threads(), before);
        let directory = Directory::new();
        let file = device.open(&directory.join("a"), NEW).unwrap();
        let pending: Vec<_> =
            (0..100).map(|i| device.submit(write(&file, i << 16, vec![1; 1 << 16]))).collect();
        assert!(threads() <= before + 8, "{} threads", threads() - before);
        for pending in pending {
            assert!(pending.await.result.is_ok());
        }
        drop(device);
        until("the threads have ended", || threads() == before);
    });
}

#[test]
fn tmpfs_takes_direct_files_or_opens_them_buffered() {
    let path = Path::new("/dev/shm").join(format!("elcache-io-{}", std::process::id()));
    for choice in engines() {
        runtime(0).block_on(async {
            let device = engine(choice);
            let Ok(file) = device.open(&path, NEW_DIRECT) else { return };
            device.remove(&path).unwrap();
            assert_eq!(count(&device.submit(write(&file, 0, vec![1; 4096])).await), 4096);
        });
    }
}

/// Forbids io_uring_setup (425) to what it runs, as container runtimes do: with EPERM, by a filter that begins by loading
/// the number of the system call.
const FORBID: &str = r#"
    my ($prctl, @command) = @ARGV;
    my $code = pack("SCCL" x 4, 0x20,0,0,0, 0x15,0,1,425, 0x06,0,0,0x00050001, 0x06,0,0,0x7fff0000);
    my $program = pack("Sx6P", 4, $code);
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or exit 77;
    syscall($prctl, 22, 2, unpack("Q", pack("P", $program)), 0, 0) == 0 or exit 77;
    exec @command or exit 77;
"#;
const FORBIDDEN: &str = "ELCACHE_TEST_URING_IS_FORBIDDEN";

#[test]
fn where_io_uring_is_forbidden_threads_run() {
    if std::env::var_os(FORBIDDEN).is_some() {
        runtime(0).block_on(async {
            let started = start(Engine::Auto, 4).unwrap();
            assert_eq!(started.device.name(), "threads");
            assert!(started.fallback.unwrap().contains("not permitted"));
            assert!(start(Engine::Uring, 4).is_err());
        });
        return;
    }
    let prctl = if cfg!(target_arch = "x86_64") { "157" } else { "167" };
    let test = "io::tests::engines::where_io_uring_is_forbidden_threads_run";
    let mut command = Command::new("perl");
    command.args(["-e", FORBID, prctl]).arg(std::env::current_exe().unwrap()).args(["--exact", test]);
    match command.env(FORBIDDEN, "1").output() {
        Ok(output) if output.status.code() != Some(77) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
        other => println!("skipped: no filter for system calls: {other:?}"),
    }
}
