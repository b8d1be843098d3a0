//! One connection: frames are read and obeyed, answers written, all in one task that waits for nothing but all of it at once.
//!
//! A batch of requests that memory answers takes one read and one write: frames are obeyed as long as there are any in the input, and
//! what they come to is written together.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use elcache_core::activity::Activity;
use elcache_protocol::hello::SHARED_MEMORY;
use elcache_protocol::{ClientHello, Header, Kind, PREFACE, Refusal, Reply, ServerHello, Status};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, timeout};

use crate::app::{Local, LocalConfig};
use crate::desk::{Desk, End, WINDOW};
use crate::input::Input;
use crate::outlet::SLOW;
use crate::pipe::Pipe;
use crate::put::SMALL;
use crate::sharing::Share;
use crate::status::Refused;

/// From so many bytes on, data are read to where they belong instead of into the input, from where they are copied.
const DIRECT: u64 = 8 << 10;
/// Times that a session reads and writes before others have their turn, whether or not its client has more: over rings nothing else
/// would ever make it wait.
const ROUNDS: usize = 16;
/// How long a client that is told why its connection is closed may take to read that.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection that is being served.
pub(crate) struct Session<'a, P> {
    pipe: P,
    input: Input,
    desk: Desk,
    activity: &'a Activity,
    limits: watch::Receiver<LocalConfig>,
    /// The client has said who it is.
    greeted: bool,
    /// The frame whose data come next.
    incoming: Option<Incoming>,
    /// When the client has to have sent the rest of what it has begun.
    rest_due: Option<Duration>,
    /// Since when it takes nothing of what is to be written.
    stuck: Option<Duration>,
    /// It has been idle since the last poll.
    resting: bool,
    timer: Timer,
}

/// Data of a frame that have not been read yet.
struct Incoming {
    id: u64,
    left: u64,
}

/// A client that wants to go on over rings, and what it is connected by.
pub(crate) struct Asked<P> {
    pub(crate) pipe: P,
    /// The request with which it asks.
    pub(crate) id: u64,
    pub(crate) ring: u64,
}

/// Serves a connection until it ends, or its client asks to go on over rings.
pub(crate) async fn serve<P: Pipe>(mut session: Session<'_, P>) -> Option<Asked<P>> {
    let end = poll_fn(|cx| session.poll(cx)).await;
    match end {
        End::Asked { id, ring } => return Some(Asked { pipe: session.pipe, id, ring }),
        End::Broken(Refusal { status, why }) => {
            tracing::debug!(%why, "a local client broke the protocol");
            session.desk.output.write(|out| Reply::error(status, &why).encode(out, 0, true, 0));
            let _ = timeout(FAREWELL, poll_fn(|cx| session.poll_flush(cx))).await;
        }
        End::Gone | End::Drained => {}
    }
    None
}

impl<'a, P: Pipe> Session<'a, P> {
    /// Goes on with a client that has asked for memory, with it or with the refusal of it.
    pub(crate) fn resume(
        local: &Arc<Local>,
        pipe: P,
        activity: &'a Activity,
        id: u64,
        outcome: Result<Share, Refused>,
    ) -> Self {
        let mut session = Self::new(local, pipe, activity);
        (session.greeted, session.rest_due, session.desk.last_id) = (true, None, id);
        match outcome {
            Ok(share) => session.desk.share = Some(share),
            Err(refused) => session.desk.answer(id, Kind::SHARE, &refused.reply()),
        }
        session
    }

    pub(crate) fn new(local: &Arc<Local>, pipe: P, activity: &'a Activity) -> Self {
        let mut limits = local.config();
        let config = *limits.borrow_and_update();
        let desk = Desk::new(local, config);
        let rest_due = desk.now().checked_add(config.header_timeout);
        Self {
            pipe,
            input: Input::default(),
            desk,
            activity,
            limits,
            greeted: false,
            incoming: None,
            rest_due,
            stuck: None,
            resting: false,
            timer: Timer::new(),
        }
    }

    /// Goes on with everything that can go on; ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if std::mem::take(&mut self.resting) && !self.activity.wake() {
            return Poll::Ready(End::Drained);
        }
        match self.go_on(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..ROUNDS {
            let is_hungry = self.take_frames(cx)?;
            if let Some((id, ring)) = self.desk.asked.take() {
                let end = End::Asked { id, ring };
                return Err(if self.input.is_empty() {
                    end
                } else {
                    End::broken("nothing goes behind SHARE")
                });
            }
            self.desk.pump(cx);
            let mut moved = self.write(cx)?;
            moved |= self.desk.poll_map(cx)?;
            moved |= is_hungry && self.read(cx)?;
            // Last, so that it is this poll that they wake which may have begun them.
            moved |= self.desk.poll_steps(cx);
            if !moved && self.rest(cx)?.is_continue() {
                return Ok(());
            }
        }
        // A client that never rests has its time-outs all the same.
        cx.waker().wake_by_ref();
        self.rest(cx).map(|_| ())
    }

    /// Writes what there is to be written; true when some of it went.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.desk.output.is_empty() {
            match self.desk.output.poll_write(&mut self.pipe, cx) {
                Poll::Ready(Ok(())) => (self.stuck, moved) = (None, true),
                Poll::Ready(Err(_)) => return Err(End::Gone),
                Poll::Pending => {
                    if self.stuck.is_none() {
                        self.stuck = Some(self.desk.now());
                    }
                    break;
                }
            }
        }
        Ok(moved)
    }

    /// Reads what there is; true when there was some.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let count = match self.poll_read(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(End::Gone),
            Poll::Ready(Ok(count)) => count,
        };
        if self.limits.has_changed().unwrap_or(false) {
            self.desk.config = *self.limits.borrow_and_update();
        }
        if self.greeted {
            self.rest_due = None;
        }
        Ok(count > 0)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(Incoming { id, left }) = &mut self.incoming
            && self.input.is_empty()
            && *left >= DIRECT
        {
            let space = self.desk.space(*id);
            let most = usize::try_from(*left).unwrap_or(usize::MAX).min(space.len());
            if let Some(space) = space.get_mut(..most).filter(|space| !space.is_empty()) {
                let count = ready!(self.pipe.poll_read(cx, space))?;
                *left = left.saturating_sub(count as u64);
                let id = *id;
                self.desk.received(cx, id, count);
                return Poll::Ready(Ok(count));
            }
        }
        self.input.poll_fill(&mut self.pipe, cx)
    }

    /// Obeys the frames that have been read; false when the client has to take answers before there can be more.
    fn take_frames(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.greeted && !self.take_greeting()? {
            return Ok(true);
        }
        loop {
            self.take_data(cx);
            if !self.desk.may_answer() {
                return Ok(false);
            }
            // Behind SHARE nothing is obeyed here.
            let is_over = self.incoming.is_some() || self.desk.asked.is_some();
            if is_over || !self.take_frame(cx)? {
                return Ok(true);
            }
        }
    }

    /// Takes what there is of the data of the current frame.
    fn take_data(&mut self, cx: &mut Context<'_>) {
        let Some(Incoming { id, left }) = &mut self.incoming else { return };
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        let data = self.input.data();
        let data = data.get(..most).unwrap_or(data);
        let count = data.len();
        if count > 0 || *left == 0 {
            self.desk.receive(cx, *id, data);
        }
        *left = left.saturating_sub(count as u64);
        if *left == 0 {
            self.incoming = None;
        }
        self.input.consume(count);
    }

    /// Takes one frame; false when it is not all there.
    fn take_frame(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(header) = self.header()? else { return Ok(false) };
        let fields_end = Header::LEN.saturating_add(header.fields_len as usize);
        let is_small = header.kind.is_request() && header.data_len <= SMALL;
        let data_len = if is_small { header.data_len as usize } else { 0 };
        let end = fields_end.saturating_add(data_len);
        let Some((fields, data)) = self.input.between(Header::LEN, fields_end, end) else {
            self.input.reserve(end);
            return Ok(false);
        };
        self.desk.frame(cx, &header, fields, is_small.then_some(data))?;
        self.input.consume(end);
        if !is_small && (header.data_len > 0 || header.kind == Kind::DATA) {
            self.incoming = Some(Incoming { id: header.id, left: header.data_len });
        }
        Ok(true)
    }

    fn header(&self) -> Result<Option<Header>, End> {
        let Some(bytes) = self.input.data().first_chunk() else { return Ok(None) };
        match Header::decode(bytes) {
            Ok(header) => Ok(Some(header)),
            Err(error) => Err(End::broken(error.to_string())),
        }
    }

    /// Takes how a connection begins; false when that is not all there.
    fn take_greeting(&mut self) -> Result<bool, End> {
        let data = self.input.data();
        let begun = data.len().min(PREFACE.len());
        if data.get(..begun) != PREFACE.get(..begun) {
            return Err(End::broken("a connection begins with \"ELCACHE\" and a line feed"));
        }
        let Some((bytes, rest)) = data.get(begun..).and_then(|data| data.split_first_chunk()) else {
            return Ok(false);
        };
        let header = Header::decode(bytes).map_err(|error| End::broken(error.to_string()))?;
        if header.kind != Kind::HELLO || header.id != 0 || header.data_len != 0 {
            return Err(End::broken("the first frame is a HELLO"));
        }
        let fields_len = header.fields_len as usize;
        let len = PREFACE.len().saturating_add(Header::LEN).saturating_add(fields_len);
        let Some(fields) = rest.get(..fields_len) else {
            self.input.reserve(len);
            return Ok(false);
        };
        let hello = ClientHello::parse(fields).map_err(End::refused)?;
        let version = hello.version().map_err(End::refused)?;
        tracing::debug!(client = hello.name.unwrap_or("unnamed"), "a local client is connected");
        let wanted = hello.features;
        self.greet(version, wanted);
        self.input.consume(len);
        (self.greeted, self.rest_due) = (true, None);
        Ok(true)
    }

    fn greet(&mut self, version: u64, wanted: u64) {
        let features = if self.desk.local.sharing().is_some() { SHARED_MEMORY } else { 0 };
        let hello = ServerHello {
            version,
            features: features & wanted,
            name: Some(&self.desk.local.name),
            requests: self.desk.most_requests() as u64,
            window: WINDOW,
            size: self.desk.config.value_size,
        };
        self.desk.output.write(|out| hello.encode(out));
    }

    /// Nothing can go on. Sees to it that somebody wakes the session in time; breaks where something is overdue.
    fn rest(&mut self, cx: &mut Context<'_>) -> Result<ControlFlow<()>, End> {
        let is_quiet = self.desk.open.is_empty() && self.desk.output.is_empty();
        let has_begun = self.incoming.is_some() || !self.input.is_empty();
        if is_quiet && !has_begun {
            self.resting = self.activity.rest();
            if !self.resting {
                return Err(End::Drained);
            }
        }
        self.desk.closing = self.activity.is_closing();
        if has_begun {
            self.wait_for_the_rest()?;
        }
        let Some(due) = self.due() else { return Ok(ControlFlow::Continue(())) };
        let now = self.desk.now();
        if due <= now {
            return self.overdue(now);
        }
        let rung = self.timer.poll(cx, due, now);
        Ok(if rung.is_ready() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// What a client has begun and does not go on with has its time, and is known to the budget.
    fn wait_for_the_rest(&mut self) -> Result<(), End> {
        if !self.input.hold(&self.desk.local.leftovers) {
            let why = "the node has no memory for the beginning of a frame".into();
            return Err(End::Broken(Refusal { status: Status::Busy, why }));
        }
        if !self.desk.may_answer() {
            // It is not read from.
            self.rest_due = None;
        } else if self.rest_due.is_none() {
            self.rest_due = self.desk.now().checked_add(self.desk.config.body_stall_timeout);
        }
        Ok(())
    }

    /// When something has to be given up.
    fn due(&self) -> Option<Duration> {
        let stall = self.desk.config.body_stall_timeout;
        let is_held = self.desk.output.is_held();
        let stuck =
            self.stuck.map(|since| since.saturating_add(if is_held { SLOW.min(stall) } else { stall }));
        let requests = self.desk.open.iter().filter_map(|open| open.due());
        requests.chain(stuck).chain(self.rest_due).min()
    }

    fn overdue(&mut self, now: Duration) -> Result<ControlFlow<()>, End> {
        let stall = self.desk.config.body_stall_timeout;
        if self.rest_due.is_some_and(|due| due <= now) {
            let why = "the rest of what was begun did not come in time".into();
            return Err(End::Broken(Refusal { status: Status::Timeout, why }));
        }
        if let Some(since) = self.stuck {
            if since.saturating_add(stall) <= now {
                return Err(End::Gone);
            }
            if since.saturating_add(SLOW) <= now {
                self.desk.let_go()?;
            }
        }
        self.desk.let_go_of_slow(now);
        self.desk.overdue(now);
        Ok(ControlFlow::Break(()))
    }

    /// Writes the last words of a connection.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.desk.output.is_empty() {
            if ready!(self.desk.output.poll_write(&mut self.pipe, cx)).is_err() {
                break;
            }
        }
        Poll::Ready(())
    }
}

/// One timer for everything that a session waits for. Moving it to a later time is put off until it goes off, so that a busy
/// session seldom touches the timer wheel.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    rings: Option<Duration>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep(Duration::ZERO)), rings: None }
    }

    /// Ready at `due`, or earlier.
    fn poll(&mut self, cx: &mut Context<'_>, due: Duration, now: Duration) -> Poll<()> {
        if self.rings.is_none_or(|rings| due < rings) {
            self.sleep.as_mut().set(sleep(due.saturating_sub(now)));
            self.rings = Some(due);
        }
        ready!(self.sleep.as_mut().poll(cx));
        self.rings = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
