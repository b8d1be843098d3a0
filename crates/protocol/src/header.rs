//! The beginning of a frame.

use std::fmt;

/// The most bytes that the fields of a frame take.
pub const MAX_FIELDS: u32 = 65_536;
/// The most bytes of data in a frame.
pub const MAX_DATA: u64 = 8 << 20;
/// The flag of a last frame.
pub const END: u16 = 1;

/// The version of the protocol as every frame has it.
const VERSION: u8 = crate::VERSION as u8;

/// What a frame is. Not every number means something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u8);

impl Kind {
    /// How a connection begins.
    pub const HELLO: Self = Self(1);
    /// Is anybody there.
    pub const PING: Self = Self(2);
    /// A value is read.
    pub const GET: Self = Self(16);
    /// What is known of a value.
    pub const STAT: Self = Self(17);
    /// A value is written.
    pub const PUT: Self = Self(18);
    /// A value is deleted.
    pub const DELETE: Self = Self(19);
    /// An upload by ranges is opened.
    pub const SPARSE_OPEN: Self = Self(20);
    /// A range is written.
    pub const SPARSE_WRITE: Self = Self(21);
    /// An upload becomes a value.
    pub const SPARSE_FINALIZE: Self = Self(22);
    /// An upload is given up.
    pub const SPARSE_ABORT: Self = Self(23);
    /// The connection is to go on over shared memory.
    pub const SHARE: Self = Self(48);
    /// A region of the cache's memory is asked for.
    pub const MAP: Self = Self(49);
    /// More bytes of a request or of an answer.
    pub const DATA: Self = Self(64);
    /// More bytes may be sent.
    pub const CREDIT: Self = Self(65);
    /// A request is given up.
    pub const CANCEL: Self = Self(66);
    /// An answer, or its end.
    pub const REPLY: Self = Self(128);
    /// Where the next bytes of an answer lie.
    pub const PLACES: Self = Self(129);

    /// Whether a frame of this kind is a request, known or not.
    pub fn is_request(self) -> bool {
        self != Self::HELLO && self.0 < Self::DATA.0
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HELLO => "HELLO",
            Self::PING => "PING",
            Self::GET => "GET",
            Self::STAT => "STAT",
            Self::PUT => "PUT",
            Self::DELETE => "DELETE",
            Self::SPARSE_OPEN => "SPARSE_OPEN",
            Self::SPARSE_WRITE => "SPARSE_WRITE",
            Self::SPARSE_FINALIZE => "SPARSE_FINALIZE",
            Self::SPARSE_ABORT => "SPARSE_ABORT",
            Self::SHARE => "SHARE",
            Self::MAP => "MAP",
            Self::DATA => "DATA",
            Self::CREDIT => "CREDIT",
            Self::CANCEL => "CANCEL",
            Self::REPLY => "REPLY",
            Self::PLACES => "PLACES",
            _ => "other",
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// The first 24 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bit 0 is [`END`], the others are the kind's own.
    pub flags: u16,
    /// Bytes of the fields, at most [`MAX_FIELDS`].
    pub fields_len: u32,
    /// The request.
    pub id: u64,
    /// Bytes of the data, at most [`MAX_DATA`].
    pub data_len: u64,
}

/// Why some bytes are no header. Nothing behind them can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// They are of this version.
    Version(u8),
    /// The fields would have this many bytes.
    Fields(u32),
    /// The data would have this many bytes.
    Data(u64),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "a frame of version {version}; this side speaks {VERSION}"),
            Self::Fields(len) => write!(f, "fields of {len} bytes; a frame has at most {MAX_FIELDS}"),
            Self::Data(len) => write!(f, "data of {len} bytes; a frame has at most {MAX_DATA}"),
        }
    }
}

impl std::error::Error for HeaderError {}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 24;

    /// Reads one.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, HeaderError> {
        let mut rest = &bytes[..];
        let [version, kind] = next(&mut rest);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let header = Self {
            kind: Kind(kind),
            flags: u16::from_le_bytes(next(&mut rest)),
            fields_len: u32::from_le_bytes(next(&mut rest)),
            id: u64::from_le_bytes(next(&mut rest)),
            data_len: u64::from_le_bytes(next(&mut rest)),
        };
        if header.fields_len > MAX_FIELDS {
            Err(HeaderError::Fields(header.fields_len))
        } else if header.data_len > MAX_DATA {
            Err(HeaderError::Data(header.data_len))
        } else {
            Ok(header)
        }
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let mut rest = &mut bytes[..];
        put(&mut rest, [VERSION, self.kind.0]);
        put(&mut rest, self.flags.to_le_bytes());
        put(&mut rest, self.fields_len.to_le_bytes());
        put(&mut rest, self.id.to_le_bytes());
        put(&mut rest, self.data_len.to_le_bytes());
        bytes
    }

    /// Whether it is the last frame of what it belongs to.
    pub fn is_end(&self) -> bool {
        self.flags & END != 0
    }
}

/// The next bytes of a header, which has so many.
fn next<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((bytes, tail)) = rest.split_first_chunk() else { return [0; N] };
    *rest = tail;
    *bytes
}

fn put<const N: usize>(rest: &mut &mut [u8], bytes: [u8; N]) {
    if let Some((place, tail)) = std::mem::take(rest).split_first_chunk_mut() {
        *place = bytes;
        *rest = tail;
    }
}
