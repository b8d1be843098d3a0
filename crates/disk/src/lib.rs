//! The disk tier: what is written outlives the process, and is found again after a restart.
//!
//! The format on disk is described in `docs/disk-format.md`, which is the authority.
//!
//! # Layout
//! - `format`: what stands on the disk, as functions between bytes and types.
//! - `index`: where the newest record of each name lies, in memory.
//! - `io`: what is asked of the operating system, as one trait, and the two engines behind it.

#![deny(unsafe_code)]

mod format;
mod index;
pub mod io;
