//! A range on its way out, chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::payload::Payload;
use elcache_core::span::{ChunkPiece, Span};
use elcache_core::tier::{Apart, ChunkRef, Lookup, Part, TierName};
use elcache_core::tree::{self, CHUNK_SIZE};

use crate::engine::Engine;
use crate::flights::Read;
use crate::manifest;
use crate::outcome::{ReadFailed, Value};
use crate::search::Search;
use crate::sparse::SpanReader;

/// Reads a span of a value, or of what is written of an upload, from its beginning to its end.
pub struct Reader(Origin);

enum Origin {
    Value(ValueReader),
    Upload(Arc<Engine>, SpanReader),
}

/// Reads a span of a value.
struct ValueReader {
    engine: Arc<Engine>,
    value: Arc<Value>,
    rest: Span,
    page: Option<(u64, Bytes)>,
    /// Which tier the piece came from that is being given out.
    tier: TierName,
    /// Chunks before this one have been read ahead.
    ahead: u64,
}

impl Reader {
    pub(crate) fn new(engine: Arc<Engine>, value: Arc<Value>, span: Span) -> Self {
        let tier = value.tier;
        Self(Origin::Value(ValueReader { engine, value, rest: span, page: None, tier, ahead: 0 }))
    }

    pub(crate) fn of_upload(engine: Arc<Engine>, reader: SpanReader) -> Self {
        Self(Origin::Upload(engine, reader))
    }

    /// The bytes from where it stands up to the end of the chunk or of the span; `None` at the end. The same again until
    /// [`Reader::advance`], so that a slow client's bytes need not be held: they can be asked for anew.
    ///
    /// # Errors
    /// When they have been evicted since the reader was made.
    pub async fn next(&mut self) -> Result<Option<Payload>, ReadFailed> {
        match &mut self.0 {
            Origin::Value(reader) => reader.next().await,
            Origin::Upload(_, reader) => reader.next().await,
        }
    }

    /// Says that `count` bytes have been given out.
    pub fn advance(&mut self, count: u64) {
        match &mut self.0 {
            Origin::Value(reader) => {
                reader.rest = reader.rest.skip(count);
                reader.engine.count_read(reader.tier, count);
            }
            Origin::Upload(engine, reader) => {
                reader.advance(count);
                engine.count_read(reader.tier(), count);
            }
        }
    }

    /// Bytes to the end.
    pub fn remaining(&self) -> u64 {
        match &self.0 {
            Origin::Value(reader) => reader.rest.len(),
            Origin::Upload(_, reader) => reader.remaining(),
        }
    }
}

impl ValueReader {
    async fn next(&mut self) -> Result<Option<Payload>, ReadFailed> {
        let Some(piece) = self.rest.first_piece() else { return Ok(None) };
        if let Some(data) = self.value.inline() {
            return Ok(Some(data.slice(self.rest.start() as usize, self.rest.end() as usize)));
        }
        let read = match self.value.apart() {
            Some(apart) => self.read_apart(&Arc::clone(apart)).await,
            None => self.read_chunk(piece).await?,
        };
        match read {
            Lookup::Hit(read) if read.bytes.len() as u64 == piece.len() => {
                self.tier = read.tier;
                Ok(Some(read.bytes))
            }
            _ => Err(ReadFailed),
        }
    }

    /// The rest of the span of a value of at most one chunk. Who wants all of it, has it kept.
    async fn read_apart(&self, apart: &Arc<dyn Apart>) -> Lookup<Read> {
        let (from, to) = (self.rest.start() as u32, self.rest.end() as u32);
        if to - from == self.value.meta.size as u32 {
            return self.engine.fetch_value(&self.value, apart).await;
        }
        let part = apart.read(from, to).get().await;
        if let Lookup::Hit(Part { hot: true, .. }) = part {
            let (engine, value, apart) =
                (Arc::clone(&self.engine), Arc::clone(&self.value), Arc::clone(apart));
            self.ahead_of_need(async move { drop(engine.fetch_value(&value, &apart).await) });
        }
        part.map(|part| Read { bytes: part.bytes, tier: self.value.tier })
    }

    async fn read_chunk(&mut self, piece: ChunkPiece) -> Result<Lookup<Read>, ReadFailed> {
        let owner = self.value.owner().ok_or(ReadFailed)?;
        let engine = Arc::clone(&self.engine);
        let mut search = Search::new(&engine, owner, self.value.meta.size).with_page(self.page.take());
        let chunk = search.chunk(piece.number).await;
        self.page = search.into_page();
        let Lookup::Hit(chunk) = chunk else { return Err(ReadFailed) };
        let keep = !self.value.meta.no_memory;
        let whole = piece.len() == u64::from(chunk.len);
        if keep && whole && engine.tiers().len() > 1 {
            self.read_ahead(piece.number);
        }
        for (place, tier) in engine.tiers().iter().enumerate() {
            if place > 0 && keep && whole {
                return Ok(engine.fetch_chunk(&chunk).await);
            }
            if let Lookup::Hit(part) = tier.chunk(&chunk, piece.from, piece.to).get().await {
                if part.hot && keep {
                    let engine = Arc::clone(&engine);
                    self.ahead_of_need(async move { drop(engine.fetch_chunk(&chunk).await) });
                }
                return Ok(Lookup::Hit(Read { bytes: part.bytes, tier: tier.name() }));
            }
        }
        Ok(Lookup::Miss)
    }

    /// Has the chunks behind this one read, as far as the span wants them as a whole and nobody has done so yet.
    fn read_ahead(&mut self, number: u64) {
        let last = number + u64::from(self.engine.config.prefetch_chunks);
        for next in self.ahead.max(number + 1)..=last {
            let (start, len) = (next * CHUNK_SIZE, tree::chunk_len(self.value.meta.size, next));
            let (page, place) = manifest::place_of(next);
            let digest = self.page.as_ref().filter(|(have, _)| *have == page);
            let digest = digest.and_then(|(_, bytes)| manifest::digest_at(bytes, place));
            let Some(digest) = digest.filter(|_| len > 0 && start + len <= self.rest.end()) else { return };
            let chunk = ChunkRef { digest, number: next, len: len as u32 };
            let engine = Arc::clone(&self.engine);
            self.ahead_of_need(async move {
                let here = engine.tiers().first().map(|tier| tier.has_chunk(&chunk).now());
                if here.flatten() == Some(false) {
                    drop(engine.fetch_chunk(&chunk).await);
                }
            });
            self.ahead = next + 1;
        }
    }

    /// Reads something that may be wanted, unless enough of that is going on already.
    fn ahead_of_need(&self, read: impl Future<Output = ()> + Send + 'static) {
        if let Ok(permit) = Arc::clone(&self.engine.ahead).try_acquire_owned() {
            tokio::spawn(async move {
                read.await;
                drop(permit);
            });
        }
    }
}
