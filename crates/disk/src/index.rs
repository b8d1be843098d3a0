//! Where the newest record of each name lies: the index of the disk tier, in memory.
//!
//! About 40 bytes an entry, at every moment: the tables of the stripes grow entry by entry, in steps of a few KiB, and
//! shrink again. All of it is in the budget. With two buckets for each entry it would be 44 bytes, and look-ups among
//! ten million a fifth faster; next to what a disk takes, that is nothing.
//!
//! # Layout
//! - this file: the operations, each under the lock of the name's stripe;
//! - [`entry`]: entries, and how they are packed;
//! - `stripe`: a hash table that grows without a pause;
//! - `slabs`: arrays that never move;
//! - `census`: what is live in each segment;
//! - [`sweep`]: going round all entries, a few at a time.
//!
//! # Invariants
//! - What lies below the floor is absent for every operation, whether or not its node has been freed.
//! - Whoever holds a stripe's lock takes no other stripe's; the lock of the census is always the innermost.
#![forbid(unsafe_code)]

mod census;
pub(crate) mod entry;
mod slabs;
mod stripe;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;

use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use elcache_core::budget::{Budget, Taken};
use parking_lot::{Mutex, MutexGuard};

use census::Census;
pub(crate) use census::Live;
use entry::{Entry, HOT, Kind, Name, Packed, Place};
use stripe::{Mixer, PRELOAD, Stripe};

const STRIPE_BITS: u32 = 6;
/// Memory that is kept for records that are on their way when the budget has no more: at most this, and this part of the budget.
const SPARE: u64 = 2 << 20;
const SPARE_PART: u64 = 32;
/// It is drawn on in these.
const DRAW: u64 = 64 << 10;

/// Why an entry was not taken. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The budget has no room.
    Full,
    /// The entry cannot be packed: see [`entry::InFile`].
    OutOfRange,
}

/// The index. Everything is for many threads at once.
pub(crate) struct Index {
    mixer: Mixer,
    stripe_bits: u32,
    stripes: Box<[Padded]>,
    /// Entries of older segments are absent. A copy of what [`Census`] has, for those who do not hold its
    /// lock: whoever reads an older value acts as if before the floor rose.
    floor: AtomicU32,
    census: Mutex<Census>,
    spare: Mutex<Taken>,
    spare_bytes: u64,
    /// Some of the spare memory is in use.
    tight: AtomicBool,
    /// For the stripes themselves.
    taken: Taken,
}

/// Keeps neighbours' locks out of each other's cache lines.
#[repr(align(64))]
struct Padded(Mutex<Stripe>);

/// A name's stripe, locked, and what is there.
struct Spot<S> {
    stripe: S,
    hash: u64,
    node: Option<usize>,
    /// What is in the node, unless it is below the floor.
    entry: Option<Entry>,
}

impl Index {
    /// An empty index. Chains cannot be made long by who does not know the seed.
    pub(crate) fn new(seed: u64, budget: &Arc<Budget>) -> Result<Self, Refused> {
        Self::with_stripes(seed, budget, STRIPE_BITS)
    }

    fn with_stripes(seed: u64, budget: &Arc<Budget>, stripe_bits: u32) -> Result<Self, Refused> {
        let mixer = Mixer::new(seed);
        let take = |bytes: usize| budget.take(bytes as u64).ok_or(Refused::Full);
        let stripe = |_| Ok(Padded(Mutex::new(Stripe::new(mixer, take(0)?))));
        let spare_bytes = SPARE.min(budget.max_bytes() / SPARE_PART);
        Ok(Self {
            mixer,
            stripe_bits,
            taken: take(size_of::<Padded>() << stripe_bits)?,
            stripes: (0..1 << stripe_bits).map(stripe).collect::<Result<_, _>>()?,
            floor: AtomicU32::new(0),
            census: Mutex::new(Census::new(take(0)?)),
            spare: Mutex::new(take(spare_bytes as usize)?),
            spare_bytes,
            tight: AtomicBool::new(false),
        })
    }

    /// What is known of a name.
    pub(crate) fn get(&self, name: &Name) -> Option<Entry> {
        self.find(name).entry
    }

    /// Marks a name as used, if it is still at this place.
    pub(crate) fn touch(&self, name: &Name, place: &Place) -> bool {
        self.find(name).at(place).map(Packed::set_used).is_some()
    }

    /// Adds to a name's heat, if it is still at this place. Whether it has reached [`HOT`], now or earlier.
    pub(crate) fn warm(&self, name: &Name, place: &Place, by: u8) -> bool {
        self.find(name).at(place).is_some_and(|packed| {
            packed.warm(by);
            packed.heat() == HOT
        })
    }

    /// Pins what is known of a name; false when there is nothing, or when it is pinned already.
    pub(crate) fn pin(&self, name: &Name) -> bool {
        self.set_pinned(name, true)
    }

    /// Takes a name's pin away; false when it has none.
    pub(crate) fn unpin(&self, name: &Name) -> bool {
        self.set_pinned(name, false)
    }

    fn set_pinned(&self, name: &Name, pinned: bool) -> bool {
        let mut spot = self.find(name);
        let Some(entry) = spot.entry.filter(|entry| entry.kind != Kind::Dead && entry.pinned != pinned)
        else {
            return false;
        };
        if let Some(packed) = spot.at(&entry.place) {
            packed.set_pinned(pinned);
            // An entry that stays needs no room.
            self.census.lock().change(Some(&entry), Some(&Entry { pinned, ..entry }));
        }
        true
    }

    /// Sets what is known of a name and gives back what was known before. What was pinned stays so. An entry below the floor is gone at
    /// once. Where the budget has no room, the spare memory has.
    pub(crate) fn put(&self, name: &Name, entry: &Entry) -> Result<Option<Entry>, Refused> {
        loop {
            let spot = self.find(name);
            let before = spot.entry;
            let pinned = entry.pinned || before.is_some_and(|before| before.pinned);
            match self.store(spot, name, &Entry { pinned, ..*entry }) {
                Err(Refused::Full) if self.draw() => {}
                stored => return stored.map(|()| before),
            }
        }
    }

    /// Gives some of the spare memory back to the budget; false when there is none left.
    fn draw(&self) -> bool {
        let mut spare = self.spare.lock();
        self.tight.store(true, Ordering::Release);
        let some = spare.bytes() > 0;
        spare.shrink(DRAW);
        some
    }

    /// Whether no names should be added: spare memory is in use.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Acquire)
    }

    /// Takes spare memory again, if the budget allows; whether there is all of it.
    pub(crate) fn relax(&self) -> bool {
        let mut spare = self.spare.lock();
        let missing = self.spare_bytes - spare.bytes();
        let relaxed = spare.grow(missing);
        if relaxed {
            self.tight.store(false, Ordering::Release);
        }
        relaxed
    }

    /// Sets what is known of a name of which nothing is known; whether that was so and the entry is not below the
    /// floor. Recovery runs from the newest record to the oldest, so the first one wins. (And
    /// after a refusal it has to stop: an older record of the same name would be taken for the newest.)
    #[cfg(test)]
    pub(crate) fn put_if_absent(&self, name: &Name, entry: &Entry) -> Result<bool, Refused> {
        self.store_if_absent(self.find(name), name, entry)
    }

    /// [`Index::put_if_absent`] for many, the first ones first; how many were new. Faster than one by one, from a few
    /// thousand on. When it is refused, some of them are there and some are not.
    pub(crate) fn put_batch_if_absent(&self, batch: &[(Name, Entry)]) -> Result<usize, Refused> {
        let mut new = 0;
        let mut sorted: Vec<_> = batch.iter().map(|item| (self.mixer.hash(&item.0), item)).collect();
        sorted.sort_by_key(|&(hash, _)| self.stripe_of(hash));
        for same in sorted.chunk_by(|a, b| self.stripe_of(a.0) == self.stripe_of(b.0)) {
            for few in same.chunks(PRELOAD) {
                let mut stripe = self.lock(self.stripe_of(few[0].0));
                stripe.preload(few.iter().map(|item| item.0));
                for &(hash, (name, entry)) in few {
                    let spot = self.look(&mut *stripe, hash, name);
                    new += usize::from(self.store_if_absent(spot, name, entry)?);
                }
            }
        }
        Ok(new)
    }

    /// Makes a name dead if it is at this place still; what was known of it then.
    pub(crate) fn bury(&self, name: &Name, place: &Place) -> Option<Entry> {
        let mut spot = self.find(name);
        let entry = spot.entry?;
        spot.at(place).map(|packed| self.kill(packed, &entry))?;
        Some(entry)
    }

    /// Forgets a name and gives back what was known of it.
    pub(crate) fn remove(&self, name: &Name) -> Option<Entry> {
        self.take_out(self.find(name))
    }

    /// Makes entries of all segments before this one absent. The floor never falls.
    pub(crate) fn set_floor(&self, segment: u32) {
        let mut census = self.census.lock();
        let floor = census.raise(segment);
        self.floor.store(floor, Ordering::Release);
    }

    /// How many stripes there are.
    pub(crate) fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// What a stripe has in a segment.
    pub(crate) fn in_segment(&self, stripe: usize, segment: u32) -> Vec<(Name, Entry)> {
        let stripe = self.lock(stripe);
        let nodes = (0..stripe.len()).map(|node| stripe.node(node));
        let entries = nodes.map(|node| (node.name, node.packed.unpack()));
        entries.filter(|(_, entry)| entry.place.segment == segment && !self.is_stale(entry)).collect()
    }

    /// What a stripe has of a kind.
    pub(crate) fn of_kind(&self, stripe: usize, kind: Kind) -> Vec<(Name, Entry)> {
        let stripe = self.lock(stripe);
        let nodes = (0..stripe.len()).map(|node| stripe.node(node));
        let entries = nodes.map(|node| (node.name, node.packed.unpack()));
        entries.filter(|(_, entry)| entry.kind == kind && !self.is_stale(entry)).collect()
    }

    /// What there is above the floor.
    pub(crate) fn total(&self) -> Live {
        self.census.lock().total()
    }

    /// What there is in one segment.
    pub(crate) fn live(&self, segment: u32) -> Live {
        self.census.lock().live(segment)
    }

    /// Bytes taken from the budget, but for the spare memory.
    pub(crate) fn bytes(&self) -> u64 {
        let stripes: u64 = self.stripes.iter().map(|stripe| stripe.0.lock().bytes()).sum();
        self.taken.bytes() + stripes + self.census.lock().bytes()
    }

    fn find(&self, name: &Name) -> Spot<MutexGuard<'_, Stripe>> {
        let hash = self.mixer.hash(name);
        self.look(self.lock(self.stripe_of(hash)), hash, name)
    }

    /// The highest bits; a stripe's buckets are chosen by the lowest.
    fn stripe_of(&self, hash: u64) -> usize {
        hash.checked_shr(u64::BITS - self.stripe_bits).unwrap_or(0) as usize
    }

    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[stripe].0.lock()
    }

    fn look<S: DerefMut<Target = Stripe>>(&self, stripe: S, hash: u64, name: &Name) -> Spot<S> {
        let node = stripe.find(hash, name);
        let entry = node.map(|node| stripe.node(node).packed.unpack()).filter(|entry| !self.is_stale(entry));
        Spot { stripe, hash, node, entry }
    }

    fn is_stale(&self, entry: &Entry) -> bool {
        entry.place.segment < self.floor.load(Ordering::Acquire)
    }

    fn store_if_absent<S: DerefMut<Target = Stripe>>(
        &self,
        spot: Spot<S>,
        name: &Name,
        entry: &Entry,
    ) -> Result<bool, Refused> {
        if spot.entry.is_some() || self.is_stale(entry) {
            return Ok(false);
        }
        self.store(spot, name, entry).map(|()| true)
    }

    fn store<S: DerefMut<Target = Stripe>>(
        &self,
        mut spot: Spot<S>,
        name: &Name,
        entry: &Entry,
    ) -> Result<(), Refused> {
        let packed = Packed::pack(entry).ok_or(Refused::OutOfRange)?;
        if self.is_stale(entry) {
            self.take_out(spot);
            return Ok(());
        }
        let room = spot.node.is_some() || spot.stripe.reserve();
        if !room || !self.census.lock().change(spot.entry.as_ref(), Some(entry)) {
            return Err(Refused::Full);
        }
        match spot.node {
            Some(node) => *spot.stripe.packed_mut(node) = packed,
            None => spot.stripe.push(spot.hash, *name, packed),
        }
        Ok(())
    }

    /// Frees the node, also one that is below the floor.
    fn take_out<S: DerefMut<Target = Stripe>>(&self, mut spot: Spot<S>) -> Option<Entry> {
        let node = spot.node?;
        let entry = spot.stripe.node(node).packed.unpack();
        self.free(&mut spot.stripe, node, &entry);
        spot.entry
    }

    /// An entry that stays needs no room.
    fn kill(&self, packed: &mut Packed, entry: &Entry) {
        packed.kill();
        self.census.lock().change(Some(entry), Some(&packed.unpack()));
    }

    fn free(&self, stripe: &mut Stripe, node: usize, entry: &Entry) {
        stripe.remove(node);
        self.census.lock().change(Some(entry), None);
    }
}

impl<S: DerefMut<Target = Stripe>> Spot<S> {
    /// What is there, if it is at this place.
    fn at(&mut self, place: &Place) -> Option<&mut Packed> {
        self.entry.filter(|entry| entry.place == *place)?;
        self.node.map(|node| self.stripe.packed_mut(node))
    }
}
