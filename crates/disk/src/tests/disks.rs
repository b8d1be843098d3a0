//! Several directories, each on a simulated disk of its own: what belongs where, one that fails, one that comes back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::key::Key;
use elcache_core::payload::Buffers;
use elcache_core::tier::{ChunkRef, Lookup, Presence, Refusal, Tier};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::support::{Dice, RuntimeClock, Shape, Value, World, is_gone, key};
use crate::disks::{Access, DirectoryParts, Disks, DisksError, DisksParts};
use crate::io::sim::{Call, Faults, Sim};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What outlives a tier of several directories.
pub(super) struct Rack {
    pub(super) world: World,
    pub(super) sims: Vec<Arc<Sim>>,
    seed: u64,
    /// How fast may be written.
    rate: Option<u64>,
    clock: Arc<dyn Clock>,
}

impl Rack {
    pub(super) fn new(count: usize) -> Self {
        Self::of(World::new(), count, 1)
    }

    pub(super) fn of(world: World, count: usize, seed: u64) -> Self {
        let sims = (0..count as u64).map(|n| Arc::new(Sim::new(seed + n))).collect();
        Self { sims, seed, rate: None, clock: Arc::clone(&world.clock) as _, world }
    }

    pub(super) fn path(number: usize) -> PathBuf {
        PathBuf::from(format!("/disk{number}"))
    }

    pub(super) async fn try_open(&mut self) -> Result<Arc<Disks>, DisksError> {
        self.seed += 1;
        let mut dice = Dice::new(self.seed);
        let directory = |(number, sim): (usize, &Arc<Sim>)| DirectoryParts {
            config: self.world.config.clone(),
            device: Arc::clone(sim) as _,
            path: Self::path(number),
            access: Access::Alone,
        };
        Disks::open(DisksParts {
            directories: self.sims.iter().enumerate().map(directory).collect(),
            write_rate_max: self.rate,
            pool: Handle::current(),
            node_name: "node".to_owned(),
            budget: Budget::new(self.world.budget_bytes),
            buffers: Arc::clone(&self.world.arena) as Arc<dyn Buffers>,
            clock: Arc::clone(&self.clock),
            random: Box::new(move || dice.next()),
        })
        .await
    }

    pub(super) async fn open(&mut self) -> Arc<Disks> {
        let disks = self.try_open().await.unwrap();
        disks.recovered().await;
        disks
    }

    /// The process is killed.
    pub(super) fn kill(&mut self) {
        for sim in &mut self.sims {
            *sim = Arc::new(sim.kill(self.seed));
        }
    }

    /// The power goes.
    pub(super) fn power_cut(&mut self) {
        for sim in &mut self.sims {
            *sim = Arc::new(sim.power_cut(self.seed));
        }
    }

    async fn put(
        &self,
        disks: &Arc<Disks>,
        name: &str,
        sequence: u64,
        shape: Shape,
    ) -> Result<Value, Refusal> {
        let value = Value::new(&key(name), sequence, shape);
        value.put(disks, &self.world.arena).await.map(|()| value)
    }

    pub(super) async fn fill(&self, disks: &Arc<Disks>, count: u64, from: u64) -> Vec<Value> {
        let mut values = Vec::new();
        for n in 0..count {
            let shape = [Shape::Borrowed(100), Shape::Filled(40_000), Shape::Chunks(3, 500)][n as usize % 3];
            values.push(self.put(disks, &format!("key {n}"), from + n, shape).await.unwrap());
        }
        values
    }
}

/// Waits until it is so.
pub(super) async fn until(limit: Duration, what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < limit, "{what} not so after {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

pub(super) const SOON: Duration = Duration::from_secs(2);
pub(super) const LATER: Duration = Duration::from_secs(30);

pub(super) fn in_service(disks: &Disks) -> Vec<bool> {
    disks.directories().iter().map(|directory| directory.in_service).collect()
}

pub(super) fn troubles(disks: &Disks) -> String {
    disks.condition().troubles.join("; ")
}

/// How many of them are there whole; the others are missed, and none is wrong.
pub(super) async fn there(disks: &Arc<Disks>, values: &[Value]) -> usize {
    let mut there = 0;
    for value in values {
        match timeout(LATER, value.get(disks)).await.expect("an answer") {
            Ok(whole) => there += usize::from(whole),
            Err(why) => assert_eq!(why, "busy"),
        }
    }
    there
}

#[tokio::test(start_paused = true)]
async fn values_are_spread_and_found_again() {
    let mut rack = Rack::new(3);
    let disks = rack.open().await;
    let mut values = rack.fill(&disks, 600, 1).await;
    assert_eq!(there(&disks, &values).await, 600);
    let sizes: Vec<_> = disks.directories().iter().map(|directory| directory.size_bytes).collect();
    assert!(sizes.iter().all(|size| *size > 1 << 20), "{sizes:?}");
    assert_eq!(disks.usage().entries, 600);
    for value in values.drain(..100) {
        assert_eq!(disks.remove(&value.key).get().await, Ok(true));
        assert_eq!(disks.remove(&value.key).get().await, Ok(false));
        assert!(is_gone(&disks, &value.key).await);
    }
    for round in 0..3 {
        drop(disks.clone());
        rack.kill();
        let disks = rack.open().await;
        assert_eq!(there(&disks, &values).await, 500, "round {round}");
        assert!(is_gone(&disks, &key("key 0")).await);
        assert!(troubles(&disks).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_added_moves_nothing_and_fills_by_use() {
    let mut rack = Rack::new(2);
    let disks = rack.open().await;
    let before = rack.fill(&disks, 300, 1).await;
    drop(disks);
    rack.kill();
    rack.sims.push(Arc::new(Sim::new(99)));
    let disks = rack.open().await;
    assert_eq!(there(&disks, &before).await, 300, "nothing is lost");
    assert_eq!(disks.directories()[2].size_bytes, 0, "nothing has moved");
    let after = rack.fill(&disks, 300, 1000).await;
    assert_eq!(there(&disks, &after).await, 300);
    assert_eq!(disks.usage().entries, 300, "what was written anew is nowhere else any more");
    let third = disks.directories()[2].size_bytes;
    assert!(third > 1 << 20, "{third}");
    drop(disks);
    rack.kill();
    let disks = rack.open().await;
    assert_eq!(there(&disks, &after).await, 300);
}

#[tokio::test(start_paused = true)]
async fn the_others_serve_on_and_the_one_that_failed_comes_back_empty() {
    let mut rack = Rack::new(3);
    let disks = rack.open().await;
    let values = rack.fill(&disks, 300, 1).await;
    rack.sims[1].set_faults(Faults { broken: Some(EIO), ..Faults::default() });
    until(SOON, "", || troubles(&disks).contains("/disk1")).await;
    assert!(troubles(&disks).contains("out of service"), "{}", troubles(&disks));
    sleep(SOON).await;
    assert_eq!(in_service(&disks), [true, false, true]);
    // A third of the values is gone, and of those in chunks most have one there.
    let left = there(&disks, &values).await;
    assert!((130..200).contains(&left), "{left} of 300");
    let again = rack.fill(&disks, 300, 1000).await;
    assert_eq!(there(&disks, &again).await, 300, "everything can be written");
    rack.sims[1].set_faults(Faults::default());
    until(LATER, "", || in_service(&disks)[1]).await;
    assert!(troubles(&disks).is_empty(), "{}", troubles(&disks));
    assert_eq!(there(&disks, &again).await, 300);
    assert_eq!(disks.directories()[1].size_bytes, 0, "it is empty");
    let last = rack.fill(&disks, 300, 2000).await;
    assert_eq!(there(&disks, &last).await, 300);
    drop(disks);
    rack.kill();
    let disks = rack.open().await;
    assert_eq!(there(&disks, &last).await, 300);
    assert_eq!(in_service(&disks), [true; 3]);
}

/// A gate may shut between two looks of the keeper. The others went on without the directory before that had taken it out: nobody
/// looked at it any more, and it stayed out for ever.
#[tokio::test(start_paused = true)]
async fn one_that_is_left_before_it_was_seen_to_fail_comes_back() {
    let mut rack = Rack::new(3);
    let disks = rack.open().await;
    assert_eq!(disks.leave_unseen(1, "it failed just now").await, 2, "the others went on");
    until(SOON, "", || troubles(&disks).contains("it failed just now")).await;
    until(LATER, "", || in_service(&disks)[1]).await;
    assert!(troubles(&disks).is_empty(), "{}", troubles(&disks));
}

/// The directory that was left has an older version of everything. The node was killed before it could be emptied.
#[tokio::test(start_paused = true)]
async fn what_a_directory_has_missed_does_not_come_back_with_it() {
    let mut rack = Rack::new(3);
    let disks = rack.open().await;
    rack.fill(&disks, 120, 1).await;
    rack.sims[0].set_faults(Faults { broken: Some(EIO), ..Faults::default() });
    sleep(SOON).await;
    let new = rack.fill(&disks, 60, 1000).await;
    for n in 60..120 {
        let key = key(&format!("key {n}"));
        disks.remove(&key).get().await.unwrap();
    }
    drop(disks);
    rack.kill();
    let disks = rack.open().await;
    assert_eq!(there(&disks, &new).await, 60);
    for n in 60..120 {
        assert!(is_gone(&disks, &key(&format!("key {n}"))).await, "{n}");
    }
}

async fn presences(disks: &Arc<Disks>, chunks: &[ChunkRef]) -> Vec<Presence> {
    let found = timeout(LATER, disks.has_chunks(chunks).get()).await.expect("an answer");
    let found = found.hit().expect("it is known");
    for (chunk, presence) in chunks.iter().zip(&found) {
        assert_eq!(disks.has_chunk(chunk).get().await, *presence == Presence::Here);
    }
    found
}

/// A value of which nothing is left is removed: what is only out of reach must not look so. And what somebody remembers of a value has to be
/// looked at again whenever something may have gone.
#[tokio::test(start_paused = true)]
async fn chunks_of_a_directory_that_fails_are_out_of_reach_until_the_others_go_on_without_it() {
    for count in [1, 3] {
        let mut rack = Rack::new(count);
        let disks = rack.open().await;
        let mut staged = Vec::new();
        for n in 0..20 {
            let value = Value::new(&key("k"), n + 1, Shape::Chunks(3, 500));
            staged.extend(value.stage(&disks, &rack.world.arena).await.unwrap());
        }
        let chunks: Vec<_> = staged.iter().map(|staged| staged.chunk).collect();
        drop(staged);
        let absent = ChunkRef { digest: elcache_core::digest::Digest([9; 32]), number: 0, len: 1 };
        let shrunk = disks.shrunk();
        assert!(presences(&disks, &chunks).await.iter().all(|presence| *presence == Presence::Here));
        assert_eq!(presences(&disks, &[absent]).await, [Presence::Absent]);
        assert_eq!(disks.shrunk(), shrunk, "nothing has gone");
        rack.sims[0].set_faults(Faults { broken: Some(EIO), ..Faults::default() });
        until(SOON, "", || !in_service(&disks)[0] && disks.shrunk() > shrunk).await;
        // The others go on as soon as they know.
        sleep(SOON).await;
        let later = presences(&disks, &chunks).await;
        assert_eq!(later.contains(&Presence::OutOfReach), count == 1, "{later:?}");
        assert_eq!(later.contains(&Presence::Absent), count == 3, "{later:?}");
        let shrunk = disks.shrunk();
        rack.sims[0].set_faults(Faults::default());
        until(LATER, "", || in_service(&disks)[0]).await;
        let back = presences(&disks, &chunks).await;
        assert_eq!(back.contains(&Presence::Absent), count == 3, "{back:?}");
        assert!(!back.contains(&Presence::OutOfReach) && disks.shrunk() > shrunk, "{back:?}");
    }
}

/// How a directory fails: what is done to its disk, and what is said of it.
const FAULTS: [(&str, Faults, &str); 3] = [
    ("broken", Faults { broken: Some(EIO), ..Faults::NONE }, "out of service"),
    ("read-only", Faults { read_only: true, ..Faults::NONE }, "ead-only"),
    ("hung", Faults { hangs: true, ..Faults::NONE }, "it does not answer"),
];

/// Clients that write and read while a directory fails. Nobody waits for ever, reads are right, and it is said within two seconds.
#[tokio::test(start_paused = true)]
async fn whatever_fails_is_told_at_once_and_holds_nobody_up() {
    for count in [1, 2, 3] {
        for (what, faults, says) in FAULTS {
            let mut rack = Rack::new(count);
            let disks = rack.open().await;
            let values = rack.fill(&disks, 60, 1).await;
            rack.sims[0].set_faults(faults);
            let began = Instant::now();
            let mut clients = tokio::task::JoinSet::new();
            for client in 0..8_u64 {
                let (disks, arena) = (Arc::clone(&disks), Arc::clone(&rack.world.arena));
                let values = values.clone();
                clients.spawn(async move {
                    for n in 0..30 {
                        let key = key(&format!("client {client} {}", n % 5));
                        let value = Value::new(&key, 10_000 + client * 100 + n, Shape::Filled(20_000));
                        let waited = Instant::now();
                        if value.put(&disks, &arena).await.is_ok() {
                            let got = value.get(&disks).await;
                            assert!(got.as_ref().err().is_none_or(|why| why == "busy"), "{got:?}");
                        }
                        let _ = values[n as usize].get(&disks).await.unwrap_or(false);
                        assert!(waited.elapsed() < Duration::from_secs(25), "{:?}", waited.elapsed());
                        sleep(Duration::from_millis(100)).await;
                    }
                });
            }
            until(SOON, what, || troubles(&disks).contains(says)).await;
            clients.join_all().await;
            until(Duration::from_secs(15), what, || !in_service(&disks)[0]).await;
            assert!(began.elapsed() < Duration::from_secs(120));
            let errors = disks.directories()[0].errors;
            assert!(errors > 0 || what != "broken", "{what}: errors are counted");
            rack.sims[0].set_faults(Faults::default());
            until(LATER, what, || in_service(&disks)[0]).await;
            disks.recovered().await;
            assert!(troubles(&disks).is_empty(), "{what}: {}", troubles(&disks));
            let later = rack.fill(&disks, 60, 20_000).await;
            assert_eq!(there(&disks, &later).await, 60, "{what} of {count}");
            if count == 1 {
                drop(disks);
                rack.kill();
                assert_eq!(there(&rack.open().await, &later).await, 60);
            }
        }
    }
}

/// Reads went on, and much was under way: the disk passed for a slow one that has much to do, for as many seconds as there were
/// tens of megabytes, and nobody was told.
#[tokio::test(start_paused = true)]
async fn writes_that_do_not_end_are_told_while_reads_go_on() {
    let mut rack = Rack::of(World::with(|config| config.segment_bytes = Some(256 << 20)), 2, 1);
    let disks = rack.open().await;
    let values = rack.fill(&disks, 60, 1).await;
    rack.sims[0].set_faults(Faults { writes_hang: true, ..Faults::NONE });
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (disks, arena) = (Arc::clone(&disks), Arc::clone(&rack.world.arena));
        writers.spawn(async move {
            let began = Instant::now();
            let value = Value::new(&key(&format!("large {n}")), 1000 + n, Shape::Filled(500_000));
            _ = value.put(&disks, &arena).await;
            began.elapsed()
        });
    }
    let reader = {
        let disks = Arc::clone(&disks);
        tokio::spawn(async move {
            loop {
                there(&disks, &values).await;
                sleep(Duration::from_millis(100)).await;
            }
        })
    };
    until(SOON, "", || troubles(&disks).contains("/disk0: it does not answer")).await;
    until(Duration::from_secs(10), "", || !in_service(&disks)[0]).await;
    let longest = writers.join_all().await.into_iter().max().unwrap();
    assert!(longest < Duration::from_secs(12), "{longest:?}");
    reader.abort();
    rack.sims[0].set_faults(Faults::NONE);
    until(LATER, "", || in_service(&disks)[0] && troubles(&disks).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_only_directory_keeps_what_it_has_and_refuses_what_would_make_it_untrue() {
    let mut rack = Rack::new(1);
    let disks = rack.open().await;
    let values = rack.fill(&disks, 30, 1).await;
    rack.sims[0].fail(Call::Write, 0, EIO);
    // A write that fails: whether it is there nobody knows.
    assert!(rack.put(&disks, "unknown", 100, Shape::Borrowed(10)).await.is_err());
    rack.sims[0].set_faults(Faults { broken: Some(EIO), ..Faults::default() });
    until(SOON, "", || !disks.takes_values()).await;
    for name in ["key 3", "unknown"] {
        let key = key(name);
        assert!(matches!(disks.root(&key).get().await, Lookup::Busy), "{name}");
        assert_eq!(disks.remove(&key).get().await, Err(Refusal::Failed), "{name}");
        assert_eq!(rack.put(&disks, name, 200, Shape::Borrowed(10)).await.err(), Some(Refusal::Failed));
    }
    let other = key("other");
    assert!(is_gone(&disks, &other).await, "of others it is known that they are not there");
    assert_eq!(disks.remove(&other).get().await, Ok(false));
    assert!(disks.ready().get().await.is_ok());
    assert!(!disks.lacks(elcache_core::tier::Leaving::Value(b"other")));
    assert_eq!(disks.largest_admission(), 0);
    assert!(disks.admit(1 << 20).get().await.is_err());
    rack.sims[0].set_faults(Faults::default());
    until(LATER, "", || disks.takes_values()).await;
    disks.recovered().await;
    assert_eq!(there(&disks, &values).await, 30, "it is as it was");
    assert!(disks.largest_admission() > 0 && disks.admit(1 << 20).get().await.is_ok());
    rack.put(&disks, "unknown", 300, Shape::Borrowed(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stays_in_service() {
    let mut rack = Rack::new(2);
    let disks = rack.open().await;
    rack.fill(&disks, 30, 1).await;
    rack.sims[0].fail(Call::Write, 0, ENOSPC);
    rack.sims[1].fail(Call::Write, 0, ENOSPC);
    let mut refused = 0;
    for n in 0..10 {
        let put = rack.put(&disks, &format!("key {n}"), 100 + n, Shape::Borrowed(10)).await;
        refused += u32::from(put.is_err());
    }
    assert_eq!(refused, 2);
    sleep(SOON).await;
    assert_eq!(in_service(&disks), [true, true]);
    assert!(troubles(&disks).is_empty());
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_now_and_then_are_misses() {
    let mut rack = Rack::new(1);
    let disks = rack.open().await;
    let values = rack.fill(&disks, 9, 1).await;
    for _ in 0..5 {
        for nth in 0..7 {
            rack.sims[0].fail(Call::Read, nth, EIO);
        }
        there(&disks, &values).await;
        there(&disks, &values).await;
    }
    assert!(troubles(&disks).is_empty() && disks.directories()[0].errors == 35);
    for nth in 0..8 {
        rack.sims[0].fail(Call::Read, nth, EIO);
    }
    there(&disks, &values).await;
    until(SOON, "", || troubles(&disks).contains("reads fail")).await;
    until(LATER, "", || troubles(&disks).is_empty()).await;
    assert_eq!(there(&disks, &values).await, 9);
}

#[tokio::test(start_paused = true)]
async fn a_node_starts_without_a_directory_and_takes_it_in_when_it_is_there() {
    let mut rack = Rack::new(3);
    let disks = rack.open().await;
    rack.fill(&disks, 90, 1).await;
    drop(disks);
    rack.kill();
    rack.sims[2].set_faults(Faults { broken: Some(EIO), ..Faults::NONE });
    let disks = rack.open().await;
    assert_eq!(in_service(&disks), [true, true, false]);
    assert!(troubles(&disks).contains("/disk2: out of service: it cannot be read"));
    let values = rack.fill(&disks, 90, 1000).await;
    rack.sims[2].set_faults(Faults::NONE);
    until(LATER, "", || in_service(&disks)[2]).await;
    assert_eq!(there(&disks, &values).await, 90);
    assert_eq!(disks.directories()[2].size_bytes, 0);
    drop(disks);
    rack.kill();
    rack.sims.iter().for_each(|sim| sim.set_faults(Faults { broken: Some(EIO), ..Faults::NONE }));
    assert!(rack.try_open().await.is_err(), "none can be used");
    rack.sims[2].set_faults(Faults::NONE);
    let disks = rack.open().await;
    assert!(is_gone(&disks, &values[0].key).await, "one of three knows nothing of the others");
}

#[tokio::test(start_paused = true)]
async fn directories_of_another_node_and_copies_are_refused() {
    let mut rack = Rack::new(2);
    drop(rack.open().await);
    let mut other = Rack::of(World::new(), 2, 77);
    drop(other.open().await);
    rack.kill();
    other.kill();
    let own = Arc::clone(&rack.sims[1]);
    rack.sims[1] = Arc::new(other.sims[1].kill(1));
    let refused = rack.try_open().await.err().unwrap();
    assert!(refused.to_string().contains("another node than /disk0"), "{refused}");
    assert!(!refused.to_string().contains('\n'));
    rack.sims[1] = own;
    assert_eq!(rack.open().await.directories().len(), 2);
}

/// A name with a value in a directory to which it does not belong, and a disk that fails when the value is replaced.
#[tokio::test(start_paused = true)]
async fn of_no_key_there_are_ever_two_values() {
    for nth in 0..4 {
        let mut rack = Rack::new(1);
        let disks = rack.open().await;
        let old = rack.fill(&disks, 40, 1).await;
        drop(disks);
        rack.kill();
        rack.sims.push(Arc::new(Sim::new(5)));
        let disks = rack.open().await;
        rack.sims[0].fail(Call::Write, nth, EIO);
        rack.sims[1].fail(Call::Write, nth + 2, EIO);
        let mut known: Vec<(Key, Vec<u64>)> = Vec::new();
        for (n, old) in old.iter().enumerate() {
            let sequence = 1000 + n as u64;
            let put = rack.put(&disks, &format!("key {n}"), sequence, Shape::Borrowed(50)).await;
            let mut may_be = vec![sequence];
            if put.is_err() {
                may_be.push(old.meta.version.sequence);
            }
            known.push((old.key.clone(), may_be));
        }
        drop(disks);
        rack.kill();
        let disks = rack.open().await;
        for (key, may_be) in known {
            if let Lookup::Hit(root) = disks.root(&key).get().await {
                let sequence = root.meta.version.sequence;
                assert!(may_be.contains(&sequence), "{key:?} is {sequence} instead of {may_be:?}");
            }
        }
    }
}

/// What is written counts in whichever directory; deletions and reads do not wait for it.
#[tokio::test(start_paused = true)]
async fn all_directories_together_are_written_to_no_faster_than_they_may() {
    let mut rack = Rack { rate: Some(1 << 20), clock: RuntimeClock::new(), ..Rack::new(3) };
    let disks = rack.open().await;
    let began = Instant::now();
    let values = rack.fill(&disks, 120, 1).await;
    let written = disks.usage().device.unwrap().written_bytes;
    let earned = Duration::from_secs_f64(written as f64 / f64::from(1 << 20));
    let took = began.elapsed();
    // A second's worth goes at once, and what one write comes to after that.
    assert!(took + Duration::from_secs(2) > earned, "{written} bytes in {took:?}");
    assert!(took < earned + Duration::from_secs(2), "{written} bytes in {took:?}");
    let large = Shape::Chunks(30, 1000);
    let value = Value::new(&key("large"), 1000, large);
    let began = Instant::now();
    value.put(&disks, &rack.world.arena).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(500) && disks.is_overused());
    let began = Instant::now();
    assert!(disks.remove(&values[0].key).get().await.unwrap());
    assert!(values[1].get(&disks).await.unwrap());
    assert!(began.elapsed() < Duration::from_millis(100) && disks.is_overused(), "{:?}", began.elapsed());
    assert!(value.get(&disks).await.unwrap());
}
