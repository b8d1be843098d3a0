//! Everything that a rule may look at.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::finding::Finding;
use crate::items;
use crate::metadata::{self, Package};
use crate::modules::{self, Role};
use crate::rust_source::RustSource;

/// The repository, read once.
#[derive(Debug)]
pub(crate) struct Project {
    /// Every file that is tracked, or would be after `git add`.
    pub(crate) files: Vec<File>,
    /// The packages of the workspace.
    pub(crate) members: Vec<Package>,
    /// The packages that come from elsewhere.
    pub(crate) foreign: Vec<Package>,
    roles: BTreeMap<String, Role>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root of the repository, with forward slashes.
    pub(crate) path: String,
    /// `None` if it is not UTF-8.
    pub(crate) text: Option<String>,
    /// Present for `.rs` files.
    pub(crate) rust: Option<RustSource>,
}

impl File {
    pub(crate) fn new(path: &str, bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).ok();
        let rust = text.as_deref().filter(|_| path.ends_with(".rs")).map(RustSource::new);
        Self { path: path.to_owned(), text, rust }
    }

    /// The lines with their numbers from 1; none if it is not UTF-8.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.as_deref().unwrap_or("").split('\n').enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The line, counted from 1, that satisfies `wanted`; 1 if none does.
    pub(crate) fn line_where(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.lines().find(|(_, line)| wanted(line)).map_or(1, |(number, _)| number)
    }

    /// A finding on a line of this file.
    pub(crate) fn finding(&self, line: usize, what: String, why: &'static str, fix: &'static str) -> Finding {
        Finding { path: self.path.clone(), line, what, why, fix }
    }
}

impl Project {
    /// Reads the repository around the current directory.
    pub(crate) fn load() -> Result<Self, String> {
        let metadata = metadata::load()?;
        let files = tracked(&metadata.root)?
            .iter()
            .filter_map(|path| Some(File::new(path, std::fs::read(metadata.root.join(path)).ok()?)))
            .collect();
        Ok(Self::new(files, metadata.members, metadata.foreign))
    }

    pub(crate) fn new(files: Vec<File>, members: Vec<Package>, foreign: Vec<Package>) -> Self {
        let roles = modules::roles(&files, &members);
        Self { files, members, foreign, roles }
    }

    /// The file at a path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files.
    pub(crate) fn rust_files(&self) -> impl Iterator<Item = (&File, &RustSource)> {
        self.files.iter().filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    /// The Markdown files with their text.
    pub(crate) fn markdown_files(&self) -> impl Iterator<Item = (&File, &str)> {
        self.files
            .iter()
            .filter(|file| file.path.ends_with(".md"))
            .filter_map(|file| Some((file, file.text.as_deref()?)))
    }

    /// What a Rust file is compiled into; `None` if into nothing.
    pub(crate) fn role(&self, path: &str) -> Option<Role> {
        self.roles.get(path).copied()
    }

    /// Whether the code at an offset is compiled for tests, benches or examples only.
    pub(crate) fn is_test(&self, file: &File, source: &RustSource, offset: usize) -> bool {
        self.role(&file.path) != Some(Role::Product)
            || items::test_code(source).iter().any(|range| range.contains(&offset))
    }
}

fn tracked(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("cannot start git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let listing = String::from_utf8(output.stdout).map_err(|_| "a file name is not UTF-8".to_owned())?;
    Ok(listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

/// A project of the given files for tests. A package `elcache-x` is made for each folder `crates/x`, with the targets
/// that cargo would find.
#[cfg(test)]
pub(crate) fn sample(files: &[(&str, &str)]) -> Project {
    let mut members: BTreeMap<String, Package> = BTreeMap::new();
    for (path, _) in files {
        let Some((name, inside)) = path.strip_prefix("crates/").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let member = members.entry(name.to_owned()).or_insert_with(|| Package {
            name: format!("elcache-{name}"),
            dir: Some(format!("crates/{name}")),
            ..Package::default()
        });
        let is_test = inside.starts_with("tests/") || inside.starts_with("benches/");
        if is_test || inside == "src/lib.rs" || inside == "src/main.rs" {
            member.targets.push(metadata::Target { root: (*path).to_owned(), is_test });
        }
    }
    let files = files.iter().map(|(path, text)| File::new(path, text.as_bytes().to_vec())).collect();
    Project::new(files, members.into_values().collect(), Vec::new())
}
