//! Unsafe code stands in the few modules that are named here.

use crate::finding::Finding;
use crate::project::{File, Project};
use crate::rust_source::RustSource;

/// Files, and folders that end in `/`, in which unsafe code may stand.
const ALLOWED: [&str; 3] =
    ["crates/arena/src/", "crates/disk/src/io/blocks.rs", "crates/disk/src/io/uring.rs"];

/// Looks for the word, and for the attribute that forbids it in every other crate.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let words = project.rust_files().filter(|(file, _)| !is_allowed(&file.path)).flat_map(words);
    words.chain(roots(project).filter_map(|(file, source)| attribute(file, source))).collect()
}

fn is_allowed(path: &str) -> bool {
    ALLOWED.iter().any(|allowed| path == *allowed || (allowed.ends_with('/') && path.starts_with(allowed)))
}

fn words((file, source): (&File, &RustSource)) -> Vec<Finding> {
    let finding = |offset| {
        file.finding(
            source.line_of(offset),
            "unsafe code".to_owned(),
            "only a few named modules are reviewed for it",
            "use what crates/arena or the standard library offers, or add the file to xtask/src/rules/unsafe_code.rs",
        )
    };
    source.find("unsafe").map(finding).collect()
}

/// The root files of all crates that hold more than the reviewed folders.
fn roots(project: &Project) -> impl Iterator<Item = (&File, &RustSource)> {
    let targets =
        project.members.iter().flat_map(|package| &package.targets).filter(|target| !target.is_test);
    targets
        .filter(|target| !is_allowed(&target.root))
        .filter_map(|target| project.file(&target.root))
        .filter_map(|file| Some((file, file.rust.as_ref()?)))
}

fn attribute(file: &File, source: &RustSource) -> Option<Finding> {
    // A crate with one reviewed module cannot forbid; it denies, and that module allows.
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let has_reviewed = ALLOWED.iter().any(|allowed| allowed.starts_with(folder));
    let wanted = if has_reviewed { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
    if source.code.contains(wanted) || !holds_code(&source.code) {
        return None;
    }
    Some(file.finding(
        1,
        format!("the crate's root does not say `{wanted}`"),
        "the compiler sees what a search for the word misses, as in macros",
        "add the attribute below the crate's comment",
    ))
}

/// A root without items has nothing to forbid.
fn holds_code(code: &str) -> bool {
    !matches!(code.trim(), "" | "fn main() {}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn found(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        check(&sample(files)).into_iter().map(|finding| (finding.path, finding.line)).collect()
    }

    #[test]
    fn unsafe_code_outside_the_arena_is_found() {
        let root = "#![forbid(unsafe_code)]\nmod x;";
        let files =
            [("crates/core/src/lib.rs", root), ("crates/core/src/x.rs", "\nfn f() { unsafe { g() } }")];
        assert_eq!(found(&files), [("crates/core/src/x.rs".to_owned(), 2)]);
    }

    #[test]
    fn the_arena_may() {
        assert_eq!(found(&[("crates/arena/src/lib.rs", "fn f() { unsafe { g() } }")]), []);
    }

    #[test]
    fn a_root_that_does_not_forbid_is_found() {
        let bare = "//! Comment #![forbid(unsafe_code)]\npub mod x;";
        assert_eq!(found(&[("crates/core/src/lib.rs", bare)]), [("crates/core/src/lib.rs".to_owned(), 1)]);
    }

    #[test]
    fn comments_and_longer_words_pass() {
        let root = "#![forbid(unsafe_code)]\n// unsafe\nlet unsafe_x = \"unsafe\";";
        assert_eq!(found(&[("crates/core/src/lib.rs", root)]), []);
    }
}
