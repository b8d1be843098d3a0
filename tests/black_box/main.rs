//! Black-box tests: the real binary on a port of its own, a contract, and clients with bad manners.

#![forbid(unsafe_code)]

mod client_aria2;
mod client_curl;
mod client_duckdb;
mod client_ffmpeg;
mod conditions;
mod disk_admission;
mod disk_capacity;
mod disk_causes;
mod disk_directories;
mod disk_full;
mod disk_kill;
mod disk_others;
mod disk_recovery;
mod disk_restart;
mod disk_sequences;
mod disk_soak;
mod disk_start;
mod disk_stream;
mod evictions;
mod far_ends;
mod framing;
mod heads;
mod hostile;
mod http2;
mod huge;
mod keys;
mod leaving;
mod limits;
mod load;
mod local;
mod local_flow;
mod local_hostile;
mod local_socket;
mod metadata;
mod pages;
mod process;
mod ranges;
mod sparse;
mod sparse_writers;
mod too_large;
mod uploads;
mod values;
