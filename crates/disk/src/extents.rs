//! Extents: large payloads, written and read past the page cache, verified block by block.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::payload::{Buffer, Filled, Payload};
use elcache_core::tier::{Lookup, Refusal};
use elcache_core::tree::{ChunkHasher, SUBTREE_SIZE};
use elcache_core::value::{Metadata, Version};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use crate::directory::perform;
use crate::disk::{Disk, PERMIT, off_thread};
use crate::format::check::Summer;
use crate::format::extent::{self, Head};
use crate::format::record::{self, Body, Extent, Kind, Record};
use crate::format::{BLOCK, Damaged};
use crate::index::entry::{Entry, InFile, Name, Place as IndexPlace};
use crate::io::{Action, Blocks, Memory, Part};
use crate::log::{Append, By, Need};
use crate::segment::Segment;
use crate::tally::Held;

/// Up to this length ranges are read into blocks of the device's.
const ROOM: usize = 128 << 10;
/// Longer ones are read in pieces of this length, a multiple of the block size, where the device has time for that.
const PIECE: usize = 128 << 10;
/// As many ranges may be read at once for that: more of them overlap one another anyway.
const FEW: usize = 4;
/// How long to wait before asking again for memory.
const RETRY: Duration = Duration::from_millis(5);

/// A payload on its way into an extent.
pub(crate) struct Arriving {
    pub(crate) kind: Kind,
    pub(crate) name: Bytes,
    pub(crate) hash: Name,
    pub(crate) meta: Metadata,
    pub(crate) payload: Payload,
    /// Chaining values, when they are known.
    pub(crate) subtrees: Vec<Digest>,
    /// Where in its value a chunk stands.
    pub(crate) number: u64,
}

/// An extent that can be read.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    offset: u64,
    head_len: u32,
}

/// Room for an extent in an open segment. Whoever has it, says how it went.
struct Reserved {
    disk: Arc<Disk>,
    segment: Arc<Segment>,
    offset: u64,
    need: Need,
    landed: bool,
    /// That something of this name is on its way; a copy is overtaken by it.
    _held: Option<Held>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.landed {
            if let Some(open) = self.disk.state.lock().open(self.segment.number) {
                open.landed(self.need, false);
            }
            self.disk.work.notify_one();
        }
    }
}

impl Disk {
    /// Writes a payload, and its record when that is done. Runs to its end even when nobody waits any more.
    pub(crate) async fn write_extent(self: &Arc<Self>, arriving: Arriving) -> Result<(), Refusal> {
        let disk = Arc::clone(self);
        let written = tokio::spawn(async move { disk.write_extent_now(arriving).await });
        written.await.unwrap_or(Err(Refusal::Failed))
    }

    async fn write_extent_now(self: Arc<Self>, arriving: Arriving) -> Result<(), Refusal> {
        let Arriving { kind, name, hash, meta, payload, subtrees, number } = arriving;
        let len = payload.len();
        let head_blocks = extent::head_blocks(&name, &meta, len as u32);
        let whole = head_blocks as usize * BLOCK + len.next_multiple_of(BLOCK);
        let (summer, shared) = (Summer::new(kind, &name, meta.version), payload.clone());
        let sums = off_thread(len, move || {
            let subtrees = if subtrees.is_empty() { hash_subtrees(&shared, number) } else { subtrees };
            (extent::sums(&shared, summer), if subtrees.len() > 1 { subtrees } else { Vec::new() })
        });
        let (sums, subtrees) = sums.await.ok_or(Refusal::Failed)?;
        self.pace.turn().await?;
        let need = Need::extent(record::extent_len(&name, &meta), whole);
        let reserved = self.reserve(need, By::Writer, &hash).await?;
        let head = Head { kind, name, meta, len: len as u32, subtrees, sums };
        let encoded = head.encode(&self.directory.seeds, reserved.segment.number, reserved.offset);
        let memory = self.to_write(&encoded, &payload);
        self.land(reserved, head, encoded.len(), memory, hash, None).await
    }

    /// Writes again what is at an entry's place, unless something newer of its name comes first.
    pub(crate) async fn write_copy(
        self: &Arc<Self>,
        name: &Name,
        entry: &Entry,
        head: Head,
        mut blocks: Blocks,
    ) -> Result<(), Refusal> {
        let need = Need::extent(record::extent_len(&head.name, &head.meta), blocks.len());
        let reserved = self.reserve(need, By::copying(entry), name).await?;
        let encoded = head.encode(&self.directory.seeds, reserved.segment.number, reserved.offset);
        blocks[..encoded.len()].copy_from_slice(&encoded);
        let memory = Memory::of(Part::Blocks(blocks));
        self.land(reserved, head, encoded.len(), memory, *name, Some(entry.place)).await
    }

    /// Writes an extent to where room is reserved for it, then its record.
    async fn land(
        &self,
        mut reserved: Reserved,
        head: Head,
        head_len: usize,
        memory: Memory,
        name: Name,
        copy_of: Option<IndexPlace>,
    ) -> Result<(), Refusal> {
        let number = reserved.segment.number;
        let data = reserved.segment.data.clone().ok_or(Refusal::Failed)?;
        let whole = memory.len();
        let written = perform(&*self.device, &data, Action::Write, reserved.offset, memory).await;
        if let Err(error) = written {
            self.failed("an extent cannot be written", &error);
            if error.kind() == io::ErrorKind::StorageFull {
                // For another segment, room is made.
                self.state.lock().close(number);
            }
            return Err(Refusal::Failed);
        }
        self.count_written(whole as u64);
        let block = (reserved.offset / BLOCK as u64) as u32;
        let extent = Extent { block, head_blocks: (head_len / BLOCK) as u32, len: head.len };
        let Head { kind, name: bears, meta, .. } = head;
        let record = Record { kind, name: bears, meta, body: Body::Extent(extent) };
        reserved.landed = true;
        self.enter(number, reserved.need, &Append { record: &record, name, copy_of }).await
    }

    async fn reserve(self: &Arc<Self>, need: Need, by: By, name: &Name) -> Result<Reserved, Refusal> {
        loop {
            {
                let mut state = self.state.lock();
                if state.failed {
                    return Err(Refusal::Failed);
                }
                let held = (by == By::Writer).then(|| state.underway.hold(name));
                if let Some(open) = self.room_for(&mut state, need, by)
                    && let Some(offset) = open.reserve(need)
                {
                    let (disk, segment) = (Arc::clone(self), Arc::clone(&open.segment));
                    return Ok(Reserved { disk, segment, offset, need, landed: false, _held: held });
                }
            }
            self.grow(need, by).await?;
        }
    }

    /// Head, payload and zeros to the end of the last block. What lies as direct I/O needs it is not copied.
    fn to_write(&self, head: &[u8], payload: &Payload) -> Memory {
        let fits =
            |piece: &Bytes| piece.as_ptr().addr().is_multiple_of(BLOCK) && piece.len().is_multiple_of(BLOCK);
        let as_is = payload.pieces().take_while(|piece| fits(piece)).map(Bytes::len).sum::<usize>();
        let mut parts = vec![Part::Blocks(self.filled(head))];
        if as_is > 0 {
            parts.push(Part::Payload(payload.slice(0, as_is)));
        }
        if as_is < payload.len() {
            parts.push(Part::Blocks(self.filled(&payload.slice(as_is, payload.len()).to_contiguous())));
        }
        Memory { parts }
    }

    fn filled(&self, bytes: &[u8]) -> Blocks {
        let mut blocks = self.device.blocks(bytes.len());
        blocks[..bytes.len()].copy_from_slice(bytes);
        blocks
    }

    /// Where the extent of an entry is.
    pub(crate) fn place(&self, entry: &Entry) -> Option<Place> {
        let InFile::Bulk { offset, head_len, .. } = entry.place.file else { return None };
        Some(Place { segment: self.segment(entry)?, offset, head_len })
    }

    /// The head of an extent, and as much of its payload as was read with it.
    pub(crate) async fn read_head(&self, place: &Place, eager: u32) -> Result<(Head, Payload), Broken> {
        let len = place.head_len as usize + eager as usize;
        let room = self.room(len).await?;
        let blocks = self.read_blocks(place, 0, len).await?;
        let head = Head::decode(&blocks, &self.directory.seeds, place.segment.number, place.offset)?;
        let at = place.head_len as usize;
        let here = (head.len.min(eager)) as usize;
        let bytes = Bytes::from_owner(Lent { bytes: blocks, _room: room }).slice(at..at + here);
        let summer = Summer::new(head.kind, &head.name, head.meta.version);
        if here > 0 {
            extent::verify([&bytes[..]].into_iter(), 0, &head.sums, summer)?;
        }
        Ok((head, bytes.into()))
    }

    /// The bytes `from..to` of a payload of `len` bytes.
    pub(crate) async fn read_range(
        self: &Arc<Self>,
        payload: &Source,
        from: u32,
        to: u32,
    ) -> Result<Payload, Broken> {
        let to = to.min(payload.len);
        if from >= to {
            return Ok(Payload::new());
        }
        let _counted = Counted::new(&self.reading);
        let start = from as usize / BLOCK * BLOCK;
        let end = (payload.len as usize).min((to as usize).next_multiple_of(BLOCK));
        let bytes = match self.buffers_for(start..end) {
            Some(buffers) => self.read_pieces(payload, start..end, buffers).await?,
            None => {
                let at = payload.place.head_len as usize + start;
                let read = self.read_some(&payload.place, at, end - start);
                let (bytes, sums) = tokio::join!(read, self.sums_of(payload));
                verified(bytes?, start, sums?, payload.summer).await?
            }
        };
        Ok(bytes.slice(from as usize - start, to as usize - start))
    }

    /// A buffer for each piece of a part that is read in pieces. All or none: readers that wait with some could wait for
    /// each other.
    fn buffers_for(&self, part: Range<usize>) -> Option<Vec<Box<dyn Buffer>>> {
        let buffer = |piece: Range<usize>| self.buffers.buffer(piece.len().next_multiple_of(BLOCK));
        let in_pieces = part.len() > PIECE && self.reading.load(Ordering::Relaxed) <= FEW;
        if in_pieces { pieces(part).map(buffer).collect() } else { None }
    }

    /// A part of a payload by several reads at once: what has arrived is verified while the rest is read.
    async fn read_pieces(
        self: &Arc<Self>,
        payload: &Source,
        part: Range<usize>,
        buffers: Vec<Box<dyn Buffer>>,
    ) -> Result<Payload, Broken> {
        let read = |(piece, buffer): (Range<usize>, _)| {
            let (disk, place) = (Arc::clone(self), payload.place.clone());
            let at = place.head_len as usize + piece.start;
            tokio::spawn(async move { disk.read_into(buffer, &place, at, piece.len()).await })
        };
        let reads: Vec<_> = pieces(part.clone()).zip(buffers).map(read).collect();
        let sums = self.sums_of(payload).await?;
        let mut whole = Payload::new();
        for (piece, read) in pieces(part).zip(reads) {
            let bytes = read.await.map_err(|_| Broken::Gone)??;
            whole.append(verified(bytes, piece.start, Arc::clone(&sums), payload.summer).await?);
        }
        Ok(whole)
    }

    /// A whole payload in a buffer of its own. What is read with it is its block of sums.
    pub(crate) async fn read_whole(&self, payload: &Source) -> Result<Filled, Broken> {
        let len = payload.len as usize;
        let buffer = self.buffer(len.next_multiple_of(BLOCK)).await?;
        let memory = Memory { parts: vec![Part::Blocks(self.device.room(BLOCK)), Part::Buffer(buffer)] };
        let at = payload.place.offset + u64::from(payload.place.head_len) - BLOCK as u64;
        let (count, memory) = self.read(&payload.place, at, memory).await?;
        let mut parts = memory.parts.into_iter();
        let (Some(Part::Blocks(head)), Some(Part::Buffer(mut buffer))) = (parts.next(), parts.next()) else {
            return Err(Broken::Gone);
        };
        if count < BLOCK + len {
            return Err(Broken::Damaged);
        }
        advance(&mut *buffer, len);
        let sums = sums_in(&head, payload.len);
        let summer = payload.summer;
        let checked = off_thread(len, move || {
            let verified = extent::verify(Runs { buffer: &*buffer, at: 0 }, 0, &sums, summer);
            verified.map(|()| buffer)
        });
        let buffer = checked.await.ok_or(Broken::Gone)??;
        Ok(Filled::new(buffer, Vec::new()))
    }

    /// A whole extent, verified: its head, and all of it as it lies on the disk.
    pub(crate) async fn read_extent(&self, entry: &Entry) -> Result<(Head, Blocks), Broken> {
        let place = self.place(entry).ok_or(Broken::Gone)?;
        let whole = entry.place.bytes() as usize;
        let blocks = self.read_blocks(&place, 0, whole).await?;
        let seeds = self.directory.seeds.clone();
        let verified = off_thread(whole, move || {
            let head = Head::decode(&blocks, &seeds, place.segment.number, place.offset)?;
            let at = place.head_len as usize;
            let payload = blocks.get(at..at + head.len as usize).ok_or(Damaged)?;
            let summer = Summer::new(head.kind, &head.name, head.meta.version);
            extent::verify([payload].into_iter(), 0, &head.sums, summer).map(|()| (head, blocks))
        });
        Ok(verified.await.ok_or(Broken::Gone)??)
    }

    async fn sums_of(&self, payload: &Source) -> Result<Arc<[u32]>, Broken> {
        let Source { place, len, .. } = payload;
        let id = (place.segment.number, (place.offset / BLOCK as u64) as u32);
        if let Some(sums) = self.sums.get(id) {
            return Ok(sums);
        }
        let block = self.read_blocks(place, place.head_len as usize - BLOCK, BLOCK).await?;
        let sums: Arc<[u32]> = sums_in(&block, *len).into();
        self.sums.put(id, &sums);
        Ok(sums)
    }

    /// Bytes of an extent from `at` on, blocks and all: in blocks of the device's if they are few and there are some, else in
    /// a buffer within the budget.
    async fn read_some(&self, place: &Place, at: usize, len: usize) -> Result<Payload, Broken> {
        if len <= ROOM
            && let Ok(room) = Arc::clone(&self.lent).try_acquire_many_owned(len.div_ceil(PERMIT) as u32)
        {
            let blocks = self.read_blocks(place, at, len.next_multiple_of(BLOCK)).await?;
            return Ok(Bytes::from_owner(Lent { bytes: blocks, _room: room }).slice(..len).into());
        }
        let buffer = self.buffer(len.next_multiple_of(BLOCK)).await?;
        self.read_into(buffer, place, at, len).await
    }

    async fn read_into(
        &self,
        buffer: Box<dyn Buffer>,
        place: &Place,
        at: usize,
        len: usize,
    ) -> Result<Payload, Broken> {
        let memory = Memory::of(Part::Buffer(buffer));
        let (count, memory) = self.read(place, place.offset + at as u64, memory).await?;
        let Some(Part::Buffer(mut buffer)) = memory.parts.into_iter().next() else {
            return Err(Broken::Gone);
        };
        if count < len {
            return Err(Broken::Damaged);
        }
        advance(&mut *buffer, len);
        Ok(Filled::new(buffer, Vec::new()).payload())
    }

    async fn read_blocks(&self, place: &Place, at: usize, len: usize) -> Result<Blocks, Broken> {
        let memory = Memory::of(Part::Blocks(self.device.room(len)));
        let (count, memory) = self.read(place, place.offset + at as u64, memory).await?;
        match memory.parts.into_iter().next() {
            Some(Part::Blocks(blocks)) if count >= len => Ok(blocks),
            _ => Err(Broken::Damaged),
        }
    }

    async fn read(&self, place: &Place, offset: u64, memory: Memory) -> Result<(usize, Memory), Broken> {
        // Its data file has been given back: what counted in it is somewhere else now.
        let data = place.segment.data.as_ref().ok_or(Broken::Gone)?;
        self.counters.read.fetch_add(memory.len() as u64, Ordering::Relaxed);
        let read = perform(&*self.device, data, Action::Read, offset, memory).await;
        read.map_err(|error| self.broken("an extent cannot be read", &error))
    }

    /// What an error of the device comes to.
    pub(crate) fn broken(&self, what: &str, error: &io::Error) -> Broken {
        self.failed(what, error);
        Broken::Gone
    }

    /// Waits for room for so many bytes that a reader will hold outside of the budget's buffers.
    pub(crate) async fn room(&self, len: usize) -> Result<OwnedSemaphorePermit, Broken> {
        let room = Arc::clone(&self.lent).acquire_many_owned(len.div_ceil(PERMIT) as u32);
        match timeout(self.config.patience, room).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Broken::NoRoom),
        }
    }

    async fn buffer(&self, len: usize) -> Result<Box<dyn Buffer>, Broken> {
        let attempts = async {
            loop {
                match self.buffers.buffer(len) {
                    Some(buffer) => return buffer,
                    None => sleep(RETRY).await,
                }
            }
        };
        timeout(self.config.patience, attempts).await.map_err(|_| Broken::NoRoom)
    }
}

/// Bytes with a reader, and the room that they take until it lets them go.
pub(crate) struct Lent<T> {
    pub(crate) bytes: T,
    pub(crate) _room: OwnedSemaphorePermit,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Lent<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Counts itself for as long as it is there.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A payload that can be read.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) place: Place,
    pub(crate) len: u32,
    pub(crate) summer: Summer,
}

impl Source {
    /// The payload of a chunk: nothing of its head need be read.
    pub(crate) fn of_chunk(place: Place, digest: &Digest, len: u32) -> Self {
        Self { place, len, summer: Summer::new(Kind::Chunk, &digest.0, Version::default()) }
    }

    /// The payload behind a head that has been read.
    pub(crate) fn of_head(place: Place, head: &Head) -> Self {
        Self { place, len: head.len, summer: Summer::new(head.kind, &head.name, head.meta.version) }
    }
}

/// Why something could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is not what was written.
    Damaged,
    /// The device failed, or the segment has been freed.
    Gone,
    /// What is there is something else.
    Absent,
    /// There is no memory at the moment.
    NoRoom,
}

impl From<Damaged> for Broken {
    fn from(Damaged: Damaged) -> Self {
        Self::Damaged
    }
}

/// What was read, as an answer; what does not verify is dropped.
pub(crate) fn answer<T>(disk: &Disk, name: &Name, entry: &Entry, read: Result<T, Broken>) -> Lookup<T> {
    match read {
        Ok(read) => Lookup::Hit(read),
        Err(Broken::Damaged) => {
            disk.bury(name, entry);
            Lookup::Miss
        }
        Err(Broken::Gone | Broken::Absent) => Lookup::Miss,
        Err(Broken::NoRoom) => Lookup::Busy,
    }
}

/// The pieces in which a part of a payload is read.
fn pieces(part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    part.clone().step_by(PIECE).map(move |start| start..part.end.min(start + PIECE))
}

/// Bytes that begin at offset `start` of a payload, a multiple of the block size, if they are what was written.
async fn verified(bytes: Payload, start: usize, sums: Arc<[u32]>, summer: Summer) -> Result<Payload, Broken> {
    let len = bytes.len();
    let verify = move || {
        let first = (start / BLOCK) as u32;
        extent::verify(bytes.pieces().map(|piece| &piece[..]), first, &sums, summer).map(|()| bytes)
    };
    Ok(off_thread(len, verify).await.ok_or(Broken::Gone)??)
}

/// The sums at the end of a block.
fn sums_in(block: &[u8], len: u32) -> Vec<u32> {
    let count = (len as usize).div_ceil(BLOCK);
    let end = block.len().min(BLOCK);
    extent::decode_sums(block.get(end.saturating_sub(count * 4)..end).unwrap_or_default())
}

fn hash_subtrees(payload: &Payload, number: u64) -> Vec<Digest> {
    if payload.len() <= SUBTREE_SIZE {
        return Vec::new();
    }
    let mut hasher = ChunkHasher::new(number);
    payload.pieces().for_each(|piece| hasher.update(piece));
    hasher.subtrees()
}

/// Says that the first `len` bytes of a buffer have been read, run by run.
fn advance(buffer: &mut dyn Buffer, len: usize) {
    let mut left = len;
    while left > 0 {
        let run = buffer.space().len().min(left);
        if run == 0 {
            return;
        }
        buffer.advance(run);
        left -= run;
    }
}

/// The runs of a full buffer.
struct Runs<'a> {
    buffer: &'a dyn Buffer,
    at: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let run = self.buffer.run(self.at);
        self.at += run.len();
        (!run.is_empty()).then_some(run)
    }
}
