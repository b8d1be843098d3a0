//! elcache-memory
pub mod policy;
