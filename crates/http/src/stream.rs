//! A body that is read as it goes out: spans of a value, and between them, where there are several, the delimiters
//! of multipart.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Payload;
use elcache_core::span::Span;
use elcache_engine::{Engine, Found, ReadFailed, Reader, Value};

/// A piece of a body.
pub(crate) enum Part {
    /// These bytes.
    Text(Bytes),
    /// These bytes of the value.
    Span(Span),
}

/// Reads the parts of a body in order.
pub(crate) struct Stream {
    engine: Arc<Engine>,
    key: Key,
    digest: Digest,
    /// None after [`Stream::let_go`], until it is needed again.
    value: Option<Arc<Value>>,
    parts: VecDeque<Part>,
    /// Reads the first part, when that is a span.
    reader: Option<Reader>,
    /// What was read ahead, to be sure that there is something before the status line says so.
    first: Option<Payload>,
}

impl Stream {
    pub(crate) fn new(engine: &Arc<Engine>, key: &Key, value: Value, parts: VecDeque<Part>) -> Self {
        Self {
            engine: Arc::clone(engine),
            key: key.clone(),
            digest: value.meta.digest,
            value: Some(Arc::new(value)),
            parts,
            reader: None,
            first: None,
        }
    }

    /// Reads the beginning, so that a value that has gone can still be answered with an error.
    pub(crate) async fn prime(&mut self) -> Result<(), ReadFailed> {
        self.first = self.next().await?;
        Ok(())
    }

    /// The bytes from the current position to the end of a piece, again the same until they are passed with
    /// [`Stream::advance`]; none at the end. Holding them holds cache memory.
    pub(crate) async fn next(&mut self) -> Result<Option<Payload>, ReadFailed> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            let span = match self.parts.front() {
                None => return Ok(None),
                Some(Part::Text(bytes)) if bytes.has_remaining() => return Ok(Some(bytes.clone().into())),
                Some(Part::Span(span)) if !span.is_empty() => *span,
                Some(_) => {
                    self.parts.pop_front();
                    continue;
                }
            };
            if self.reader.is_none() {
                let value = self.value().await?;
                self.reader = Some(self.engine.reader(value, span));
            }
            let Some(reader) = &mut self.reader else { return Err(ReadFailed) };
            return reader.next().await?.map(Some).ok_or(ReadFailed);
        }
    }

    /// Passes bytes that [`Stream::next`] gave.
    pub(crate) fn advance(&mut self, count: usize) {
        self.first = None;
        match self.parts.front_mut() {
            Some(Part::Text(bytes)) => bytes.advance(count.min(bytes.len())),
            Some(Part::Span(span)) => {
                *span = span.skip(count as u64);
                if let Some(reader) = &mut self.reader {
                    reader.advance(count as u64);
                }
                if span.is_empty() {
                    self.reader = None;
                }
            }
            None => {}
        }
    }

    /// Holds no memory of the cache from now on. A value of one chunk, which is held as a whole, is looked up again
    /// when it is needed: a client that takes its time must not keep it from being evicted.
    pub(crate) fn let_go(&mut self) {
        self.first = None;
        if self.value.as_ref().is_some_and(|value| value.inline().is_some()) {
            self.value = None;
            self.reader = None;
        }
    }

    async fn value(&mut self) -> Result<Arc<Value>, ReadFailed> {
        if let Some(value) = &self.value {
            return Ok(Arc::clone(value));
        }
        let Found::Value(value) = self.engine.get(&self.key).await else { return Err(ReadFailed) };
        if value.meta.digest != self.digest {
            return Err(ReadFailed);
        }
        let value = Arc::new(value);
        self.value = Some(Arc::clone(&value));
        Ok(value)
    }
}
