//! Which files are part of a program, and whether of more than its tests.

use std::collections::BTreeMap;

use crate::items::{self, ModLine};
use crate::metadata::Package;
use crate::project::File;

/// What a file is compiled into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Tests, benches and examples only.
    Test,
    /// A library or a binary.
    Product,
}

/// Follows the `mod` lines from every target of `members`.
pub(crate) fn roles(files: &[File], members: &[Package]) -> BTreeMap<String, Role> {
    let by_path: BTreeMap<&str, &File> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut roles = BTreeMap::new();
    let mut open: Vec<Visit> = members.iter().flat_map(|package| &package.targets).map(Visit::root).collect();
    while let Some(visit) = open.pop() {
        let Some(file) = by_path.get(visit.path.as_str()) else { continue };
        if roles.get(&visit.path).is_some_and(|role| *role >= visit.role) {
            continue;
        }
        roles.insert(visit.path.clone(), visit.role);
        open.extend(mod_lines(file).iter().flat_map(|line| visit.children(line)));
    }
    roles
}

fn mod_lines(file: &File) -> Vec<ModLine> {
    match (&file.rust, &file.text) {
        (Some(source), Some(text)) => items::mod_lines(source, text),
        _ => Vec::new(),
    }
}

/// A file to look at.
struct Visit {
    path: String,
    role: Role,
    /// The folder in which the files of its modules lie.
    folder: String,
}

impl Visit {
    fn root(target: &crate::metadata::Target) -> Self {
        let role = if target.is_test { Role::Test } else { Role::Product };
        Self { folder: parent(&target.root).to_owned(), path: target.root.clone(), role }
    }

    fn module(path: String, role: Role) -> Self {
        let folder =
            path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")).unwrap_or(&path).to_owned();
        Self { path, role, folder }
    }

    /// The places at which the file of a `mod` line may lie.
    fn children(&self, line: &ModLine) -> Vec<Self> {
        let role = if line.is_test { Role::Test } else { self.role };
        let paths = match &line.file {
            Some(file) => vec![format!("{}/{file}", parent(&self.path))],
            None => {
                let base = format!("{}/{}", self.folder, line.path.join("/"));
                vec![format!("{base}.rs"), format!("{base}/mod.rs")]
            }
        };
        paths.into_iter().map(|path| Self::module(path, role)).collect()
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::sample;

    #[test]
    fn mod_lines_are_followed_down_the_folders() {
        let project = sample(&[
            (
                "crates/a/src/lib.rs",
                "mod one;\nmod two;\n#[cfg(test)]\nmod checks;\n#[path = \"odd.rs\"]\nmod even;",
            ),
            ("crates/a/src/one.rs", "mod inner;"),
            ("crates/a/src/one/inner.rs", ""),
            ("crates/a/src/two/mod.rs", "mod inner { mod deep; }"),
            ("crates/a/src/two/inner/deep.rs", ""),
            ("crates/a/src/checks.rs", "mod help;"),
            ("crates/a/src/checks/help.rs", ""),
            ("crates/a/src/odd.rs", ""),
            ("crates/a/src/dead.rs", ""),
        ]);
        let product = |path: &str| project.role(&format!("crates/a/src/{path}"));
        for path in ["lib.rs", "one.rs", "one/inner.rs", "two/mod.rs", "two/inner/deep.rs", "odd.rs"] {
            assert_eq!(product(path), Some(Role::Product), "{path}");
        }
        assert_eq!(product("checks.rs"), Some(Role::Test));
        assert_eq!(product("checks/help.rs"), Some(Role::Test));
        assert_eq!(product("dead.rs"), None);
    }

    #[test]
    fn a_file_of_a_product_and_of_a_test_belongs_to_the_product() {
        let project = sample(&[
            ("crates/a/src/lib.rs", "mod shared;"),
            ("crates/a/src/shared.rs", ""),
            ("crates/a/tests/t.rs", "#[path = \"../src/shared.rs\"]\nmod shared;"),
        ]);
        assert_eq!(project.role("crates/a/src/shared.rs"), Some(Role::Product));
        assert_eq!(project.role("crates/a/tests/t.rs"), Some(Role::Test));
    }
}
