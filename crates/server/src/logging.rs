//! Where events go and in which form.
//!
//! Events go to stderr: stdout belongs to what a command was asked to print. The level can change while the process
//! runs; a level that is off costs one atomic load at its call site, before and after a change, because the filter
//! is a plain level whose verdict is cached for each call site.

use std::fmt;
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging for the whole process.
///
/// # Errors
/// When this process already has a global subscriber.
pub fn start(log: &Log) -> Result<LogHandle, LoggingError> {
    let surroundings = Surroundings::of_stderr();
    let (subscriber, handle) = subscriber(form(log.format, surroundings), log.level, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::AlreadyStarted)?;
    Ok(handle)
}

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<LevelFilter, Registry>);

impl LogHandle {
    /// Takes effect for every event from now on, on every thread.
    ///
    /// # Errors
    /// When the log that this handle belongs to is gone.
    pub fn set_level(&self, level: LogLevel) -> Result<(), LoggingError> {
        self.0.reload(filter(level)).map_err(|_| LoggingError::Gone)
    }
}

/// Why logging could not be started or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggingError {
    /// Something else in this process has started to log.
    AlreadyStarted,
    /// The log no longer exists.
    Gone,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyStarted => "logging has been started before in this process",
            Self::Gone => "the log no longer exists",
        })
    }
}

impl std::error::Error for LoggingError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text { colour: bool },
    Json,
}

#[derive(Clone, Copy)]
struct Surroundings {
    terminal: bool,
    colour_unwanted: bool,
}

impl Surroundings {
    fn of_stderr() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { terminal: std::io::stderr().is_terminal(), colour_unwanted: no_color || dumb }
    }
}

fn form(format: LogFormat, around: Surroundings) -> Form {
    match format {
        LogFormat::Json => Form::Json,
        LogFormat::Auto | LogFormat::Text => {
            Form::Text { colour: around.terminal && !around.colour_unwanted }
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn subscriber<W>(form: Form, level: LogLevel, writer: W) -> (impl Subscriber + Send + Sync, LogHandle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (level, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match form {
        Form::Text { colour } => lines.with_target(false).with_ansi(colour).boxed(),
        Form::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    (tracing_subscriber::registry().with(level).with(lines), LogHandle(handle))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(form: Form, events: impl FnOnce(&LogHandle)) -> String {
        let captured = Captured::default();
        let sink = captured.clone();
        let (subscriber, handle) = subscriber(form, LogLevel::Info, move || sink.clone());
        tracing::subscriber::with_default(subscriber, || events(&handle));
        captured.text()
    }

    #[test]
    fn json_lines_are_json_with_the_fields_at_the_top() {
        let text = logged(Form::Json, |_| tracing::warn!(port = 8080, "taken"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "taken");
        assert_eq!(line["port"], 8080);
    }

    #[test]
    fn text_without_colour_has_no_escape_sequences() {
        let text = logged(Form::Text { colour: false }, |_| tracing::warn!("taken"));
        assert!(text.contains("WARN taken") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = logged(Form::Text { colour: false }, |handle| {
            for (level, word) in
                [(LogLevel::Info, "first"), (LogLevel::Debug, "second"), (LogLevel::Off, "third")]
            {
                handle.set_level(level).unwrap();
                tracing::debug!("{word}");
            }
        });
        assert!(!text.contains("first") && text.contains("second") && !text.contains("third"), "{text}");
    }

    #[test]
    fn colour_is_for_terminals_whose_user_wants_it() {
        let cases = [(true, false, true), (true, true, false), (false, false, false)];
        for (terminal, colour_unwanted, colour) in cases {
            let around = Surroundings { terminal, colour_unwanted };
            assert_eq!(form(LogFormat::Auto, around), Form::Text { colour });
            assert_eq!(form(LogFormat::Json, around), Form::Json);
        }
    }
}
