//! Data of a request on their way in. A client has credit for what there is room for, and for a little at first, which is kept here
//! until there is room.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use elcache_core::budget::{Budget, Taken};
use elcache_engine::{Range, Stored, Upload};
use elcache_protocol::{Header, Reply, Status, flow};

use crate::desk::{Desk, End, WINDOW, Work};
use crate::put::stored;
use crate::status::Refused;
use crate::steps::{Done, Step};

/// What takes the data.
#[expect(clippy::large_enum_variant, reason = "there is one for each write, in a box")]
pub(crate) enum Sink {
    Upload(Upload),
    Range(Range),
}

/// What beginning a write came to.
pub(crate) enum Start {
    /// Its data are wanted.
    Sink(Box<Sink>),
    /// This very write succeeded before.
    Known(Stored),
}

impl Sink {
    async fn ready(&mut self) -> Result<(), Refused> {
        match self {
            Self::Upload(upload) => upload.ready().await.map_err(Refused::from),
            Self::Range(range) => range.ready().await.map_err(Refused::from),
        }
    }

    fn space(&mut self) -> &mut [u8] {
        match self {
            Self::Upload(upload) => upload.space(),
            Self::Range(range) => range.space(),
        }
    }

    fn room(&self) -> u64 {
        let room = match self {
            Self::Upload(upload) => upload.room(),
            Self::Range(range) => range.room(),
        };
        room as u64
    }

    fn filled(&mut self, count: usize) {
        match self {
            Self::Upload(upload) => upload.filled(count),
            Self::Range(range) => range.filled(count),
        }
    }

    async fn finish(self) -> Result<Reply<'static>, Refused> {
        match self {
            Self::Upload(upload) => Ok(stored(&upload.finish().await?)),
            Self::Range(range) => range.finish().await.map(|_| Reply::new(Status::Ok)).map_err(Refused::from),
        }
    }
}

/// A request's data.
pub(crate) struct Intake {
    /// None while a step has it.
    sink: Option<Box<Sink>>,
    /// What came before there was room.
    backlog: Vec<u8>,
    _taken: Taken,
    /// How many bytes there will be, if that is known.
    length: Option<u64>,
    /// Bytes that the client may send, that it has announced in frames, that have come, and that the sink has, in all.
    granted: u64,
    announced: u64,
    received: u64,
    placed: u64,
    /// The last frame has been announced.
    last: bool,
    /// How many milliseconds the node may think once all has come, until that is the case.
    deadline: Option<NonZeroU64>,
}

/// What is to be done next for some data.
enum Next {
    /// They are complete.
    Finish,
    /// Room has to be made.
    MakeRoom,
    /// The client may send so many more.
    Credit(u64),
    /// The client has to send what it may.
    Wait,
}

impl Intake {
    /// `None` when the node has no memory for what may come before there is room.
    pub(crate) fn new(length: Option<u64>, budget: &Arc<Budget>) -> Option<Self> {
        let taken = budget.take(WINDOW.min(length.unwrap_or(WINDOW)))?;
        Some(Self {
            sink: None,
            backlog: Vec::new(),
            _taken: taken,
            length,
            granted: WINDOW,
            announced: 0,
            received: 0,
            placed: 0,
            last: false,
            deadline: None,
        })
    }

    pub(crate) fn give(&mut self, sink: Box<Sink>) {
        self.sink = Some(sink);
    }

    /// A frame with so many bytes has begun. False: they are more than there should be.
    pub(crate) fn announce(&mut self, header: &Header) -> Result<bool, End> {
        if self.last {
            return Err(End::broken("there are data behind the last ones of a request"));
        }
        self.announced = self.announced.saturating_add(header.data_len);
        self.last = header.is_end();
        if self.announced > self.granted {
            return Err(End::broken("there are more data than the window of their request allows"));
        }
        Ok(self.length.is_none_or(|length| self.announced <= length))
    }

    /// Where the next bytes may be read to; none where they have to wait.
    fn space(&mut self) -> &mut [u8] {
        match &mut self.sink {
            Some(sink) if self.backlog.is_empty() => sink.space(),
            _ => &mut [],
        }
    }

    fn filled(&mut self, count: usize) {
        if let Some(sink) = &mut self.sink {
            sink.filled(count);
            self.placed = self.placed.saturating_add(count as u64);
        }
    }

    /// Takes bytes that have been read.
    fn take(&mut self, mut bytes: &[u8]) {
        self.received = self.received.saturating_add(bytes.len() as u64);
        loop {
            let count = copy(self.space(), bytes);
            if count == 0 {
                break;
            }
            self.filled(count);
            bytes = bytes.get(count..).unwrap_or_default();
        }
        // The window bounds it: what may come beyond the room is what was granted at first.
        self.backlog.extend_from_slice(bytes);
    }

    /// Moves what has waited to where there is room now.
    fn drain(&mut self) {
        let backlog = std::mem::take(&mut self.backlog);
        let mut rest = &backlog[..];
        while !rest.is_empty() {
            let count = copy(self.space(), rest);
            if count == 0 {
                break;
            }
            self.filled(count);
            rest = rest.get(count..).unwrap_or_default();
        }
        self.backlog = rest.to_vec();
    }

    fn has_ended(&self) -> bool {
        self.last && self.received == self.announced
    }

    fn next(&mut self) -> Next {
        if self.has_ended() && self.backlog.is_empty() {
            return Next::Finish;
        }
        let is_full = self.space().is_empty();
        let is_all = self.length.is_some_and(|length| self.placed >= length);
        if is_full && !(is_all && self.backlog.is_empty()) {
            return Next::MakeRoom;
        }
        let room = self.sink.as_ref().map_or(0, |sink| sink.room());
        let goal = self.placed.saturating_add(room).min(self.length.unwrap_or(u64::MAX));
        match goal.saturating_sub(self.granted) {
            0 => Next::Wait,
            more => {
                self.granted = goal;
                Next::Credit(more)
            }
        }
    }
}

fn copy(into: &mut [u8], from: &[u8]) -> usize {
    let count = into.len().min(from.len());
    if let (Some(into), Some(from)) = (into.get_mut(..count), from.get(..count)) {
        into.copy_from_slice(from);
    }
    count
}

impl Desk {
    /// Opens a request that carries data: `begin` is its first step, `data` are those of its first frame where they have been read.
    pub(crate) fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        length: Option<u64>,
        deadline: Option<NonZeroU64>,
        begin: Step,
        data: Option<&[u8]>,
    ) -> Result<(), End> {
        let (id, kind) = (header.id, header.kind);
        let Some(mut intake) = Intake::new(length, self.local.engine.budget()) else {
            self.answer(id, kind, &Refused::busy().reply());
            return Ok(());
        };
        if !intake.announce(header)? {
            self.answer(id, kind, &too_many().reply());
            return Ok(());
        }
        intake.deadline = deadline;
        self.enter(id, kind, None, Work::Intake(Box::new(intake)));
        // The engine bounds how long a write waits for its turn.
        self.start(cx, id, None, begin);
        if let Some(data) = data {
            self.receive(cx, id, data);
        }
        Ok(())
    }

    /// A frame with data of a request has begun.
    pub(crate) fn announced(&mut self, header: &Header) -> Result<(), End> {
        self.was_begun(header.id)?;
        let stall = self.now().checked_add(self.config.body_stall_timeout);
        let Some(open) = self.find(header.id) else { return Ok(()) };
        let Work::Intake(intake) = &mut open.work else {
            return Err(End::broken("there are data of a request that carries none, or no more"));
        };
        if open.step.is_none() {
            open.patience = stall;
        }
        if !intake.announce(header)? {
            self.end(header.id, &too_many().reply());
        }
        Ok(())
    }

    /// Data of a request that have been read: the next of a frame, or none at its end.
    pub(crate) fn receive(&mut self, cx: &mut Context<'_>, id: u64, bytes: &[u8]) {
        if let Some(intake) = self.intake(id) {
            intake.take(bytes);
            self.advance(cx, id);
        }
    }

    /// Where data of a request can be read to; none where they have to be given to [`Desk::receive`].
    pub(crate) fn space(&mut self, id: u64) -> &mut [u8] {
        self.intake(id).map_or(&mut [], Intake::space)
    }

    /// So many bytes have been read to there.
    pub(crate) fn received(&mut self, cx: &mut Context<'_>, id: u64, count: usize) {
        if let Some(intake) = self.intake(id) {
            intake.received = intake.received.saturating_add(count as u64);
            intake.filled(count);
            self.advance(cx, id);
        }
    }

    fn intake(&mut self, id: u64) -> Option<&mut Intake> {
        match &mut self.find(id)?.work {
            Work::Intake(intake) => Some(intake),
            _ => None,
        }
    }

    /// Goes on with a request's data, unless a step is under way.
    pub(crate) fn advance(&mut self, cx: &mut Context<'_>, id: u64) {
        let (now, limit) = (self.now(), self.config.first_byte_timeout);
        let stall = now.checked_add(self.config.body_stall_timeout);
        let Some(open) = self.find(id) else { return };
        let Work::Intake(intake) = &mut open.work else { return };
        if intake.has_ended()
            && let Some(ms) = intake.deadline.take()
        {
            open.deadline = now.checked_add(Duration::from_millis(ms.get()));
        }
        if intake.sink.is_none() {
            return;
        }
        intake.drain();
        open.patience = stall;
        match intake.next() {
            Next::Wait => {}
            Next::Credit(more) => self.output.write(|out| flow::encode_credit(out, id, more)),
            Next::MakeRoom => {
                let Some(mut sink) = intake.sink.take() else { return };
                let step = Box::pin(async move {
                    let ready = sink.ready().await;
                    Done::Ready(sink, ready)
                });
                self.start(cx, id, None, step);
            }
            Next::Finish => {
                let Some(sink) = intake.sink.take() else { return };
                let step = Box::pin(async move { Done::Answered(sink.finish().await.map(Box::new)) });
                self.start(cx, id, Some(limit), step);
            }
        }
    }
}

fn too_many() -> Refused {
    Refused::new(Status::Invalid, "There are more data than the request announced. Nothing was stored.")
}
