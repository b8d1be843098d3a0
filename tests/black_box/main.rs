//! Black-box tests: the real binary on a port of its own, a contract, and clients with bad manners.

#![forbid(unsafe_code)]

mod conditions;
mod evictions;
mod framing;
mod heads;
mod hostile;
mod http2;
mod keys;
mod leaving;
mod limits;
mod load;
mod metadata;
mod pages;
mod process;
mod ranges;
mod uploads;
mod values;
