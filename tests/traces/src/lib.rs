//! The reference traces: where they are, and how to read them.
//!
//! A trace is zstd-compressed CSV, `timestamp,key,size`. The project carries none, so whoever replays one looks for
//! the folder first and says so when it is not there.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;

/// The variable that names the folder.
pub const FOLDER_VARIABLE: &str = "ELCACHE_TRACES";
/// Where it is otherwise, from the root of the workspace.
const FOLDER: &str = "../shared/traces";

/// One line of a trace.
#[derive(Clone, Copy)]
pub struct Request {
    /// What is asked for.
    pub key: u64,
    /// Its size in bytes, or 1 where a request is a page.
    pub size: u32,
}

/// The folder of the traces, if there is one.
pub fn folder() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os(FOLDER_VARIABLE).map_or_else(|| workspace.join(FOLDER), PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// What to print when there is none.
pub fn absent(what: &str) -> String {
    format!("SKIPPED: {what}: no traces in {FOLDER}; set {FOLDER_VARIABLE} to the folder that has them")
}

/// Reads a whole trace.
///
/// # Errors
/// When it is not there, or not what it should be.
pub fn load(folder: &Path, name: &str) -> io::Result<Vec<Request>> {
    let compressed = BufReader::new(File::open(folder.join(format!("{name}.csv.zst")))?);
    let csv = StreamingDecoder::new(compressed).map_err(io::Error::other)?;
    let mut lines = BufReader::with_capacity(1 << 16, csv);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let mut requests = Vec::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(requests);
        }
        requests.push(parse(line.trim_end()).ok_or_else(|| bad(name, &line))?);
    }
}

fn parse(line: &str) -> Option<Request> {
    let mut fields = line.split(',').skip(1);
    let key = fields.next()?.parse().ok()?;
    let size = fields.next()?.parse().ok()?;
    Some(Request { key, size })
}

fn bad(name: &str, line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name}: not a request: {line:?}"))
}
