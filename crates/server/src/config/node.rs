//! What the three layers have in common before it is known what they mean: a value and the place it was written.

use std::fmt;
use std::sync::Arc;

/// Where a value was written. The order is that of precedence, and within a file that of reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: it is the default.
    Default,
    /// In the configuration file, or the file as a whole.
    File {
        /// As it was named on the command line.
        path: Arc<str>,
        /// Where in it.
        at: Option<Position>,
    },
    /// In the environment variable of this name.
    Environment(String),
    /// In the flag of this name.
    Flag(&'static str),
}

/// A place in a text, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Lines end in `\n`.
    pub line: usize,
    /// The first character of a line is in column 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, at: None } => write!(f, "{}", path.escape_debug()),
            Self::File { path, at: Some(at) } => {
                write!(f, "{}:{}:{}", path.escape_debug(), at.line, at.column)
            }
            Self::Environment(name) => write!(f, "{}", name.escape_debug()),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value of which only the form is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) raw: Raw,
    pub(super) place: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Null,
    Bool(bool),
    /// As it was written, so that no digit is lost before the type is known.
    Number(String),
    String(String),
    /// From a flag or a variable, where `8080` and `true` have no quotes to tell text from number.
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// What is wrong with a value, told from inside of it: the key is added by whoever knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub(super) place: Place,
    /// Which part of the value: `[2].max_size`, or nothing for the whole.
    pub(super) inside: String,
    pub(super) found: String,
    pub(super) expected: String,
}

/// What an error message shows of a long value.
const SHOWN_MAX: usize = 60;

impl Node {
    pub(super) fn text_at(text: impl Into<String>, place: Place) -> Self {
        Self { raw: Raw::Text(text.into()), place }
    }

    pub(super) fn is_null(&self) -> bool {
        match &self.raw {
            Raw::Null => true,
            Raw::Text(text) => text == "null",
            _ => false,
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.raw {
            Raw::Bool(value) => Some(*value),
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<&str> {
        match &self.raw {
            Raw::Number(text) | Raw::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.raw {
            Raw::String(text) | Raw::Text(text) => Some(text),
            _ => None,
        }
    }

    /// One fault: this value is not what was expected.
    pub(super) fn wrong(&self, expected: impl Into<String>) -> Vec<Fault> {
        vec![Fault {
            place: self.place.clone(),
            inside: String::new(),
            found: self.shown(),
            expected: expected.into(),
        }]
    }

    fn shown(&self) -> String {
        match &self.raw {
            Raw::Null => "null".to_owned(),
            Raw::Bool(value) => value.to_string(),
            Raw::Number(text) => shortened(text),
            Raw::String(text) | Raw::Text(text) => format!("{:?}", shortened(text)),
            Raw::List(_) => "a list".to_owned(),
            Raw::Object(_) => "an object".to_owned(),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
