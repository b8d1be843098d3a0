//! How much of a value is there.
//!
//! A value's chunks are evicted one by one, so whoever wants all of it, or is to be told how much there is, has all of them looked for: five
//! million for the largest. Of values of more than one page that is done once, in a task of its own, and remembered. A range that needs
//! few chunks has those looked for and no others.
//!
//! # What is remembered, and how long
//! - *It is all there*: as long as nothing may have gone from the tier that has it all ([`Tier::shrunk`]), or from any if it takes several.
//! - *It is not*: no longer than the one chunk, or page, is missing that was found to be. That is looked at each time, so that what has come
//!   back is not refused.
//! - *So many percent*: until something may have gone, but also for [`REST`] times as long as counting took, so that a busy node does not count
//!   all the time. What comes back meanwhile is not in it.
//!
//! Of a value of more than [`SAMPLED`] pages the first answer looks at some chunks only, and the exact one comes later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::{Lookup, Owner, TierName};
use elcache_core::tree::{self, PAGE_DIGESTS};
use elcache_core::value::Version;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::engine::{Engine, refused, to_the_end};
use crate::outcome::{Readable, WriteError};
use crate::search::{Missing, NotNow, Search, Tally, by_page};

/// Values of which something is remembered.
const REMEMBERED: usize = 256;
/// Values that are counted at once.
const AT_ONCE: usize = 4;
/// Pages that are looked into for a first answer: up to so many (512 GiB) there is no need for one. 16 thousand chunks in all.
const SAMPLED: u64 = 64;
/// Of each of these pages every eighth chunk.
const SAMPLE_STEP: usize = 8;
/// A count of what is missing holds for at least so many times as long as it took.
const REST: u32 = 16;

/// A value of more than one chunk.
#[derive(Clone, Debug)]
pub(crate) struct Chunked {
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) owner: Owner,
    pub(crate) size: u64,
}

/// What is remembered.
pub(crate) struct Residency {
    counts: Mutex<Counts>,
    turns: Semaphore,
}

#[derive(Default)]
struct Counts {
    of: HashMap<Owner, Counted>,
    uses: u64,
}

struct Counted {
    report: watch::Receiver<Report>,
    last_use: u64,
}

/// What a count has come to so far.
#[derive(Clone, Debug, Default)]
struct Report {
    /// What [`Tier::shrunk`](elcache_core::tier::Tier::shrunk) of each tier was when it began.
    shrunk: Vec<u64>,
    percent: Option<u8>,
    missing: Option<Missing>,
    end: Option<End>,
}

/// How a count has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All of it is there. `home`: the place of a tier that has all of it alone.
    Whole { slowest: TierName, home: Option<usize> },
    /// Not all of it. The count of the rest holds until then at least.
    Partly { until: Duration },
    /// Nothing was left, and it has been removed.
    Gone,
    /// A tier could not say.
    NotNow,
}

impl Default for Residency {
    fn default() -> Self {
        Self { counts: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Report {
    /// Enough to refuse or grant all of the value.
    fn decides(&self) -> bool {
        self.end.is_some() || (self.missing.is_some() && self.percent.is_some())
    }

    /// Enough to say how much there is.
    fn estimates(&self) -> bool {
        self.end.is_some() || self.percent.is_some()
    }
}

impl Counts {
    /// What is known of a value, if that still holds.
    fn get(&mut self, owner: Owner, holds: impl Fn(&Report) -> bool) -> Option<watch::Receiver<Report>> {
        self.uses += 1;
        let counted = self.of.get_mut(&owner)?;
        counted.last_use = self.uses;
        let report = counted.report.borrow();
        // Whoever counted may have gone with the runtime, or by a panic.
        let is_under_way = report.end.is_none() && counted.report.has_changed().is_ok();
        (is_under_way || (report.end.is_some() && holds(&report))).then(|| counted.report.clone())
    }

    /// Remembers a count that begins, in the place of the one that was not asked for for longest; `None` where all are under way.
    fn begin(&mut self, owner: Owner) -> Option<(watch::Sender<Report>, watch::Receiver<Report>)> {
        if self.of.len() >= REMEMBERED && !self.of.contains_key(&owner) {
            let ended = self.of.iter().filter(|(_, counted)| counted.report.has_changed().is_err());
            let oldest = ended.min_by_key(|(_, counted)| counted.last_use).map(|(owner, _)| *owner)?;
            self.of.remove(&oldest);
        }
        let (sender, report) = watch::channel(Report::default());
        self.of.insert(owner, Counted { report: report.clone(), last_use: self.uses });
        Some((sender, report))
    }
}

impl Engine {
    /// Whether all chunks under these spans of a value are there.
    pub(crate) async fn available(self: &Arc<Self>, value: &Chunked, spans: &[Span]) -> Readable {
        let is_large = tree::page_count(value.size) > 1;
        if is_large && spans.contains(&Span::whole(value.size)) {
            return self.all_of(value).await;
        }
        let looked_for: u64 = spans.iter().map(|span| span.chunks().end - span.chunks().start).sum();
        let is_much = looked_for > PAGE_DIGESTS;
        if is_much && let Some(known) = self.remembered(value, spans).await {
            return known;
        }
        let mut search = Search::new(self, value.owner, value.size);
        let mut tally = Tally::of_some();
        for numbers in spans.iter().flat_map(|span| by_page(span.chunks())) {
            if search.look_for(numbers, 1, &mut tally).await == Err(NotNow) {
                return Readable::Busy;
            }
            if tally.missing.is_some() {
                return if is_large { self.part_of(value).await } else { self.part_of_page(value).await };
            }
            if is_much {
                tokio::task::yield_now().await;
            }
        }
        Readable::Whole(tally.slowest)
    }

    /// How much there is of a value of one page, of which something is missing.
    async fn part_of_page(self: &Arc<Self>, value: &Chunked) -> Readable {
        let mut tally = Tally::of_some();
        let mut search = Search::new(self, value.owner, value.size);
        if search.look_for(0..tree::chunk_count(value.size), 1, &mut tally).await == Err(NotNow) {
            return Readable::Busy;
        }
        if tally.is_nothing() && self.vanish(value).await {
            return Readable::Gone;
        }
        Readable::Partial { available_percent: tally.percent().min(99) }
    }

    /// How much there is of a larger value, of which something is missing.
    async fn part_of(self: &Arc<Self>, value: &Chunked) -> Readable {
        let mut report = self.count(value, false, Report::estimates).await;
        if matches!(report.end, Some(End::Whole { .. })) {
            // It has gone this very moment.
            report = self.count(value, true, Report::estimates).await;
        }
        match (report.end, report.percent) {
            (Some(End::Gone), _) => Readable::Gone,
            (Some(End::NotNow), _) | (_, None) => Readable::Busy,
            (_, Some(percent)) => Readable::Partial { available_percent: percent.min(99) },
        }
    }

    /// Whether all of a larger value is there.
    async fn all_of(self: &Arc<Self>, value: &Chunked) -> Readable {
        let mut search = Search::new(self, value.owner, value.size).leaving_pages();
        for anew in [false, true] {
            let report = self.count(value, anew, Report::decides).await;
            match (report.end, report.missing, report.percent) {
                (Some(End::Whole { slowest, .. }), ..) => return Readable::Whole(slowest),
                (Some(End::Gone), ..) => return Readable::Gone,
                (_, Some(missing), Some(percent)) => {
                    if anew || search.lacks(&missing).await {
                        return Readable::Partial { available_percent: percent.min(99) };
                    }
                }
                _ => return Readable::Busy,
            }
        }
        Readable::Busy
    }

    /// What is known already that answers for a large part of a value, if anything is.
    async fn remembered(&self, value: &Chunked, spans: &[Span]) -> Option<Readable> {
        let report = self.residency.counts.lock().get(value.owner, |report| self.holds(report))?;
        let report = report.borrow().clone();
        match (report.end, report.missing, report.percent) {
            (Some(End::Whole { slowest, .. }), ..) => Some(Readable::Whole(slowest)),
            (Some(End::Partly { .. }), Some(missing), Some(percent))
                if spans.iter().any(|span| missing.lies_in(&span.chunks())) =>
            {
                let mut search = Search::new(self, value.owner, value.size).leaving_pages();
                let lacks = search.lacks(&missing).await;
                lacks.then_some(Readable::Partial { available_percent: percent.min(99) })
            }
            _ => None,
        }
    }

    /// What is known of a larger value, as soon as it is `enough`: from a count that still holds unless it is to be done `anew`, from the
    /// one that is under way, or from a new one.
    async fn count(
        self: &Arc<Self>,
        value: &Chunked,
        anew: bool,
        enough: impl FnMut(&Report) -> bool,
    ) -> Report {
        let begun = {
            let mut counts = self.residency.counts.lock();
            match counts.get(value.owner, |report| !anew && self.holds(report)) {
                Some(report) => Some((None, report)),
                None => counts.begin(value.owner).map(|(sender, report)| (Some(sender), report)),
            }
        };
        let not_now = || Report { end: Some(End::NotNow), ..Report::default() };
        let Some((sender, mut report)) = begun else { return not_now() };
        if let Some(sender) = sender {
            // It goes on when the client has gone: the next one will find it further on.
            tokio::spawn(Arc::clone(self).count_all(value.clone(), sender));
        }
        report.wait_for(enough).await.map_or_else(|_| not_now(), |report| report.clone())
    }

    /// Whether a count that has ended is as good as a new one.
    fn holds(&self, report: &Report) -> bool {
        let has_shrunk = |(place, before): (usize, &u64)| {
            self.tiers().get(place).is_none_or(|tier| tier.shrunk() != *before)
        };
        let mut tiers = report.shrunk.iter().enumerate();
        match report.end {
            Some(End::Whole { home: Some(home), .. }) => !tiers.nth(home).is_some_and(has_shrunk),
            Some(End::Whole { home: None, .. }) => !tiers.any(has_shrunk),
            Some(End::Partly { until }) => self.clock().elapsed() < until || !tiers.any(has_shrunk),
            Some(End::Gone | End::NotNow) | None => false,
        }
    }

    async fn count_all(self: Arc<Self>, value: Chunked, report: watch::Sender<Report>) {
        // It is never closed.
        let Ok(_turn) = self.residency.turns.acquire().await else { return };
        let began = self.clock().elapsed();
        let shrunk = self.tiers().iter().map(|tier| tier.shrunk()).collect();
        report.send_modify(|report| report.shrunk = shrunk);
        let tally = self.look_for_all(&value, &report).await;
        let end = match &tally {
            Err(NotNow) => End::NotNow,
            Ok(tally) if tally.missing.is_none() => {
                let home = (0..self.tiers().len()).rev().find(|place| tally.alone & (1 << place) != 0);
                End::Whole { slowest: tally.slowest, home }
            }
            Ok(tally) if tally.is_nothing() && self.vanish(&value).await => End::Gone,
            Ok(_) => {
                let now = self.clock().elapsed();
                End::Partly { until: now + now.saturating_sub(began) * REST }
            }
        };
        report.send_modify(|report| {
            report.end = Some(end);
            if let Ok(tally) = tally {
                (report.percent, report.missing) = (Some(tally.percent()), tally.missing);
            }
        });
    }

    /// Looks for all chunks of a value, and says what it finds as it goes.
    async fn look_for_all(&self, value: &Chunked, report: &watch::Sender<Report>) -> Result<Tally, NotNow> {
        let pages = tree::page_count(value.size);
        let chunks = tree::chunk_count(value.size);
        let numbers = |page: u64| page * PAGE_DIGESTS..chunks.min((page + 1) * PAGE_DIGESTS);
        let mut search = Search::new(self, value.owner, value.size).leaving_pages();
        if pages > SAMPLED {
            let mut sample = Tally::of_some();
            for page in (0..SAMPLED).map(|nth| nth * pages / SAMPLED) {
                search.look_for(numbers(page), SAMPLE_STEP, &mut sample).await?;
                tokio::task::yield_now().await;
            }
            report.send_modify(|report| {
                (report.percent, report.missing) = (Some(sample.percent().min(99)), sample.missing);
            });
        }
        let mut tally = Tally::of_all();
        for page in 0..pages {
            search.look_for(numbers(page), 1, &mut tally).await?;
            report.send_if_modified(|report| {
                let is_first = report.missing.is_none() && tally.missing.is_some();
                report.missing = report.missing.or(tally.missing);
                is_first
            });
            tokio::task::yield_now().await;
        }
        Ok(tally)
    }

    /// Removes a value of which nothing is left, unless the key has another one by now; whether it is gone.
    async fn vanish(self: &Arc<Self>, value: &Chunked) -> bool {
        let (engine, value) = (Arc::clone(self), value.clone());
        let removed = to_the_end(async move {
            let _writing = engine.order.write(&value.key).await;
            engine.ready().await?;
            for tier in engine.tiers() {
                match tier.root(&value.key).get().await {
                    Lookup::Hit(root) if root.meta.version == value.version => {}
                    Lookup::Miss => {}
                    Lookup::Hit(_) | Lookup::Busy => return Ok(false),
                }
            }
            for tier in engine.tiers().iter().rev() {
                tier.remove(&value.key).get().await.map_err(refused)?;
            }
            Ok::<_, WriteError>(true)
        });
        removed.await.unwrap_or(false)
    }
}
