//! Keys whose values have a shape of their own.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use super::node::{Fault, Node, Raw};
use super::setting::{Members, Setting, from_text, instead};
use super::size::Size;

/// Where a socket is; nowhere when it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketPath(pub PathBuf);

impl SocketPath {
    /// There is to be no socket.
    pub fn is_off(&self) -> bool {
        self.0.as_os_str().is_empty()
    }
}

impl Setting for SocketPath {
    fn expected() -> String {
        "a path, or \"\" for no socket".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        match node.text() {
            Some("") => Ok(Self::default()),
            _ => PathBuf::read(node).map(Self).map_err(|_| node.wrong(Self::expected())),
        }
    }

    fn json(&self) -> Json {
        self.0.json()
    }
}

/// A value that the server works out for itself unless it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// `"auto"`: the server chooses.
    #[default]
    Auto,
    /// The operator chose.
    Fixed(T),
}

impl<T: Setting> Setting for Auto<T> {
    fn expected() -> String {
        format!("\"auto\", or {}", T::expected())
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        if node.text() == Some("auto") {
            return Ok(Self::Auto);
        }
        T::read(node).map(Self::Fixed).map_err(|faults| instead(faults, &Self::expected()))
    }

    fn json(&self) -> Json {
        match self {
            Self::Auto => "auto".into(),
            Self::Fixed(value) => value.json(),
        }
    }
}

/// The directories of the disk tier: one as plain text, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPaths(pub Vec<Directory>);

/// One directory of the disk tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Its capacity; `None` takes `disk.max_size`.
    pub max_size: Option<Size>,
}

impl Setting for DiskPaths {
    fn expected() -> String {
        format!("a path, or a list, each item {}", Directory::expected())
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        match &node.raw {
            Raw::List(_) => Vec::read(node).map(Self),
            _ => Directory::read(node)
                .map(|one| Self(vec![one]))
                .map_err(|faults| instead(faults, &Self::expected())),
        }
    }

    fn json(&self) -> Json {
        match self.0.as_slice() {
            [Directory { path, max_size: None }] => path.json(),
            all => all.iter().map(Directory::json).collect(),
        }
    }
}

impl Setting for Directory {
    fn expected() -> String {
        r#"a path or an object {"path", "max_size"}"#.to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let Raw::Object(members) = &node.raw else {
            let path = PathBuf::read(node).map_err(|faults| instead(faults, &Self::expected()))?;
            return Ok(Self { path, max_size: None });
        };
        let mut members = Members::new(members, &["path", "max_size"]);
        let (path, max_size) = (members.read("path"), members.read("max_size").flatten());
        let whole = path.map(|path| Self { path, max_size });
        members.finish(node, whole, Self::expected())
    }

    fn json(&self) -> Json {
        match self.max_size {
            Some(max_size) => json!({ "path": self.path.json(), "max_size": max_size.json() }),
            None => self.path.json(),
        }
    }
}

/// How many copies of a write must be stored before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAcks {
    /// Every one.
    All,
    /// More than half of them.
    Majority,
    /// This many.
    Count(u32),
}

impl Setting for WriteAcks {
    fn expected() -> String {
        r#""all", "majority" or a number of copies"#.to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        match node.text() {
            Some("all") => Ok(Self::All),
            Some("majority") => Ok(Self::Majority),
            _ => u32::read(node).map(Self::Count).map_err(|faults| instead(faults, &Self::expected())),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::All => "all".into(),
            Self::Majority => "majority".into(),
            Self::Count(count) => count.json(),
        }
    }
}

/// A host, by name or address, and a port that is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// A host, by name or address, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    /// `None` is `network.cluster_port`.
    pub port: Option<u16>,
}

/// Text that is not what its type looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl FromStr for HostPort {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let Advertised { host, port } = text.parse()?;
        Ok(Self { host, port: port.ok_or(NotAnAddress)? })
    }
}

impl FromStr for Advertised {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => ipv6_and_rest(rest)?,
            None if text.parse::<Ipv6Addr>().is_ok() => (text, ""),
            None => named_and_rest(text)?,
        };
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0).ok_or(NotAnAddress)?),
            None if port.is_empty() => None,
            None => return Err(NotAnAddress),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

fn ipv6_and_rest(text: &str) -> Result<(&str, &str), NotAnAddress> {
    let (host, rest) = text.split_once(']').ok_or(NotAnAddress)?;
    host.parse::<Ipv6Addr>().map_err(|_| NotAnAddress)?;
    Ok((host, rest))
}

fn named_and_rest(text: &str) -> Result<(&str, &str), NotAnAddress> {
    let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !host.chars().all(letter) { Err(NotAnAddress) } else { Ok((host, rest)) }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => HostPort { host: self.host.clone(), port }.fmt(f),
            None => f.write_str(&self.host),
        }
    }
}

from_text!(HostPort, r#"a host and a port, such as "cache-1:7890" or "[::1]:7890""#);
from_text!(Advertised, r#"a host with or without a port, such as "10.0.0.7" or "cache-1:7890""#);

/// What the keys under a prefix may take up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The beginning of the keys it counts; nothing is all of them.
    pub prefix: String,
    /// Bytes of values; `None` does not limit them.
    pub bytes: Option<Size>,
    /// Number of values; `None` does not limit it.
    pub entries: Option<u64>,
}

impl Setting for Quota {
    fn expected() -> String {
        r#"an object {"prefix", "bytes", "entries"} with a prefix and at least one limit"#.to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let Raw::Object(members) = &node.raw else { return Err(node.wrong(Self::expected())) };
        let mut members = Members::new(members, &["prefix", "bytes", "entries"]);
        let prefix = members.read::<Prefix>("prefix");
        let (bytes, entries) = (members.read("bytes").flatten(), members.read("entries").flatten());
        let limited = bytes.is_some() || entries.is_some();
        let whole = prefix.filter(|_| limited).map(|Prefix(prefix)| Self { prefix, bytes, entries });
        members.finish(node, whole, Self::expected())
    }

    fn json(&self) -> Json {
        json!({ "prefix": self.prefix, "bytes": self.bytes.json(), "entries": self.entries.json() })
    }
}

/// Unlike other text, a prefix may be empty.
#[derive(Clone, PartialEq)]
struct Prefix(String);

impl Setting for Prefix {
    fn expected() -> String {
        "the beginning of a key".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        node.text().map(|text| Self(text.to_owned())).ok_or_else(|| node.wrong(Self::expected()))
    }

    fn json(&self) -> Json {
        self.0.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for text in ["cache-1:7890", "10.0.0.7:1", "[::1]:7890", "a_b.example:65535"] {
            assert_eq!(text.parse::<HostPort>().map(|parsed| parsed.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["", "cache-1", ":7890", "a:0", "a:65536", "::1", "[::1]", "[x]:1", "a b:1", "a:1:2", "[::1]x:1"]
        {
            assert_eq!(text.parse::<HostPort>(), Err(NotAnAddress), "{text}");
        }
    }

    #[test]
    fn an_advertised_address_needs_no_port() {
        for text in ["10.0.0.7", "cache-1:7890", "::1", "[::1]:7890"] {
            assert_eq!(text.parse::<Advertised>().map(|parsed| parsed.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("a:".parse::<Advertised>(), Err(NotAnAddress));
    }
}
