//! An answer on its way out, as far as its window lets it.

use std::task::Context;
use std::time::Duration;

use elcache_core::payload::Payload;
use elcache_protocol::{Status, flow};

use crate::desk::{Desk, Work};
use crate::get::Stream;
use crate::output::Output;
use crate::sharing::Share;
use crate::steps::Done;

/// The most bytes of an answer in one frame: others have their turn after it.
pub(crate) const FRAME: u64 = 512 << 10;
/// A client that gives no credit, or takes nothing, for this long is slow.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// What is still to be sent of an answer.
pub(crate) struct Outlet {
    /// None while a step reads with it.
    stream: Option<Box<Stream>>,
    /// The bytes from where the stream stands; they are kept while they may be sent soon.
    piece: Option<Payload>,
    /// Bytes that the client would take.
    window: u64,
    left: u64,
    /// What it will have come to.
    status: Status,
    /// It waits for credit and still holds what it would send.
    holds: bool,
    /// The client reads in place what can be read so.
    pub(crate) may_place: bool,
}

impl Outlet {
    /// Of `left` bytes, which begin with `piece`; when all of them are sent it has come to `status`.
    pub(crate) fn new(
        stream: Stream,
        piece: Option<Payload>,
        window: u64,
        left: u64,
        status: Status,
    ) -> Self {
        Self { stream: Some(Box::new(stream)), piece, window, left, status, holds: false, may_place: false }
    }

    pub(crate) fn credit(&mut self, more: u64) {
        self.window = self.window.saturating_add(more);
        self.holds = false;
    }

    pub(crate) fn give(&mut self, stream: Box<Stream>, piece: Payload) {
        (self.stream, self.piece) = (Some(stream), Some(piece));
    }

    /// How many bytes can go now in one frame, of at most so many.
    pub(crate) fn sendable(&self, most: u64) -> u64 {
        let piece = self.piece.as_ref().map_or(0, Payload::len) as u64;
        piece.min(self.window).min(self.left).min(most)
    }

    /// Sends so many bytes, at most what is [`Outlet::sendable`].
    pub(crate) fn send(&mut self, len: u64, output: &mut Output) {
        if let Some(piece) = &self.piece {
            output.push(piece, len as usize);
        }
        self.pass(len);
    }

    /// So many bytes are the client's.
    fn pass(&mut self, len: u64) {
        let Some(piece) = self.piece.take() else { return };
        self.window = self.window.saturating_sub(len);
        self.left = self.left.saturating_sub(len);
        self.piece = (len < piece.len() as u64).then(|| piece.slice(len as usize, piece.len()));
        if let Some(stream) = &mut self.stream {
            stream.advance(len);
        }
    }

    /// Where the next bytes lie, for a client that reads in place, and how many there are.
    fn places(&self, share: Option<&Share>) -> Option<(u64, Vec<u8>)> {
        let share = share.filter(|_| self.may_place)?;
        let len = self.sendable(u64::MAX);
        let places = share.places(&self.piece.as_ref()?.slice(0, len as usize))?;
        Some((len, places))
    }

    /// Holds no memory of the cache from now on.
    pub(crate) fn let_go(&mut self) {
        self.piece = None;
        self.holds = false;
        if let Some(stream) = &mut self.stream {
            stream.let_go();
        }
    }
}

impl Desk {
    /// Has answers that wait for their turn written, until the client has enough to take.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>) {
        let mut idle = 0_usize;
        while idle < self.open.len() && !self.is_full() {
            self.turn = self.turn.wrapping_add(1).checked_rem(self.open.len()).unwrap_or(0);
            let turn = self.turn;
            idle = if self.serve(cx, turn) { 0 } else { idle.saturating_add(1) };
        }
    }

    /// Gives one request its turn; false when it has no use for it.
    fn serve(&mut self, cx: &mut Context<'_>, place: usize) -> bool {
        let Some(open) = self.open.get_mut(place) else { return false };
        let id = open.id;
        match &mut open.work {
            Work::Deferred(_) => self.undefer(cx, id),
            Work::Outlet(outlet) if open.step.is_none() && outlet.window > 0 => {
                if outlet.piece.is_none() {
                    let Some(mut stream) = outlet.stream.take() else { return false };
                    let step = Box::pin(async move {
                        let read = stream.next().await;
                        Done::Read(stream, read)
                    });
                    self.start(cx, id, Some(self.config.first_byte_timeout), step);
                }
                self.send_more(id)
            }
            _ => false,
        }
    }

    fn undefer(&mut self, cx: &mut Context<'_>, id: u64) -> bool {
        if let Some(open) = self.take(id)
            && let Work::Deferred(wanted) = open.work
        {
            self.get(cx, id, *wanted);
        }
        true
    }

    fn send_more(&mut self, id: u64) -> bool {
        let Self { open, output, share, .. } = self;
        let Some(open) = open.iter_mut().find(|open| open.id == id) else { return true };
        let Work::Outlet(outlet) = &mut open.work else { return false };
        if outlet.sendable(FRAME) == 0 {
            return false;
        }
        let is_last = match outlet.places(share.as_ref()) {
            Some((len, places)) => {
                let is_last = len == outlet.left;
                output.write(|out| flow::encode_places(out, id, is_last, false, &places));
                outlet.pass(len);
                is_last
            }
            None => {
                let len = outlet.sendable(FRAME);
                let is_last = len == outlet.left;
                output.write(|out| flow::encode_data(out, id, is_last, len));
                outlet.send(len, output);
                is_last
            }
        };
        let (kind, status) = (open.kind, outlet.status);
        if is_last {
            self.take(id);
            self.count(kind, status);
        } else {
            self.wait_for_window(id);
        }
        true
    }

    /// Where a window is used up, the client is waited for.
    pub(crate) fn wait_for_window(&mut self, id: u64) {
        let slow = self.now().checked_add(SLOW);
        if let Some(open) = self.find(id)
            && let Work::Outlet(outlet) = &mut open.work
        {
            outlet.holds = outlet.window == 0;
            open.patience = if outlet.holds { slow } else { None };
        }
    }

    /// Lets go of what answers hold whose clients have not given credit for a while; they have the rest of the time without it.
    pub(crate) fn let_go_of_slow(&mut self, now: Duration) {
        let rest = now.checked_add(self.config.body_stall_timeout.saturating_sub(SLOW));
        for open in self.open.iter_mut().filter(|open| open.patience.is_some_and(|at| at <= now)) {
            if let Work::Outlet(outlet) = &mut open.work
                && outlet.holds
            {
                outlet.let_go();
                open.patience = rest;
            }
        }
    }
}
