//! The fields of a frame.

use std::fmt;

use elcache_core::digest::Digest;

use crate::header::{Header, Kind};

/// The tags, by their names in the document.
pub mod tag {
    #![allow(
        missing_docs,
        reason = "the table in docs/protocol.md says what each is, and would only be repeated"
    )]
    pub const KEY: u16 = 1;
    pub const OFFSET: u16 = 2;
    pub const LENGTH: u16 = 3;
    pub const SIZE: u16 = 4;
    pub const WINDOW: u16 = 5;
    pub const DEADLINE: u16 = 6;
    pub const TTL: u16 = 7;
    pub const USER_FLAGS: u16 = 8;
    pub const STATUS: u16 = 9;
    pub const DIGEST: u16 = 10;
    pub const CHUNKS: u16 = 11;
    pub const MODIFIED: u16 = 12;
    pub const EXPIRES: u16 = 13;
    pub const TIER: u16 = 14;
    pub const MESSAGE: u16 = 15;
    pub const OPERATION: u16 = 16;
    pub const CREATED: u16 = 17;
    pub const AVAILABLE: u16 = 18;
    pub const COVERED: u16 = 19;
    pub const VERSION_MIN: u16 = 32;
    pub const VERSION_MAX: u16 = 33;
    pub const FEATURES: u16 = 34;
    pub const NAME: u16 = 35;
    pub const REQUESTS: u16 = 36;
    pub const REGION: u16 = 37;
    pub const RING: u16 = 38;
}

/// From this tag on, one that is not known is an error.
const MUST_KNOW: u16 = 0x8000;
/// Tags are below this.
const TAGS: usize = 39;
/// The longest text of a `MESSAGE`, in bytes.
pub const MAX_MESSAGE: usize = 1024;
/// The longest text of a `NAME`, in bytes: what is longer is cut off when it is written.
pub const MAX_NAME: usize = 256;

/// The fields of a frame, read: what is not there is `None`.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// `KEY`, of any length.
    pub key: Option<&'a [u8]>,
    /// `DIGEST`.
    pub digest: Option<Digest>,
    /// `OPERATION`, of any length.
    pub operation: Option<&'a [u8]>,
    /// `MESSAGE`.
    pub message: Option<&'a str>,
    /// `NAME`.
    pub name: Option<&'a str>,
    numbers: [u64; TAGS],
    /// A bit for each tag that there was.
    seen: u64,
}

/// What is wrong with some fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// One goes on behind the end.
    Truncated,
    /// This one comes twice.
    Repeated(u16),
    /// This one has a length that it cannot have, or is no text.
    Malformed(u16),
    /// This one is not known and has to be.
    Unknown(u16),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("a field is longer than the fields are"),
            Self::Repeated(tag) => write!(f, "the field {tag} comes twice"),
            Self::Malformed(tag) => write!(f, "the field {tag} has not the form that the protocol gives it"),
            Self::Unknown(tag) => write!(f, "the field {tag} is not known here"),
        }
    }
}

impl std::error::Error for FieldError {}

impl<'a> Fields<'a> {
    /// Reads the fields of any frame.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, FieldError> {
        let mut fields = Self {
            key: None,
            digest: None,
            operation: None,
            message: None,
            name: None,
            numbers: [0; TAGS],
            seen: 0,
        };
        while !bytes.is_empty() {
            let (tag, value, rest) = split(bytes).ok_or(FieldError::Truncated)?;
            fields.take(tag, value)?;
            bytes = rest;
        }
        Ok(fields)
    }

    fn take(&mut self, tag: u16, value: &'a [u8]) -> Result<(), FieldError> {
        if !is_known(tag) {
            return if tag >= MUST_KNOW { Err(FieldError::Unknown(tag)) } else { Ok(()) };
        }
        let bit = 1_u64 << tag;
        if self.seen & bit != 0 {
            return Err(FieldError::Repeated(tag));
        }
        self.seen |= bit;
        let malformed = FieldError::Malformed(tag);
        match tag {
            tag::KEY => self.key = Some(value),
            tag::OPERATION => self.operation = Some(value),
            tag::DIGEST => self.digest = Some(Digest(value.try_into().map_err(|_| malformed)?)),
            tag::MESSAGE => self.message = Some(text(value, MAX_MESSAGE).ok_or(malformed)?),
            tag::NAME => self.name = Some(text(value, usize::from(u16::MAX)).ok_or(malformed)?),
            _ => {
                let number = u64::from_le_bytes(value.try_into().map_err(|_| malformed)?);
                *self.numbers.get_mut(usize::from(tag)).ok_or(malformed)? = number;
            }
        }
        Ok(())
    }

    /// The number under this tag.
    pub fn number(&self, tag: u16) -> Option<u64> {
        let seen = self.seen.checked_shr(u32::from(tag))? & 1 == 1;
        self.numbers.get(usize::from(tag)).copied().filter(|_| seen)
    }
}

fn is_known(tag: u16) -> bool {
    matches!(tag, tag::KEY..=tag::COVERED | tag::VERSION_MIN..=tag::RING)
}

fn text(value: &[u8], most: usize) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.len() <= most)
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((u16::from_le_bytes(*tag), value, rest))
}

/// A frame that is being written behind what a buffer has already.
#[derive(Debug)]
pub struct Frame<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
    header: Header,
}

impl<'a> Frame<'a> {
    /// Begins one.
    pub fn begin(out: &'a mut Vec<u8>, kind: Kind, flags: u16, id: u64) -> Self {
        let begin = out.len();
        out.extend_from_slice(&[0; Header::LEN]);
        Self { out, begin, header: Header { kind, flags, fields_len: 0, id, data_len: 0 } }
    }

    /// Adds a number.
    pub fn number(&mut self, tag: u16, number: u64) -> &mut Self {
        let [t0, t1] = tag.to_le_bytes();
        let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
        self.out.extend_from_slice(&[t0, t1, 8, 0, a, b, c, d, e, f, g, h]);
        self
    }

    /// Adds a number, if there is one.
    pub fn number_if(&mut self, tag: u16, number: Option<u64>) -> &mut Self {
        if let Some(number) = number { self.number(tag, number) } else { self }
    }

    /// Adds bytes, at most 65,535 of them: what is longer would not be a field, and the rest is left out.
    pub fn bytes(&mut self, tag: u16, bytes: &[u8]) -> &mut Self {
        let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&tag.to_le_bytes());
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or_default());
        self
    }

    /// Adds text, at most `most` bytes of it.
    pub fn text(&mut self, tag: u16, text: &str, most: usize) -> &mut Self {
        let end = text.floor_char_boundary(most);
        self.bytes(tag, text.as_bytes().get(..end).unwrap_or_default())
    }

    /// Ends the fields; so many bytes of data follow. The fields are at most [`MAX_FIELDS`](crate::header::MAX_FIELDS) by what
    /// this crate puts into one frame.
    pub fn end(&mut self, data_len: u64) {
        self.header.data_len = data_len;
        let fields = self.out.len().saturating_sub(self.begin).saturating_sub(Header::LEN);
        self.header.fields_len = u32::try_from(fields).unwrap_or(u32::MAX);
        let header = self.header.encode();
        if let Some(place) = self.out.get_mut(self.begin..).and_then(|rest| rest.first_chunk_mut()) {
            *place = header;
        }
    }
}
