//! curl with `-C -`: a download goes on where it was cut, and two values never become one file.

use std::path::{Path, PathBuf};

use elcache_tests::client::{Client, Ended, assert_is};
use elcache_tests::content::Content;
use elcache_tests::home::Home;
use elcache_tests::load::{Framed, upload};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Call, Node};

const MIB: u64 = 1 << 20;

/// Downloads into a file, or what is missing of it.
fn download(node: &Node, file: &Path, args: &[&str]) -> Client {
    let file = file.to_str().expect("a path of text");
    let url = node.url("/cache/a.bin");
    let common = ["-q", "-sS", "--noproxy", "*", "-C", "-", "-o", file];
    Client::start("curl", common.iter().chain(args).chain(&[&*url]))
}

/// Cut by the death of the client, then by the death of the node, then to its end.
fn cut_twice_and_resumed(size: u64, rate: &str) {
    let home = Home::new("64", "6G");
    let mut node = home.node();
    let content = Content::new(size);
    let answer =
        upload(&mut node.connect(), Call::new("PUT", "/cache/a.bin"), content, size, Framed::Chunked);
    answer.expect("an answer").expect(201);
    let scratch = Scratch::new();
    let file = scratch.path().join("a.bin");
    let slowly = ["--limit-rate", rate];

    download(&node, &file, &slowly).kill_at(&file, size / 4);
    let mut second = download(&node, &file, &slowly);
    second.wait_until(|| length(&file) >= size / 2);
    node.kill();
    // 18: fewer bytes than announced; 56: the connection was reset.
    let ended = second.end();
    assert!(matches!(ended.code, Some(18 | 56)), "{ended:?}");
    let had = length(&file);
    assert!(had < size, "it was cut at {had} of {size}");
    node = home.node();
    let before = node.bytes_read();
    download(&node, &file, &[]).end().expect_success();
    let resumed = node.bytes_read() - before;
    assert!(resumed < size - size / 4, "{resumed} bytes were read again, {had} of {size} were there");
    assert_is(&file, content, size);
    // Once more, with nothing left to do: `416`, which curl takes for what it is.
    download(&node, &file, &[]).end().expect_success();
    assert_is(&file, content, size);
    node.wait_healthy();
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

#[test]
fn curl_resumes_a_download_cut_by_its_own_end_and_by_the_nodes() {
    cut_twice_and_resumed(64 * MIB, "32M");
}

#[test]
fn soak_client_curl_resumes_4_gib_cut_by_its_own_end_and_by_the_nodes() {
    cut_twice_and_resumed(4096 * MIB, "400M");
}

const OLD: u64 = 3 * MIB;
const HAD: u64 = MIB + 17;

/// A node whose value was replaced by one of `size` bytes while a client had the first part of the old one.
struct Replaced {
    node: Node,
    file: PathBuf,
    old_etag: String,
    _scratch: Scratch,
}

impl Replaced {
    fn by(size: u64) -> Self {
        let node = Node::plain();
        let old = Content::new(1).bytes(OLD as usize);
        let old_etag = node.put("/cache/a.bin", &old).etag().to_owned();
        node.put("/cache/a.bin", Content::new(2).bytes(size as usize));
        let scratch = Scratch::new();
        let file = scratch.file("a.bin", &old[..HAD as usize]).into();
        Self { node, file, old_etag, _scratch: scratch }
    }

    fn resume(&self, args: &[&str]) -> Ended {
        download(&self.node, &self.file, &[args, &["-w", "%{http_code}"]].concat()).end()
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_is(&self.file, Content::new(1), HAD);
    }
}

#[test]
fn curl_that_says_what_it_has_does_not_splice_two_values() {
    for size in [OLD, 2 * OLD, HAD, HAD - 1, 1] {
        let replaced = Replaced::by(size);
        // All of the new value, which curl does not write behind a part of another: 33, "Cannot resume".
        let ended = replaced.resume(&["-H", &format!("If-Range: {}", replaced.old_etag)]);
        // Of the length that it has, the new value is taken for what is there already.
        let code = if size == HAD { 0 } else { 33 };
        assert_eq!((ended.code, &*ended.out), (Some(code), "200"), "{size}: {ended:?}");
        replaced.assert_untouched();
        let ended = replaced.resume(&["-f", "-H", &format!("If-Match: {}", replaced.old_etag)]);
        assert_eq!((ended.code, &*ended.out), (Some(22), "412"), "{size}: {ended:?}");
        replaced.assert_untouched();
    }
}

#[test]
fn curl_that_says_nothing_of_what_it_has_gets_the_range_of_the_new_value_it_asked_for() {
    // A bare `Range` cannot be answered otherwise (RFC 9110 14.2): the tag and the length are there to be compared.
    let replaced = Replaced::by(2 * OLD);
    let head = replaced.file.with_extension("head");
    let ended = replaced.resume(&["-D", head.to_str().expect("a path of text")]);
    assert_eq!((ended.code, &*ended.out), (Some(0), "206"), "{ended:?}");
    let head = std::fs::read_to_string(head).expect("the head").to_lowercase();
    let new_etag = replaced.node.head("/cache/a.bin").etag().to_owned();
    assert!(new_etag != replaced.old_etag && head.contains(&format!("etag: {new_etag}\r\n")), "{head}");
    assert!(head.contains(&format!("content-range: bytes {HAD}-{}/{}\r\n", 2 * OLD - 1, 2 * OLD)), "{head}");
    let file = std::fs::read(&replaced.file).expect("the file");
    assert_eq!(file.len() as u64, 2 * OLD);
    assert!(Content::new(2).is(HAD, &file[HAD as usize..]), "what was asked for is of the new value alone");
    // Shorter than what it has: there is no such range, and it does not say that all is well.
    let replaced = Replaced::by(HAD - 1);
    let ended = replaced.resume(&["-f"]);
    assert_eq!((ended.code, &*ended.out), (Some(22), "416"), "{ended:?}");
    replaced.assert_untouched();
}
