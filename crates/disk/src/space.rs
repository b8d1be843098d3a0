//! Room: segments are opened, files made longer, and segments freed.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use elcache_core::tier::Refusal;
use tokio::time::timeout;

use crate::config::Durability;
use crate::directory::perform;
use crate::disk::Disk;
use crate::format::LOG_START;
use crate::format::segment::Header;
use crate::index::sweep::{Cursor, Sweep};
use crate::io::{Action, File, Memory, Open as OpenFile, Part};
use crate::log::{By, Need, Open, Resume};
use crate::segment::Segment;

/// A data file becomes longer by this part of a segment at a time.
const STEPS: u64 = 8;
/// What is left free of the file system: a twentieth.
const LEFT_FREE: u64 = 20;
/// Nodes of the index that are looked at before others get their turn.
const SWEEP: usize = 4096;

impl Disk {
    /// Makes room, if there is none still. Who writes waits for reclaiming; reclaiming does not.
    pub(crate) async fn grow(self: &Arc<Self>, need: Need, by: By) -> Result<(), Refusal> {
        let mut freed = self.freed.subscribe();
        let grown = async {
            while !self.try_grow(need, by).await? {
                if by != By::Writer {
                    return Err(Refusal::Full);
                }
                self.wanted.store(true, Ordering::Release);
                self.reclaim.notify_one();
                freed.changed().await.map_err(|_| Refusal::Failed)?;
            }
            Ok(())
        };
        timeout(self.config.patience, grown).await.unwrap_or(Err(Refusal::Full))
    }

    /// False where something has to be freed first. Runs to its end even when nobody waits any more.
    async fn try_grow(self: &Arc<Self>, need: Need, by: By) -> Result<bool, Refusal> {
        let disk = Arc::clone(self);
        let grown = tokio::spawn(async move {
            let _one_at_a_time = disk.growing.lock().await;
            disk.grow_now(need, by).await
        });
        grown.await.unwrap_or(Err(Refusal::Failed))
    }

    async fn grow_now(&self, need: Need, by: By) -> Result<bool, Refusal> {
        let capacity = self.config.segment_bytes();
        let longer = {
            let mut state = self.state.lock();
            if state.failed {
                return Err(Refusal::Failed);
            }
            if by == By::Writer && (state.reserved || self.index.is_tight()) {
                return Ok(false);
            }
            match state.room_for(need, capacity, by) {
                Some(open) => match open.growth(need, capacity / STEPS, capacity) {
                    Some(part) => open.segment.data.clone().map(|data| (open.segment.number, data, part)),
                    None => return Ok(true),
                },
                None => None,
            }
        };
        if let Some((number, data, part)) = longer
            && self.lengthen(number, data, part).await?
        {
            return Ok(true);
        }
        self.state.lock().close_current();
        self.work.notify_one();
        if !self.has_room(by).await? {
            return Ok(false);
        }
        self.open_segment(by).await.map(|()| true)
    }

    /// Whether one segment more may be opened. The last one is for reclaiming alone.
    pub(crate) async fn has_room(&self, by: By) -> Result<bool, Refusal> {
        let segments = if by == By::Writer { 2 } else { 1 };
        let bytes = segments * self.config.segment_bytes();
        let may = by == By::Saver || self.segments.bytes() + bytes <= self.config.max_bytes;
        Ok(may && self.file_system_has(bytes).await?)
    }

    /// False where the file system is full: for another segment, room is made.
    async fn lengthen(&self, number: u32, data: Arc<File>, part: Range<u64>) -> Result<bool, Refusal> {
        let (device, allocate, room) = (Arc::clone(&self.device), self.config.allocate, part.end);
        let longer = self.gate.blocking(move || {
            if allocate { device.allocate(&data, part) } else { device.truncate(&data, part.end) }
        });
        let longer = longer.await;
        if matches!(&longer, Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull) {
            return Ok(false);
        }
        self.answer("a data file cannot be made longer", longer)?;
        if let Some(open) = self.state.lock().open(number) {
            open.set_room(room);
        }
        Ok(true)
    }

    async fn open_segment(&self, by: By) -> Result<(), Refusal> {
        let segment = loop {
            let above = self.segments.ends().map_or(Some(0), |(_, highest)| highest.checked_add(1));
            let number = above.ok_or(Refusal::Failed)?.max(self.next_number.load(Ordering::Relaxed));
            self.next_number.store(number.saturating_add(1), Ordering::Relaxed);
            let error = match self.create(number).await {
                Ok(segment) => break segment,
                Err(error) => error,
            };
            self.failed("a segment cannot be opened", &error);
            // Recovery would take what is left of it for a segment without records.
            let removed = self.remove_files(number).await;
            // Files that somebody has copied here, which are none of this directory's: the next number is free.
            if error.kind() != io::ErrorKind::AlreadyExists || removed.is_err() {
                return Err(Refusal::Failed);
            }
        };
        self.segments.insert(&segment);
        let reserved = by != By::Writer && !self.has_room(By::Reclaimer).await?;
        let mut state = self.state.lock();
        if state.failed {
            return Err(Refusal::Failed);
        }
        state.reserved = reserved;
        let resume = Resume { log_tail: LOG_START, ..Resume::default() };
        state.current = Some(Open::new(segment, resume));
        drop(state);
        self.reclaim.notify_one();
        Ok(())
    }

    async fn create(&self, number: u32) -> io::Result<Arc<Segment>> {
        let (device, direct) = (Arc::clone(&self.device), self.config.direct);
        let (log_path, data_path) = (self.directory.log(number), self.directory.data(number));
        let files = self.gate.blocking(move || {
            let log = device.open(&log_path, OpenFile { create: true, direct: false })?;
            let data = device.open(&data_path, OpenFile { create: true, direct })?;
            io::Result::Ok((log, data))
        });
        let (log, data) = files.await??;
        let identity = &self.directory.identity;
        let header = Header {
            segment: number,
            directory: identity.directory,
            node: identity.node,
            epoch: self.directory.epoch.load(Ordering::Relaxed),
            opened_ms: self.clock.now_ms(),
            lowest: self.segments.ends().map_or(number, |(lowest, _)| lowest),
            highest: self.highest(),
        };
        let header = header.encode(&self.directory.seeds);
        let mut blocks = self.device.blocks(header.len());
        blocks[..header.len()].copy_from_slice(&header);
        perform(&*self.device, &log, Action::Write, 0, Memory::of(Part::Blocks(blocks))).await?;
        if self.config.durability == Durability::Power {
            perform(&*self.device, &log, Action::Sync, 0, Memory::default()).await?;
            let (device, path) = (Arc::clone(&self.device), self.directory.segments());
            self.gate.blocking(move || device.sync_directory(&path)).await??;
        }
        Ok(Segment::new(number, log, Some(data), self.config.segment_bytes()))
    }

    async fn file_system_has(&self, bytes: u64) -> Result<bool, Refusal> {
        let bytes = bytes + self.state.lock().unwritten();
        let (device, path) = (Arc::clone(&self.device), self.directory.segments());
        let space = self.gate.blocking(move || device.space(&path)).await;
        let space = self.answer("the file system's free space cannot be told", space)?;
        Ok(space.available >= space.total / LEFT_FREE + bytes)
    }

    /// Frees the segment with the lowest number. What is removed stays removed before the next one is.
    pub(crate) async fn free(&self, segment: &Segment) -> Result<(), Refusal> {
        let number = segment.number;
        let values = self.index.live(number).values;
        tracing::debug!(segment = number, values, "a segment is freed");
        self.remove_files(number).await?;
        // Not before: as long as it may come back with a restart, whoever deletes what is in it has to find it.
        self.segments.remove(number);
        self.index.set_floor(number + 1);
        self.counters.shrunk.fetch_add(1, Ordering::Release);
        self.counters.evicted.fetch_add(values, Ordering::Relaxed);
        self.tell_freed().await
    }

    /// Removes the data file of a sealed segment, in which nothing counts: not even if a loss of power brings it back.
    pub(crate) async fn give_data_back(&self, segment: &Segment) -> Result<(), Refusal> {
        tracing::debug!(segment = segment.number, bytes = segment.data_bytes(), "a data file is given back");
        let (device, path) = (Arc::clone(&self.device), self.directory.data(segment.number));
        let removed = self.gate.blocking(move || device.remove(&path)).await;
        self.answer("a data file cannot be removed", removed)?;
        self.segments.insert(&segment.without_data());
        self.tell_freed().await
    }

    /// Has those try again who wait for room.
    async fn tell_freed(&self) -> Result<(), Refusal> {
        let reserved = self.state.lock().reserved;
        if reserved && self.has_room(By::Reclaimer).await? {
            self.state.lock().reserved = false;
        }
        self.freed.send_replace(());
        Ok(())
    }

    /// Removes what there is of a segment, for good.
    pub(crate) async fn remove_files(&self, number: u32) -> Result<(), Refusal> {
        let (device, segments) = (Arc::clone(&self.device), self.directory.segments());
        let files = [self.directory.log(number), self.directory.data(number)];
        let removed = self.gate.blocking(move || {
            for file in files {
                match device.remove(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            device.sync_directory(&segments)
        });
        self.answer("a segment cannot be removed", removed.await)
    }

    /// Takes what lies in segments that were freed out of the index's memory.
    pub(crate) async fn forget_freed(&self) {
        self.sweep_round(false).await;
    }

    /// Goes round the index.
    pub(crate) async fn sweep_round(&self, drop_tombstones: bool) {
        let mut cursor = Cursor::default();
        let sweep = Sweep { nodes: SWEEP, now_s: 0, drop_tombstones };
        while !self.index.sweep(&mut cursor, &sweep, |_, _| {}).round_ended {
            tokio::task::yield_now().await;
        }
    }

    fn answer<T>(
        &self,
        what: &str,
        answer: Result<io::Result<T>, tokio::task::JoinError>,
    ) -> Result<T, Refusal> {
        match answer {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                self.failed(what, &error);
                Err(Refusal::Failed)
            }
            // The runtime is going down.
            Err(_) => Err(Refusal::Failed),
        }
    }
}
