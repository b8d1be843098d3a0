//! elcache-core
