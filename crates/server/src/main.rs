//! The binary `elcached`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    elcache_server::run(&elcache_server::args::Args::parse())
}
