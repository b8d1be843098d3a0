//! The head of a request (RFC 9112 sections 2 to 6), read strictly: two readers of one stream of bytes must never
//! disagree on where a request ends.

use std::mem::MaybeUninit;

use crate::config::HttpConfig;
use crate::problem::Problem;
use crate::request::Request;
use crate::target::host_is_valid;
use crate::text::{self, NumberError, parse_decimal};

use super::body::Framing;
use super::chunked::Decoder;

/// Empty lines before a request line are passed over (section 2.2), as far as a mistake explains them.
const MAX_LEADING: usize = 64;

/// Finds the end of a head that arrives in pieces, looking at every byte once.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Everything before has been looked at.
    at: usize,
    line_start: usize,
    /// Where the header lines start.
    fields_start: usize,
    lines: usize,
}

impl Scanner {
    /// The length of the head, once it is there in full. `data` begins where it began at the last call.
    pub(super) fn scan(&mut self, data: &[u8], config: &HttpConfig) -> Result<Option<usize>, Problem> {
        while let Some(found) = memchr::memchr2(b'\r', b'\n', data.get(self.at..).unwrap_or_default()) {
            let end = self.at.saturating_add(found);
            match data.get(end..).unwrap_or_default() {
                [b'\r'] => {
                    self.at = end;
                    break;
                }
                [b'\r', b'\n', ..] => {}
                _ => return Err(malformed("A line of the head does not end in CR and LF.")),
            }
            let is_empty = end == self.line_start;
            self.at = end.saturating_add(2);
            self.line_start = self.at;
            match (is_empty, self.lines) {
                (true, 0) if self.at > MAX_LEADING => return Err(malformed("There is no request.")),
                (true, 0) => self.fields_start = self.at,
                (true, _) => return self.check(end, config).map(|()| Some(self.at)),
                (false, _) => self.end_of_line(end, config)?,
            }
        }
        if !data.get(self.at..).unwrap_or_default().starts_with(b"\r") {
            self.at = data.len();
        }
        self.check(data.len(), config).map(|()| None)
    }

    fn end_of_line(&mut self, end: usize, config: &HttpConfig) -> Result<(), Problem> {
        if self.lines == 0 {
            self.check(end, config)?;
            self.fields_start = self.at;
        }
        self.lines += 1;
        // The request line is one of them.
        if self.lines > config.header_lines.saturating_add(1) { Err(too_large()) } else { Ok(()) }
    }

    /// Checks the length of what has come up to `end`.
    fn check(&self, end: usize, config: &HttpConfig) -> Result<(), Problem> {
        let length = end.saturating_sub(self.fields_start);
        match self.lines {
            0 if length > config.request_line => {
                Err(Problem::new(414, "The request line is too long.").closing())
            }
            1.. if length > config.headers => Err(too_large()),
            _ => Ok(()),
        }
    }
}

fn too_large() -> Problem {
    Problem::new(431, "The headers are too large or too many.").closing()
}

fn malformed(detail: &'static str) -> Problem {
    Problem::bad(detail).closing()
}

/// A head, understood.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) framing: Framing,
    pub(super) is_http10: bool,
    /// The client would use the connection again.
    pub(super) keep_alive: bool,
}

impl Head {
    /// Reads a head that [`Scanner`] has found.
    pub(super) fn parse(bytes: &mut [u8], config: &HttpConfig) -> Result<Self, Problem> {
        match Self::parse_once(bytes, config) {
            Err(httparse::Error::Version) => {
                lower_version(bytes)?;
                Self::parse_once(bytes, config)
                    .unwrap_or_else(|_| Err(malformed("The request line is malformed.")))
            }
            Err(error) => Err(why(error)),
            Ok(head) => head,
        }
    }

    fn parse_once(bytes: &[u8], config: &HttpConfig) -> Result<Result<Self, Problem>, httparse::Error> {
        let mut table = [const { MaybeUninit::uninit() }; HttpConfig::MAX_HEADER_LINES];
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(bytes, &mut table)?;
        let (Some(method), Some(target), Some(version), true) =
            (request.method, request.path, request.version, status.is_complete())
        else {
            return Ok(Err(malformed("The head is malformed.")));
        };
        let is_http10 = version == 0;
        let own = Own::collect(request.headers);
        Ok(own.judge(is_http10).map(|(framing, keep_alive)| {
            let headers = request.headers.iter().map(|header| (header.name.as_bytes(), header.value));
            let mut request = Request::parse(method.as_bytes(), target.as_bytes(), headers, config);
            // Nobody of that time waits for it (RFC 9110 section 10.1.1).
            request.expects_continue &= !is_http10;
            Self { request, framing, is_http10, keep_alive }
        }))
    }
}

/// The version that a client claims is 1.x with a larger x: it is served as 1.1 (RFC 9110 section 2.5).
fn lower_version(bytes: &mut [u8]) -> Result<(), Problem> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let line = bytes.get_mut(start..).unwrap_or_default();
    let end = memchr::memchr(b'\r', line).unwrap_or(line.len());
    let tail = line.get_mut(end.saturating_sub(8)..end).unwrap_or_default();
    match tail {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit() => {
            *minor = b'1';
            Ok(())
        }
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Problem::new(505, "The versions of HTTP spoken here are 1.0, 1.1 and 2.").closing())
        }
        _ => Err(malformed("The request line does not end in a version of HTTP.")),
    }
}

fn why(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => too_large(),
        httparse::Error::HeaderName => malformed("A header line does not begin with a name and a colon."),
        httparse::Error::HeaderValue => malformed("A header value has a byte that no header value may have."),
        _ => malformed("The head is malformed."),
    }
}

/// The headers that are the connection's own business.
#[derive(Default)]
struct Own<'a> {
    hosts: usize,
    host_is_bad: bool,
    lengths: Vec<&'a [u8]>,
    codings: Vec<&'a [u8]>,
    asks_close: bool,
    asks_keep_alive: bool,
}

impl<'a> Own<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Self {
        let mut own = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("host") => {
                    own.hosts += 1;
                    own.host_is_bad |= !host_is_valid(header.value);
                }
                10 if is("connection") => own.connection(header.value),
                14 if is("content-length") => own.lengths.push(header.value),
                17 if is("transfer-encoding") => own.codings.push(header.value),
                _ => {}
            }
        }
        own
    }

    fn connection(&mut self, value: &[u8]) {
        for option in text::list(value) {
            self.asks_close |= option.eq_ignore_ascii_case(b"close");
            self.asks_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// How the body is framed, and whether the connection may be used again.
    fn judge(&self, is_http10: bool) -> Result<(Framing, bool), Problem> {
        if self.hosts > 1 || (self.hosts == 0 && !is_http10) || self.host_is_bad {
            return Err(malformed("A request has one Host header that names a host."));
        }
        let framing = match (self.lengths.is_empty(), self.codings.is_empty()) {
            (true, true) => Framing::Length(0),
            (false, true) => Framing::Length(self.length()?),
            (true, false) if !is_http10 => self.coding()?,
            (true, false) => return Err(malformed("HTTP/1.0 has no Transfer-Encoding.")),
            (false, false) => {
                return Err(malformed("Content-Length and Transfer-Encoding contradict each other."));
            }
        };
        let keep_alive = if is_http10 { self.asks_keep_alive } else { true };
        Ok((framing, keep_alive && !self.asks_close))
    }

    fn length(&self) -> Result<u64, Problem> {
        let mut found = None;
        for member in self.lengths.iter().flat_map(|value| value.split(|&byte| byte == b',')) {
            let length = match parse_decimal(text::trim(member)) {
                Ok(length) => length,
                Err(NumberError::TooLarge) => u64::MAX,
                Err(NumberError::Malformed) => return Err(malformed("Content-Length is no number.")),
            };
            if found.is_some_and(|found| found != length) {
                return Err(malformed("The request has two different lengths."));
            }
            found = Some(length);
        }
        found.ok_or_else(|| malformed("Content-Length is no number."))
    }

    fn coding(&self) -> Result<Framing, Problem> {
        let mut codings = self.codings.iter().flat_map(|value| text::list(value));
        match (codings.next(), codings.next()) {
            (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked(Decoder::default()))
            }
            (Some(first), second)
                if [Some(first), second]
                    .into_iter()
                    .flatten()
                    .any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) =>
            {
                Err(Problem::new(501, "The only transfer coding understood is chunked, alone.").closing())
            }
            _ => Err(malformed("Transfer-Encoding is chunked, once.")),
        }
    }
}

#[cfg(test)]
mod tests;
