//! The server behind the binary `elcached`: from a command line to a running process.
//!
//! It is a library so that tests and fuzzers reach the parts that read outside data; `main.rs` only calls [`run`].
//!
//! Layout:
//! - [`args`]: the command line, and its help;
//! - [`config`]: every configuration key, read from file, environment and flags, checked, printed, compared;
//! - [`logging`]: where events go, in which form, and how the level changes while the process runs.
//!
//! What it must not do: bind a port or touch a directory before the whole configuration has been found valid.

#![forbid(unsafe_code)]

pub mod args;
pub mod config;
pub mod logging;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use args::Args;
use config::{Config, Loaded};

/// Reads the configuration and does what the command line asks for. Exit code 1 is a failure that was explained
/// on stderr.
pub fn run(args: &Args) -> ExitCode {
    match Config::load(args, std::env::vars_os(), &config::read_file) {
        Err(errors) => fail(&errors),
        Ok(loaded) if args.check_config => check(&loaded),
        Ok(loaded) => serve(&loaded),
    }
}

/// `--check-config`: the effective configuration on stdout, remarks on stderr, so that stdout stays valid JSON.
fn check(loaded: &Loaded) -> ExitCode {
    for notice in &loaded.notices {
        complain(notice);
    }
    match writeln!(std::io::stdout().lock(), "{}", loaded.config.to_json()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format_args!("the configuration cannot be written to stdout: {error}")),
    }
}

fn serve(loaded: &Loaded) -> ExitCode {
    if let Err(error) = logging::start(&loaded.config.log) {
        return fail(&error);
    }
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    ExitCode::SUCCESS
}

fn fail(reason: &dyn Display) -> ExitCode {
    complain(reason);
    ExitCode::FAILURE
}

/// For what has to be said before, or instead of, logging. A stderr that is gone leaves nobody to tell.
fn complain(text: &dyn Display) {
    let _ = writeln!(std::io::stderr().lock(), "elcached: {text}");
}
