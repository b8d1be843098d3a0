//! The program under test.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names another program to be tested, which is then not built.
const OVERRIDE: &str = "ELCACHED_UNDER_TEST";

/// The path of `elcached`, of the same profile as the tests, built if it is not up to date.
pub fn elcached() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| std::env::var_os(OVERRIDE).map_or_else(|| built("elcached"), PathBuf::from))
}

/// The path of a program of the project, of the same profile as the tests, built if it is not up to date.
pub fn built(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("the test's own path");
    let profile_dir = exe.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
    build_once(profile_dir);
    profile_dir.join(name)
}

/// nextest starts a process for each test: the first one of a run builds, the others wait for it.
fn build_once(profile_dir: &Path) {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("process {}", std::process::id()));
    let path = profile_dir.join(".elcached-built");
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).expect("the stamp");
    file.lock().expect("the lock of the stamp");
    let mut built_for = String::new();
    file.read_to_string(&mut built_for).expect("the stamp's text");
    if built_for == run {
        return;
    }
    build(profile_dir);
    file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).expect("the stamp, emptied");
    file.write_all(run.as_bytes()).expect("the stamp, written");
}

/// As the Makefile does, so that nothing is built twice.
fn build(profile_dir: &Path) {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(name) => name,
    };
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--target-dir"])
        .arg(profile_dir.parent().expect("the target directory"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .expect("cargo starts");
    assert!(status.success(), "elcached cannot be built");
}
