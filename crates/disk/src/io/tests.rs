//! What every device does, and what only the engines do.

mod engines;
mod simulated;
mod suite;

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use elcache_core::payload::Payload;

use super::{Action, BLOCK, Blocks, Device, Done, File, Memory, Open, Operation, Part};

/// A directory of a test, removed after it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("elcache-io-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const NEW: Open = Open { create: true, direct: false };
const NEW_DIRECT: Open = Open { create: true, direct: true };
const OLD: Open = Open { create: false, direct: false };

fn operation(file: &Arc<File>, action: Action, offset: u64, parts: Vec<Part>) -> Operation {
    Operation { file: Arc::clone(file), action, offset, memory: Memory { parts }, done: 0, ticket: None }
}

fn read(file: &Arc<File>, offset: u64, blocks: Blocks) -> Operation {
    operation(file, Action::Read, offset, vec![Part::Blocks(blocks)])
}

fn write(file: &Arc<File>, offset: u64, bytes: Vec<u8>) -> Operation {
    operation(file, Action::Write, offset, vec![Part::Payload(Payload::from(bytes::Bytes::from(bytes)))])
}

fn sync(file: &Arc<File>) -> Operation {
    operation(file, Action::Sync, 0, Vec::new())
}

fn filled(device: &dyn Device, len: usize, byte: u8) -> Part {
    let mut blocks = device.blocks(len);
    blocks.fill(byte);
    Part::Blocks(blocks)
}

/// The bytes of the parts.
fn bytes(memory: &mut Memory) -> Vec<u8> {
    let is_read = |part: &Part| !matches!(part, Part::Payload(_));
    if memory.parts.iter().all(is_read) {
        memory.runs_to_fill(0).unwrap().iter().flat_map(|run: &IoSliceMut<'_>| run.to_vec()).collect()
    } else {
        memory.runs_to_write(0).unwrap().iter().flat_map(|run: &IoSlice<'_>| run.to_vec()).collect()
    }
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

fn count(done: &Done) -> usize {
    *done.result.as_ref().unwrap()
}

/// Bytes that say where they are.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| (at * 31 % 251) as u8).collect()
}

/// An offset of so many blocks.
fn block(number: usize) -> u64 {
    (number * BLOCK) as u64
}
