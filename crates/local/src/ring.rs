//! The rings of a session: bytes from one process to another, without a lock and without a call to the kernel as long as both are busy.
//!
//! Nothing here trusts the other side. Its counts are looked at, and what cannot be is [`Broken`]; our own counts are kept here and only
//! told to it.

/// Where a count or a flag lies in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Bytes that the client has written.
    RequestsWritten,
    /// Those of them that the server has read.
    RequestsRead,
    /// Bytes that the server has written.
    AnswersWritten,
    /// Those of them that the client has read.
    AnswersRead,
    /// 1: the client waits.
    ClientWaits,
    /// 1: the server waits.
    ServerWaits,
}

/// The memory of a session, or what stands for it in a test.
pub trait Memory {
    /// Reads a count. What was copied in before it was published is seen afterwards.
    fn count(&self, cell: Cell) -> u64;

    /// Publishes a count.
    fn publish(&self, cell: Cell, count: u64);

    /// Sets a flag.
    fn raise(&self, flag: Cell);

    /// Takes a flag down; true when it was set.
    fn lower(&self, flag: Cell) -> bool;

    /// Nothing after this is done before anything that is done before it.
    fn fence(&self);

    /// Copies out of the ring whose written bytes are counted by this cell.
    fn copy_out(&self, ring: Cell, at: usize, into: &mut [u8]);

    /// Copies into it.
    fn copy_in(&self, ring: Cell, at: usize, from: &[u8]);
}

/// The other side's counts cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// A ring, as its reader sees it, or its writer.
#[derive(Clone, Copy)]
pub struct Ring {
    written: Cell,
    read: Cell,
    capacity: u64,
    /// Our own count.
    at: u64,
}

impl Ring {
    /// What the client sends, of this capacity, a power of two.
    pub fn requests(capacity: u64) -> Self {
        Self { written: Cell::RequestsWritten, read: Cell::RequestsRead, capacity, at: 0 }
    }

    /// What the server sends.
    pub fn answers(capacity: u64) -> Self {
        Self { written: Cell::AnswersWritten, read: Cell::AnswersRead, capacity, at: 0 }
    }

    /// As the reader: copies out what is there, at most as much as fits; 0 when there is nothing.
    pub fn read(&mut self, memory: &impl Memory, into: &mut [u8]) -> Result<usize, Broken> {
        let there = memory.count(self.written).wrapping_sub(self.at);
        if there > self.capacity {
            return Err(Broken);
        }
        let count = there.min(into.len() as u64) as usize;
        let (first, second) = into[..count].split_at_mut(self.run(count));
        memory.copy_out(self.written, self.place(), first);
        memory.copy_out(self.written, 0, second);
        self.advance(memory, self.read, count);
        Ok(count)
    }

    /// As the writer: copies in what there is room for; 0 when there is none.
    pub fn write(&mut self, memory: &impl Memory, from: &[u8]) -> Result<usize, Broken> {
        let waiting = self.at.wrapping_sub(memory.count(self.read));
        let room = self.capacity.checked_sub(waiting).ok_or(Broken)?;
        let count = room.min(from.len() as u64) as usize;
        let (first, second) = from[..count].split_at(self.run(count));
        memory.copy_in(self.written, self.place(), first);
        memory.copy_in(self.written, 0, second);
        self.advance(memory, self.written, count);
        Ok(count)
    }

    fn advance(&mut self, memory: &impl Memory, cell: Cell, count: usize) {
        if count > 0 {
            self.at = self.at.wrapping_add(count as u64);
            memory.publish(cell, self.at);
        }
    }

    /// How many of so many bytes lie before the end of the ring.
    fn run(&self, count: usize) -> usize {
        count.min(self.capacity as usize - self.place())
    }

    fn place(&self) -> usize {
        (self.at & (self.capacity - 1)) as usize
    }
}

/// After something was published: true when the other side, whose flag this is, waits and has to be woken.
pub fn has_to_be_woken(memory: &impl Memory, other_waits: Cell) -> bool {
    memory.fence();
    memory.lower(other_waits)
}

/// Before waiting: says so. What the other side publishes from now on it wakes us for, so that one more look is enough.
pub fn about_to_wait(memory: &impl Memory, waits: Cell) {
    memory.raise(waits);
    memory.fence();
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell as Value, RefCell};

    use proptest::prelude::*;

    /// A session's memory in one thread.
    struct Plain {
        cells: [Value<u64>; 6],
        rings: [RefCell<Vec<u8>>; 2],
    }

    impl Plain {
        fn new(capacity: usize) -> Self {
            Self { cells: Default::default(), rings: [vec![0; capacity].into(), vec![0; capacity].into()] }
        }

        fn ring(&self, ring: Cell) -> &RefCell<Vec<u8>> {
            &self.rings[usize::from(ring == Cell::AnswersWritten)]
        }
    }

    impl Memory for Plain {
        fn count(&self, cell: Cell) -> u64 {
            self.cells[cell as usize].get()
        }

        fn publish(&self, cell: Cell, count: u64) {
            self.cells[cell as usize].set(count);
        }

        fn raise(&self, flag: Cell) {
            self.cells[flag as usize].set(1);
        }

        fn lower(&self, flag: Cell) -> bool {
            self.cells[flag as usize].replace(0) == 1
        }

        fn fence(&self) {}

        fn copy_out(&self, ring: Cell, at: usize, into: &mut [u8]) {
            into.copy_from_slice(&self.ring(ring).borrow()[at..at + into.len()]);
        }

        fn copy_in(&self, ring: Cell, at: usize, from: &[u8]) {
            self.ring(ring).borrow_mut()[at..at + from.len()].copy_from_slice(from);
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_and_never_more_than_fits(
            start in prop_oneof![Just(0), any::<u64>(), Just(u64::MAX - 20)],
            steps in proptest::collection::vec((any::<bool>(), 0_usize..40), 0..100),
        ) {
            let memory = Plain::new(32);
            let (mut reader, mut writer) = (Ring::requests(32), Ring::requests(32));
            (reader.at, writer.at) = (start, start);
            memory.publish(Cell::RequestsWritten, start);
            memory.publish(Cell::RequestsRead, start);
            let (mut sent, mut got) = (0_u64, 0_u64);
            for (writes, len) in steps {
                if writes {
                    let bytes: Vec<u8> = (0..len as u64).map(|n| (sent + n) as u8).collect();
                    let count = writer.write(&memory, &bytes).unwrap();
                    prop_assert_eq!(count as u64, (len as u64).min(32 - (sent - got)));
                    sent += count as u64;
                } else {
                    let mut into = vec![0; len];
                    let count = reader.read(&memory, &mut into).unwrap();
                    prop_assert_eq!(count as u64, (len as u64).min(sent - got));
                    prop_assert!(into[..count].iter().zip(got..).all(|(byte, n)| *byte == n as u8));
                    got += count as u64;
                }
            }
        }

        /// A client can write anything into its counts, at any time.
        #[test]
        fn counts_that_cannot_be_are_seen(steps in proptest::collection::vec((0_usize..4, any::<u64>(), 0_usize..40), 0..50)) {
            let memory = Plain::new(32);
            let (mut reader, mut writer) = (Ring::requests(32), Ring::answers(32));
            for (kind, count, len) in steps {
                let count = if count % 3 == 0 { count % 50 } else { count };
                match kind {
                    0 => memory.publish(Cell::RequestsWritten, count),
                    1 => memory.publish(Cell::AnswersRead, count),
                    2 => drop(reader.read(&memory, &mut vec![0; len]).map(|count| assert!(count <= len))),
                    _ => drop(writer.write(&memory, &vec![0; len]).map(|count| assert!(count <= len))),
                }
            }
        }
    }
}
