//! How what has arrived comes to count.

use std::collections::BTreeSet;
use std::sync::Arc;

use elcache_core::payload::Payload;
use elcache_core::staging::{Filling, Fragment};
use elcache_core::tier::{Lookup, Staged};
use tokio::task::JoinSet;

use super::SparseError;
use super::draft::Draft;
use super::ledger::Reserved;
use super::map::{Source, Step};
use crate::engine::{Engine, refused};
use crate::outcome::WriteError;

/// Pieces of one range that are made to count at once.
const AT_ONCE: usize = 32;
/// What lies in more places than these is not read to find out whether it is written again as it is.
const COMPARED_PIECES: usize = 16;

/// What has arrived of one chunk.
pub(crate) struct Piece {
    pub(crate) number: u64,
    pub(crate) arrived: Arrived,
}

pub(crate) enum Arrived {
    /// All of it.
    Whole(Staged),
    /// The bytes `from..to`.
    Part { from: u32, to: u32, bytes: Payload },
}

impl Draft {
    /// Makes all pieces count. When that fails, those before the one that failed may count: all of their bytes have arrived.
    pub(super) async fn write(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        pieces: Vec<Piece>,
        mut reserved: Option<Reserved>,
    ) -> Result<(), SparseError> {
        let state = Arc::clone(&self.state).read_owned().await;
        Self::open(*state)?;
        let mut pages = BTreeSet::new();
        let mut outcome = Ok(());
        let mut pieces = pieces.into_iter();
        let mut writing = JoinSet::new();
        loop {
            while writing.len() < AT_ONCE && outcome.is_ok() {
                let Some(piece) = pieces.next() else { break };
                let footprint = self.staging()?.footprint(piece.len());
                let room = reserved.as_mut().map(|reserved| reserved.split(footprint));
                let (draft, engine) = (Arc::clone(self), Arc::clone(engine));
                writing.spawn(async move { draft.write_piece(&engine, piece, room).await });
            }
            match writing.join_next().await {
                None => break,
                Some(done) => match done.unwrap_or(Err(WriteError::Failed.into())) {
                    Ok(page) => pages.extend(page),
                    Err(error) => outcome = Err(error),
                },
            }
        }
        drop(state);
        for page in pages {
            // What was written counts whether this succeeds or not; it is tried again before the end.
            if let Err(error) = self.compose(engine, page).await {
                tracing::warn!(page, ?error, "a page of an upload could not be written");
            }
        }
        outcome
    }

    /// Makes one piece count; the page that can be written then.
    async fn write_piece(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        piece: Piece,
        room: Option<Reserved>,
    ) -> Result<Option<u64>, SparseError> {
        let number = piece.number;
        let _writing = self.lock(number).await;
        match piece.arrived {
            Arrived::Whole(staged) => self.write_whole(number, staged, room).await?,
            Arrived::Part { from, to, bytes } => self.write_part(number, from, to, bytes, room).await?,
        }
        Ok(self.tidy(engine, number).await)
    }

    async fn write_whole(
        &self,
        number: u64,
        staged: Staged,
        room: Option<Reserved>,
    ) -> Result<(), SparseError> {
        let digest = staged.chunk.digest;
        let plan = self.tracked.lock().map.plan(number, 0, self.chunk_len(number));
        let same = match plan.as_slice() {
            [piece] => match piece.source {
                Source::Chunk(here) => here == digest,
                Source::InPage => {
                    matches!(self.digest_in_page(number, &mut None).await, Lookup::Hit(here) if here == digest)
                }
                Source::Fragment(_) => false,
            },
            _ => false,
        };
        if same {
            return Ok(());
        }
        let _arriving = self.arriving()?;
        let filling = Filling { draft: self.owner, chunk: number, serial: self.next_serial(), digest };
        self.fill(filling, staged, room).await?;
        Ok(())
    }

    /// Makes a staged chunk the draft's.
    pub(super) async fn fill(
        &self,
        filling: Filling,
        staged: Staged,
        room: Option<Reserved>,
    ) -> Result<(), WriteError> {
        let staging = self.staging()?;
        let footprint = staging.footprint(staged.chunk.len);
        staging.fill(filling, staged).get().await.map_err(refused)?;
        let gone = self.change(|map| map.fill(filling));
        self.account(room, footprint, self.footprint(&gone));
        Ok(())
    }

    async fn write_part(
        self: &Arc<Self>,
        number: u64,
        from: u32,
        to: u32,
        bytes: Payload,
        room: Option<Reserved>,
    ) -> Result<(), SparseError> {
        if self.has_already(number, from, to, &bytes).await {
            return Ok(());
        }
        self.tracked.lock().map.admits(number, from, to).map_err(|_| SparseError::TooManyRanges)?;
        let _arriving = self.arriving()?;
        self.write_fragment(number, from, to, bytes, room).await?;
        Ok(())
    }

    /// Writes a layer of a chunk.
    pub(super) async fn write_fragment(
        &self,
        number: u64,
        from: u32,
        to: u32,
        bytes: Payload,
        room: Option<Reserved>,
    ) -> Result<(), WriteError> {
        let staging = self.staging()?;
        let fragment = Fragment { draft: self.owner, chunk: number, serial: self.next_serial(), from, to };
        staging.write(fragment, bytes).get().await.map_err(refused)?;
        let gone = self.change(|map| map.fragment(fragment));
        self.account(room, staging.footprint(to - from), self.footprint(&gone));
        Ok(())
    }

    /// Whether these very bytes are written: what is sent again costs a read, and not another layer.
    async fn has_already(&self, number: u64, from: u32, to: u32, bytes: &Payload) -> bool {
        let plan = self.tracked.lock().map.plan(number, from, to);
        let covered: u32 = plan.iter().map(|piece| piece.to - piece.from).sum();
        if covered < to - from || plan.len() > COMPARED_PIECES {
            return false;
        }
        let mut page = None;
        for piece in plan {
            let Lookup::Hit(here) = self.read_piece(number, &piece, &mut page).await else { return false };
            let sent = bytes.slice((piece.from - from) as usize, (piece.to - from) as usize);
            if !is_same(&here, &sent) {
                return false;
            }
        }
        true
    }

    /// What is due after a write of a chunk; the page that can be written then. Failing at it takes nothing away.
    async fn tidy(self: &Arc<Self>, engine: &Arc<Engine>, number: u64) -> Option<u64> {
        let step = self.tracked.lock().map.next_step(number);
        let done = match step {
            Step::Nothing => Ok(()),
            Step::Fill => self.fill_chunk(engine, number).await,
            Step::Join => self.join(engine, number).await,
            Step::Compose => return Some(number / elcache_core::tree::PAGE_DIGESTS),
        };
        if let Err(error) = done {
            tracing::warn!(chunk = number, ?error, "what is written of a chunk could not be combined");
        }
        let step = self.tracked.lock().map.next_step(number);
        (step == Step::Compose).then_some(number / elcache_core::tree::PAGE_DIGESTS)
    }

    /// Takes memory for one more write, given back when that is in the map.
    fn arriving(&self) -> Result<Arriving<'_>, SparseError> {
        let granted = self.tracked.lock().begin();
        granted.then_some(Arriving(self)).ok_or(SparseError::TooManyRanges)
    }
}

/// A write on its way into the map.
struct Arriving<'a>(&'a Draft);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.tracked.lock().arrived();
    }
}

impl Piece {
    fn len(&self) -> u32 {
        match &self.arrived {
            Arrived::Whole(staged) => staged.chunk.len,
            Arrived::Part { from, to, .. } => to - from,
        }
    }
}

fn is_same(one: &Payload, other: &Payload) -> bool {
    let mut at = 0;
    let equal = one.pieces().all(|piece| {
        let there = other.slice(at, at + piece.len());
        at += piece.len();
        let mut rest = &piece[..];
        there.pieces().all(|run| {
            let Some((now, later)) = rest.split_at_checked(run.len()) else { return false };
            rest = later;
            now == &run[..]
        }) && rest.is_empty()
    });
    equal && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Payload {
        let mut payload = Payload::new();
        let mut rest = bytes;
        for cut in cuts {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            payload.push(Bytes::copy_from_slice(now));
            rest = later;
        }
        payload.push(Bytes::copy_from_slice(rest));
        payload
    }

    proptest! {
        #[test]
        fn bytes_are_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(0_u8..3, 0..40),
            other in proptest::collection::vec(0_u8..3, 0..40),
            cuts in proptest::collection::vec(0_usize..12, 0..6),
            more in proptest::collection::vec(0_usize..12, 0..6),
        ) {
            prop_assert!(is_same(&in_pieces(&bytes, &cuts), &in_pieces(&bytes, &more)));
            prop_assert_eq!(is_same(&in_pieces(&bytes, &cuts), &in_pieces(&other, &more)), bytes == other);
        }
    }
}
