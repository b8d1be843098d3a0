//! HTTP/2 by prior knowledge, with hyper's client.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Node, etag, pattern};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;

/// A body in frames of a size that never fits anything.
struct Frames(Bytes);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let count = self.0.len().min(77_777);
        let frame = (count > 0).then(|| Ok(http_body::Frame::data(self.0.split_to(count))));
        std::task::Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

async fn connect(node: &Node) -> SendRequest<Frames> {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn body(response: Response<Incoming>) -> Result<Vec<u8>, hyper::Error> {
    let mut bytes = Vec::new();
    let mut incoming = response.into_body();
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut incoming).poll_frame(cx)).await
    {
        bytes.extend_from_slice(&frame?.into_data().unwrap());
    }
    Ok(bytes)
}

fn request(method: &str, node: &Node, target: &str, body: &[u8]) -> Request<Frames> {
    let uri = format!("http://{}{target}", node.address);
    Request::builder().method(method).uri(uri).body(Frames(Bytes::copy_from_slice(body))).unwrap()
}

#[tokio::test]
async fn values_of_all_sizes_go_there_and_back() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    for size in [0, 5, 16 << 10, 100_000, 9 * MIB + 1] {
        let value = pattern(size);
        let target = format!("/cache/{size}");
        let put = client.send_request(request("PUT", &node, &target, &value)).await.unwrap();
        assert_eq!((put.status().as_u16(), put.headers()["etag"].to_str().unwrap()), (201, &*etag(&value)));
        let get = client.send_request(request("GET", &node, &target, b"")).await.unwrap();
        assert_eq!(
            (get.status().as_u16(), get.headers()["content-length"].to_str().unwrap()),
            (200, &*size.to_string())
        );
        assert_eq!(get.headers()["x-elcache-hit"], "memory");
        assert!(body(get).await.unwrap() == value, "{size}");
        let head = client.send_request(request("HEAD", &node, &target, b"")).await.unwrap();
        assert_eq!(head.headers()["content-length"].to_str().unwrap(), size.to_string());
    }
    let miss = client.send_request(request("GET", &node, "/cache/none", b"")).await.unwrap();
    assert_eq!((miss.status().as_u16(), miss.headers()["x-elcache-hit"].to_str().unwrap()), (404, "miss"));
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let node = Node::start().await;
    let client = connect(&node).await;
    let value = pattern(3 * MIB);
    let tasks: Vec<_> = (0..30)
        .map(|number| {
            let mut client = client.clone();
            let (put, get) = (
                request("PUT", &node, &format!("/cache/{number}"), &value),
                request("GET", &node, &format!("/cache/{number}?range=1000000-1000000"), b""),
            );
            tokio::spawn(async move {
                assert_eq!(client.send_request(put).await.unwrap().status(), 201);
                body(client.send_request(get).await.unwrap()).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() == value[1_000_000..2_000_000]);
    }
}

#[tokio::test]
async fn a_value_that_goes_while_it_is_read_resets_the_stream_and_nothing_else() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    client.send_request(request("PUT", &node, "/cache/k", &pattern(9 * MIB))).await.unwrap();
    node.tier.unreadable_from.store(1, Ordering::Relaxed);
    let get = client.send_request(request("GET", &node, "/cache/k", b"")).await.unwrap();
    assert_eq!(get.status(), 200);
    assert!(body(get).await.is_err());
    assert_eq!(client.send_request(request("GET", &node, "/health", b"")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_slow_reader_does_not_hold_a_value_in_memory() {
    let node = Node::start().await;
    let value = pattern(4 * MIB);
    for (deleted, complete) in [(false, true), (true, false)] {
        let mut client = connect(&node).await;
        client.send_request(request("PUT", &node, "/cache/k", &value)).await.unwrap();
        let get = client.send_request(request("GET", &node, "/cache/k", b"")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3500)).await;
        if deleted {
            client.send_request(request("DELETE", &node, "/cache/k", b"")).await.unwrap();
        }
        assert_eq!(body(get).await.is_ok_and(|body| body == value), complete);
    }
}

#[tokio::test]
async fn limits_hold_here_too() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    let long = format!("/cache/{}", "%41".repeat(11_000));
    assert_eq!(client.send_request(request("GET", &node, &long, b"")).await.unwrap().status(), 414);
    let mut many = request("GET", &node, "/cache/k", b"");
    for number in 0..129 {
        many.headers_mut().append("x", number.into());
    }
    assert_eq!(client.send_request(many).await.unwrap().status(), 431);
    let mut large = request("PUT", &node, "/cache/k", b"");
    large.headers_mut().insert("x-elcache-ttl", 0.into());
    assert_eq!(client.send_request(large).await.unwrap().status(), 400);
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    let mut node = Node::start().await;
    let mut client = connect(&node).await;
    let value = pattern(20 * MIB);
    client.send_request(request("PUT", &node, "/cache/k", &value)).await.unwrap();
    let get = client.send_request(request("GET", &node, "/cache/k", b"")).await.unwrap();
    node.begin_stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(body(get).await.unwrap() == value);
    assert!(node.stop().await);
}
