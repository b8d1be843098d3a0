//! What a client asks for.

use std::borrow::Cow;
use std::num::NonZeroU64;

use elcache_core::digest::Digest;
use elcache_core::key::MAX_KEY_LEN;
use elcache_core::value::MAX_OPERATION_LEN;

use crate::field::{FieldError, Fields, Frame, tag};
use crate::header::{END, Kind};
use crate::status::Status;

/// `GET`: what there is up to the first byte that is missing is wanted too.
pub const PARTIAL: u16 = 2;
/// `GET`: no places are wanted.
pub const COPY: u16 = 4;
/// `STAT`: which bytes are there is wanted too.
pub const RUNS: u16 = 2;
/// `PUT`: keep it out of memory.
pub const NO_MEMORY: u16 = 2;
/// `PUT`: keep it off the disk.
pub const NO_DISK: u16 = 4;
/// `PUT`: keep it on this node.
pub const NO_CLUSTER: u16 = 8;
/// `PUT`: only if there is no value.
pub const IF_ABSENT: u16 = 16;

/// Why something is refused before it is looked at more closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub status: Status,
    /// Why, for people.
    pub why: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn invalid(why: &'static str) -> Self {
        Self { status: Status::Invalid, why: why.into() }
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        let status = match error {
            // It is not known where the fields end, or which of two counts.
            FieldError::Truncated | FieldError::Repeated(_) => Status::Protocol,
            FieldError::Malformed(_) => Status::Invalid,
            FieldError::Unknown(_) => Status::Unsupported,
        };
        Self { status, why: error.to_string().into() }
    }
}

/// A request, without the data that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Is anybody there.
    Ping,
    /// A value is read.
    Get(Get<'a>),
    /// What is known of a value.
    Stat(Stat<'a>),
    /// A value is written.
    Put(Put<'a>),
    /// A value is deleted.
    Delete(Named<'a>),
    /// An upload of `put.size` bytes, which is there, is opened.
    SparseOpen(Put<'a>),
    /// A range is written.
    SparseWrite(SparseWrite<'a>),
    /// An upload becomes a value.
    SparseFinalize(Named<'a>),
    /// An upload is given up.
    SparseAbort(Named<'a>),
    /// The connection is to go on over rings of so many bytes.
    Share {
        /// Bytes of a ring.
        ring: u64,
    },
    /// A region of the cache's memory is asked for.
    Map {
        /// Its number.
        region: u64,
    },
}

/// A key, and how long the request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// 1 to 8192 bytes.
    pub key: &'a [u8],
    /// Milliseconds.
    pub deadline: Option<NonZeroU64>,
}

/// A value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// What, and how long it may take.
    pub named: Named<'a>,
    /// From this byte on.
    pub offset: u64,
    /// So many bytes; none: to the end.
    pub length: Option<NonZeroU64>,
    /// Bytes that may be sent at first.
    pub window: Option<u64>,
    /// Only the value that has this digest.
    pub digest: Option<Digest>,
    /// What there is up to the first byte that is missing is wanted too.
    pub partial: bool,
    /// No places are wanted.
    pub copy: bool,
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Of which, and how long it may take.
    pub named: Named<'a>,
    /// Which of its bytes are there: from this offset on, so many if it says so.
    pub runs: Option<(u64, Option<NonZeroU64>)>,
}

/// A value is written, or an upload of one opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put<'a> {
    /// What, and how long it may take.
    pub named: Named<'a>,
    /// The value's length, if it is known.
    pub size: Option<u64>,
    /// Seconds to live.
    pub ttl: Option<NonZeroU64>,
    /// The value's 32 bits.
    pub user_flags: u32,
    /// Names the write: 1 to 64 bytes.
    pub operation: Option<&'a [u8]>,
    /// Keep it out of memory.
    pub no_memory: bool,
    /// Keep it off the disk.
    pub no_disk: bool,
    /// Keep it on this node.
    pub no_cluster: bool,
    /// Only if there is no value.
    pub if_absent: bool,
}

/// A range is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseWrite<'a> {
    /// To which upload, and how long it may take.
    pub named: Named<'a>,
    /// From this byte on.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
}

impl<'a> Request<'a> {
    /// Reads a request from the kind, the flags and the fields of its frame.
    pub fn parse(kind: Kind, flags: u16, fields: &'a [u8]) -> Result<Self, Refusal> {
        let fields = Fields::parse(fields)?;
        let needed = |tag, why| fields.number(tag).ok_or(Refusal::invalid(why));
        Ok(match kind {
            Kind::PING => Self::Ping,
            Kind::GET => Self::Get(Get {
                named: Named::of(&fields)?,
                offset: fields.number(tag::OFFSET).unwrap_or(0),
                length: nonzero(&fields, tag::LENGTH),
                window: fields.number(tag::WINDOW),
                digest: fields.digest,
                partial: flags & PARTIAL != 0,
                copy: flags & COPY != 0,
            }),
            Kind::STAT => {
                let range = (fields.number(tag::OFFSET).unwrap_or(0), nonzero(&fields, tag::LENGTH));
                Self::Stat(Stat { named: Named::of(&fields)?, runs: (flags & RUNS != 0).then_some(range) })
            }
            Kind::PUT => Self::Put(Put::of(&fields, flags)?),
            Kind::DELETE => Self::Delete(Named::of(&fields)?),
            Kind::SPARSE_OPEN => {
                let put = Put::of(&fields, flags)?;
                needed(tag::SIZE, "SPARSE_OPEN needs a SIZE")?;
                Self::SparseOpen(put)
            }
            Kind::SPARSE_WRITE => Self::SparseWrite(SparseWrite {
                named: Named::of(&fields)?,
                offset: fields.number(tag::OFFSET).unwrap_or(0),
                length: needed(tag::LENGTH, "SPARSE_WRITE needs a LENGTH")?,
            }),
            Kind::SPARSE_FINALIZE => Self::SparseFinalize(Named::of(&fields)?),
            Kind::SPARSE_ABORT => Self::SparseAbort(Named::of(&fields)?),
            Kind::SHARE => Self::Share { ring: needed(tag::RING, "SHARE needs a RING")? },
            Kind::MAP => Self::Map { region: needed(tag::REGION, "MAP needs a REGION")? },
            _ => {
                let why = "requests of this kind are not known here".into();
                return Err(Refusal { status: Status::Unsupported, why });
            }
        })
    }

    /// The kind of its frame.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Ping => Kind::PING,
            Self::Get(_) => Kind::GET,
            Self::Stat(_) => Kind::STAT,
            Self::Put(_) => Kind::PUT,
            Self::Delete(_) => Kind::DELETE,
            Self::SparseOpen(_) => Kind::SPARSE_OPEN,
            Self::SparseWrite(_) => Kind::SPARSE_WRITE,
            Self::SparseFinalize(_) => Kind::SPARSE_FINALIZE,
            Self::SparseAbort(_) => Kind::SPARSE_ABORT,
            Self::Share { .. } => Kind::SHARE,
            Self::Map { .. } => Kind::MAP,
        }
    }

    /// Writes the frame, which so many bytes of data are to follow; `is_last`: and nothing more of this request.
    pub fn encode(&self, out: &mut Vec<u8>, id: u64, is_last: bool, data_len: u64) {
        let end = if is_last { END } else { 0 };
        let mut frame = Frame::begin(out, self.kind(), end | self.flags(), id);
        match self {
            Self::Ping => {}
            Self::Get(get) => get.write(&mut frame),
            Self::Stat(stat) => {
                stat.named.write(&mut frame);
                if let Some((offset, length)) = stat.runs {
                    frame.number(tag::OFFSET, offset).number_if(tag::LENGTH, length.map(NonZeroU64::get));
                }
            }
            Self::Put(put) | Self::SparseOpen(put) => put.write(&mut frame),
            Self::Delete(named) | Self::SparseFinalize(named) | Self::SparseAbort(named) => {
                named.write(&mut frame)
            }
            Self::SparseWrite(write) => {
                write.named.write(&mut frame);
                frame.number(tag::OFFSET, write.offset).number(tag::LENGTH, write.length);
            }
            Self::Share { ring } => _ = frame.number(tag::RING, *ring),
            Self::Map { region } => _ = frame.number(tag::REGION, *region),
        }
        frame.end(data_len);
    }

    fn flags(&self) -> u16 {
        let bit = |is_set, flag| if is_set { flag } else { 0 };
        match self {
            Self::Get(get) => bit(get.partial, PARTIAL) | bit(get.copy, COPY),
            Self::Stat(stat) => bit(stat.runs.is_some(), RUNS),
            Self::Put(put) | Self::SparseOpen(put) => {
                bit(put.no_memory, NO_MEMORY)
                    | bit(put.no_disk, NO_DISK)
                    | bit(put.no_cluster, NO_CLUSTER)
                    | bit(put.if_absent, IF_ABSENT)
            }
            _ => 0,
        }
    }
}

/// A number for which 0 is as good as none.
fn nonzero(fields: &Fields<'_>, tag: u16) -> Option<NonZeroU64> {
    fields.number(tag).and_then(NonZeroU64::new)
}

impl<'a> Named<'a> {
    /// A key, with the server's own patience.
    pub fn new(key: &'a [u8]) -> Self {
        Self { key, deadline: None }
    }

    fn of(fields: &Fields<'a>) -> Result<Self, Refusal> {
        let key = fields.key.unwrap_or_default();
        if key.is_empty() {
            return Err(Refusal::invalid("the request needs a KEY of at least one byte"));
        }
        if key.len() > MAX_KEY_LEN {
            return Err(Refusal { status: Status::KeyTooLarge, why: "a KEY has at most 8192 bytes".into() });
        }
        Ok(Self { key, deadline: nonzero(fields, tag::DEADLINE) })
    }

    fn write(&self, frame: &mut Frame<'_>) {
        frame.bytes(tag::KEY, self.key).number_if(tag::DEADLINE, self.deadline.map(NonZeroU64::get));
    }
}

impl<'a> Get<'a> {
    /// All of a value.
    pub fn new(key: &'a [u8]) -> Self {
        let named = Named::new(key);
        Self { named, offset: 0, length: None, window: None, digest: None, partial: false, copy: false }
    }

    fn write(&self, frame: &mut Frame<'_>) {
        self.named.write(frame);
        frame.number_if(tag::OFFSET, (self.offset > 0).then_some(self.offset));
        frame.number_if(tag::LENGTH, self.length.map(NonZeroU64::get)).number_if(tag::WINDOW, self.window);
        if let Some(digest) = &self.digest {
            frame.bytes(tag::DIGEST, &digest.0);
        }
    }
}

impl<'a> Put<'a> {
    /// A value of this length, with nothing else out of the ordinary.
    pub fn new(key: &'a [u8], size: Option<u64>) -> Self {
        Self {
            named: Named::new(key),
            size,
            ttl: None,
            user_flags: 0,
            operation: None,
            no_memory: false,
            no_disk: false,
            no_cluster: false,
            if_absent: false,
        }
    }

    fn of(fields: &Fields<'a>, flags: u16) -> Result<Self, Refusal> {
        let ttl = fields
            .number(tag::TTL)
            .map(|ttl| NonZeroU64::new(ttl).ok_or(Refusal::invalid("TTL is at least 1")));
        let user_flags = u32::try_from(fields.number(tag::USER_FLAGS).unwrap_or(0));
        let fits = |id: &[u8]| (1..=MAX_OPERATION_LEN).contains(&id.len());
        if fields.operation.is_some_and(|id| !fits(id)) {
            return Err(Refusal::invalid("OPERATION has 1 to 64 bytes"));
        }
        Ok(Self {
            named: Named::of(fields)?,
            size: fields.number(tag::SIZE),
            ttl: ttl.transpose()?,
            user_flags: user_flags.map_err(|_| Refusal::invalid("USER_FLAGS has 32 bits"))?,
            operation: fields.operation,
            no_memory: flags & NO_MEMORY != 0,
            no_disk: flags & NO_DISK != 0,
            no_cluster: flags & NO_CLUSTER != 0,
            if_absent: flags & IF_ABSENT != 0,
        })
    }

    fn write(&self, frame: &mut Frame<'_>) {
        frame.bytes(tag::KEY, self.named.key).number_if(tag::SIZE, self.size);
        frame.number_if(tag::TTL, self.ttl.map(NonZeroU64::get));
        frame.number_if(tag::USER_FLAGS, (self.user_flags > 0).then_some(u64::from(self.user_flags)));
        if let Some(operation) = self.operation {
            frame.bytes(tag::OPERATION, operation);
        }
        frame.number_if(tag::DEADLINE, self.named.deadline.map(NonZeroU64::get));
    }
}
