//! Values that many writers put together, range by range: what is written of one that is not committed yet.
//!
//! # Layout
//! - [`map`]: what of the whole value is written, and where its bytes are;
//! - [`chunk`]: the same of one chunk: a base, and layers on it;
//! - [`runs`]: disjoint ranges.
//!
//! # Invariants
//! - None of it does I/O or waits. Whoever changes a map has made durable before what the map is told, and lets go afterwards
//!   of what the map gives back.
//! - A map is a function of the fragments, fillings and pages that it has been told of, in whatever order.
//! - Where something is lost, nothing older counts in its place.
#![cfg_attr(not(test), expect(dead_code, reason = "uploads by range, which use it, are built on it next"))]

mod chunk;
mod map;
mod runs;
