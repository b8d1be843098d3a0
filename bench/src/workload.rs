//! What is asked of a server: which values there are, and which request comes next.

use std::fmt;
use std::str::FromStr;

use crate::content::{Random, mix};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The three kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole values.
    Get,
    /// A range at a random offset, any byte, of one large value.
    Range,
    /// Values written over and over, with other bytes each time.
    Put,
}

/// A kind of request and the sizes that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What is asked.
    pub kind: Kind,
    /// Payload bytes of one request.
    pub size: u64,
    /// Bytes of the values that are asked for; `size` except for ranges.
    pub value_size: u64,
    /// How many values there are; requests choose among them evenly.
    pub keys: u64,
}

impl Workload {
    /// The one of this kind and size. Small values are many, so that a server's index has work to do; together they
    /// stay within 128 MiB.
    pub fn new(kind: Kind, size: u64) -> Self {
        let (value_size, keys) = match kind {
            Kind::Range => (GIB.max(size), 1),
            Kind::Get | Kind::Put => (size, (128 * MIB / size.max(1)).clamp(1, 10_000)),
        };
        Self { kind, size, value_size, keys }
    }

    /// The value with this number.
    pub fn value(&self, number: u64) -> Value {
        Value { kind: self.kind, size: self.value_size, number }
    }

    /// The next request. What a PUT writes is the sender's to choose, so it is left at the value's own content.
    pub fn next(&self, random: &mut Random) -> Request {
        let value = self.value(random.below(self.keys));
        match self.kind {
            Kind::Get => Request::get(value),
            Kind::Range => {
                let from = random.below(self.value_size - self.size + 1);
                Request { value, action: Action::Range { from, length: self.size } }
            }
            Kind::Put => Request { value, action: Action::Put { origin: value.origin() } },
        }
    }
}

/// `get-1k`, `range-64k`, `put-4m`: the names on the command line and in the table.
impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = kind_name(self.kind);
        match self.size {
            size if size % MIB == 0 => write!(out, "{kind}-{}m", size / MIB),
            size if size % KIB == 0 => write!(out, "{kind}-{}k", size / KIB),
            size => write!(out, "{kind}-{size}"),
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no workload: expected get-SIZE, range-SIZE or put-SIZE, such as get-64k");
        let (kind, size) = text.split_once('-').ok_or_else(wrong)?;
        let kind = match kind {
            "get" => Kind::Get,
            "range" => Kind::Range,
            "put" => Kind::Put,
            _ => return Err(wrong()),
        };
        let units = [("k", KIB), ("m", MIB), ("g", GIB)];
        let (digits, unit) = units
            .into_iter()
            .find_map(|(suffix, unit)| size.strip_suffix(suffix).map(|digits| (digits, unit)))
            .unwrap_or((size, 1));
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let size = number.checked_mul(unit).filter(|size| (1..=GIB).contains(size)).ok_or_else(wrong)?;
        Ok(Self::new(kind, size))
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Get => "get",
        Kind::Range => "range",
        Kind::Put => "put",
    }
}

/// A value on the server. It displays as its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// The workload that it belongs to: they do not share values, so that writing one never changes another's.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// Which of the workload's values it is.
    pub number: u64,
}

impl Value {
    /// The position in the content stream where the bytes begin that it is filled with.
    pub fn origin(&self) -> u64 {
        mix(mix(self.size) ^ mix(self.number) ^ self.kind as u64)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}-{}", kind_name(self.kind), self.size, self.number)
    }
}

/// What is done with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read it whole, expecting the content that begins at `origin`.
    Get {
        /// Position in the content stream.
        origin: u64,
    },
    /// Read a range.
    Range {
        /// Its first byte.
        from: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Write it, with the content that begins at `origin`.
    Put {
        /// Position in the content stream.
        origin: u64,
    },
}

/// One request. It displays as a person would write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of which value.
    pub value: Value,
    /// What is done.
    pub action: Action,
}

impl Request {
    /// Reads a value that still has the content it was filled with.
    pub fn get(value: Value) -> Self {
        Self { value, action: Action::Get { origin: value.origin() } }
    }

    /// Payload bytes that it moves, in the one direction or the other.
    pub fn length(&self) -> u64 {
        match self.action {
            Action::Range { length, .. } => length,
            Action::Get { .. } | Action::Put { .. } => self.value.size,
        }
    }

    /// The position in the content stream where the bytes begin that the answer must carry.
    pub fn content(&self) -> u64 {
        match self.action {
            Action::Get { origin } | Action::Put { origin } => origin,
            Action::Range { from, .. } => self.value.origin().wrapping_add(from),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Get { .. } => write!(out, "GET {}", self.value),
            Action::Range { from, length } => write!(out, "GET {} ({length} bytes from {from})", self.value),
            Action::Put { .. } => write!(out, "PUT {}", self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_as_the_same_workload() {
        for name in ["get-1k", "get-64k", "get-4m", "range-64k", "put-1k", "put-100", "put-4m"] {
            assert_eq!(name.parse::<Workload>().unwrap().to_string(), name);
        }
        for wrong in ["", "get", "get-", "get-k", "take-1k", "get-0", "get-1x", "get-99999999999g"] {
            assert!(wrong.parse::<Workload>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ranges_lie_inside_their_value_and_differ() {
        let workload = Workload::new(Kind::Range, 64 * KIB);
        let mut random = Random::new(3);
        let mut last = None;
        for _ in 0..1000 {
            let request = workload.next(&mut random);
            let Action::Range { from, length } = request.action else { panic!("{request}") };
            assert!(from + length <= workload.value_size);
            assert_ne!(last.replace(from), Some(from));
        }
    }

    #[test]
    fn no_two_values_begin_at_the_same_place() {
        let mut origins: Vec<u64> = [Kind::Get, Kind::Put]
            .into_iter()
            .flat_map(|kind| (0..1000).map(move |number| Value { kind, size: 1024, number }.origin()))
            .collect();
        origins.sort_unstable();
        origins.dedup();
        assert_eq!(origins.len(), 2000);
    }
}
