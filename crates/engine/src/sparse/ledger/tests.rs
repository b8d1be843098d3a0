use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::ManualClock;
use elcache_core::tier::{Hold, Tier};
use elcache_memory::{MemoryConfig, MemoryTier};
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;

const MIB: u64 = 1 << 20;
const WAIT: Duration = Duration::from_secs(120);

fn tier(budget_bytes: u64) -> Arc<MemoryTier> {
    let clock = Arc::new(ManualClock::new(1_000_000));
    MemoryTier::new(MemoryConfig::default(), &Budget::new(budget_bytes), clock, 7).unwrap()
}

fn ledger(tier: &Arc<MemoryTier>) -> Arc<Ledger> {
    Ledger::new(Arc::clone(tier) as _, WAIT)
}

/// What a PUT gets at once.
async fn put(tier: &MemoryTier, bytes: u64) -> Option<Hold> {
    timeout(Duration::ZERO, tier.admit(bytes).get()).await.ok()?.ok()
}

async fn why_not(ledger: &Arc<Ledger>, bytes: u64, purpose: Purpose) -> Option<WriteError> {
    ledger.reserve(bytes, purpose).await.err()
}

#[tokio::test(start_paused = true)]
async fn what_uploads_hold_is_refused_at_once_and_what_others_hold_is_waited_for() {
    let tier = tier(256 * MIB);
    let ledger = ledger(&tier);
    let limits = ledger.limits();
    let (most, began) = (limits.allowed - limits.from_ranges, tokio::time::Instant::now());
    assert_eq!(why_not(&ledger, most + 1, Purpose::Range).await, Some(WriteError::DoesNotFit));
    assert_eq!(began.elapsed(), Duration::ZERO);
    let others = put(&tier, tier.largest_admission() - 50 * MIB).await.unwrap();
    let mut small = ledger.reserve(45 * MIB, Purpose::Range).await.unwrap();
    drop(small.split(5 * MIB));
    assert_eq!(why_not(&ledger, 40 * MIB, Purpose::Range).await, Some(WriteError::Busy));
    assert_eq!(began.elapsed(), WAIT);
    let waiting = tokio::spawn({
        let ledger = Arc::clone(&ledger);
        async move { ledger.reserve(40 * MIB, Purpose::Range).await.map(|reserved| reserved.keep(40 * MIB)) }
    });
    tokio::task::yield_now().await;
    assert!(
        ledger.reserve(5 * MIB, Purpose::Range).await.is_ok(),
        "what is promised already waits for nobody"
    );
    drop(others);
    waiting.await.unwrap().unwrap();
    small.keep(1);
    assert_eq!(ledger.used(), 40 * MIB + 1);
    ledger.release(40 * MIB + 1);
    assert!(put(&tier, tier.largest_admission()).await.is_some(), "everything was given back");
}

/// An upload was at the limit: its fragments had fitted, the chunk that was to take their place did not, and it could never be
/// finished; nor could a client have the answer that it had not heard.
#[tokio::test(start_paused = true)]
async fn at_the_brim_there_is_room_to_repeat_and_to_combine() {
    let tier = tier(512 * MIB);
    let ledger = ledger(&tier);
    let limits = ledger.limits();
    ledger
        .reserve(limits.allowed - limits.from_ranges, Purpose::Range)
        .await
        .unwrap()
        .keep(limits.allowed - limits.from_ranges);
    let others = put(&tier, tier.largest_admission() - limits.allowed).await.unwrap();
    assert_eq!(why_not(&ledger, 1, Purpose::Range).await, Some(WriteError::DoesNotFit));
    assert_eq!(why_not(&ledger, 2 * limits.chunk, Purpose::Repeat).await, Some(WriteError::DoesNotFit));
    // A chunk of bytes that lie in two chunks is two pieces, each of which takes something besides.
    assert!(ledger.reserve(limits.chunk + 5000, Purpose::Repeat).await.is_ok());
    let mut repeats = Vec::new();
    for _ in 0..4 {
        repeats.push(ledger.reserve(limits.chunk, Purpose::Repeat).await.unwrap());
    }
    assert_eq!(why_not(&ledger, 1, Purpose::Repeat).await, Some(WriteError::Busy));
    repeats.into_iter().for_each(|repeat| repeat.keep(limits.chunk));
    assert_eq!(why_not(&ledger, 1, Purpose::Repeat).await, Some(WriteError::DoesNotFit));
    let mut chunks = Vec::new();
    for _ in 0..4 {
        chunks.push(ledger.reserve(limits.chunk, Purpose::Combine).await.unwrap());
    }
    assert_eq!(why_not(&ledger, limits.chunk, Purpose::Combine).await, Some(WriteError::Busy));
    for chunk in chunks {
        chunk.keep(limits.chunk);
        ledger.release(limits.chunk);
    }
    assert_eq!(ledger.used(), limits.allowed - limits.from_repeats);
    drop(others);
}

/// Writers of the same bytes each reserve room for them. Once, when they did so at the same time and there was room for some of them
/// only, the others heard that what they had to write would never fit.
#[tokio::test(start_paused = true)]
async fn room_that_others_may_give_back_is_waited_for() {
    let tier = tier(128 * MIB);
    let ledger = ledger(&tier);
    let limits = ledger.limits();
    let most = limits.allowed - limits.from_ranges;
    let first = ledger.reserve(most - MIB, Purpose::Range).await.unwrap();
    let waiting = tokio::spawn({
        let ledger = Arc::clone(&ledger);
        async move { ledger.reserve(10 * MIB, Purpose::Range).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    first.keep(MIB);
    assert_eq!(waiting.await.unwrap(), Ok(()));
    let all = ledger.reserve(most - MIB, Purpose::Range).await.unwrap();
    assert_eq!(why_not(&ledger, 10 * MIB, Purpose::Range).await, Some(WriteError::Busy));
    all.keep(most - MIB);
    assert_eq!(why_not(&ledger, 10 * MIB, Purpose::Range).await, Some(WriteError::DoesNotFit));
    ledger.release(most);
}

/// A restart finds more than the tier, which has become smaller, may hold for uploads. What is there can still be finished.
#[tokio::test(start_paused = true)]
async fn more_than_is_allowed_can_be_taken_over() {
    let tier = tier(64 * MIB);
    let ledger = ledger(&tier);
    let limits = ledger.limits();
    ledger.take_over(limits.allowed - MIB);
    ledger.take_over(200 * MIB);
    assert_eq!(why_not(&ledger, 1, Purpose::Range).await, Some(WriteError::DoesNotFit));
    let combined = ledger.reserve(limits.chunk, Purpose::Combine).await.unwrap();
    combined.keep(limits.chunk);
    ledger.release(limits.chunk);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(put(&tier, tier.largest_admission() / 4).await.is_none(), "what was found is promised");
    ledger.release(200 * MIB);
    ledger.release(limits.allowed - 2 * MIB);
    assert!(ledger.reserve(MIB, Purpose::Range).await.is_ok());
    ledger.release(MIB);
    assert!(put(&tier, tier.largest_admission()).await.is_some());
}

/// A client went away while its range waited for its turn.
#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_leaves_nothing() {
    let tier = tier(64 * MIB);
    let ledger = ledger(&tier);
    let others = put(&tier, tier.largest_admission()).await.unwrap();
    assert!(timeout(WAIT / 2, ledger.reserve(MIB, Purpose::Range)).await.is_err());
    drop(others);
    let all = put(&tier, tier.largest_admission()).await;
    assert!(all.is_some());
    drop(all);
    assert!(ledger.reserve(MIB, Purpose::Range).await.is_ok());
    assert!(put(&tier, tier.largest_admission()).await.is_some());
}

#[derive(Clone, Debug)]
enum Op {
    Reserve {
        purpose: Purpose,
        bytes: u64,
    },
    /// Of the reservation at this place a share.
    Keep(usize, f64),
    Split(usize, f64),
    Drop(usize),
    Release(f64),
    /// Combines: a chunk takes the place of what is in use.
    Combine,
    Put(u64),
    EndPut,
}

fn op() -> impl Strategy<Value = Op> {
    let purpose = prop_oneof![4 => Just(Purpose::Range), 1 => Just(Purpose::Repeat)];
    let bytes = prop_oneof![1_u64..100_000, 100_000_u64..5_000_000, 5_000_000_u64..60_000_000];
    prop_oneof![
        4 => (purpose, bytes).prop_map(|(purpose, bytes)| Op::Reserve { purpose, bytes }),
        3 => (any::<usize>(), 0.0..=1.0_f64).prop_map(|(at, share)| Op::Keep(at, share)),
        1 => (any::<usize>(), 0.0..=1.1_f64).prop_map(|(at, share)| Op::Split(at, share)),
        1 => any::<usize>().prop_map(Op::Drop),
        2 => (0.0..=1.0_f64).prop_map(Op::Release),
        1 => Just(Op::Combine),
        1 => (1_u64..60_000_000).prop_map(Op::Put),
        1 => Just(Op::EndPut),
    ]
}

/// A ledger, and what is known of it from outside.
struct Model {
    tier: Arc<MemoryTier>,
    ledger: Arc<Ledger>,
    used: u64,
    reserved: Vec<Reserved>,
    puts: Vec<Hold>,
}

impl Model {
    fn taken(&self) -> u64 {
        self.used + self.reserved.iter().map(Reserved::bytes).sum::<u64>()
    }

    fn take(&mut self, at: usize) -> Option<Reserved> {
        let at = at.checked_rem(self.reserved.len())?;
        Some(self.reserved.swap_remove(at))
    }

    async fn apply(&mut self, op: Op) {
        let part = |bytes: u64, share: f64| (bytes as f64 * share) as u64;
        let limits = self.ledger.limits();
        match op {
            Op::Reserve { purpose, bytes } => {
                let kept_from = match purpose {
                    Purpose::Repeat if bytes < 2 * limits.chunk => limits.from_repeats,
                    _ => limits.from_ranges,
                };
                let fits = self.used + bytes <= limits.allowed - kept_from;
                let fits_now = self.taken() + bytes <= limits.allowed - kept_from;
                match self.ledger.reserve(bytes, purpose).await {
                    Ok(reserved) => {
                        assert!(fits_now && reserved.bytes() == bytes);
                        self.reserved.push(reserved);
                    }
                    Err(WriteError::Busy) => assert!(fits && !(fits_now && self.puts.is_empty())),
                    Err(other) => assert!(!fits && other == WriteError::DoesNotFit),
                }
            }
            Op::Keep(at, share) => {
                let Some(reserved) = self.take(at) else { return };
                let bytes = part(reserved.bytes(), share).min(reserved.bytes());
                self.used += bytes;
                reserved.keep(bytes);
            }
            Op::Split(at, share) => {
                let Some(mut reserved) = self.take(at) else { return };
                let (before, bytes) = (reserved.bytes(), part(reserved.bytes(), share));
                let other = reserved.split(bytes);
                assert_eq!((other.bytes(), reserved.bytes() + other.bytes()), (bytes.min(before), before));
                self.reserved.extend([reserved, other]);
            }
            Op::Drop(at) => drop(self.take(at)),
            Op::Release(share) => {
                let bytes = part(self.used, share).min(self.used);
                self.used -= bytes;
                self.ledger.release(bytes);
            }
            Op::Combine if self.used >= limits.chunk => {
                self.ledger.reserve(limits.chunk, Purpose::Combine).await.unwrap().keep(limits.chunk);
                self.ledger.release(limits.chunk);
            }
            Op::Combine => {}
            Op::Put(bytes) => self.puts.extend(put(&self.tier, bytes).await),
            Op::EndPut => drop(self.puts.pop()),
        }
    }

    fn check(&self) {
        let (limits, book) = (self.ledger.limits(), self.ledger.book.lock());
        assert_eq!((book.kept, book.taken(), book.combining), (self.used, self.taken(), 0));
        assert!(book.taken() + limits.from_repeats <= limits.allowed);
        assert!(book.promised >= book.taken(), "what is taken is promised");
        assert_eq!(book.promised, book.holds.iter().map(|(bytes, _)| bytes).sum::<u64>());
        assert!(book.promised < limits.allowed + UNIT, "others have their share");
        let smallest = book.holds.iter().map(|(bytes, _)| *bytes).min().unwrap_or(0);
        let most = (2 * limits.step(book.promised)).max(limits.step(book.promised) + smallest);
        assert!(book.promised - book.taken() <= most, "{} of {}", book.taken(), book.promised);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Uploads hold never more than they may, what they hold is promised, and everything comes back.
    #[test]
    fn the_books_are_right_after_every_step(
        budget_mib in 16_u64..600,
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let tier = tier(budget_mib * MIB);
            let ledger = ledger(&tier);
            let mut model = Model { tier, ledger, used: 0, reserved: Vec::new(), puts: Vec::new() };
            for op in ops {
                model.apply(op).await;
                model.check();
            }
            model.reserved.clear();
            model.ledger.release(model.used);
            model.puts.clear();
            assert_eq!(model.ledger.used(), 0);
            assert!(put(&model.tier, model.tier.largest_admission()).await.is_some(), "everything comes back");
        });
    }
}
