//! What a request came to.

use elcache_core::digest::Digest;

use crate::field::{Fields, Frame, MAX_MESSAGE, tag};
use crate::header::{END, Kind};
use crate::request::Refusal;
use crate::status::Status;

/// The fields of a `REPLY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What it came to.
    pub status: Status,
    /// Of the whole value, in bytes.
    pub size: Option<u64>,
    /// Bytes that follow, in all.
    pub length: Option<u64>,
    /// Of the value.
    pub digest: Option<Digest>,
    /// How many chunks the value has.
    pub chunks: Option<u64>,
    /// Milliseconds since 1970.
    pub modified: Option<u64>,
    /// Milliseconds since 1970.
    pub expires: Option<u64>,
    /// The value's 32 bits.
    pub user_flags: Option<u32>,
    /// The slowest that took part, by its number.
    pub tier: Option<u64>,
    /// There was no value before.
    pub created: Option<bool>,
    /// Percent of the value that are there.
    pub available: Option<u64>,
    /// Up to which offset the runs in the data tell.
    pub covered: Option<u64>,
    /// Bytes of a ring.
    pub ring: Option<u64>,
    /// Why, for people.
    pub message: Option<&'a str>,
}

impl<'a> Reply<'a> {
    /// One that says nothing but this.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            size: None,
            length: None,
            digest: None,
            chunks: None,
            modified: None,
            expires: None,
            user_flags: None,
            tier: None,
            created: None,
            available: None,
            covered: None,
            ring: None,
            message: None,
        }
    }

    /// One that says why something was not done.
    pub fn error(status: Status, message: &'a str) -> Self {
        Self { message: Some(message), ..Self::new(status) }
    }

    /// Reads its fields.
    pub fn parse(fields: &'a [u8]) -> Result<Self, Refusal> {
        let fields = Fields::parse(fields)?;
        let number = |tag| fields.number(tag);
        let status = number(tag::STATUS).ok_or(Refusal::invalid("REPLY needs a STATUS"))?;
        let user_flags = number(tag::USER_FLAGS).map(u32::try_from).transpose();
        Ok(Self {
            status: Status::from_number(status),
            size: number(tag::SIZE),
            length: number(tag::LENGTH),
            digest: fields.digest,
            chunks: number(tag::CHUNKS),
            modified: number(tag::MODIFIED),
            expires: number(tag::EXPIRES),
            user_flags: user_flags.map_err(|_| Refusal::invalid("USER_FLAGS has 32 bits"))?,
            tier: number(tag::TIER),
            created: number(tag::CREATED).map(|created| created != 0),
            available: number(tag::AVAILABLE),
            covered: number(tag::COVERED),
            ring: number(tag::RING),
            message: fields.message,
        })
    }

    /// Writes the frame, which so many bytes of data are to follow.
    pub fn encode(&self, out: &mut Vec<u8>, id: u64, is_last: bool, data_len: u64) {
        let mut frame = Frame::begin(out, Kind::REPLY, if is_last { END } else { 0 }, id);
        frame.number(tag::STATUS, self.status.number());
        frame.number_if(tag::SIZE, self.size).number_if(tag::LENGTH, self.length);
        if let Some(digest) = &self.digest {
            frame.bytes(tag::DIGEST, &digest.0);
        }
        frame.number_if(tag::CHUNKS, self.chunks);
        frame.number_if(tag::MODIFIED, self.modified).number_if(tag::EXPIRES, self.expires);
        frame.number_if(tag::USER_FLAGS, self.user_flags.map(u64::from)).number_if(tag::TIER, self.tier);
        frame.number_if(tag::CREATED, self.created.map(u64::from));
        frame.number_if(tag::AVAILABLE, self.available).number_if(tag::COVERED, self.covered);
        frame.number_if(tag::RING, self.ring);
        if let Some(message) = self.message {
            frame.text(tag::MESSAGE, message, MAX_MESSAGE);
        }
        frame.end(data_len);
    }
}
