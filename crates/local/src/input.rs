//! Bytes that were read and are not used yet.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use elcache_core::budget::{Budget, Taken};

use crate::pipe::Pipe;
use crate::pool;

/// What has been read of a connection.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Of a fixed length, so that what is read into it need not be cleared each time. None while nothing is in it.
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
    /// What the budget knows of what is beyond the length that every connection has room for.
    taken: Option<Taken>,
}

impl Input {
    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.get(self.begin..self.end).unwrap_or_default()
    }

    /// What lies between the first offset and the second, and between that and the third, if so much has been read.
    pub(crate) fn between(&self, first: usize, second: usize, third: usize) -> Option<(&[u8], &[u8])> {
        let data = self.data();
        Some((data.get(first..second)?, data.get(second..third)?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Passes used bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.begin = self.begin.saturating_add(count).min(self.end);
        if self.is_empty() {
            (self.begin, self.end) = (0, 0);
        }
    }

    /// Sees to it that so many bytes fit at once, of which some may be there already.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.bytes.len().saturating_sub(self.begin) >= count {
            return;
        }
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end.saturating_sub(self.begin));
        if self.bytes.len() < count {
            self.bytes.resize(count, 0);
        }
    }

    /// Has the budget know of a long frame's beginning that is kept while the rest is waited for; false when it has no room for that.
    pub(crate) fn hold(&mut self, budget: &Arc<Budget>) -> bool {
        let len = self.bytes.len().saturating_sub(pool::READ_SIZE) as u64;
        match &mut self.taken {
            Some(taken) => taken.grow(len.saturating_sub(taken.bytes())),
            none => {
                *none = budget.take(len);
                none.is_some()
            }
        }
    }

    /// Reads what there is behind the data; 0 at the end.
    pub(crate) fn poll_fill(
        &mut self,
        pipe: &mut impl Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            self.bytes = pool::take_to_read();
        }
        if self.end == self.bytes.len() {
            // Room for nothing would look like the end.
            self.reserve(self.data().len().saturating_add(1));
        }
        let read = pipe.poll_read(cx, self.bytes.get_mut(self.end..).unwrap_or_default());
        if self.is_empty() && !matches!(read, Poll::Ready(Ok(1..))) {
            pool::give_to_read(std::mem::take(&mut self.bytes));
            self.taken = None;
        }
        let count = ready!(read)?;
        self.end = self.end.saturating_add(count);
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "nothing here comes from outside")]
mod tests {
    use std::io::IoSlice;

    use super::*;

    /// Gives the numbers from 0 on, so many at a time.
    struct Numbers {
        next: u8,
        step: usize,
    }

    impl Pipe for Numbers {
        fn poll_read(&mut self, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            let count = into.len().min(self.step);
            for byte in &mut into[..count] {
                (*byte, self.next) = (self.next, self.next.wrapping_add(1));
            }
            Poll::Ready(Ok(count))
        }

        fn poll_write(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    /// A frame whose first bytes were the last ones of a full buffer looked like the end of the connection.
    #[test]
    fn there_is_always_room_to_read_on() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for step in [1, 7, 1000, pool::READ_SIZE, usize::MAX] {
            let (mut input, mut pipe) = (Input::default(), Numbers { next: 0, step });
            let (mut expected, mut read) = (0_u8, 0);
            while read < 3 * pool::READ_SIZE {
                let Poll::Ready(Ok(count)) = input.poll_fill(&mut pipe, &mut cx) else { panic!("it waits") };
                assert!(count > 0, "{step}");
                read += count;
                let used = input.data().len() - input.data().len() % 13;
                for byte in &input.data()[..used] {
                    assert_eq!(*byte, expected);
                    expected = expected.wrapping_add(1);
                }
                input.consume(used);
            }
        }
    }

    #[test]
    fn what_is_longer_than_the_buffer_fits_once_there_is_room() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut input, mut pipe) = (Input::default(), Numbers { next: 0, step: usize::MAX });
        assert!(input.poll_fill(&mut pipe, &mut cx).is_ready());
        input.consume(100);
        input.reserve(3 * pool::READ_SIZE);
        while input.between(0, 1, 3 * pool::READ_SIZE).is_none() {
            assert!(input.poll_fill(&mut pipe, &mut cx).is_ready());
        }
        let (first, rest) = input.between(0, 1, 3 * pool::READ_SIZE).unwrap();
        assert_eq!((first, rest[0], rest.len()), (&[100][..], 101, 3 * pool::READ_SIZE - 1));
    }
    #[test]
    fn the_budget_knows_of_long_frames_that_are_waited_for() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut input, mut pipe) = (Input::default(), Numbers { next: 0, step: 10 });
        let budget = Budget::new(1 << 20);
        let kept = |input: &mut Input| (input.hold(&budget), budget.taken_bytes() as usize);
        assert_eq!(kept(&mut input), (true, 0));
        assert!(input.poll_fill(&mut pipe, &mut cx).is_ready());
        assert_eq!(kept(&mut input), (true, 0));
        input.reserve(3 * pool::READ_SIZE);
        assert_eq!([kept(&mut input), kept(&mut input)], [(true, 2 * pool::READ_SIZE); 2]);
        input.consume(10);
        pipe.step = 0;
        assert!(input.poll_fill(&mut pipe, &mut cx).is_ready());
        assert_eq!(kept(&mut input), (true, 0));
        let mut input = Input::default();
        input.reserve(2 * pool::READ_SIZE);
        assert!(!input.hold(&Budget::new(100)));
    }
}
