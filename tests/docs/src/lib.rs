//! Runs what the documentation tells its readers to type, against the real binary, and compares what it says they
//! will see.
//!
//! # Layout
//! - [`document`]: finds the commands of a Markdown text and the output shown with them.
//! - [`expect`]: compares shown and actual output.
//! - [`shell`]: runs commands in a directory of their own, with the node's address in place of the documented one.
//! - [`node`]: the server that they talk to.
//!
//! # The convention
//! In a fenced block of kind `sh`, a line that begins with `$ ` is a command, and what follows it up to the next one is
//! what it prints. A command that ends in a backslash goes on in the next line. A line of nothing but `...` stands for
//! any number of lines, `...` within a line for any text. Commands share one directory and one node, and
//! none may fail.
#![forbid(unsafe_code)]

pub mod document;
pub mod expect;
pub mod node;
pub mod shell;

pub use document::{Example, Step};
pub use node::Node;
pub use shell::Shell;
