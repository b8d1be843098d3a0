//! Directories that can be used and those that cannot, and what a node says of them.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use elcache_tests::binary::elcached;
use elcache_tests::home::Home;
use elcache_tests::node::{command, command_under};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Node, report};

const PORT: (&str, &str) = ("ELCACHE__NETWORK__HTTP_PORT", "0");
/// Who owns nothing.
const NOBODY: &str = "65534";

/// Checks that a node does not start, and says why in one line.
#[track_caller]
fn refuses(args: &[&str], says: &[&str]) {
    let output = command(args, &[PORT]).stdin(Stdio::null()).output().expect("elcached starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for text in says {
        assert!(stderr.contains(text), "{text:?} is not in {stderr}");
    }
}

#[test]
fn a_second_process_is_kept_out_and_the_first_goes_on() {
    let home = Home::new("64", "1G");
    let node = home.node();
    node.put("/cache/a", "x");
    refuses(&home.args(), &["another process", "--disk"]);
    node.put("/cache/b", "y");
    node.kill();
    let node = home.node();
    assert_eq!((node.get("/cache/a").body, node.get("/cache/b").body), (b"x".to_vec(), b"y".to_vec()));
}

#[test]
fn a_directory_of_an_unknown_version_is_refused_and_left_alone() {
    let home = Home::new("64", "1G");
    let node = home.node();
    node.put("/cache/a", vec![7; 100_000]);
    node.stop();
    let identity = home.dir().join("IDENTITY");
    let known = std::fs::read(&identity).expect("the directory's identity");
    let mut unknown = known.clone();
    for block in unknown.chunks_mut(4096) {
        block[8] = 99;
    }
    std::fs::write(&identity, &unknown).expect("another version");
    let before = home.content();
    refuses(&home.args(), &["version 99", "version 1", home.dir().to_str().expect("text")]);
    assert!(home.content() == before, "the directory was changed");
    std::fs::write(&identity, known).expect("the known version");
    home.node().get("/cache/a").expect(200);
}

#[test]
fn a_directory_with_a_damaged_identity_or_none_is_refused_and_left_alone() {
    let home = Home::new("64", "1G");
    let node = home.node();
    node.put("/cache/a", vec![7; 100_000]);
    node.stop();
    let identity = home.dir().join("IDENTITY");
    std::fs::write(&identity, vec![1; 8192]).expect("a damaged identity");
    let before = home.content();
    refuses(&home.args(), &["IDENTITY is damaged"]);
    assert!(home.content() == before, "the directory was changed");
    std::fs::remove_file(&identity).expect("the identity goes");
    let before = home.content();
    refuses(&home.args(), &["segments and no IDENTITY"]);
    assert!(home.content() == before, "the directory was changed");
}

#[test]
fn a_named_directory_that_cannot_be_made_is_an_error() {
    refuses(&["-m", "64", "-d", "/proc/elcache", "-D", "1G"], &["/proc/elcache", "--disk"]);
    let scratch = Scratch::new();
    let file = scratch.file("file", "");
    refuses(&["-m", "64", "-d", &file, "-D", "1G"], &[&file, "--disk"]);
}

#[test]
fn a_disk_below_the_minimum_is_refused_and_the_minimum_works() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("disk").to_str().expect("text").to_owned();
    refuses(&["-m", "64", "-d", &dir, "-D", "63M"], &["disk.max_size", "64MiB"]);
    Node::start(&["-m", "64", "-d", &dir, "-D", "64M"], &[]).put("/cache/a", "x");
}

/// What starts a program as nobody, where the tests run as root; nothing where they run as somebody else.
pub(crate) fn as_nobody() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() {
        ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"].to_vec()
    } else {
        Vec::new()
    }
}

fn allow_all(path: &std::path::Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("permissions");
}

#[test]
fn an_unprivileged_user_gets_a_cache_of_their_own_and_the_log_says_so() {
    if Command::new("setpriv").arg("--version").output().is_err() {
        report("skipped: there is no setpriv");
        return;
    }
    let scratch = Scratch::new();
    // The build directory may be somebody's own.
    let program = scratch.path().join("elcached");
    std::fs::copy(elcached(), &program).expect("a copy that nobody can start");
    allow_all(scratch.path());
    let home = scratch.path().to_str().expect("text").to_owned();
    for (variable, dir) in [("HOME", ".cache/elcache"), ("XDG_CACHE_HOME", "elcache")] {
        // The environment of the tests is not the user's.
        let wrapper = [&as_nobody()[..], &["env", "-u", "XDG_CACHE_HOME", "-u", "HOME"]].concat();
        let variable = format!("{variable}={home}");
        let wrapper =
            [&wrapper[..], &[&variable, program.to_str().expect("text"), "-D", "1G", "-m", "64"]].concat();
        let node = Node::run(only(&wrapper));
        node.put("/cache/a", "x");
        let dir = scratch.path().join(dir);
        let said = node.log().lines().any(|line| {
            line.contains("/var/cache/elcache cannot be used") && line.contains(dir.to_str().expect("text"))
        });
        assert!(said, "{}", node.log());
        assert!(dir.join("IDENTITY").is_file());
        node.stop();
    }
}

/// A command line of its own, in the environment of the tests' nodes.
pub(crate) fn only(line: &[&str]) -> Command {
    let like = command_under(&[], &[], &[]);
    let mut command = Command::new(line[0]);
    command.args(&line[1..]);
    for (name, value) in like.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

#[test]
fn the_metrics_of_the_disk_are_there_with_a_disk_and_not_without_one() {
    const FAMILIES: [&str; 8] = [
        "elcache_disk_cache_size_bytes",
        "elcache_disk_cache_capacity_bytes",
        "elcache_disk_index_bytes",
        "elcache_disk_read_bytes_total",
        "elcache_disk_written_bytes_total",
        "elcache_disk_write_amplification",
        "elcache_disk_errors_total",
        "elcache_io_engine_info",
    ];
    let families = |node: &Node| {
        let page = node.get("/metrics").expect(200).text().to_owned();
        FAMILIES.map(|family| page.contains(&format!("# TYPE {family} ")))
    };
    assert_eq!(families(&Node::plain()), [false; 8]);
    let home = Home::new("64", "1G");
    let node = home.node();
    node.put("/cache/a", vec![1; 200_000]);
    assert_eq!(families(&node), [true; 8]);
    let metric = |series: &str| node.metric(series).unwrap_or_else(|| panic!("no {series}"));
    assert_eq!(metric("elcache_disk_cache_capacity_bytes"), (1_u64 << 30) as f64);
    assert!(metric("elcache_disk_cache_size_bytes") >= 200_000.0);
    assert!(metric("elcache_disk_index_bytes") > 0.0);
    assert!((1.0..1.5).contains(&metric("elcache_disk_write_amplification")));
    assert_eq!(metric("elcache_disk_errors_total{kind=\"io\"}"), 0.0);
    assert_eq!(metric("elcache_cache_entries{tier=\"disk\"}"), 1.0);
    assert_eq!(metric("elcache_bytes_written_total{tier=\"disk\"}"), 200_000.0);
}
