//! A range on its way out, chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::payload::Payload;
use elcache_core::span::Span;
use elcache_core::tier::Lookup;

use crate::engine::{Engine, Search};
use crate::outcome::{ReadFailed, Value};

/// Reads a span of a value from its beginning to its end.
pub struct Reader {
    engine: Arc<Engine>,
    value: Arc<Value>,
    rest: Span,
    page: Option<(u64, Bytes)>,
}

impl Reader {
    pub(crate) fn new(engine: Arc<Engine>, value: Arc<Value>, span: Span) -> Self {
        Self { engine, value, rest: span, page: None }
    }

    /// The bytes from where it stands up to the end of the chunk or of the span; `None` at the end. The same again until
    /// [`Reader::advance`], so that a slow client's bytes need not be held: they can be asked for anew.
    ///
    /// # Errors
    /// When they have been evicted since the reader was made.
    pub async fn next(&mut self) -> Result<Option<Payload>, ReadFailed> {
        let Some(piece) = self.rest.first_piece() else { return Ok(None) };
        if let Some(data) = self.value.inline() {
            return Ok(Some(data.slice(self.rest.start() as usize, self.rest.end() as usize)));
        }
        let owner = self.value.owner().ok_or(ReadFailed)?;
        let mut search = Search::new(&self.engine, owner, self.value.meta.size).with_page(self.page.take());
        let chunk = search.chunk(piece.number).await;
        self.page = search.into_page();
        let Lookup::Hit(chunk) = chunk else { return Err(ReadFailed) };
        for tier in self.engine.tiers() {
            if let Lookup::Hit(payload) = tier.chunk(&chunk, piece.from, piece.to).get().await
                && payload.len() as u64 == piece.len()
            {
                return Ok(Some(payload));
            }
        }
        Err(ReadFailed)
    }

    /// Says that `count` bytes have been given out.
    pub fn advance(&mut self, count: u64) {
        self.rest = self.rest.skip(count);
        self.engine.count_read(self.value.tier, count);
    }

    /// Bytes to the end.
    pub fn remaining(&self) -> u64 {
        self.rest.len()
    }
}
