//! The rings of a session whose client writes whatever it likes, at any moment: counts that jump between two looks, bytes that are others
//! when they are read again. What cannot be is seen; everything else stays within the ring, and our own counts never go back.
#![no_main]

use std::cell::{Cell as Value, RefCell};

use elcache_local::ring::{Broken, Cell, Memory, Ring, about_to_wait, has_to_be_woken};
use libfuzzer_sys::fuzz_target;

/// What the client does before each look: sets the count that is looked at to ours and so much more, or to anything; and what of the ring
/// is asked for after that. `true`: requests are read, `false`: answers are written.
type Step = (bool, bool, u64, u16);
type Input<'a> = (u8, &'a [u8], Vec<Step>);

/// Memory of which nothing is as it was a moment ago.
struct Hostile<'a> {
    capacity: usize,
    bytes: &'a [u8],
    /// What the next look at a count of the client's finds.
    count: Value<u64>,
    next_byte: Value<usize>,
    /// Our counts as they were told: of bytes read, and written.
    told: [Value<u64>; 2],
    /// Where was read or written since the last step, in order.
    runs: RefCell<Vec<(usize, usize)>>,
}

impl Hostile<'_> {
    fn byte(&self) -> u8 {
        let next = self.next_byte.get();
        self.next_byte.set(next + 1);
        *self.bytes.get(next % self.bytes.len().max(1)).unwrap_or(&0)
    }

    fn run(&self, at: usize, len: usize) {
        assert!(at <= self.capacity && len <= self.capacity - at, "{len} bytes at {at} of {}", self.capacity);
        self.runs.borrow_mut().push((at, len));
    }

    fn told(&self, cell: Cell) -> &Value<u64> {
        match cell {
            Cell::RequestsRead => &self.told[0],
            Cell::AnswersWritten => &self.told[1],
            other => panic!("{other:?} is the client's"),
        }
    }
}

impl Memory for Hostile<'_> {
    fn count(&self, cell: Cell) -> u64 {
        assert!(matches!(cell, Cell::RequestsWritten | Cell::AnswersRead), "{cell:?} is ours, and is known");
        // Another look finds something else.
        let count = self.count.get();
        self.count.set(count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(self.byte()));
        count
    }

    fn publish(&self, cell: Cell, count: u64) {
        let moved = count.wrapping_sub(self.told(cell).replace(count));
        assert!((1..=self.capacity as u64).contains(&moved), "{cell:?} moves by {moved}");
    }

    fn raise(&self, flag: Cell) {
        assert_eq!(flag, Cell::ServerWaits);
    }

    fn lower(&self, flag: Cell) -> bool {
        assert_eq!(flag, Cell::ClientWaits);
        self.byte() % 2 == 0
    }

    fn fence(&self) {}

    fn copy_out(&self, ring: Cell, at: usize, into: &mut [u8]) {
        assert_eq!(ring, Cell::RequestsWritten);
        self.run(at, into.len());
        into.iter_mut().for_each(|byte| *byte = self.byte());
    }

    fn copy_in(&self, ring: Cell, at: usize, from: &[u8]) {
        assert_eq!(ring, Cell::AnswersWritten);
        self.run(at, from.len());
    }
}

fuzz_target!(|input: Input<'_>| {
    let (size, bytes, steps) = input;
    let capacity = 1_u64 << (size % 14);
    let memory = Hostile {
        capacity: capacity as usize,
        bytes,
        count: Value::new(0),
        next_byte: Value::new(0),
        told: Default::default(),
        runs: RefCell::default(),
    };
    let (mut requests, mut answers) = (Ring::requests(capacity), Ring::answers(capacity));
    let mut buffer = vec![0; usize::from(u16::MAX)];
    for (reads, near, number, len) in steps {
        let ours = memory.told[usize::from(!reads)].get();
        // As far as it may go, and a little farther.
        let offset = if near { number % (capacity + 2) } else { number };
        memory.count.set(if reads { ours.wrapping_add(offset) } else { ours.wrapping_sub(offset) });
        memory.runs.borrow_mut().clear();
        let buffer = &mut buffer[..usize::from(len)];
        let done = if reads { requests.read(&memory, buffer) } else { answers.write(&memory, buffer) };
        let room = if reads { offset } else { capacity.wrapping_sub(offset) };
        let expected = (offset <= capacity).then_some(room.min(u64::from(len))).ok_or(Broken);
        assert_eq!(done.map(|count| count as u64), expected);
        check(&memory, ours, expected.unwrap_or(0));
        about_to_wait(&memory, Cell::ServerWaits);
        has_to_be_woken(&memory, Cell::ClientWaits);
        if done.is_err() {
            return;
        }
    }
});

/// So many bytes from our count on were touched, in order, and no others.
fn check(memory: &Hostile<'_>, from: u64, count: u64) {
    let mut at = from;
    for (place, len) in memory.runs.borrow().iter().filter(|(_, len)| *len > 0) {
        assert_eq!(*place as u64, at % memory.capacity as u64);
        at = at.wrapping_add(*len as u64);
    }
    assert_eq!(at.wrapping_sub(from), count);
}
