//! The environment: `ELCACHE__SECTION__KEY=value`.
//!
//! Values have no quotes; text that begins like a JSON list or object is read as JSON, since some keys take those.

use std::ffi::OsString;

use super::error::ConfigError;
use super::file;
use super::load::Assignment;
use super::node::{Node, Place};
use super::schema::{self, KEYS, Key, PREFIX};
use super::suggest::{did_you_mean, suggestions};

pub(super) fn assignments(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Assignment> {
    let ours = variables.into_iter().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX));
    ours.filter_map(|(name, value)| assignment(&name.to_string_lossy(), value, errors)).collect()
}

fn assignment(name: &str, value: OsString, errors: &mut Vec<ConfigError>) -> Option<Assignment> {
    let place = Place::Environment(name.to_owned());
    let Some(key) = KEYS.iter().find(|key| schema::variable(key.path) == name) else {
        errors.push(unknown(name, place));
        return None;
    };
    let Ok(text) = value.into_string() else {
        errors.push(ConfigError::new(place, key.path, "found bytes that are no text, expected UTF-8"));
        return None;
    };
    Some(Assignment { key, node: node(text, &place, key, errors) })
}

fn node(text: String, place: &Place, key: &Key, errors: &mut Vec<ConfigError>) -> Node {
    let json = if text.trim_start().starts_with(['[', '{']) {
        file::value_in(&text, place, key.path, errors)
    } else {
        None
    };
    json.unwrap_or_else(|| Node::text_at(text, place.clone()))
}

fn unknown(name: &str, place: Place) -> ConfigError {
    let path = name.strip_prefix(PREFIX).unwrap_or_default().to_ascii_lowercase().replace("__", ".");
    let keys: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    let near = suggestions(&path, &keys);
    let problem = if schema::is_section(&path) {
        format!("the variable names a section, {}", one_of(&path))
    } else if near.is_empty() {
        let section = path.rsplit_once('.').map_or("", |(section, _)| section);
        format!(
            "the variable names no key, {}",
            one_of(if schema::is_section(section) { section } else { "" })
        )
    } else {
        let near: Vec<_> = near.iter().map(|path| schema::variable(path)).collect();
        format!("the variable names no key{}", did_you_mean(&near))
    };
    ConfigError::new(place, "", problem)
}

fn one_of(section: &str) -> String {
    let names = schema::names_in(section).join(", ").to_ascii_uppercase();
    let separator = if section.is_empty() { "" } else { "__" };
    format!("expected {}{separator} and one of {names}", schema::variable(section))
}
