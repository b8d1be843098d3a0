//! The disk tier: what is written outlives the process, and is found again after a restart.
//!
//! The format on disk is described in `docs/disk-format.md`, which is the authority.
//!
//! # Layout
//! - `io`: what is asked of the operating system, as one trait, and the two engines behind it.

#![deny(unsafe_code)]

pub mod io;
