//! The HTTP interface: what requests mean, and the servers of HTTP/1.1 and HTTP/2 under it.
//!
//! # Layout
//! Meaning, which knows neither sockets nor an HTTP library:
//! - `request` reads a head into types, with the help of `method`, `target`, `route`, `fields`, [`range`],
//!   [`content_range`], `condition`, `digest_field`, `upload_id`, `date` and `cors`.
//! - `answer` leads from a request to a response: `get`, `put`, `sparse`, `admin`.
//! - `response` is status, headers and a plan for the body, `stream` a body read as it goes out; `multipart` and `json` write bodies; `problem` is the one
//!   table of errors.
//! - `source` is where a request's body comes from, `receive` how it gets into the engine; `patience` bounds what is waited for.
//!
//! Servers, under one contract:
//! - `h1` is a server of HTTP/1.1 and 1.0 of our own, `h2` drives hyper's of HTTP/2.
//! - [`server`] accepts connections and stops in good order; `connections` counts them; [`app`] is what they share;
//!   [`config`] what can be configured; [`health`] what `/health` says.
//!
//! # Invariants
//! What comes from a client is never indexed, unwrapped or added unchecked. Whatever is buffered is bounded. A body
//! of which less than announced was sent never looks complete.
#![forbid(unsafe_code)]

mod admin;
mod answer;
pub mod app;
mod condition;
pub mod config;
mod connections;
pub mod content_range;
mod cors;
mod date;
mod digest_field;
mod fields;
mod get;
mod h1;
mod h2;
pub mod health;
mod json;
mod method;
mod multipart;
mod patience;
mod problem;
mod put;
pub mod range;
mod receive;
mod request;
mod response;
mod route;
pub mod server;
mod source;
mod sparse;
mod stream;
mod target;
mod text;
mod upload_id;

pub use app::App;
pub use config::HttpConfig;
pub use server::Server;
