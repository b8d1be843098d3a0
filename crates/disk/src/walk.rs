//! Goes through a log, record by record.

use bytes::{Bytes, BytesMut};

use crate::format::check::Seeds;
use crate::format::record::{self, MAX_RECORD, Next, Record};
use crate::format::{BLOCK, Damaged, LOG_START, RECORD_ALIGN};

/// What is at a place of a log.
pub(crate) enum Step {
    /// Nothing, up to here.
    Padding(u64),
    /// A record of so many bytes, and where its batch began.
    Record { at: u64, len: usize, record: Box<Record>, batch: u64 },
    /// Nothing that verifies.
    Damage(u64),
}

/// A way through a log from its first record on. It is fed with the log's bytes in their order.
pub(crate) struct Walk<'a> {
    seeds: &'a Seeds,
    segment: u32,
    /// What has been fed and not been gone through.
    bytes: BytesMut,
    /// Where in the log that begins.
    at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(seeds: &'a Seeds, segment: u32) -> Self {
        Self { seeds, segment, bytes: BytesMut::new(), at: LOG_START }
    }

    /// Where in the log the next bytes to be fed stand.
    pub(crate) fn next_offset(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What comes next; `None` when more has to be fed first, which at the `end` of the log is never so.
    pub(crate) fn step(&mut self, end: bool) -> Option<Step> {
        let whole = if end { record::PREFIX } else { MAX_RECORD + BLOCK };
        if self.bytes.len() < whole {
            return None;
        }
        let at = self.at;
        let (step, len) = match self.read() {
            Ok(Some((len, record, batch))) => (
                Step::Record { at, len, record: Box::new(record), batch },
                len.next_multiple_of(RECORD_ALIGN),
            ),
            Ok(None) => {
                let next = (at + 1).next_multiple_of(BLOCK as u64);
                (Step::Padding(next), (next - at) as usize)
            }
            Err(Damaged) => (Step::Damage(at), RECORD_ALIGN),
        };
        let len = len.min(self.bytes.len());
        _ = self.bytes.split_to(len);
        self.at += len as u64;
        Some(step)
    }

    fn read(&self) -> Result<Option<(usize, Record, u64)>, Damaged> {
        match record::next(&self.bytes, self.seeds, self.segment, self.at)? {
            Next::Padding => Ok(None),
            Next::Record(len) => {
                let bytes = Bytes::copy_from_slice(self.bytes.get(..len).ok_or(Damaged)?);
                let (record, batch) = Record::decode_in_batch(&bytes, self.seeds, self.segment, self.at)?;
                Ok(Some((len, record, batch)))
            }
        }
    }
}
