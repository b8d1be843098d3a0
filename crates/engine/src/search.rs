//! Looking for the chunks of one value, page by page.

use std::ops::Range;

use bytes::Bytes;
use elcache_core::tier::{ChunkRef, Leaving, Lookup, Owner, PageRef, Presence, Tier, TierName};
use elcache_core::tree::{self, PAGE_DIGESTS};

use crate::engine::Engine;
use crate::manifest;

/// Looks for chunks of one value. Remembers the last page.
pub(crate) struct Search<'a> {
    engine: &'a Engine,
    size: u64,
    owner: Owner,
    page: Option<(u64, Bytes)>,
    /// Pages that slower tiers give stay in the fastest.
    keeps_pages: bool,
}

/// A tier cannot say it at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow;

/// Something of a value that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Page(u64),
    Chunk(ChunkRef),
}

impl Missing {
    /// Whether it is, or belongs to, what lies under one of these chunk numbers.
    pub(crate) fn lies_in(&self, numbers: &Range<u64>) -> bool {
        match self {
            Self::Page(page) => {
                numbers.start <= page * PAGE_DIGESTS && (page + 1) * PAGE_DIGESTS <= numbers.end
            }
            Self::Chunk(chunk) => numbers.contains(&chunk.number),
        }
    }
}

/// What was looked for of a value, and what of it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All tiers are asked, and not only those that are needed.
    asks_all: bool,
    bytes: u64,
    bytes_here: u64,
    /// The slowest tier that takes part when each chunk comes from the fastest that has it.
    pub(crate) slowest: TierName,
    /// A bit for each tier that has all of it. Right where all were asked.
    pub(crate) alone: u8,
    /// The first that is not there.
    pub(crate) missing: Option<Missing>,
    /// Whatever is not there has gone, and is not merely out of reach.
    is_certain: bool,
}

impl Tally {
    fn new(asks_all: bool) -> Self {
        Self {
            asks_all,
            bytes: 0,
            bytes_here: 0,
            slowest: TierName::Memory,
            alone: u8::MAX,
            missing: None,
            is_certain: true,
        }
    }

    /// Of what somebody wants to read: slower tiers are asked where faster ones have not got it all.
    pub(crate) fn of_some() -> Self {
        Self::new(false)
    }

    /// Of all of a value: which tiers have it is to be known.
    pub(crate) fn of_all() -> Self {
        Self::new(true)
    }

    /// How much of what was looked for is there, floored.
    pub(crate) fn percent(&self) -> u8 {
        let percent = (u128::from(self.bytes_here) * 100).checked_div(u128::from(self.bytes));
        percent.unwrap_or(100) as u8
    }

    /// Whether nothing of it is anywhere, for good.
    pub(crate) fn is_nothing(&self) -> bool {
        self.bytes_here == 0 && self.missing.is_some() && self.is_certain
    }

    fn no_page(&mut self, page: u64, bytes: u64, is_certain: bool) {
        self.bytes += bytes;
        self.alone = 0;
        self.is_certain &= is_certain;
        self.missing.get_or_insert(Missing::Page(page));
    }

    /// What the tier at this place has of some chunks, of which faster ones may have been found to have some.
    fn of_tier(&mut self, place: usize, name: TierName, here: &mut [bool], found: &[Presence]) {
        for (here, found) in here.iter_mut().zip(found) {
            match found {
                Presence::Here if !*here => {
                    self.slowest = self.slowest.max(name);
                    *here = true;
                }
                Presence::Here => {}
                Presence::Absent => self.alone &= !(1 << place),
                Presence::OutOfReach => {
                    self.alone &= !(1 << place);
                    self.is_certain = false;
                }
            }
        }
    }

    fn of_chunks(&mut self, chunks: &[ChunkRef], here: &[bool]) {
        for (chunk, here) in chunks.iter().zip(here) {
            self.bytes += u64::from(chunk.len);
            if *here {
                self.bytes_here += u64::from(chunk.len);
            } else {
                self.missing.get_or_insert(Missing::Chunk(*chunk));
            }
        }
    }
}

/// The parts of a run of chunks that are each listed in one page.
pub(crate) fn by_page(numbers: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let pages = numbers.start / PAGE_DIGESTS..numbers.end.div_ceil(PAGE_DIGESTS);
    pages.filter_map(move |page| {
        let start = numbers.start.max(page * PAGE_DIGESTS);
        let end = numbers.end.min((page + 1) * PAGE_DIGESTS);
        (start < end).then_some(start..end)
    })
}

impl<'a> Search<'a> {
    pub(crate) fn new(engine: &'a Engine, owner: Owner, size: u64) -> Self {
        Self { engine, size, owner, page: None, keeps_pages: true }
    }

    /// Goes on with a page that was read before.
    pub(crate) fn with_page(mut self, page: Option<(u64, Bytes)>) -> Self {
        self.page = page;
        self
    }

    /// Leaves the pages where they are: thousands that are looked into once are not worth what they would push out of memory.
    pub(crate) fn leaving_pages(mut self) -> Self {
        self.keeps_pages = false;
        self
    }

    pub(crate) fn into_page(self) -> Option<(u64, Bytes)> {
        self.page
    }

    /// The chunk of this number.
    pub(crate) async fn chunk(&mut self, number: u64) -> Lookup<ChunkRef> {
        match self.page(manifest::place_of(number).0).await {
            Lookup::Hit(page) => {
                let chunk = listed(&page, self.size, number);
                chunk.map_or(Lookup::Miss, Lookup::Hit)
            }
            Lookup::Miss => Lookup::Miss,
            Lookup::Busy => Lookup::Busy,
        }
    }

    /// Looks for every `step`th of these chunks, all of which one page lists, and says of each whether it is there.
    pub(crate) async fn look_for(
        &mut self,
        numbers: Range<u64>,
        step: usize,
        tally: &mut Tally,
    ) -> Result<Vec<bool>, NotNow> {
        let (page, _) = manifest::place_of(numbers.start);
        let listed_in = match self.page(page).await {
            Lookup::Hit(bytes) => {
                numbers.clone().step_by(step).map(|number| listed(&bytes, self.size, number)).collect()
            }
            Lookup::Miss => None,
            Lookup::Busy => return Err(NotNow),
        };
        let Some(chunks) = listed_in else {
            let lens = numbers.step_by(step).map(|number| tree::chunk_len(self.size, number));
            let here = lens.clone().map(|_| false).collect();
            tally.no_page(page, lens.sum(), self.has_lost(page));
            return Ok(here);
        };
        let chunks: Vec<ChunkRef> = chunks;
        let mut here = vec![false; chunks.len()];
        for (place, tier) in self.engine.tiers().iter().enumerate() {
            let is_needed = !here.iter().all(|here| *here);
            if !is_needed && !tally.asks_all {
                break;
            }
            match tier.has_chunks(&chunks).get().await {
                Lookup::Hit(found) => tally.of_tier(place, tier.name(), &mut here, &found),
                Lookup::Miss => tally.alone &= !(1 << place),
                Lookup::Busy if is_needed => return Err(NotNow),
                Lookup::Busy => tally.alone &= !(1 << place),
            }
        }
        tally.of_chunks(&chunks, &here);
        Ok(here)
    }

    /// Whether this is not there, now.
    pub(crate) async fn lacks(&mut self, missing: &Missing) -> bool {
        match missing {
            Missing::Page(page) => {
                self.page = None;
                !matches!(self.page(*page).await, Lookup::Hit(_))
            }
            Missing::Chunk(chunk) => {
                for tier in self.engine.tiers() {
                    if tier.has_chunk(chunk).get().await {
                        return false;
                    }
                }
                true
            }
        }
    }

    /// Whether a page that was not found is not only unreadable. Memory knows at once what it has.
    fn has_lost(&self, number: u64) -> bool {
        let page = PageRef { owner: self.owner, number };
        let has_lost = |tier: &dyn Tier| tier.name() == TierName::Memory || tier.lacks(Leaving::Page(page));
        self.engine.tiers().iter().all(|tier| has_lost(&**tier))
    }

    async fn page(&mut self, number: u64) -> Lookup<Bytes> {
        if let Some((have, bytes)) = &self.page
            && *have == number
        {
            return Lookup::Hit(bytes.clone());
        }
        let read = self.read_page(number).await;
        if let Lookup::Hit(bytes) = &read {
            self.page = Some((number, bytes.clone()));
        }
        read
    }

    async fn read_page(&self, number: u64) -> Lookup<Bytes> {
        let page = PageRef { owner: self.owner, number };
        let mut busy = false;
        for (place, tier) in self.engine.tiers().iter().enumerate() {
            match tier.page(&page).get().await {
                Lookup::Hit(payload) => {
                    let bytes = payload.to_contiguous();
                    let keeper = self.engine.tiers().first().filter(|_| place > 0 && self.keeps_pages);
                    if let Some(fastest) = keeper {
                        fastest.keep_page(&page, &bytes);
                    }
                    return Lookup::Hit(bytes);
                }
                Lookup::Miss => {}
                Lookup::Busy => busy = true,
            }
        }
        if busy { Lookup::Busy } else { Lookup::Miss }
    }
}

/// The chunk of this number of a value of `size` bytes, if its page lists it.
fn listed(page: &[u8], size: u64, number: u64) -> Option<ChunkRef> {
    let digest = manifest::digest_at(page, manifest::place_of(number).1)?;
    Some(ChunkRef { digest, number, len: tree::chunk_len(size, number) as u32 })
}
