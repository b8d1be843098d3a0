//! The chunked transfer coding (RFC 9112 section 7.1), read byte by byte so that it may arrive in any pieces.

/// The most bytes of one chunk's extensions.
const MAX_EXTENSION: usize = 4 << 10;
/// The most bytes of all trailers.
const MAX_TRAILERS: usize = 16 << 10;
/// Digits of a chunk's size: those of a `u64`.
const MAX_DIGITS: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a size, after this many digits.
    Size(u8),
    Extension,
    /// At the LF that ends a size.
    SizeEnd,
    Data,
    /// At the CR, and at the LF, that follow data.
    DataCr,
    DataLf,
    /// In a trailer line; true while it is empty.
    Trailer(bool),
    /// At the LF that ends it.
    TrailerEnd(bool),
    Done,
}

/// Reads the framing; the data in between is its user's.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Size of the chunk, then what is left of it.
    left: u64,
    /// Bytes of extensions of this chunk, or of trailers.
    extra: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size(0), left: 0, extra: 0 }
    }
}

impl Decoder {
    /// Data bytes that come next. When there are none and it is not done, framing comes next.
    pub(super) fn data_left(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    /// Says that data bytes were taken, at most those left.
    pub(super) fn take(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
        if self.state == State::Data && self.left == 0 {
            self.state = State::DataCr;
        }
    }

    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads framing until data comes, or the end, or there is no more. Says how many bytes it took.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut taken = 0;
        for &byte in bytes {
            if matches!(self.state, State::Data | State::Done) {
                break;
            }
            self.state = self.step(byte)?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size(digits), _) if byte.is_ascii_hexdigit() => self.digit(digits, byte),
            (State::Size(1..) | State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Size(1..), b';' | b' ' | b'\t') => Ok(State::Extension),
            (State::Extension, _) if is_text(byte) => {
                self.count(MAX_EXTENSION, "The extensions of a chunk are too long.")?;
                Ok(State::Extension)
            }
            (State::SizeEnd, b'\n') => {
                self.extra = 0;
                Ok(if self.left == 0 { State::Trailer(true) } else { State::Data })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.left = 0;
                Ok(State::Size(0))
            }
            (State::Trailer(is_empty), b'\r') => Ok(State::TrailerEnd(is_empty)),
            (State::Trailer(_), _) if is_text(byte) => {
                self.count(MAX_TRAILERS, "The trailers are too long.")?;
                Ok(State::Trailer(false))
            }
            (State::TrailerEnd(true), b'\n') => Ok(State::Done),
            (State::TrailerEnd(false), b'\n') => Ok(State::Trailer(true)),
            _ => Err("The chunked coding of the body is malformed."),
        }
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, &'static str> {
        if digits == MAX_DIGITS {
            return Err("The size of a chunk is too large.");
        }
        let value = char::from(byte).to_digit(16).unwrap_or(0);
        self.left = self.left << 4 | u64::from(value);
        Ok(State::Size(digits + 1))
    }

    fn count(&mut self, limit: usize, otherwise: &'static str) -> Result<(), &'static str> {
        self.extra += 1;
        if self.extra > limit { Err(otherwise) } else { Ok(()) }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes bytes that come in pieces of `step`. The body, whether it ended, and how much was taken.
    fn decode(bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool, usize), &'static str> {
        let mut decoder = Decoder::default();
        let (mut body, mut taken) = (Vec::new(), 0);
        for piece in bytes.chunks(step) {
            let mut rest = piece;
            while !rest.is_empty() && !decoder.is_done() {
                let data = usize::try_from(decoder.data_left()).unwrap_or(usize::MAX).min(rest.len());
                body.extend_from_slice(&rest[..data]);
                decoder.take(data as u64);
                let framing = decoder.read(&rest[data..])?;
                rest = &rest[data + framing..];
                taken += data + framing;
            }
        }
        Ok((body, decoder.is_done(), taken))
    }

    fn encode(chunks: &[Vec<u8>], extension: &str, trailer: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            bytes.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn chunks_in_any_pieces_are_their_body(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            extension in prop_oneof![Just(""), Just(";a=b"), Just(" ; a=\"x;y\"")],
            trailer in prop_oneof![Just(""), Just("A: b\r\n"), Just("A: b\r\nC: d\r\n")],
            step in 1_usize..60,
        ) {
            let mut bytes = encode(&chunks, extension, trailer);
            let length = bytes.len();
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            prop_assert_eq!(decode(&bytes, step), Ok((chunks.concat(), true, length)));
        }

        #[test]
        fn any_bytes_mean_the_same_in_any_pieces(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'), Just(b';')], 0..60), step in 1_usize..10) {
            prop_assert_eq!(decode(&bytes, step), decode(&bytes, usize::MAX));
        }
    }

    #[test]
    fn framing_is_strict() {
        let bad = [
            "\r\n",
            " 1\r\n",
            "g\r\n",
            "1\n",
            "1;a\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\r1",
            "0\r\nA: b\n",
            "0\r\n\n",
            "0\r\n\r0",
            "-1\r\n",
            "0x1\r\n",
            "11111111111111111\r\n",
            "1;\0\r\n",
            "0\r\na\0\r\n",
            "+1\r\n",
            "1\r\r\n",
            ";a\r\n",
        ];
        for bytes in bad {
            assert!(decode(bytes.as_bytes(), 1).is_err(), "{bytes:?}");
        }
        assert_eq!(decode(b"0000000000000001\r\na\r\n0\r\n\r\n", 1), Ok((b"a".to_vec(), true, 26)));
        assert_eq!(decode(b"FfFfFfFfFfFfFfFf\r\na", 1), Ok((b"a".to_vec(), false, 19)));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = |length: usize| "x".repeat(length);
        assert!(decode(format!("1;{}\r\na\r\n", long(4 << 10)).as_bytes(), 7).is_ok());
        assert!(decode(format!("1;{}\r\na\r\n", long((4 << 10) + 1)).as_bytes(), 7).is_err());
        assert!(decode(format!("0\r\n{}", "a: b\r\n".repeat(3000)).as_bytes(), 7).is_ok());
        assert!(decode(format!("0\r\n{}", "a: b\r\n".repeat(5000)).as_bytes(), 7).is_err());
    }
}
