//! Accepting connections, and stopping in good order.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::activity::Activity;
use elcache_core::budget::Taken;
use elcache_metrics::Transport;
use elcache_protocol::{Kind, Reply, Status};
use tokio::net::UnixStream;
use tokio::task::{AbortHandle, Id, JoinSet};

use crate::app::{Local, Seat};
use crate::memory::Known;
use crate::rings::Rings;
use crate::session::{self, Asked, Session};
use crate::sharing::Share;
use crate::socket::Bound;

/// What a connection takes of the memory budget while it is open: its task, its socket, its buffers.
const CONNECTION_BYTES: u64 = 40 << 10;
/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server of the frame protocol.
#[derive(Clone)]
pub struct Server {
    local: Arc<Local>,
}

/// A connection that is being served.
struct Served {
    task: AbortHandle,
    activity: Arc<Activity>,
}

/// What an open connection takes.
struct Place {
    _seat: Seat,
    _taken: Taken,
}

impl Server {
    /// A server of this node.
    pub fn new(local: Arc<Local>) -> Self {
        Self { local }
    }

    /// Serves connections until `shutdown` is over. Then it accepts no more, closes those that are idle, and lets the others end
    /// their requests for at most `drain_limit`. True when all of them did.
    pub async fn serve(
        &self,
        bound: Bound,
        shutdown: impl Future<Output = ()>,
        drain_limit: Duration,
    ) -> bool {
        let mut tasks = JoinSet::new();
        let mut served: HashMap<Id, Served> = HashMap::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    served.remove(&id);
                }
                accepted = bound.listener.accept() => match accepted {
                    Ok((stream, _)) => match self.admit() {
                        Some(place) => {
                            let activity = Arc::new(Activity::default());
                            let session = self.clone().session(stream, Arc::clone(&activity), place);
                            let task = tasks.spawn(session);
                            served.insert(task.id(), Served { task, activity });
                        }
                        None => turn_away(&stream),
                    },
                    Err(error) => pause(&error).await,
                },
            }
        }
        // Whoever takes over the socket may replace what clients have kept.
        self.local.sharing().inspect(|sharing| sharing.end_life());
        drop(bound);
        served.values().filter(|one| one.activity.close()).for_each(|one| one.task.abort());
        let all =
            tokio::time::timeout(drain_limit, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        all.is_ok()
    }

    fn admit(&self) -> Option<Place> {
        let seat = Seat::take(&self.local)?;
        let taken = self.local.engine.budget().take(CONNECTION_BYTES)?;
        Some(Place { _seat: seat, _taken: taken })
    }

    async fn session(self, stream: UnixStream, activity: Arc<Activity>, place: Place) {
        match stream.peer_cred() {
            Ok(peer) => {
                tracing::debug!(
                    pid = peer.pid(),
                    uid = peer.uid(),
                    gid = peer.gid(),
                    "a local client connects"
                )
            }
            Err(error) => tracing::debug!(%error, "a local client connects, of whom nothing is known"),
        }
        let mut session = Session::new(&self.local, stream, &activity);
        while let Some(Asked { pipe, id, ring }) = session::serve(session).await {
            let Some(sharing) = self.local.sharing() else { break };
            session = match sharing.begin(&self.local.engine, pipe, id, ring).await {
                Ok((rings, share)) => {
                    self.shared(rings, share, &activity, id).await;
                    break;
                }
                Err((stream, refused)) => Session::resume(&self.local, stream, &activity, id, Err(refused)),
            };
        }
        drop(place);
    }

    /// Serves a client with whom memory is shared.
    async fn shared(&self, rings: Rings, share: Share, activity: &Activity, id: u64) {
        let _counted = Counted::begin(&self.local);
        let session = Session::resume(&self.local, rings, activity, id, Ok(share.clone()));
        let mut known = Known::default();
        tokio::select! {
            _ = session::serve(session) => {}
            () = share.attend(&self.local.engine, &mut known) => {}
        }
        // What it has read by itself since the last look.
        share.look(&self.local.engine, &mut known);
        share.linger().await;
    }
}

/// A connection that is among those over shared memory as long as this lives.
struct Counted<'a>(&'a Local);

impl<'a> Counted<'a> {
    fn begin(local: &'a Local) -> Self {
        local.metrics.connections(Transport::Shm).inc();
        local.metrics.local_request(Transport::Unix, Kind::SHARE.name(), Status::Ok.as_str());
        Self(local)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections(Transport::Shm).dec();
    }
}

/// Tells a client to come back later, as far as its socket takes that at once.
fn turn_away(stream: &UnixStream) {
    let mut farewell = Vec::new();
    let reply =
        Reply::error(Status::Busy, "There are as many connections as this node takes. Come back later.");
    reply.encode(&mut farewell, 0, true, 0);
    let _ = stream.try_write(&farewell);
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "accepting a local connection failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
