//! A body that is read as it goes out: spans of a value or of an upload, and between them, where there are several, the
//! delimiters of multipart.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Payload;
use elcache_core::span::Span;
use elcache_engine::{Engine, Found, ReadFailed, Reader, Sparse, Value};

/// A piece of a body.
pub(crate) enum Part {
    /// These bytes.
    Text(Bytes),
    /// These bytes of what it is read from.
    Span(Span),
}

/// Reads the parts of a body in order.
pub(crate) struct Stream {
    origin: Origin,
    parts: VecDeque<Part>,
    /// Reads the first part, when that is a span.
    reader: Option<Reader>,
    /// What was read ahead, to be sure that there is something before the status line says so.
    first: Option<Payload>,
}

/// What it is read from.
enum Origin {
    Value(Held),
    Upload(Arc<Sparse>),
}

/// A value that may have been let go.
struct Held {
    engine: Arc<Engine>,
    key: Key,
    digest: Digest,
    /// None after [`Stream::let_go`], until it is needed again.
    value: Option<Arc<Value>>,
}

impl Stream {
    pub(crate) fn new(engine: &Arc<Engine>, key: &Key, value: Value, parts: VecDeque<Part>) -> Self {
        let held = Held {
            engine: Arc::clone(engine),
            key: key.clone(),
            digest: value.meta.digest,
            value: Some(Arc::new(value)),
        };
        Self { origin: Origin::Value(held), parts, reader: None, first: None }
    }

    /// Of an upload: all of the parts is written.
    pub(crate) fn of_upload(upload: Arc<Sparse>, parts: VecDeque<Part>) -> Self {
        Self { origin: Origin::Upload(upload), parts, reader: None, first: None }
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
                self.reader = Some(self.origin.reader(span).await?);
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
        if self.origin.let_go() {
            self.reader = None;
        }
    }
}

impl Origin {
    async fn reader(&mut self, span: Span) -> Result<Reader, ReadFailed> {
        match self {
            Self::Value(held) => {
                let value = held.value().await?;
                Ok(held.engine.reader(value, span))
            }
            Self::Upload(upload) => Ok(upload.reader(span)),
        }
    }

    /// Whether a reader of it would hold memory, and has to go.
    fn let_go(&mut self) -> bool {
        let Self::Value(held) = self else { return false };
        held.value.take_if(|value| value.inline().is_some()).is_some()
    }
}

impl Held {
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
