//! The client that people use.

use std::process::Command;

use crate::call::Call;
use crate::node::Node;
use crate::scratch::Scratch;
use crate::wire::Answer;

/// What `curl` made of a request.
#[derive(Debug)]
pub struct Fetched {
    /// Its exit code.
    pub exit: i32,
    /// `1.1` or `2`.
    pub version: String,
    /// The last answer.
    pub answer: Answer,
}

/// Runs `curl` with these arguments on a path of the node.
#[track_caller]
pub fn curl(node: &Node, path: &str, args: &[&str]) -> Fetched {
    let scratch = Scratch::new();
    let head = scratch.file("head", "");
    let output = Command::new("curl")
        .args(["-q", "-sS", "--max-time", "60", "--path-as-is", "--globoff", "--noproxy", "*", "-D", &head])
        .args(["-w", "%{stderr}\n%{http_code} %{http_version}\n"])
        .args(args)
        .arg(node.url(path))
        .output()
        .expect("curl is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (status, version) = stderr.lines().last().and_then(|line| line.split_once(' ')).unwrap_or_default();
    let head = std::fs::read(scratch.path().join("head")).unwrap_or_default();
    let answer =
        Answer { status: status.parse().unwrap_or(0), headers: last_head(&head), body: output.stdout };
    Fetched { exit: output.status.code().unwrap_or(-1), version: version.to_owned(), answer }
}

/// The same over HTTP/2 with prior knowledge.
#[track_caller]
pub fn curl2(node: &Node, path: &str, args: &[&str]) -> Answer {
    let fetched = curl(node, path, &[&["--http2-prior-knowledge"], args].concat());
    assert_eq!((fetched.exit, &*fetched.version), (0, "2"), "{fetched:?}");
    fetched.answer
}

/// A request over HTTP/2.
#[track_caller]
pub fn call2(node: &Node, call: &Call) -> Answer {
    let scratch = Scratch::new();
    let args = call.curl_args(&scratch.file("body", call.content()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = curl2(node, &call.target(), &args);
    // With `-I` it prints the head.
    if call.is_head() { Answer { body: Vec::new(), ..answer } } else { answer }
}

/// The header lines of the last answer: interim ones come before it.
fn last_head(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    let fields = last.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}
