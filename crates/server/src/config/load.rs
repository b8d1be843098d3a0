//! From the layers to one valid configuration, or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::error::{ConfigError, ConfigErrors};
use super::node::{Node, Place};
use super::schema::{KEYS, Key};
use super::sections::Config;
use super::validate::Violation;
use super::{environment, file, flags};
use crate::args::Args;

/// How a file is read; [`super::read_file`] outside tests.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<String> + 'a;

/// A valid configuration and what there is to say about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One sentence for each key that was set and has no effect yet.
    pub notices: Vec<String>,
    places: BTreeMap<&'static str, Place>,
}

impl Loaded {
    /// Where the value of a key came from. This tells a path that the user named from a default one.
    pub fn place(&self, key: &str) -> &Place {
        self.places.get(key).unwrap_or(&Place::Default)
    }
}

/// A layer says that a key has a value.
pub(super) struct Assignment {
    pub(super) key: &'static Key,
    pub(super) node: Node,
}

impl Config {
    /// Puts the layers together: defaults, the file of `--config`, `ELCACHE__` variables, flags. Other variables are
    /// ignored. A pure function of its arguments.
    ///
    /// # Errors
    /// Everything that is wrong, in all layers.
    pub fn load(
        args: &Args,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        read: &ReadFile<'_>,
    ) -> Result<Loaded, ConfigErrors> {
        let mut layers = Layers::default();
        if let Some(path) = &args.config {
            let assignments = file::assignments(path, read, &mut layers.errors);
            layers.apply(assignments);
        }
        let assignments = environment::assignments(variables, &mut layers.errors);
        layers.apply(assignments);
        layers.apply(flags::assignments(args));
        layers.finish()
    }
}

#[derive(Default)]
struct Layers {
    config: Config,
    places: BTreeMap<&'static str, Place>,
    /// Keys whose value could not be read: what would follow from their defaults is no news.
    unread: BTreeSet<&'static str>,
    errors: Vec<ConfigError>,
}

impl Layers {
    fn apply(&mut self, assignments: Vec<Assignment>) {
        for Assignment { key, node } in assignments {
            match (key.read)(&mut self.config, &node) {
                Ok(()) => {
                    self.places.insert(key.path, node.place);
                }
                Err(faults) => {
                    self.unread.insert(key.path);
                    let faults = faults.into_iter();
                    self.errors.extend(faults.map(|f| ConfigError::of_fault(key.path, f, key.is_secret())));
                }
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigErrors> {
        let violations = self.config.validate();
        let news = violations.iter().filter(|v| !v.keys.iter().any(|key| self.unread.contains(key)));
        let errors: Vec<_> = news.map(|violation| self.blame(violation)).collect();
        self.errors.extend(errors);
        if !self.errors.is_empty() {
            return Err(ConfigErrors::new(self.errors));
        }
        let notices = self.notices();
        Ok(Loaded { config: self.config, notices, places: self.places })
    }

    /// Where two keys contradict each other, the one that had the last word is the one to look at.
    fn blame(&self, violation: &Violation) -> ConfigError {
        let placed = violation.keys.iter().map(|key| (self.place(key), *key));
        let (place, key) = placed.max_by_key(|(place, _)| *place).unwrap_or((&Place::Default, ""));
        ConfigError::new(place.clone(), key, &violation.problem)
    }

    fn place(&self, key: &str) -> &Place {
        self.places.get(key).unwrap_or(&Place::Default)
    }

    fn notices(&self) -> Vec<String> {
        let waiting = KEYS.iter().filter_map(|key| Some((key.path, key.waits_for(&self.config)?)));
        let notice = |(key, part)| {
            format!(
                "{}: {key}: not available yet, it comes with {part} and has no effect now",
                self.place(key)
            )
        };
        waiting.map(notice).collect()
    }
}
