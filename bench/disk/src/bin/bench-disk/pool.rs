//! A device as a program without an engine of its own has it: reads are blocking calls on tokio's threads for those. All else
//! is left to our threads.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use elcache_disk::io::{
    Action, Blocks, Device, Done, Engine, Entry, File, Open, Operation, Part, Pending, Space, start,
};
use rustix::io::pread;

/// The device.
pub(crate) struct Pool {
    others: Arc<dyn Device>,
}

impl Pool {
    /// Runs on the runtime that this is called in.
    pub(crate) fn start(max_ops: usize) -> io::Result<Self> {
        Ok(Self { others: start(Engine::Threads, max_ops)?.device })
    }
}

impl Device for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn submit(&self, operation: Operation) -> Pending {
        // Ranges up to 128 KiB are read into blocks; larger ones are not what is measured.
        if !matches!((operation.action, &operation.memory.parts[..]), (Action::Read, [Part::Blocks(_)])) {
            return self.others.submit(operation);
        }
        let reading = tokio::task::spawn_blocking(move || read(operation));
        Box::pin(async move {
            reading.await.unwrap_or_else(|error| Done {
                result: Err(io::Error::other(error)),
                memory: Default::default(),
            })
        })
    }

    fn blocks(&self, len: usize) -> Blocks {
        self.others.blocks(len)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<File>> {
        self.others.open(path, how)
    }

    fn allocate(&self, file: &File, part: Range<u64>) -> io::Result<()> {
        self.others.allocate(file, part)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.others.truncate(file, len)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.others.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.others.rename(from, to)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.others.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.others.sync_directory(directory)
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        self.others.space(directory)
    }
}

fn read(operation: Operation) -> Done {
    let Operation { file, offset, mut memory, done, .. } = operation;
    let result = match (&file.fd, &mut memory.parts[..]) {
        (Some(fd), [Part::Blocks(blocks)]) => {
            pread(fd, &mut blocks[done..], offset + done as u64).map_err(io::Error::from)
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    Done { result, memory }
}
