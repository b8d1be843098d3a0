//! HTTP/2 frame by frame (RFC 9113), as far as tests need what `curl` cannot do: many streams of one connection, and
//! answers that come before the request has ended.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wire::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The codes of RFC 7541's static table, from index 8 on.
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// What came on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The status; 1 for one that has no index of its own.
    pub status: u16,
    /// The body so far.
    pub body: Vec<u8>,
    /// The server has said everything.
    pub ended: bool,
    /// The code of a reset.
    pub reset: Option<u32>,
}

/// A connection of HTTP/2.
#[derive(Debug)]
pub struct Http2 {
    socket: TcpStream,
    /// By number.
    pub streams: BTreeMap<u32, Stream>,
    next: u32,
}

impl Http2 {
    /// Connects by prior knowledge, with windows that need no updates.
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let mut connection = Self { socket, streams: BTreeMap::new(), next: 1 };
        connection.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the preface");
        let initial_window = [0, 4, 0x7f, 0xff, 0xff, 0xff];
        connection.frame(SETTINGS, 0, 0, &initial_window);
        connection.frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
        connection
    }

    /// Sends a head and returns its stream.
    pub fn head(&mut self, method: &str, path: &str, fields: &[(&str, &str)], ends: bool) -> u32 {
        let mut block = vec![0x86];
        for (name, value) in
            [(":method", method), (":path", path), (":authority", "test")].iter().chain(fields)
        {
            block.push(0);
            for text in [name, value] {
                push_string(&mut block, text);
            }
        }
        let id = self.next;
        self.next += 2;
        self.streams.insert(id, Stream::default());
        self.frame(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, id, &block);
        id
    }

    /// Sends a part of a body.
    pub fn data(&mut self, id: u32, bytes: &[u8], ends: bool) {
        self.frame(DATA, if ends { END_STREAM } else { 0 }, id, bytes);
    }

    /// Gives a stream up.
    pub fn reset(&mut self, id: u32) {
        self.frame(RESET, 0, id, &8_u32.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame of moderate size").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
        self.socket.write_all(&[&head, payload].concat()).expect("a frame is taken");
    }

    /// Reads until every stream has ended or was reset.
    pub fn finish(&mut self) {
        while self.streams.values().any(|stream| !stream.ended && stream.reset.is_none()) {
            self.step();
        }
    }

    /// Reads until this stream has a status.
    pub fn status(&mut self, id: u32) -> u16 {
        while self.streams[&id].status == 0 && self.streams[&id].reset.is_none() {
            self.step();
        }
        self.streams[&id].status
    }

    fn step(&mut self) {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        assert!(length <= 16_384, "a frame larger than was allowed");
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).expect("its payload");
        match kind {
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload),
            GO_AWAY => panic!("the server gives the connection up: {payload:?}"),
            DATA | HEADERS | RESET => self.on_stream(kind, flags, id, &payload),
            _ => {}
        }
    }

    fn on_stream(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let stream = self.streams.get_mut(&id).expect("a stream that was opened");
        if kind == RESET {
            stream.reset = payload.first_chunk().map(|code| u32::from_be_bytes(*code));
            return;
        }
        if kind == DATA {
            stream.body.extend_from_slice(payload);
        } else {
            // Updates of the table's size may come first.
            let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20).expect("a header");
            let index = usize::from(first & 0x7f).checked_sub(8).filter(|_| first & 0x80 != 0);
            stream.status = index.and_then(|index| STATUSES.get(index)).copied().unwrap_or(1);
        }
        stream.ended |= flags & END_STREAM != 0;
    }
}

/// RFC 7541 section 5.2, without Huffman's code.
fn push_string(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ ..127 => out.push(short as u8),
        long => {
            out.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(text.as_bytes());
}
