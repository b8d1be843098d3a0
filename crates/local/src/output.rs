//! What is to be written, in order: heads and small answers in one buffer, the bytes of large answers where they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use elcache_core::budget::{Budget, Taken};
use elcache_core::payload::Payload;

use crate::pipe::Pipe;
use crate::pool;

/// The most runs of bytes in one write.
const MAX_SLICES: usize = 64;
/// Up to this length a copy behind the head is cheaper than a reference.
const COPY_LIMIT: usize = 16 << 10;
/// So many of our own bytes are part of what every connection takes of the budget.
const OWN_FREE: usize = 16 << 10;
/// The most of our own bytes that wait to be written before there are more, and how many more the budget is asked for at a time.
const MAX_OWN: usize = 1 << 20;
const OWN_STEP: u64 = 64 << 10;
/// Written bytes that the buffer may begin with before they are cut off.
const MAX_WRITTEN: usize = 64 << 10;

/// The queue of what is to be written.
#[derive(Default)]
pub(crate) struct Output {
    /// Bytes of ours; those before `written` have gone.
    own: Vec<u8>,
    written: usize,
    parts: VecDeque<Part>,
    /// Bytes of all parts.
    len: usize,
    /// What of the budget our own bytes take that a client leaves here.
    taken: Option<Taken>,
}

enum Part {
    /// The next so many of our own bytes.
    Own(usize),
    /// These bytes of the cache.
    Shared(Bytes),
    /// A copy of such bytes, and the room that it takes.
    Copied { bytes: Bytes, _taken: Taken },
}

/// Nobody may hold what a slow client does not take.
pub(crate) struct NoRoom;

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many of the bytes are our own.
    pub(crate) fn own_len(&self) -> usize {
        self.own.len().saturating_sub(self.written)
    }

    /// Whether it holds bytes of the cache, or more of our own than the budget knows of.
    pub(crate) fn is_held(&self) -> bool {
        self.unknown() > 0 || self.parts.iter().any(|part| matches!(part, Part::Shared(_)))
    }

    /// Our own bytes that the budget does not know of.
    fn unknown(&self) -> u64 {
        let known = self.taken.as_ref().map_or(0, Taken::bytes);
        (self.own_len().saturating_sub(OWN_FREE) as u64).saturating_sub(known)
    }

    /// Whether there may be more of our own bytes, of which the budget knows from the first ones on that a client leaves here.
    pub(crate) fn has_room(&mut self, budget: &Arc<Budget>) -> bool {
        let unknown = self.unknown();
        unknown == 0 || (self.own_len() <= MAX_OWN && self.know(budget, unknown.max(OWN_STEP)))
    }

    /// Has the budget know of so many bytes more; false when it has no room for them.
    fn know(&mut self, budget: &Arc<Budget>, bytes: u64) -> bool {
        match &mut self.taken {
            Some(taken) => taken.grow(bytes),
            none => {
                *none = budget.take(bytes);
                none.is_some()
            }
        }
    }

    /// Appends what `write` appends to a buffer.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.own.capacity() == 0 {
            self.own = pool::take_to_write();
        }
        let before = self.own.len();
        write(&mut self.own);
        let more = self.own.len().saturating_sub(before);
        self.len = self.len.saturating_add(more);
        match self.parts.back_mut() {
            Some(Part::Own(count)) => *count = count.saturating_add(more),
            _ if more > 0 => self.parts.push_back(Part::Own(more)),
            _ => {}
        }
    }

    /// Appends the first `len` bytes of a payload.
    pub(crate) fn push(&mut self, payload: &Payload, len: usize) {
        let mut left = len;
        let pieces = payload.pieces().map_while(move |piece| {
            let count = left.min(piece.len());
            left = left.saturating_sub(count);
            (count > 0).then_some((piece, count))
        });
        if len <= COPY_LIMIT {
            self.write(|out| {
                pieces
                    .for_each(|(piece, count)| out.extend_from_slice(piece.get(..count).unwrap_or_default()));
            });
        } else {
            self.len = self.len.saturating_add(len);
            self.parts.extend(pieces.map(|(piece, count)| Part::Shared(piece.slice(..count))));
        }
    }

    /// Writes some of it with one call; there must be something.
    pub(crate) fn poll_write(&mut self, pipe: &mut impl Pipe, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let used = self.gather(&mut slices);
        match ready!(pipe.poll_write(cx, slices.get(..used).unwrap_or_default()))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => {
                self.pass(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut own = self.own.get(self.written..).unwrap_or_default();
        let runs = self.parts.iter().map(|part| match part {
            Part::Own(count) => {
                let (run, rest) = own.split_at_checked(*count).unwrap_or((own, &[]));
                own = rest;
                run
            }
            Part::Shared(bytes) | Part::Copied { bytes, .. } => bytes,
        });
        slices.iter_mut().zip(runs).map(|(slice, run)| *slice = IoSlice::new(run)).count()
    }

    /// Takes written bytes off.
    fn pass(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count);
        let mut left = count;
        while left > 0
            && let Some(part) = self.parts.front_mut()
        {
            let have = match part {
                Part::Own(have) => *have,
                Part::Shared(bytes) | Part::Copied { bytes, .. } => bytes.len(),
            };
            let of_this = left.min(have);
            left = left.saturating_sub(of_this);
            match part {
                Part::Own(have) => {
                    *have = have.saturating_sub(of_this);
                    self.written = self.written.saturating_add(of_this);
                }
                Part::Shared(bytes) | Part::Copied { bytes, .. } => drop(bytes.split_to(of_this)),
            }
            if of_this == have {
                self.parts.pop_front();
            }
        }
        self.tidy();
    }

    /// Gives the buffer back when it is used up, and cuts off what was written of it.
    fn tidy(&mut self) {
        if self.own_len() == 0 {
            (self.written, self.taken) = (0, None);
            pool::give_to_write(std::mem::take(&mut self.own));
        } else if self.written > MAX_WRITTEN {
            self.own.drain(..self.written.min(self.own.len()));
            self.written = 0;
        }
    }

    /// Copies what is not our own, so that a client that does not take it holds nothing of the cache, and has the budget know of all.
    pub(crate) fn copy_out(&mut self, budget: &Arc<Budget>) -> Result<(), NoRoom> {
        let unknown = self.unknown();
        if !self.know(budget, unknown) {
            return Err(NoRoom);
        }
        for part in &mut self.parts {
            if let Part::Shared(bytes) = part {
                let taken = budget.take(bytes.len() as u64).ok_or(NoRoom)?;
                *part = Part::Copied { bytes: Bytes::copy_from_slice(bytes), _taken: taken };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "nothing here comes from outside"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes at a time, and keeps them.
    struct Narrow(Vec<usize>, Vec<u8>);

    impl Pipe for Narrow {
        fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            assert!(slices.iter().all(|slice| !slice.is_empty()));
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = all.len().min(self.0.pop().unwrap_or(usize::MAX));
            self.1.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }
    }

    fn payload(pieces: &[Vec<u8>]) -> Payload {
        let mut payload = Payload::new();
        pieces.iter().for_each(|piece| payload.push(Bytes::copy_from_slice(piece)));
        payload
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<u8>),
        Push(Vec<Vec<u8>>, usize),
        Send(usize),
        CopyOut,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
        let pieces = proptest::collection::vec(bytes(30_000), 0..4);
        prop_oneof![
            4 => bytes(200).prop_map(Step::Write),
            4 => (pieces, 0_usize..100_000).prop_map(|(pieces, len)| Step::Push(pieces, len)),
            4 => (1_usize..60_000).prop_map(Step::Send),
            1 => Just(Step::CopyOut),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_goes_in_comes_out_in_order(steps in proptest::collection::vec(step(), 0..60)) {
            let (mut output, mut expected) = (Output::default(), Vec::new());
            let (mut pipe, budget) = (Narrow(Vec::new(), Vec::new()), Budget::new(1 << 30));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for step in steps {
                match step {
                    Step::Write(bytes) => {
                        output.write(|out| out.extend_from_slice(&bytes));
                        expected.extend_from_slice(&bytes);
                    }
                    Step::Push(pieces, len) => {
                        let payload = payload(&pieces);
                        let len = len.min(payload.len());
                        output.push(&payload, len);
                        expected.extend_from_slice(&pieces.concat()[..len]);
                    }
                    Step::Send(most) if !output.is_empty() => {
                        pipe.0.push(most);
                        prop_assert!(matches!(output.poll_write(&mut pipe, &mut cx), Poll::Ready(Ok(()))));
                    }
                    Step::Send(_) => {}
                    Step::CopyOut => {
                        prop_assert!(output.copy_out(&budget).is_ok());
                        prop_assert!(!output.is_held());
                    }
                }
                prop_assert_eq!(pipe.1.len() + output.len(), expected.len());
                prop_assert!(output.own_len() <= output.len());
            }
            pipe.0.clear();
            while !output.is_empty() {
                prop_assert!(matches!(output.poll_write(&mut pipe, &mut cx), Poll::Ready(Ok(()))));
            }
            prop_assert!(pipe.1 == expected);
            prop_assert_eq!(budget.taken_bytes(), 0);
        }
    }

    #[test]
    fn the_budget_knows_what_a_client_leaves_here() {
        let (mut output, budget) = (Output::default(), Budget::new(1 << 20));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (len, known) in [(OWN_FREE, 0), (1000, 1000), (500, 1500)] {
            output.write(|out| out.resize(out.len() + len, 0));
            assert_eq!(output.is_held(), known > 0);
            assert!(output.copy_out(&budget).is_ok() && !output.is_held());
            assert_eq!(budget.taken_bytes(), known);
        }
        output.write(|out| out.resize(1 << 20, 0));
        assert!(output.copy_out(&budget).is_err());
        let mut pipe = Narrow(Vec::new(), Vec::new());
        assert!(matches!(output.poll_write(&mut pipe, &mut cx), Poll::Ready(Ok(()))));
        assert_eq!((output.len(), budget.taken_bytes()), (0, 0));
    }

    /// Clients that sent requests and took no answers had a second to fill the node's memory with these.
    #[test]
    fn there_are_more_answers_only_when_the_budget_knows_of_those_that_wait() {
        let (mut output, budget) = (Output::default(), Budget::new(1 << 20));
        let mut written = 0;
        while output.has_room(&budget) {
            output.write(|out| out.resize(out.len() + 100, 0));
            written += 100;
            assert!(written <= OWN_FREE + 100 + budget.taken_bytes() as usize);
        }
        assert!(written > 700 << 10, "{written}");
        let mut pipe = Narrow(vec![written - OWN_FREE], Vec::new());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(output.poll_write(&mut pipe, &mut cx), Poll::Ready(Ok(()))));
        assert!(output.has_room(&budget));
        let (mut alone, ample) = (Output::default(), Budget::new(1 << 30));
        alone.write(|out| out.resize(MAX_OWN + 1, 0));
        assert!(!alone.has_room(&ample));
    }

    #[test]
    fn what_no_budget_has_room_for_is_not_copied() {
        let mut output = Output::default();
        output.push(&payload(&[vec![1; 20_000]]), 20_000);
        assert!(output.copy_out(&Budget::new(20_000)).is_err());
        assert!(output.is_held());
    }

    #[test]
    fn what_never_runs_dry_does_not_grow() {
        let (mut output, mut pipe) = (Output::default(), Narrow(Vec::new(), Vec::new()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        output.write(|out| out.extend_from_slice(&[0; 1000]));
        for _ in 0..10_000 {
            output.write(|out| out.extend_from_slice(&[0; 1000]));
            pipe.0.push(1000);
            assert!(matches!(output.poll_write(&mut pipe, &mut cx), Poll::Ready(Ok(()))));
        }
        assert!(output.own.capacity() < 4 * MAX_WRITTEN, "{}", output.own.capacity());
    }
}
