//! What holds for every device, run against each of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elcache_arena::{PageBuffer, Pool};
use elcache_core::payload::{Buffer, Payload};
use proptest::prelude::*;

use super::*;
use crate::io::sim::{Faults, Sim};
use crate::io::{Engine, start, transfer};

const MAX_OPS: usize = 8;

/// Runs a test against a device in a directory.
async fn on(device: Arc<dyn Device>, directory: &Path) {
    names_and_lengths(&*device, directory);
    room_is_taken_and_lengths_are_set(&*device, directory);
    blocks_are_zeroed(&*device).await;
    what_is_written_is_read(&*device, directory).await;
    many_parts_in_one_operation(&*device, directory).await;
    the_end_of_a_file_ends_a_read(&*device, directory).await;
    more_than_fits_waits(&device, directory).await;
    what_nobody_awaits_is_done(&device, directory).await;
    misuse_is_an_error(&*device, directory).await;
}

fn names_and_lengths(device: &dyn Device, directory: &Path) {
    let (a, b) = (directory.join("names-a"), directory.join("names-b"));
    let kind = |error: io::Error| error.kind();
    assert_eq!(device.open(&a, OLD).map_err(kind).unwrap_err(), io::ErrorKind::NotFound);
    let file = device.open(&a, NEW).unwrap();
    assert_eq!(device.open(&a, NEW).map_err(kind).unwrap_err(), io::ErrorKind::AlreadyExists);
    assert_ne!(file.id, device.open(&a, OLD).unwrap().id);
    device.truncate(&file, 10_000).unwrap();
    device.rename(&a, &b).unwrap();
    let entries = || {
        let mut entries = device.list(directory).unwrap();
        entries.retain(|entry| entry.name.starts_with("names"));
        entries.into_iter().map(|entry| (entry.name, entry.len)).collect::<Vec<_>>()
    };
    assert_eq!(entries(), [("names-b".to_owned(), 10_000)]);
    device.sync_directory(directory).unwrap();
    device.remove(&b).unwrap();
    assert_eq!(entries(), []);
    assert!(device.remove(&b).is_err() && device.rename(&b, &a).is_err());
    let space = device.space(directory).unwrap();
    assert!(space.available > 0 && space.total >= space.available);
}

fn room_is_taken_and_lengths_are_set(device: &dyn Device, directory: &Path) {
    let file = device.open(&directory.join("room"), NEW).unwrap();
    let len = || device.list(directory).unwrap().into_iter().find(|entry| entry.name == "room").unwrap().len;
    device.allocate(&file, 4096..100_000).unwrap();
    assert_eq!(len(), 100_000);
    device.allocate(&file, 0..4096).unwrap();
    device.allocate(&file, 5..5).unwrap();
    assert_eq!(len(), 100_000);
    device.truncate(&file, 1).unwrap();
    assert_eq!(len(), 1);
}

async fn blocks_are_zeroed(device: &dyn Device) {
    for round in 0..3 {
        let many: Vec<Blocks> = (0..20).map(|i| device.blocks(BLOCK << (i % 7))).collect();
        assert!(many.iter().flat_map(|blocks| blocks.iter()).all(|&byte| byte == 0), "round {round}");
        many.into_iter().for_each(|mut blocks| blocks.fill(0xff));
    }
    assert!(!device.room(1).is_empty());
}

async fn what_is_written_is_read(device: &dyn Device, directory: &Path) {
    for (name, how) in [("rw", NEW), ("rw-direct", NEW_DIRECT)] {
        let file = device.open(&directory.join(name), how).unwrap();
        let done =
            device.submit(operation(&file, Action::Write, block(2), vec![filled(device, 8192, 5)])).await;
        assert_eq!(count(&done), 8192);
        assert_eq!(count(&device.submit(sync(&file)).await), 0);
        let mut done = device.submit(read(&file, 0, device.room(16_384))).await;
        assert_eq!(count(&done), 16_384);
        let wanted = [vec![0; 8192], vec![5; 8192]].concat();
        assert_eq!(bytes(&mut done.memory), wanted);
    }
}

async fn many_parts_in_one_operation(device: &dyn Device, directory: &Path) {
    const LEN: usize = 4 << 20;
    let pool = Pool::new(64 << 20).unwrap();
    for (name, how) in [("parts", NEW), ("parts-direct", NEW_DIRECT)] {
        let file = device.open(&directory.join(name), how).unwrap();
        let mut payload = Payload::new();
        (0..LEN / 65_536).for_each(|i| {
            let mut blocks = Blocks::zeroed(65_536);
            blocks.copy_from_slice(&pattern(i * 65_536, 65_536));
            payload.push(bytes::Bytes::from_owner(blocks));
        });
        let parts = vec![filled(device, BLOCK, 1), Part::Payload(payload), filled(device, BLOCK, 2)];
        let done = transfer(device, operation(&file, Action::Write, 0, parts)).await;
        assert_eq!(count(&done), LEN + 2 * BLOCK);
        // In pieces, since half the room was taken before.
        let held: Vec<_> = (0..8).map(|_| PageBuffer::new(&pool, 60_000).unwrap()).collect();
        drop(held.into_iter().step_by(2).collect::<Vec<_>>());
        let buffer: Box<dyn Buffer> = Box::new(PageBuffer::new(&pool, LEN).unwrap());
        let parts =
            vec![Part::Blocks(device.room(BLOCK)), Part::Buffer(buffer), Part::Blocks(device.room(BLOCK))];
        let mut done = transfer(device, operation(&file, Action::Read, 0, parts)).await;
        assert_eq!(count(&done), LEN + 2 * BLOCK);
        let wanted = [vec![1; BLOCK], pattern(0, LEN), vec![2; BLOCK]].concat();
        assert!(bytes(&mut done.memory) == wanted);
    }
}

async fn the_end_of_a_file_ends_a_read(device: &dyn Device, directory: &Path) {
    for (name, how) in [("end", NEW), ("end-direct", NEW_DIRECT)] {
        let file = device.open(&directory.join(name), how).unwrap();
        assert_eq!(count(&device.submit(read(&file, 0, device.room(BLOCK))).await), 0);
        transfer(device, operation(&file, Action::Write, 0, vec![filled(device, 3 * BLOCK, 3)])).await;
        device.truncate(&file, 10_000).unwrap();
        let done = transfer(device, read(&file, block(1), device.room(4 * BLOCK))).await;
        assert_eq!(count(&done), 10_000 - BLOCK);
        assert_eq!(count(&transfer(device, read(&file, block(9), device.room(BLOCK))).await), 0);
    }
}

async fn more_than_fits_waits(device: &Arc<dyn Device>, directory: &Path) {
    let file = device.open(&directory.join("many"), NEW).unwrap();
    let writes: Vec<_> =
        (0..MAX_OPS * 20).map(|i| device.submit(write(&file, block(i), vec![i as u8; BLOCK]))).collect();
    for pending in writes {
        assert_eq!(count(&pending.await), BLOCK);
    }
    let tasks = (0..MAX_OPS * 20).map(|i| {
        let (device, file) = (Arc::clone(device), Arc::clone(&file));
        tokio::spawn(async move {
            let mut done = device.submit(read(&file, block(i), device.room(BLOCK))).await;
            assert_eq!(bytes(&mut done.memory), vec![i as u8; BLOCK]);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn what_nobody_awaits_is_done(device: &Arc<dyn Device>, directory: &Path) {
    let file = device.open(&directory.join("dropped"), NEW).unwrap();
    for i in 0..MAX_OPS * 4 {
        drop(device.submit(write(&file, block(i), vec![9; BLOCK])));
        drop(device.submit(read(&file, 0, device.room(1 << 20))));
        let task = tokio::spawn(device.submit(read(&file, 0, device.room(BLOCK))));
        task.abort();
    }
    for _ in 0..1000 {
        let done = transfer(&**device, read(&file, 0, device.room(MAX_OPS * 4 * BLOCK))).await;
        let mut memory = done.memory;
        if bytes(&mut memory).iter().all(|&byte| byte == 9) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the writes have not taken place");
}

async fn misuse_is_an_error(device: &dyn Device, directory: &Path) {
    let file = device.open(&directory.join("misuse"), NEW).unwrap();
    let payload = vec![Part::Payload(Payload::from(bytes::Bytes::from_static(b"x")))];
    let done = device.submit(operation(&file, Action::Read, 0, payload)).await;
    assert_eq!(done.result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(done.memory.parts.len(), 1);
}

/// One after the other; several tasks have several files.
#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, len: usize, byte: u8 },
    Read { at: usize, len: usize },
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..40, 1_usize..40, any::<u8>()).prop_map(|(at, len, byte)| Step::Write { at, len, byte }),
        3 => (0_usize..40, 1_usize..60).prop_map(|(at, len)| Step::Read { at, len }),
        1 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..25)
}

async fn follow(device: Arc<dyn Device>, file: Arc<File>, steps: Vec<Step>) {
    let mut model: Vec<u8> = Vec::new();
    for step in steps {
        match step {
            Step::Write { at, len, byte } => {
                let (at, len) = (at * BLOCK, len * BLOCK);
                let parts = vec![filled(&*device, len, byte)];
                let done = transfer(&*device, operation(&file, Action::Write, at as u64, parts)).await;
                assert_eq!(count(&done), len);
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].fill(byte);
            }
            Step::Read { at, len } => {
                let done = transfer(&*device, read(&file, block(at), device.room(len * BLOCK))).await;
                let there = model.len().saturating_sub(at * BLOCK).min(len * BLOCK);
                assert_eq!(count(&done), there);
                let mut memory = done.memory;
                assert!(
                    bytes(&mut memory)[..there]
                        == model.iter().skip(at * BLOCK).take(there).copied().collect::<Vec<_>>()
                );
            }
            Step::Sync => assert_eq!(count(&transfer(&*device, sync(&file)).await), 0),
        }
    }
}

async fn several(device: Arc<dyn Device>, directory: &Path, all: Vec<Vec<Step>>) {
    let tasks: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(i, steps)| {
            let how = if i % 2 == 0 { NEW } else { NEW_DIRECT };
            let file = device.open(&directory.join(format!("task-{i}")), how).unwrap();
            tokio::spawn(follow(Arc::clone(&device), file, steps))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub(super) fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = match workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(workers.max(1)).enable_all().build().unwrap()
}

pub(super) fn engine(choice: Engine) -> Arc<dyn Device> {
    start(choice, MAX_OPS).unwrap().device
}

/// Where io_uring is forbidden there is nothing to test of it.
pub(super) fn has_uring() -> bool {
    let has = runtime(0).block_on(async { start(Engine::Uring, 1).is_ok() });
    if !has {
        println!("skipped: io_uring is forbidden here");
    }
    has
}

fn suite(workers: usize, device: impl FnOnce() -> Arc<dyn Device>) {
    let directory = Directory::new();
    runtime(workers).block_on(async { on(device(), &directory.0).await });
}

#[test]
fn uring_on_one_thread() {
    if has_uring() {
        suite(0, || engine(Engine::Uring));
    }
}

#[test]
fn uring_on_two_workers() {
    if has_uring() {
        suite(2, || engine(Engine::Uring));
    }
}

#[test]
fn threads_on_one_thread() {
    suite(0, || engine(Engine::Threads));
}

#[test]
fn threads_on_two_workers() {
    suite(2, || engine(Engine::Threads));
}

#[test]
fn the_simulated_disk() {
    suite(0, || Arc::new(Sim::new(1)));
}

#[test]
fn the_simulated_disk_with_latency() {
    let sim = Sim::new(1);
    sim.set_faults(Faults { latency: Some(Duration::from_millis(2)), ..Faults::default() });
    suite(2, || Arc::new(sim));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn tasks_read_what_they_wrote(
        all in proptest::collection::vec(steps(), 1..5), workers in 0_usize..3, seed in any::<u64>(),
    ) {
        if has_uring() {
            let directory = Directory::new();
            runtime(workers).block_on(async { several(engine(Engine::Uring), &directory.0, all.clone()).await });
        }
        let directory = Directory::new();
        runtime(workers).block_on(async { several(engine(Engine::Threads), &directory.0, all.clone()).await });
        let sim = Sim::new(seed);
        let latency = Some(Duration::from_micros(1500));
        sim.set_faults(Faults { short: 0.3, latency, ..Faults::default() });
        runtime(workers).block_on(async { several(Arc::new(sim), &directory.0, all).await });
    }
}
