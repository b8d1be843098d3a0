//! The server behind the binary `elcached`: from a command line to a running process.
//!
//! It is a library so that tests and fuzzers reach the parts that read outside data; `main.rs` only calls [`run`].
//!
//! Layout:
//! - [`args`]: the command line, and its help;
//! - [`config`]: every configuration key, read from file, environment and flags, checked, printed, compared;
//! - `disk`: which directory and which engine the disk tier has;
//! - `local`: where the Unix socket is;
//! - [`logging`]: where events go, in which form, and how the level changes while the process runs;
//! - [`node`]: a configuration made into a node that serves;
//! - [`signals`]: stopping and reloading.
//!
//! What it must not do: bind a port or touch a directory before the whole configuration has been found valid.

#![forbid(unsafe_code)]

pub mod args;
pub mod config;
mod disk;
mod local;
pub mod logging;
pub mod node;
pub mod signals;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use args::Args;
use config::{Config, Loaded};
use node::{Node, StartError};
use signals::{Reloader, Signals};
use tokio::sync::watch;

/// Reads the configuration and does what the command line asks for. Exit code 1 is a failure that was explained
/// on stderr.
pub fn run(args: &Args) -> ExitCode {
    match Config::load(args, std::env::vars_os(), &config::read_file) {
        Err(errors) => fail(&errors),
        Ok(loaded) if args.check_config => check(&loaded),
        Ok(loaded) => serve(args, &loaded),
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

fn serve(args: &Args, loaded: &Loaded) -> ExitCode {
    let log = match logging::start(&loaded.config.log) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    let served = node::runtime(&loaded.config).and_then(|runtime| {
        let served = runtime.block_on(run_node(args, loaded, log));
        // What still hashes for an upload that was cut off is not waited for.
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// From an open port to the end of the last request.
async fn run_node(args: &Args, loaded: &Loaded, log: logging::LogHandle) -> Result<(), StartError> {
    let signals =
        Signals::take().map_err(|error| StartError::new(format!("signals cannot be taken: {error}")))?;
    let node = Node::build(&loaded.config).await?;
    let address = node.address().map_err(|error| StartError::new(format!("the port is gone: {error}")))?;
    let (stop, stopped) = watch::channel(false);
    let reloader = Reloader::new(args.clone(), loaded, log, node.controls());
    let obeying = tokio::spawn(signals.obey(stop, reloader));
    let memory = loaded.config.memory.max_size;
    let socket = node.socket().map(|path| path.display().to_string());
    tracing::info!(node = node.name(), %address, socket, %memory, version = env!("CARGO_PKG_VERSION"), "listening");
    let finished = node.run(stopped).await;
    obeying.abort();
    if finished {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped; requests that did not end in time were cut off");
    }
    Ok(())
}

fn fail(reason: &dyn Display) -> ExitCode {
    complain(reason);
    ExitCode::FAILURE
}

/// For what has to be said before, or instead of, logging. A stderr that is gone leaves nobody to tell.
fn complain(text: &dyn Display) {
    let _ = writeln!(std::io::stderr().lock(), "elcached: {text}");
}
