//! elcache-metrics
