//! Buffers that wander between the connections of a thread, so that an idle connection holds none.

use std::cell::RefCell;

/// A larger one is not worth keeping.
const MAX_CAPACITY: usize = 64 << 10;
const MAX_BUFFERS: usize = 16;

thread_local!(static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });

/// An empty buffer.
pub(super) fn take() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(super) fn give(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=MAX_CAPACITY).contains(&buffer.capacity()) {
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < MAX_BUFFERS {
                buffers.push(buffer);
            }
        });
    }
}
