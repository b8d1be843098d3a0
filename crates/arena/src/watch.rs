//! What clients look at to know whether what they have read is good: words that change before a record loses its name, and one that says
//! that the process lives.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use elcache_core::shared::Watched;

use crate::PAGE_SIZE;
use crate::mapping::{Mapping, Others, for_reading};

const MAGIC: u64 = u32::from_le_bytes(*b"ELWT") as u64 | 1 << 32;
/// Words that records share. With more records a word stands for several, and a change of one is one of all.
const WORDS: usize = 1 << 16;
/// A word counts the changes above, and below those that are under way.
const CHANGE: u64 = 1 << 16;
const UNDER_WAY: u64 = CHANGE - 1;

/// The half word that says whether the process lives.
pub(crate) const LIFE: usize = 16;
/// The word that says until when answers may be kept: on a node that is alone, for ever.
const UNTIL: usize = 9;

pub(crate) struct Watch(Mapping);

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let mapping = Mapping::new("elcache-watch", PAGE_SIZE + WORDS * size_of::<u64>(), Others::Read)?;
        mapping.words()[0].store(MAGIC.to_le(), Ordering::Relaxed);
        mapping.words()[1].store((WORDS as u64).to_le(), Ordering::Relaxed);
        mapping.words()[UNTIL].store(u64::MAX, Ordering::Relaxed);
        Ok(Self(mapping))
    }

    /// The word of a record.
    pub(crate) fn word_of(records: u32, number: u32) -> u32 {
        // Neighbours in a shard have words of their own; shards begin at different ones.
        records.wrapping_mul(0x9e37_79b1).wrapping_add(number) % WORDS as u32
    }

    /// What a word holds now; `None` while one of its records is losing its name.
    pub(crate) fn read(&self, word: u32) -> Option<Watched> {
        let generation = self.word(word).load(Ordering::SeqCst);
        (generation & UNDER_WAY == 0).then_some(Watched { word, generation })
    }

    /// A record is about to lose its name: the word changes, and nobody is told to watch it before [`Watch::end_change`].
    pub(crate) fn begin_change(&self, word: u32) {
        self.word(word).fetch_add(CHANGE + 1, Ordering::SeqCst);
        // Of what follows, the new value of a key and memory that is used anew, nothing is seen before the word.
        fence(Ordering::SeqCst);
    }

    /// It has lost it.
    pub(crate) fn end_change(&self, word: u32) {
        self.word(word).fetch_sub(1, Ordering::Release);
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.0
    }

    pub(crate) fn file(&self) -> io::Result<OwnedFd> {
        for_reading(self.0.file())
    }

    fn word(&self, word: u32) -> &AtomicU64 {
        &self.0.words()[PAGE_SIZE / size_of::<u64>() + word as usize % WORDS]
    }
}
