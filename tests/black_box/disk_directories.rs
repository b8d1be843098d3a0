//! Directories that fail while they are used, and come back: by removal, for want of permissions, by a file system that is full, by
//! errors of the kernel and by operations that do not end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use elcache_tests::binary::elcached;
use elcache_tests::content::Content;
use elcache_tests::home::bytes;
use elcache_tests::node::wait_for;
use elcache_tests::random::Random;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Answer, Call, Node, report};

use crate::disk_start::{as_nobody, only};

const MIB: usize = 1 << 20;
/// `/health` has to tell the truth in this time; a little more for a machine that is busy.
const TOLD: Duration = Duration::from_millis(2500);
/// A directory is tried every five seconds.
pub(crate) const BACK: Duration = Duration::from_secs(25);

/// A node on some directories.
pub(crate) struct Place {
    scratch: Scratch,
    envs: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new(directories: &[PathBuf], scratch: Scratch, size: &str) -> Self {
        let path: Vec<_> = directories.iter().map(|path| format!("\"{}\"", path.display())).collect();
        let envs = [
            ("ELCACHE__DISK__PATH", format!("[{}]", path.join(","))),
            ("ELCACHE__DISK__MAX_SIZE", size.to_owned()),
        ];
        Self { scratch, envs: envs.map(|(name, value)| (name.to_owned(), value)).to_vec() }
    }

    pub(crate) fn of(names: &[&str], size: &str) -> Self {
        let scratch = Scratch::new();
        let directories: Vec<_> = names.iter().map(|name| scratch.path().join(name)).collect();
        Self::new(&directories, scratch, size)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn node(&self) -> Node {
        let envs: Vec<_> = self.envs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let node = Node::start(&["-m", "64"], &envs);
        node.wait_healthy();
        node
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

pub(crate) fn health(node: &Node) -> (u16, String) {
    let answer = node.get("/health");
    (answer.status, answer.text().to_owned())
}

/// Waits until the node is degraded and says this.
#[track_caller]
pub(crate) fn is_told(node: &Node, says: &[&str]) {
    let began = Instant::now();
    let told = wait_for(Duration::from_secs(20), || {
        let (status, text) = health(node);
        assert_eq!(status, 200, "it serves all the same: {text}");
        (text.contains("degraded") && says.iter().all(|says| text.contains(says))).then_some(())
    });
    assert!(told.is_some(), "{says:?} is not said: {:?}; {}", health(node), node.log());
    report(format_args!("{says:?} was said after {:?}", began.elapsed()));
    assert!(began.elapsed() < TOLD, "{says:?} was said after {:?}", began.elapsed());
}

#[track_caller]
pub(crate) fn is_well_again(node: &Node) {
    let well = wait_for(BACK, || health(node).1.contains("\"healthy\"").then_some(()));
    assert!(well.is_some(), "{:?}; {}", health(node), node.log());
}

pub(crate) fn in_service(node: &Node, directory: &Path) -> f64 {
    let series = format!("elcache_disk_directory_in_service{{directory=\"{}\"}}", directory.display());
    node.metric(&series).expect("a series of the directory")
}

fn size(node: &Node, directory: &Path) -> f64 {
    let series = format!("elcache_disk_directory_size_bytes{{directory=\"{}\"}}", directory.display());
    node.metric(&series).expect("a series of the directory")
}

pub(crate) fn target(number: u64) -> String {
    format!("/cache/{number}")
}

pub(crate) const VALUE: usize = 100_000;

/// What is there has the right bytes.
#[track_caller]
fn is_right(number: u64, answer: &Answer) -> bool {
    match answer.status {
        200 => {
            let right = answer.body.len() == VALUE && Content::new(number).is(0, &answer.body);
            assert!(right, "{number}: {} bytes, or wrong ones", answer.body.len());
            true
        }
        404 | 503 => false,
        status => panic!("{number}: {status}"),
    }
}

/// Puts and gets until `stop`, and counts what was answered; nobody waits for longer than a request may.
fn load(node: &Node, keys: u64, stop: &AtomicBool) -> (u64, u64) {
    let mut random = Random::new(keys);
    let (mut written, mut found) = (0, 0);
    let mut connection = node.connect();
    while !stop.load(Ordering::Relaxed) {
        let number = random.below(keys);
        let began = Instant::now();
        if random.below(4) == 0 {
            let answer = connection.call(&Call::put(target(number), Content::new(number).bytes(VALUE)));
            assert!(matches!(answer.status, 201 | 204 | 503), "{answer:?}");
            written += u64::from(answer.status != 503);
        } else {
            found += u64::from(is_right(number, &connection.call(&Call::get(target(number)))));
        }
        assert!(began.elapsed() < Duration::from_secs(16), "a request took {:?}", began.elapsed());
    }
    (written, found)
}

/// Runs something while clients are at work.
fn under_load(node: &Node, keys: u64, work: impl FnOnce()) -> (u64, u64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| load(node, keys, &stop))).collect();
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let counts = clients.into_iter().map(|client| client.join().expect("a client"));
        let counts = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counts
    })
}

#[test]
fn three_directories_one_of_which_is_removed_under_load_and_brought_back() {
    const KEYS: u64 = 1200;
    let place = Place::of(&["a", "b", "c"], "1G");
    let node = place.node();
    let dirs = ["a", "b", "c"].map(|name| place.dir(name));
    (0..KEYS).for_each(|number| _ = node.put(&target(number), Content::new(number).bytes(VALUE)));
    let away = place.dir("away");
    let (written, found) = under_load(&node, KEYS, || {
        std::fs::rename(&dirs[1], &away).expect("the directory goes");
        is_told(&node, &[dirs[1].to_str().expect("text"), "out of service"]);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(dirs.each_ref().map(|dir| in_service(&node, dir)), [1.0, 0.0, 1.0]);
        assert!(node.metric("elcache_disk_cache_capacity_bytes") == Some((2_u64 << 30) as f64));
    });
    assert!(written > 10 && found > 10, "{written} writes and {found} hits in the meantime");
    for number in 0..KEYS {
        let status = node.get(&target(number)).status;
        assert!(matches!(status, 200 | 404), "{number}: {status}");
        node.put(&target(number), Content::new(number).bytes(VALUE));
    }
    under_load(&node, KEYS, || {
        std::fs::rename(&away, &dirs[1]).expect("the directory is back");
        is_well_again(&node);
    });
    for number in 0..KEYS {
        assert!(is_right(number, &node.get(&target(number))), "{number} was written while two served");
    }
    // What it has missed it does not know; from now on it fills.
    for number in 0..SMALL {
        node.put(&small(number), Content::new(number).bytes(SMALL_VALUE));
    }
    node.kill();
    let third = (SMALL as usize * SMALL_VALUE) as f64 / 3.0;
    let part = bytes(&dirs[1]) as f64 / third;
    assert!((0.9..1.1).contains(&part), "it took {part} of a third");
    let node = place.node();
    for number in 0..KEYS {
        assert!(is_right(number, &node.get(&target(number))), "{number} is lost");
    }
    for number in 0..SMALL {
        let answer = node.get(&small(number)).expect(200);
        assert!(Content::new(number).is(0, &answer.body), "wrong bytes of {number}");
    }
}

/// As many as it takes for chance to leave a third a third.
const SMALL: u64 = 9000;
const SMALL_VALUE: usize = 20_000;

fn small(number: u64) -> String {
    format!("/cache/small/{number}")
}

#[test]
fn three_directories_take_equal_parts() {
    const KEYS: u64 = 3000;
    let place = Place::of(&["a", "b", "c"], "2G");
    let node = place.node();
    for number in 0..KEYS {
        node.put(&target(number), Content::new(number).bytes(VALUE));
    }
    let sizes = ["a", "b", "c"].map(|name| size(&node, &place.dir(name)));
    let third = sizes.iter().sum::<f64>() / 3.0;
    // An open segment counts for as much as it may come to have.
    assert!(sizes.iter().all(|size| (size / third - 1.0).abs() < 0.1), "{sizes:?}");
}

#[test]
fn the_only_directory_is_removed_and_made_again() {
    let place = Place::of(&["a"], "256M");
    let node = place.node();
    node.put("/cache/1", vec![1; 5000]);
    std::fs::remove_dir_all(place.dir("a")).expect("the directory goes");
    is_told(&node, &["out of service"]);
    // What is in memory is served, what is new is kept there, and what the directory has stays as it is.
    assert_eq!(node.get("/cache/1").body, vec![1; 5000]);
    node.call(&Call::put("/cache/1", "another")).expect(503);
    node.delete("/cache/1").expect(503);
    node.put("/cache/2", "in memory");
    node.put("/cache/3", vec![3; 9 * MIB]);
    assert_eq!(node.get("/cache/2").expect(200).header("X-ElCache-Hit"), Some("memory"));
    assert_eq!(node.get("/cache/3").body, vec![3; 9 * MIB]);
    std::fs::create_dir(place.dir("a")).expect("the directory is made again");
    is_well_again(&node);
    node.put("/cache/1", "another");
    node.delete("/cache/2").expect(204);
    node.kill();
    let node = place.node();
    assert_eq!(node.get("/cache/1").body, b"another");
    node.get("/cache/2").expect(404);
}

/// A file system of its own in memory, where tests may mount one.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    pub(crate) fn mount(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a place for it");
        let options = format!("size={size}");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &options, "none", path.to_str().expect("text")]);
        if !mounted {
            report("skipped: a file system cannot be mounted here");
        }
        mounted.then_some(Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().expect("text")]);
    }
}

pub(crate) fn run(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn a_directory_whose_permissions_are_taken_away() {
    if !run("setpriv", &["--version"]) {
        report("skipped: there is no setpriv");
        return;
    }
    let scratch = Scratch::new();
    // The build directory may be somebody's own.
    let program = scratch.path().join("elcached");
    std::fs::copy(elcached(), &program).expect("a copy that nobody can start");
    allow(scratch.path(), 0o777);
    let dir = scratch.path().join("a");
    let [program, path] = [&program, &dir].map(|path| path.to_str().expect("text").to_owned());
    let flags = [&*program, "-m", "64", "-d", &path, "-D", "256M"];
    let node = Node::run(only(&[&as_nobody()[..], &flags].concat()));
    node.wait_healthy();
    node.put("/cache/1", vec![1; 5000]);
    allow(&dir, 0);
    is_told(&node, &["out of service", "denied"]);
    node.put("/cache/2", "in memory");
    node.call(&Call::put("/cache/1", "another")).expect(503);
    allow(&dir, 0o777);
    is_well_again(&node);
    assert_eq!(node.get("/cache/1").body, vec![1; 5000]);
    node.put("/cache/1", "another");
}

pub(crate) fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("permissions");
}

#[test]
fn a_file_system_that_somebody_else_fills() {
    let scratch = Scratch::new();
    let path = scratch.path().join("a");
    let Some(_tmpfs) = Tmpfs::mount(path.clone(), "200m") else { return };
    let place =
        Place::new(&[path.join("cache")], scratch, "128M").with("ELCACHE__DISK__USE_FALLOCATE", "false");
    let node = place.node();
    let put = |number: u64| {
        let answer = node.call(&Call::put(target(number), Content::new(number).bytes(VALUE)));
        assert!(matches!(answer.status, 201 | 204 | 503), "{answer:?}");
        answer.status != 503
    };
    assert!((0..900).all(put));
    let filled = run("dd", &["if=/dev/zero", &format!("of={}", path.join("fill").display()), "bs=1M"]);
    assert!(!filled, "it is full");
    let taken = (900..930).filter(|number| put(*number)).count();
    report(format_args!("{taken} of 30 writes were taken by a full file system"));
    let (status, text) = health(&node);
    assert!(status == 200 && !text.contains("out of service"), "{text}");
    for number in 0..930 {
        is_right(number, &node.get(&target(number)));
    }
    std::fs::remove_file(path.join("fill")).expect("there is room again");
    let works = wait_for(BACK, || put(1000).then_some(()));
    assert!(works.is_some(), "{}", node.log());
    assert!(is_right(1000, &node.get(&target(1000))));
    node.assert_healthy();
}

/// What the kernel answers to a node, as long as this is there.
pub(crate) struct Injected(Child);

impl Injected {
    pub(crate) fn into(node: &Node, what: &[&str]) -> Option<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null"]);
        for what in what {
            strace.args(["-e", &format!("inject={what}")]);
        }
        let calls: Vec<_> = what.iter().filter_map(|what| what.split(':').next()).collect();
        strace.args(["-e", &format!("trace={}", calls.join(","))]).args(["-p", &node.pid().to_string()]);
        let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else {
            report("skipped: there is no strace");
            return None;
        };
        std::thread::sleep(Duration::from_millis(500));
        if !matches!(child.try_wait(), Ok(None)) {
            report("skipped: strace cannot attach here");
            return None;
        }
        Some(Self(child))
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // It lets go of the node when it is asked to end.
        let pid = self.0.id().to_string();
        run("kill", &["-TERM", &pid]);
        if wait_for(Duration::from_secs(5), || self.0.try_wait().ok().flatten()).is_none() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

fn with_threads() -> Place {
    Place::of(&["a"], "256M").with("ELCACHE__DISK__IO_ENGINE", "threads")
}

#[test]
fn errors_of_the_kernel_are_told_and_pass() {
    for (call, durability) in [("pwritev:error=EIO", "process"), ("fdatasync:error=EIO", "power")] {
        let place = with_threads().with("ELCACHE__DISK__DURABILITY", durability);
        let node = place.node();
        for number in 0..50 {
            node.put(&target(number), Content::new(number).bytes(VALUE));
        }
        {
            let Some(_injected) = Injected::into(&node, &[call]) else { return };
            node.call(&Call::put("/cache/fails", "x")).expect(503);
            is_told(&node, &["out of service"]);
            node.put("/cache/new", "in memory");
        }
        is_well_again(&node);
        let there = (0..50).filter(|number| is_right(*number, &node.get(&target(*number)))).count();
        assert_eq!(there, 50, "it has what it had");
        assert!(node.metric("elcache_disk_errors_total{kind=\"io\"}") > Some(0.0));
        node.put("/cache/fails", "y");
        node.kill();
        let node = place.node();
        assert_eq!(node.get("/cache/fails").body, b"y");
        assert!((0..50).all(|number| is_right(number, &node.get(&target(number)))));
    }
}

#[test]
fn an_operation_that_does_not_end_is_told_and_holds_nobody_up() {
    let place = with_threads();
    let node = place.node();
    for number in 0..50 {
        node.put(&target(number), Content::new(number).bytes(VALUE));
    }
    {
        // Thirty seconds, in microseconds.
        let Some(_injected) = Injected::into(&node, &["pwritev:delay_enter=30000000"]) else { return };
        std::thread::scope(|scope| {
            let began = Instant::now();
            let put = scope.spawn(|| node.call(&Call::put("/cache/hangs", "x")).status);
            is_told(&node, &["does not answer"]);
            // Others are served meanwhile.
            assert!(is_right(1, &node.get(&target(1))));
            assert_eq!(put.join().expect("a client"), 503);
            assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
        });
        let out =
            wait_for(Duration::from_secs(5), || health(&node).1.contains("out of service").then_some(()));
        assert!(out.is_some(), "{:?}", health(&node));
        node.put("/cache/new", "in memory");
        node.call(&Call::put("/cache/hangs", "z")).expect(503);
    }
    let well = wait_for(Duration::from_secs(60), || health(&node).1.contains("\"healthy\"").then_some(()));
    assert!(well.is_some(), "{:?}; {}", health(&node), node.log());
    assert!((0..50).all(|number| is_right(number, &node.get(&target(number)))), "it has what it had");
    node.put("/cache/hangs", "y");
    node.kill();
    assert_eq!(place.node().get("/cache/hangs").body, b"y");
}

#[test]
fn a_node_starts_without_one_of_its_directories() {
    let place = Place::of(&["a", "b", "c"], "256M");
    let node = place.node();
    for number in 0..100 {
        node.put(&target(number), Content::new(number).bytes(VALUE));
    }
    node.kill();
    // A file stands where a directory should.
    std::fs::rename(place.dir("c"), place.dir("away")).expect("it goes");
    std::fs::write(place.dir("c"), "").expect("a file");
    let envs: Vec<_> = place.envs.iter().map(|(name, value)| (&**name, &**value)).collect();
    let node = Node::start(&["-m", "64"], &envs);
    node.wait_healthy();
    is_told(&node, &[place.dir("c").to_str().expect("text"), "out of service"]);
    let there = (0..100).filter(|number| is_right(*number, &node.get(&target(*number)))).count();
    assert!((40..95).contains(&there), "{there} of 100");
    for number in 0..100 {
        node.put(&target(number), Content::new(number).bytes(VALUE));
    }
    std::fs::remove_file(place.dir("c")).expect("the file goes");
    std::fs::rename(place.dir("away"), place.dir("c")).expect("it is back");
    is_well_again(&node);
    assert_eq!(in_service(&node, &place.dir("c")), 1.0);
    node.wait_for_log("in service again, empty");
    assert!((0..100).all(|number| is_right(number, &node.get(&target(number)))));
}
