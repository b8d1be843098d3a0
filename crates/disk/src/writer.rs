//! The task that writes batches, one at a time, and brings the index up to date with them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use elcache_core::payload::Payload;

use crate::config::Durability;
use crate::directory::perform;
use crate::disk::Disk;
use crate::index::entry::Name;
use crate::io::{Action, Memory, Part};
use crate::log::{Batch, Change, Failed};

/// Runs until the disk is told to stop and nothing is left to write.
pub(crate) async fn write_batches(disk: Arc<Disk>) {
    loop {
        while let Some(batch) = disk.next_batch() {
            disk.write_batch(batch).await;
        }
        if disk.stopping.load(Ordering::Acquire) {
            let mut state = disk.state.lock();
            if state.is_idle() {
                return;
            }
            if state.current.is_some() {
                state.close_current();
                continue;
            }
        }
        disk.work.notified().await;
    }
}

impl Disk {
    fn next_batch(&self) -> Option<Batch> {
        let pad = self.config.durability == Durability::Power;
        self.state.lock().next_batch(&self.directory.seeds, pad, self.clock.now_ms())
    }

    async fn write_batch(&self, batch: Batch) {
        let Batch { segment, offset, bytes, changes, sync_data, seal, done, permits } = batch;
        let end = offset + bytes.len() as u64;
        let sync = self.config.durability == Durability::Power;
        let written = async {
            if let Some(data) = segment.data.as_ref().filter(|_| sync && sync_data) {
                perform(&*self.device, data, Action::Sync, 0, Memory::default()).await?;
            }
            let memory = Memory::of(Part::Payload(Payload::from(Bytes::from(bytes))));
            perform(&*self.device, &segment.log, Action::Write, offset, memory).await?;
            if sync {
                perform(&*self.device, &segment.log, Action::Sync, 0, Memory::default()).await?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = written.await {
            self.failed("a segment's log cannot be written", &error);
            self.give_up(segment.number, offset).await;
            done.send_replace(Some(Err(Failed)));
            return;
        }
        self.count_written(end - offset);
        drop(permits);
        let mut known = Ok(());
        for (held, change) in changes {
            known = self.apply(held.name(), &change).and(known);
        }
        if let Some(data_len) = seal {
            self.sealed(segment.number, end, data_len).await;
        }
        done.send_replace(Some(known));
    }

    fn apply(&self, name: &Name, change: &Change) -> Result<(), Failed> {
        let Change::Put(entry) = change else {
            self.index.remove(name);
            return Ok(());
        };
        let put = self.pins.put(&self.index, name, entry);
        if self.index.is_tight() {
            self.reclaim.notify_one();
        }
        put.map(drop).map_err(|_| {
            // The record is on the disk and the index does not know it: nothing more may be written, since a deletion would
            // not find it.
            self.index.remove(name);
            self.counters.shrunk.fetch_add(1, Ordering::Release);
            self.state.lock().failed = true;
            tracing::error!("there is no memory for the disk's index: the disk takes no more writes");
            Failed
        })
    }

    /// A log that could not be written to its end is cut to what is certain; where that fails too, the disk takes no
    /// more writes.
    async fn give_up(&self, segment: u32, good_len: u64) {
        let Some(open) = self.segments.get(segment) else { return };
        let (device, log) = (Arc::clone(&self.device), Arc::clone(&open.log));
        let cut = self.gate.blocking(move || device.truncate(&log, good_len)).await;
        let cut = cut.unwrap_or_else(|_| Err(io::Error::other("the runtime is going down")));
        let synced = match cut {
            Ok(()) => perform(&*self.device, &open.log, Action::Sync, 0, Memory::default()).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let data_len = {
            let mut state = self.state.lock();
            state.failed |= synced.is_err();
            state.abandon(segment)
        };
        match (synced, data_len) {
            (Err(error), _) => self.failed(
                "what could not be written cannot be taken back: the disk takes no more writes",
                &error,
            ),
            // It is not to count as much as it might have come to have.
            (Ok(()), Some(data_len)) => self.sealed(segment, good_len, data_len).await,
            (Ok(()), None) => {}
        }
    }

    /// The files of a segment that is written no more are cut to what is in them.
    async fn sealed(&self, number: u32, log_len: u64, data_len: u64) {
        let Some(segment) = self.segments.get(number) else { return };
        let (device, data_path) = (Arc::clone(&self.device), self.directory.data(number));
        let data = segment.data.clone();
        let cut = self.gate.blocking(move || match data {
            Some(_) if data_len == 0 => device.remove(&data_path),
            Some(data) => device.truncate(&data, data_len),
            None => Ok(()),
        });
        match cut.await {
            Ok(Ok(())) => segment.set_sealed(log_len, data_len),
            Ok(Err(error)) => self.failed("a sealed segment cannot be cut to its length", &error),
            // The runtime is going down; recovery knows the length.
            Err(_) => {}
        }
    }
}
