//! Bytes on their way: a [`Payload`] is finished and shared, a [`Buffer`] is being filled.
//!
//! Both may lie in several pieces, because the arenas that hold them hand out what room there is rather than wait
//! for one run of it.

use std::any::Any;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::Digest;
use crate::shared::Place;

/// The file in which the bytes of a piece lie, so that they can be sent from there without being copied.
pub trait Backing: Send + Sync {
    /// The file, and the offset in it of byte `from` of the piece as it was made. Whoever sends from there leaves
    /// references to the file's pages in sockets, for longer than the piece may live: from this call on the owner must
    /// never write the pages of these `len` bytes again.
    fn lend(&self, from: usize, len: usize) -> Option<(BorrowedFd<'_>, u64)>;
}

/// A run of bytes.
#[derive(Clone, Default)]
struct Piece {
    bytes: Bytes,
    /// Where they lie in a file, and how many bytes of that come before these.
    file: Option<(Arc<dyn Backing>, usize)>,
    /// Where they lie in memory that can be shared.
    place: Option<Place>,
}

impl Piece {
    fn slice(&self, from: usize, to: usize) -> Self {
        let file = self.file.as_ref().map(|(file, before)| (Arc::clone(file), before + from));
        let place = self.place.map(|place| Place { offset: place.offset + from as u32, ..place });
        Self { bytes: self.bytes.slice(from..to), file, place }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// Finished bytes in one or more pieces. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    first: Piece,
    rest: Vec<Piece>,
    len: usize,
}

impl Payload {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece at the end. An empty piece adds nothing.
    pub fn push(&mut self, bytes: Bytes) {
        self.add(Piece { bytes, file: None, place: None });
    }

    /// Adds a piece whose bytes lie at a place that can be shared.
    pub fn push_placed(&mut self, bytes: Bytes, place: Option<Place>) {
        self.add(Piece { bytes, file: None, place });
    }

    /// Adds a piece whose bytes lie at a place that can be shared, and in a file as well, `before` bytes behind the beginning of what
    /// the file lends.
    pub fn push_backed(&mut self, bytes: Bytes, place: Option<Place>, file: Arc<dyn Backing>, before: usize) {
        self.add(Piece { bytes, file: Some((file, before)), place });
    }

    /// Adds the pieces of another at the end.
    pub fn append(&mut self, other: Self) {
        self.add(other.first);
        other.rest.into_iter().for_each(|piece| self.add(piece));
    }

    fn add(&mut self, piece: Piece) {
        if piece.bytes.is_empty() {
            return;
        }
        self.len += piece.bytes.len();
        if self.first.bytes.is_empty() {
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
        self.parts().map(|piece| &piece.bytes)
    }

    /// The bytes from offset `from` on as a run in a file: what lends the file, the offset within what it lends, and
    /// the length. `None` where they lie in none.
    pub fn file_run(&self, from: usize) -> Option<(&dyn Backing, usize, usize)> {
        let mut passed = 0;
        for piece in self.parts() {
            let within = from.checked_sub(passed)?;
            if within < piece.bytes.len() {
                let (file, before) = piece.file.as_ref()?;
                return Some((&**file, before + within, piece.bytes.len() - within));
            }
            passed += piece.bytes.len();
        }
        None
    }

    /// The pieces in order, each with its place if it has one.
    pub fn places(&self) -> impl Iterator<Item = (&Bytes, Option<Place>)> {
        self.parts().map(|piece| (&piece.bytes, piece.place))
    }

    fn parts(&self) -> impl Iterator<Item = &Piece> {
        std::iter::once(&self.first).chain(&self.rest).filter(|piece| !piece.bytes.is_empty())
    }

    /// The bytes `from..to`, shared; what lies behind the end is left out.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let mut slice = Self::new();
        let mut at = 0;
        for piece in self.parts() {
            let len = piece.bytes.len();
            let start = from.saturating_sub(at).min(len);
            let end = to.saturating_sub(at).min(len);
            if start < end {
                slice.add(piece.slice(start, end));
            }
            at += len;
        }
        slice
    }

    /// Everything in one run; copies when there is more than one piece.
    pub fn to_contiguous(&self) -> Bytes {
        if self.rest.is_empty() {
            return self.first.bytes.clone();
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

    /// All the room that is left, run after run: for whoever fills more than one at once.
    fn spaces(&mut self) -> Vec<&mut [u8]>;

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

/// A full buffer with the bytes of a chunk, or of a value of at most one, and what hashing them gave on the way. Cloning
/// shares it; the last tier to take it gets the buffer itself.
#[derive(Clone)]
pub struct Filled {
    buffer: Arc<Box<dyn Buffer>>,
    subtrees: Arc<[Digest]>,
}

impl Filled {
    /// A buffer, and the chaining values of its bytes' subtrees of 64 KiB; of fewer than two of them none need be given.
    pub fn new(buffer: Box<dyn Buffer>, subtrees: Vec<Digest>) -> Self {
        Self { buffer: Arc::new(buffer), subtrees: subtrees.into() }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.buffer.filled()
    }

    /// True when there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The chaining values.
    pub fn subtrees(&self) -> &[Digest] {
        &self.subtrees
    }

    /// The bytes, shared.
    pub fn payload(&self) -> Payload {
        let mut payload = Payload::new();
        let mut from = 0;
        while from < self.len() {
            let len = self.buffer.run(from).len();
            payload.push(Bytes::from_owner(Run { buffer: Arc::clone(&self.buffer), from, len }));
            from += len;
        }
        payload
    }

    /// The buffer, unless somebody shares it still.
    pub fn into_buffer(self) -> Result<Box<dyn Buffer>, Self> {
        let Self { buffer, subtrees } = self;
        Arc::try_unwrap(buffer).map_err(|buffer| Self { buffer, subtrees })
    }
}

/// A run of a full buffer.
struct Run {
    buffer: Arc<Box<dyn Buffer>>,
    from: usize,
    len: usize,
}

impl AsRef<[u8]> for Run {
    fn as_ref(&self) -> &[u8] {
        self.buffer.run(self.from).get(..self.len).unwrap_or_default()
    }
}

/// Where buffers come from: the one memory budget.
pub trait Buffers: Send + Sync + 'static {
    /// Room for `len` bytes, 1 to 4 MiB. `None` when there is none at the moment.
    fn buffer(&self, len: usize) -> Option<Box<dyn Buffer>>;
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
