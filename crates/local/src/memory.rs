//! A session: the memory that one client and the node write, laid out as docs/protocol.md has it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use elcache_arena::{Mapping, Others};
use elcache_core::budget::Taken;
use elcache_core::shared::RecordId;

use crate::ring::{Cell, Memory};

const MAGIC: u64 = u32::from_le_bytes(*b"ELSM") as u64 | 1 << 32;
/// Bytes before the rings.
const CONTROL: usize = 4096;
/// The smallest and the largest ring, in bytes.
pub(crate) const RING_MIN: u64 = 64 << 10;
pub(crate) const RING_MAX: u64 = 16 << 20;

const CAPACITY: usize = 8;
const USES: usize = 448;
const HITS: usize = 456;
const HIT_BYTES: usize = 464;
const USED: usize = 512;
/// Uses that a client can tell of at a time.
const NOTED: u64 = 256;
/// The most hits, and bytes, that a client is believed to have had in the seconds since it was last looked at: more than any processor
/// copies. A count that goes back has risen by more than that.
const BELIEVED_HITS: u64 = 1 << 25;
const BELIEVED_BYTES: u64 = 1 << 38;

/// Bytes of memory that a session with rings of this size takes.
pub(crate) fn session_len(capacity: u64) -> u64 {
    CONTROL as u64 + 2 * capacity
}

/// The memory, and the room that it takes of the budget.
pub(crate) struct Session {
    mapping: Mapping,
    capacity: u64,
    _room: Taken,
}

/// What a client has done without asking since it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unasked {
    pub(crate) hits: u64,
    pub(crate) bytes: u64,
}

/// What is known of a client's counts.
#[derive(Debug, Default)]
pub(crate) struct Known {
    uses: u64,
    hits: u64,
    bytes: u64,
}

impl Session {
    /// With rings of so many bytes, a power of two.
    pub(crate) fn new(capacity: u64, room: Taken) -> io::Result<Self> {
        let mapping = Mapping::new("elcache-session", session_len(capacity) as usize, Others::Write)?;
        let session = Self { mapping, capacity, _room: room };
        session.word(0).store(MAGIC.to_le(), Ordering::Relaxed);
        session.word(CAPACITY).store(capacity.to_le(), Ordering::Release);
        Ok(session)
    }

    /// What the client maps.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.mapping.file()
    }

    /// Bytes of each ring.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What the client did by itself since `known`, and the records that it used. Counts that cannot be are not believed.
    pub(crate) fn look(&self, known: &mut Known, mut used: impl FnMut(RecordId)) -> Unasked {
        let uses = self.number(USES);
        if uses == known.uses {
            return Unasked::default();
        }
        let new = uses.wrapping_sub(known.uses).min(NOTED);
        for use_ in (0..new).map(|back| uses.wrapping_sub(back + 1)) {
            used(RecordId(self.number(USED + (use_ % NOTED) as usize * 8)));
        }
        let (hits, bytes) = (self.number(HITS), self.number(HIT_BYTES));
        let believed =
            |now: u64, before: u64, most| Some(now.wrapping_sub(before)).filter(|risen| *risen <= most);
        let unasked = Unasked {
            hits: believed(hits, known.hits, BELIEVED_HITS).unwrap_or(0),
            bytes: believed(bytes, known.bytes, BELIEVED_BYTES).unwrap_or(0),
        };
        *known = Known { uses, hits, bytes };
        unasked
    }

    /// Whether the client has read all answers.
    pub(crate) fn is_read(&self) -> bool {
        self.count(Cell::AnswersRead) == self.count(Cell::AnswersWritten)
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Acquire))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.mapping.words()[at / size_of::<u64>()]
    }

    fn flag(&self, at: usize) -> &AtomicU32 {
        &self.mapping.half_words()[at / size_of::<u32>()]
    }

    /// Where a ring's bytes begin.
    fn ring(&self, ring: Cell) -> usize {
        CONTROL + if ring == Cell::AnswersWritten { self.capacity as usize } else { 0 }
    }
}

fn place_of(cell: Cell) -> usize {
    match cell {
        Cell::RequestsWritten => 64,
        Cell::RequestsRead => 128,
        Cell::AnswersWritten => 192,
        Cell::AnswersRead => 256,
        Cell::ClientWaits => 320,
        Cell::ServerWaits => 384,
    }
}

impl Memory for Session {
    fn count(&self, cell: Cell) -> u64 {
        self.number(place_of(cell))
    }

    fn publish(&self, cell: Cell, count: u64) {
        self.word(place_of(cell)).store(count.to_le(), Ordering::Release);
    }

    fn raise(&self, flag: Cell) {
        self.flag(place_of(flag)).store(1, Ordering::Relaxed);
    }

    fn lower(&self, flag: Cell) -> bool {
        let flag = self.flag(place_of(flag));
        flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::AcqRel) != 0
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn copy_out(&self, ring: Cell, at: usize, into: &mut [u8]) {
        self.mapping.read(self.ring(ring) + at, into);
    }

    fn copy_in(&self, ring: Cell, at: usize, from: &[u8]) {
        self.mapping.write(self.ring(ring) + at, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;
    use elcache_core::budget::Budget;

    fn session() -> Session {
        let budget = Budget::new(1 << 20);
        let room = budget.take(session_len(RING_MIN)).unwrap();
        Session::new(RING_MIN, room).unwrap()
    }

    #[test]
    fn bytes_go_through_both_rings_and_stay_apart() {
        let session = session();
        let (mut sent, mut received) = (Ring::requests(RING_MIN), Ring::requests(RING_MIN));
        let (mut answered, mut heard) = (Ring::answers(RING_MIN), Ring::answers(RING_MIN));
        let bytes: Vec<u8> = (0..50_001_u32).map(|n| (n % 251) as u8).collect();
        for _ in 0..5 {
            assert_eq!(sent.write(&session, &bytes), Ok(bytes.len()));
            assert_eq!(answered.write(&session, &bytes[1..]), Ok(bytes.len() - 1));
            let mut got = vec![0; bytes.len()];
            assert_eq!(received.read(&session, &mut got), Ok(bytes.len()));
            assert_eq!(got, bytes);
            assert_eq!(heard.read(&session, &mut got), Ok(bytes.len() - 1));
            assert_eq!(got[..bytes.len() - 1], bytes[1..]);
        }
    }

    #[test]
    fn what_a_client_did_by_itself_is_believed_within_bounds() {
        let session = session();
        let mut known = Known::default();
        let set = |at, number: u64| session.word(at).store(number.to_le(), Ordering::Relaxed);
        let mut look = || {
            let mut used = Vec::new();
            let unasked = session.look(&mut known, |record| used.push(record.0));
            (unasked, used)
        };
        assert_eq!(look(), (Unasked::default(), Vec::new()));
        (0..3).for_each(|n| set(USED + n as usize * 8, 100 + n));
        [(USES, 3), (HITS, 3), (HIT_BYTES, 50)].iter().for_each(|(at, number)| set(*at, *number));
        assert_eq!(look(), (Unasked { hits: 3, bytes: 50 }, vec![102, 101, 100]));
        [USES, HITS, HIT_BYTES].iter().for_each(|at| set(*at, u64::MAX));
        let (unasked, used) = look();
        assert_eq!((unasked, used.len() as u64), (Unasked::default(), NOTED));
        [(USES, 0), (HITS, 1), (HIT_BYTES, 9)].iter().for_each(|(at, number)| set(*at, *number));
        assert_eq!(look().0, Unasked { hits: 2, bytes: 10 }, "it goes on from there");
    }
}
