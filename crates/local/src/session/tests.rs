//! A session whose client never rests.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "nothing here comes from outside"
)]

use std::future::Future;
use std::io::IoSlice;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use elcache_core::budget::Budget;
use elcache_core::clock::SystemClock;
use elcache_engine::{Engine, EngineConfig};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_metrics::Metrics;
use elcache_protocol::request::Put;
use elcache_protocol::{Request, flow};
use parking_lot::Mutex;

use super::*;

/// Gives its frames, and then the last of them for ever; keeps what it is given.
struct Endless {
    frames: Vec<u8>,
    last: usize,
    at: usize,
    /// Since somebody else had his turn.
    reads: Arc<AtomicUsize>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Pipe for Endless {
    fn poll_read(&mut self, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        assert!(self.reads.fetch_add(1, Ordering::Relaxed) < 1000, "the session goes on and on");
        for byte in into.iter_mut() {
            *byte = self.frames[self.at];
            self.at += 1;
            if self.at == self.frames.len() {
                self.at = self.last;
            }
        }
        Poll::Ready(Ok(into.len()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        slices.iter().for_each(|slice| self.written.lock().extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

fn local() -> Arc<Local> {
    let budget = Budget::new(64 << 20);
    let clock = Arc::new(SystemClock);
    let memory = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 1).unwrap();
    let metrics = Metrics::new();
    let engine = Engine::new(
        EngineConfig::default(),
        vec![memory.clone()],
        memory,
        clock,
        budget,
        Arc::clone(&metrics),
    );
    let config = LocalConfig { body_stall_timeout: Duration::from_millis(20), ..LocalConfig::default() };
    Local::new(engine, metrics, config, Arc::default(), "test".to_owned())
}

/// A client over rings that is as quick as its node once had a thread of it for itself, and was never told that its time was over.
#[tokio::test]
async fn a_client_that_never_rests_lets_others_have_their_turn_and_has_its_time_outs() {
    let mut frames = Vec::new();
    Request::Ping.encode(&mut frames, 1, false, 0);
    Request::Put(Put::new(b"key", Some(7))).encode(&mut frames, 2, false, 0);
    let last = frames.len();
    flow::encode_cancel(&mut frames, 1);
    let (local, activity) = (local(), Activity::default());
    let (reads, written) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let pipe = Endless { frames, last, at: 0, reads: Arc::clone(&reads), written: Arc::clone(&written) };
    let mut session = Session::new(&local, pipe, &activity);
    (session.greeted, session.rest_due) = (true, None);
    let mut served = pin!(serve(session));
    let mut cx = Context::from_waker(Waker::noop());
    let begun = Instant::now();
    while answers(&written.lock()).len() < 2 {
        reads.store(0, Ordering::Relaxed);
        assert!(served.as_mut().poll(&mut cx).is_pending());
        assert!(begun.elapsed() < Duration::from_secs(20), "the write is not given up");
        tokio::task::yield_now().await;
    }
    assert_eq!(answers(&written.lock()), [(1, Status::Ok), (2, Status::Timeout)]);
}

/// The ids of replies, and what they say.
fn answers(mut written: &[u8]) -> Vec<(u64, Status)> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = written.split_first_chunk() {
        let header = Header::decode(head).unwrap();
        let (fields, rest) = rest.split_at(header.fields_len as usize);
        if header.kind == Kind::REPLY {
            answers.push((header.id, Reply::parse(fields).unwrap().status));
        }
        written = rest;
    }
    answers
}
