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

pub(crate) struct Watch(Mapping);

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let mapping = Mapping::new(PAGE_SIZE + WORDS * size_of::<u64>(), Others::Read)?;
        mapping.words()[0].store(MAGIC.to_le(), Ordering::Relaxed);
        mapping.words()[1].store((WORDS as u64).to_le(), Ordering::Relaxed);
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

    /// Has the word change, and nobody be told to watch it before `change` is over. Whoever was told sees the new word before anything
    /// that comes after this.
    pub(crate) fn while_changing<R>(&self, word: u32, change: impl FnOnce() -> R) -> R {
        self.word(word).fetch_add(CHANGE + 1, Ordering::SeqCst);
        // Of what follows, the memory that is used anew above all, nothing is seen before the word.
        fence(Ordering::SeqCst);
        let result = change();
        self.word(word).fetch_sub(1, Ordering::Release);
        result
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
