//! aria2c, which downloads over many connections at once and remembers what it has.

use elcache_tests::client::{Client, assert_is, occupied};
use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::load::{Framed, upload};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Call, report};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SIZE: u64 = 4 * GIB;
const CONNECTIONS: f64 = 16.0;

#[test]
fn soak_client_aria2c_downloads_4_gib_over_16_connections_is_killed_and_resumes() {
    let home = Home::new("256", "6G");
    let node = home.node();
    let content = Content::new(16);
    let answer = upload(&mut node.connect(), Call::new("PUT", "/cache/a.bin"), content, SIZE, Framed::Length);
    answer.expect("an answer").expect(201);

    let scratch = Scratch::new();
    let file = scratch.path().join("a.bin");
    let dir = format!("--dir={}", scratch.path().display());
    let url = node.url("/cache/a.bin");
    let common = [
        "-x16",
        "-s16",
        "-k1M",
        "-c",
        "--no-conf",
        "--file-allocation=none",
        "--auto-save-interval=1",
        "-q",
        &*dir,
    ];
    // Slow enough that it writes down what it has several times before it is killed.
    let slowly = ["--max-overall-download-limit=300M", &*url];
    let mut first = Client::start("aria2c", common.iter().chain(&slowly));
    first.wait_until(|| node.metric("elcache_connections{transport=\"http\"}") > Some(CONNECTIONS));
    first.kill_at(&file, SIZE / 2);
    let had = occupied(&file);
    let before = node.bytes_read();
    Client::run("aria2c", common.iter().chain(&[&*url])).expect_success();
    let resumed = node.bytes_read() - before;
    report(format_args!("killed at {} MiB, then read {} MiB", had / MIB, resumed / MIB));
    assert!(resumed < SIZE * 7 / 8, "nothing of {had} bytes was resumed: {resumed} bytes read");
    assert!(!scratch.path().join("a.bin.aria2").exists(), "it says itself that it is not complete");
    assert_is(&file, content, SIZE);
    node.assert_healthy();
}
