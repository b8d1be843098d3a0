//! Look-ups: from a name to what is under it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use elcache_core::key::Key;
use elcache_core::payload::{Filled, Payload};
use elcache_core::staging::{Fragment, Opening};
use elcache_core::tier::{Apart, Body as RootBody, ChunkRef, Lookup, PageRef, Part, Reply, Root};

use crate::directory::perform;
use crate::disk::{Disk, NotYet, is_value};
use crate::extents::{Broken, Lent, Place, Source, answer};
use crate::format::check::Summer;
use crate::format::extent::Head;
use crate::format::record::{Body, Kind, Record};
use crate::format::staged;
use crate::index::entry::{Entry, HOT, InFile, Kind as Known, Name};
use crate::io::{Action, Memory, Part as MemoryPart};
use crate::name;

/// Extents up to this length are read with their head.
const EAGER: u32 = 64 << 10;

impl Disk {
    pub(crate) async fn find_root(self: &Arc<Self>, key: &Key) -> Lookup<Root> {
        let name = name::of_key(key);
        let (entry, root) = match self.found(&name, &ReadRoot { key, name }).await {
            Lookup::Hit(found) => found,
            Lookup::Miss => return Lookup::Miss,
            Lookup::Busy => return Lookup::Busy,
        };
        if root.meta.expired(self.clock.now_ms()) {
            self.index.bury(&name, &entry.place);
            self.counters.expired.fetch_add(1, Ordering::Relaxed);
            return Lookup::Miss;
        }
        self.index.touch(&name, &entry.place);
        Lookup::Hit(root)
    }

    /// Reads what the index has under a name; once more where that has been written again and its old place is gone.
    async fn found<R: Read>(self: &Arc<Self>, name: &Name, wanted: &R) -> Lookup<(Entry, R::Output)> {
        let mut tried = None;
        loop {
            let entry = match self.look_up(name).await {
                Ok(Some(entry)) if tried != Some(entry.place) => entry,
                Ok(_) => return Lookup::Miss,
                Err(NotYet) => return Lookup::Busy,
            };
            match wanted.read(self, &entry).await {
                Err(Broken::Gone) => tried = Some(entry.place),
                read => return answer(self, name, &entry, read).map(|read| (entry, read)),
            }
        }
    }

    async fn read_apart(
        self: &Arc<Self>,
        key: &Key,
        name: &Name,
        entry: &Entry,
        payload_len: u32,
    ) -> Result<Root, Broken> {
        let place = self.place(entry).ok_or(Broken::Gone)?;
        let eager = if payload_len <= EAGER { payload_len } else { 0 };
        let (head, bytes) = self.read_head(&place, eager).await?;
        if head.kind != Kind::Value || head.name != key.as_bytes() {
            return Err(Broken::Damaged);
        }
        let meta = head.meta.clone();
        let body = if bytes.len() == head.len as usize {
            RootBody::Here(bytes)
        } else {
            RootBody::Apart(Arc::new(ApartExtent::new(self, *name, *entry, place, &head)))
        };
        Ok(Root { meta, body })
    }

    /// The record of an entry in a log, if it is of one of these kinds and bears this name.
    async fn read_record(&self, entry: &Entry, kinds: &[Kind], name: &[u8]) -> Result<Record, Broken> {
        let record = self.read_any_record(entry).await?;
        if kinds.contains(&record.kind) && record.name == name { Ok(record) } else { Err(Broken::Damaged) }
    }

    /// The record at the place of an entry in a log.
    pub(crate) async fn read_any_record(&self, entry: &Entry) -> Result<Record, Broken> {
        let InFile::Small { offset, len } = entry.place.file else { return Err(Broken::Damaged) };
        let segment = self.segment(entry).ok_or(Broken::Gone)?;
        let room = self.room(len as usize).await?;
        let memory = Memory::of(MemoryPart::Blocks(self.device.room(len as usize)));
        self.counters.read.fetch_add(u64::from(len), Ordering::Relaxed);
        let read = perform(&*self.device, &segment.log, Action::Read, offset, memory).await;
        let (count, memory) = read.map_err(|error| self.broken("a record cannot be read", &error))?;
        let Some(MemoryPart::Blocks(blocks)) = memory.parts.into_iter().next() else {
            return Err(Broken::Gone);
        };
        // A copy, so that the device's blocks are free at once.
        let bytes = blocks.get(..count.min(len as usize)).unwrap_or_default().to_vec();
        let bytes = Bytes::from_owner(Lent { bytes, _room: room });
        Ok(Record::decode(&bytes, &self.directory.seeds, segment.number, offset)?)
    }

    pub(crate) async fn find_page(self: &Arc<Self>, page: &PageRef) -> Lookup<Payload> {
        self.found_page(page).await.map(|(entry, (_, digests))| {
            self.index.touch(&name::of_page(page), &entry.place);
            digests
        })
    }

    /// Reads a page, and up to which serial writes of its chunks are in it.
    pub(crate) async fn found_page(self: &Arc<Self>, page: &PageRef) -> Lookup<(Entry, (u64, Payload))> {
        self.found(&name::of_page(page), &ReadPage { name: &page.to_bytes() }).await
    }

    async fn read_page_extent(
        &self,
        entry: &Entry,
        payload_len: u32,
        name: &[u8],
    ) -> Result<(u64, Payload), Broken> {
        let place = self.place(entry).ok_or(Broken::Gone)?;
        let (head, bytes) = self.read_head(&place, payload_len).await?;
        let is_it = head.kind == Kind::Page && head.name == name;
        if is_it { Ok((head.meta.size, bytes)) } else { Err(Broken::Damaged) }
    }

    /// Reads what says that an upload of a key is open.
    pub(crate) async fn found_opening(self: &Arc<Self>, key: &Key) -> Lookup<Opening> {
        self.found(&name::of_upload(key), &ReadOpening { key }).await.map(|(_, opening)| opening)
    }

    /// Reads bytes of a chunk, all of which are a fragment's.
    pub(crate) async fn find_fragment(
        self: &Arc<Self>,
        fragment: &Fragment,
        from: u32,
        to: u32,
    ) -> Lookup<Payload> {
        if from < fragment.from || to > fragment.to || from > to {
            return Lookup::Miss;
        }
        let read = ReadFragment { fragment, from: from - fragment.from, to: to - fragment.from };
        self.found(&name::of_fragment(fragment), &read).await.map(|(_, bytes)| bytes)
    }

    /// Where a chunk is.
    pub(crate) fn source(&self, chunk: &ChunkRef, entry: &Entry) -> Result<Source, Broken> {
        if entry.kind != Known::Chunk || chunk.len > payload_room(entry) {
            return Err(Broken::Absent);
        }
        let place = self.place(entry).ok_or(Broken::Gone)?;
        Ok(Source::of_chunk(place, &chunk.digest, chunk.len))
    }

    pub(crate) async fn read_chunk(self: &Arc<Self>, chunk: &ChunkRef, from: u32, to: u32) -> Lookup<Part> {
        let name = name::of_chunk(chunk);
        let (from, to) = (from.min(chunk.len), to.min(chunk.len));
        self.found(&name, &ReadRange { chunk, from: from.min(to), to }).await.map(|(entry, bytes)| {
            let hot = self.used(&name, &entry, to.saturating_sub(from), chunk.len);
            Part { bytes, hot }
        })
    }

    /// Notes that so many bytes of a payload of `len` have been read. True when as many have been read as there are.
    fn used(&self, name: &Name, entry: &Entry, bytes: u32, len: u32) -> bool {
        self.index.touch(name, &entry.place);
        // Heat counts in fifteenths. What is less than one counts as one, now and then: as often as it is a part of one.
        let unit = (len / u32::from(HOT)).max(1);
        let rest = bytes % unit;
        let chance = self.chance.fetch_add(0x9E37_79B9, Ordering::Relaxed) as u32 % unit;
        let by = bytes / unit + u32::from(chance < rest);
        self.index.warm(name, &entry.place, by.min(HOT.into()) as u8)
    }

    pub(crate) async fn read_chunk_whole(self: &Arc<Self>, chunk: &ChunkRef) -> Lookup<Filled> {
        let name = name::of_chunk(chunk);
        self.found(&name, &ReadWhole { chunk }).await.map(|(entry, data)| {
            self.index.touch(&name, &entry.place);
            data
        })
    }
}

/// What is to be read from where an entry is.
trait Read: Sync {
    type Output: Send;

    fn read(
        &self,
        disk: &Arc<Disk>,
        entry: &Entry,
    ) -> impl Future<Output = Result<Self::Output, Broken>> + Send;
}

struct ReadRoot<'a> {
    key: &'a Key,
    name: Name,
}

impl Read for ReadRoot<'_> {
    type Output = Root;

    async fn read(&self, disk: &Arc<Disk>, entry: &Entry) -> Result<Root, Broken> {
        match entry.place.file {
            _ if !is_value(entry) => Err(Broken::Absent),
            InFile::Small { .. } => {
                let record = disk.read_record(entry, &[Kind::Value, Kind::Root], self.key.as_bytes()).await?;
                match (record.kind, record.body) {
                    (Kind::Root, _) => Ok(Root { meta: record.meta, body: RootBody::Chunks(None) }),
                    (_, Body::Packed(bytes)) => {
                        Ok(Root { meta: record.meta, body: RootBody::Here(bytes.into()) })
                    }
                    (_, Body::Extent(_)) => Err(Broken::Damaged),
                }
            }
            InFile::Bulk { payload_len, .. } => {
                disk.read_apart(self.key, &self.name, entry, payload_len).await
            }
        }
    }
}

struct ReadPage<'a> {
    name: &'a [u8],
}

impl Read for ReadPage<'_> {
    type Output = (u64, Payload);

    async fn read(&self, disk: &Arc<Disk>, entry: &Entry) -> Result<(u64, Payload), Broken> {
        match entry.place.file {
            _ if entry.kind != Known::Page => Err(Broken::Absent),
            InFile::Small { .. } => {
                let record = disk.read_record(entry, &[Kind::Page], self.name).await?;
                let Body::Packed(bytes) = record.body else { return Err(Broken::Damaged) };
                Ok((record.meta.size, Payload::from(bytes)))
            }
            InFile::Bulk { payload_len, .. } => disk.read_page_extent(entry, payload_len, self.name).await,
        }
    }
}

struct ReadOpening<'a> {
    key: &'a Key,
}

impl Read for ReadOpening<'_> {
    type Output = Opening;

    async fn read(&self, disk: &Arc<Disk>, entry: &Entry) -> Result<Opening, Broken> {
        if entry.kind != Known::Upload {
            return Err(Broken::Absent);
        }
        let record = disk.read_record(entry, &[Kind::Upload], self.key.as_bytes()).await?;
        Ok(staged::opening(record)?)
    }
}

struct ReadFragment<'a> {
    fragment: &'a Fragment,
    /// Within it.
    from: u32,
    to: u32,
}

impl Read for ReadFragment<'_> {
    type Output = Payload;

    async fn read(&self, disk: &Arc<Disk>, entry: &Entry) -> Result<Payload, Broken> {
        let (name, len) = (staged::of_fragment(self.fragment), self.fragment.to - self.fragment.from);
        match entry.place.file {
            _ if entry.kind != Known::Fragment => Err(Broken::Absent),
            InFile::Small { .. } => match disk.read_record(entry, &[Kind::Fragment], &name).await?.body {
                Body::Packed(bytes) if bytes.len() == len as usize => {
                    Ok(Payload::from(bytes).slice(self.from as usize, self.to as usize))
                }
                _ => Err(Broken::Damaged),
            },
            InFile::Bulk { .. } => {
                let place = disk.place(entry).ok_or(Broken::Gone)?;
                let summer = Summer::new(Kind::Fragment, &name, self.fragment.draft.version);
                disk.read_range(&Source { place, len, summer }, self.from, self.to).await
            }
        }
    }
}

struct ReadRange<'a> {
    chunk: &'a ChunkRef,
    from: u32,
    to: u32,
}

impl Read for ReadRange<'_> {
    type Output = Payload;

    async fn read(&self, disk: &Arc<Disk>, entry: &Entry) -> Result<Payload, Broken> {
        disk.read_range(&disk.source(self.chunk, entry)?, self.from, self.to).await
    }
}

struct ReadWhole<'a> {
    chunk: &'a ChunkRef,
}

impl Read for ReadWhole<'_> {
    type Output = Filled;

    async fn read(&self, disk: &Arc<Disk>, entry: &Entry) -> Result<Filled, Broken> {
        disk.read_whole(&disk.source(self.chunk, entry)?).await
    }
}

/// Bytes that an entry's extent has room for.
fn payload_room(entry: &Entry) -> u32 {
    if let InFile::Bulk { payload_len, .. } = entry.place.file { payload_len } else { 0 }
}

/// A value of at most one chunk in an extent whose head has been read.
struct ApartExtent {
    disk: Arc<Disk>,
    name: Name,
    entry: Entry,
    source: Source,
}

impl ApartExtent {
    fn new(disk: &Arc<Disk>, name: Name, entry: Entry, place: Place, head: &Head) -> Self {
        Self { disk: Arc::clone(disk), name, entry, source: Source::of_head(place, head) }
    }
}

impl Apart for ApartExtent {
    fn read(&self, from: u32, to: u32) -> Reply<'_, Lookup<Part>> {
        Reply::Later(Box::pin(async move {
            let read = self.disk.read_range(&self.source, from, to).await;
            let hot = self.disk.used(&self.name, &self.entry, to.saturating_sub(from), self.source.len);
            answer(&self.disk, &self.name, &self.entry, read).map(|bytes| Part { bytes, hot })
        }))
    }

    fn read_whole(&self) -> Reply<'_, Lookup<Filled>> {
        Reply::Later(Box::pin(async move {
            let read = self.disk.read_whole(&self.source).await;
            answer(&self.disk, &self.name, &self.entry, read)
        }))
    }
}
