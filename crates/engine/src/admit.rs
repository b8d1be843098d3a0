//! Which values the disk gets at all: with [`Admission::SecondHit`], those that are stored or asked for a second time.
//!
//! A value that is stored for the first time has its home in memory. When it is stored again it goes to the disk; when it has been
//! asked for, it goes there when memory evicts it, if it is one record ([`crate::demote`]), and at once, if it is in chunks: chunks leave memory one
//! by one.

use std::sync::Arc;

use elcache_core::key::Key;
use elcache_core::tier::{Evicted, Leaving, Lookup, Owner, PageRef, Refusal, Root, Tier, TierName};
use elcache_core::tree;

use crate::engine::Engine;
use crate::outcome::{PutOptions, Value, WriteError};
use crate::search::Search;

/// What goes to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Everything.
    #[default]
    All,
    /// What is stored, or asked for, for the second time. What memory cannot take goes there too, and what has no length.
    SecondHit,
}

impl Engine {
    /// The home of a value that is about to be written.
    pub(crate) fn home_of(
        &self,
        key: &Key,
        options: &PutOptions,
        len: Option<u64>,
    ) -> Result<&Arc<dyn Tier>, WriteError> {
        let home = self.home_for(options, len.unwrap_or(0))?;
        let (Some(seen), Some(len), Some(memory)) = (&self.seen, len, self.tiers().first()) else {
            return Ok(home);
        };
        let again = seen.again(key.hash());
        let stays_off = (!again || home.is_overused())
            && home.name() != TierName::Memory
            && home.lacks(Leaving::Value(key.as_bytes()))
            && !options.no_memory
            && memory.largest_admission() >= len;
        Ok(if stays_off { memory } else { home })
    }

    /// A value that memory alone has is asked for: one in chunks goes to the slower tier as well, if nothing else is on its way there.
    pub(crate) fn asked_for(self: &Arc<Self>, key: &Key, value: &Value) {
        if self.seen.is_none() {
            return;
        }
        let (Some(owner), Some(slower)) = (value.owner(), self.tiers().get(1)) else { return };
        let stays = value.meta.no_disk
            || slower.is_overused()
            || slower.largest_admission() < value.meta.size
            || !slower.lacks(Leaving::Value(key.as_bytes()));
        if stays {
            return;
        }
        let Ok(turn) = Arc::clone(&self.carrying).try_acquire_owned() else { return };
        let (engine, key, size) = (Arc::clone(self), key.clone(), value.meta.size);
        tokio::spawn(async move {
            // What does not get there is where it was, and the next who asks for it has it tried again.
            let _ = engine.carry(&key, owner, size).await;
            drop(turn);
        });
    }

    /// Takes a value in chunks from memory to the slower tier.
    async fn carry(&self, key: &Key, owner: Owner, size: u64) -> Result<(), Refusal> {
        let (Some(memory), Some(slower)) = (self.tiers().first(), self.tiers().get(1)) else { return Ok(()) };
        let mut search = Search::new(self, owner, size);
        for number in 0..tree::chunk_count(size) {
            let chunk = search.chunk(number).await.hit().ok_or(Refusal::Failed)?;
            if !slower.has_chunk(&chunk).get().await {
                let part = memory.chunk(&chunk, 0, chunk.len).get().await.hit().ok_or(Refusal::Failed)?;
                slower.demote(Evicted::Chunk(chunk, part.bytes)).get().await?;
            }
        }
        for number in 0..tree::page_count(size) {
            let page = PageRef { owner, number };
            let digests = memory.page(&page).get().await.hit().ok_or(Refusal::Failed)?;
            slower.demote(Evicted::Page(page, digests)).get().await?;
        }
        let _writing = self.order.write(key).await;
        match memory.root(key).get().await {
            Lookup::Hit(Root { meta, .. }) if meta.owner(key.hash()) == owner => {
                slower.demote(Evicted::Root(key.clone(), meta)).get().await
            }
            // It has been replaced, deleted or evicted.
            _ => Ok(()),
        }
    }
}
