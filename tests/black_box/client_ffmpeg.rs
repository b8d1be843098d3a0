//! ffmpeg and ffprobe, which seek in what they play: most of a film is never read.

use std::path::Path;

use elcache_tests::client::Client;
use elcache_tests::home::Home;
use elcache_tests::scratch::Scratch;
use elcache_tests::{Node, report};

const SECONDS: u32 = 60;
const MIB: u64 = 1 << 20;

/// Makes a film of a minute with sound, 90 MiB: with its index behind what it is the index of.
fn film(path: &str) {
    let picture = format!("testsrc2=size=1280x720:rate=30:duration={SECONDS}");
    let sound = format!("sine=frequency=440:duration={SECONDS}");
    let sources = ["-v", "error", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound];
    let coding = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-g", "60", "-c:a", "aac", path];
    Client::run("ffmpeg", sources.iter().chain(&coding)).expect_success();
}

/// The same film with its index in front.
fn with_index_in_front(from: &str, to: &str) {
    Client::run("ffmpeg", ["-v", "error", "-i", from, "-c", "copy", "-movflags", "+faststart", to])
        .expect_success();
}

/// The sums of a few frames of picture and sound from this second on.
fn frames(film: &str, from: &str) -> String {
    let args =
        ["-v", "error", "-ss", from, "-i", film, "-frames:v", "5", "-frames:a", "5", "-f", "framemd5", "-"];
    Client::run("ffmpeg", args).expect_success()
}

fn probe(film: &str) -> String {
    let args =
        ["-v", "error", "-show_entries", "format=duration,size,bit_rate:stream=codec_name,nb_frames", film];
    Client::run("ffprobe", args).expect_success()
}

/// What `work` gives, which must be the same for the file and the node's value; and which part of it the node read.
fn the_same(node: &Node, file: &str, url: &str, what: &str, work: impl Fn(&str) -> String) {
    let size = std::fs::metadata(file).expect("the film").len();
    let expected = work(file);
    let before = node.bytes_read();
    assert_eq!(work(url), expected, "{what}");
    let read = node.bytes_read() - before;
    report(format_args!("{what}: {} of {} MiB read", read / MIB, size / MIB));
    assert!(read < size / 2, "{what}: {read} of {size} bytes read");
}

#[test]
fn soak_client_ffmpeg_seeks_in_films_without_reading_all_of_them() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).to_str().expect("a path of text").to_owned();
    let (behind, front) = (path("behind.mp4"), path("front.mp4"));
    film(&behind);
    with_index_in_front(&behind, &front);
    // Less memory than a film: most of what is read comes from the disk.
    let home = Home::new("64", "2G");
    let node = home.node();
    for film in [&behind, &front] {
        let name = Path::new(film).file_name().and_then(|name| name.to_str()).expect("a name");
        let url = node.url(&format!("/cache/{name}"));
        Client::run("curl", ["-q", "-sSf", "--noproxy", "*", "-T", film, &url]).expect_success();
        the_same(&node, film, &url, &format!("ffprobe {name}"), probe);
        for second in ["57.3", "0.5", "31"] {
            let frames = |film: &str| {
                let frames = frames(film, second);
                assert_eq!(frames.lines().filter(|line| !line.starts_with('#')).count(), 10, "{frames}");
                frames
            };
            the_same(&node, film, &url, &format!("{name} from second {second}"), frames);
        }
    }
    node.assert_healthy();
}
