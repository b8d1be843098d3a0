//! Bytes that were read and are not used yet.

use std::io;
use std::task::{Context, Poll, ready};

use crate::pipe::Pipe;
use crate::pool;

/// What has been read of a connection.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Of a fixed length, so that what is read into it need not be cleared each time. None while nothing is in it.
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
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
        }
        let count = ready!(read)?;
        self.end = self.end.saturating_add(count);
        Poll::Ready(Ok(count))
    }
}
