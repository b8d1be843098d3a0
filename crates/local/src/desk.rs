//! What a session does with frames: the requests that are open, and what is said of them.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use elcache_metrics::Transport;
use elcache_protocol::{Header, Kind, Refusal, Reply, Request, Status, flow};
use tokio::task::{AbortHandle, JoinSet};

use crate::app::{Local, LocalConfig};
use crate::get::Wanted;
use crate::intake::Intake;
use crate::outlet::Outlet;
use crate::output::Output;
use crate::sharing::Share;
use crate::status::Refused;
use crate::steps::Done;

/// Requests that may be open at once.
const REQUESTS: usize = 64;
/// Bytes that a client may send of a request before it is given credit.
pub(crate) const WINDOW: u64 = 64 << 10;
/// Answers are queued up to this many bytes; then the client has to take some.
const QUEUE: usize = 1 << 20;
/// And up to so many bytes of our own: no socket takes more of them at once.
const QUEUE_OWN: usize = 192 << 10;

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There is no client any more, or it takes nothing.
    Gone,
    /// Nothing is open, and the server stops.
    Drained,
    /// The client wants to go on over rings of so many bytes, and asks for that with the request of this id.
    Asked { id: u64, ring: u64 },
    /// The client broke the protocol, and may be told so.
    Broken(Refusal),
}

impl End {
    pub(crate) fn broken(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Broken(Refusal { status: Status::Protocol, why: why.into() })
    }

    /// What is wrong with a frame that is no request.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        match refusal.status {
            Status::Unsupported => Self::Broken(refusal),
            _ => Self::broken(refusal.why),
        }
    }
}

/// A request that is not answered yet.
pub(crate) struct Open {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// Until when the client waits for the node to think: until the answer begins, from the last byte of the request on.
    pub(crate) deadline: Option<Duration>,
    /// When what it waits for is given up.
    pub(crate) patience: Option<Duration>,
    /// What it waits for, if that is the engine.
    pub(crate) step: Option<AbortHandle>,
    pub(crate) work: Work,
}

/// What there is of a request besides what it waits for.
pub(crate) enum Work {
    /// Nothing: its only step will say what it came to.
    Step,
    /// The region of this number has to be sent.
    Map(u64),
    /// A look-up that has not begun, since the client has not taken the answers before it.
    Deferred(Box<Wanted>),
    /// Data on their way in.
    Intake(Box<Intake>),
    /// An answer on its way out.
    Outlet(Box<Outlet>),
}

impl Open {
    pub(crate) fn due(&self) -> Option<Duration> {
        [self.deadline, self.patience].into_iter().flatten().min()
    }

    /// Whoever it was waited for need not go on.
    fn abandon(&mut self) {
        if let Some(step) = self.step.take() {
            step.abort();
        }
    }
}

/// The requests of a connection.
pub(crate) struct Desk {
    pub(crate) local: Arc<Local>,
    pub(crate) config: LocalConfig,
    pub(crate) output: Output,
    pub(crate) open: Vec<Open>,
    pub(crate) steps: JoinSet<(u64, Done)>,
    /// Where to go on serving answers in turn.
    pub(crate) turn: usize,
    pub(crate) last_id: u64,
    /// What the client shares with the node.
    pub(crate) share: Option<Share>,
    /// The request with which it asked for that, and how many bytes it wants a ring to have.
    pub(crate) asked: Option<(u64, u64)>,
    /// No more requests are taken.
    pub(crate) closing: bool,
}

impl Desk {
    pub(crate) fn new(local: &Arc<Local>, config: LocalConfig) -> Self {
        Self {
            local: Arc::clone(local),
            config,
            output: Output::default(),
            open: Vec::new(),
            steps: JoinSet::new(),
            turn: 0,
            last_id: 0,
            share: None,
            asked: None,
            closing: false,
        }
    }

    /// How many requests may be open: so many that what is buffered for them stays within the limit.
    pub(crate) fn most_requests(&self) -> usize {
        let half = self.config.buffered_per_connection / 2;
        usize::try_from(half as u64 / WINDOW).unwrap_or(REQUESTS).clamp(1, REQUESTS)
    }

    /// Whether the client has to take some of the answers before there are more.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= QUEUE.min(self.config.buffered_per_connection / 4)
            || self.output.own_len() >= QUEUE_OWN
    }

    /// Whether there is room for another answer.
    pub(crate) fn may_answer(&mut self) -> bool {
        self.output.has_room(&self.local.leftovers)
    }

    /// Time since the clock began.
    pub(crate) fn now(&self) -> Duration {
        self.local.engine.clock().elapsed()
    }

    /// Takes a frame: its header, its fields, and its data where those are small and belong to a request. Otherwise they come later,
    /// and for them the desk says whose they are.
    pub(crate) fn frame(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        fields: &[u8],
        data: Option<&[u8]>,
    ) -> Result<(), End> {
        match header.kind {
            kind if kind.is_request() => self.request(cx, header, fields, data),
            Kind::DATA => self.announced(header),
            Kind::CREDIT | Kind::CANCEL if header.data_len > 0 => {
                Err(End::broken("only DATA and requests carry data"))
            }
            Kind::CREDIT => self.credit(header.id, fields),
            Kind::CANCEL => {
                if self.was_begun(header.id)? {
                    self.end(header.id, &Refused::cancelled().reply());
                }
                Ok(())
            }
            _ => Err(End::broken("a client sends no frames of this kind")),
        }
    }

    fn request(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        fields: &[u8],
        data: Option<&[u8]>,
    ) -> Result<(), End> {
        if header.id <= self.last_id {
            return Err(End::broken("the ids of requests go upwards from 1"));
        }
        self.last_id = header.id;
        let request = match Request::parse(header.kind, header.flags, fields) {
            Ok(request) => request,
            Err(refusal @ Refusal { status: Status::Protocol, .. }) => return Err(End::Broken(refusal)),
            Err(Refusal { status, why }) => {
                self.answer(header.id, header.kind, &Reply::error(status, &why));
                return Ok(());
            }
        };
        if self.closing || self.open.len() >= self.most_requests() {
            self.answer(header.id, header.kind, &Refused::busy().reply());
            return Ok(());
        }
        let carries_data = matches!(request, Request::Put(_) | Request::SparseWrite(_));
        if header.data_len > 0 && !carries_data {
            return Err(End::broken("only PUT and SPARSE_WRITE carry data"));
        }
        match request {
            Request::Ping => self.answer(header.id, header.kind, &Reply::new(Status::Ok)),
            Request::Get(get) => self.get(cx, header.id, Wanted::new(&get, self.now_if(get.named.deadline))),
            Request::Stat(stat) => self.stat(cx, header.id, &stat),
            Request::Put(put) => return self.put(cx, header, &put, data),
            Request::Delete(named) => self.delete(cx, header.id, &named),
            Request::SparseOpen(put) => self.sparse_open(cx, header.id, &put),
            Request::SparseWrite(write) => return self.sparse_write(cx, header, &write, data),
            Request::SparseFinalize(named) => self.sparse_finalize(cx, header.id, &named),
            Request::SparseAbort(named) => self.sparse_abort(cx, header.id, &named),
            Request::Share { ring } => self.ask(header.id, ring),
            Request::Map { region } => return self.map(header.id, region),
        }
        Ok(())
    }

    /// Shared memory is asked for: a session over rings takes the place of this one.
    fn ask(&mut self, id: u64, ring: u64) {
        let refused = if self.local.sharing().is_none() {
            Refused::new(Status::Unsupported, "This node shares no memory.")
        } else if self.share.is_some() || !self.open.is_empty() || !self.output.is_empty() {
            Refused::new(Status::Invalid, "Memory is asked for once, and while nothing else is open.")
        } else {
            self.asked = Some((id, ring));
            return;
        };
        self.answer(id, Kind::SHARE, &refused.reply());
    }

    /// A region goes by the socket, and so does why it does not: the client waits there.
    fn map(&mut self, id: u64, region: u64) -> Result<(), End> {
        if self.share.is_none() {
            let refused = Refused::new(Status::Unsupported, "The client shares no memory with this node.");
            self.answer(id, Kind::MAP, &refused.reply());
            return Ok(());
        }
        if self.open.iter().any(|open| matches!(open.work, Work::Map(_))) {
            return Err(End::broken("only one MAP may be open"));
        }
        self.enter(id, Kind::MAP, None, Work::Map(region));
        let patience = self.now().checked_add(self.config.body_stall_timeout);
        self.find(id).into_iter().for_each(|open| open.patience = patience);
        Ok(())
    }

    /// Sends the region that was asked for when the socket takes it; true when it has.
    pub(crate) fn poll_map(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let asked = self.open.iter().find_map(|open| match open.work {
            Work::Map(region) => Some((open.id, region)),
            _ => None,
        });
        let (Some((id, region)), Some(share)) = (asked, &self.share) else { return Ok(false) };
        let Poll::Ready(sent) = share.poll_send_region(cx, id, region) else { return Ok(false) };
        let status = sent.map_err(|_| End::Gone)?;
        self.take(id);
        self.count(Kind::MAP, status);
        Ok(true)
    }

    /// Whether a request was begun and so may be named; an error where it was not.
    pub(crate) fn was_begun(&self, id: u64) -> Result<bool, End> {
        if (1..=self.last_id).contains(&id) {
            Ok(true)
        } else {
            Err(End::broken("no request has this id yet"))
        }
    }

    fn credit(&mut self, id: u64, fields: &[u8]) -> Result<(), End> {
        self.was_begun(id)?;
        let more = flow::parse_credit(fields).map_err(End::refused)?;
        // Credit for nothing is no sign that the client goes on.
        if more > 0
            && let Some(open) = self.find(id)
            && let Work::Outlet(outlet) = &mut open.work
        {
            outlet.credit(more);
            if open.step.is_none() {
                open.patience = None;
            }
        }
        Ok(())
    }

    pub(crate) fn find(&mut self, id: u64) -> Option<&mut Open> {
        self.open.iter_mut().rev().find(|open| open.id == id)
    }

    /// Puts a request among those that are open.
    pub(crate) fn enter(&mut self, id: u64, kind: Kind, deadline: Option<Duration>, work: Work) {
        self.open.push(Open { id, kind, deadline, patience: None, step: None, work });
    }

    /// Answers a request that is not in the table, and counts it.
    pub(crate) fn answer(&mut self, id: u64, kind: Kind, reply: &Reply<'_>) {
        self.count(kind, reply.status);
        self.output.write(|out| reply.encode(out, id, true, 0));
    }

    /// Ends a request, if it is open still.
    pub(crate) fn end(&mut self, id: u64, reply: &Reply<'_>) {
        if let Some(mut open) = self.take(id) {
            open.abandon();
            self.answer(id, open.kind, reply);
        }
    }

    /// Takes a request out of the table.
    pub(crate) fn take(&mut self, id: u64) -> Option<Open> {
        let place = self.open.iter().rposition(|open| open.id == id)?;
        Some(self.open.swap_remove(place))
    }

    pub(crate) fn count(&self, kind: Kind, status: Status) {
        let transport = if self.share.is_some() { Transport::Shm } else { Transport::Unix };
        self.local.metrics.local_request(transport, kind.name(), status.as_str());
    }

    /// Ends what has taken too long.
    pub(crate) fn overdue(&mut self, now: Duration) {
        let is_due = |open: &Open| open.due().is_some_and(|due| due <= now);
        let due: Vec<u64> = self.open.iter().filter(|open| is_due(open)).map(|open| open.id).collect();
        due.iter().for_each(|id| self.end(*id, &Refused::timeout().reply()));
    }

    /// Nobody holds memory of the cache for a client that does not take it.
    pub(crate) fn let_go(&mut self) -> Result<(), End> {
        for open in &mut self.open {
            if let Work::Outlet(outlet) = &mut open.work {
                outlet.let_go();
            }
        }
        self.output.copy_out(&self.local.leftovers).map_err(|_| End::Gone)
    }

    /// When a request with this deadline has to be answered, if all of it is here.
    pub(crate) fn now_if(&self, deadline: Option<NonZeroU64>) -> Option<Duration> {
        deadline.and_then(|ms| self.now().checked_add(Duration::from_millis(ms.get())))
    }
}
