//! Signals: what an operator says to a running node.
//!
//! SIGTERM and SIGINT ask it to stop; a second one of either ends it at once. SIGHUP has it read its configuration again.

use std::collections::HashSet;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::args::Args;
use crate::config::{self, Config, Loaded, Reload};
use crate::logging::LogHandle;
use crate::node::Controls;

/// Exit code of a node that is ended by a second signal: what a shell reports for SIGTERM.
const ENDED: i32 = 128 + 15;

/// The signals that a node listens to. They are taken before the port opens, so that none is lost.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from the kernel's defaults. To be called within a runtime.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for signals and acts on them, for ever.
    pub async fn obey(mut self, stop: watch::Sender<bool>, mut reloader: Reloader) {
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => reloader.reload(),
                _ = self.terminate.recv() => request_stop(&stop),
                _ = self.interrupt.recv() => request_stop(&stop),
            }
        }
    }
}

fn request_stop(stop: &watch::Sender<bool>) {
    if stop.send_replace(true) {
        tracing::warn!("a second signal: ending at once");
        end_at_once();
    }
    tracing::info!(
        "stopping: no new connections, finishing what is in flight; a second signal ends it at once"
    );
}

#[expect(clippy::disallowed_methods, reason = "a second signal asks for exactly this")]
fn end_at_once() -> ! {
    std::process::exit(ENDED)
}

/// Reads the configuration again and applies what can be applied.
pub struct Reloader {
    args: Args,
    running: Config,
    said: HashSet<String>,
    log: LogHandle,
    controls: Controls,
}

impl Reloader {
    /// One that knows what runs now.
    pub fn new(args: Args, loaded: &Loaded, log: LogHandle, controls: Controls) -> Self {
        let said = loaded.notices.iter().cloned().collect();
        Self { args, running: loaded.config.clone(), said, log, controls }
    }

    fn reload(&mut self) {
        let loaded = match Config::load(&self.args, std::env::vars_os(), &config::read_file) {
            Ok(loaded) => loaded,
            Err(errors) => {
                tracing::error!("the configuration is not reloaded, the old one stays in force: {errors}");
                return;
            }
        };
        for notice in loaded.notices {
            if self.said.insert(notice.clone()) {
                tracing::warn!("{notice}");
            }
        }
        let Reload { config, live, restart } = Reload::compare(&self.running, &loaded.config);
        if self.log.set_level(config.log.level).is_err() {
            tracing::warn!("log.level cannot be changed any more");
        }
        self.controls.apply(&config);
        self.running = config;
        tracing::info!(changed = %list(&live), need_restart = %list(&restart), "configuration reloaded");
    }
}

fn list(keys: &[&str]) -> String {
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}
