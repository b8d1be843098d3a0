//! The frame protocol, bytes to types and back. `docs/protocol.md` is the authority; its examples are a test of this crate.
//!
//! # Layout
//! - [`header`]: the 24 bytes that every frame begins with.
//! - [`field`]: what follows them, read by one function into [`Fields`] and written by [`Frame`].
//! - [`hello`]: how a connection begins.
//! - [`request`]: what a client asks for; [`flow`] what it says of requests under way.
//! - [`reply`]: what a server answers, with the [`status`] that it comes to.
//!
//! # Invariants
//! Whatever the bytes are, they are read or refused, without a panic and without more memory than they take. What has been read is
//! within the limits of the protocol.
//!
//! It must not know sockets, rings, or what a request does.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::string_slice)]

pub mod field;
pub mod flow;
pub mod header;
pub mod hello;
pub mod reply;
pub mod request;
pub mod status;

pub use field::{FieldError, Fields, Frame};
pub use header::{Header, HeaderError, Kind};
pub use hello::{ClientHello, PREFACE, ServerHello};
pub use reply::Reply;
pub use request::{Refusal, Request};
pub use status::Status;

/// The version of the protocol that this crate speaks.
pub const VERSION: u64 = 1;
/// What may be sent of an answer whose `GET` names no window.
pub const ANSWER_WINDOW: u64 = 1 << 20;

#[cfg(test)]
mod tests;
