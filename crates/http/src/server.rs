//! Accepting connections, and stopping in good order.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Taken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, Id, JoinSet};

use crate::app::App;
use crate::connections::Seat;
use crate::h1::{self, Ended};
use crate::h2;
use elcache_core::activity::Activity;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 4096;
/// What a connection takes of the memory budget while it is open: its task, its socket, its buffers.
const CONNECTION_BYTES: u64 = 24 << 10;
/// Connections that are told to come back later, at a time. More than that are just closed.
const TURNED_AWAY: usize = 256;
const TURN_AWAY_TIME: Duration = Duration::from_secs(1);
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An HTTP server.
#[derive(Clone)]
pub struct Server {
    app: Arc<App>,
}

/// A connection that is being served.
struct Served {
    task: AbortHandle,
    activity: Arc<Activity>,
}

impl Server {
    /// A server of this node.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Opens a listening socket; port 0 picks a free one. It must be called within a runtime.
    pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// Serves connections until `shutdown` is over. Then it accepts no more, closes those that are idle, and lets
    /// the others finish their answers for at most `drain_limit`. True when all of them did.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
        drain_limit: Duration,
    ) -> bool {
        let (draining, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut served: HashMap<Id, Served> = HashMap::new();
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    served.remove(&id);
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => match self.admit(&stream, address) {
                        Some(place) => {
                            let activity = Arc::new(Activity::default());
                            let connection = Connection { app: Arc::clone(&self.app), activity: Arc::clone(&activity), place };
                            let task = tasks.spawn(connection.serve(stream, draining.subscribe()));
                            served.insert(task.id(), Served { task, activity });
                        }
                        None => turn_away(stream, &turned_away),
                    },
                    Err(error) => pause(&error).await,
                },
            }
        }
        drop(listener);
        draining.send_replace(true);
        served.values().filter(|one| one.activity.close()).for_each(|one| one.task.abort());
        let all =
            tokio::time::timeout(drain_limit, async { while tasks.join_next().await.is_some() {} }).await;
        tasks.shutdown().await;
        all.is_ok()
    }

    fn admit(&self, stream: &TcpStream, address: SocketAddr) -> Option<Place> {
        let seat = Seat::take(&self.app, address.ip())?;
        let taken = self.app.engine.budget().take(CONNECTION_BYTES)?;
        // Answers are written whole, so there is nothing for Nagle's algorithm to gather.
        stream.set_nodelay(true).ok()?;
        Some(Place { _seat: seat, _taken: taken })
    }
}

/// What an open connection takes.
struct Place {
    _seat: Seat,
    _taken: Taken,
}

struct Connection {
    app: Arc<App>,
    activity: Arc<Activity>,
    place: Place,
}

impl Connection {
    async fn serve(self, stream: TcpStream, draining: watch::Receiver<bool>) {
        let Self { app, activity, place } = self;
        match h1::serve(&app, stream, &activity).await {
            Ended::Closed => {}
            // Boxed, so that connections of HTTP/1.1 do not pay for its size.
            Ended::Http2(stream, read) => Box::pin(h2::serve(app, stream, read, draining)).await,
        }
        drop(place);
    }
}

/// Tells a client to come back later, without letting it wait in line for that.
fn turn_away(mut stream: TcpStream, turned_away: &Arc<Semaphore>) {
    let Ok(permit) = Arc::clone(turned_away).try_acquire_owned() else { return };
    tokio::spawn(async move {
        let farewell = async {
            stream.write_all(TOO_MANY).await?;
            stream.shutdown().await?;
            // Closed with something unread, the kernel would reset the connection before the answer is read.
            let mut unread = [0; 1024];
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(TURN_AWAY_TIME, farewell).await;
        drop(permit);
    });
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "accepting a connection failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
