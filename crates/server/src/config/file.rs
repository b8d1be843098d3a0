//! The configuration file: JSON with comments, read into assignments with their places.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::error::ConfigError;
use super::load::{Assignment, ReadFile};
use super::node::{Member, Node, Place, Position, Raw};
use super::schema;
use super::suggest::{did_you_mean, suggestions};

/// A configuration is written by people; more than this is the wrong file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads a file whole, if it is text of a sane length.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::FileTooLarge`] above 4 MiB.
pub fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 MiB is no configuration"));
    }
    Ok(text)
}

/// The assignments of the file at `path`; what is wrong with it goes to `errors`.
pub(super) fn assignments(
    path: &Path,
    read: &ReadFile<'_>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Assignment> {
    let name: Arc<str> = path.to_string_lossy().into();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            let place = Place::File { path: name, at: None };
            errors.push(ConfigError::new(place, "", format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut walk = Walk { cursor: Cursor::new(text), path: Some(name), place: Place::Default, errors };
    walk.root(text)
}

/// A value in JSON inside a variable. `None` if it is no JSON.
pub(super) fn value_in(text: &str, place: &Place, key: &str, errors: &mut Vec<ConfigError>) -> Option<Node> {
    let parsed = parse(text).ok()??;
    let mut walk = Walk { cursor: Cursor::new(text), path: None, place: place.clone(), errors };
    Some(walk.node(&parsed, key))
}

fn parse(text: &str) -> Result<Option<Value<'_>>, jsonc_parser::errors::ParseError> {
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    parse_to_ast(text, &CollectOptions::default(), &options).map(|parsed| parsed.value)
}

/// One pass over a parsed text. Sections are taken apart into assignments, values become nodes.
struct Walk<'a> {
    cursor: Cursor<'a>,
    /// `None` inside a variable, where every place is the variable's.
    path: Option<Arc<str>>,
    place: Place,
    errors: &'a mut Vec<ConfigError>,
}

impl<'a> Walk<'a> {
    fn root(&mut self, text: &'a str) -> Vec<Assignment> {
        match parse(text) {
            Ok(None) => Vec::new(),
            Ok(Some(Value::Object(object))) => self.section(&object, ""),
            Ok(Some(other)) => {
                let node = self.node(&other, "");
                self.wrong(&node, "", "");
                Vec::new()
            }
            Err(error) => {
                let place = self.place_at(error.range().start);
                self.errors.push(ConfigError::new(place, "", format!("this is no JSON: {}", error.kind())));
                Vec::new()
            }
        }
    }

    fn section(&mut self, object: &Object<'_>, path: &str) -> Vec<Assignment> {
        let mut seen = BTreeSet::new();
        object.properties.iter().flat_map(|property| self.property(property, path, &mut seen)).collect()
    }

    fn property(
        &mut self,
        property: &ObjectProp<'_>,
        section: &str,
        seen: &mut BTreeSet<String>,
    ) -> Vec<Assignment> {
        let place = self.place_at(property.start());
        let name = property.name.as_str();
        let path = joined(section, name);
        self.once(name, &path, &place, seen);
        if let Some((section, _)) = name.split_once('.') {
            let problem =
                format!("unknown key, expected sections as objects, such as {{\"{section}\": {{...}}}}");
            self.errors.push(ConfigError::new(place, &path, problem));
            return Vec::new();
        }
        match (schema::find(&path), &property.value) {
            (Some(key), value) => vec![Assignment { key, node: self.node(value, &path) }],
            (None, Value::Object(object)) if schema::is_section(&path) => self.section(object, &path),
            (None, value) if schema::is_section(&path) => {
                let node = self.node(value, &path);
                self.wrong(&node, &path, &path);
                Vec::new()
            }
            (None, _) => {
                self.errors.push(ConfigError::new(place, &path, unknown(&path, section)));
                Vec::new()
            }
        }
    }

    fn wrong(&mut self, node: &Node, path: &str, section: &str) {
        let expected = format!("an object with any of {}", schema::names_in(section).join(", "));
        let faults = node.wrong(expected).into_iter();
        self.errors.extend(faults.map(|fault| ConfigError::of_fault(path, fault, false)));
    }

    fn node(&mut self, value: &Value<'_>, path: &str) -> Node {
        let place = self.place_at(value.start());
        let raw = match value {
            Value::NullKeyword(_) => Raw::Null,
            Value::BooleanLit(literal) => Raw::Bool(literal.value),
            Value::NumberLit(literal) => Raw::Number(literal.value.to_owned()),
            Value::StringLit(literal) => Raw::String(literal.value.to_string()),
            Value::Array(array) => {
                let items = array.elements.iter().enumerate();
                Raw::List(items.map(|(index, item)| self.node(item, &format!("{path}[{index}]"))).collect())
            }
            Value::Object(object) => Raw::Object(self.members(object, path)),
        };
        Node { raw, place }
    }

    fn members(&mut self, object: &Object<'_>, path: &str) -> Vec<Member> {
        let mut seen = BTreeSet::new();
        let mut members = Vec::with_capacity(object.properties.len());
        for property in &object.properties {
            let place = self.place_at(property.start());
            let name = property.name.as_str().to_owned();
            let path = joined(path, &name);
            self.once(&name, &path, &place, &mut seen);
            members.push(Member { name, place, value: self.node(&property.value, &path) });
        }
        members
    }

    /// JSON leaves open which of two members of one name counts, so neither may.
    fn once(&mut self, name: &str, path: &str, place: &Place, seen: &mut BTreeSet<String>) {
        if !seen.insert(name.to_owned()) {
            self.errors.push(ConfigError::new(place.clone(), path, "stands twice, expected once"));
        }
    }

    fn place_at(&mut self, offset: usize) -> Place {
        match &self.path {
            Some(path) => Place::File { path: path.clone(), at: Some(self.cursor.position(offset)) },
            None => self.place.clone(),
        }
    }
}

fn joined(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn unknown(path: &str, section: &str) -> String {
    match suggestions(path, &schema::all_names()) {
        names if names.is_empty() => {
            format!("unknown key, expected one of {}", schema::names_in(section).join(", "))
        }
        names => format!("unknown key{}", did_you_mean(&names)),
    }
}

/// Turns byte offsets into lines and columns. Offsets come in rising order, so that one pass over the text serves
/// them all, however long its lines are.
struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    position: Position,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, offset: 0, position: Position { line: 1, column: 1 } }
    }

    fn position(&mut self, offset: usize) -> Position {
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        for character in self.text.get(self.offset..offset).unwrap_or_default().chars() {
            if character == '\n' {
                self.position = Position { line: self.position.line + 1, column: 1 };
            } else {
                self.position.column += 1;
            }
        }
        self.offset = offset;
        self.position
    }
}
