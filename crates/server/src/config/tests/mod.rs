//! The configuration as its users meet it: layers in, a configuration or messages out.

mod documented;
mod errors;
mod layers;
mod properties;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::args::Args;

/// Everything that can be given to a start, with the file as text.
#[derive(Clone, Default)]
struct Given {
    args: Args,
    file: Option<String>,
    variables: Vec<(OsString, OsString)>,
}

impl Given {
    fn file(text: impl Into<String>) -> Self {
        Self { file: Some(text.into()), ..Self::default() }
    }

    fn flags(flags: &[&str]) -> Self {
        Self::default().with_flags(flags)
    }

    fn variable(name: &str, value: &str) -> Self {
        Self::default().with_variable(name, value)
    }

    fn with_flags(mut self, flags: &[&str]) -> Self {
        let words = std::iter::once(&"elcached").chain(flags);
        self.args = clap::Parser::try_parse_from(words).expect("clap accepts the flags");
        self
    }

    fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn load(mut self) -> Result<Loaded, ConfigErrors> {
        self.args.config = self.file.is_some().then(|| PathBuf::from("e.json"));
        let read = |_: &Path| self.file.clone().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        Config::load(&self.args, self.variables.clone(), &read)
    }

    fn config(self) -> Config {
        self.loaded().config
    }

    fn loaded(self) -> Loaded {
        self.load().unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// One line for each mistake.
    fn mistakes(self) -> Vec<String> {
        let errors = self.load().expect_err("there is a mistake");
        errors.iter().map(ToString::to_string).collect()
    }
}
