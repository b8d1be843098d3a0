//! Hits on their way to the policy. A reader notes the number of the record it hit and goes on; whoever holds the
//! shard's lock next tells the policy. Notes are lost when there is no room, which costs precision and never time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Notes a stripe holds.
const NOTES: usize = 64;
/// One for each thread that is likely to run at once; more threads share.
const STRIPES: usize = 8;
const NOTHING: u32 = 0;

#[repr(align(64))]
struct Stripe {
    used: AtomicUsize,
    /// Record numbers plus one.
    notes: [AtomicU32; NOTES],
}

/// The hits of one shard that its policy has not heard of yet.
pub(crate) struct Hits([Stripe; STRIPES]);

impl Hits {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Stripe {
            used: AtomicUsize::new(0),
            notes: [const { AtomicU32::new(NOTHING) }; NOTES],
        }))
    }

    /// Notes a hit. True when the stripe is full and should be drained, if that can be done without waiting.
    ///
    /// Plain loads and stores: an atomic addition would cost as much as the rest of the note, and only threads that share a
    /// stripe would lose fewer notes by it.
    pub(crate) fn note(&self, number: u32) -> bool {
        let stripe = &self.0[stripe_of_thread()];
        let slot = stripe.used.load(Ordering::Relaxed);
        let Some(note) = stripe.notes.get(slot) else { return true };
        note.store(number + 1, Ordering::Relaxed);
        stripe.used.store(slot + 1, Ordering::Relaxed);
        slot + 1 >= NOTES
    }

    /// Hands out all notes, a stripe at a time, in the order in which each thread made them. Called under the shard's lock;
    /// a note that is being made at the same moment may be lost or come next time.
    pub(crate) fn drain(&self, mut take: impl FnMut(&[u32])) {
        for stripe in &self.0 {
            let used = stripe.used.load(Ordering::Relaxed).min(NOTES);
            if used == 0 {
                continue;
            }
            let mut numbers = [0; NOTES];
            let mut count = 0;
            for note in &stripe.notes[..used] {
                let number = note.load(Ordering::Relaxed);
                note.store(NOTHING, Ordering::Relaxed);
                if number != NOTHING {
                    numbers[count] = number - 1;
                    count += 1;
                }
            }
            stripe.used.store(0, Ordering::Relaxed);
            take(&numbers[..count]);
        }
    }
}

fn stripe_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES));
    MINE.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_loses_nothing_while_it_drains_in_time() {
        let hits = Hits::new();
        let mut seen = Vec::new();
        for number in 0..1000 {
            if hits.note(number) {
                hits.drain(|numbers| seen.extend_from_slice(numbers));
            }
        }
        hits.drain(|numbers| seen.extend_from_slice(numbers));
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_stripe_drops_notes_instead_of_waiting() {
        let hits = Hits::new();
        for number in 0..10_000 {
            hits.note(number);
        }
        let mut seen = 0;
        hits.drain(|numbers| seen += numbers.len());
        assert_eq!(seen, NOTES);
    }
}
