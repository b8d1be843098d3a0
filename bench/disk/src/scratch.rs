//! A directory that is gone afterwards.

use std::io;
use std::path::{Path, PathBuf};

/// A directory of this process's own.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one below a directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn below(parent: impl AsRef<Path>, name: &str) -> io::Result<Self> {
        let path = parent.as_ref().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path.canonicalize()?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
