//! Ranges of bytes, and how a range falls onto chunks.

use crate::tree::CHUNK_SIZE;

/// The bytes from `start` to before `end` of a value. `start <= end` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// `None` when `end` comes before `start`.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// All of a value of `size` bytes.
    pub fn whole(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    /// Offset of the first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True when it covers no byte.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The numbers of the chunks that it touches.
    pub fn chunks(&self) -> std::ops::Range<u64> {
        if self.is_empty() { 0..0 } else { self.start / CHUNK_SIZE..self.end.div_ceil(CHUNK_SIZE) }
    }

    /// The piece at its beginning that lies in one chunk; `None` when it is empty.
    pub fn first_piece(&self) -> Option<ChunkPiece> {
        if self.is_empty() {
            return None;
        }
        let number = self.start / CHUNK_SIZE;
        let from = self.start % CHUNK_SIZE;
        let to = (from + self.len()).min(CHUNK_SIZE);
        Some(ChunkPiece { number, from: from as u32, to: to as u32 })
    }

    /// The same span without its first `count` bytes; empty when there are no more.
    pub fn skip(&self, count: u64) -> Self {
        Self { start: self.start.saturating_add(count).min(self.end), end: self.end }
    }
}

/// The bytes `from..to` of chunk `number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPiece {
    /// The chunk's number in its value.
    pub number: u64,
    /// First byte within the chunk.
    pub from: u32,
    /// Behind the last byte within the chunk.
    pub to: u32,
}

impl ChunkPiece {
    /// Number of bytes, at least 1.
    pub fn len(&self) -> u64 {
        u64::from(self.to - self.from)
    }

    /// Never: a piece has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_pieces_of_a_span_are_the_span(start in 0..6 * CHUNK_SIZE, len in 0..6 * CHUNK_SIZE) {
            let span = Span::new(start, start + len).unwrap();
            let mut rest = span;
            let mut at = start;
            let mut numbers = Vec::new();
            while let Some(piece) = rest.first_piece() {
                prop_assert_eq!(piece.number * CHUNK_SIZE + u64::from(piece.from), at);
                prop_assert!(!piece.is_empty() && u64::from(piece.to) <= CHUNK_SIZE);
                numbers.push(piece.number);
                at += piece.len();
                rest = rest.skip(piece.len());
            }
            prop_assert_eq!(at, span.end());
            prop_assert_eq!(numbers, span.chunks().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_far_end_of_u64_does_not_overflow() {
        let span = Span::new(u64::MAX - 1, u64::MAX).unwrap();
        assert_eq!(span.skip(u64::MAX).len(), 0);
        assert_eq!(span.first_piece().map(|p| p.len()), Some(1));
        assert_eq!(Span::new(2, 1), None);
    }
}
