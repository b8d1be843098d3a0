//! elcache-engine
