//! The frame protocol over the Unix socket: a client that keeps to it, and can be made not to.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use elcache_protocol::hello::SHARED_MEMORY;
use elcache_protocol::request::{Get, Named, Put, Stat};
use elcache_protocol::{
    ANSWER_WINDOW, ClientHello, Header, Kind, PREFACE, Reply, Request, ServerHello, Status, flow,
};

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most data that it sends in a frame.
const FRAME: u64 = 1 << 20;

/// A connection.
#[derive(Debug)]
pub struct Local {
    stream: UnixStream,
    /// What the server said of itself.
    pub hello: Hello,
    last_id: u64,
    open: HashMap<u64, Open>,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Requests that may be open.
    pub requests: u64,
    /// What may be sent of one.
    pub window: u64,
    /// The largest value.
    pub size: u64,
    /// What both have.
    pub features: u64,
}

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its beginning.
    pub header: Header,
    /// What follows that.
    pub fields: Vec<u8>,
    /// What follows those.
    pub data: Vec<u8>,
}

/// What is known of a request that was not answered to its end.
#[derive(Debug)]
struct Open {
    answer: Option<Answer>,
    ended: bool,
    /// Bytes that the server may send still.
    window: u64,
    /// Bytes that may be sent to it.
    credit: u64,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it came to in the end.
    pub status: Status,
    /// Its fields, without the message.
    pub fields: Reply<'static>,
    /// Why, for people.
    pub message: String,
    /// The bytes that came.
    pub data: Vec<u8>,
}

impl Answer {
    /// Fails the test unless it has this status.
    #[track_caller]
    pub fn expect(self, status: Status) -> Self {
        assert_eq!(self.status, status, "{}", self.message);
        assert_eq!(self.message.is_empty(), matches!(status, Status::Ok), "{:?}", self.message);
        self
    }

    /// The digest, as HTTP writes it.
    #[track_caller]
    pub fn etag(&self) -> String {
        let digest = self.fields.digest.expect("a digest");
        format!("\"{}\"", String::from_utf8_lossy(&digest.to_hex()))
    }

    /// The data as pairs of numbers.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        self.data.chunks(16).map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect()
    }
}

impl Frame {
    /// Its fields, as a reply.
    #[track_caller]
    pub fn reply(&self) -> Reply<'_> {
        assert_eq!(self.header.kind, Kind::REPLY, "{self:?}");
        Reply::parse(&self.fields).expect("the fields of a reply")
    }
}

impl Local {
    /// Connects and greets.
    #[track_caller]
    pub fn connect(path: &Path) -> Self {
        Self::try_connect(path).expect("a connection to the node")
    }

    /// Connects and greets, if somebody is there.
    pub fn try_connect(path: &Path) -> io::Result<Self> {
        let mut stream = raw(path)?;
        let mut hello = PREFACE.to_vec();
        ClientHello { version_min: 1, version_max: 1, features: SHARED_MEMORY, name: Some("tests") }
            .encode(&mut hello);
        stream.write_all(&hello)?;
        let answer = read_frame(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let said = ServerHello::parse(&answer.fields).map_err(|no| io::Error::other(no.why.into_owned()))?;
        let hello =
            Hello { requests: said.requests, window: said.window, size: said.size, features: said.features };
        Ok(Self { stream, hello, last_id: 0, open: HashMap::new() })
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Sends bytes, whatever they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("the node does not take it: {error}; it said {:?}", farewell(&mut self.stream));
        }
    }

    /// Sends a request's first frame; its id.
    #[track_caller]
    pub fn begin(&mut self, request: &Request<'_>, data: &[u8], is_last: bool) -> u64 {
        let (id, mut frame) = (self.note(request, data.len() as u64), Vec::new());
        request.encode(&mut frame, id, is_last, data.len() as u64);
        frame.extend_from_slice(data);
        self.send(&frame);
        id
    }

    /// Gives a request its id.
    fn note(&mut self, request: &Request<'_>, sent: u64) -> u64 {
        self.last_id += 1;
        let window = match request {
            Request::Get(get) => get.window.unwrap_or(ANSWER_WINDOW),
            _ => u64::MAX,
        };
        let credit = self.hello.window.saturating_sub(sent);
        self.open.insert(self.last_id, Open { answer: None, ended: false, window, credit });
        self.last_id
    }

    /// Many requests in one write; their ids.
    #[track_caller]
    pub fn begin_all(&mut self, requests: &[Request<'_>]) -> Vec<u64> {
        let mut frames = Vec::new();
        let mut ids = Vec::new();
        for request in requests {
            ids.push(self.note(request, 0));
            request.encode(&mut frames, self.last_id, false, 0);
        }
        self.send(&frames);
        ids
    }

    /// Sends more data of a request, whatever its window.
    #[track_caller]
    pub fn data(&mut self, id: u64, data: &[u8], is_last: bool) {
        let mut frame = Vec::new();
        flow::encode_data(&mut frame, id, is_last, data.len() as u64);
        frame.extend_from_slice(data);
        if let Some(open) = self.open.get_mut(&id) {
            open.credit = open.credit.saturating_sub(data.len() as u64);
        }
        self.send(&frame);
    }

    /// Gives a request up.
    #[track_caller]
    pub fn cancel(&mut self, id: u64) {
        let mut frame = Vec::new();
        flow::encode_cancel(&mut frame, id);
        self.send(&frame);
    }

    /// Allows more of an answer.
    #[track_caller]
    pub fn credit(&mut self, id: u64, more: u64) {
        let mut frame = Vec::new();
        flow::encode_credit(&mut frame, id, more);
        if let Some(open) = self.open.get_mut(&id) {
            open.window = open.window.saturating_add(more);
        }
        self.send(&frame);
    }

    /// How much of a request may be sent, as far as that has been read.
    pub fn credit_of(&self, id: u64) -> u64 {
        self.open.get(&id).map_or(0, |open| open.credit)
    }

    /// Takes one frame; false at the end of the connection. Fails the test where the server sends more than it may.
    #[track_caller]
    pub fn take(&mut self) -> bool {
        let frame = read_frame(&mut self.stream).expect("a frame within the patience of a test");
        let Some(frame) = frame else { return false };
        let id = frame.header.id;
        let open = self.open.get_mut(&id).unwrap_or_else(|| panic!("nobody asked for {frame:?}"));
        assert!(!open.ended, "more of an answer that has ended: {frame:?}");
        match frame.header.kind {
            Kind::CREDIT => {
                open.credit += flow::parse_credit(&frame.fields).expect("a credit");
                return true;
            }
            Kind::REPLY => {
                let reply = frame.reply();
                let message = reply.message.unwrap_or_default().to_owned();
                let fields = Reply { message: None, ..reply };
                match &mut open.answer {
                    Some(answer) => {
                        assert!(frame.header.is_end(), "a second reply is the end");
                        (answer.status, answer.message) = (fields.status, message);
                    }
                    none => {
                        *none = Some(Answer { status: fields.status, fields, message, data: Vec::new() });
                    }
                }
            }
            Kind::DATA => assert!(open.answer.is_some(), "data before the reply"),
            other => panic!("a server sends no {other:?}"),
        }
        let len = frame.data.len() as u64;
        open.window = open.window.checked_sub(len).expect("no more than the window");
        open.ended = frame.header.is_end();
        if let Some(answer) = &mut open.answer {
            answer.data.extend_from_slice(&frame.data);
        }
        true
    }

    /// Takes frames until a request is answered to its end, and gives no credit.
    #[track_caller]
    pub fn wait(&mut self, id: u64) -> Answer {
        while !self.open.get(&id).expect("an open request").ended {
            assert!(self.take(), "the connection ended before the answer");
        }
        self.open.remove(&id).and_then(|open| open.answer).expect("an answer")
    }

    /// The same, and gives credit for what comes.
    #[track_caller]
    pub fn answer(&mut self, id: u64) -> Answer {
        loop {
            let open = self.open.get(&id).expect("an open request");
            if open.ended {
                return self.wait(id);
            }
            if open.window < ANSWER_WINDOW / 2 {
                self.credit(id, ANSWER_WINDOW);
            }
            assert!(self.take(), "the connection ended before the answer");
        }
    }

    /// Passes over an id that was used without this client's knowledge.
    pub fn skip_id(&mut self) {
        self.last_id += 1;
    }

    /// What has come of an answer so far.
    pub fn so_far(&self, id: u64) -> &[u8] {
        self.open.get(&id).and_then(|open| open.answer.as_ref()).map_or(&[], |answer| &answer.data)
    }

    /// A request without data, and its answer.
    #[track_caller]
    pub fn call(&mut self, request: &Request<'_>) -> Answer {
        let id = self.begin(request, &[], false);
        self.answer(id)
    }

    /// A request with data, as its window allows them, and its answer.
    #[track_caller]
    pub fn upload(&mut self, request: &Request<'_>, data: &[u8]) -> Answer {
        let first = data.len().min(self.hello.window as usize);
        let id = self.begin(request, &data[..first], first == data.len());
        let mut rest = &data[first..];
        while !rest.is_empty() && !self.open.get(&id).expect("an open request").ended {
            let count = self.credit_of(id).min(FRAME).min(rest.len() as u64) as usize;
            if count == 0 {
                assert!(self.take(), "the connection ended before the answer");
                continue;
            }
            self.data(id, &rest[..count], count == rest.len());
            rest = &rest[count..];
        }
        self.answer(id)
    }

    /// All of a value.
    #[track_caller]
    pub fn get(&mut self, key: &[u8]) -> Answer {
        self.call(&Request::Get(Get::new(key)))
    }

    /// What is known of a value.
    #[track_caller]
    pub fn stat(&mut self, key: &[u8]) -> Answer {
        self.call(&Request::Stat(Stat { named: Named::new(key), runs: None }))
    }

    /// Writes a value; it has to succeed.
    #[track_caller]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Answer {
        self.upload(&Request::Put(Put::new(key, Some(value.len() as u64))), value).expect(Status::Ok)
    }

    /// Deletes a value.
    #[track_caller]
    pub fn delete(&mut self, key: &[u8]) -> Answer {
        self.call(&Request::Delete(Named::new(key)))
    }

    /// Reads to the end of the connection: the status and the message of the last reply to no request, if there was one.
    #[track_caller]
    pub fn farewell(mut self) -> Option<(Status, String)> {
        farewell(&mut self.stream)
    }
}

/// A connection on which nothing was said.
pub fn raw(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads to the end of a connection: the status and the message of the last reply to no request, if there was one.
#[track_caller]
pub fn farewell(stream: &mut UnixStream) -> Option<(Status, String)> {
    let mut last = None;
    loop {
        match read_frame(stream) {
            Ok(Some(frame)) if frame.header.id == 0 && frame.header.kind == Kind::REPLY => {
                let reply = frame.reply();
                last = Some((reply.status, reply.message.unwrap_or_default().to_owned()));
            }
            Ok(Some(_)) => {}
            Ok(None) => return last,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return last,
            Err(error) => panic!("the connection does not end: {error}"),
        }
    }
}

/// The next frame; none at the end.
pub fn read_frame(stream: &mut UnixStream) -> io::Result<Option<Frame>> {
    let mut head = [0; Header::LEN];
    if stream.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..])?;
    let header = Header::decode(&head).map_err(io::Error::other)?;
    let (mut fields, mut data) = (vec![0; header.fields_len as usize], vec![0; header.data_len as usize]);
    stream.read_exact(&mut fields)?;
    stream.read_exact(&mut data)?;
    Ok(Some(Frame { header, fields, data }))
}
