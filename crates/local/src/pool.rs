//! Buffers that wander between the connections of a thread, so that an idle connection holds none.

use std::cell::RefCell;

/// Bytes of a buffer that is read into.
pub(crate) const READ_SIZE: usize = 32 << 10;
/// A buffer for writing that is larger is not worth keeping.
const MAX_WRITE: usize = 64 << 10;
const MAX_BUFFERS: usize = 16;

type Buffers = RefCell<Vec<Vec<u8>>>;

thread_local! {
    static TO_READ: Buffers = const { RefCell::new(Vec::new()) };
    static TO_WRITE: Buffers = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`READ_SIZE`] bytes, whatever they are.
pub(crate) fn take_to_read() -> Vec<u8> {
    TO_READ.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; READ_SIZE])
}

/// Gives a buffer of [`take_to_read`] back; one of another length is dropped.
pub(crate) fn give_to_read(buffer: Vec<u8>) {
    if buffer.len() == READ_SIZE {
        TO_READ.with_borrow_mut(|buffers| keep(buffers, buffer));
    }
}

/// An empty buffer.
pub(crate) fn take_to_write() -> Vec<u8> {
    TO_WRITE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(crate) fn give_to_write(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=MAX_WRITE).contains(&buffer.capacity()) {
        TO_WRITE.with_borrow_mut(|buffers| keep(buffers, buffer));
    }
}

fn keep(buffers: &mut Vec<Vec<u8>>, buffer: Vec<u8>) {
    if buffers.len() < MAX_BUFFERS {
        buffers.push(buffer);
    }
}
