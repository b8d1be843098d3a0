//! Black-box tests: the real binary on a port of its own, a contract, and clients with bad manners.

#![forbid(unsafe_code)]

mod conditions;
mod keys;
mod metadata;
mod ranges;
mod values;
