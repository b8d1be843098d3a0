//! Everything that is linked in may be: known licences, one registry, and one copy of what must not be there twice.

use std::collections::BTreeMap;

use crate::finding::Finding;
use crate::metadata::Package;
use crate::project::Project;

const LICENCES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];
/// Exceptions widen a licence, so that any of them will do.
const EXCEPTION: &str = "WITH";
const REGISTRIES: [&str; 2] =
    ["registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/"];
/// Two copies of these do not know each other's types.
const ONE_COPY: [&str; 4] = ["tokio", "hyper", "http", "rustls"];

/// Looks at every package that the workspace depends on.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        project.foreign.iter().flat_map(|package| check_package(project, package)).collect();
    for (name, versions) in
        duplicates(&project.foreign).into_iter().filter(|(name, _)| ONE_COPY.contains(name))
    {
        findings.push(finding(
            project,
            name,
            format!("{} copies of `{name}`: {}", versions.len(), versions.join(", ")),
            "their types do not fit each other",
            "bring everything to one version; `cargo tree -d` shows who asks for which",
        ));
    }
    findings
}

/// The libraries that are there more than once.
pub(crate) fn report(project: &Project) -> Vec<String> {
    let line = |(name, versions): (&str, Vec<&str>)| format!("  {name} {}", versions.join(", "));
    let copies: Vec<String> = duplicates(&project.foreign).into_iter().map(line).collect();
    let heading =
        format!("{} dependencies, {} in more than one version", project.foreign.len(), copies.len());
    [vec![heading], copies].concat()
}

fn check_package(project: &Project, package: &Package) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !package.license.as_deref().is_some_and(is_allowed) {
        let licence = package.license.as_deref().unwrap_or("no licence expression");
        findings.push(finding(
            project,
            &package.name,
            format!("`{}` {}: {licence}", package.name, package.version),
            "its licence is not among those that this project distributes",
            "choose another library, or add the licence in xtask/src/rules/licences.rs after reading it",
        ));
    }
    if !package.source.as_deref().is_some_and(|source| REGISTRIES.contains(&source)) {
        findings.push(finding(
            project,
            &package.name,
            format!(
                "`{}` comes from {}",
                package.name,
                package.source.as_deref().unwrap_or("a folder outside")
            ),
            "only releases of crates.io can be built by everybody, always",
            "depend on a release",
        ));
    }
    findings
}

fn duplicates(packages: &[Package]) -> Vec<(&str, Vec<&str>)> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.into_iter().filter(|(_, versions)| versions.len() > 1).collect()
}

fn finding(project: &Project, name: &str, what: String, why: &'static str, fix: &'static str) -> Finding {
    let path = "Cargo.lock".to_owned();
    let entry = format!("name = \"{name}\"");
    let line = project.file(&path).map_or(1, |file| file.line_where(|line| line == entry));
    Finding { path, line, what, why, fix }
}

/// Whether a licence expression can be satisfied with the licences of the list. `OR` binds weaker than `AND`, and an
/// old slash is an `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced =
        expression.replace('/', " OR ").replace(" or ", " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let result = any_of(&mut words);
    result && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>) -> bool {
    let mut result = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        result |= all_of(words);
    }
    result
}

fn all_of(words: &mut Words<'_>) -> bool {
    let mut result = licence(words);
    while words.next_if_eq(&"AND").is_some() {
        result &= licence(words);
    }
    result
}

fn licence(words: &mut Words<'_>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let result = any_of(words);
        return words.next_if_eq(&")").is_some() && result;
    }
    let result = words.next().is_some_and(|name| LICENCES.contains(&name));
    if words.next_if_eq(&EXCEPTION).is_some() {
        words.next();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::File;

    fn package(name: &str, version: &str, license: &str, source: &str) -> Package {
        let text = |text: &str| Some(text.to_owned());
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            license: text(license),
            source: text(source),
            ..Package::default()
        }
    }

    fn found(foreign: Vec<Package>) -> Vec<Finding> {
        let lock = File::new("Cargo.lock", b"version = 4\n\n[[package]]\nname = \"x\"\n".to_vec());
        check(&Project::new(vec![lock], Vec::new(), foreign))
    }

    #[test]
    fn expressions_are_satisfied_or_not() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "MIT or Apache-2.0",
            "(MIT OR X) AND Unicode-3.0",
            "Apache-2.0 WITH Y",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND X", "(MIT", "", "MIT)", "X WITH Y"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn an_unknown_licence_is_found_at_its_line_of_the_lock_file() {
        let found = found(vec![package("x", "1.0.0", "SSPL-1.0", REGISTRIES[0])]);
        assert_eq!((found.len(), found[0].line), (1, 4));
    }

    #[test]
    fn another_source_is_found() {
        assert_eq!(found(vec![package("x", "1.0.0", "MIT", "git+https://example.org/x")]).len(), 1);
        assert_eq!(found(vec![Package { source: None, ..package("x", "1.0.0", "MIT", "") }]).len(), 1);
    }

    #[test]
    fn a_second_copy_is_found_only_of_what_must_be_one() {
        let twice = |name| {
            vec![package(name, "1.0.0", "MIT", REGISTRIES[0]), package(name, "2.0.0", "MIT", REGISTRIES[1])]
        };
        assert_eq!(found(twice("syn")), []);
        assert_eq!(found(twice("http")).len(), 1);
    }
}
