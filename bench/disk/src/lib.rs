//! What the programs that measure the disk tier share.
//!
//! # Layout
//! - `bin/bench-disk`: reads and writes beside fio, requests over HTTP. `bin/bench-restart`: a restart on many small entries.
//! - [`tiers`]: the tiers of a node, in process.
//! - [`server`]: a server as a child process, asked over HTTP.
//! - [`scratch`]: a directory that is gone afterwards.
//! - [`table`]: medians and ratios.
#![forbid(unsafe_code)]

pub mod scratch;
pub mod server;
pub mod table;
pub mod tiers;

/// Whatever goes wrong ends the run.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
