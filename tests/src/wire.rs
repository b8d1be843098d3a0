//! A connection of HTTP/1.1, and a parser of answers that takes nothing but what RFC 9112 allows.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::call::Call;

/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);
const HEAD_MAX: usize = 256 << 10;

/// What a server answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names as sent, and values, each byte a character.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The server closed the connection before an answer began.
    Closed,
    /// The connection ended within an answer.
    CutOff,
    /// The connection was reset.
    Reset,
    /// Nothing came in time.
    TimedOut,
    /// What came is no answer.
    Malformed(String),
}

impl Answer {
    /// The value of a header that stands there at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.iter().filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        let first = lines.next().map(|(_, value)| value.as_str());
        assert_eq!(lines.next(), None, "{name} stands there twice: {:?}", self.headers);
        first
    }

    /// All values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.headers.iter().filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str())
    }

    /// The entity tag.
    #[track_caller]
    pub fn etag(&self) -> &str {
        self.header("ETag").unwrap_or_else(|| panic!("no ETag in {self:?}"))
    }

    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// Whether the server says that it closes the connection.
    pub fn closes(&self) -> bool {
        self.all("Connection").any(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Checks the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]).into_owned();
        assert_eq!(self.status, status, "headers {:?}, body {body}", self.headers);
        self
    }
}

/// A connection of a client.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { address, stream, read: Vec::new() })
    }

    /// Another connection to the same server.
    pub fn again(&self) -> io::Result<Self> {
        // One that has been reset does not know its peer any more.
        Self::open(self.address)
    }

    /// Waits for so long from now on.
    pub fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout");
        self.stream.set_write_timeout(Some(patience)).expect("a timeout");
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    /// Sends bytes to a server that may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn call(&mut self, call: &Call) -> Answer {
        unwrap(self.try_call(call))
    }

    /// As [`Connection::call`] where the server may break off.
    pub fn try_call(&mut self, call: &Call) -> Result<Answer, Broken> {
        // A server may answer and close before it has taken everything.
        let _ = self.try_send(call.bytes());
        self.try_answer(call.is_head())
    }

    /// Reads the answer to a request that is no HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        unwrap(self.try_answer(false))
    }

    /// Reads the answer to a HEAD.
    #[track_caller]
    pub fn answer_to_head(&mut self) -> Answer {
        unwrap(self.try_answer(true))
    }

    /// Reads an answer, if one comes.
    pub fn try_answer(&mut self, to_head: bool) -> Result<Answer, Broken> {
        let mut body = Vec::new();
        let mut answer = self.try_answer_into(to_head, |_, bytes| body.extend_from_slice(bytes))?;
        answer.body = body;
        Ok(answer)
    }

    /// Reads an answer whose body goes to `sink`, with offsets, as it comes.
    pub fn try_answer_into(&mut self, to_head: bool, sink: impl FnMut(u64, &[u8])) -> Result<Answer, Broken> {
        let answer = self.try_head()?;
        if to_head || matches!(answer.status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        match (answer.header("Transfer-Encoding"), answer.header("Content-Length")) {
            (Some("chunked"), None) => self.chunks(sink)?,
            (None, Some(length)) => self.pass(length.parse().expect("checked before"), sink)?,
            framing => return Err(Broken::Malformed(format!("framing {framing:?}"))),
        }
        Ok(answer)
    }

    /// Reads the head of an answer.
    pub fn try_head(&mut self) -> Result<Answer, Broken> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if self.read.len() > HEAD_MAX {
                return Err(Broken::Malformed("a head without end".to_owned()));
            }
            self.more()?;
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        parse_head(&head[..end])
            .map_err(|why| Broken::Malformed(format!("{why} in {:?}", String::from_utf8_lossy(&head))))
    }

    /// Hands the next `length` bytes to `sink`.
    pub fn pass(&mut self, length: u64, mut sink: impl FnMut(u64, &[u8])) -> Result<(), Broken> {
        let mut at = 0;
        while at < length {
            if self.read.is_empty() {
                self.more().map_err(within)?;
            }
            let count = usize::try_from(length - at).unwrap_or(usize::MAX).min(self.read.len());
            sink(at, &self.read[..count]);
            self.read.drain(..count);
            at += count as u64;
        }
        Ok(())
    }

    fn chunks(&mut self, mut sink: impl FnMut(u64, &[u8])) -> Result<(), Broken> {
        let mut at = 0;
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(&line, 16).map_err(|_| Broken::Malformed(line))?;
            self.pass(size, |offset, bytes| sink(at + offset, bytes))?;
            at += size;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(Broken::Malformed(format!("a chunk that goes on with {end:?}")));
            }
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more().map_err(within)?;
        }
    }

    fn more(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 64 << 10];
        let began = !self.read.is_empty();
        match self.stream.read(&mut buffer) {
            Ok(0) if began => Err(Broken::CutOff),
            Ok(0) => Err(Broken::Closed),
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Broken::TimedOut)
            }
            Err(_) => Err(Broken::Reset),
        }
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.read.is_empty() && matches!(self.more(), Err(Broken::Closed | Broken::Reset))
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

#[track_caller]
fn unwrap(answer: Result<Answer, Broken>) -> Answer {
    match answer {
        Ok(answer) => answer,
        Err(broken) => panic!("no answer: {broken:?}"),
    }
}

fn within(broken: Broken) -> Broken {
    if broken == Broken::Closed { Broken::CutOff } else { broken }
}

/// Where `needle` begins.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> Result<Answer, String> {
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = parse_status(status_line).ok_or_else(|| format!("status line {status_line:?}"))?;
    let headers = lines.map(parse_field).collect::<Result<Vec<_>, _>>()?;
    let answer = Answer { status, headers, body: Vec::new() };
    check_fields(&answer)?;
    Ok(answer)
}

fn parse_status(line: &str) -> Option<u16> {
    let (code, reason) = line.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    let printable = reason.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    (code.len() == 3 && printable).then(|| code.parse().ok())?.filter(|code| (100..600).contains(code))
}

fn parse_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("header line {line:?}"))?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let control = |c: char| (c < ' ' && c != '\t') || c == '\u{7f}';
    if name.is_empty() || !name.chars().all(token) || value.chars().any(control) {
        return Err(format!("header line {line:?}"));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// What every answer has, and what none has.
fn check_fields(answer: &Answer) -> Result<(), String> {
    let lengths: Vec<&str> = answer.all("Content-Length").collect();
    if answer.status < 200 {
        return if lengths.is_empty() { Ok(()) } else { Err("an interim answer with a length".to_owned()) };
    }
    if answer.all("Date").count() > 1 || answer.all("Content-Type").count() > 1 {
        return Err("a header that stands there twice".to_owned());
    }
    match lengths[..] {
        [] => Ok(()),
        [_] if answer.status == 204 => Err("a 204 with Content-Length".to_owned()),
        [length] if length.bytes().all(|byte| byte.is_ascii_digit()) && length.parse::<u64>().is_ok() => {
            Ok(())
        }
        _ => Err(format!("Content-Length {lengths:?}")),
    }
}
