//! What cargo knows about the workspace and everything it depends on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The platform whose dependencies are looked at.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A package of the workspace, or one that the workspace depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its folder from the root of the repository; `None` for what comes from elsewhere.
    pub(crate) dir: Option<String>,
    /// The registry or repository that it comes from; `None` for a folder of this machine.
    pub(crate) source: Option<String>,
    /// Its licence expression.
    pub(crate) license: Option<String>,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// Something that cargo compiles.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// From the root of the repository.
    pub(crate) root: String,
    /// A test, bench or example: compiled into no release.
    pub(crate) is_test: bool,
}

/// One line under a `[dependencies]` heading.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Stands under `[dev-dependencies]`.
    pub(crate) is_dev: bool,
}

/// The workspace as cargo sees it.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) root: PathBuf,
    /// The members of the workspace.
    pub(crate) members: Vec<Package>,
    /// All others.
    pub(crate) foreign: Vec<Package>,
}

/// Asks cargo. The lock file must be up to date.
pub(crate) fn load() -> Result<Metadata, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM])
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let json = serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    parse(&json).ok_or_else(|| "cargo metadata: not the expected form".to_owned())
}

fn parse(json: &Value) -> Option<Metadata> {
    let root = PathBuf::from(json["workspace_root"].as_str()?);
    let ids: HashSet<&str> = json["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
    let is_member = |package: &Value| package["id"].as_str().is_some_and(|id| ids.contains(id));
    let (members, foreign): (Vec<&Value>, Vec<&Value>) =
        json["packages"].as_array()?.iter().partition(|package| is_member(package));
    let read = |packages: Vec<&Value>| -> Option<Vec<Package>> {
        packages.into_iter().map(|json| package(json, &root)).collect()
    };
    Some(Metadata { members: read(members)?, foreign: read(foreign)?, root })
}

fn package(json: &Value, root: &Path) -> Option<Package> {
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    Some(Package {
        name: text("name")?,
        version: text("version")?,
        dir: relative(Path::new(json["manifest_path"].as_str()?).parent()?, root),
        source: text("source"),
        license: text("license"),
        targets: json["targets"].as_array()?.iter().filter_map(|json| target(json, root)).collect(),
        dependencies: json["dependencies"].as_array()?.iter().filter_map(dependency).collect(),
    })
}

fn target(json: &Value, root: &Path) -> Option<Target> {
    let kinds = json["kind"].as_array()?;
    let is_test =
        kinds.iter().filter_map(Value::as_str).any(|kind| matches!(kind, "test" | "bench" | "example"));
    Some(Target { root: relative(Path::new(json["src_path"].as_str()?), root)?, is_test })
}

fn dependency(json: &Value) -> Option<Dependency> {
    Some(Dependency { name: json["name"].as_str()?.to_owned(), is_dev: json["kind"].as_str() == Some("dev") })
}

fn relative(path: &Path, root: &Path) -> Option<String> {
    Some(path.strip_prefix(root).ok()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_from_what_they_depend_on() {
        let json = serde_json::json!({
            "workspace_root": "/r",
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "name": "elcache-a", "version": "0.1.0", "manifest_path": "/r/crates/a/Cargo.toml",
                 "source": null, "license": "MIT",
                 "targets": [{"kind": ["lib"], "src_path": "/r/crates/a/src/lib.rs"},
                             {"kind": ["bench"], "src_path": "/r/crates/a/benches/b.rs"}],
                 "dependencies": [{"name": "x", "kind": null}, {"name": "y", "kind": "dev"}]},
                {"id": "x", "name": "x", "version": "1.0.0", "manifest_path": "/elsewhere/x/Cargo.toml",
                 "source": "registry", "license": null, "targets": [], "dependencies": []},
            ],
        });
        let metadata = parse(&json).unwrap();
        let member = &metadata.members[0];
        assert_eq!(member.dir.as_deref(), Some("crates/a"));
        assert_eq!(member.targets.iter().map(|target| target.is_test).collect::<Vec<_>>(), [false, true]);
        assert_eq!(member.dependencies.iter().map(|found| found.is_dev).collect::<Vec<_>>(), [false, true]);
        assert_eq!((metadata.foreign[0].name.as_str(), &metadata.foreign[0].dir), ("x", &None));
    }

    #[test]
    fn another_form_is_refused() {
        assert!(parse(&serde_json::json!({"packages": []})).is_none());
    }
}
