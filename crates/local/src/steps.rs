//! What requests wait for: steps of the engine. One that is done at once is done in place; another becomes a task, so that it holds
//! up nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use elcache_core::payload::Payload;
use elcache_engine::ReadFailed;
use elcache_protocol::Reply;

use crate::desk::{Desk, Work};
use crate::get::{Answer, Stream};
use crate::intake::{Sink, Start};
use crate::stat::Known;
use crate::status::Refused;

/// What a step came to.
pub(crate) enum Done {
    /// A value was looked for, and the beginning of it read.
    Found(Result<Box<Answer>, Refused>),
    /// The next piece of an answer was read.
    Read(Box<Stream>, Result<Option<Payload>, ReadFailed>),
    /// What is known of a value.
    Known(Result<Box<Known>, Refused>),
    /// A write was begun.
    Begun(Result<Start, Refused>),
    /// There is room for more data, or there will be none.
    Ready(Box<Sink>, Result<(), Refused>),
    /// All that was wanted was done.
    Answered(Result<Box<Reply<'static>>, Refused>),
}

/// A step that has begun, or not.
pub(crate) type Step = Pin<Box<dyn Future<Output = Done> + Send>>;

impl Desk {
    /// Takes a step for a request that is open; it is given up after `limit`.
    pub(crate) fn start(&mut self, cx: &mut Context<'_>, id: u64, limit: Option<Duration>, mut step: Step) {
        if let Poll::Ready(done) = step.as_mut().poll(cx) {
            return self.done(cx, id, done);
        }
        let patience = limit.and_then(|limit| self.now().checked_add(limit));
        let task = self.steps.spawn(async move { (id, step.await) });
        match self.find(id) {
            Some(open) => (open.step, open.patience) = (Some(task), patience),
            None => task.abort(),
        }
    }

    /// Takes over what has been done; true when there was something.
    pub(crate) fn poll_steps(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(ended)) = self.steps.poll_join_next(cx) {
            any = true;
            match ended {
                Ok((id, done)) => self.done(cx, id, done),
                Err(error) if error.is_panic() => self.failed(error.id()),
                // It was given up.
                Err(_) => {}
            }
        }
        any
    }

    /// A step panicked: its request must not wait for ever.
    fn failed(&mut self, task: tokio::task::Id) {
        let is_it = |step: &tokio::task::AbortHandle| step.id() == task;
        let id = self.open.iter().find(|open| open.step.as_ref().is_some_and(is_it)).map(|open| open.id);
        if let Some(id) = id {
            self.end(id, &Refused::internal().reply());
        }
    }

    fn done(&mut self, cx: &mut Context<'_>, id: u64, done: Done) {
        let Some(open) = self.find(id) else { return };
        (open.step, open.patience) = (None, None);
        match done {
            Done::Answered(Ok(reply)) => self.end(id, &reply),
            Done::Found(Ok(answer)) => self.begin_answer(id, *answer),
            Done::Known(Ok(known)) => self.tell(id, &known),
            Done::Begun(Ok(Start::Known(stored))) => self.end(id, &crate::put::stored(&stored)),
            Done::Begun(Ok(Start::Sink(sink))) | Done::Ready(sink, Ok(())) => {
                if let Work::Intake(intake) = &mut open.work {
                    intake.give(sink);
                    self.advance(cx, id);
                }
            }
            Done::Read(stream, Ok(Some(piece))) => {
                if let Work::Outlet(outlet) = &mut open.work {
                    outlet.give(stream, piece);
                }
            }
            // The stream ends with the bytes that were promised, so it cannot end before them.
            Done::Read(_, Ok(None) | Err(ReadFailed)) => self.end(id, &Refused::evicted().reply()),
            Done::Answered(Err(refused))
            | Done::Found(Err(refused))
            | Done::Known(Err(refused))
            | Done::Begun(Err(refused))
            | Done::Ready(_, Err(refused)) => self.end(id, &refused.reply()),
        }
    }
}
