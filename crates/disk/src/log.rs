//! The open segments: where the next record and the next extent go, and what waits to be written.
//!
//! Plain state under one lock; the writer task takes batches from it and does the writing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use elcache_core::value::{Metadata, Version};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::format::entries::{Collected, Entry as LogEntry, Place as LogPlace};
use crate::format::record::{Body, Extent, Kind, MAX_RECORD, Record, pad};
use crate::format::segment::Footer;
use crate::format::{BLOCK, RECORD_ALIGN, Seeds};
use crate::index::entry::{Entry, InFile, Kind as Known, Name, Place};
use crate::segment::Segment;
use crate::tally::{Held, Tally};

/// Bytes of entries after which an index record follows.
const INDEX_EVERY: usize = 64 << 10;
/// What is kept free in a segment for its last index record and its footer.
const RESERVE: u64 = (MAX_RECORD + 2 * BLOCK) as u64;
/// The longest entry of an index record.
const ENTRY_MAX: usize = 56 + elcache_core::key::MAX_KEY_LEN;

/// A change of the index that a record brings when it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Put(Entry),
    Remove,
}

/// How a batch ended; nothing until then.
pub(crate) type Outcome = Option<Result<(), Failed>>;

/// A record could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// A batch on its way.
pub(crate) struct Batch {
    pub(crate) segment: Arc<Segment>,
    /// Where in the log it goes.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) changes: Vec<(Held, Change)>,
    /// Extents have been written since the data file was last synced.
    pub(crate) sync_data: bool,
    /// It is the last one of its segment: what the data file is to be cut to.
    pub(crate) seal: Option<u64>,
    pub(crate) done: watch::Sender<Outcome>,
    /// Room in memory for what waits.
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
}

/// A segment that takes records.
pub(crate) struct Open {
    pub(crate) segment: Arc<Segment>,
    /// Where the next record goes.
    log_tail: u64,
    /// Where the batch begins that is being collected.
    batch_at: u64,
    batch: Vec<u8>,
    changes: Vec<(Held, Change)>,
    permits: Vec<OwnedSemaphorePermit>,
    done: watch::Sender<Outcome>,
    entries: Collected,
    last_index: u64,
    records: u64,
    data_tail: u64,
    /// How far there is room in the data file.
    data_room: u64,
    /// Extents on their way into it.
    in_flight: u32,
    /// Bytes of the log that are kept for their records.
    promised: u64,
    data_dirty: bool,
}

/// Where a segment is continued that was used before.
#[derive(Default)]
pub(crate) struct Resume {
    pub(crate) log_tail: u64,
    pub(crate) data_tail: u64,
    pub(crate) last_index: u64,
    pub(crate) records: u64,
    pub(crate) entries: Collected,
}

/// What is to be appended, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) log: u64,
    pub(crate) data: u64,
}

impl Need {
    /// A record of so many bytes, all of which are in the log.
    pub(crate) fn record(len: usize) -> Self {
        Self { log: len as u64, data: 0 }
    }

    /// An extent, and a record that may be the only one of its batch; and that record's entry.
    pub(crate) fn extent(record_len: usize, len: usize) -> Self {
        let log = (record_len + ENTRY_MAX).next_multiple_of(BLOCK);
        Self { log: log as u64, data: len as u64 }
    }
}

/// The open segments of a directory.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) current: Option<Open>,
    /// Full ones, with extents on their way or a footer to be written.
    pub(crate) closing: Vec<Open>,
    /// The highest version of any record.
    pub(crate) highest: Version,
    /// Nothing can be written any more.
    pub(crate) failed: bool,
    /// Only reclaiming may write: it has taken the last room for a segment.
    pub(crate) reserved: bool,
    /// Names of which a record has been appended, or room been reserved for it, and which the index does not know yet.
    pub(crate) underway: Arc<Tally>,
}

/// A record to be appended.
pub(crate) struct Append<'a> {
    pub(crate) record: &'a Record,
    pub(crate) name: Name,
    /// Where the record is that this is a copy of.
    pub(crate) copy_of: Option<Place>,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever the tier serves.
    Writer,
    /// Reclaiming, for which the last room is kept.
    Reclaimer,
    /// Reclaiming, with what uploads count on. Until that is written again nothing can be freed, so it may take more than there should be: after
    /// a kill the last room may be full of copies, or less may be occupied than before.
    Saver,
}

impl By {
    /// Who copies what is under this entry.
    pub(crate) fn copying(entry: &Entry) -> Self {
        if entry.pinned { Self::Saver } else { Self::Reclaimer }
    }
}

impl Open {
    pub(crate) fn new(segment: Arc<Segment>, resume: Resume) -> Self {
        let Resume { log_tail, data_tail, last_index, records, entries } = resume;
        Self {
            segment,
            log_tail,
            batch_at: log_tail,
            batch: Vec::new(),
            changes: Vec::new(),
            permits: Vec::new(),
            done: watch::Sender::new(None),
            entries,
            last_index,
            records,
            data_tail,
            data_room: data_tail,
            in_flight: 0,
            promised: 0,
            data_dirty: false,
        }
    }

    /// Bytes that the log may come to have without another record.
    fn log_end(&self) -> u64 {
        self.log_tail + self.promised + self.entries.len() as u64 + RESERVE
    }

    /// Bytes that both files have, or may come to have without another record.
    pub(crate) fn bytes(&self) -> u64 {
        self.log_end() + self.data_room
    }

    /// Whether so much more fits into a segment of `capacity` bytes.
    pub(crate) fn has_room(&self, need: Need, capacity: u64) -> bool {
        self.log_end() + need.log + self.data_room.max(self.data_tail + need.data) <= capacity
    }

    /// The part by which the data file has to become longer first, if it has to; by about `step`. There is room for what is
    /// needed.
    pub(crate) fn growth(&self, need: Need, step: u64, capacity: u64) -> Option<Range<u64>> {
        let least = self.data_tail + need.data;
        let most = capacity.saturating_sub(self.log_end() + need.log);
        let wanted = (self.data_room + step).min(most) / BLOCK as u64 * BLOCK as u64;
        (least > self.data_room).then(|| self.data_room..wanted.max(least))
    }

    /// Appends a record to the batch; its end can be awaited.
    pub(crate) fn append(
        &mut self,
        append: &Append<'_>,
        held: Held,
        seeds: &Seeds,
    ) -> watch::Receiver<Outcome> {
        let Append { record, name, copy_of } = append;
        let (at, len) = self.push(record, seeds);
        let place = record.place(at, len);
        let Metadata { version, expires_ms, .. } = record.meta;
        let entry =
            LogEntry { kind: record.kind, place, hash: *name, version, expires_ms, name: &record.name };
        self.changes.push((held, change(self.segment.number, &entry, copy_of.is_some())));
        self.entries.push(&entry);
        if self.entries.len() >= INDEX_EVERY {
            self.push_index(seeds);
        }
        self.done.subscribe()
    }

    /// Holds room in memory until the batch is written.
    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permits.push(permit);
    }

    /// Where the record is, and its length.
    fn push(&mut self, record: &Record, seeds: &Seeds) -> (u64, usize) {
        let offset = self.log_tail;
        let len = record.encode(&mut self.batch, seeds, self.segment.number, offset, self.batch_at);
        self.log_tail = self.batch_at + self.batch.len() as u64;
        self.records += 1;
        (offset, len)
    }

    fn push_index(&mut self, seeds: &Seeds) {
        let payload = Bytes::from(self.entries.take(self.last_index));
        let meta = Metadata::new(0, elcache_core::digest::Digest([0; 32]), Version::default(), 0);
        let record = Record { kind: Kind::Index, name: Bytes::new(), meta, body: Body::Packed(payload) };
        self.last_index = self.log_tail;
        self.push(&record, seeds);
    }

    fn pad_to_block(&mut self, seeds: &Seeds) {
        let gap = self.log_tail.next_multiple_of(BLOCK as u64) - self.log_tail;
        if gap > 0 {
            pad(&mut self.batch, gap as usize, seeds, self.segment.number, self.log_tail);
            self.log_tail += gap;
        }
    }

    /// Room for an extent and its record: where the extent goes, unless the data file has to be made longer first.
    pub(crate) fn reserve(&mut self, need: Need) -> Option<u64> {
        let end = self.data_tail + need.data;
        if end > self.data_room {
            return None;
        }
        self.in_flight += 1;
        self.promised += need.log;
        Some(std::mem::replace(&mut self.data_tail, end))
    }

    /// The data file has room up to here.
    pub(crate) fn set_room(&mut self, room: u64) {
        self.data_room = self.data_room.max(room);
    }

    /// The extent for which that was needed has arrived, or will not.
    pub(crate) fn landed(&mut self, need: Need, written: bool) {
        self.in_flight -= 1;
        self.promised -= need.log;
        self.data_dirty |= written;
    }

    fn take(&mut self, seal: bool) -> Batch {
        let bytes = std::mem::take(&mut self.batch);
        let batch = Batch {
            segment: Arc::clone(&self.segment),
            offset: self.batch_at,
            bytes,
            changes: std::mem::take(&mut self.changes),
            sync_data: std::mem::take(&mut self.data_dirty),
            seal: seal.then_some(self.data_tail),
            done: std::mem::replace(&mut self.done, watch::Sender::new(None)),
            permits: std::mem::take(&mut self.permits),
        };
        self.batch_at = self.log_tail;
        batch
    }
}

impl State {
    /// The segment of this number, if it takes records.
    pub(crate) fn open(&mut self, number: u32) -> Option<&mut Open> {
        self.closing.iter_mut().chain(&mut self.current).find(|open| open.segment.number == number)
    }

    /// Whether a segment takes records.
    pub(crate) fn is_open(&self, number: u32) -> bool {
        self.closing.iter().chain(&self.current).any(|open| open.segment.number == number)
    }

    /// The next batch to write: of the oldest segment first. `pad`: to the end of a block.
    pub(crate) fn next_batch(&mut self, seeds: &Seeds, pad: bool, now_ms: u64) -> Option<Batch> {
        let highest = self.highest;
        if let Some(place) = self.closing.iter().position(|open| open.in_flight == 0) {
            let mut open = self.closing.remove(place);
            open.close(seeds, highest, now_ms);
            return Some(open.take(true));
        }
        let open = self.closing.iter_mut().chain(&mut self.current).find(|open| !open.batch.is_empty())?;
        if pad {
            open.pad_to_block(seeds);
        }
        Some(open.take(false))
    }

    /// The open segment, if that has room for so much and this one may write.
    pub(crate) fn room_for(&mut self, need: Need, capacity: u64, by: By) -> Option<&mut Open> {
        let open = self.current.as_mut().filter(|_| by != By::Writer || !self.reserved);
        open.filter(|open| open.has_room(need, capacity))
    }

    /// Has the current segment closed.
    pub(crate) fn close_current(&mut self) {
        self.closing.extend(self.current.take());
    }

    /// Has a segment closed, if it is the current one.
    pub(crate) fn close(&mut self, number: u32) {
        self.closing.extend(self.current.take_if(|open| open.segment.number == number));
    }

    /// Gives everything up: what waits has failed.
    pub(crate) fn abandon_all(&mut self) {
        self.failed = true;
        self.current = None;
        self.closing.clear();
    }

    /// Bytes that full segments may still come to have.
    pub(crate) fn unwritten(&self) -> u64 {
        self.closing.iter().map(|open| open.log_end() - open.batch_at).sum()
    }

    /// Whether anything is open still.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.closing.is_empty()
    }

    /// Gives a segment up that cannot be written: what waits for it has failed. How long its data file may have become.
    pub(crate) fn abandon(&mut self, number: u32) -> Option<u64> {
        let is = |open: &Open| open.segment.number == number;
        let current = self.current.take_if(|open| is(open));
        let open = self.closing.extract_if(.., |open| is(open)).chain(current).next()?;
        open.done.send_replace(Some(Err(Failed)));
        Some(open.data_tail)
    }
}

impl Open {
    /// Appends what ends a log: the last index record and the footer.
    fn close(&mut self, seeds: &Seeds, highest: Version, now_ms: u64) {
        if !self.entries.is_empty() {
            self.push_index(seeds);
        }
        self.pad_to_block(seeds);
        let footer = Footer {
            segment: self.segment.number,
            last_index: self.last_index,
            log_len: self.log_tail,
            data_len: self.data_tail,
            records: self.records,
            highest,
            sealed_ms: now_ms,
        };
        self.batch.extend_from_slice(&footer.encode(seeds));
        self.log_tail += BLOCK as u64;
    }
}

/// What an entry of a log means to the index. A copy is pinned only if what it is a copy of is so still.
pub(crate) fn change(segment: u32, entry: &LogEntry<'_>, is_copy: bool) -> Change {
    match known(segment, entry) {
        Some(Entry { kind: Known::Tombstone, .. }) | None => Change::Remove,
        Some(known) => Change::Put(Entry { pinned: known.pinned && !is_copy, ..known }),
    }
}

/// An entry of a log as the index has it; `None` for what it has none of.
pub(crate) fn known(segment: u32, entry: &LogEntry<'_>) -> Option<Entry> {
    let kind = match entry.kind {
        Kind::Value => Known::Value,
        Kind::Root => Known::Root,
        Kind::Page => Known::Page,
        Kind::Chunk => Known::Chunk,
        Kind::Tombstone | Kind::Closed => Known::Tombstone,
        Kind::Upload => Known::Upload,
        Kind::Fragment => Known::Fragment,
        Kind::Filling => Known::Filling,
        Kind::Index => return None,
    };
    let expires_s = entry.expires_ms.map_or(0, |ms| ms.div_ceil(1000).clamp(1, u32::MAX.into()) as u32);
    let place = Place { segment, file: in_file(entry.place) };
    Some(Entry { kind, place, expires_s, used: false, pinned: kind.is_staged(), heat: 0 })
}

pub(crate) fn in_file(place: LogPlace) -> InFile {
    match place {
        LogPlace::Log { offset, len } => {
            InFile::Small { offset, len: len.next_multiple_of(RECORD_ALIGN as u32) }
        }
        LogPlace::Data(Extent { block, head_blocks, len }) => InFile::Bulk {
            offset: u64::from(block) * BLOCK as u64,
            head_len: head_blocks.saturating_mul(BLOCK as u32),
            payload_len: len.div_ceil(BLOCK as u32).saturating_mul(BLOCK as u32),
        },
    }
}
