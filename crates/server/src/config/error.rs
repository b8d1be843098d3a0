//! All that is wrong with a configuration, together.

use std::fmt;

use super::node::{Fault, Place};

/// One mistake: where it stands, which key it is about, what is wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value was written.
    pub place: Place,
    /// The dotted key; empty when the file as a whole is meant.
    pub key: String,
    /// What was found and what was expected, without the key.
    pub problem: String,
}

impl ConfigError {
    pub(super) fn new(place: Place, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place, key: key.into(), problem: problem.into() }
    }

    pub(super) fn of_fault(key: &str, fault: Fault, secret: bool) -> Self {
        let found = if secret { "something else (not shown)" } else { &fault.found };
        let problem = format!("found {found}, expected {}", fault.expected);
        Self::new(fault.place, format!("{key}{}", fault.inside), problem)
    }
}

/// One line, whatever the names in it are.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.problem),
            key => write!(f, "{}: {}: {}", self.place, key.escape_debug(), self.problem),
        }
    }
}

/// At least one mistake, in the order in which their places are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|a, b| a.place.cmp(&b.place));
        Self(errors)
    }

    /// The mistakes, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "{} mistakes in the configuration", many.len())?;
                many.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}
