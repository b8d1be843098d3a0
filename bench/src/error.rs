//! Why a run failed.

use std::{fmt, io};

use crate::protocol::Problem;
use crate::workload::Request;

/// Why a run failed.
#[derive(Debug)]
pub enum Error {
    /// An answer that does not count.
    Answer {
        /// To which request.
        request: Request,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The operating system refused something.
    Io {
        /// What was tried.
        doing: String,
        /// Its answer.
        source: io::Error,
    },
    /// Nothing came from the server for this many seconds.
    Stalled(u64),
    /// The user wants it to end.
    Interrupted,
}

impl Error {
    /// For `map_err`: keeps what was tried.
    pub fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing: doing.into(), source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { request, problem } => write!(out, "{request}: {problem}"),
            Self::Io { doing, source } => write!(out, "{doing}: {source}"),
            Self::Stalled(seconds) => write!(out, "no answer for {seconds} s"),
            Self::Interrupted => write!(out, "interrupted"),
        }
    }
}

impl std::error::Error for Error {}
