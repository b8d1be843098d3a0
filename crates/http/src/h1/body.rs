//! The body of a request on this connection.

use std::time::Duration;

use super::chunked::Decoder;
use super::io::{Broken, Io, Transport, Until};
use crate::source::{BodyError, Source};

/// What is left of a body that nobody wanted: up to this much is read and thrown away to keep the connection.
const DRAIN_LIMIT: u64 = 256 << 10;

/// How a body ends.
#[derive(Debug)]
pub(super) enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// Where the chunks say.
    Chunked(Decoder),
}

impl Framing {
    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// Body bytes that come next, before any framing.
    fn data_left(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(decoder) => decoder.data_left(),
        }
    }

    fn take(&mut self, count: usize) {
        match self {
            Self::Length(left) => *left = left.saturating_sub(count as u64),
            Self::Chunked(decoder) => decoder.take(count as u64),
        }
    }
}

/// A body that is being read.
pub(super) struct Body<'a, S> {
    io: &'a mut Io<S>,
    framing: Framing,
    announced: Option<u64>,
    /// The client waits to be told to go ahead.
    waits_for_continue: bool,
    stall: Duration,
    /// Bytes of the input that [`Source::whole`] has lent.
    lent: usize,
}

impl<'a, S: Transport> Body<'a, S> {
    pub(super) fn new(
        io: &'a mut Io<S>,
        framing: Framing,
        waits_for_continue: bool,
        stall: Duration,
    ) -> Self {
        let announced = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) => None,
        };
        Self { io, framing, announced, waits_for_continue, stall, lent: 0 }
    }

    /// Done with it: what of it was not read.
    pub(super) fn into_rest(self) -> Rest {
        self.io.input.consume(self.lent);
        Rest { framing: self.framing, waits_for_continue: self.waits_for_continue, stall: self.stall }
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        if std::mem::take(&mut self.waits_for_continue) && self.io.input.is_empty() {
            self.io.out().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let count = self.io.fill(Until::In(self.stall)).await.map_err(failure)?;
        if count == 0 { Err(BodyError::Gone) } else { Ok(()) }
    }
}

fn failure(broken: Broken) -> BodyError {
    match broken {
        Broken::Gone => BodyError::Gone,
        Broken::Timeout => BodyError::Stalled,
    }
}

impl<S: Transport> Source for Body<'_, S> {
    fn length(&self) -> Option<u64> {
        self.announced
    }

    async fn whole(&mut self, length: usize) -> Result<&[u8], BodyError> {
        while self.io.input.data().len() < length {
            self.fill().await?;
        }
        self.framing.take(length);
        self.lent = length;
        Ok(self.io.input.data().get(..length).unwrap_or_default())
    }

    async fn more(&mut self) -> Result<bool, BodyError> {
        loop {
            if self.framing.data_left() > 0 {
                return Ok(true);
            }
            if let Framing::Chunked(decoder) = &mut self.framing {
                let taken = decoder.read(self.io.input.data()).map_err(BodyError::Malformed)?;
                self.io.input.consume(taken);
            }
            if self.framing.is_done() {
                return Ok(false);
            }
            if self.framing.data_left() == 0 {
                self.fill().await?;
            }
        }
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, BodyError> {
        if !self.more().await? {
            return Ok(0);
        }
        // A client that has sent some of the body does not wait to be told so.
        if std::mem::take(&mut self.waits_for_continue) && self.io.input.is_empty() {
            self.waits_for_continue = true;
            self.fill().await?;
        }
        let left = usize::try_from(self.framing.data_left()).unwrap_or(usize::MAX);
        let limit = left.min(into.len());
        let into = into.get_mut(..limit).unwrap_or_default();
        let buffered = self.io.input.data();
        let count = if buffered.is_empty() {
            self.io.read(into, Until::In(self.stall)).await.map_err(failure)?
        } else {
            let count = limit.min(buffered.len());
            into.iter_mut().zip(buffered).for_each(|(to, from)| *to = *from);
            self.io.input.consume(count);
            count
        };
        self.framing.take(count);
        if count == 0 { Err(BodyError::Gone) } else { Ok(count) }
    }
}

/// What of a body was not read when the answer was known.
pub(super) struct Rest {
    framing: Framing,
    waits_for_continue: bool,
    stall: Duration,
}

impl Rest {
    /// Nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.framing.is_done()
    }

    /// Whether it is worth reading to keep the connection. A client that waits to be told to go ahead may send the
    /// body or not after it was refused, so what follows on its connection could be either.
    pub(super) fn is_small(&self) -> bool {
        let small = match &self.framing {
            Framing::Length(left) => *left <= DRAIN_LIMIT,
            Framing::Chunked(_) => true,
        };
        self.is_empty() || (small && !self.waits_for_continue)
    }

    /// Reads it and throws it away; false when it does not end soon enough.
    pub(super) async fn drain<S: Transport>(self, io: &mut Io<S>) -> bool {
        let mut body = Body::new(io, self.framing, false, self.stall);
        let mut seen = 0_u64;
        while let Ok(true) = body.more().await {
            if seen > DRAIN_LIMIT || (body.io.input.is_empty() && body.fill().await.is_err()) {
                return false;
            }
            let available = body.io.input.data().len() as u64;
            let count = available.min(body.framing.data_left()) as usize;
            body.io.input.consume(count);
            body.framing.take(count);
            seen = seen.saturating_add(count as u64);
        }
        body.framing.is_done()
    }
}
