//! Looks after uploads: those that a restart finds, that nobody uses any more, whose home has lost something, or whose end is not
//! kept yet.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use elcache_core::staging::{FoundUpload, Gone};
use elcache_core::tier::Refusal;
use elcache_core::tree::{self, CHUNK_SIZE, PAGE_DIGESTS};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::draft::{Draft, State};
use crate::engine::Engine;

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// That an upload is in use is kept anew when this part of its time to live has passed.
const REFRESHES: u64 = 8;

/// Looks after uploads until it is dropped. Without it there are none.
pub struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    /// Begins to look after uploads. Needs the runtime.
    pub fn keep_uploads(self: &Arc<Self>) -> Keeper {
        Keeper(tokio::spawn(keep(Arc::downgrade(self))))
    }
}

async fn keep(engine: Weak<Engine>) {
    let mut seen = Vec::new();
    while let Some(engine) = engine.upgrade() {
        engine.take_in(&mut seen).await;
        for draft in engine.uploads.ending() {
            draft.close().await;
            if draft.is_closed() {
                engine.uploads.closed(&draft);
            }
        }
        for draft in engine.uploads.open() {
            engine.look_after(&draft).await;
        }
        drop(engine);
        sleep(TICK).await;
    }
}

impl Engine {
    /// Takes in what the tiers have found: all of it before anybody may use an upload, and later when there is news.
    async fn take_in(self: &Arc<Self>, seen: &mut Vec<u64>) {
        seen.resize(self.tiers().len(), u64::MAX);
        let mut knows_all = true;
        for (place, tier) in self.uploads.homes() {
            let Some(staging) = tier.staging() else { continue };
            let generation = staging.generation();
            if seen[place] == generation {
                continue;
            }
            match staging.found().get().await {
                Ok(found) => {
                    for upload in found {
                        self.take_in_one(place, &upload).await;
                    }
                    seen[place] = generation;
                }
                // Nothing of it can be read: what there was is found when it can be, and then there is a new generation.
                Err(Refusal::Failed | Refusal::TooLarge) => seen[place] = generation,
                Err(Refusal::Full) => knows_all = false,
            }
        }
        if knows_all {
            self.uploads.is_restored();
        }
    }

    async fn take_in_one(self: &Arc<Self>, place: usize, found: &FoundUpload) {
        let known = self.uploads.find(&found.opening.key);
        if let Some(draft) = known.filter(|draft| draft.opening.draft == found.opening.draft) {
            let _alone = draft.state.write().await;
            draft.tell(found);
            return;
        }
        let Some(draft) = Draft::new(&self.uploads, place, false, found.opening.clone()) else {
            tracing::error!(key = ?found.opening.key, "there is no memory for an upload that was found: it can be continued after the next start");
            return;
        };
        draft.tell(found);
        draft.generation.store(u64::MAX, Ordering::Release);
        let finalized = match self.current(&found.opening.key).await {
            Ok(current) => current.is_some_and(|meta| meta.draft == Some(draft.opening.draft)),
            Err(_) => false,
        };
        let over = if finalized { Some(Arc::clone(&draft)) } else { self.uploads.adopt(&draft) };
        if let Some(over) = over {
            *over.state.write().await = State::Over;
            over.close().await;
        }
    }

    /// One upload that is open.
    async fn look_after(self: &Arc<Self>, draft: &Arc<Draft>) {
        let Ok(staging) = draft.staging() else { return };
        if !staging.keeps(draft.owner) {
            tracing::error!(key = ?draft.opening.key, "an upload is lost with the directory that it was open in");
            *draft.state.write().await = State::Over;
            self.metrics().uploads.lost.inc();
            draft.let_go();
            self.uploads.closed(draft);
            return;
        }
        if draft.generation.load(Ordering::Acquire) != staging.generation() {
            let state = draft.state.write().await;
            if *state == State::Open
                && let Err(error) = draft.verify(self).await
            {
                tracing::debug!(%error, "an upload cannot be verified yet");
            }
        }
        let (now_ms, ttl_ms) = (self.clock().now_ms(), self.config.upload_ttl.as_millis() as u64);
        let is_over = || {
            let idle_ms = now_ms.saturating_sub(draft.touched_ms.load(Ordering::Relaxed));
            draft.receiving.load(Ordering::Acquire) == 0 && idle_ms > ttl_ms
        };
        if is_over() {
            let mut state = draft.state.write().await;
            if *state != State::Open || !is_over() {
                return;
            }
            tracing::info!(key = ?draft.opening.key, "an upload that nobody has continued is given up");
            *state = State::Over;
            drop(state);
            self.metrics().uploads.expired.inc();
            self.uploads.ended(draft);
            draft.close().await;
            if draft.is_closed() {
                self.uploads.closed(draft);
            }
            return;
        }
        let touched_ms = draft.touched_ms.load(Ordering::Relaxed);
        if touched_ms.saturating_sub(draft.kept_ms.load(Ordering::Relaxed)) > ttl_ms / REFRESHES {
            let mut opening = draft.opening.clone();
            opening.touched_ms = touched_ms;
            let state = draft.state.read().await;
            if *state == State::Open && staging.open(&opening).get().await.is_ok() {
                draft.kept_ms.store(touched_ms, Ordering::Relaxed);
            }
        }
    }
}

impl Draft {
    /// Takes in what was found of it.
    fn tell(&self, found: &FoundUpload) {
        let before = self.all_bytes();
        for page in &found.pages {
            self.change(|map| map.page(page));
        }
        for filling in &found.fillings {
            self.change(|map| map.fill(*filling));
        }
        for fragment in &found.fragments {
            self.change(|map| map.fragment(*fragment));
        }
        self.serials_above(self.tracked.lock().map.last_serial());
        self.account_found(self.all_bytes().saturating_sub(before));
    }

    /// What all that the map knows of takes of the home.
    fn all_bytes(&self) -> u64 {
        let Ok(staging) = self.staging() else { return 0 };
        let (held, records): (Vec<Gone>, Vec<u64>) = {
            let map = &self.tracked.lock().map;
            (map.held().collect(), map.records().collect())
        };
        let chunks = tree::chunk_count(self.opening.size);
        let of_page = |page: u64| {
            let first = page * PAGE_DIGESTS;
            let count = chunks.saturating_sub(first).min(PAGE_DIGESTS);
            count * staging.footprint(CHUNK_SIZE as u32)
        };
        self.footprint(&held) + records.into_iter().map(of_page).sum::<u64>()
    }
}
