//! Bytes on their way: a [`Payload`] is finished and shared, a [`Buffer`] is being filled.
//!
//! Both may lie in several pieces, because the arenas that hold them hand out what room there is rather than wait
//! for one run of it.

use std::any::Any;

use bytes::Bytes;

/// Finished bytes in one or more pieces. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

impl Payload {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece at the end. An empty piece adds nothing.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push(piece);
        }
    }

    /// Number of bytes in all pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order; none of them is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.rest).filter(|piece| !piece.is_empty())
    }

    /// The bytes `from..to`, shared; what lies behind the end is left out.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let mut part = Self::new();
        let mut at = 0;
        for piece in self.pieces() {
            let start = from.saturating_sub(at).min(piece.len());
            let end = to.saturating_sub(at).min(piece.len());
            if start < end {
                part.push(piece.slice(start..end));
            }
            at += piece.len();
        }
        part
    }

    /// Everything in one run; copies when there is more than one piece.
    pub fn to_contiguous(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.clone();
        }
        let mut all = Vec::with_capacity(self.len);
        self.pieces().for_each(|piece| all.extend_from_slice(piece));
        all.into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let mut payload = Self::new();
        payload.push(bytes);
        payload
    }
}

/// Room for bytes to be received into, owned by one upload. A tier hands it out and takes it back, filled, without
/// a copy.
pub trait Buffer: Send + Sync {
    /// How many bytes it holds when it is full.
    fn capacity(&self) -> usize;

    /// How many bytes have been filled.
    fn filled(&self) -> usize;

    /// Where the next bytes go: a run of one or more bytes, or none when it is full.
    fn space(&mut self) -> &mut [u8];

    /// Says that the first `count` bytes of [`Buffer::space`] have been written.
    ///
    /// # Panics
    /// When the space is smaller than that.
    fn advance(&mut self, count: usize);

    /// The filled bytes from offset `from` on, as long as they lie in one run; none at the end.
    fn run(&self, from: usize) -> &[u8];

    /// The tier's own type, for the tier that handed it out.
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slices_of_pieces_are_slices_of_the_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8),
            from in 0_usize..100, to in 0_usize..100,
        ) {
            let whole = pieces.concat();
            let mut payload = Payload::new();
            pieces.into_iter().for_each(|piece| payload.push(piece.into()));
            prop_assert_eq!(payload.len(), whole.len());
            prop_assert_eq!(&payload.to_contiguous()[..], &whole[..]);
            let (from, to) = (from.min(to).min(whole.len()), to.min(whole.len()));
            prop_assert_eq!(&payload.slice(from, to).to_contiguous()[..], &whole[from.min(to)..to]);
            prop_assert!(payload.pieces().all(|piece| !piece.is_empty()));
        }
    }
}
