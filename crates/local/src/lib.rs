//! The Unix socket: the frame protocol for clients of the same machine. What the frames mean is in `docs/protocol.md`.
//!
//! # Layout
//! - [`socket`]: where the socket is and who may connect; [`server`] accepts connections and stops in good order; [`app`] is what
//!   they share.
//! - `session` is one connection: it reads, has frames obeyed, writes, waits. It runs over a `pipe`, with an `input` and an
//!   `output`.
//! - `desk` is what a session does with frames: the table of its open requests. `steps` runs what has to be waited for.
//! - `get`, `stat`, `put`, `sparse`, `delete`: the requests. `intake` is data on their way in, `outlet` an answer on its way out.
//! - `sharing`: a connection goes on over shared memory, whose `memory` holds two rings (`ring`) that make a pipe (`rings`).
//! - `status`: the one table from what went wrong to what the client is told.
//!
//! # Invariants
//! What comes from a client is never indexed, unwrapped or added unchecked. Whatever is buffered is bounded: by windows, by the number
//! of open requests, by the length of the output. A slow request holds up no other one. Nothing but the session's own task touches a
//! session, so nothing in it is locked.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice)]

pub mod app;
mod delete;
mod desk;
mod get;
mod input;
mod intake;
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "offsets are those of the layout, and what a client says is a count that is never one"
)]
mod memory;
mod outlet;
mod output;
mod pipe;
mod pool;
mod put;
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "places are below the capacity, which is ours, and counts of a client are looked at before they are used"
)]
pub mod ring;
mod rings;
pub mod server;
mod session;
pub mod sharing;
pub mod socket;
mod sparse;
mod stat;
mod status;
mod steps;

pub use app::{Local, LocalConfig};
pub use server::Server;
pub use sharing::Sharing;
pub use socket::Bound;
