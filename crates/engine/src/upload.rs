//! A value on its way in: received into buffers of the tier, hashed and staged chunk by chunk, committed at the end.
//!
//! While chunks are staged, the next is hashed and the one after that is received: at most five chunks of an upload are in
//! buffers that are not staged. The last chunk hashed is kept back until it is certain that another follows, because a
//! value of a single chunk is stored as one record.
//!
//! An upload needs room in two places: in its home for all of it, and in memory for what is on its way there. Where memory is
//! the home, that is the same room.

use std::collections::VecDeque;
use std::sync::Arc;

use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Buffer;
use elcache_core::tier::{ChunkRef, Owner, Refusal, Staged, Tier, TierName};
use elcache_core::tree::{CHUNK_SIZE, TreeHasher};
use sha2::Sha256;
use tokio::task::JoinHandle;

use crate::engine::{Engine, Source, refused, to_the_end};
use crate::hashing::{self, Hashed, Job};
use crate::manifest::Manifest;
use crate::outcome::{PutOptions, Stored, WriteError};
use crate::transit::{self, FIRST_BUFFER, Promises, STAGING};

/// What an upload of unknown length asks for when it turns out to be larger, as far as the tier can promise that; then
/// twice as much.
const FIRST_PROMISE: u64 = 64 << 20;
/// One value being received. Dropping it leaves nothing behind.
pub struct Upload {
    engine: Arc<Engine>,
    home: Arc<dyn Tier>,
    key: Key,
    options: PutOptions,
    /// Bytes that the home has promised room for.
    promised: u64,
    promises: Promises,
    buffer: Option<Box<dyn Buffer>>,
    received: u64,
    /// Chunks given to hashing.
    chunks: u64,
    job: Option<Job>,
    staging: VecDeque<JoinHandle<Result<Staged, Refusal>>>,
    sha256: Option<Sha256>,
    tree: TreeHasher,
    /// From the second chunk on.
    manifest: Option<Manifest>,
}

impl Upload {
    pub(crate) async fn open(engine: Arc<Engine>, key: Key, options: PutOptions) -> Result<Self, WriteError> {
        let first = options.length.unwrap_or(FIRST_BUFFER);
        let home = Arc::clone(engine.home_of(&key, &options, options.length)?);
        let sha256 = options.sha256.map(|_| Sha256::default());
        let mut upload = Self {
            engine,
            home,
            key,
            options,
            promised: 0,
            promises: Promises::default(),
            buffer: None,
            received: 0,
            chunks: 0,
            job: None,
            staging: VecDeque::new(),
            sha256,
            tree: TreeHasher::new(),
            manifest: None,
        };
        upload.promise(first).await?;
        Ok(upload)
    }

    /// Waits until [`Upload::space`] has room. To be called when there are more bytes to come, or may be.
    ///
    /// # Errors
    /// When there will be no room; the upload is then to be dropped.
    pub async fn ready(&mut self) -> Result<(), WriteError> {
        if self.received > self.options.value_limit {
            return Err(WriteError::OverLimit);
        }
        if self.options.length.is_some_and(|length| self.received >= length) {
            return Ok(());
        }
        match &self.buffer {
            Some(buffer) if buffer.filled() < buffer.capacity() => return Ok(()),
            Some(buffer) if (buffer.capacity() as u64) < CHUNK_SIZE && self.options.length.is_none() => {
                return self.grow_buffer().await;
            }
            Some(_) => self.hash_chunk().await?,
            None => {}
        }
        let len = match self.options.length {
            Some(length) => (length - self.received).min(CHUNK_SIZE),
            None if self.received == 0 => FIRST_BUFFER,
            None => self.promise_more().await?,
        };
        self.buffer = Some(transit::room(&self.engine, len).await?);
        Ok(())
    }

    /// Where the next bytes go; empty when [`Upload::ready`] has to be called first, or at the end.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], |buffer| buffer.space())
    }

    /// How many bytes there is room for before [`Upload::ready`] has to be called again; the space may be only a part of it.
    pub fn room(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.capacity() - buffer.filled())
    }

    /// Says that the first `count` bytes of the space have been received.
    pub fn filled(&mut self, count: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.advance(count);
            self.received += count as u64;
        }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Makes what was received the key's value. The caller has seen to it that it is all there.
    pub async fn finish(mut self) -> Result<Stored, WriteError> {
        if self.received > self.options.value_limit {
            return Err(WriteError::OverLimit);
        }
        if self.options.length.is_some_and(|length| length != self.received) {
            return Err(WriteError::WrongLength);
        }
        let rest = self.buffer.take().filter(|buffer| buffer.filled() > 0);
        match (self.job.take(), rest) {
            (None, None) => self.finish_empty().await,
            (None, Some(buffer)) => {
                let hashed =
                    Job::start(0, buffer, self.sha256.take()).wait().await.ok_or(WriteError::Busy)?;
                self.finish_single(*hashed).await
            }
            (Some(job), None) if self.chunks == 1 => {
                let hashed = job.wait().await.ok_or(WriteError::Busy)?;
                self.finish_single(*hashed).await
            }
            (job, rest) => {
                self.job = job;
                self.buffer = rest;
                if self.buffer.is_some() {
                    self.hash_chunk().await?;
                }
                self.collect().await?;
                self.finish_chunks().await
            }
        }
    }

    async fn finish_empty(self) -> Result<Stored, WriteError> {
        self.engine.put_small(&self.key, &self.options, &[]).await
    }

    async fn finish_single(self, hashed: Hashed) -> Result<Stored, WriteError> {
        if !hashing::agrees(hashed.sha256, self.options.sha256) {
            return Err(WriteError::DigestMismatch);
        }
        let digest = hashed.hasher.root();
        self.commit(digest, Source::Filled { filled: hashed.data, draft: None }).await
    }

    async fn finish_chunks(mut self) -> Result<Stored, WriteError> {
        if !hashing::agrees(self.sha256.take(), self.options.sha256) {
            return Err(WriteError::DigestMismatch);
        }
        self.staged(0).await?;
        // INVARIANT: this is reached with two chunks or more: they have a root, and are in a manifest.
        let digest = std::mem::take(&mut self.tree).root().expect("two chunks or more have a root");
        // INVARIANT: as above.
        let manifest = self.manifest.take().expect("two chunks or more are in a manifest");
        let draft = manifest.owner().version;
        let (pages, copies) = manifest.finish(&*self.home).await.map_err(refused)?;
        let size = self.received;
        self.commit(digest, Source::Pages { draft, pages, copies, size }).await
    }

    /// The promises are kept until the value is committed.
    async fn commit(self, digest: Digest, source: Source<'static>) -> Result<Stored, WriteError> {
        let Self { engine, home, key, options, promises, .. } = self;
        to_the_end(async move {
            let stored = engine.commit(&home, &key, &options, digest, source).await;
            drop(promises);
            stored
        })
        .await
    }

    /// Gives the full buffer to hashing, and stages the one before it.
    async fn hash_chunk(&mut self) -> Result<(), WriteError> {
        self.collect().await?;
        if let Some(buffer) = self.buffer.take() {
            self.job = Some(Job::start(self.chunks, buffer, self.sha256.take()));
            self.chunks += 1;
        }
        Ok(())
    }

    /// Has the chunk staged that was being hashed.
    async fn collect(&mut self) -> Result<(), WriteError> {
        let Some(job) = self.job.take() else { return Ok(()) };
        let Hashed { data, hasher, sha256 } = *job.wait().await.ok_or(WriteError::Busy)?;
        self.sha256 = sha256;
        // INVARIANT: a buffer is given to hashing when it holds at least one byte.
        let digest = hasher.chunk().expect("a chunk has at least one byte");
        let chunk = ChunkRef { digest, number: self.chunks - 1, len: data.len() as u32 };
        self.tree.push(digest);
        self.staged(STAGING - 1).await?;
        if self.home.name() == TierName::Memory {
            let staged = self.home.stage(chunk, data).get().await.map_err(refused)?;
            return self.list(staged).await;
        }
        let (engine, home) = (Arc::clone(&self.engine), Arc::clone(&self.home));
        let keep = !self.options.no_memory;
        self.staging.push_back(tokio::spawn(async move {
            let staged = home.stage(chunk, data.clone()).get().await;
            if staged.is_ok() && keep {
                engine.keep_chunk(&chunk, data);
            }
            staged
        }));
        Ok(())
    }

    /// Waits until at most so many chunks are being staged.
    async fn staged(&mut self, most: usize) -> Result<(), WriteError> {
        while self.staging.len() > most
            && let Some(staging) = self.staging.pop_front()
        {
            self.list(staging.await.unwrap_or(Err(Refusal::Failed)).map_err(refused)?).await?;
        }
        Ok(())
    }

    /// Has the next chunk listed in the manifest.
    async fn list(&mut self, staged: Staged) -> Result<(), WriteError> {
        let manifest = match &mut self.manifest {
            Some(manifest) => manifest,
            none => {
                let owner = Owner { key: self.key.hash(), version: self.engine.reserve().await? };
                none.insert(Manifest::new(owner, self.engine.budget()))
            }
        };
        manifest.push(&*self.home, staged).await.map_err(refused)
    }

    /// A value of unknown length is larger than its buffer, which is smaller than a chunk: a larger one takes its place.
    async fn grow_buffer(&mut self) -> Result<(), WriteError> {
        let filled = self.buffer.as_ref().map_or(0, |buffer| buffer.filled()) as u64;
        let more = self.promise_more().await?;
        let mut larger = transit::room(&self.engine, (filled + more).min(CHUNK_SIZE)).await?;
        if let Some(smaller) = self.buffer.take() {
            transit::copy(&*smaller, &mut *larger);
        }
        self.buffer = Some(larger);
        Ok(())
    }

    /// Sees to it that more is promised, and says how much: a whole chunk, or as much as could ever be. What is asked
    /// for is much more than a chunk: uploads that each hold a little and wait for the next little would wait for one
    /// another.
    async fn promise_more(&mut self) -> Result<u64, WriteError> {
        let largest = self.home.largest_admission();
        while self.promised < self.received.saturating_add(CHUNK_SIZE) && self.promised < largest {
            self.promise(self.promised.max(FIRST_PROMISE).min(largest - self.promised)).await?;
        }
        match self.promised.saturating_sub(self.received) {
            0 => Err(WriteError::DoesNotFit),
            more => Ok(more.min(CHUNK_SIZE)),
        }
    }

    async fn promise(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.promises.admit(&self.engine, &*self.home, bytes).await?;
        self.promised += bytes;
        self.promises.cover_transit(&self.engine, self.home.name(), self.promised).await
    }
}
