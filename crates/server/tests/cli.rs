//! The binary from outside: what it prints where, and how it exits.

use std::process::{Command, Output};

fn elcached(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elcached"));
    command.args(arguments).env_clear().output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/elcache.json.example");

#[test]
fn check_config_prints_the_effective_configuration() {
    let output = elcached(&["--check-config", "-c", EXAMPLE, "-m", "64"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON");
    assert_eq!(printed["memory"]["max_size"], "64MiB");
    assert_eq!(printed["network"]["http_port"], 8080);
}

#[test]
fn check_config_says_what_has_no_effect_yet_beside_the_json() {
    let output = elcached(&["--check-config", "-s", "somewhere:7890"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).starts_with("elcached: --seed: cluster.seed_nodes: not available yet"));
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok());
}

#[test]
fn mistakes_go_to_stderr_and_exit_with_1() {
    for arguments in [["--check-config", "-pX", "-m1"].as_slice(), &["-pX", "-m1"]] {
        let output = elcached(arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
        assert_eq!(text(&output.stderr).lines().count(), 3, "{}", text(&output.stderr));
    }
}

#[test]
fn a_file_that_is_not_there_is_one_line() {
    let output = elcached(&["-c", "/nonexistent/elcache.json"]);
    assert_eq!((output.status.code(), text(&output.stderr).lines().count()), (Some(1), 1));
    assert!(text(&output.stderr).starts_with("elcached: /nonexistent/elcache.json: cannot be read: "));
}

#[test]
fn a_file_without_end_is_refused() {
    let output = elcached(&["--check-config", "-c", "/dev/zero"]);
    assert_eq!((output.status.code(), text(&output.stderr).lines().count()), (Some(1), 1));
}

#[test]
fn the_version_is_one_line_and_the_help_teaches() {
    let version = elcached(&["-v"]);
    assert_eq!(text(&version.stdout), format!("elcached {}\n", env!("CARGO_PKG_VERSION")));
    let help = elcached(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("ELCACHE__LOG__LEVEL=debug"));
}
