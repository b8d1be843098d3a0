//! One connection and the exchange that it is in: a request that is sent as far as the socket takes it, an answer
//! that is parsed, then discarded or compared.

use std::io::{self, IoSlice, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::content;
use crate::error::Error;
use crate::protocol::{Answer, Problem, Protocol, reads};
use crate::workload::{Action, Request};

/// Room for the head of an answer. The first read takes this much, so that a small answer costs one read and a large
/// one copies no more than this.
const HEAD: usize = 4096;
/// How much is discarded or compared at a time.
const BLOCK: usize = 1 << 20;

/// What all connections of a run share.
pub(crate) struct Wire {
    pub(crate) protocol: Protocol,
    /// Whether bodies are compared instead of discarded.
    pub(crate) verify: bool,
    bodies: Bodies,
    scratch: Vec<u8>,
}

impl Wire {
    /// `put_size` is the length of the bodies that will be sent, 0 for none.
    pub(crate) fn new(protocol: Protocol, verify: bool, put_size: u64) -> Self {
        Self { protocol, verify, bodies: Bodies::new(put_size), scratch: vec![0; BLOCK] }
    }

    /// Content for the next body to send, as its origin.
    pub(crate) fn fresh_origin(&mut self) -> u64 {
        self.bodies.next()
    }
}

/// Bodies to send: a piece of the content stream somewhat longer than one body, so that each request can send another
/// window of it and none is made while the clock runs.
struct Bodies {
    bytes: Vec<u8>,
    windows: u64,
    turn: u64,
}

impl Bodies {
    const STEP: u64 = 64;
    const WINDOWS: u64 = 4096;

    fn new(size: u64) -> Self {
        let windows = if size == 0 { 0 } else { Self::WINDOWS };
        let mut bytes = vec![0; (size + windows * Self::STEP) as usize];
        content::fill(0, &mut bytes);
        Self { bytes, windows, turn: 0 }
    }

    fn next(&mut self) -> u64 {
        self.turn += 1;
        self.turn % self.windows.max(1) * Self::STEP
    }

    fn at(&self, origin: u64, length: u64) -> &[u8] {
        &self.bytes[origin as usize..(origin + length) as usize]
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    request: Request,
    started: Instant,
    /// Whether the exchange is still going on.
    busy: bool,
    /// Head and ending of the request, and how much of head, body and ending has been sent.
    head: Vec<u8>,
    ending: &'static [u8],
    sent: u64,
    /// The beginning of the answer, then what is known of it and how much of body and ending has come.
    inbox: Box<[u8; HEAD]>,
    filled: usize,
    answer: Option<Answer>,
    received: u64,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, idle: Request) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).map_err(Error::io(format!("connecting to {address}")))?;
        stream.set_nodelay(true).map_err(Error::io("setting TCP_NODELAY"))?;
        Ok(Self {
            stream,
            request: idle,
            started: Instant::now(),
            busy: false,
            head: Vec::with_capacity(256),
            ending: b"",
            sent: 0,
            inbox: Box::new([0; HEAD]),
            filled: 0,
            answer: None,
            received: 0,
        })
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn request(&self) -> Request {
        self.request
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Takes up the next request.
    pub(crate) fn begin(&mut self, wire: &Wire, request: Request, now: Instant) {
        self.ending = wire.protocol.encode(&request, &mut self.head);
        self.request = request;
        self.started = now;
        self.busy = true;
        self.sent = 0;
        self.filled = 0;
        self.answer = None;
        self.received = 0;
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Sends and receives until the exchange is complete, `true`, or the socket would block. An exchange is completed
    /// once: an event that comes later, such as room to write, changes nothing.
    pub(crate) fn advance(&mut self, wire: &mut Wire) -> Result<bool, Error> {
        if !self.busy {
            return Ok(false);
        }
        self.send(wire)?;
        let complete =
            self.receive(wire).map_err(|problem| Error::Answer { request: self.request, problem })?;
        self.busy = !complete;
        Ok(complete)
    }

    /// Sends as much of the request as the socket takes.
    pub(crate) fn send(&mut self, wire: &Wire) -> Result<(), Error> {
        self.write(wire).map_err(|problem| Error::Answer { request: self.request, problem })
    }

    /// Sends a PUT whose content is made on the way, for values that no buffer should hold. The socket must block;
    /// [`advance`](Self::advance) then waits for the answer.
    pub(crate) fn send_made_up(&mut self, wire: &mut Wire) -> Result<(), Error> {
        let doing = || Error::io(format!("sending {}", self.request));
        let (origin, length) = (self.request.content(), self.request.length());
        self.stream.write_all(&self.head).map_err(doing())?;
        for from in (0..length).step_by(BLOCK) {
            let block = &mut wire.scratch[..(length - from).min(BLOCK as u64) as usize];
            content::fill(origin.wrapping_add(from), block);
            self.stream.write_all(block).map_err(doing())?;
        }
        self.stream.write_all(self.ending).map_err(doing())?;
        self.sent = self.request_length();
        Ok(())
    }

    fn request_length(&self) -> u64 {
        let body = if reads(&self.request) { 0 } else { self.request.length() };
        self.head.len() as u64 + body + self.ending.len() as u64
    }

    fn write(&mut self, wire: &Wire) -> Result<(), Problem> {
        let total = self.request_length();
        while self.sent < total {
            let body = match self.request.action {
                Action::Put { origin } => wire.bodies.at(origin, self.request.length()),
                Action::Get { .. } | Action::Range { .. } => b"",
            };
            let mut slices = [&self.head, body, self.ending].map(IoSlice::new);
            let mut rest = &mut slices[..];
            IoSlice::advance_slices(&mut rest, self.sent as usize);
            match (&self.stream).write_vectored(rest) {
                Ok(sent) => self.sent += sent as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The server may have refused the request and said why: what it said is worth more than EPIPE.
                Err(error) => return self.receive_refusal(wire.protocol, &error),
            }
        }
        Ok(())
    }

    fn receive_refusal(&mut self, protocol: Protocol, error: &io::Error) -> Result<(), Problem> {
        while let Ok(Some(count)) = read(&self.stream, &mut self.inbox[self.filled..], MsgFlags::empty()) {
            if count == 0 {
                break;
            }
            self.filled += count;
        }
        protocol.parse(&self.request, &self.inbox[..self.filled])?;
        Err(Problem::Broken(error.kind()))
    }

    fn receive(&mut self, wire: &mut Wire) -> Result<bool, Problem> {
        loop {
            let Some(answer) = self.answer else {
                if !self.receive_head(wire)? {
                    return Ok(false);
                }
                continue;
            };
            let remaining = answer.body + answer.ending.len() as u64 - self.received;
            if remaining == 0 {
                return if self.sent == self.request_length() { Ok(true) } else { Err(Problem::Early) };
            }
            let block = &mut wire.scratch[..remaining.min(BLOCK as u64) as usize];
            let flags = if wire.verify { MsgFlags::empty() } else { MsgFlags::MSG_TRUNC };
            match read(&self.stream, block, flags)? {
                None => return Ok(false),
                Some(0) => return Err(Problem::Closed { received: self.received }),
                Some(count) if wire.verify => self.compare(answer, self.received, &block[..count])?,
                Some(count) => self.received += count as u64,
            }
        }
    }

    /// Reads until the head is whole; what came with it of the body counts as received.
    fn receive_head(&mut self, wire: &Wire) -> Result<bool, Problem> {
        let Some(count) = read(&self.stream, &mut self.inbox[self.filled..], MsgFlags::empty())? else {
            return Ok(false);
        };
        if count == 0 {
            return Err(Problem::Closed { received: 0 });
        }
        self.filled += count;
        let Some(answer) = wire.protocol.parse(&self.request, &self.inbox[..self.filled])? else {
            let full = self.filled == self.inbox.len();
            return if full { Err(Problem::Malformed("endless head".into())) } else { Ok(true) };
        };
        let behind = (self.filled - answer.head) as u64;
        if behind > answer.body + answer.ending.len() as u64 {
            return Err(Problem::Surplus);
        }
        self.answer = Some(answer);
        if wire.verify {
            let inbox = std::mem::replace(&mut self.inbox, Box::new([0; HEAD]));
            self.compare(answer, 0, &inbox[answer.head..self.filled])?;
            self.inbox = inbox;
        } else {
            self.received = behind;
        }
        Ok(true)
    }

    /// Compares bytes of body and ending, of which `before` have come already. What a server writes under its answer
    /// to a PUT is its own affair.
    fn compare(&mut self, answer: Answer, before: u64, bytes: &[u8]) -> Result<(), Problem> {
        let (body, ending) =
            bytes.split_at(bytes.len().min((answer.body - before.min(answer.body)) as usize));
        if reads(&self.request)
            && let Some(at) = content::mismatch(self.request.content().wrapping_add(before), body)
        {
            return Err(Problem::Byte { offset: before + at as u64 });
        }
        let ended = before.saturating_sub(answer.body) as usize;
        if ending != &answer.ending[ended..ended + ending.len()] {
            return Err(Problem::Byte { offset: answer.body });
        }
        self.received = before + bytes.len() as u64;
        Ok(())
    }
}

/// One read; `None` when nothing is there yet. With `MSG_TRUNC` the bytes are dropped in the kernel and the buffer
/// keeps what it had.
fn read(stream: &TcpStream, buffer: &mut [u8], flags: MsgFlags) -> Result<Option<usize>, Problem> {
    loop {
        match recv(stream.as_raw_fd(), buffer, flags) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Problem::Broken(io::Error::from(errno).kind())),
        }
    }
}
