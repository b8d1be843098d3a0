//! What is written of an upload is read: for a client, or to be combined.

use std::sync::Arc;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::payload::{Buffer, Payload};
use elcache_core::span::Span;
use elcache_core::tier::{Lookup, TierName};
use tokio::task::JoinSet;

use super::draft::Draft;
use super::map::{Piece, Source};
use crate::manifest;
use crate::outcome::{ReadFailed, WriteError};
use crate::transit;

/// Pieces of a chunk that are read at once.
const AT_ONCE: usize = 16;

/// A page that was read.
pub(crate) type Page = Option<(u64, Bytes)>;

impl Draft {
    /// Reads a piece of what is written of a chunk.
    pub(super) async fn read_piece(&self, number: u64, piece: &Piece, page: &mut Page) -> Lookup<Payload> {
        let Ok(staging) = self.staging() else { return Lookup::Miss };
        let (from, to) = (piece.from, piece.to);
        let digest = match piece.source {
            Source::Fragment(fragment) => return staging.read(&fragment, from, to).get().await,
            Source::Chunk(digest) => digest,
            Source::InPage => match self.digest_in_page(number, page).await {
                Lookup::Hit(digest) => digest,
                Lookup::Miss => return Lookup::Miss,
                Lookup::Busy => return Lookup::Busy,
            },
        };
        let chunk = self.chunk(number, digest);
        match staging.read_chunk(self.owner, &chunk, from, to).get().await {
            // It has been finalized meanwhile: its chunks are those of an ordinary value.
            Lookup::Miss => self.home().chunk(&chunk, from, to).get().await.map(|part| part.bytes),
            read => read,
        }
    }

    /// The digest of a chunk that its page names.
    pub(super) async fn digest_in_page(&self, number: u64, page: &mut Page) -> Lookup<Digest> {
        let (wanted, place) = manifest::place_of(number);
        if page.as_ref().is_none_or(|(have, _)| *have != wanted) {
            match self.read_page(wanted).await {
                Lookup::Hit(digests) => *page = Some((wanted, digests)),
                Lookup::Miss => return Lookup::Miss,
                Lookup::Busy => return Lookup::Busy,
            }
        }
        let digest = page.as_ref().and_then(|(_, digests)| manifest::digest_at(digests, place));
        digest.map_or(Lookup::Miss, Lookup::Hit)
    }

    /// Reads a page's digests.
    pub(super) async fn read_page(&self, number: u64) -> Lookup<Bytes> {
        let Ok(staging) = self.staging() else { return Lookup::Miss };
        let page = self.page(number);
        let read = match staging.read_page(&page).get().await {
            Lookup::Miss => self.home().page(&page).get().await,
            read => read,
        };
        read.map(|digests| digests.to_contiguous())
    }

    /// Reads pieces of a chunk, one behind the other, into a buffer. What turns out to be lost is missing from then on.
    pub(super) async fn read_into(
        self: &Arc<Self>,
        number: u64,
        pieces: &[Piece],
        buffer: &mut dyn Buffer,
    ) -> Result<(), WriteError> {
        for some in pieces.chunks(AT_ONCE) {
            let mut reading = JoinSet::new();
            for (place, piece) in some.iter().copied().enumerate() {
                let draft = Arc::clone(self);
                reading.spawn(async move { (place, draft.read_piece(number, &piece, &mut None).await) });
            }
            let mut read = vec![None; some.len()];
            while let Some(done) = reading.join_next().await {
                let (place, found) = done.map_err(|_| WriteError::Failed)?;
                match found {
                    Lookup::Hit(bytes) => read[place] = Some(bytes),
                    Lookup::Busy => return Err(WriteError::Busy),
                    Lookup::Miss => {
                        self.lose(number, some[place].source);
                        return Err(WriteError::Failed);
                    }
                }
            }
            for bytes in read.iter().flatten() {
                for run in bytes.pieces() {
                    let mut rest = &run[..];
                    while !rest.is_empty() && !buffer.space().is_empty() {
                        rest = &rest[transit::put(buffer, rest)..];
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads a span of what is written, as a client wants it.
pub(crate) struct SpanReader {
    draft: Arc<Draft>,
    rest: Span,
    page: Page,
}

impl SpanReader {
    pub(super) fn new(draft: Arc<Draft>, span: Span) -> Self {
        Self { draft, rest: span, page: None }
    }

    /// As [`Reader::next`](crate::Reader::next).
    pub(crate) async fn next(&mut self) -> Result<Option<Payload>, ReadFailed> {
        let Some(wanted) = self.rest.first_piece() else { return Ok(None) };
        let mut tried = None;
        loop {
            let plan = self.draft.tracked.lock().map.plan(wanted.number, wanted.from, wanted.to);
            let piece =
                plan.first().copied().filter(|piece| piece.from == wanted.from && tried != Some(*piece));
            let piece = piece.ok_or(ReadFailed)?;
            match self.draft.read_piece(wanted.number, &piece, &mut self.page).await {
                Lookup::Hit(bytes) if bytes.len() == (piece.to - piece.from) as usize => {
                    return Ok(Some(bytes));
                }
                Lookup::Busy => return Err(ReadFailed),
                // It may have been combined with others since: then it is somewhere else.
                Lookup::Hit(_) | Lookup::Miss => (tried, self.page) = (Some(piece), None),
            }
        }
    }

    pub(crate) fn advance(&mut self, count: u64) {
        self.rest = self.rest.skip(count);
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.rest.len()
    }

    pub(crate) fn tier(&self) -> TierName {
        self.draft.home().name()
    }
}
