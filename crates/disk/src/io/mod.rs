//! What the disk tier asks of the operating system, as one trait: reads, writes and syncs of open files, which are
//! begun and awaited, and what is done to files and directories as a whole, which blocks.
//!
//! # Layout
//! - `uring`, `threads`: the engines. `start`: which of them runs.
//! - `whole`: operations carried on until they are whole.
//! - `blocks`: memory for direct I/O. `memory`: an operation's memory as runs of bytes.
//! - `gate`: what is under way in a directory, what fails there, and its end.
//! - `files`: what blocks. `answer`: how an operation's end reaches its caller.
//! - `sim`: a device for tests, that knows what a loss of power leaves.

mod answer;
#[expect(unsafe_code, reason = "aligned memory")]
mod blocks;
mod files;
mod gate;
mod memory;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod start;
#[cfg(test)]
mod tests;
mod threads;
#[expect(unsafe_code, reason = "the kernel is given addresses")]
mod uring;
mod whole;

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use elcache_core::payload::{Buffer, Payload};

pub use blocks::Blocks;
pub use gate::Ticket;
pub(crate) use gate::{Gate, Gated, Pool, TICK};
pub use start::{Engine, Started, start};
pub use whole::transfer;

/// Offsets, lengths and addresses of operations on files opened for direct I/O are multiples of this.
pub const BLOCK: usize = 4096;

/// An open file. Closed when the last reference has gone, and so never while an operation on it is under way.
#[derive(Debug)]
pub struct File {
    /// What the device knows it by; not used again while the process lives.
    pub id: u64,
    /// Its descriptor; a device that only pretends has none.
    pub fd: Option<OwnedFd>,
    /// Whether it is read and written past the page cache.
    pub direct: bool,
}

/// What a device is asked to do, for what is said of its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A sync of a file.
    Sync,
    /// [`Device::open`]; so for the others.
    Open,
    /// Room for a part of a file.
    Allocate,
    /// A new length.
    Truncate,
    /// The end of a file.
    Remove,
    /// A new name.
    Rename,
    /// Looking into a directory.
    List,
    /// A sync of names.
    SyncDirectory,
    /// How much room there is.
    Space,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// It must not exist and is made.
    pub create: bool,
    /// Past the page cache, where the file system can do that.
    pub direct: bool,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fills the memory from the file.
    Read,
    /// Writes the memory into the file.
    Write,
    /// Sees to it that what was written so far survives a loss of power (fdatasync).
    Sync,
}

/// One operation.
pub struct Operation {
    /// The file.
    pub file: Arc<File>,
    /// What is done.
    pub action: Action,
    /// Where in the file the memory begins.
    pub offset: u64,
    /// The bytes' place.
    pub memory: Memory,
    /// How many of its bytes, from the front, have been transferred already.
    pub done: usize,
    /// Where it is counted for as long as it is under way, if anywhere.
    pub ticket: Option<Ticket>,
}

/// Memory of one operation, in parts that follow one another. It belongs to the operation until the kernel is done.
#[derive(Default)]
pub struct Memory {
    /// The parts.
    pub parts: Vec<Part>,
}

/// A part of the memory of an operation.
pub enum Part {
    /// Blocks of the device's own, to be read into or written from.
    Blocks(Blocks),
    /// To be read into: all the room that is left in it. Whoever gets it back says with [`Buffer::advance`] how much of that
    /// is to count.
    Buffer(Box<dyn Buffer>),
    /// To be written from.
    Payload(Payload),
}

/// How an operation ended.
pub struct Done {
    /// Bytes transferred by this operation, `done` of the operation not included. Fewer than asked when the kernel did less,
    /// which is no error; 0 at the end of the file.
    pub result: io::Result<usize>,
    /// The memory.
    pub memory: Memory,
}

/// The end of an operation, to be awaited. The operation goes on when this is dropped.
pub type Pending = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A file in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
}

/// How full a file system is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still use.
    pub available: u64,
    /// Nothing can be written there.
    pub read_only: bool,
}

/// What reads and writes. Faults are injected by devices that stand in front of a real one.
pub trait Device: Send + Sync + 'static {
    /// As log, metrics and `disk.io_engine` call it.
    fn name(&self) -> &'static str;

    /// Begins an operation. It is under way when this returns, or queued where too many are: no call is needed to keep
    /// it going, and dropping the answer does not stop it. Never blocks.
    fn submit(&self, operation: Operation) -> Pending;

    /// Blocks for operations, at least `len` bytes and zeroed. They count against nothing: the device has a number of them, of
    /// small lengths, and takes others from the heap.
    fn blocks(&self, len: usize) -> Blocks;

    /// As [`Device::blocks`], for what is read into: they hold whatever they held before.
    fn room(&self, len: usize) -> Blocks {
        self.blocks(len)
    }

    /// Opens a file. Blocks.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<File>>;

    /// Takes room for a part of a file, which becomes at least as long as that. Blocks.
    fn allocate(&self, file: &File, part: Range<u64>) -> io::Result<()>;

    /// Makes a file so long. Blocks.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;

    /// Removes a file. Blocks.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file the name of another, in whose place it comes. Blocks.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The plain files of a directory. Blocks.
    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>>;

    /// Sees to it that files made in, renamed in and removed from a directory stay so after a loss of power. Blocks.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// How full the file system of a directory is. Blocks.
    fn space(&self, directory: &Path) -> io::Result<Space>;
}
