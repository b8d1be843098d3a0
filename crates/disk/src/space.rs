//! Room: segments are opened, files made longer, and the oldest segments freed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use elcache_core::tier::Refusal;

use crate::config::Durability;
use crate::directory::perform;
use crate::disk::Disk;
use crate::format::LOG_START;
use crate::format::segment::Header;
use crate::io::{Action, Memory, Open as OpenFile, Part};
use crate::log::{Open, Resume};
use crate::segment::Segment;

/// A data file becomes longer by this part of a segment at a time.
const STEPS: u64 = 8;
/// What is left free of the file system: a twentieth.
const LEFT_FREE: u64 = 20;

/// What there is no room for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// A record of so many bytes.
    Record(u64),
    /// An extent of so many bytes.
    Extent(u64),
}

impl Disk {
    /// Makes room, if there is none still. Runs to its end even when nobody waits any more.
    pub(crate) async fn grow(self: &Arc<Self>, need: Need) -> Result<(), Refusal> {
        let disk = Arc::clone(self);
        let grown = tokio::spawn(async move {
            let _one_at_a_time = disk.growing.lock().await;
            disk.grow_now(need).await
        });
        grown.await.unwrap_or(Err(Refusal::Failed))
    }

    async fn grow_now(&self, need: Need) -> Result<(), Refusal> {
        let capacity = self.config.segment_bytes();
        let (Need::Record(len) | Need::Extent(len)) = need;
        let longer = {
            let mut state = self.state.lock();
            match state.current.as_mut().filter(|open| open.has_room(len, capacity)) {
                Some(open) => match (need, open.segment.data.clone()) {
                    (Need::Extent(len), Some(data)) => {
                        let room = open.room();
                        let wanted =
                            (room + (capacity / STEPS).max(len)).next_multiple_of(4096).min(capacity);
                        (wanted > room).then_some((open.segment.number, data, room..wanted))
                    }
                    _ => return Ok(()),
                },
                None => {
                    state.close_current();
                    None
                }
            }
        };
        self.work.notify_one();
        match longer {
            Some((number, data, part)) => {
                let (device, allocate, room) = (Arc::clone(&self.device), self.config.allocate, part.end);
                let grown = tokio::task::spawn_blocking(move || {
                    if allocate { device.allocate(&data, part) } else { device.truncate(&data, part.end) }
                });
                self.answer("a data file cannot be made longer", grown.await)?;
                if let Some(open) = self.state.lock().open(number) {
                    open.set_room(room);
                }
                Ok(())
            }
            None => self.open_segment().await,
        }
    }

    async fn open_segment(&self) -> Result<(), Refusal> {
        if self.state.lock().current.is_some() {
            return Ok(());
        }
        let capacity = self.config.segment_bytes();
        while self.segments.bytes() + capacity > self.config.max_bytes
            || !self.file_system_has(capacity).await?
        {
            if !self.free_lowest().await {
                return Err(Refusal::Full);
            }
        }
        let number = match self.segments.ends() {
            Some((_, highest)) => highest.checked_add(1).ok_or(Refusal::Failed)?,
            None => self.next_number.load(Ordering::Relaxed),
        };
        self.next_number.store(number.saturating_add(1), Ordering::Relaxed);
        let segment = self.create(number, capacity).await;
        let segment = segment.inspect_err(|error| self.failed("a segment cannot be opened", error));
        let segment = segment.map_err(|_| Refusal::Failed)?;
        self.segments.insert(&segment);
        let resume = Resume { log_tail: LOG_START, ..Resume::default() };
        self.state.lock().current = Some(Open::new(segment, resume));
        Ok(())
    }

    async fn create(&self, number: u32, capacity: u64) -> io::Result<Arc<Segment>> {
        let (device, direct) = (Arc::clone(&self.device), self.config.direct);
        let (log_path, data_path) = (self.directory.log(number), self.directory.data(number));
        let files = tokio::task::spawn_blocking(move || {
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
            epoch: identity.epoch,
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
            tokio::task::spawn_blocking(move || device.sync_directory(&path)).await??;
        }
        Ok(Segment::new(number, log, Some(data), capacity))
    }

    async fn file_system_has(&self, bytes: u64) -> Result<bool, Refusal> {
        let (device, path) = (Arc::clone(&self.device), self.directory.segments());
        let space = tokio::task::spawn_blocking(move || device.space(&path)).await;
        let space = self.answer("the file system's free space cannot be told", space)?;
        Ok(space.available >= space.total / LEFT_FREE + bytes)
    }

    /// Frees the segment with the lowest number; false when there is none that may go. What is removed stays removed
    /// before the next one is.
    pub(crate) async fn free_lowest(&self) -> bool {
        let _one_at_a_time = self.freeing.lock().await;
        let Some(segment) = self.segments.take_lowest(|number| self.state.lock().is_open(number)) else {
            return false;
        };
        let number = segment.number;
        let values = self.index.live(number).values;
        self.counters.evicted.fetch_add(values, Ordering::Relaxed);
        self.index.set_floor(number + 1);
        tracing::debug!(segment = number, values, "a segment is freed");
        let (device, segments) = (Arc::clone(&self.device), self.directory.segments());
        let (log, data) = (self.directory.log(number), self.directory.data(number));
        let has_data = segment.data.is_some();
        drop(segment);
        let removed = tokio::task::spawn_blocking(move || {
            device.remove(&log)?;
            match device.remove(&data) {
                Err(error) if has_data && error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            device.sync_directory(&segments)
        });
        self.answer("a segment cannot be removed", removed.await).is_ok()
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
