//! How a type is read from a node and printed again: one trait, and its plain cases.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value as Json;

use super::node::{Fault, Member, Node, Raw};

/// A type that a key can have. `read(json(x))` is `x`.
pub(super) trait Setting: Clone + PartialEq {
    /// What a value of this type looks like, as the end of "expected ...".
    fn expected() -> String;

    fn read(node: &Node) -> Result<Self, Vec<Fault>>;

    fn json(&self) -> Json;
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        node.boolean().ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

/// Integers share everything but the sentence.
macro_rules! whole_number {
    ($type:ty, $expected:literal) => {
        impl Setting for $type {
            fn expected() -> String {
                $expected.to_owned()
            }

            fn read(node: &Node) -> Result<Self, Vec<Fault>> {
                let value = node.number().and_then(|text| text.parse().ok());
                value.ok_or_else(|| node.wrong(Self::expected()))
            }

            fn json(&self) -> Json {
                (*self).into()
            }
        }
    };
}

whole_number!(u16, "a port number, 0 to 65535");
whole_number!(u32, "a whole number, 0 to 4294967295");
whole_number!(u64, "a whole number, 0 to 18446744073709551615");

impl Setting for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let value = node.number().and_then(|text| text.parse().ok()).filter(|value: &f64| value.is_finite());
        value.ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        (*self).into()
    }
}

impl Setting for String {
    fn expected() -> String {
        "text that is not empty".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let text = node.text().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        self.as_str().into()
    }
}

impl Setting for PathBuf {
    fn expected() -> String {
        "a path".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let path = node.text().filter(|text| !text.is_empty() && !text.contains('\0'));
        path.map(PathBuf::from).ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        self.to_string_lossy().into()
    }
}

/// Types that have a text form of their own.
macro_rules! from_text {
    ($type:ty, $expected:literal) => {
        impl Setting for $type {
            fn expected() -> String {
                $expected.to_owned()
            }

            fn read(node: &Node) -> Result<Self, Vec<Fault>> {
                let value = node.text().and_then(|text| text.parse().ok());
                value.ok_or_else(|| node.wrong(Self::expected()))
            }

            fn json(&self) -> Json {
                self.to_string().into()
            }
        }
    };
}

pub(super) use from_text;

from_text!(IpAddr, r#"an IP address, such as "0.0.0.0" or "::1""#);
from_text!(SocketAddr, r#"an IP address and a port, such as "127.0.0.1:9090" or "[::1]:9090""#);

/// `null` is no value; what that means is said with the key.
impl<T: Setting> Setting for Option<T> {
    fn expected() -> String {
        format!("{}, or null", T::expected())
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        if node.is_null() {
            return Ok(None);
        }
        T::read(node).map(Some).map_err(|faults| instead(faults, &Self::expected()))
    }

    fn json(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::json)
    }
}

/// In a variable: items between commas. In a file: a list.
impl<T: Setting> Setting for Vec<T> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        match &node.raw {
            Raw::List(items) => read_items(items),
            Raw::Text(text) => read_items(&between_commas(text, node)),
            _ => Err(node.wrong(Self::expected())),
        }
    }

    fn json(&self) -> Json {
        self.iter().map(T::json).collect()
    }
}

fn between_commas(text: &str, node: &Node) -> Vec<Node> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Node::text_at(item, node.place.clone())).collect()
}

fn read_items<T: Setting>(items: &[Node]) -> Result<Vec<T>, Vec<Fault>> {
    let mut values = Vec::with_capacity(items.len());
    let mut faults = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match T::read(item) {
            Ok(value) => values.push(value),
            Err(found) => faults.extend(within(found, &format!("[{index}]"))),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// Says `expected` where the value as a whole is at fault: a wrapper accepts more than what it wraps.
pub(super) fn instead(mut faults: Vec<Fault>, expected: &str) -> Vec<Fault> {
    for fault in faults.iter_mut().filter(|fault| fault.inside.is_empty()) {
        expected.clone_into(&mut fault.expected);
    }
    faults
}

fn within(faults: Vec<Fault>, part: &str) -> impl Iterator<Item = Fault> {
    faults.into_iter().map(move |fault| Fault { inside: format!("{part}{}", fault.inside), ..fault })
}

/// Reads the members of an object that is one value, such as a quota, and remembers all that is wrong with them.
pub(super) struct Members<'a> {
    members: &'a [Member],
    faults: Vec<Fault>,
}

impl<'a> Members<'a> {
    pub(super) fn new(members: &'a [Member], known: &[&str]) -> Self {
        let unknown = members.iter().filter(|member| !known.contains(&member.name.as_str()));
        let faults = unknown.map(|member| Fault {
            place: member.place.clone(),
            inside: format!(".{}", member.name),
            found: "an unknown member".to_owned(),
            expected: format!("one of {}", known.join(", ")),
        });
        Self { members, faults: faults.collect() }
    }

    /// The member, if it is there and right.
    pub(super) fn read<T: Setting>(&mut self, name: &str) -> Option<T> {
        let member = self.members.iter().find(|member| member.name == name)?;
        match T::read(&member.value) {
            Ok(value) => Some(value),
            Err(faults) => {
                self.faults.extend(within(faults, &format!(".{name}")));
                None
            }
        }
    }

    /// The whole, unless anything was wrong; `whole` is `None` when a member that must be there is not.
    pub(super) fn finish<T>(self, node: &Node, whole: Option<T>, expected: String) -> Result<T, Vec<Fault>> {
        match whole {
            Some(whole) if self.faults.is_empty() => Ok(whole),
            None if self.faults.is_empty() => Err(node.wrong(expected)),
            _ => Err(self.faults),
        }
    }
}
