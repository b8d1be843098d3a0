//! Crates depend downwards only: the layers of the architecture, as a table.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::Finding;
use crate::metadata::Package;
use crate::project::Project;

/// Each crate, and those of the workspace that it may depend on.
const ARROWS: [(&str, &[&str]); 11] = [
    ("server", &["http", "local", "cluster", "disk", "memory", "metrics", "engine", "core"]),
    ("http", &["engine", "metrics", "core"]),
    ("local", &["engine", "protocol", "arena", "metrics", "core"]),
    ("cluster", &["protocol", "metrics", "core"]),
    ("memory", &["arena", "metrics", "core"]),
    ("disk", &["arena", "metrics", "core"]),
    ("engine", &["metrics", "core"]),
    ("metrics", &["core"]),
    ("protocol", &["core"]),
    ("arena", &["core"]),
    ("core", &[]),
];

/// Libraries that a crate keeps away from, because it does no I/O or knows no library of its neighbours.
const CLOSED: [(&str, &[&str]); 3] = [
    ("core", &["tokio", "hyper", "hyper-util", "http", "http-body", "mio", "socket2", "rustix", "io-uring"]),
    (
        "protocol",
        &["tokio", "hyper", "hyper-util", "http", "http-body", "mio", "socket2", "rustix", "io-uring"],
    ),
    ("engine", &["hyper", "hyper-util", "http", "http-body", "httparse", "socket2", "io-uring"]),
];

const FIX: &str =
    "move the code down to where both may see it, or pass it in as a trait or a value from the server";

/// Looks at the dependencies of every crate under `crates/`; what lies elsewhere may depend on anything.
pub(crate) fn check(project: &Project) -> Vec<Finding> {
    let graph = graph(&project.members);
    let layers = project.members.iter().filter(|package| in_crates(package));
    layers.flat_map(|package| check_package(project, package, &graph)).collect()
}

fn check_package(project: &Project, package: &Package, graph: &Graph<'_>) -> Vec<Finding> {
    let short = short(&package.name);
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == short) else {
        let what = format!("the crate `{short}` has no place among the layers");
        let fix = "add it to the table in xtask/src/rules/arrows.rs and to the layers in docs";
        return vec![finding(project, package, "name", what, "only crates of the table can be checked", fix)];
    };
    let closed = CLOSED.iter().find(|(name, _)| *name == short).map_or(&[][..], |(_, libraries)| *libraries);
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let (name, is_ours) = (dependency.name.as_str(), graph.contains_key(dependency.name.as_str()));
        let (what, why) = if closed.contains(&name) && !dependency.is_dev {
            (format!("`{short}` depends on `{name}`"), "this layer does without that library")
        } else if is_ours && dependency.is_dev && reaches(graph, name, &package.name) {
            (
                format!("the tests of `{short}` depend on `{name}`, which depends on `{short}`"),
                "tests look down too",
            )
        } else if is_ours && !dependency.is_dev && !allowed.contains(&self::short(name)) {
            (format!("`{short}` depends on `{}`", self::short(name)), "arrows between layers point down only")
        } else {
            continue;
        };
        findings.push(finding(project, package, name, what, why, FIX));
    }
    findings
}

/// Every package of the workspace with those that it depends on outside its tests.
type Graph<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn graph(members: &[Package]) -> Graph<'_> {
    members.iter().map(|package| (package.name.as_str(), below(package))).collect()
}

fn below(package: &Package) -> Vec<&str> {
    package.dependencies.iter().filter(|found| !found.is_dev).map(|found| found.name.as_str()).collect()
}

fn reaches(graph: &Graph<'_>, from: &str, to: &str) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(name) = open.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            open.extend(graph.get(name).into_iter().flatten());
        }
    }
    false
}

fn short(name: &str) -> &str {
    name.strip_prefix("elcache-").unwrap_or(name)
}

fn in_crates(package: &Package) -> bool {
    package.dir.as_deref().is_some_and(|dir| dir.starts_with("crates/"))
}

fn finding(
    project: &Project,
    package: &Package,
    key: &str,
    what: String,
    why: &'static str,
    fix: &'static str,
) -> Finding {
    let path = format!("{}/Cargo.toml", package.dir.as_deref().unwrap_or("."));
    let names_key =
        |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['.', '=']));
    let line = project.file(&path).map_or(1, |file| file.line_where(names_key));
    Finding { path, line, what, why, fix }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;
    use crate::project::File;

    fn project(packages: &[(&str, &[(&str, bool)])]) -> Project {
        let dependency = |(name, is_dev): &(&str, bool)| Dependency { name: (*name).into(), is_dev: *is_dev };
        let package = |(dir, below): &(&str, &[(&str, bool)])| Package {
            name: format!("elcache-{}", dir.trim_start_matches("crates/")),
            dir: Some((*dir).into()),
            dependencies: below.iter().map(dependency).collect(),
            ..Package::default()
        };
        let manifest =
            File::new("crates/engine/Cargo.toml", b"[dependencies]\nelcache-http.workspace = true\n".into());
        Project::new(vec![manifest], packages.iter().map(package).collect(), Vec::new())
    }

    #[test]
    fn arrows_that_point_down_pass() {
        let project = project(&[
            ("crates/core", &[("bytes", false), ("tokio", true)]),
            ("crates/engine", &[("elcache-core", false), ("elcache-memory", true)]),
            ("crates/memory", &[("elcache-core", false)]),
            ("bench", &[("elcache-engine", false), ("elcache-memory", false)]),
        ]);
        assert_eq!(check(&project), []);
    }

    #[test]
    fn an_arrow_that_points_up_is_found_at_its_line() {
        let found = check(&project(&[("crates/engine", &[("elcache-http", false)]), ("crates/http", &[])]));
        assert_eq!((found[0].path.as_str(), found[0].line), ("crates/engine/Cargo.toml", 2));
        assert_eq!((found.len(), found[0].what.as_str()), (1, "`engine` depends on `http`"));
    }

    #[test]
    fn a_crate_may_not_depend_on_the_bench() {
        assert_eq!(
            check(&project(&[("crates/engine", &[("elcache-bench", false)]), ("bench", &[])])).len(),
            1
        );
    }

    #[test]
    fn tests_may_not_close_a_cycle() {
        let found = check(&project(&[
            ("crates/core", &[("elcache-server", true)]),
            ("crates/engine", &[("elcache-core", false)]),
            ("crates/server", &[("elcache-engine", false)]),
        ]));
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("the tests of `core`"));
    }

    #[test]
    fn the_core_knows_no_runtime() {
        assert_eq!(check(&project(&[("crates/core", &[("tokio", false)])])).len(), 1);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(check(&project(&[("crates/utils", &[])])).len(), 1);
    }
}
