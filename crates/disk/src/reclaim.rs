//! Reclaiming: the oldest segment goes, and what is in use is written again first.
//!
//! Segments go in the order of their numbers, so that whatever a record has replaced is gone before the record is. What was
//! read since it was written, what a faster tier has, and chunks that unfinished uploads count on are appended to the open
//! segment once more. A copy must not come behind a newer record of its name: whether there is one, and the appending itself,
//! are one step under the lock of the log.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use elcache_core::digest::Digest;
use elcache_core::tier::{Leaving, PageRef, Refusal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::disk::{Disk, Tried, settled};
use crate::extents::Broken;
use crate::format::record::{Kind, Record};
use crate::index::entry::{Entry, InFile, Kind as Known, Name, Place};
use crate::log::{Append, By, Outcome, in_file};
use crate::name;
use crate::segment::Segment;
use crate::walk::{Step, Walk};

/// How often it looks whether there is something to do, when nobody says so.
const ROUND: Duration = Duration::from_millis(100);
/// How long it waits when the oldest segment cannot go yet.
const PAUSE: Duration = Duration::from_millis(10);
/// And after a round through all segments that won nothing.
const LONG_PAUSE: Duration = Duration::from_millis(500);
/// A segment that wins less than this part of itself was in vain.
const GAIN: u64 = 16;
/// A data file goes before its turn when no more than this part of it counts.
const HOLLOW: u64 = 4;
/// More segments than this are too many files: space may have been given back within them, but they are there.
const SEGMENTS_MAX: usize = 1024;
/// So often what uploads count on may turn out to be unreadable before it is given up.
const ROUNDS: u32 = 3;
/// Bytes of copies that wait to be written.
const WAITING: u64 = 1 << 20;
/// Memory for one extent on its way: a chunk and its head.
pub(crate) const SCRATCH: u64 = (4 << 20) + (128 << 10);

/// What is written again in one go over a segment.
enum Wanted {
    /// What unfinished uploads count on.
    Pinned,
    /// What is in use, up to so many bytes.
    InUse(u64),
    /// Everything in the data file.
    Extents,
}

/// What may be written again: it grows with what is written for the first time.
struct Credit {
    bytes: f64,
    /// How much of what is written for the first time it grows by.
    part: f64,
    most: f64,
    /// How much had been written for the first time, and again.
    seen: (u64, u64),
}

impl Credit {
    fn new(disk: &Disk) -> Self {
        let part = (disk.config.write_amplification_max - 1.0).max(0.0);
        let bytes = part * disk.config.segment_bytes() as f64;
        Self { bytes, part, most: part * disk.config.max_bytes as f64, seen: Self::written(disk) }
    }

    /// How much has been written for the first time, and again.
    fn written(disk: &Disk) -> (u64, u64) {
        let again = disk.counters.rewritten.load(Ordering::Relaxed);
        (disk.counters.written.load(Ordering::Relaxed).saturating_sub(again), again)
    }

    /// What of a segment of so many bytes may be written again. While somebody is `pressed` for room every segment has to
    /// win some.
    fn for_segment(&mut self, disk: &Disk, bytes: u64, pressed: bool) -> u64 {
        let (first, again) = Self::written(disk);
        let (first_seen, again_seen) = std::mem::replace(&mut self.seen, (first, again));
        self.bytes += self.part * first.saturating_sub(first_seen) as f64;
        self.bytes = (self.bytes - (again - again_seen) as f64).min(self.most);
        let share = bytes as f64 * self.part / (1.0 + self.part);
        let most = if pressed { share.min(self.bytes) } else { self.bytes };
        most.max(0.0) as u64
    }
}

/// How often as much of a segment could not be read.
#[derive(Default)]
struct Tries {
    segment: u32,
    left: usize,
    count: u32,
}

impl Tries {
    /// Counts one more, and says how many that are without any progress.
    fn another(&mut self, segment: u32, left: usize) -> u32 {
        let in_vain = self.segment == segment && self.left <= left;
        *self = Self { segment, left, count: if in_vain { self.count + 1 } else { 1 } };
        self.count
    }
}

/// Copies that wait to be written.
#[derive(Default)]
struct Copies {
    done: Vec<watch::Receiver<Outcome>>,
    bytes: u64,
}

/// Frees what is oldest, whenever there is too much.
pub(crate) async fn reclaim(disk: Arc<Disk>) {
    // Before that it is not known which segment is the lowest, and then not what uploads count on.
    if !disk.recovers().await || !disk.is_restored().await {
        return;
    }
    let mut over = false;
    let mut in_vain = 0;
    let mut credit = Credit::new(&disk);
    let mut tries = Tries::default();
    let mut left_alone = BTreeSet::new();
    loop {
        // An error is a time that has passed.
        let _ = timeout(ROUND, disk.reclaim.notified()).await;
        while disk.has_too_much(&mut over).await {
            if disk.hollow_out(&mut credit, &mut left_alone).await {
                continue;
            }
            match disk.free_lowest(&mut credit, &mut tries).await {
                Some(true) => in_vain = 0,
                Some(false) => in_vain += 1,
                None => sleep(PAUSE).await,
            }
            if in_vain > disk.segments.count() {
                // Uploads count on everything that there is.
                sleep(LONG_PAUSE).await;
            }
        }
    }
}

impl Disk {
    /// Whether something has to go. `over`: more was occupied than the high watermark, and not yet less than the low one.
    async fn has_too_much(&self, over: &mut bool) -> bool {
        let occupied = self.segments.bytes() as f64 / self.config.max_bytes as f64;
        *over = occupied > self.config.high_watermark || (*over && occupied > self.config.low_watermark);
        if *over || self.is_tight().await || self.segments.count() > SEGMENTS_MAX {
            return true;
        }
        // An error has been counted; whoever waits for room meets it too.
        if !self.wanted.swap(false, Ordering::AcqRel) {
            return false;
        }
        if self.has_room(By::Writer).await.unwrap_or(true) {
            self.freed.send_replace(());
            return false;
        }
        self.wanted.store(true, Ordering::Release);
        true
    }

    /// Whether the index needs memory that only the oldest entries can give.
    async fn is_tight(&self) -> bool {
        if !self.index.is_tight() {
            return false;
        }
        self.forget_freed().await;
        let relaxed = self.index.relax();
        if relaxed {
            self.freed.send_replace(());
        }
        !relaxed
    }

    /// Gives a data file back of which little counts, if there is one: what has been replaced or deleted goes before what is merely old. Its log
    /// stays until its turn comes, and with it the order of all records. What cannot be emptied is `left_alone` from then on.
    async fn hollow_out(self: &Arc<Self>, credit: &mut Credit, left_alone: &mut BTreeSet<u32>) -> bool {
        let least = self.config.segment_bytes() / GAIN;
        let most = if self.index.is_tight() { 0 } else { credit.for_segment(self, 0, false) };
        let counts = |segment: &Segment| self.index.live(segment.number).extents;
        let hollow = |segment: &Segment| {
            segment.data_bytes() > least && counts(segment) <= most.min(segment.data_bytes() / HOLLOW)
        };
        let wins = |segment: &Segment| segment.data_bytes().saturating_sub(counts(segment));
        let mut segments = self.segments.later();
        left_alone.retain(|number| segments.iter().any(|segment| segment.number == *number));
        segments.retain(|segment| hollow(segment) && !left_alone.contains(&segment.number));
        {
            // What is on its way into one that is open does not count yet.
            let state = self.state.lock();
            segments.retain(|segment| !state.failed && !state.is_open(segment.number));
        }
        let Some(segment) = segments.iter().max_by_key(|segment| wins(segment)) else { return false };
        if counts(segment) > 0 {
            let saved = self.save(segment, Wanted::Extents).await;
            if saved.is_err() || counts(segment) > 0 {
                left_alone.insert(segment.number);
                return false;
            }
        }
        self.give_data_back(segment).await.is_ok()
    }

    /// Frees the oldest segment: whether that has won any space to speak of. `None` when it cannot go now.
    async fn free_lowest(self: &Arc<Self>, credit: &mut Credit, tries: &mut Tries) -> Option<bool> {
        let tight = self.index.is_tight();
        let segment = self.segments.lowest()?;
        let rewritten = self.counters.rewritten.load(Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            if state.failed {
                return None;
            }
            if state.is_open(segment.number) {
                if tight {
                    state.close_current();
                    drop(state);
                    self.work.notify_one();
                }
                return None;
            }
        }
        self.condemned.store(segment.number, Ordering::Release);
        if !self.save_pinned(&segment, tries).await.unwrap_or(false) {
            return None;
        }
        if !tight {
            let pressed = self.wanted.load(Ordering::Acquire) || self.state.lock().reserved;
            let bytes = credit.for_segment(self, segment.bytes(), pressed);
            // What finds no room goes.
            let _ = self.save(&segment, Wanted::InUse(bytes)).await;
        }
        self.free(&segment).await.ok()?;
        let rewritten = self.counters.rewritten.load(Ordering::Relaxed) - rewritten;
        Some(segment.bytes().saturating_sub(rewritten) > segment.bytes() / GAIN)
    }

    /// Writes again what uploads count on; false when the segment has to stay for it. What cannot be read, time after time, goes.
    async fn save_pinned(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        tries: &mut Tries,
    ) -> Result<bool, Refusal> {
        let saved = || self.index.live(segment.number).pinned == 0;
        if saved() {
            return Ok(true);
        }
        self.save(segment, Wanted::Pinned).await?;
        if saved() {
            return Ok(true);
        }
        // Their records do not verify, or they cannot be read themselves.
        let mut left = Vec::new();
        for (name, entry) in self.left_pinned(segment) {
            let is_extent = matches!(entry.place.file, InFile::Bulk { .. });
            if !(is_extent && self.copy_extent(&name, &entry).await?) {
                left.push((name, entry));
            }
        }
        if !left.is_empty() && tries.another(segment.number, left.len()) >= ROUNDS {
            tracing::error!(segment = segment.number, "what unfinished uploads count on cannot be read");
            self.counters.damaged.fetch_add(left.len() as u64, Ordering::Relaxed);
            left.iter().for_each(|(name, entry)| self.pins.lose(&self.index, name, &entry.place));
            self.counters.lost.fetch_add(left.len() as u64, Ordering::Release);
        }
        Ok(saved())
    }

    /// What of a segment uploads count on, unless something newer is on its way that will take its place.
    fn left_pinned(&self, segment: &Segment) -> Vec<(Name, Entry)> {
        let stripes = 0..self.index.stripes();
        let entries = stripes.flat_map(|stripe| self.index.in_segment(stripe, segment.number));
        let mut pinned: Vec<_> = entries.filter(|(_, entry)| entry.pinned).collect();
        let state = self.state.lock();
        pinned.retain(|(name, _)| !state.underway.has(name));
        pinned
    }

    /// Writes again what is wanted of a segment.
    async fn save(self: &Arc<Self>, segment: &Arc<Segment>, mut wanted: Wanted) -> Result<(), Refusal> {
        let seeds = self.directory.seeds.clone();
        let mut walk = Walk::new(&seeds, segment.number);
        let mut copies = Copies::default();
        let saved = self.save_into(segment, &mut wanted, &mut walk, &mut copies).await;
        // Whatever became of the others: what is on its way when the segment goes would come back from nowhere, for who had
        // deleted it meanwhile and found nothing.
        copies.settle().await.and(saved)
    }

    async fn save_into(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        wanted: &mut Wanted,
        walk: &mut Walk<'_>,
        copies: &mut Copies,
    ) -> Result<(), Refusal> {
        let mut end = false;
        while !end {
            end = match self.feed(segment, walk, u64::MAX).await {
                Ok(more) => !more,
                Err(error) => {
                    self.failed("a log cannot be read: what is behind this place is given up", &error);
                    true
                }
            };
            while let Some(step) = walk.step(end) {
                if let Step::Record { at, len, record, .. } = step
                    && let Some((name, entry)) = self.in_force(segment, at, len, &record)
                    && self.wants(wanted, &record, &entry)
                {
                    self.copy(&name, &entry, &record, copies).await?;
                }
            }
        }
        Ok(())
    }

    /// The entry of a record, if it counts.
    pub(crate) fn in_force(
        &self,
        segment: &Segment,
        at: u64,
        len: usize,
        record: &Record,
    ) -> Option<(Name, Entry)> {
        let name = name::of_record(record.kind, &record.name);
        let place = Place { segment: segment.number, file: in_file(record.place(at, len)) };
        let entry = self.index.get(&name).filter(|entry| entry.place == place)?;
        let now_s = u32::try_from(self.clock.now_ms() / 1000).unwrap_or(u32::MAX);
        let counts = !matches!(entry.kind, Known::Dead | Known::Tombstone) && !entry.is_expired(now_s);
        counts.then_some((name, entry))
    }

    fn wants(&self, wanted: &mut Wanted, record: &Record, entry: &Entry) -> bool {
        match wanted {
            Wanted::Pinned => entry.pinned,
            Wanted::Extents => matches!(entry.place.file, InFile::Bulk { .. }),
            Wanted::InUse(left) => {
                let bytes = entry.place.bytes();
                let may = bytes <= *left && !self.pace.in_debt();
                let wants = may && (entry.used || self.is_above(record));
                *left -= if wants { bytes } else { 0 };
                wants
            }
        }
    }

    /// Whether a faster tier has what the record is of.
    fn is_above(&self, record: &Record) -> bool {
        let Some(above) = self.above.get().and_then(Weak::upgrade) else { return false };
        match record.kind {
            Kind::Value | Kind::Root => above.holds(Leaving::Value(&record.name)),
            Kind::Page => {
                PageRef::from_bytes(&record.name).is_some_and(|page| above.holds(Leaving::Page(page)))
            }
            Kind::Chunk => {
                let digest = <[u8; 32]>::try_from(&record.name[..]);
                digest.is_ok_and(|digest| above.holds(Leaving::Chunk(Digest(digest))))
            }
            Kind::Tombstone | Kind::Index | Kind::Upload | Kind::Closed => false,
            Kind::Fragment | Kind::Filling => false,
        }
    }

    /// Appends a copy of what is at an entry's place. An error: no more can be written now.
    async fn copy(
        self: &Arc<Self>,
        name: &Name,
        entry: &Entry,
        record: &Record,
        copies: &mut Copies,
    ) -> Result<(), Refusal> {
        match entry.place.file {
            InFile::Small { .. } => {
                let append = Append { record, name: *name, copy_of: Some(entry.place) };
                let done = loop {
                    match self.try_append(&append, None)? {
                        Tried::Appended(done) => break done,
                        Tried::NoRoom(need) => self.grow(need, By::copying(entry)).await?,
                        Tried::Overtaken => return Ok(()),
                    }
                };
                copies.done.push(done);
                copies.bytes += entry.place.bytes();
                if copies.bytes > WAITING {
                    copies.settle().await?;
                }
            }
            InFile::Bulk { .. } => return self.copy_extent(name, entry).await.map(|_| ()),
        }
        self.counters.rewritten.fetch_add(entry.place.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Writes an extent again; false when it cannot be read. An error: no more can be written now.
    async fn copy_extent(self: &Arc<Self>, name: &Name, entry: &Entry) -> Result<bool, Refusal> {
        let _scratch = self.budget.take(SCRATCH).ok_or(Refusal::Full)?;
        match self.read_extent(entry).await {
            Ok((head, blocks)) => self.write_copy(name, entry, head, blocks).await?,
            Err(Broken::NoRoom) => return Err(Refusal::Full),
            Err(broken) => {
                if broken == Broken::Damaged {
                    self.bury(name, entry);
                }
                return Ok(false);
            }
        }
        self.counters.rewritten.fetch_add(entry.place.bytes(), Ordering::Relaxed);
        Ok(true)
    }
}

impl Copies {
    /// Waits until all are written, or have failed.
    async fn settle(&mut self) -> Result<(), Refusal> {
        self.bytes = 0;
        let mut all = Ok(());
        for done in self.done.drain(..) {
            all = settled(done).await.and(all);
        }
        all
    }
}
