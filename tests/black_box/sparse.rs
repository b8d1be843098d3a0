//! Uploads by ranges: `/sparse/{key}`, over HTTP/1.1 and HTTP/2, with a disk and without one.

mod assembling;
mod lifetime;
mod refusals;

use elcache_tests::curl::call2;
use elcache_tests::home::Home;
use elcache_tests::{Answer, Call, Node};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const NO_SUCH_ID: &str = "00000000000000000000000000000001";

/// A node, and how it is spoken to.
struct Client {
    node: Node,
    is_http2: bool,
    /// Of the node's disk tier, if it has one.
    _home: Option<Home>,
}

impl Client {
    #[track_caller]
    fn call(&self, call: &Call) -> Answer {
        if self.is_http2 { call2(&self.node, call) } else { self.node.call(call) }
    }

    #[track_caller]
    fn ask(&self, method: &str, target: &str) -> Answer {
        self.call(&Call::new(method, target))
    }

    /// Opens an upload; its id.
    #[track_caller]
    fn open(&self, key: &str, size: u64) -> String {
        let answer = self.call(&opening(key, size)).expect(201);
        let id = answer.header("X-ElCache-Upload-Id").expect("an id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        id
    }

    /// Writes a range that has to be taken; the completion.
    #[track_caller]
    fn write(&self, key: &str, from: u64, bytes: &[u8]) -> String {
        let answer = self.call(&range(key, from, bytes)).expect(202);
        answer.header("X-ElCache-Completion").expect("the completion").to_owned()
    }

    /// How far an upload is.
    #[track_caller]
    fn status(&self, key: &str) -> Value {
        let answer = self.ask("GET", &format!("/sparse/{key}")).expect(200);
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    #[track_caller]
    fn missing(&self, key: &str) -> Value {
        self.status(key)["missing"].clone()
    }

    #[track_caller]
    fn finalize(&self, key: &str) -> Answer {
        self.ask("POST", &format!("/sparse/{key}/finalize"))
    }
}

fn opening(key: &str, size: u64) -> Call {
    Call::new("POST", format!("/sparse/{key}")).with("X-ElCache-Size", size.to_string())
}

fn range(key: &str, from: u64, bytes: &[u8]) -> Call {
    Call::new("PATCH", format!("/sparse/{key}?offset={from}")).body(bytes)
}

/// What a problem says; it has to be of this status.
#[track_caller]
fn problem(answer: Answer, status: u16) -> Value {
    let answer = answer.expect(status);
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// The same over HTTP/1.1 and HTTP/2, where values stay in memory and where they go to a disk.
fn everywhere(test: impl Fn(&Client)) {
    for is_http2 in [false, true] {
        test(&Client { node: Node::plain(), is_http2, _home: None });
        let home = Home::new("64", "256M");
        let node = home.node();
        node.wait_healthy();
        test(&Client { node, is_http2, _home: Some(home) });
    }
}
