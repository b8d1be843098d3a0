//! The configuration: every key of the server, from four layers, checked as a whole.
//!
//! Defaults, file, environment and flags, each beats those before it. All mistakes of all layers are found in one
//! go, and each is told with its place.
//!
//! Layout, in the order in which a value passes:
//! - `file`, `environment`, `flags` turn a layer into assignments: a key, a value of unknown type (`node`), a place;
//! - `schema` is the one table of keys: everything that is done with a key is found through it;
//! - `setting`, `size`, `duration`, `words`, `values` give values their types;
//! - `sections` holds the typed result, plain structs with defaults; `validate` says what is impossible in it;
//! - `load` runs all this; `error` and `suggest` word what went wrong;
//! - `print` turns it into JSON again; `reload` tells what a running server can take over.
//!
//! Invariants: a [`Config`] that [`Config::load`] returns is valid; what `print` writes loads as the same
//! configuration; the key table, the example file and the documentation name the same keys and defaults.

mod duration;
mod environment;
mod error;
mod file;
mod flags;
mod load;
mod node;
mod print;
mod reload;
mod schema;
mod sections;
mod setting;
mod size;
mod suggest;
mod validate;
mod values;
mod words;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors};
pub use file::read_file;
pub use load::{Loaded, ReadFile};
pub use node::{Place, Position};
pub use reload::Reload;
pub use sections::{
    Auth, Cluster, Config, Disk, Http, Limits, Log, Memory, Network, Performance, Tls, VALUE_SIZE_MAX,
};
pub use size::Size;
pub use validate::Violation;
pub use values::{
    Advertised, Auto, Directory, DiskPaths, HostPort, NotAnAddress, Quota, SocketPath, WriteAcks,
};
pub use words::{Admission, Durability, IoEngine, LogFormat, LogLevel, PartitionMode, Role};
