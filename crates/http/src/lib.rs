//! elcache-http
