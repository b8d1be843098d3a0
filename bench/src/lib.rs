//! The load generator of the measuring bench: one thread, one epoll instance, a fixed number of connections that
//! each have one request in flight, for HTTP/1.1, Redis and memcached.
//!
//! # Layout
//! - [`content`]: the bytes of all values, as one stream that can be made and checked at any position
//! - [`workload`]: which values there are and which request comes next
//! - [`protocol`]: requests and the heads of answers on the wire
//! - `connection`: one connection's exchange, non-blocking
//! - [`load`]: connections, epoll, warm-up, window: one run
//! - [`store`]: writes the values of a workload to a server and checks each of them
//! - [`cpu`]: processor time of a server and all its children
//! - [`histogram`][]: latencies
//!
//! # Invariants
//! Only whole answers with the right status, length and range count; anything else ends the run with an error. What
//! the generator does for a byte that it does not verify must cost less than what any server does to send it: bodies
//! are discarded in the kernel (`MSG_TRUNC`), bodies to send lie ready in memory.
//!
//! It knows nothing of particular servers: those are the orchestrator's, `src/bin/elcache-bench`.
#![forbid(unsafe_code)]

mod connection;
pub mod content;
pub mod cpu;
pub mod error;
pub mod histogram;
pub mod load;
pub mod protocol;
pub mod store;
pub mod workload;

pub use error::Error;
