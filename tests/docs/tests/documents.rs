//! The documentation, executed.

use std::fs;
use std::path::{Path, PathBuf};

use elcache_doc_tests::document::{Example, examples, named_sources, steps, unchecked_lines};
use elcache_doc_tests::node::repository;
use elcache_doc_tests::shell::{Shell, dry_run, text};

/// Documents whose examples are executed besides README.md: all that have any.
fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("docs")).expect("there is documentation");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect()
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).expect("there is a README")
}

#[test]
fn every_command_of_the_readme_prints_what_it_shows() {
    let shell = Shell::new();
    let wrong: Vec<String> = steps(&readme()).iter().filter_map(|step| shell.check(step)).collect();
    assert!(wrong.is_empty(), "README.md\n{}", wrong.join("\n"));
}

#[test]
fn the_readme_shows_commands_and_nothing_beside_them_that_is_not_executed() {
    let readme = readme();
    let steps = steps(&readme);
    let count = |word: &str| steps.iter().filter(|step| step.command.contains(word)).count();
    assert!(count("curl ") >= 5 && count("make run") == 1 && count("make test") == 1, "{steps:?}");
    assert_eq!(unchecked_lines(&readme), [] as [usize; 0], "lines that no test executes");
}

#[test]
fn make_run_builds_and_starts_the_node_with_the_flags_given() {
    let output = dry_run("run ARGS=-m256");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let commands = text(&output.stdout);
    assert!(commands.lines().any(|line| line.starts_with("cargo run --release") && line.ends_with("-m256")));
}

#[test]
fn blocks_of_commands_in_other_documents_print_what_they_show() {
    for path in documents() {
        let document = fs::read_to_string(&path).expect("a readable document");
        let steps = steps(&document);
        if steps.is_empty() {
            continue;
        }
        let shell = Shell::new();
        let wrong: Vec<String> = steps.iter().filter_map(|step| shell.check(step)).collect();
        assert!(wrong.is_empty(), "{}\n{}", path.display(), wrong.join("\n"));
    }
}

/// They store `file` and pack `dir`, and act on a key `a` that is there.
#[test]
fn examples_in_tables_are_answered_with_a_status_that_their_row_names() {
    for path in documents() {
        let document = fs::read_to_string(&path).expect("a readable document");
        let examples = examples(&document);
        if examples.is_empty() {
            continue;
        }
        let shell = Shell::new();
        fs::create_dir_all(shell.folder().join("dir")).expect("a folder to pack");
        fs::write(shell.folder().join("file"), [b'x'; 1000]).expect("a file to store");
        let store = Example { line: 0, command: "curl -T file $B/cache/a".into(), statuses: [201].into() };
        let wrong: Vec<String> =
            [store].iter().chain(&examples).filter_map(|example| shell.check_status(example)).collect();
        assert!(wrong.is_empty(), "{}\n{}", path.display(), wrong.join("\n"));
    }
}

/// Every source file of the workspace, from the root of the repository on.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_that_the_documentation_names_are_there() {
    let mut files = Vec::new();
    ["bench", "crates", "tests", "xtask"]
        .iter()
        .for_each(|name| sources(&repository().join(name), &mut files));
    let decisions = fs::read_dir(repository().join("docs/decisions")).expect("there are decisions");
    let decisions = decisions.map(|entry| entry.expect("a readable folder").path());
    for path in documents().into_iter().chain(decisions) {
        let document = fs::read_to_string(&path).expect("a readable document");
        for (line, name) in named_sources(&document) {
            let exists = files.iter().any(|file| file.ends_with(&name));
            assert!(exists, "{}:{line}: there is no {name}", path.display());
        }
    }
}
