//! Scrubbing: what is at rest is read and verified, slowly, so that damage is found before somebody asks for what is damaged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::disk::Disk;
use crate::extents::Broken;
use crate::format::BLOCK;
use crate::index::entry::{Entry, InFile, Kind, Name};
use crate::name;
use crate::reclaim::SCRATCH;
use crate::segment::Segment;
use crate::walk::{Step, Walk};

/// A directory that is full is gone through in this time,
const PASS: Duration = Duration::from_secs(7 * 24 * 3600);
/// but no more slowly than so many bytes a second.
const LEAST: f64 = (1 << 20) as f64;
/// After a pass, and when there is nothing to do.
const REST: Duration = Duration::from_secs(60);

/// Goes round all segments that take no more records, for as long as there is a disk.
pub(crate) async fn scrub(disk: Arc<Disk>) {
    if !disk.recovers().await {
        return;
    }
    let mut next = 0;
    loop {
        sleep(REST).await;
        while let Some(segment) = disk.segments.from(next) {
            if disk.state.lock().is_open(segment.number) {
                break;
            }
            disk.scrub_segment(&segment).await;
            next = segment.number + 1;
            let left = disk.segments.bytes_from(next);
            disk.counters.scrub_left.store(left, Ordering::Relaxed);
        }
        next = 0;
        disk.counters.scrub_left.store(0, Ordering::Relaxed);
    }
}

impl Disk {
    /// Reads all that counts in a segment. What does not verify is dropped.
    async fn scrub_segment(&self, segment: &Arc<Segment>) {
        let mut walk = Walk::new(&self.directory.seeds, segment.number);
        let mut damage = None;
        let mut end = false;
        while !end {
            let before = walk.next_offset();
            end = match self.feed(segment, &mut walk, u64::MAX).await {
                Ok(more) => !more,
                Err(error) => {
                    self.failed("a log cannot be read to verify it", &error);
                    return;
                }
            };
            self.pace(walk.next_offset() - before).await;
            while let Some(step) = walk.step(end) {
                match step {
                    Step::Record { at, len, record, .. } => {
                        if let Some((name, entry)) = self.in_force(segment, at, len, &record) {
                            self.scrub_extent(&name, &entry).await;
                        }
                    }
                    Step::Damage(at) => _ = damage.get_or_insert(at),
                    Step::Padding(_) => {}
                }
            }
        }
        // The footer is no record.
        let footer = walk.next_offset().saturating_sub(BLOCK as u64);
        if damage.is_some_and(|at| at < footer) {
            self.drop_damaged(segment).await;
        }
    }

    async fn scrub_extent(&self, name: &Name, entry: &Entry) {
        let InFile::Bulk { .. } = entry.place.file else { return };
        // Where there is no memory, the next pass looks at it.
        let Some(_scratch) = self.budget.take(SCRATCH) else { return };
        if matches!(self.read_extent(entry).await, Err(Broken::Damaged)) {
            self.bury(name, entry);
        }
        self.pace(entry.place.bytes()).await;
    }

    /// Drops what the index has in a log of which a part does not verify, if it is in that part.
    async fn drop_damaged(&self, segment: &Segment) {
        for stripe in 0..self.index.stripes() {
            for (name, entry) in self.index.in_segment(stripe, segment.number) {
                let InFile::Small { .. } = entry.place.file else { continue };
                if entry.kind == Kind::Dead {
                    continue;
                }
                let record = self.read_any_record(&entry).await;
                let is_it = record.as_ref().is_ok_and(|it| name::of_record(it.kind, &it.name) == name);
                if !is_it && !matches!(record, Err(Broken::Gone | Broken::NoRoom)) {
                    self.bury(&name, &entry);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits for as long as reading so many bytes may take.
    async fn pace(&self, bytes: u64) {
        self.counters.scrubbed.fetch_add(bytes, Ordering::Relaxed);
        let per_second = (self.config.max_bytes as f64 / PASS.as_secs_f64()).max(LEAST);
        sleep(Duration::from_secs_f64(bytes as f64 / per_second)).await;
    }
}
