//! Paths, and what they stand for.

/// The methods of a key, for `Allow`.
pub(crate) const CACHE_METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
/// The methods of an upload by ranges.
pub(crate) const SPARSE_METHODS: &str = "GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS";
const READ_METHODS: &str = "GET, HEAD, OPTIONS";
const POST_METHODS: &str = "POST, OPTIONS";

/// A resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/cache/{key}`, the key as sent.
    Cache(&'a [u8]),
    /// `/sparse/{key}`, an upload by ranges, the key as sent.
    Sparse(&'a [u8]),
    /// `/sparse/{key}/data`: what is written of it.
    SparseData(&'a [u8]),
    /// `/sparse/{key}/finalize`.
    SparseFinalize(&'a [u8]),
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
        if let Some(rest) = path.strip_prefix(b"/sparse/") {
            return Self::of_upload(rest);
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

    /// The suffixes are looked for before anything is decoded: a key that ends so escapes the slash.
    fn of_upload(rest: &'a [u8]) -> Self {
        if let Some(key) = rest.strip_suffix(b"/finalize") {
            Self::SparseFinalize(key)
        } else if let Some(key) = rest.strip_suffix(b"/data") {
            Self::SparseData(key)
        } else {
            Self::Sparse(rest)
        }
    }

    /// For `Allow`; none where nothing is.
    pub(crate) fn methods(&self) -> Option<&'static str> {
        match self {
            Self::Cache(_) => Some(CACHE_METHODS),
            Self::Sparse(_) => Some(SPARSE_METHODS),
            Self::Page(_) | Self::SparseData(_) => Some(READ_METHODS),
            Self::Drain | Self::SparseFinalize(_) => Some(POST_METHODS),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffixes_of_an_upload_are_taken_as_sent() {
        assert_eq!(Route::of(b"/sparse/a/b"), Route::Sparse(b"a/b"));
        assert_eq!(Route::of(b"/sparse/a/data"), Route::SparseData(b"a"));
        assert_eq!(Route::of(b"/sparse/a/finalize"), Route::SparseFinalize(b"a"));
        assert_eq!(Route::of(b"/sparse/a/data/finalize"), Route::SparseFinalize(b"a/data"));
        assert_eq!(Route::of(b"/sparse/a/finalize/data"), Route::SparseData(b"a/finalize"));
        for key in
            ["finalize", "data", "a%2Ffinalize", "a%2Fdata", "a/%64ata", "a/Data", "a/data/", "afinalize", ""]
        {
            let path = format!("/sparse/{key}");
            assert_eq!(Route::of(path.as_bytes()), Route::Sparse(key.as_bytes()), "{key}");
        }
        assert_eq!(Route::of(b"/sparse//finalize"), Route::SparseFinalize(b""));
        assert_eq!(Route::of(b"/sparse//data"), Route::SparseData(b""));
    }

    #[test]
    fn paths_are_taken_as_sent() {
        assert_eq!(Route::of(b"/cache/a/../b%2F"), Route::Cache(b"a/../b%2F"));
        assert_eq!(Route::of(b"/cache//"), Route::Cache(b"/"));
        assert_eq!(Route::of(b"/cache/"), Route::Cache(b""));
        assert_eq!(Route::of(b"/health"), Route::Page(Page::Health));
        for unknown in ["/", "/cache", "/health/", "/Health", "/sparse", "/purge", "/ui", "/cluster/"] {
            assert_eq!(Route::of(unknown.as_bytes()), Route::Unknown, "{unknown}");
        }
    }
}
