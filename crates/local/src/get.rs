//! GET: a value in memory is answered in place, any other by a step that finds it and reads its beginning.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::payload::Payload;
use elcache_core::span::Span;
use elcache_core::tier::TierName;
use elcache_core::value::Metadata;
use elcache_engine::{Engine, Found, ReadFailed, Readable, Reader, Value};
use elcache_protocol::request::{Get, Named};
use elcache_protocol::{ANSWER_WINDOW, Kind, Reply, Status, flow};

use crate::desk::{Desk, Work};
use crate::outlet::{FRAME, Outlet};
use crate::status::Refused;
use crate::steps::Done;

/// What a GET asks for, kept for as long as it takes.
pub(crate) struct Wanted {
    key: Key,
    offset: u64,
    length: Option<NonZeroU64>,
    window: u64,
    digest: Option<Digest>,
    partial: bool,
    copy: bool,
    deadline: Option<Duration>,
}

/// An answer, found.
pub(crate) struct Answer {
    reply: Reply<'static>,
    stream: Stream,
    /// The bytes from its beginning on; none if there is none.
    first: Option<Payload>,
    window: u64,
    /// No places are wanted.
    copy: bool,
}

impl Wanted {
    pub(crate) fn new(get: &Get<'_>, deadline: Option<Duration>) -> Self {
        Self {
            key: key_of(&get.named),
            offset: get.offset,
            length: get.length,
            window: get.window.unwrap_or(ANSWER_WINDOW),
            digest: get.digest,
            partial: get.partial,
            copy: get.copy,
            deadline,
        }
    }

    /// Which bytes of this value.
    fn span(&self, meta: &Metadata) -> Result<Span, Refused> {
        if self.digest.is_some_and(|digest| digest != meta.digest) {
            return Err(Refused::new(
                Status::Condition,
                "The key has another value than the one of this digest.",
            ));
        }
        let length = self.length.map_or(u64::MAX, NonZeroU64::get);
        let end = self.offset.saturating_add(length).min(meta.size);
        Span::new(self.offset, end).ok_or(Refused::behind_the_end(meta.size))
    }
}

/// The key of a request.
pub(crate) fn key_of(named: &Named<'_>) -> Key {
    // INVARIANT: a request whose key is empty or too long is refused when it is read.
    Key::new(Bytes::copy_from_slice(named.key)).expect("a key of 1 to 8192 bytes")
}

/// What is told of a value.
pub(crate) fn describe(meta: &Metadata, tier: TierName) -> Reply<'static> {
    Reply {
        size: Some(meta.size),
        digest: Some(meta.digest),
        chunks: Some(meta.chunk_count()),
        modified: Some(meta.modified_ms),
        expires: meta.expires_ms,
        user_flags: Some(meta.flags),
        tier: Some(match tier {
            TierName::Memory => 1,
            TierName::Disk => 2,
            TierName::Cluster => 3,
        }),
        ..Reply::new(Status::Ok)
    }
}

impl Desk {
    pub(crate) fn get(&mut self, cx: &mut Context<'_>, id: u64, wanted: Wanted) {
        if self.is_full() {
            return self.enter(id, Kind::GET, wanted.deadline, Work::Deferred(Box::new(wanted)));
        }
        let found = match self.local.engine.get_now(&wanted.key) {
            Some(Found::Value(value)) if value.inline().is_some() => {
                return self.answer_now(id, &wanted, value);
            }
            Some(Found::Miss) => return self.answer(id, Kind::GET, &Refused::miss().reply()),
            Some(Found::Value(value)) => Some(value),
            Some(Found::Busy) | None => None,
        };
        self.enter(id, Kind::GET, wanted.deadline, Work::Step);
        let engine = Arc::clone(&self.local.engine);
        let step = Box::pin(async move { Done::Found(find(&engine, wanted, found).await.map(Box::new)) });
        self.start(cx, id, Some(self.config.first_byte_timeout), step);
    }

    /// Answers with a value whose bytes are at hand.
    fn answer_now(&mut self, id: u64, wanted: &Wanted, value: Value) {
        let span = match wanted.span(&value.meta) {
            Ok(span) => span,
            Err(refused) => return self.answer(id, Kind::GET, &refused.reply()),
        };
        let Some(all) = value.inline() else { return };
        let is_whole = span.len() == value.meta.size;
        let part = (!is_whole).then(|| all.slice(span.start() as usize, span.end() as usize));
        let reply = Reply { length: Some(span.len()), ..describe(&value.meta, value.tier) };
        if span.len() <= wanted.window
            && let Some(places) = self.places(wanted.copy, part.as_ref().unwrap_or(all))
        {
            self.count(Kind::GET, Status::Ok);
            self.local.engine.count_read(value.tier, span.len());
            return self.output.write(|out| {
                reply.encode(out, id, false, 0);
                flow::encode_places(out, id, true, is_whole, &places);
            });
        }
        if span.len() <= wanted.window.min(FRAME) {
            self.count(Kind::GET, Status::Ok);
            self.local.engine.count_read(value.tier, span.len());
            self.output.write(|out| reply.encode(out, id, true, span.len()));
            return self.output.push(part.as_ref().unwrap_or(all), span.len() as usize);
        }
        let first = Some(part.unwrap_or_else(|| all.clone()));
        let stream = Stream::new(&self.local.engine, &wanted.key, value, span);
        self.enter(id, Kind::GET, wanted.deadline, Work::Step);
        self.begin_answer(id, Answer { reply, stream, first, window: wanted.window, copy: wanted.copy });
    }

    /// Where bytes lie for a client who reads in place; `None` when they have to be sent.
    pub(crate) fn places(&self, copy: bool, payload: &Payload) -> Option<Vec<u8>> {
        self.share.as_ref().filter(|_| !copy && !payload.is_empty())?.places(payload)
    }

    /// Sends the beginning of an answer. What does not fit makes the request one that has an outlet.
    pub(crate) fn begin_answer(&mut self, id: u64, answer: Answer) {
        let Answer { reply, stream, first, window, copy } = answer;
        let left = reply.length.unwrap_or(0);
        let mut outlet = Outlet::new(stream, first, window, left, reply.status);
        outlet.may_place = self.share.is_some() && !copy && reply.status == Status::Ok;
        // Places come in frames of their own.
        let len = if outlet.may_place { 0 } else { outlet.sendable(FRAME) };
        let is_last = len == left;
        self.output.write(|out| reply.encode(out, id, is_last, len));
        outlet.send(len, &mut self.output);
        if is_last {
            self.take(id);
            self.count(Kind::GET, reply.status);
            return;
        }
        if let Some(open) = self.find(id) {
            // What flows is not under the deadline.
            (open.deadline, open.work) = (None, Work::Outlet(Box::new(outlet)));
            self.wait_for_window(id);
        }
    }
}

async fn find(engine: &Arc<Engine>, wanted: Wanted, found: Option<Value>) -> Result<Answer, Refused> {
    let value = match found {
        Some(value) => value,
        None => look_up(engine, &wanted.key).await?,
    };
    let span = wanted.span(&value.meta)?;
    let (status, tier, available, span) = readable(engine, &value, span, wanted.partial).await?;
    let reply = Reply { status, length: Some(span.len()), available, ..describe(&value.meta, tier) };
    let mut stream = Stream::new(engine, &wanted.key, value, span);
    // Read before anything is said, so that a value that has gone meanwhile can still be answered with an error.
    let first = stream.next().await.map_err(|ReadFailed| Refused::evicted())?;
    Ok(Answer { reply, stream, first, window: wanted.window, copy: wanted.copy })
}

pub(crate) async fn look_up(engine: &Arc<Engine>, key: &Key) -> Result<Value, Refused> {
    match engine.get(key).await {
        Found::Value(value) => Ok(value),
        Found::Miss => Err(Refused::miss()),
        Found::Busy => Err(Refused::busy()),
    }
}

/// What of a span can be read, and how the answer is to say so.
async fn readable(
    engine: &Arc<Engine>,
    value: &Value,
    span: Span,
    partial: bool,
) -> Result<(Status, TierName, Option<u64>, Span), Refused> {
    if value.inline().is_some() {
        return Ok((Status::Ok, value.tier, None, span));
    }
    match engine.readable(value, &[span]).await {
        Readable::Whole(tier) => Ok((Status::Ok, tier, None, span)),
        Readable::Partial { available_percent } if partial => {
            let (there, tier) = engine.beginning(value, span).await.ok_or(Refused::busy())?;
            Ok((Status::Partial, tier, Some(u64::from(available_percent)), there))
        }
        Readable::Partial { available_percent } => Err(Refused::partial(value.meta.size, available_percent)),
        Readable::Gone => Err(Refused::miss()),
        Readable::Busy => Err(Refused::busy()),
    }
}

/// Reads a span of a value as it goes out.
pub(crate) struct Stream {
    engine: Arc<Engine>,
    key: Key,
    digest: Digest,
    /// None after [`Stream::let_go`], until it is needed again.
    value: Option<Arc<Value>>,
    reader: Option<Reader>,
    rest: Span,
}

impl Stream {
    fn new(engine: &Arc<Engine>, key: &Key, value: Value, span: Span) -> Self {
        Self {
            engine: Arc::clone(engine),
            key: key.clone(),
            digest: value.meta.digest,
            value: Some(Arc::new(value)),
            reader: None,
            rest: span,
        }
    }

    /// The bytes from where it stands to the end of a piece, again the same until [`Stream::advance`]; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Payload>, ReadFailed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.reader().await?.next().await
    }

    async fn reader(&mut self) -> Result<&mut Reader, ReadFailed> {
        if self.reader.is_none() && self.value.is_none() {
            let Found::Value(value) = self.engine.get(&self.key).await else { return Err(ReadFailed) };
            if value.meta.digest != self.digest {
                return Err(ReadFailed);
            }
            self.value = Some(Arc::new(value));
        }
        let Self { engine, value, reader, rest, .. } = self;
        let value = value.as_ref().ok_or(ReadFailed)?;
        Ok(reader.get_or_insert_with(|| engine.reader(Arc::clone(value), *rest)))
    }

    /// Passes bytes that went out.
    pub(crate) fn advance(&mut self, count: u64) {
        self.rest = self.rest.skip(count);
        match (&mut self.reader, &self.value) {
            (Some(reader), _) => reader.advance(count),
            (None, Some(value)) => self.engine.count_read(value.tier, count),
            (None, None) => {}
        }
    }

    /// Holds no memory of the cache from now on. A value of one chunk, which is held as a whole, is looked up again when it is
    /// needed.
    pub(crate) fn let_go(&mut self) {
        if self.value.take_if(|value| value.inline().is_some()).is_some() {
            self.reader = None;
        }
    }
}
