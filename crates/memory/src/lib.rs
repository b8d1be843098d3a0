//! elcache-memory
