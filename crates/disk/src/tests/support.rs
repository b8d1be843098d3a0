//! A tier on a simulated disk, and values whose every byte follows from their key and version.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elcache_arena::{PageBuffer, Pool};
use elcache_core::budget::Budget;
use elcache_core::clock::{Clock, ManualClock};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::{Buffer, Buffers, Filled, Payload};
use elcache_core::tier::{Body, ChunkRef, Lookup, NewBody, PageRef, Refusal, Root, Staged, StagedPage, Tier};
use elcache_core::tree::ChunkHasher;
use elcache_core::value::{KeptHeadersBuilder, Metadata, OperationId, Version};
use tokio::time::Instant;

use crate::config::{DiskConfig, Durability};
use crate::directory::{DirectoryError, Lock};
use crate::disks::Disks;
use crate::io::Device;
use crate::io::sim::Sim;
use crate::tier::{DiskParts, DiskTier};

/// A small generator of numbers.
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `n`, `n` not included.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Buffers as the memory tier has them.
pub(super) struct Arena(Arc<Pool>);

impl Arena {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Pool::new(256 << 20).unwrap()))
    }

    /// A full buffer; with the chaining values of chunk `number`.
    pub(super) fn filled(&self, bytes: &[u8], number: u64) -> Filled {
        let mut buffer = self.buffer(bytes.len()).unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = buffer.space();
            let len = space.len().min(rest.len());
            space[..len].copy_from_slice(&rest[..len]);
            buffer.advance(len);
            rest = &rest[len..];
        }
        let mut hasher = ChunkHasher::new(number);
        hasher.update(bytes);
        Filled::new(buffer, hasher.subtrees())
    }
}

impl Buffers for Arena {
    fn buffer(&self, len: usize) -> Option<Box<dyn Buffer>> {
        PageBuffer::new(&self.0, len).map(|buffer| Box::new(buffer) as Box<dyn Buffer>)
    }
}

/// What outlives a tier.
#[derive(Clone)]
pub(super) struct World {
    pub(super) config: DiskConfig,
    pub(super) budget_bytes: u64,
    pub(super) arena: Arc<Arena>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) path: PathBuf,
}

pub(super) const NOW_MS: u64 = 1_800_000_000_000;

impl World {
    /// Segments of 1 MiB and room for thousands of them.
    pub(super) fn new() -> Self {
        Self {
            config: DiskConfig { max_bytes: 8 << 30, segment_bytes: Some(1 << 20), ..DiskConfig::default() },
            budget_bytes: 64 << 20,
            arena: Arena::new(),
            clock: Arc::new(ManualClock::new(NOW_MS)),
            path: PathBuf::from("/disk"),
        }
    }

    pub(super) fn with(change: impl FnOnce(&mut DiskConfig)) -> Self {
        let mut world = Self::new();
        change(&mut world.config);
        world.config.validate().unwrap();
        world
    }

    pub(super) fn durable(durability: Durability) -> Self {
        Self::with(|config| config.durability = durability)
    }

    pub(super) async fn try_open(&self, device: Arc<dyn Device>) -> Result<Arc<DiskTier>, DirectoryError> {
        self.open_with(device, None).await
    }

    pub(super) async fn open_with(
        &self,
        device: Arc<dyn Device>,
        lock: Option<Lock>,
    ) -> Result<Arc<DiskTier>, DirectoryError> {
        let mut dice = Dice::new(7);
        DiskTier::open(DiskParts {
            config: self.config.clone(),
            device,
            path: self.path.clone(),
            lock,
            node_name: "node".to_owned(),
            budget: Budget::new(self.budget_bytes),
            buffers: Arc::clone(&self.arena) as Arc<dyn Buffers>,
            clock: Arc::clone(&self.clock) as _,
            random: Box::new(move || dice.next()),
        })
        .await
    }

    /// A tier that has found everything.
    pub(super) async fn open(&self, sim: &Arc<Sim>) -> Arc<DiskTier> {
        let tier = self.try_open(Arc::clone(sim) as _).await.unwrap();
        tier.recovered().await;
        assert!(tier.report().trouble.is_none(), "recovery failed");
        tier
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec()).unwrap()
}

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// From a run of bytes.
    Borrowed(usize),
    /// From a buffer.
    Filled(usize),
    /// In so many chunks, of which the last is so long.
    Chunks(usize, usize),
}

/// What values are stored in.
pub(super) trait AsTier: Sync {
    fn tier(&self) -> &dyn Tier;
}

impl AsTier for DiskTier {
    fn tier(&self) -> &dyn Tier {
        self
    }
}

impl AsTier for Disks {
    fn tier(&self) -> &dyn Tier {
        self
    }
}

impl<T: AsTier + Send> AsTier for Arc<T> {
    fn tier(&self) -> &dyn Tier {
        (**self).tier()
    }
}

/// A value, all of which follows from its key, its version and its shape.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) key: Key,
    pub(super) shape: Shape,
    pub(super) meta: Metadata,
}

/// Bytes of a chunk that is not the last; a tier does not mind.
pub(super) const CHUNK: usize = 100_000;

impl Value {
    pub(super) fn new(key: &Key, sequence: u64, shape: Shape) -> Self {
        let size = match shape {
            Shape::Borrowed(len) | Shape::Filled(len) => len,
            Shape::Chunks(count, last) => (count - 1) * CHUNK + last,
        };
        let mut dice = Dice::new(sequence);
        let digest = Digest(*blake3::hash(&sequence.to_le_bytes()).as_bytes());
        let version = Version { view: 3, sequence };
        let mut meta = Metadata::new(size as u64, digest, version, NOW_MS + sequence);
        meta.created = dice.below(2) == 0;
        meta.no_memory = dice.below(4) == 0;
        meta.flags = if dice.below(2) == 0 { dice.next() as u32 } else { 0 };
        if dice.below(3) == 0 {
            meta.expires_ms = Some(NOW_MS + 1_000_000_000);
        }
        if dice.below(3) == 0 {
            let len = 1 + dice.below(64) as usize;
            meta.operation = OperationId::new(dice.bytes(len));
        }
        if dice.below(3) == 0 {
            let mut headers = KeptHeadersBuilder::default();
            headers.push("content-type", b"text/plain").unwrap();
            headers.push("x-long", &vec![b'x'; dice.below(300) as usize]).unwrap();
            meta.headers = headers.finish();
        }
        if matches!(shape, Shape::Chunks(..)) && dice.below(3) == 0 {
            meta.draft = Some(Version { view: 2, sequence });
        }
        Self { key: key.clone(), shape, meta }
    }

    pub(super) fn with_headers(mut self, len: usize) -> Self {
        let mut headers = KeptHeadersBuilder::default();
        headers.push("x-long", &vec![b'y'; len]).unwrap();
        self.meta.headers = headers.finish();
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        Dice::new(self.meta.version.sequence ^ 0xABCD).bytes(self.meta.size as usize)
    }

    /// Chunks come from a small number of contents, so that values share some.
    fn chunks(&self) -> Vec<(ChunkRef, Vec<u8>)> {
        let Shape::Chunks(count, last) = self.shape else { return Vec::new() };
        let mut dice = Dice::new(self.meta.version.sequence ^ 0x1234);
        (0..count)
            .map(|number| {
                let len = if number + 1 == count { last } else { CHUNK };
                let bytes = Dice::new(dice.below(12)).bytes(len);
                let mut hasher = ChunkHasher::new(number as u64);
                hasher.update(&bytes);
                let digest = hasher.chunk().unwrap();
                (ChunkRef { digest, number: number as u64, len: len as u32 }, bytes)
            })
            .collect()
    }

    fn pages(&self) -> Vec<Bytes> {
        let digests: Vec<u8> = self.chunks().iter().flat_map(|(chunk, _)| chunk.digest.0).collect();
        digests.chunks(64).map(Bytes::copy_from_slice).collect()
    }

    pub(super) async fn put(&self, tier: &impl AsTier, arena: &Arena) -> Result<(), Refusal> {
        match self.shape {
            Shape::Borrowed(_) => {
                let bytes = self.bytes();
                tier.tier().commit(&self.key, &self.meta, NewBody::Borrowed(&bytes)).get().await
            }
            Shape::Filled(_) => {
                let filled = arena.filled(&self.bytes(), 0);
                tier.tier().commit(&self.key, &self.meta, NewBody::Filled(filled)).get().await
            }
            Shape::Chunks(..) => {
                let staged = self.stage(tier, arena).await?;
                self.commit(tier, staged).await
            }
        }
    }

    pub(super) async fn stage(&self, tier: &impl AsTier, arena: &Arena) -> Result<Vec<Staged>, Refusal> {
        let mut staged = Vec::new();
        for (chunk, bytes) in self.chunks() {
            staged.push(tier.tier().stage(chunk, arena.filled(&bytes, chunk.number)).get().await?);
        }
        Ok(staged)
    }

    pub(super) async fn stage_pages(
        &self,
        tier: &impl AsTier,
        mut staged: Vec<Staged>,
    ) -> Result<Vec<StagedPage>, Refusal> {
        let owner = self.meta.owner(self.key.hash());
        let mut pages = Vec::new();
        for (number, digests) in (0..).zip(self.pages()) {
            let chunks = staged.drain(..digests.len() / 32).collect();
            pages.push(tier.tier().stage_page(PageRef { owner, number }, digests, chunks).get().await?);
        }
        Ok(pages)
    }

    pub(super) async fn commit(&self, tier: &impl AsTier, staged: Vec<Staged>) -> Result<(), Refusal> {
        let pages = self.stage_pages(tier, staged).await?;
        self.commit_pages(tier, pages).await
    }

    pub(super) async fn commit_pages(
        &self,
        tier: &impl AsTier,
        pages: Vec<StagedPage>,
    ) -> Result<(), Refusal> {
        tier.tier().commit(&self.key, &self.meta, NewBody::Pages(pages)).get().await
    }

    /// Reads it all in several ways and compares. An error says what differs; a part that is missing is none: false.
    pub(super) async fn check(&self, tier: &impl AsTier, root: Root) -> Result<bool, String> {
        if root.meta != self.meta {
            return Err(format!("metadata {:?} instead of {:?}", root.meta, self.meta));
        }
        match root.body {
            Body::Here(bytes) => same("value", &bytes, &self.bytes()).map(|()| true),
            Body::Apart(apart) => {
                let bytes = self.bytes();
                let mut dice = Dice::new(bytes.len() as u64);
                let from = dice.below(bytes.len() as u64) as usize;
                let to = from + dice.below((bytes.len() - from) as u64 + 1) as usize;
                match apart.read(from as u32, to as u32).get().await {
                    Lookup::Hit(part) => same("range", &part.bytes, &bytes[from..to])?,
                    _ => return Ok(false),
                }
                match apart.read_whole().get().await {
                    Lookup::Hit(filled) => same("whole", &filled.payload(), &bytes).map(|()| true),
                    _ => Ok(false),
                }
            }
            Body::Chunks(_) => self.check_chunks(tier).await,
        }
    }

    async fn check_chunks(&self, tier: &impl AsTier) -> Result<bool, String> {
        let owner = self.meta.owner(self.key.hash());
        for (number, page) in (0..).zip(self.pages()) {
            match tier.tier().page(&PageRef { owner, number }).get().await {
                Lookup::Hit(found) => same("page", &found, &page)?,
                _ => return Ok(false),
            }
        }
        for (chunk, bytes) in self.chunks() {
            let from = chunk.len / 3;
            match tier.tier().chunk(&chunk, from, chunk.len).get().await {
                Lookup::Hit(part) => same("chunk", &part.bytes, &bytes[from as usize..])?,
                _ => return Ok(false),
            }
            match tier.tier().chunk_whole(&chunk).get().await {
                Lookup::Hit(filled) => same("whole chunk", &filled.payload(), &bytes)?,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Reads it; whether all of it is there.
    pub(super) async fn get(&self, tier: &impl AsTier) -> Result<bool, String> {
        match tier.tier().root(&self.key).get().await {
            Lookup::Hit(root) => self.check(tier, root).await,
            Lookup::Miss => Ok(false),
            Lookup::Busy => Err("busy".to_owned()),
        }
    }

    pub(super) async fn assert_there(&self, tier: &impl AsTier) {
        assert_eq!(self.get(tier).await, Ok(true), "{:?} {:?}", self.shape, self.meta.version);
    }
}

pub(super) fn same(what: &str, found: &Payload, expected: &[u8]) -> Result<(), String> {
    let found = found.to_contiguous();
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    Err(format!("{what}: {} bytes instead of {}, differ at {at:?}", found.len(), expected.len()))
}

/// Whether there is nothing under a key.
pub(super) async fn is_gone(tier: &impl AsTier, key: &Key) -> bool {
    matches!(tier.tier().root(key).get().await, Lookup::Miss)
}

/// The runtime's time, which tests make pass.
pub(crate) struct RuntimeClock(Instant);

impl RuntimeClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for RuntimeClock {
    fn now_ms(&self) -> u64 {
        NOW_MS + self.0.elapsed().as_millis() as u64
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
