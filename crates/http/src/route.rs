//! Paths, and what they stand for.

/// The methods of a key, for `Allow`.
pub(crate) const CACHE_METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
const READ_METHODS: &str = "GET, HEAD, OPTIONS";
const DRAIN_METHODS: &str = "POST, OPTIONS";

/// A resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/cache/{key}`, the key as sent.
    Cache(&'a [u8]),
    /// A page about the node.
    Page(Page),
    /// `/cluster/drain`.
    Drain,
    /// Nothing is there.
    Unknown,
}

/// Pages about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Health,
    Stats,
    Metrics,
    Cluster,
}

impl<'a> Route<'a> {
    /// Only the path as sent is looked at, so that an escaped slash stays part of the key.
    pub(crate) fn of(path: &'a [u8]) -> Self {
        if let Some(key) = path.strip_prefix(b"/cache/") {
            return Self::Cache(key);
        }
        match path {
            b"/health" => Self::Page(Page::Health),
            b"/stats" => Self::Page(Page::Stats),
            b"/metrics" => Self::Page(Page::Metrics),
            b"/cluster" | b"/cluster/nodes" => Self::Page(Page::Cluster),
            b"/cluster/drain" => Self::Drain,
            _ => Self::Unknown,
        }
    }

    /// For `Allow`; none where nothing is.
    pub(crate) fn methods(&self) -> Option<&'static str> {
        match self {
            Self::Cache(_) => Some(CACHE_METHODS),
            Self::Page(_) => Some(READ_METHODS),
            Self::Drain => Some(DRAIN_METHODS),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_sent() {
        assert_eq!(Route::of(b"/cache/a/../b%2F"), Route::Cache(b"a/../b%2F"));
        assert_eq!(Route::of(b"/cache//"), Route::Cache(b"/"));
        assert_eq!(Route::of(b"/cache/"), Route::Cache(b""));
        assert_eq!(Route::of(b"/health"), Route::Page(Page::Health));
        for unknown in ["/", "/cache", "/health/", "/Health", "/sparse/a", "/purge", "/ui", "/cluster/"] {
            assert_eq!(Route::of(unknown.as_bytes()), Route::Unknown, "{unknown}");
        }
    }
}
