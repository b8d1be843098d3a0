//! A server as a child process, asked over HTTP by a client that does not hurry.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(2);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// A process that listens. It is ended when this is dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    began: Instant,
}

impl Server {
    /// Starts it; `command` is told the port.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(command: impl FnOnce(u16) -> Command) -> io::Result<Self> {
        // Whoever takes the port in between is found out when nothing answers as expected.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let began = Instant::now();
        let child = command(address.port()).stdin(Stdio::null()).spawn()?;
        Ok(Self { child, address, began })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        parse(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Asks until the answer is 200: how long that was after the start, and the body.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or it ends.
    pub fn wait_for(&mut self, path: &str, limit: Duration) -> Outcome<(Duration, Vec<u8>)> {
        loop {
            if let Ok(Answer { status: 200, body }) = self.get(path) {
                return Ok((self.began.elapsed(), body));
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the server has ended: {status}").into());
            }
            if self.began.elapsed() > limit {
                return Err(format!("{path} was not answered within {limit:?}").into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends a signal and waits for its end.
    ///
    /// # Errors
    /// When it is not its end.
    pub fn end(mut self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.ok_or(io::ErrorKind::NotFound)?, signal)?;
        self.child.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer that ends with the connection.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let line = std::str::from_utf8(bytes.get(..head)?).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: bytes.get(head + 4..)?.to_vec() })
}

/// The value of a metric without labels, or with those that `name` spells out.
pub fn metric(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_metrics_are_read() {
        let answer = parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"body"[..]));
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none());
        assert_eq!(metric("# TYPE a gauge\nab 1\na 2\n", "a"), Some(2.0));
    }
}
