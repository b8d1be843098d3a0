//! Shared memory: how a connection goes on over rings, and what its client may read in place.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use elcache_arena::Life;
use elcache_core::budget::Budget;
use elcache_core::payload::Payload;
use elcache_core::shared::SharedMemory;
use elcache_core::tier::TierName;
use elcache_engine::Engine;
use elcache_protocol::{Reply, Status};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::memory::{Known, RING_MAX, RING_MIN, Session, session_len};
use crate::rings::{Rings, Spinning};
use crate::status::Refused;

/// Bytes of a ring, for who asks for 0.
const RING: u64 = 256 << 10;
/// How long a client may take to take the answer that its session begins with.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the kernel's that wait for a client, as few as there can be: of descriptors that a client leaves there it lets only so many
/// be under way, of all clients together.
const SEND_BUFFER: usize = 1;
/// How often it is looked what clients have used by themselves: a while after they did, and when they seem to rest.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How often, and how far apart, it is looked whether the client has read the last answers before their memory goes.
const LINGER: u32 = 200;
const LINGER_LOOK: Duration = Duration::from_millis(5);
/// Bytes of a place in a frame.
pub(crate) const PLACE: usize = 40;

/// What the node shares with clients of the same machine that ask for it.
pub struct Sharing {
    memory: Arc<dyn SharedMemory>,
    /// What all sessions may take together.
    room: Arc<Budget>,
    spinning: Arc<Spinning>,
    life: Mutex<Option<Life>>,
}

/// A client's part of it.
#[derive(Clone)]
pub(crate) struct Share {
    sharing: Arc<Sharing>,
    session: Arc<Session>,
    socket: Arc<UnixStream>,
}

impl Sharing {
    /// Shares this memory for as long as `life` lasts. Sessions take of `room`; `processors` is how many the machine has.
    pub fn new(memory: Arc<dyn SharedMemory>, life: Life, room: Arc<Budget>, processors: usize) -> Arc<Self> {
        Arc::new(Self { memory, room, spinning: Spinning::new(processors), life: Mutex::new(Some(life)) })
    }

    /// From now on nobody answers anything from what he kept.
    pub(crate) fn end_life(&self) {
        drop(self.life.lock().take());
    }

    /// Goes on with this client over rings. `wish` is how large it wants them.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        engine: &Engine,
        stream: UnixStream,
        id: u64,
        wish: u64,
    ) -> Result<(Rings, Share), (UnixStream, Refused)> {
        let made = self.session(wish).and_then(|session| {
            let watch = self.memory.watch_file().map_err(|error| unavailable(&error))?;
            Ok((session, watch))
        });
        let (session, watch) = match made {
            Ok(made) => made,
            Err(refused) => return Err((stream, refused)),
        };
        if let Err(error) = set_socket_send_buffer_size(&stream, SEND_BUFFER) {
            return Err((stream, unavailable(&error.into())));
        }
        let mut answer = Vec::new();
        Reply { ring: Some(session.capacity()), ..Reply::new(Status::Ok) }.encode(&mut answer, id, true, 0);
        let files = [session.file(), watch.as_fd()];
        if let Err(error) = send_files(&stream, &answer, &files).await {
            return Err((stream, unavailable(&error)));
        }
        let (session, socket) = (Arc::new(session), Arc::new(stream));
        let clock = engine.clock_handle();
        let rings = Rings::new(Arc::clone(&session), Arc::clone(&socket), Arc::clone(&self.spinning), clock);
        Ok((rings, Share { sharing: Arc::clone(self), session, socket }))
    }

    /// Memory for a client: what it wishes, or less where that is not to be had.
    fn session(&self, wish: u64) -> Result<Session, Refused> {
        let wish = if wish == 0 { RING } else { wish.clamp(RING_MIN, RING_MAX) };
        let mut capacity = wish.checked_next_power_of_two().unwrap_or(RING_MAX);
        while capacity >= RING_MIN {
            if let Some(room) = self.room.take(session_len(capacity)) {
                return Session::new(capacity, room).map_err(|error| unavailable(&error));
            }
            capacity /= 2;
        }
        Err(Refused::new(Status::NoRoom, "No more clients can share memory: network.shm_size is taken."))
    }
}

impl Share {
    /// Where bytes lie, as a frame of places has it; `None` when a client cannot read all of them in place.
    pub(crate) fn places(&self, payload: &Payload) -> Option<Vec<u8>> {
        let mut places = Vec::with_capacity(PLACE);
        for (bytes, place) in payload.places() {
            let place = place?;
            let watched = self.sharing.memory.watch(place.record)?;
            places.extend_from_slice(&place.region.to_le_bytes());
            places.extend_from_slice(&watched.word.to_le_bytes());
            places.extend_from_slice(&watched.generation.to_le_bytes());
            places.extend_from_slice(&u64::from(place.offset).to_le_bytes());
            places.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            places.extend_from_slice(&place.record.0.to_le_bytes());
        }
        Some(places)
    }

    /// Sends a region by the socket, or why it cannot be had, as soon as the socket takes that.
    pub(crate) fn poll_send_region(
        &self,
        cx: &mut Context<'_>,
        id: u64,
        region: u64,
    ) -> Poll<io::Result<Status>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match self.socket.try_io(Interest::WRITABLE, || self.send_region(id, region)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn send_region(&self, id: u64, region: u64) -> io::Result<Status> {
        match self.region(region) {
            Ok(file) => match self.send_reply(id, &Reply::new(Status::Ok), &[file.as_fd()]) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::TOOMANYREFS) => {
                    self.send_reply(id, &unavailable(&error).reply(), &[])
                }
                sent => sent,
            },
            Err(refused) => self.send_reply(id, &refused.reply(), &[]),
        }
    }

    fn send_reply(&self, id: u64, reply: &Reply<'_>, files: &[BorrowedFd<'_>]) -> io::Result<Status> {
        let mut answer = Vec::new();
        reply.encode(&mut answer, id, true, 0);
        send_whole(&self.socket, &answer, files)?;
        Ok(reply.status)
    }

    fn region(&self, region: u64) -> Result<Arc<OwnedFd>, Refused> {
        let gone = Refused::new(Status::NotFound, "There is no region of this number any more.");
        let number = u32::try_from(region).map_err(|_| gone)?;
        self.sharing.memory.region_file(number).ok_or(gone)
    }

    /// Has the memory tier know, and the metrics, what the client reads by itself. Goes on until it is dropped.
    pub(crate) async fn attend(&self, engine: &Engine, known: &mut Known) {
        let mut pause = LOOK;
        loop {
            sleep(pause).await;
            let has_read = self.look(engine, known);
            pause = if has_read { LOOK } else { pause.saturating_mul(2).min(LOOK_MAX) };
        }
    }

    /// Waits, a bounded time, until the client has read the last answers: they go with the session's memory.
    pub(crate) async fn linger(&self) {
        for _ in 0..LINGER {
            if self.session.is_read() {
                break;
            }
            sleep(LINGER_LOOK).await;
        }
    }

    /// As [`Share::attend`], once; whether the client has read anything since `known`.
    pub(crate) fn look(&self, engine: &Engine, known: &mut Known) -> bool {
        let unasked = self.session.look(known, |record| self.sharing.memory.note_use(record));
        engine.count_hits(TierName::Memory, unasked.hits, unasked.bytes);
        unasked.hits > 0
    }
}

fn unavailable(error: &io::Error) -> Refused {
    tracing::warn!(%error, "memory cannot be shared with a local client");
    Refused::new(Status::Busy, "The node can share no memory at the moment. Its log says why.")
}

/// Sends bytes with descriptors.
async fn send_files(socket: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sending = socket.async_io(Interest::WRITABLE, || send_whole(socket, bytes, files));
    timeout(PATIENCE, sending).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends bytes with descriptors at once and whole, or not at all.
fn send_whole(socket: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    // A message that is far smaller than the socket's buffer is taken whole.
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
