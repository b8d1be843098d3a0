//! A shard: its look-up table, its records, its policy. Readers use the first two without a lock; whoever changes
//! anything holds the shard's lock, for as long as a change of a few entries takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use elcache_arena::{NewRecord, OwnedRef, Pool, Record, Records, Retired};
use elcache_core::shared::Watched;
use elcache_core::tier::Owner;
use parking_lot::{Mutex, MutexGuard};

use crate::hits::Hits;
use crate::layout::{self, Kind};
use crate::policy::{Admission, Policy};
use crate::table::{Entry, Table, Writer};

/// What an entry weighs beyond its record: its share of the table, its cell, its place in the policy's lists.
pub(crate) const ENTRY_OVERHEAD: u64 = 38;
/// Pinned victims that an eviction passes over before it takes the next one all the same.
const MAX_ROTATIONS: usize = 64;

/// Of its capacity, what has been used once keeps this part when eviction runs ahead of need.
const SPARED: u64 = 64;

/// What a record is found by. A value and a root are found by the same name, since both are what a key stands for.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    kind: Kind,
    bytes: &'a [u8],
    pub(crate) hash: u64,
}

impl<'a> Name<'a> {
    /// The hash is seeded, so that nobody can aim at one bucket from outside.
    pub(crate) fn new(seed: u64, kind: Kind, bytes: &'a [u8]) -> Self {
        let kind = if kind == Kind::Root { Kind::Value } else { kind };
        Self { kind, bytes, hash: xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed ^ kind as u64) }
    }
}

/// One part of the tier. Names are spread over the shards by their hash.
pub(crate) struct Shard {
    table: Table,
    records: Arc<Records>,
    hits: Hits,
    /// Copies of what only the lock's holder can compute, for everybody.
    weight: AtomicU64,
    values: AtomicU64,
    index_bytes: AtomicU64,
    ghost_bytes: AtomicU64,
    /// How many values with an expiry have ever been put here.
    expiring_puts: AtomicU64,
    state: Mutex<State>,
    /// The most entries.
    most: u32,
    seed: u64,
}

/// How far the search for expired values has come in one shard.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sweep {
    next: u32,
    /// Values with an expiry seen since number 0.
    seen: u64,
    /// `expiring_puts` when the search began at number 0, and the same of the last search that saw none.
    began_at: u64,
    none_at: u64,
}

struct State {
    policy: Policy,
    writer: Writer,
    /// For which values a chunk is kept, by the number of its record.
    owners: HashMap<u32, Vec<Owner>>,
}

/// An entry that has left, and for which values it was kept.
pub(crate) struct Gone {
    pub(crate) kind: Kind,
    pub(crate) owners: Vec<Owner>,
    /// The entry itself, where a slower tier wants it.
    pub(crate) kept: Option<OwnedRef>,
}

impl Shard {
    pub(crate) fn new(pool: &Arc<Pool>, most: u32, capacity: u64, seed: u64) -> Self {
        let state =
            State { policy: Policy::new(capacity), writer: Writer::default(), owners: HashMap::new() };
        Self {
            table: Table::new(most),
            records: Records::new(pool, most),
            hits: Hits::new(),
            weight: AtomicU64::new(0),
            values: AtomicU64::new(0),
            index_bytes: AtomicU64::new(0),
            ghost_bytes: AtomicU64::new(0),
            expiring_puts: AtomicU64::new(0),
            state: Mutex::new(state),
            most,
            seed,
        }
    }

    /// The record of this name. Takes no lock.
    pub(crate) fn find(&self, name: Name<'_>) -> Option<Record<'_>> {
        self.table.find(name.hash, |Entry { number, hint }| {
            self.records
                .get_hinted(number, hint)
                .filter(|record| layout::is_named(record.content(), name.kind, name.bytes))
        })
    }

    /// As [`Shard::find`], and counts it as a use.
    pub(crate) fn hit(&self, name: Name<'_>) -> Option<Record<'_>> {
        let record = self.find(name)?;
        self.used(record.number());
        Some(record)
    }

    /// Counts a use of the record of this number, if there is one.
    pub(crate) fn note_use(&self, number: u32) {
        if number < self.records.highest() {
            self.used(number);
        }
    }

    fn used(&self, number: u32) {
        if self.hits.note(number)
            && let Some(mut state) = self.state.try_lock()
        {
            self.learn(&mut state);
        }
    }

    /// What changes before the record of this number loses its name; `None` when it has none.
    pub(crate) fn watch(&self, number: u32) -> Option<Watched> {
        self.records.watch(number)
    }

    /// A reference that outlives the borrow.
    pub(crate) fn own(&self, record: Record<'_>) -> OwnedRef {
        record.into_owned(&self.records)
    }

    /// Asks the policy about a name that is about to be inserted. The answer goes with the evictions that make room
    /// for it, and with [`Shard::put`].
    pub(crate) fn admit(&self, name: Name<'_>, weight: u64) -> Admission {
        let mut state = self.lock();
        match self.find(name) {
            // It is here and will be replaced: a use like any other.
            Some(_) => Admission::Recent,
            None => state.policy.admit(name.hash, clamp(weight)),
        }
    }

    /// Puts a record under its name, at once for all readers. `owner` is the value that a chunk is kept for.
    ///
    /// # Errors
    /// The record comes back when the shard has no number for it.
    pub(crate) fn put(
        &self,
        name: Name<'_>,
        record: NewRecord,
        admission: Admission,
        owner: Option<Owner>,
    ) -> Result<(), NewRecord> {
        let mut state = self.lock();
        let weight = record.footprint() as u64 + ENTRY_OVERHEAD;
        let old = self.find(name).map(|record| record.number());
        if old.is_none() && state.writer.entries() >= self.most as usize {
            return Err(record);
        }
        let hint = record.hint();
        let number = self.records.insert(record)?;
        let State { policy, writer, owners } = &mut *state;
        match old {
            Some(old) => {
                let leaving = self.records.leave(old);
                self.table.replace(writer, name.hash, old, Entry { number, hint });
                policy.remove(old);
                if let Some(owners_before) = owners.remove(&old) {
                    owners.insert(number, owners_before);
                }
                self.records.release(leaving);
            }
            None => self.enter(writer, name, Entry { number, hint }),
        }
        policy.insert(number, clamp(weight), admission);
        if self.records.get(number).is_some_and(|record| layout::expires_ms(record.content()).is_some()) {
            self.expiring_puts.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(owner) = owner {
            owners.entry(number).or_default().push(owner);
        }
        Ok(())
    }

    /// Keeps a record that nobody finds, as long as the reference lives.
    ///
    /// # Errors
    /// The record comes back when the shard has no number for it.
    pub(crate) fn hold(&self, record: NewRecord) -> Result<OwnedRef, NewRecord> {
        self.records.hold(record)
    }

    /// Puts a chunk that is held under its name, for a value; false when the chunk is here already, or the shard has as many
    /// entries as it may.
    pub(crate) fn put_held(
        &self,
        name: Name<'_>,
        held: &OwnedRef,
        admission: Admission,
        owner: Owner,
    ) -> bool {
        let mut state = self.lock();
        if self.find(name).is_some() || state.writer.entries() >= self.most as usize {
            return false;
        }
        let State { policy, writer, owners } = &mut *state;
        let number = self.records.name(held);
        self.enter(writer, name, Entry { number, hint: held.hint() });
        policy.insert(number, clamp(held.footprint() as u64 + ENTRY_OVERHEAD), admission);
        owners.entry(number).or_default().push(owner);
        true
    }

    /// Notes that a chunk is kept for a value, which it may be already: false. `None` when it is not here.
    pub(crate) fn add_owner(&self, name: Name<'_>, owner: Owner) -> Option<bool> {
        let mut state = self.lock();
        let number = self.find(name)?.number();
        let owners = state.owners.entry(number).or_default();
        let is_new = !owners.contains(&owner);
        if is_new {
            owners.push(owner);
        }
        state.policy.hit(number);
        Some(is_new)
    }

    /// Notes that a chunk is kept for one value less, and drops it when that was the last: whether it did.
    pub(crate) fn drop_owner(&self, name: Name<'_>, owner: Owner) -> bool {
        let mut state = self.lock();
        let Some(number) = self.find(name).map(|record| record.number()) else { return false };
        let Some(owners) = state.owners.get_mut(&number) else { return false };
        owners.retain(|other| *other != owner);
        let was_last = owners.is_empty();
        if was_last {
            self.take_out(&mut state, name.kind, name.hash, number);
        }
        was_last
    }

    /// Removes a name, on condition that `wanted` agrees to the record's content; false when nothing was removed.
    pub(crate) fn remove(&self, name: Name<'_>, wanted: impl FnOnce(&[u8]) -> bool) -> bool {
        let mut state = self.lock();
        let Some(record) = self.find(name).filter(|record| wanted(record.content())) else { return false };
        let number = record.number();
        drop(record);
        self.take_out(&mut state, name.kind, name.hash, number);
        true
    }

    /// Evicts whom the policy names, passing over what `pinned` says must stay; a slower tier gets what is `wanted`, which is told whether it was asked for. `miss` is what the ghosts said of the
    /// value that it makes room for, when that goes to this shard. `None` when nothing is left.
    pub(crate) fn evict(
        &self,
        miss: Option<Admission>,
        pinned: impl Fn(Kind, &[u8]) -> bool,
        mut wanted: impl FnMut(&[u8], &dyn Fn() -> bool) -> bool,
    ) -> Option<Gone> {
        let mut state = self.lock();
        for rotations in 0.. {
            let policy = &state.policy;
            let number = match miss {
                Some(admission) => policy.victim(admission),
                None => policy.victim_ahead_of_need(policy.capacity() / SPARED),
            }?;
            let Some(record) = self.records.get(number) else {
                state.policy.remove(number);
                continue;
            };
            let (kind, bytes) = layout::name_of(record.content())?;
            if rotations < MAX_ROTATIONS && pinned(kind, record.content()) {
                state.policy.rotate(number);
                continue;
            }
            let hash = Name::new(self.seed, kind, bytes).hash;
            // What is kept for a value of this tier alone, or off the disk, goes for good.
            let ours = layout::is_no_disk(record.content()) || state.owners.contains_key(&number);
            let asked_for = || state.policy.is_frequent(number);
            let wants = !ours && wanted(record.content(), &asked_for);
            let kept = if wants { Some(self.own(record)) } else { None };
            state.policy.evict(number, hash);
            let gone = self.take_out(&mut state, kind, hash, number);
            return Some(Gone { kept, ..gone });
        }
        None
    }

    /// Removes values whose time is over among the next `count` records, and says how many. A shard that was searched and
    /// found to hold no value with an expiry is left alone until one comes.
    pub(crate) fn sweep(&self, sweep: &mut Sweep, count: u32, now_ms: u64) -> u64 {
        let puts = self.expiring_puts.load(Ordering::Relaxed);
        if sweep.next == 0 {
            if puts == sweep.none_at {
                return 0;
            }
            (sweep.seen, sweep.began_at) = (0, puts);
        }
        let end = sweep.next.saturating_add(count);
        let mut removed = 0;
        for record in (sweep.next..end).filter_map(|number| self.records.get(number)) {
            let Some((kind @ (Kind::Value | Kind::Root), bytes)) = layout::name_of(record.content()) else {
                continue;
            };
            let Some(expires_ms) = layout::expires_ms(record.content()) else { continue };
            sweep.seen += 1;
            if expires_ms <= now_ms {
                let over = |content: &[u8]| layout::expires_ms(content).is_some_and(|at| at <= now_ms);
                removed += u64::from(self.remove(Name::new(self.seed, kind, bytes), over));
            }
        }
        sweep.next = if end < self.records.highest() { end } else { 0 };
        if sweep.next == 0 && sweep.seen == 0 {
            sweep.none_at = sweep.began_at;
        }
        removed
    }

    /// Roots of larger values that have been replaced, deleted or evicted and that nobody reads any more.
    pub(crate) fn take_retired(&self, most: usize) -> Vec<Retired> {
        self.records.take_retired(most)
    }

    /// Whether there are such roots.
    pub(crate) fn has_retired(&self) -> bool {
        self.records.retired() > 0
    }

    /// Tells the policy its capacity.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        let mut state = self.lock();
        if state.policy.capacity() != capacity {
            state.policy.set_capacity(capacity);
        }
    }

    /// What all entries weigh.
    pub(crate) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    /// How many values there are.
    pub(crate) fn values(&self) -> u64 {
        self.values.load(Ordering::Relaxed)
    }

    /// Heap bytes for entries.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.index_bytes.load(Ordering::Relaxed)
    }

    /// Heap bytes for what has been evicted and is remembered.
    pub(crate) fn ghost_bytes(&self) -> u64 {
        self.ghost_bytes.load(Ordering::Relaxed)
    }

    /// Takes an entry out of the table and the policy, and its name from the record.
    fn take_out(&self, state: &mut State, kind: Kind, hash: u64, number: u32) -> Gone {
        let leaving = self.records.leave(number);
        self.table.remove(&mut state.writer, hash, number);
        state.policy.remove(number);
        self.count(kind, -1);
        self.records.release(leaving);
        Gone { kind, owners: state.owners.remove(&number).unwrap_or_default(), kept: None }
    }

    /// Puts an entry under a name that is not in the table.
    fn enter(&self, writer: &mut Writer, name: Name<'_>, entry: Entry) {
        let inserted = self.table.insert(writer, name.hash, entry, |number| self.hash_of(number));
        debug_assert!(inserted, "the table has room for as many entries as there are numbers");
        self.count(name.kind, 1);
    }

    fn count(&self, kind: Kind, by: i64) {
        if matches!(kind, Kind::Value | Kind::Root) {
            self.values.fetch_add(by as u64, Ordering::Relaxed);
        }
    }

    fn hash_of(&self, number: u32) -> Option<u64> {
        let record = self.records.get(number)?;
        let (kind, bytes) = layout::name_of(record.content())?;
        Some(Name::new(self.seed, kind, bytes).hash)
    }

    fn learn(&self, state: &mut State) {
        self.hits.drain(|numbers| state.policy.hit_all(numbers));
    }

    /// Takes the lock and tells the policy what has been hit, so that it decides on what is known.
    fn lock(&self) -> Locked<'_> {
        let mut state = self.state.lock();
        self.learn(&mut state);
        Locked { shard: self, state }
    }

    /// Holds the lock, for a test that shows that hits do without it.
    #[cfg(test)]
    pub(crate) fn lock_for_test(&self) -> impl Drop + '_ {
        self.lock()
    }
}

/// The lock of a shard. What others read without it is brought up to date when it is let go.
struct Locked<'a> {
    shard: &'a Shard,
    state: MutexGuard<'a, State>,
}

impl std::ops::Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let policy = &self.state.policy;
        let index =
            self.shard.table.bytes() + self.shard.records.overhead_bytes() + policy.resident_bytes() as u64;
        self.shard.weight.store(policy.resident_weight(), Ordering::Relaxed);
        self.shard.index_bytes.store(index, Ordering::Relaxed);
        self.shard.ghost_bytes.store(policy.ghost_bytes() as u64, Ordering::Relaxed);
    }
}

/// Weights of the policy are 30 bits; a record of one chunk is far below.
fn clamp(weight: u64) -> u32 {
    weight.min(u64::from(crate::policy::MAX_WEIGHT)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{RecvTimeoutError, sync_channel};
    use std::thread;
    use std::time::Duration;

    const SEED: u64 = 1;
    const RECORDS: u8 = 100;

    fn key(number: u8) -> [u8; 3] {
        [b'k', b'-', number]
    }

    fn put(pool: &Arc<Pool>, shard: &Shard, number: u8) {
        let key = key(number);
        let head = layout::encode_plain(Kind::Value, &key);
        let record = NewRecord::new(pool, &[&head, &[number]], None, false).ok().unwrap();
        let name = Name::new(SEED, Kind::Value, &key);
        let admission = shard.admit(name, 100);
        assert!(shard.put(name, record, admission, None).is_ok());
    }

    /// What is under a key, read as a hit.
    fn hit(shard: &Shard, number: u8) -> Option<u8> {
        let record = shard.hit(Name::new(SEED, Kind::Value, &key(number)))?;
        record.content().last().copied()
    }

    #[test]
    fn hits_complete_while_the_lock_is_held_and_insertions_wait() {
        let pool = Pool::new(8 << 20).unwrap();
        let shard = Shard::new(&pool, 1024, 1 << 20, SEED);
        (0..RECORDS).for_each(|number| put(&pool, &shard, number));
        let inserted = AtomicBool::new(false);
        thread::scope(|scope| {
            let lock = shard.lock_for_test();
            let insertion = scope.spawn(|| {
                put(&pool, &shard, RECORDS);
                inserted.store(true, Ordering::SeqCst);
            });
            let (done, answer) = sync_channel(1);
            let shard = &shard;
            scope.spawn(move || {
                // More hits than the notes that a stripe holds: a full one must not wait for the lock either.
                let right = (0..100_000_u32).all(|n| {
                    let number = (n % u32::from(RECORDS)) as u8;
                    hit(shard, number) == Some(number)
                });
                let _ = done.send(right);
            });
            let hits = answer.recv_timeout(Duration::from_secs(30));
            let waited = !inserted.load(Ordering::SeqCst);
            // Before anything is asserted, so that a failure does not leave the others waiting.
            drop(lock);
            assert_ne!(hits, Err(RecvTimeoutError::Timeout), "hits waited for the lock");
            assert_eq!(hits, Ok(true), "a hit did not find its record");
            assert!(waited, "an insertion did without the lock");
            insertion.join().unwrap();
        });
        assert_eq!(hit(&shard, RECORDS), Some(RECORDS), "the insertion went on when the lock was let go");
    }
}
