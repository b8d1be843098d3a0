//! Requests as bytes.

/// A request to be sent. What the tests do not say, it does not say either, except for `Host` and, with a body,
/// `Content-Length`.
#[derive(Clone, Debug)]
pub struct Call {
    method: String,
    target: Vec<u8>,
    version: &'static str,
    headers: Vec<u8>,
    host: bool,
    framed: bool,
    body: Vec<u8>,
}

impl Call {
    /// Any method and target.
    pub fn new(method: &str, target: impl AsRef<[u8]>) -> Self {
        Self {
            method: method.to_owned(),
            target: target.as_ref().to_vec(),
            version: "HTTP/1.1",
            headers: Vec::new(),
            host: true,
            framed: true,
            body: Vec::new(),
        }
    }

    /// A GET.
    pub fn get(target: impl AsRef<[u8]>) -> Self {
        Self::new("GET", target)
    }

    /// A HEAD.
    pub fn head(target: impl AsRef<[u8]>) -> Self {
        Self::new("HEAD", target)
    }

    /// A DELETE.
    pub fn delete(target: impl AsRef<[u8]>) -> Self {
        Self::new("DELETE", target)
    }

    /// A PUT of this body.
    pub fn put(target: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        Self::new("PUT", target).body(body)
    }

    /// Adds a body, and its length unless [`Call::unframed`].
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Adds a header line.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(b": ");
        self.headers.extend_from_slice(value.as_ref());
        self.headers.extend_from_slice(b"\r\n");
        self
    }

    /// Another version than HTTP/1.1.
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    /// Leaves `Host` out.
    pub fn hostless(mut self) -> Self {
        self.host = false;
        self
    }

    /// Leaves `Content-Length` out.
    pub fn unframed(mut self) -> Self {
        self.framed = false;
        self
    }

    /// Announces a chunked body, to be sent by hand.
    pub fn chunked(self) -> Self {
        self.unframed().with("Transfer-Encoding", "chunked")
    }

    /// Whether the answer to it has no body.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The same for `curl`, apart from the body, which it reads from this file.
    pub(crate) fn curl_args(&self, file: &str) -> Vec<String> {
        let mut args = match &*self.method {
            "HEAD" => vec!["-I".to_owned()],
            method => vec!["-X".to_owned(), method.to_owned()],
        };
        for line in String::from_utf8_lossy(&self.headers).lines() {
            args.extend(["-H".to_owned(), line.to_owned()]);
        }
        if !self.body.is_empty() || matches!(&*self.method, "PUT" | "POST" | "PATCH") {
            // It would name a type of its own.
            let typed = args.iter().any(|arg| arg.to_ascii_lowercase().starts_with("content-type:"));
            args.extend(
                (!typed).then(|| ["-H".to_owned(), "Content-Type:".to_owned()]).into_iter().flatten(),
            );
            args.extend(
                (!self.framed).then(|| ["-H".to_owned(), "Content-Length:".to_owned()]).into_iter().flatten(),
            );
            args.extend(["--data-binary".to_owned(), format!("@{file}")]);
        }
        args
    }

    /// What it is for, as text.
    pub(crate) fn target(&self) -> String {
        String::from_utf8_lossy(&self.target).into_owned()
    }

    /// Its body.
    pub(crate) fn content(&self) -> &[u8] {
        &self.body
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} ", self.method).into_bytes();
        out.extend_from_slice(&self.target);
        out.extend_from_slice(format!(" {}\r\n", self.version).as_bytes());
        if self.host {
            out.extend_from_slice(b"Host: test\r\n");
        }
        out.extend_from_slice(&self.headers);
        if self.framed && (!self.body.is_empty() || matches!(&*self.method, "PUT" | "POST")) {
            out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// One chunk of a chunked body; an empty one ends the body.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
