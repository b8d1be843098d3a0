//! Every source file is compiled, every document is found by a reader.

use crate::finding::Finding;
use crate::project::{File, Project};
use crate::rules::links;

/// Looks for Rust files of a package that no `mod` line reaches, and for documents that nothing links to.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let sources = project.rust_files().map(|(file, _)| file).filter(|file| is_dead(project, file));
    let documents = project.markdown_files().map(|(file, _)| file).filter(|file| is_unlinked(project, file));
    sources
        .map(|file| {
            file.finding(
                1,
                "no `mod` line leads to this file".to_owned(),
                "code that is not compiled misleads its readers",
                "name it in its parent module, or delete it",
            )
        })
        .chain(documents.map(|file| {
            file.finding(
                1,
                "no other document links to this one".to_owned(),
                "a document that nobody finds is not kept true",
                "link to it from README.md or docs/README.md",
            )
        }))
        .collect()
}

fn is_dead(project: &Project, file: &File) -> bool {
    let in_package = |dir: &str| !dir.is_empty() && file.path.starts_with(&format!("{dir}/"));
    project.role(&file.path).is_none()
        && project.members.iter().filter_map(|found| found.dir.as_deref()).any(in_package)
}

fn is_unlinked(project: &Project, file: &File) -> bool {
    file.path.starts_with("docs/")
        && !project.markdown_files().any(|(other, text)| {
            other.path != file.path && links::targets(other, text).any(|target| target == file.path)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    fn paths(files: &[(&str, &str)]) -> Vec<String> {
        check(&sample(files)).into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn a_source_file_that_nothing_names_is_found() {
        let files = [
            ("crates/core/src/lib.rs", "mod a; // mod b;"),
            ("crates/core/src/a.rs", ""),
            ("crates/core/src/b.rs", ""),
        ];
        assert_eq!(paths(&files), ["crates/core/src/b.rs"]);
    }

    #[test]
    fn a_document_that_nothing_links_to_is_found() {
        let files = [
            ("README.md", "[a](docs/a.md)"),
            ("docs/a.md", "[itself](a.md) [c](sub/c.md#part)"),
            ("docs/b.md", "[b](b.md)"),
            ("docs/sub/c.md", "# Part"),
        ];
        assert_eq!(paths(&files), ["docs/b.md"]);
    }
}
