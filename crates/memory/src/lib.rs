//! elcache-memory
pub mod policy;
mod table;
