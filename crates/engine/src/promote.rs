//! Bytes on their way from a slower tier into the fastest.

use std::sync::Arc;

use elcache_core::payload::{Filled, Payload};
use elcache_core::tier::{Apart, Body, ChunkRef, Lookup, NewBody, Owner, Root, Tier, TierName};

use crate::engine::Engine;
use crate::flights::{Read, Target};
use crate::outcome::Value;

impl Engine {
    /// The fastest tier, if it may have a copy of what a slower one gave.
    fn keeper(&self, value: &Value) -> Option<&Arc<dyn Tier>> {
        self.tiers().first().filter(|tier| tier.name() < value.tier && !value.meta.no_memory)
    }

    /// Keeps a copy of a value, or of the root of a larger one, that a slower tier has just given.
    pub(crate) fn promote(&self, value: &Value) {
        let Some(memory) = self.keeper(value) else { return };
        let inline = value.inline().map(Payload::to_contiguous);
        match &inline {
            Some(bytes) => self.keep(memory, value, || Some(NewBody::Borrowed(bytes))),
            None if value.owner().is_some() => self.keep(memory, value, || Some(NewBody::Elsewhere)),
            None => {}
        }
    }

    /// A chunk as a whole, from a slower tier. A copy stays in the fastest.
    pub(crate) async fn fetch_chunk(&self, chunk: &ChunkRef) -> Lookup<Read> {
        let read = async {
            match self.read_whole(chunk).await {
                Lookup::Hit((data, tier)) => {
                    let kept = self.tiers().first().and_then(|memory| memory.keep_chunk(chunk, data));
                    match kept {
                        Some(bytes) => Lookup::Hit(Read { bytes, tier }),
                        // There was no room to keep it, and it went with the attempt.
                        None => self
                            .read_whole(chunk)
                            .await
                            .map(|(data, tier)| Read { bytes: data.payload(), tier }),
                    }
                }
                Lookup::Miss => Lookup::Miss,
                Lookup::Busy => Lookup::Busy,
            }
        };
        self.flights.join(Target::Chunk(chunk.digest), read).await
    }

    async fn read_whole(&self, chunk: &ChunkRef) -> Lookup<(Filled, TierName)> {
        let mut busy = false;
        for tier in self.tiers().iter().skip(1) {
            match tier.chunk_whole(chunk).get().await {
                Lookup::Hit(data) => return Lookup::Hit((data, tier.name())),
                Lookup::Miss => {}
                Lookup::Busy => busy = true,
            }
        }
        if busy { Lookup::Busy } else { Lookup::Miss }
    }

    /// A value of at most one chunk as a whole, from a slower tier. A copy stays in the fastest, if that may have it.
    pub(crate) async fn fetch_value(&self, value: &Value, apart: &Arc<dyn Apart>) -> Lookup<Read> {
        let Some((key, _)) = &value.slower else { return Lookup::Miss };
        let owner = Owner { key: key.hash(), version: value.meta.version };
        let read = async {
            // Another reader may have had it kept since this one looked for it.
            if let Some(bytes) = self.kept(value) {
                return Lookup::Hit(Read { bytes, tier: value.tier });
            }
            let mut data = match apart.read_whole().get().await {
                Lookup::Hit(data) => Some(data),
                Lookup::Miss => return Lookup::Miss,
                Lookup::Busy => return Lookup::Busy,
            };
            if let Some(memory) = self.keeper(value) {
                // The buffer goes as it is: nobody shares it.
                self.keep(memory, value, || data.take().map(NewBody::Filled));
            }
            let bytes = data.map(|data| data.payload()).or_else(|| self.kept(value));
            match bytes {
                Some(bytes) => Lookup::Hit(Read { bytes, tier: value.tier }),
                // There was no room to keep it, and it went with the attempt.
                None => apart
                    .read_whole()
                    .get()
                    .await
                    .map(|data| Read { bytes: data.payload(), tier: value.tier }),
            }
        };
        self.flights.join(Target::Value(owner), read).await
    }

    /// The bytes of a value that the fastest tier has got in the meantime.
    fn kept(&self, value: &Value) -> Option<Payload> {
        let (key, _) = value.slower.as_ref()?;
        match self.keeper(value)?.root(key).now()? {
            Lookup::Hit(Root { meta, body: Body::Here(bytes) }) if meta.version == value.meta.version => {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// Keeps a copy of a chunk whose home has it.
    pub(crate) fn keep_chunk(&self, chunk: &ChunkRef, data: Filled) {
        if let Some(memory) = self.tiers().first() {
            memory.keep_chunk(chunk, data);
        }
    }

    /// A copy that finds no room, or that a write has overtaken, is no loss.
    fn keep<'a>(&self, memory: &Arc<dyn Tier>, value: &Value, body: impl FnOnce() -> Option<NewBody<'a>>) {
        if let Some((key, stamp)) = &value.slower {
            self.order.if_unchanged(key, *stamp, || {
                body().and_then(|body| memory.commit(key, &value.meta, body).now())
            });
        }
    }
}
