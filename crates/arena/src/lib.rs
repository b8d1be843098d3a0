//! elcache-arena
