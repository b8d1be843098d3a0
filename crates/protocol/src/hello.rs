//! How a connection begins.

use crate::VERSION;
use crate::field::{Fields, Frame, MAX_NAME, tag};
use crate::header::Kind;
use crate::request::Refusal;
use crate::status::Status;

/// What a client sends before its first frame.
pub const PREFACE: [u8; 8] = *b"ELCACHE\n";
/// The bit of [`ClientHello::features`] for shared memory.
pub const SHARED_MEMORY: u64 = 1;

/// What a client says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// The lowest version that it speaks.
    pub version_min: u64,
    /// The highest.
    pub version_max: u64,
    /// What it would use.
    pub features: u64,
    /// The program and its version, if it says so.
    pub name: Option<&'a str>,
}

impl<'a> ClientHello<'a> {
    /// Reads its fields.
    pub fn parse(fields: &'a [u8]) -> Result<Self, Refusal> {
        let fields = Fields::parse(fields)?;
        let version =
            |tag| fields.number(tag).ok_or(Refusal::invalid("HELLO needs VERSION_MIN and VERSION_MAX"));
        Ok(Self {
            version_min: version(tag::VERSION_MIN)?,
            version_max: version(tag::VERSION_MAX)?,
            features: fields.number(tag::FEATURES).unwrap_or(0),
            name: fields.name,
        })
    }

    /// The version that is spoken with this client.
    pub fn version(&self) -> Result<u64, Refusal> {
        if (self.version_min..=self.version_max).contains(&VERSION) {
            Ok(VERSION)
        } else {
            Err(Refusal {
                status: Status::Unsupported,
                why: format!("version {VERSION} is the only one that is spoken here").into(),
            })
        }
    }

    /// Writes the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut frame = Frame::begin(out, Kind::HELLO, 0, 0);
        frame.number(tag::VERSION_MIN, self.version_min).number(tag::VERSION_MAX, self.version_max);
        frame.number(tag::FEATURES, self.features);
        if let Some(name) = self.name {
            frame.text(tag::NAME, name, MAX_NAME);
        }
        frame.end(0);
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello<'a> {
    /// The version that is spoken from now on.
    pub version: u64,
    /// What both have.
    pub features: u64,
    /// The program and its version.
    pub name: Option<&'a str>,
    /// Requests that may be open at once.
    pub requests: u64,
    /// Bytes of a request that may be sent before there is credit.
    pub window: u64,
    /// The largest value that is taken, in bytes.
    pub size: u64,
}

impl<'a> ServerHello<'a> {
    /// Reads its fields.
    pub fn parse(fields: &'a [u8]) -> Result<Self, Refusal> {
        let fields = Fields::parse(fields)?;
        let number =
            |tag| fields.number(tag).ok_or(Refusal::invalid("a field of the server's HELLO is missing"));
        let version = number(tag::VERSION_MAX)?;
        if number(tag::VERSION_MIN)? != version {
            return Err(Refusal::invalid("the server names one version"));
        }
        Ok(Self {
            version,
            features: number(tag::FEATURES)?,
            name: fields.name,
            requests: number(tag::REQUESTS)?,
            window: number(tag::WINDOW)?,
            size: number(tag::SIZE)?,
        })
    }

    /// Writes the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut frame = Frame::begin(out, Kind::HELLO, 0, 0);
        frame.number(tag::VERSION_MIN, self.version).number(tag::VERSION_MAX, self.version);
        frame.number(tag::FEATURES, self.features);
        if let Some(name) = self.name {
            frame.text(tag::NAME, name, MAX_NAME);
        }
        frame.number(tag::REQUESTS, self.requests).number(tag::WINDOW, self.window);
        frame.number(tag::SIZE, self.size).end(0);
    }
}
