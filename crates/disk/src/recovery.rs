//! Recovery: what the segments say is put into the index, the newest first.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use elcache_core::value::Version;
use tokio::task::JoinHandle;

use crate::config::Durability;
use crate::directory::{parse_name, perform};
use crate::disk::{Disk, Recovery};
use crate::format::entries::{self, Collected, Entry as LogEntry, Place as LogPlace};
use crate::format::record::{Body, Kind, MAX_RECORD, Record};
use crate::format::segment::{Footer, Header};
use crate::format::{BLOCK, Damaged, LOG_START, RECORD_ALIGN};
use crate::index::Refused;
use crate::index::entry::{Entry, InFile, Kind as Known, Name};
use crate::io::{Action, Memory, Open as OpenFile, Part};
use crate::log::{Open, Resume, known};
use crate::name;
use crate::segment::Segment;
use crate::walk::{Step, Walk};

/// A log is read in pieces of this length.
const PIECE: usize = 1 << 20;
/// Entries that go into the index in one go: so many of each of its stripes that going there pays.
const BATCH: usize = 32 << 10;
/// What is read of an index record at first: almost all are a little longer than 64 KiB.
const INDEX_GUESS: usize = 72 << 10;

/// A segment that was found, and what its files are.
struct Found {
    segment: Arc<Segment>,
    log_len: u64,
    data_len: u64,
}

/// What a log that was read record by record holds.
#[derive(Default)]
struct Scanned {
    /// What is behind the last index record, in the order of the log.
    records: Vec<Noted>,
    last_index: u64,
    count: u64,
    /// Where the data file's last extent ends.
    data_tail: u64,
    highest: Version,
    /// Behind the last record that counts.
    end: u64,
    /// Something in it does not verify, with something behind it that counts.
    damaged: bool,
}

/// What recovery keeps of a record.
struct Noted {
    hash: Name,
    kind: Kind,
    place: LogPlace,
    version: Version,
    expires_ms: Option<u64>,
    name: Bytes,
}

impl Scanned {
    /// Adds what comes behind damage.
    fn go_on_with(&mut self, behind: Self) {
        if behind.last_index != 0 {
            self.last_index = behind.last_index;
            self.records.clear();
        }
        self.records.extend(behind.records);
        self.count += behind.count;
        self.data_tail = self.data_tail.max(behind.data_tail);
        self.highest = self.highest.max(behind.highest);
        self.end = self.end.max(behind.end);
        self.damaged = true;
    }
}

impl Noted {
    fn entry(&self) -> LogEntry<'_> {
        LogEntry {
            kind: self.kind,
            place: self.place,
            hash: self.hash,
            version: self.version,
            expires_ms: self.expires_ms,
            name: &self.name,
        }
    }
}

/// Puts everything into the index that the directory has, and says how it ended.
pub(crate) async fn recover(disk: Arc<Disk>) {
    let began = disk.clock.elapsed();
    let state = match disk.recover_now().await {
        Ok(segments) => {
            let total = disk.index.total();
            let took = disk.clock.elapsed().saturating_sub(began);
            tracing::info!(
                directory = %disk.directory.path.display(),
                segments,
                values = total.values,
                entries = total.entries,
                seconds = took.as_secs_f64(),
                "the disk's index is complete"
            );
            Recovery::Done
        }
        Err(error) => {
            disk.failed("the directory cannot be read: it is not used", &error);
            disk.state.lock().failed = true;
            Recovery::Failed
        }
    };
    disk.recovery.send_replace(state);
}

impl Disk {
    async fn recover_now(self: &Arc<Self>) -> io::Result<u64> {
        let numbers = self.tidy_up().await?;
        let mut done = 0;
        let mut highest = Version::default();
        let mut total: u64 = numbers.values().map(|(log, data)| log + data.unwrap_or(0)).sum();
        for (&number, &(log_len, data_len)) in numbers.iter().rev() {
            let found = self.open_found(number, log_len, data_len).await?;
            // The last one takes more records where that leaves all of them within their room.
            total += self.config.segment_bytes().saturating_sub(found.segment.bytes());
            let again = done == 0 && total + self.config.segment_bytes() <= self.config.max_bytes;
            let (version, complete) = self.take_in(&found, again).await?;
            highest = highest.max(version);
            done += 1;
            self.recovery.send_replace(Recovery::Running(done));
            if !complete {
                tracing::warn!(
                    segment = number,
                    "there is no memory for the whole index: this segment and what is older is given up"
                );
                self.give_up_to(&numbers, number).await?;
                break;
            }
        }
        {
            let mut state = self.state.lock();
            state.highest = state.highest.max(highest);
        }
        self.sweep_round(true).await;
        Ok(done)
    }

    /// The segments, with the lengths of their files. What belongs to none, or to one that was freed, is removed.
    async fn tidy_up(&self) -> io::Result<BTreeMap<u32, (u64, Option<u64>)>> {
        let mut logs = BTreeMap::new();
        let mut datas = BTreeMap::new();
        let (device, path) = (Arc::clone(&self.device), self.directory.segments());
        for entry in self.gate.blocking(move || device.list(&path)).await?? {
            match parse_name(&entry.name) {
                Some((number, true)) => _ = logs.insert(number, entry.len),
                Some((number, false)) => _ = datas.insert(number, entry.len),
                None => tracing::warn!(
                    file = entry.name,
                    "this file is none of the disk tier's and is left alone"
                ),
            }
        }
        let next = logs.keys().chain(datas.keys()).max().map_or(1, |highest| highest.saturating_add(1));
        self.next_number.store(next, Ordering::Relaxed);
        let mut lowest = 0;
        for &number in logs.keys().rev() {
            if let Some(header) = self.header(number).await? {
                lowest = header.lowest;
                break;
            }
        }
        let mut segments = BTreeMap::new();
        for (&number, &log_len) in &logs {
            if number < lowest {
                self.device.remove(&self.directory.log(number))?;
            } else {
                segments.insert(number, (log_len, datas.get(&number).copied()));
            }
        }
        for &number in datas.keys().filter(|number| !segments.contains_key(number)) {
            self.device.remove(&self.directory.data(number))?;
        }
        Ok(segments)
    }

    async fn header(&self, number: u32) -> io::Result<Option<Header>> {
        let (device, path) = (Arc::clone(&self.device), self.directory.log(number));
        let open = OpenFile { create: false, direct: false };
        let log = self.gate.blocking(move || device.open(&path, open)).await??;
        let memory = Memory::of(Part::Blocks(self.device.blocks(BLOCK)));
        let (count, memory) = perform(&*self.device, &log, Action::Read, 0, memory).await?;
        let block = first_blocks(memory, count);
        Ok(Header::decode(&block, number, &self.directory.seeds).ok())
    }

    async fn open_found(&self, number: u32, log_len: u64, data_len: Option<u64>) -> io::Result<Found> {
        let (device, direct) = (Arc::clone(&self.device), self.config.direct);
        let (log_path, data_path) = (self.directory.log(number), self.directory.data(number));
        let files = self.gate.blocking(move || {
            let log = device.open(&log_path, OpenFile { create: false, direct: false })?;
            let data = match data_len {
                Some(_) => Some(device.open(&data_path, OpenFile { create: false, direct })?),
                None => None,
            };
            io::Result::Ok((log, data))
        });
        let (log, data) = files.await??;
        let data_len = data_len.unwrap_or(0);
        let segment = Segment::new(number, log, data, log_len + data_len);
        segment.set_sealed(log_len, data_len);
        self.segments.insert(&segment);
        Ok(Found { segment, log_len, data_len })
    }

    /// Puts a segment's entries into the index: the highest version among them, and whether all found room. The segment
    /// takes more records `again`, where that can be.
    async fn take_in(self: &Arc<Self>, found: &Found, again: bool) -> io::Result<(Version, bool)> {
        let number = found.segment.number;
        let half = self.config.segment_bytes() / 2;
        let mut intake = Intake::new(self);
        let footer = self.footer(found).await?;
        if footer.is_none() || self.config.durability == Durability::Power {
            // What a process that was killed had written must not be lost any more once it has been found.
            self.sync_files(&found.segment).await?;
        }
        if let Some(footer) = footer {
            let complete =
                self.take_in_indexed(found, footer.last_index, &mut intake).await? && intake.finish().await?;
            let small = footer.log_len + footer.data_len <= half;
            if complete && again && small && found.segment.data.is_some() {
                let resume = Resume {
                    log_tail: footer.log_len,
                    data_tail: footer.data_len,
                    last_index: footer.last_index,
                    records: footer.records,
                    entries: Collected::default(),
                };
                self.go_on(found, resume, true).await?;
            }
            return Ok((footer.highest, complete));
        }
        let header = self.header(number).await?;
        let before = header.as_ref().map_or_else(Version::default, |header| header.highest);
        let scanned = self.scan(found, found.log_len).await?;
        let highest = before.max(scanned.highest);
        let complete = intake.take(found, scanned.records.iter().rev().map(Noted::entry)).await?
            && self.take_in_indexed(found, scanned.last_index, &mut intake).await?
            && intake.finish().await?;
        if complete {
            let again = again && header.is_some() && !scanned.damaged && found.segment.data.is_some();
            self.settle_unsealed(found, &scanned, highest, again).await?;
        }
        Ok((highest, complete))
    }

    async fn footer(&self, found: &Found) -> io::Result<Option<Footer>> {
        let Some(offset) = found.log_len.checked_sub(BLOCK as u64).filter(|&at| at >= LOG_START) else {
            return Ok(None);
        };
        let block = self.read_log(&found.segment, offset, BLOCK).await?;
        Ok(Footer::decode(&block, found.segment.number, offset, &self.directory.seeds).ok())
    }

    /// By the index records, from this one to the first. While the entries of one are taken in, the one before it is read.
    async fn take_in_indexed(&self, found: &Found, last_index: u64, intake: &mut Intake) -> io::Result<bool> {
        let mut at = last_index;
        let mut payload = self.read_index(found, at).await?;
        while at != 0 {
            let decoded =
                payload.as_ref().map_err(|damaged| *damaged).and_then(|payload| entries::decode(payload));
            let (taken, next) = match decoded {
                Ok((before, entries)) if before < at => {
                    at = before;
                    let entries = entries.into_iter().rev();
                    // The read is begun first: it is polled first.
                    let (next, taken) =
                        tokio::join!(biased; self.read_index(found, at), intake.take(found, entries));
                    (taken?, next?)
                }
                _ => {
                    // What it would have said, the records before it say.
                    self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                    let scanned = self.scan(found, at).await?;
                    at = scanned.last_index;
                    let taken = intake.take(found, scanned.records.iter().rev().map(Noted::entry)).await?;
                    (taken, self.read_index(found, at).await?)
                }
            };
            if !taken {
                return Ok(false);
            }
            payload = next;
            tokio::task::yield_now().await;
        }
        Ok(true)
    }

    /// The payload of the index record at an offset of a log; at 0 there is none.
    async fn read_index(&self, found: &Found, at: u64) -> io::Result<Result<Bytes, Damaged>> {
        if at == 0 {
            return Ok(Err(Damaged));
        }
        let number = found.segment.number;
        let mut read = Err(Damaged);
        for len in [INDEX_GUESS, MAX_RECORD] {
            let bytes = self.read_log(&found.segment, at, len).await?;
            read = match Record::decode(&bytes, &self.directory.seeds, number, at) {
                Ok(Record { kind: Kind::Index, body: Body::Packed(payload), .. }) => Ok(payload),
                _ => Err(Damaged),
            };
            if read.is_ok() || bytes.len() < len {
                break;
            }
        }
        Ok(read)
    }

    /// Reads a log record by record up to `end`.
    async fn scan(&self, found: &Found, end: u64) -> io::Result<Scanned> {
        let mut scan = Scan::new(self, found);
        while self.feed(&found.segment, &mut scan.walk, end).await? {
            scan.advance(false);
            tokio::task::yield_now().await;
        }
        scan.advance(true);
        Ok(scan.scanned)
    }

    /// A log that was not sealed takes more records `again`, or is sealed now.
    async fn settle_unsealed(
        self: &Arc<Self>,
        found: &Found,
        scanned: &Scanned,
        highest: Version,
        again: bool,
    ) -> io::Result<()> {
        let mut entries = Collected::default();
        scanned.records.iter().for_each(|noted| entries.push(&noted.entry()));
        let resume = Resume {
            log_tail: scanned.end.next_multiple_of(RECORD_ALIGN as u64),
            data_tail: if found.segment.data.is_some() { scanned.data_tail } else { 0 },
            last_index: scanned.last_index,
            records: scanned.count,
            entries,
        };
        {
            let mut state = self.state.lock();
            state.highest = state.highest.max(highest);
        }
        self.go_on(found, resume, again).await
    }

    /// Takes a segment for new records `again`, or to be sealed: cuts its files to what counts, and has the disk know of it.
    async fn go_on(self: &Arc<Self>, found: &Found, resume: Resume, again: bool) -> io::Result<()> {
        let Found { segment, .. } = found;
        let (log_len, tail) = (resume.log_tail, resume.data_tail);
        let (device, log, data) = (Arc::clone(&self.device), Arc::clone(&segment.log), segment.data.clone());
        let cut = self.gate.blocking(move || {
            device.truncate(&log, log_len)?;
            match data {
                Some(data) => device.truncate(&data, tail),
                None => Ok(()),
            }
        });
        cut.await??;
        self.sync_files(segment).await?;
        let (device, path) = (Arc::clone(&self.device), self.directory.segments());
        self.gate.blocking(move || device.sync_directory(&path)).await??;
        let open = Open::new(Arc::clone(segment), resume);
        let mut state = self.state.lock();
        if again {
            segment.set_open(open.bytes().max(self.config.segment_bytes()));
            state.current = Some(open);
        } else {
            segment.set_open(open.bytes());
            state.closing.push(open);
            drop(state);
            self.work.notify_one();
        }
        Ok(())
    }

    async fn sync_files(&self, segment: &Segment) -> io::Result<()> {
        for file in segment.data.iter().chain([&segment.log]) {
            perform(&*self.device, file, Action::Sync, 0, Memory::default()).await?;
        }
        Ok(())
    }

    /// Feeds the next piece of a log up to `end`; false when there is none.
    pub(crate) async fn feed(&self, segment: &Segment, walk: &mut Walk<'_>, end: u64) -> io::Result<bool> {
        let at = walk.next_offset();
        let len = end.saturating_sub(at).min(PIECE as u64) as usize;
        if len == 0 {
            return Ok(false);
        }
        let bytes = self.read_log(segment, at, len).await?;
        walk.feed(&bytes);
        Ok(!bytes.is_empty())
    }

    /// Bytes of a log; fewer at its end.
    async fn read_log(&self, segment: &Segment, offset: u64, len: usize) -> io::Result<Bytes> {
        let memory = Memory::of(Part::Blocks(self.device.room(len)));
        let (count, memory) = perform(&*self.device, &segment.log, Action::Read, offset, memory).await?;
        Ok(first_blocks(memory, count.min(len)))
    }

    /// Frees what the index cannot hold, up to a segment of which it holds a part: of what it does not know, deletions would
    /// leave no trace.
    async fn give_up_to(&self, numbers: &BTreeMap<u32, (u64, Option<u64>)>, number: u32) -> io::Result<()> {
        self.index.set_floor(number.saturating_add(1));
        self.counters.shrunk.fetch_add(1, Ordering::Release);
        for &lower in numbers.range(..=number).map(|(lower, _)| lower) {
            self.remove_files(lower).await.map_err(|_| io::Error::other("a segment cannot be removed"))?;
            self.segments.remove(lower);
        }
        self.forget_freed().await;
        Ok(())
    }
}

/// Entries on their way into the index, from the newest to the oldest. While one batch goes in, on a thread for what blocks,
/// the next is collected; no batch overtakes another.
struct Intake {
    disk: Arc<Disk>,
    batch: Vec<(Name, Entry)>,
    going_in: Option<JoinHandle<Result<usize, Refused>>>,
}

impl Intake {
    fn new(disk: &Arc<Disk>) -> Self {
        Self { disk: Arc::clone(disk), batch: Vec::new(), going_in: None }
    }

    /// Takes more of them; false when the index had no room for one.
    async fn take<'a>(
        &mut self,
        found: &Found,
        entries: impl Iterator<Item = LogEntry<'a>>,
    ) -> io::Result<bool> {
        for entry in entries {
            let Some(known) = known(found.segment.number, &entry) else { continue };
            if known.kind.is_staged() && !self.disk.found.lock().note(&entry, &self.disk.budget) {
                return Ok(false);
            }
            self.batch.push((entry.hash, within(known, found)));
            if self.batch.len() >= BATCH && !self.put().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has everything put in; false when the index had no room for one.
    async fn finish(&mut self) -> io::Result<bool> {
        Ok(self.put().await? && self.settled().await?)
    }

    /// Sends the batch on its way, when the one before has arrived.
    async fn put(&mut self) -> io::Result<bool> {
        if !self.settled().await? {
            return Ok(false);
        }
        let (disk, batch) = (Arc::clone(&self.disk), std::mem::take(&mut self.batch));
        self.batch.reserve_exact(if batch.len() < BATCH { 0 } else { BATCH });
        self.going_in = Some(tokio::task::spawn_blocking(move || disk.index.put_batch_if_absent(&batch)));
        Ok(true)
    }

    async fn settled(&mut self) -> io::Result<bool> {
        let Some(going_in) = self.going_in.take() else { return Ok(true) };
        match going_in.await? {
            Ok(_) => Ok(true),
            Err(Refused::Full) => Ok(false),
            Err(Refused::OutOfRange) => Err(io::Error::other("a segment is larger than the index can tell")),
        }
    }
}

/// Where in the data file an extent ends.
fn data_end(place: &LogPlace) -> u64 {
    match place {
        LogPlace::Data(extent) => {
            let blocks = u64::from(extent.head_blocks) + u64::from(extent.len).div_ceil(BLOCK as u64);
            (u64::from(extent.block) + blocks) * BLOCK as u64
        }
        LogPlace::Log { .. } => 0,
    }
}

/// An entry that points outside of its file is dead.
fn within(entry: Entry, found: &Found) -> Entry {
    let inside = match entry.place.file {
        InFile::Small { offset, len } => {
            offset + u64::from(len) <= found.log_len.next_multiple_of(RECORD_ALIGN as u64)
        }
        InFile::Bulk { offset, .. } => offset + entry.place.bytes() <= found.data_len,
    };
    let counts = inside || entry.kind == Known::Tombstone;
    if counts { entry } else { Entry { kind: Known::Dead, pinned: false, ..entry } }
}

fn first_blocks(memory: Memory, count: usize) -> Bytes {
    match memory.parts.into_iter().next() {
        Some(Part::Blocks(blocks)) => {
            let len = count.min(blocks.len());
            Bytes::from_owner(blocks).slice(..len)
        }
        _ => Bytes::new(),
    }
}

/// Goes through a log. What comes behind damage counts only when its batch, or that of a record behind it, began after
/// the damage.
struct Scan<'a> {
    walk: Walk<'a>,
    /// Where the last damage was, until it is known whether what is behind it counts.
    damage: Option<u64>,
    scanned: Scanned,
    /// Records behind the damage.
    doubtful: Scanned,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a Disk, found: &Found) -> Self {
        let scanned = Scanned { end: LOG_START, ..Scanned::default() };
        let walk = Walk::new(&disk.directory.seeds, found.segment.number);
        Self { walk, damage: None, scanned, doubtful: Scanned::default() }
    }

    /// Goes on as far as what has been read allows: to the last byte at the `end` of the log.
    fn advance(&mut self, end: bool) {
        while let Some(step) = self.walk.step(end) {
            match step {
                Step::Padding(to) => self.target().end = to,
                Step::Record { at, len, record, batch } => self.note(at, len, &record, batch),
                Step::Damage(at) => _ = self.damage.get_or_insert(at),
            }
        }
    }

    fn target(&mut self) -> &mut Scanned {
        if self.damage.is_some() { &mut self.doubtful } else { &mut self.scanned }
    }

    fn note(&mut self, at: u64, len: usize, record: &Record, batch: u64) {
        if self.damage.is_some_and(|damage| batch > damage) {
            // A batch that begins behind the damage was begun when what was before it had been written.
            self.damage = None;
            self.scanned.go_on_with(std::mem::take(&mut self.doubtful));
        }
        let into = self.target();
        into.count += 1;
        into.end = at + len as u64;
        into.highest = into.highest.max(record.meta.version);
        if record.kind == Kind::Index {
            // It has what was before it.
            into.last_index = at;
            into.records.clear();
            return;
        }
        let place = record.place(at, len);
        into.data_tail = into.data_tail.max(data_end(&place));
        into.records.push(Noted {
            hash: name::of_record(record.kind, &record.name),
            kind: record.kind,
            place,
            version: record.meta.version,
            expires_ms: record.meta.expires_ms,
            name: Bytes::copy_from_slice(&record.name),
        });
    }
}
