//! What the simulated disk promises, and what carrying operations on makes of its faults.

use proptest::prelude::*;

use super::*;
use crate::io::sim::{Call, Faults, Sim};
use crate::io::transfer;

const EIO: i32 = 5;
const EINTR: i32 = 4;
const ENOSPC: i32 = 28;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn put(device: &Sim, file: &Arc<File>, number: usize, byte: u8) {
    assert_eq!(count(&device.submit(write(file, block(number), vec![byte; BLOCK])).await), BLOCK);
}

async fn synced(device: &Sim, file: &Arc<File>) {
    assert!(device.submit(sync(file)).await.result.is_ok());
}

async fn get(device: &Sim, path: &Path, len: usize) -> Vec<u8> {
    let file = device.open(path, OLD).unwrap();
    let mut done = device.submit(read(&file, 0, device.room(len))).await;
    let count = count(&done);
    let mut all = bytes(&mut done.memory);
    all.truncate(count);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_was_synced_survives_and_each_sector_is_of_some_write(seed in any::<u64>()) {
        let path = Path::new("/d/a");
        run(async {
            let sim = Sim::new(0);
            let file = sim.open(path, NEW).unwrap();
            sim.sync_directory(Path::new("/d")).unwrap();
            put(&sim, &file, 0, 1).await;
            put(&sim, &file, 1, 1).await;
            synced(&sim, &file).await;
            put(&sim, &file, 1, 2).await;
            put(&sim, &file, 2, 3).await;
            let left = sim.power_cut(seed);
            let all = get(&left, path, 3 * BLOCK).await;
            assert_eq!(all[..BLOCK], [1; BLOCK]);
            assert!(all[BLOCK..].chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            assert!(all[BLOCK..2 * BLOCK].iter().all(|byte| [1, 2].contains(byte)));
            assert!(all[2 * BLOCK..].iter().all(|byte| [0, 3].contains(byte)));
            assert!(sim.open(path, OLD).is_err(), "the power is off");
            // What is left is on the disk: a second loss takes nothing more.
            assert_eq!(get(&left.power_cut(seed ^ 1), path, 3 * BLOCK).await, all);
        });
    }
}

#[test]
fn losses_of_power_differ() {
    let outcomes = run(async {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let sim = Sim::new(0);
            let file = sim.open(Path::new("/d/a"), NEW).unwrap();
            sim.sync_directory(Path::new("/d")).unwrap();
            put(&sim, &file, 0, 7).await;
            let all = get(&sim.power_cut(seed), Path::new("/d/a"), BLOCK).await;
            outcomes.insert(all.iter().filter(|byte| **byte == 7).count());
        }
        outcomes
    });
    assert!(outcomes.contains(&0) && outcomes.contains(&BLOCK) && outcomes.len() > 5, "{outcomes:?}");
}

#[test]
fn names_that_were_not_synced_may_be_as_before_or_as_after() {
    let outcomes: std::collections::BTreeSet<String> = (0..40)
        .map(|seed| {
            let (old, new, other) = (Path::new("/d/old"), Path::new("/d/new"), Path::new("/e/other"));
            let sim = Sim::new(0);
            sim.open(old, NEW).unwrap();
            sim.open(other, NEW).unwrap();
            sim.sync_directory(Path::new("/d")).unwrap();
            sim.sync_directory(Path::new("/e")).unwrap();
            sim.rename(old, new).unwrap();
            sim.remove(other).unwrap();
            let left = sim.power_cut(seed);
            let names = [old, new, other].map(|path| u8::from(left.open(path, OLD).is_ok()).to_string());
            names.concat()
        })
        .collect();
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["010", "011", "100", "101"]);
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    run(async {
        let sim = Sim::new(3);
        let path = Path::new("/d/a");
        let file = sim.open(path, NEW).unwrap();
        sim.sync_directory(Path::new("/d")).unwrap();
        put(&sim, &file, 0, 1).await;
        sim.set_faults(Faults { latency: Some(std::time::Duration::from_millis(5)), ..Faults::default() });
        let pending = sim.submit(sync(&file));
        sim.set_faults(Faults::default());
        put(&sim, &file, 1, 1).await;
        assert!(pending.await.result.is_ok());
        let lost = (0..20).map(|seed| (sim.power_cut(seed), seed)).collect::<Vec<_>>();
        let mut is_lost = false;
        for (left, _) in lost {
            let all = get(&left, path, 2 * BLOCK).await;
            assert_eq!(all[..BLOCK], [1; BLOCK]);
            is_lost |= all.len() < 2 * BLOCK;
        }
        assert!(is_lost);
    });
}

#[test]
fn a_kill_loses_nothing() {
    run(async {
        let sim = Sim::new(0);
        let file = sim.open(Path::new("/d/a"), NEW).unwrap();
        put(&sim, &file, 0, 1).await;
        assert_eq!(get(&sim.kill(0), Path::new("/d/a"), BLOCK).await, [1; BLOCK]);
    });
}

#[test]
fn calls_fail_as_they_are_told_to() {
    run(async {
        let sim = Sim::new(0);
        let file = sim.open(Path::new("/a"), NEW).unwrap();
        sim.fail(Call::Write, 1, EIO);
        sim.fail(Call::Rename, 0, ENOSPC);
        put(&sim, &file, 0, 1).await;
        let done = sim.submit(write(&file, 0, vec![2; BLOCK])).await;
        assert_eq!(done.result.unwrap_err().raw_os_error(), Some(EIO));
        put(&sim, &file, 0, 3).await;
        let errno = |error: io::Error| error.raw_os_error();
        assert_eq!(sim.rename(Path::new("/a"), Path::new("/b")).map_err(errno), Err(Some(ENOSPC)));
        sim.rename(Path::new("/a"), Path::new("/b")).unwrap();
    });
}

#[test]
fn a_full_disk_says_so() {
    run(async {
        let sim = Sim::new(0);
        sim.set_faults(Faults { capacity: block(2), ..Faults::default() });
        let file = sim.open(Path::new("/a"), NEW).unwrap();
        sim.allocate(&file, 0..block(1)).unwrap();
        assert_eq!(sim.allocate(&file, 0..block(3)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(sim.space(Path::new("/")).unwrap().available, block(1));
        put(&sim, &file, 0, 1).await;
        let done = sim.submit(write(&file, block(1), vec![0; 2 * BLOCK])).await;
        assert_eq!(done.result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    });
}

#[test]
fn bits_turn_around() {
    run(async {
        let sim = Sim::new(0);
        let path = Path::new("/a");
        let file = sim.open(path, NEW).unwrap();
        put(&sim, &file, 0, 1).await;
        sim.flip(path, 7, 0x81).unwrap();
        assert_eq!(get(&sim, path, 8).await[6..9], [1, 0x80, 1]);
        sim.set_faults(Faults { flipped: 1.0, ..Faults::default() });
        assert_ne!(get(&sim, path, 8).await, get(&sim, path, 8).await);
    });
}

#[test]
fn direct_files_want_whole_blocks() {
    run(async {
        let sim = Sim::new(0);
        let file = sim.open(Path::new("/a"), NEW_DIRECT).unwrap();
        for (offset, len) in [(512, BLOCK), (0, 512)] {
            let done = sim.submit(write(&file, offset, vec![0; len])).await;
            assert_eq!(done.result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_passing_error_is_tried_again_and_another_is_not() {
    run(async {
        let sim = Sim::new(0);
        let file = sim.open(Path::new("/a"), NEW).unwrap();
        (0..10).for_each(|nth| sim.fail(Call::Write, nth, EINTR));
        sim.fail(Call::Sync, 0, EIO);
        assert_eq!(count(&transfer(&sim, write(&file, 0, vec![1; 9])).await), 9);
        let done = transfer(&sim, sync(&file)).await;
        assert_eq!(done.result.unwrap_err().raw_os_error(), Some(EIO));
        (0..100).for_each(|nth| sim.fail(Call::Read, nth, EINTR));
        let done = transfer(&sim, read(&file, 0, sim.room(9))).await;
        assert_eq!(done.result.unwrap_err().kind(), io::ErrorKind::Interrupted);
    });
}

#[test]
fn what_was_done_before_is_left_out() {
    run(async {
        let sim = Sim::new(0);
        let file = sim.open(Path::new("/a"), NEW).unwrap();
        let begun = Operation { done: 5, ..write(&file, 0, pattern(0, 9)) };
        assert_eq!(count(&transfer(&sim, begun).await), 4);
        assert_eq!(get(&sim, Path::new("/a"), 9).await, [vec![0; 5], pattern(5, 4)].concat());
    });
}
