//! Directories that are not used, and are left as they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::{Arena, Dice, Shape, Value, World, key};
use crate::directory::{DirectoryError, lock};
use crate::io::sim::Sim;
use crate::io::{Action, Blocks, Device, Engine, Memory, Open, Part, start};

async fn read(device: &dyn Device, path: &Path) -> Vec<u8> {
    let file = device.open(path, Open { create: false, direct: false }).unwrap();
    let memory = Memory::of(Part::Blocks(Blocks::zeroed(2 << 20)));
    let (count, memory) = crate::directory::perform(device, &file, Action::Read, 0, memory).await.unwrap();
    match memory.parts.into_iter().next() {
        Some(Part::Blocks(blocks)) => blocks[..count].to_vec(),
        _ => Vec::new(),
    }
}

/// Every file, byte by byte.
pub(super) async fn contents(sim: &Sim, world: &World) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for directory in [world.path.clone(), world.path.join("segments")] {
        for entry in sim.list(&directory).unwrap() {
            let path = directory.join(entry.name);
            let bytes = read(sim, &path).await;
            assert_eq!(bytes.len() as u64, entry.len);
            all.push((path, bytes));
        }
    }
    all
}

/// A file with this content.
pub(super) async fn write(sim: &Sim, path: &Path, bytes: &[u8]) {
    let _ = sim.remove(path);
    let file = sim.open(path, Open { create: true, direct: false }).unwrap();
    let mut blocks = Blocks::zeroed(bytes.len());
    blocks[..bytes.len()].copy_from_slice(bytes);
    let memory = Memory::of(Part::Blocks(blocks));
    crate::directory::perform(sim, &file, Action::Write, 0, memory).await.unwrap();
    sim.truncate(&file, bytes.len() as u64).unwrap();
}

async fn used_directory() -> (World, Arc<Sim>) {
    let world = World::new();
    let sim = Arc::new(Sim::new(1));
    let tier = world.open(&sim).await;
    let value = Value::new(&key("k"), 1, Shape::Filled(50_000));
    value.put(&tier, &world.arena).await.unwrap();
    drop(tier);
    let sim = Arc::new(sim.kill(1));
    (world, sim)
}

#[tokio::test(start_paused = true)]
async fn another_version_a_damaged_identity_and_none_are_refused() {
    let (world, sim) = used_directory().await;
    let path = world.path.join("IDENTITY");
    let identity = read(&*sim, &path).await;
    let mut newer = identity.clone();
    for block in newer.chunks_mut(4096) {
        block[8] = 2;
        let check = crc32c::crc32c(&block[..4092]);
        block[4092..].copy_from_slice(&check.to_le_bytes());
    }
    let mut damaged = identity.clone();
    damaged[100] ^= 1;
    damaged[5000] ^= 1;
    for (bytes, expected) in [(Some(newer), "version 2"), (Some(damaged), "damaged"), (None, "no IDENTITY")] {
        match bytes {
            Some(bytes) => write(&sim, &path, &bytes).await,
            None => sim.remove(&path).unwrap(),
        }
        let before = contents(&sim, &world).await;
        let refused = world.try_open(Arc::clone(&sim) as _).await.err().unwrap();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert!(!refused.to_string().contains('\n'));
        assert!(contents(&sim, &world).await == before, "a refused directory is left as it is");
    }
}

#[tokio::test(start_paused = true)]
async fn one_good_copy_of_the_identity_is_enough() {
    let (world, sim) = used_directory().await;
    let mut dice = Dice::new(1);
    for n in 0..100 {
        let sim = Arc::new(sim.kill(n));
        let at = dice.below(8192);
        sim.flip(&world.path.join("IDENTITY"), at, 1 << dice.below(8)).unwrap();
        let tier = world.open(&sim).await;
        Value::new(&key("k"), 1, Shape::Filled(50_000)).assert_there(&tier).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused_until_the_first_has_let_go() {
    let mut world = World::new();
    world.path = std::env::temp_dir().join(format!("elcache-second-{}", std::process::id()));
    let device = start(Engine::Threads, 8).unwrap().device;
    let held = lock(&world.path).unwrap();
    let tier = world.open_with(device, Some(held)).await.unwrap();
    tier.recovered().await;
    Value::new(&key("k"), 1, Shape::Filled(50_000)).put(&tier, &Arena::new()).await.unwrap();
    assert!(matches!(lock(&world.path), Err(DirectoryError::Locked)));
    tier.close().await;
    assert!(matches!(lock(&world.path), Err(DirectoryError::Locked)));
    drop(tier);
    let mut tries = 0;
    while lock(&world.path).is_err() {
        tries += 1;
        assert!(tries < 500, "the lock is never given back");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    std::fs::remove_dir_all(&world.path).unwrap();
}
