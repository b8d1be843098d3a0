//! What the black-box tests are written with: a node as a process, and clients that are stricter than most.
//!
//! Layout:
//! - [`binary`]: the program under test, built once a test run;
//! - [`node`]: a node as a child process, stopped and looked over for panics when it is dropped;
//! - [`call`]: requests, well formed or not;
//! - [`wire`]: a connection, and a parser of answers that takes nothing but what RFC 9112 allows;
//! - [`curl`]: the client that people use;
//! - [`client`]: other programs as clients, which are killed in the middle;
//! - [`frames`]: HTTP/2 frame by frame;
//! - [`content`]: bytes that can be checked anywhere without being kept;
//! - [`home`]: a directory for a node's disk tier, which outlives the node;
//! - [`random`]: numbers that a seed repeats;
//! - [`latency`]: how long requests took;
//! - [`local`]: the frame protocol over the Unix socket;
//! - [`load`]: clients that write, read and check at the same time;
//! - [`scratch`]: a directory of a test's own.
//!
//! The tests are in `black_box/`, one file a subject. Of the server's crates this library knows the frame protocol's alone, which is to the
//! document what a parser of HTTP is to the RFC.

#![forbid(unsafe_code)]

pub mod binary;
pub mod call;
pub mod client;
pub mod content;
pub mod curl;
pub mod frames;
pub mod home;
pub mod latency;
pub mod load;
pub mod local;
pub mod node;
pub mod random;
pub mod scratch;
pub mod wire;

pub use call::Call;
pub use local::Local;
pub use node::Node;
pub use wire::{Answer, Broken, Connection};

/// Says what a test has measured, for whoever runs it with its output shown.
#[expect(clippy::print_stdout, reason = "it is the test's own output")]
pub fn report(measured: impl std::fmt::Display) {
    println!("{measured}");
}
