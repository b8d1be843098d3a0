//! What lies in pieces is put together: fragments to chunks, chunks to pages.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::payload::Filled;
use elcache_core::staging::{Filling, FoundPage, Gone};
use elcache_core::tier::{Lookup, TierName};
use elcache_core::tree::{self, PAGE_DIGESTS};

use super::SparseError;
use super::draft::{Draft, State};
use super::ledger::Purpose;
use super::map::{Composition, Source};
use crate::engine::{Engine, refused};
use crate::hashing::{Hashed, Job};
use crate::outcome::WriteError;
use crate::transit;

/// Bytes of a digest in a page.
const DIGEST: usize = size_of::<Digest>();

impl Draft {
    /// Writes a chunk, all of which is there in pieces, as a whole. Under the chunk's lock, or when nothing else is written.
    pub(super) async fn fill_chunk(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        number: u64,
    ) -> Result<(), WriteError> {
        let _permit = engine.uploads.combining.acquire().await.map_err(|_| WriteError::Failed)?;
        let len = self.chunk_len(number);
        let (plan, serial) = {
            let map = &self.tracked.lock().map;
            (map.plan(number, 0, len), map.last_write(number))
        };
        let room = self.ledger.reserve(self.staging()?.footprint(len), Purpose::Combine).await?;
        let mut buffer = transit::room(engine, u64::from(len)).await?;
        self.read_into(number, &plan, &mut *buffer).await?;
        if buffer.filled() < len as usize {
            return Err(WriteError::Failed);
        }
        let Hashed { data, hasher, .. } =
            *Job::start(number, buffer, None).wait().await.ok_or(WriteError::Busy)?;
        let chunk = self.chunk(number, hasher.chunk().ok_or(WriteError::Failed)?);
        let copies = !self.opening.no_memory && self.home().name() != TierName::Memory;
        let copy = copies.then(|| data.clone());
        let staged = self.home().stage(chunk, data).get().await.map_err(refused)?;
        let filling = Filling { draft: self.owner, chunk: number, serial, digest: chunk.digest };
        self.fill(filling, staged, Some(room)).await?;
        if let Some(copy) = copy {
            engine.keep_chunk(&chunk, copy);
        }
        engine.metrics().uploads.chunks_combined.inc();
        Ok(())
    }

    /// All of a value of at most one chunk.
    pub(super) async fn whole_value(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
    ) -> Result<(Filled, Digest), WriteError> {
        let len = self.chunk_len(0);
        let plan = self.tracked.lock().map.plan(0, 0, len);
        let mut buffer = transit::room(engine, u64::from(len)).await?;
        self.read_into(0, &plan, &mut *buffer).await?;
        if buffer.filled() < len as usize {
            return Err(WriteError::Failed);
        }
        let Hashed { data, hasher, .. } =
            *Job::start(0, buffer, None).wait().await.ok_or(WriteError::Busy)?;
        Ok((data, hasher.root()))
    }

    /// Writes every separate run of a chunk as one fragment, because it has more layers than it should have.
    pub(super) async fn join(self: &Arc<Self>, engine: &Arc<Engine>, number: u64) -> Result<(), WriteError> {
        let _permit = engine.uploads.combining.acquire().await.map_err(|_| WriteError::Failed)?;
        let runs = self.tracked.lock().map.runs(number);
        let staging = self.staging()?;
        let all = runs.iter().map(|(from, to)| staging.footprint(to - from)).sum();
        let mut room = self.ledger.reserve(all, Purpose::Combine).await?;
        for (from, to) in runs {
            let plan = self.tracked.lock().map.plan(number, from, to);
            let mut buffer = transit::room(engine, u64::from(to - from)).await?;
            self.read_into(number, &plan, &mut *buffer).await?;
            if buffer.filled() < (to - from) as usize {
                return Err(WriteError::Failed);
            }
            let bytes = Filled::new(buffer, Vec::new()).payload();
            let part = room.split(staging.footprint(to - from));
            self.write_fragment(number, from, to, bytes, Some(part)).await?;
        }
        Ok(())
    }

    /// Writes a page, if all of its chunks are there and its record does not say so.
    pub(super) async fn compose(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        page: u64,
    ) -> Result<(), SparseError> {
        let state = self.state.write().await;
        if *state == State::Open {
            self.compose_alone(engine, page).await.map_err(SparseError::from)
        } else {
            Ok(())
        }
    }

    /// As [`Draft::compose`], while nothing else is written.
    pub(super) async fn compose_alone(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        page: u64,
    ) -> Result<(), WriteError> {
        for _ in 0..=PAGE_DIGESTS {
            let composition = self.tracked.lock().map.composition(page);
            match composition {
                Composition::Nothing => return Ok(()),
                Composition::First(number) => self.fill_chunk(engine, number).await?,
                Composition::Ready { serial, digests } => return self.put_page(page, serial, &digests).await,
            }
        }
        Err(WriteError::Failed)
    }

    async fn put_page(&self, number: u64, serial: u64, digests: &[(u16, Digest)]) -> Result<(), WriteError> {
        let staging = self.staging()?;
        let first = number * PAGE_DIGESTS;
        let places = (tree::chunk_count(self.opening.size) - first).min(PAGE_DIGESTS) as usize;
        let is_new = digests.len() == places && !self.tracked.lock().map.has_record(number);
        let mut page = if digests.len() == places {
            vec![0; places * DIGEST]
        } else {
            match self.read_page(number).await {
                Lookup::Hit(record) if record.len() == places * DIGEST => record.to_vec(),
                Lookup::Busy => return Err(WriteError::Busy),
                Lookup::Hit(_) | Lookup::Miss => {
                    self.change(|map| map.lose_page(number));
                    return Err(WriteError::Failed);
                }
            }
        };
        for (place, digest) in digests {
            let at = usize::from(*place) * DIGEST;
            page[at..at + DIGEST].copy_from_slice(&digest.0);
        }
        let merged = tree::merged(page.as_chunks::<DIGEST>().0.iter().map(|digest| Digest(*digest)));
        let merged = merged.ok_or(WriteError::Failed)?;
        let record = Bytes::from(page);
        staging
            .put_page(self.page(number), self.opening.size, serial, record)
            .get()
            .await
            .map_err(refused)?;
        let found = FoundPage { number, serial, merged, lost: Vec::new() };
        self.change(|map| map.page(&found));
        // The page holds now what its fillings held. What an older record of it held instead is free.
        if !is_new {
            let replaced = digests.iter().map(|(place, _)| self.chunk_len(first + u64::from(*place)));
            self.account(None, 0, replaced.map(|len| staging.footprint(len)).sum());
        }
        Ok(())
    }

    /// What turned out to be gone is missing from now on.
    pub(super) fn lose(&self, number: u64, source: Source) {
        tracing::warn!(chunk = number, "a part of what was written of an upload is lost");
        let gone = self.change(|map| match source {
            Source::Fragment(fragment) => map.lose(Gone::Fragment(fragment)),
            Source::Chunk(digest) => map.lose(Gone::Chunk(self.chunk(number, digest))),
            Source::InPage => map.lose_in_page(number),
        });
        self.account(None, 0, self.footprint(&gone));
    }
}
