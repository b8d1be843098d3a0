//! Both sides of a ring under every order of events that the memory model allows.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::{Cell, Memory, Ring, about_to_wait, has_to_be_woken};

const CAPACITY: usize = 1;

/// A session with one ring, and a bell for each side.
struct Model {
    cells: [AtomicU64; 6],
    /// A byte that is read before it was handed over may be any of those that were ever there.
    ring: [AtomicU8; CAPACITY],
    client: Bell,
    server: Bell,
}

/// What the socket is: whoever reads from it waits until something was sent.
struct Bell {
    rings: Mutex<usize>,
    news: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self { rings: Mutex::new(0), news: Condvar::new() }
    }

    fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.news.notify_one();
    }

    fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.news.wait(rings).unwrap();
        }
        *rings = 0;
    }
}

impl Model {
    fn new() -> Self {
        Self {
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            ring: std::array::from_fn(|_| AtomicU8::new(0)),
            client: Bell::new(),
            server: Bell::new(),
        }
    }
}

impl Memory for Model {
    fn count(&self, cell: Cell) -> u64 {
        self.cells[cell as usize].load(Ordering::Acquire)
    }

    fn publish(&self, cell: Cell, count: u64) {
        self.cells[cell as usize].store(count, Ordering::Release);
    }

    fn raise(&self, flag: Cell) {
        self.cells[flag as usize].store(1, Ordering::Relaxed);
    }

    fn lower(&self, flag: Cell) -> bool {
        let flag = &self.cells[flag as usize];
        flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::AcqRel) != 0
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn copy_out(&self, _: Cell, at: usize, into: &mut [u8]) {
        for (target, cell) in into.iter_mut().zip(&self.ring[at..]) {
            *target = cell.load(Ordering::Relaxed);
        }
    }

    fn copy_in(&self, _: Cell, at: usize, from: &[u8]) {
        for (source, cell) in from.iter().zip(&self.ring[at..]) {
            cell.store(*source, Ordering::Relaxed);
        }
    }
}

/// Bytes go from the client to the server, more than fit at once. Nobody sleeps for ever, and they arrive as they were.
#[test]
fn every_byte_arrives_and_nobody_sleeps_for_ever() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let client = Arc::clone(&model);
        let sender = thread::spawn(move || {
            let mut ring = Ring::requests(CAPACITY as u64);
            let bytes = [1, 2];
            let mut sent = 0;
            while sent < bytes.len() {
                let mut count = ring.write(&*client, &bytes[sent..]).unwrap();
                if count == 0 {
                    about_to_wait(&*client, Cell::ClientWaits);
                    count = ring.write(&*client, &bytes[sent..]).unwrap();
                    if count == 0 {
                        client.client.wait();
                        continue;
                    }
                }
                sent += count;
                if has_to_be_woken(&*client, Cell::ServerWaits) {
                    client.server.ring();
                }
            }
        });
        let mut ring = Ring::requests(CAPACITY as u64);
        let mut got = Vec::new();
        while got.len() < 2 {
            let mut into = [0; 2];
            let mut count = ring.read(&*model, &mut into).unwrap();
            if count == 0 {
                about_to_wait(&*model, Cell::ServerWaits);
                count = ring.read(&*model, &mut into).unwrap();
                if count == 0 {
                    model.server.wait();
                    continue;
                }
            }
            got.extend_from_slice(&into[..count]);
            if has_to_be_woken(&*model, Cell::ClientWaits) {
                model.client.ring();
            }
        }
        assert_eq!(got, [1, 2]);
        sender.join().unwrap();
    });
}
