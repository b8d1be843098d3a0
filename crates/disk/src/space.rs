//! Room: segments are opened, files made longer, and the oldest segments freed.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use elcache_core::tier::Refusal;
use tokio::time::{sleep, timeout};

use crate::config::Durability;
use crate::directory::perform;
use crate::disk::Disk;
use crate::format::LOG_START;
use crate::format::segment::Header;
use crate::index::sweep::{Cursor, Sweep};
use crate::io::{Action, File, Memory, Open as OpenFile, Part};
use crate::log::{Need, Open, Resume};
use crate::segment::Segment;

/// A data file becomes longer by this part of a segment at a time.
const STEPS: u64 = 8;
/// What is left free of the file system: a twentieth.
const LEFT_FREE: u64 = 20;
/// How long to wait before looking again whether something can be freed.
const RETRY: Duration = Duration::from_millis(5);
/// Nodes of the index that are looked at before others get their turn.
const SWEEP: usize = 4096;

impl Disk {
    /// Makes room, if there is none still. Runs to its end even when nobody waits any more.
    pub(crate) async fn grow(self: &Arc<Self>, need: Need) -> Result<(), Refusal> {
        let disk = Arc::clone(self);
        let patience = self.config.patience;
        let grown = tokio::spawn(async move {
            let one_at_a_time = timeout(patience, disk.growing.lock()).await;
            let _one_at_a_time = one_at_a_time.map_err(|_| Refusal::Full)?;
            disk.grow_now(need).await
        });
        grown.await.unwrap_or(Err(Refusal::Failed))
    }

    async fn grow_now(&self, need: Need) -> Result<(), Refusal> {
        let capacity = self.config.segment_bytes();
        let longer = {
            let state = self.state.lock();
            if state.failed {
                return Err(Refusal::Failed);
            }
            let open = state.current.as_ref().filter(|open| open.has_room(need, capacity));
            match open.map(|open| (open, open.growth(need, capacity / STEPS, capacity))) {
                Some((_, None)) => return Ok(()),
                Some((open, Some(part))) => {
                    open.segment.data.clone().map(|data| (open.segment.number, data, part))
                }
                None => None,
            }
        };
        if let Some((number, data, part)) = longer
            && self.lengthen(number, data, part).await?
        {
            return Ok(());
        }
        self.state.lock().close_current();
        self.work.notify_one();
        self.open_segment().await
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

    /// Frees until there is room for a segment more. What is oldest may be in use for a while.
    async fn make_room(&self) -> Result<(), Refusal> {
        let mut attempts = self.config.patience.as_millis() / RETRY.as_millis();
        let capacity = self.config.segment_bytes();
        while self.segments.bytes() + capacity > self.config.max_bytes
            || !self.file_system_has(capacity).await?
        {
            if self.free_lowest().await? {
                continue;
            }
            if self.state.lock().failed {
                return Err(Refusal::Failed);
            }
            if attempts == 0 {
                return Err(Refusal::Full);
            }
            attempts -= 1;
            sleep(RETRY).await;
        }
        Ok(())
    }

    async fn open_segment(&self) -> Result<(), Refusal> {
        self.make_room().await?;
        let above = self.segments.ends().map_or(Some(0), |(_, highest)| highest.checked_add(1));
        let number = above.ok_or(Refusal::Failed)?.max(self.next_number.load(Ordering::Relaxed));
        self.next_number.store(number.saturating_add(1), Ordering::Relaxed);
        let segment = match self.create(number).await {
            Ok(segment) => segment,
            Err(error) => {
                self.failed("a segment cannot be opened", &error);
                // Recovery would take what is left of it for a segment without records.
                let _ = self.remove_files(number).await;
                return Err(Refusal::Failed);
            }
        };
        let mut state = self.state.lock();
        self.segments.insert(&segment);
        if state.failed {
            return Err(Refusal::Failed);
        }
        let resume = Resume { log_tail: LOG_START, ..Resume::default() };
        state.current = Some(Open::new(segment, resume));
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

    /// Frees the segment with the lowest number; false when there is none that may go. What is removed stays removed
    /// before the next one is: what could not be removed is the lowest still.
    pub(crate) async fn free_lowest(&self) -> Result<bool, Refusal> {
        let _one_at_a_time = self.freeing.lock().await;
        let Some(segment) = self.segments.take_lowest(|number| self.state.lock().is_open(number)) else {
            return Ok(false);
        };
        let number = segment.number;
        let values = self.index.live(number).values;
        self.counters.evicted.fetch_add(values, Ordering::Relaxed);
        self.index.set_floor(number + 1);
        tracing::debug!(segment = number, values, "a segment is freed");
        let removed = self.remove_files(number).await;
        if removed.is_err() {
            self.segments.insert(&segment);
        }
        removed.map(|()| true)
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
