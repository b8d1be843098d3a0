//! The end of an upload.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use elcache_core::condition::Condition;
use elcache_core::digest::Digest;
use elcache_core::staging::Gone;
use elcache_core::tier::Lookup;
use elcache_core::tree::{self, CHUNK_SIZE, TreeHasher};
use elcache_core::value::OperationId;
use tokio::task::JoinSet;

use super::draft::{Draft, State};
use super::{Sparse, SparseError};
use crate::engine::{Engine, Source, refused};
use crate::manifest;
use crate::outcome::{PutOptions, Stored, WriteError};

/// Missing ranges that whoever finalizes too early is told of.
const TOLD: usize = 1000;

impl Sparse {
    /// Makes what was written the key's value. Has to be run to its end.
    pub(super) async fn finalize(
        &self,
        condition: Condition,
        operation: Option<OperationId>,
    ) -> Result<Stored, SparseError> {
        let (draft, engine) = (&self.draft, &self.engine);
        let mut state = draft.state.write().await;
        if let State::Finalized(stored) = *state {
            return Ok(stored);
        }
        Draft::open(*state)?;
        draft.touch(engine.clock().now_ms());
        draft.verify(engine).await?;
        {
            let map = &draft.tracked.lock().map;
            if map.written() < map.size() {
                return Err(SparseError::Incomplete(map.missing(0, TOLD)));
            }
        }
        if draft.barred {
            return Err(WriteError::DoesNotFit.into());
        }
        draft.combine_rest(engine).await?;
        let (digest, source) = draft.source(engine).await?;
        let options = draft.options(condition, operation);
        let stored = engine.commit(draft.home(), &draft.opening.key, &options, digest, source).await?;
        *state = State::Finalized(stored);
        drop(state);
        engine.metrics().uploads.finalized.inc();
        engine.uploads.ended(draft);
        draft.close().await;
        if draft.is_closed() {
            engine.uploads.closed(draft);
        }
        Ok(stored)
    }

    /// Gives the upload up. Has to be run to its end.
    pub(super) async fn abort(&self) -> Result<(), SparseError> {
        let mut state = self.draft.state.write().await;
        Draft::open(*state)?;
        let staging = self.draft.staging()?;
        staging.close(&self.draft.opening.key, self.draft.opening.draft).get().await.map_err(refused)?;
        *state = State::Over;
        drop(state);
        self.draft.let_go();
        self.engine.metrics().uploads.aborted.inc();
        self.engine.uploads.closed(&self.draft);
        Ok(())
    }
}

impl Draft {
    /// Combines what is there in pieces still.
    async fn combine_rest(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<(), WriteError> {
        let chunks: Vec<u64> = self.tracked.lock().map.to_fill().collect();
        let mut filling = JoinSet::new();
        for number in chunks {
            // As many at once as may combine: each waits for a permit.
            if filling.len() >= super::registry::COMBINING {
                all_well(filling.join_next().await)?;
            }
            let (draft, engine) = (Arc::clone(self), Arc::clone(engine));
            filling.spawn(async move { draft.fill_chunk(&engine, number).await });
        }
        while let Some(done) = filling.join_next().await {
            all_well(Some(done))?;
        }
        let pages: Vec<u64> = self.tracked.lock().map.to_compose().collect();
        for page in pages {
            self.compose_alone(engine, page).await?;
        }
        Ok(())
    }

    /// What is to be committed, and its hash.
    async fn source(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<(Digest, Source<'static>), WriteError> {
        let (size, draft) = (self.opening.size, self.opening.draft);
        if size == 0 {
            return Ok((Digest(*blake3::hash(&[]).as_bytes()), Source::Draft { draft, size }));
        }
        if size <= CHUNK_SIZE {
            let (filled, digest) = self.whole_value(engine).await?;
            return Ok((digest, Source::Filled { filled, draft: Some(draft) }));
        }
        let mut hasher = TreeHasher::new();
        if tree::page_count(size) == 1 {
            // The last merge of all is another one than a page's.
            match self.read_page(0).await {
                Lookup::Hit(page) => (0..tree::chunk_count(size) as usize)
                    .filter_map(|place| manifest::digest_at(&page, place))
                    .for_each(|digest| hasher.push(digest)),
                Lookup::Miss => return Err(WriteError::Failed),
                Lookup::Busy => return Err(WriteError::Busy),
            }
        } else {
            let tracked = self.tracked.lock();
            tracked.map.merged().ok_or(WriteError::Failed)?.for_each(|page| hasher.push(page));
        }
        Ok((hasher.root().ok_or(WriteError::Failed)?, Source::Draft { draft, size }))
    }

    /// How it was opened, and what was said when it was finalized.
    fn options(&self, condition: Condition, operation: Option<OperationId>) -> PutOptions {
        let opening = &self.opening;
        PutOptions {
            length: Some(opening.size),
            ttl_seconds: opening.ttl_seconds,
            flags: opening.flags,
            no_memory: opening.no_memory,
            no_disk: opening.no_disk,
            no_cluster: opening.no_cluster,
            operation: operation.or_else(|| opening.operation.clone()),
            headers: opening.headers.clone(),
            condition,
            ..PutOptions::default()
        }
    }

    /// Has it kept that the upload is open no more, and lets go of everything. When that cannot be kept now, it is to be tried again.
    pub(super) async fn close(&self) {
        let Ok(staging) = self.staging() else { return };
        match staging.close(&self.opening.key, self.opening.draft).get().await {
            Ok(()) => self.let_go(),
            Err(refusal) => tracing::warn!(%refusal, "the end of an upload could not be kept yet"),
        }
    }

    /// Lets go of all that was staged. What was committed stays, as an ordinary value.
    pub(super) fn let_go(&self) {
        let held: Vec<Gone> = self.tracked.lock().map.held().collect();
        if let Ok(staging) = self.staging() {
            staging.forget(self.owner, &held);
            staging.end(self.owner, self.opening.size);
        }
        self.account(None, 0, self.kept_bytes());
        self.closed.store(true, Ordering::Release);
    }

    /// Whether it has been let go of.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Looks whether all that is written is there, if its home may have lost something. While nothing else is written.
    pub(super) async fn verify(&self, engine: &Engine) -> Result<(), WriteError> {
        let staging = self.staging()?;
        let generation = staging.generation();
        if self.generation.load(Ordering::Acquire) == generation {
            return Ok(());
        }
        let (held, records): (Vec<Gone>, Vec<u64>) = {
            let map = &self.tracked.lock().map;
            (map.held().collect(), map.records().collect())
        };
        for gone in held.into_iter().filter(|gone| !staging.has(self.owner, gone)) {
            tracing::warn!(?gone, "a part of what was written of an upload is lost");
            engine.metrics().uploads.lost_ranges.inc();
            let dropped = self.change(|map| map.lose(gone));
            self.account(None, 0, self.footprint(&dropped));
        }
        for number in records {
            match self.read_page(number).await {
                Lookup::Busy => return Err(WriteError::Busy),
                Lookup::Miss => {
                    tracing::warn!(page = number, "a page of an upload is lost");
                    engine.metrics().uploads.lost_ranges.inc();
                    self.change(|map| map.lose_page(number));
                }
                Lookup::Hit(page) => self.verify_page(engine, number, &page),
            }
        }
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    fn verify_page(&self, engine: &Engine, number: u64, page: &[u8]) {
        let Ok(staging) = self.staging() else { return };
        for (place, digest) in page.as_chunks().0.iter().enumerate() {
            let number = number * tree::PAGE_DIGESTS + place as u64;
            if !staging.has(self.owner, &Gone::Chunk(self.chunk(number, Digest(*digest)))) {
                tracing::warn!(chunk = number, "a chunk of an upload is lost");
                engine.metrics().uploads.lost_ranges.inc();
                self.change(|map| map.lose_in_page(number));
            }
        }
    }
}

fn all_well(done: Option<Result<Result<(), WriteError>, tokio::task::JoinError>>) -> Result<(), WriteError> {
    done.map_or(Ok(()), |done| done.unwrap_or(Err(WriteError::Failed)))
}
