//! The Unix socket as a file, and as something that connections are made to.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use elcache_protocol::hello::SHARED_MEMORY;
use elcache_protocol::{Request, Status};
use elcache_tests::local::{farewell, raw};
use elcache_tests::node::{command, wait_for};
use elcache_tests::scratch::Scratch;
use elcache_tests::{Local, Node};

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// Starts a node that is to fail at once.
#[track_caller]
fn refused(path: &Path) -> String {
    let args = ["-m", "64", "-p", "0", "-u", path.to_str().expect("text")];
    let Output { status, stderr, .. } = command(&args, &[]).output().expect("elcached starts");
    assert_eq!(status.code(), Some(1));
    let text = String::from_utf8(stderr).expect("text");
    assert!(text.contains("network.unix_socket_path"), "{text}");
    text
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_node() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let path = scratch.path().join("node.sock");
    let mode = fs::symlink_metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    client.call(&Request::Ping).expect(Status::Ok);
    assert!(node.log().contains(path.to_str().expect("text")), "{}", node.log());
    drop(client);
    node.stop();
    assert!(!path.exists());
}

#[test]
fn a_node_without_room_for_it_shares_no_memory() {
    let scratch = Scratch::new();
    let (node, client) = Node::local(&scratch, &["-m", "64"], &[]);
    assert_eq!(client.hello.features, SHARED_MEMORY);
    drop((node, client));
    let (_node, client) = Node::local(&scratch, &["-m", "64"], &[("ELCACHE__NETWORK__SHM_SIZE", "0")]);
    assert_eq!(client.hello.features, 0);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.path().join("node.sock");
    let (node, _) = Node::local(&scratch, &["-m", "64"], &[]);
    node.kill();
    assert!(is_socket(&path), "nobody has removed it");
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    client.put(b"k", b"v");
    let said = refused(&path);
    assert!(said.contains("another program serves it"), "{said}");
    // The one that serves it has lost nothing.
    assert_eq!(Local::connect(&path).get(b"k").expect(Status::Ok).data, b"v");
    drop((node, client));
    // Nor does a program that serves it without answering, its queue full or not.
    fs::remove_file(&path).expect("the socket of a node that was killed");
    let _silent = UnixListener::bind(&path).expect("a socket");
    refused(&path);
    assert!(is_socket(&path));
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "precious");
    refused(Path::new(&file));
    assert_eq!(fs::read(&file).expect("the file"), b"precious");
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    refused(&link);
    let dangling = scratch.path().join("dangling");
    std::os::unix::fs::symlink(scratch.path().join("nothing"), &dangling).expect("a link");
    refused(&dangling);
    assert!(fs::symlink_metadata(&dangling).is_ok_and(|file| file.is_symlink()));
    refused(&scratch.path().join("no/such/directory/s"));
    let long = refused(&scratch.path().join("x".repeat(200)));
    assert!(long.contains("at most 107"), "{long}");
}

#[test]
fn an_empty_path_is_no_socket() {
    let node = Node::start(&["-m", "64", "-u", ""], &[]);
    assert!(!node.log().contains("socket="), "{}", node.log());
    node.assert_healthy();
}

#[test]
fn a_thousand_connections_leave_nothing_open() {
    let scratch = Scratch::new();
    let (node, mut client) = Node::local(&scratch, &["-m", "64"], &[]);
    let path = scratch.path().join("node.sock");
    client.put(b"k", b"v");
    drop(client);
    let open = || node.metric("elcache_connections{transport=\"unix\"}");
    let settled = || wait_for(Duration::from_secs(10), || (open() == Some(0.0)).then_some(()));
    assert!(settled().is_some());
    let fds = node.metric("process_open_fds").expect("a number");
    for number in 0..1000 {
        match number % 4 {
            0 => drop(raw(&path).expect("a connection")),
            1 => _ = farewell(&mut greeted_wrongly(&path)),
            2 => assert_eq!(Local::connect(&path).get(b"k").expect(Status::Ok).data, b"v"),
            _ => {
                _ = Local::connect(&path).begin(
                    &Request::Get(elcache_protocol::request::Get::new(b"k")),
                    b"",
                    false,
                )
            }
        }
    }
    assert!(settled().is_some(), "{:?} connections are open", open());
    // The scrape's own connection, and one that HTTP has not closed yet.
    let now = node.metric("process_open_fds").expect("a number");
    assert!(now <= fds + 2.0, "{fds} before, {now} after");
}

fn greeted_wrongly(path: &Path) -> std::os::unix::net::UnixStream {
    use std::io::Write;
    let mut stream = raw(path).expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is taken");
    stream
}

#[test]
fn more_connections_than_there_may_be_are_told_so() {
    let scratch = Scratch::new();
    let (node, mut first) = Node::local(&scratch, &["-m", "64"], &[("ELCACHE__LIMITS__CONNECTIONS", "2")]);
    let path = scratch.path().join("node.sock");
    let second = Local::connect(&path);
    let told = farewell(&mut raw(&path).expect("a connection"));
    assert_eq!(told.expect("a reason").0, Status::Busy);
    // Those of all transports count together.
    node.get("/health").expect(503);
    first.call(&Request::Ping).expect(Status::Ok);
    drop(second);
    let third = wait_for(Duration::from_secs(10), || Local::try_connect(&path).ok());
    third.expect("there is a place again").call(&Request::Ping).expect(Status::Ok);
}
