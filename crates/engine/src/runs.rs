//! Which bytes of a value are there, run by run.

use std::ops::Range;
use std::sync::Arc;

use elcache_core::span::Span;
use elcache_core::tier::TierName;
use elcache_core::tree::CHUNK_SIZE;

use crate::engine::Engine;
use crate::outcome::Value;
use crate::residency::Chunked;
use crate::search::{NotNow, Search, Tally, by_page};

/// Pages that are looked into for one answer (512 GiB of the value): who wants more asks again from where it ended.
const PAGES: usize = 64;

/// What is there of a span of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Offset and length of each run, upwards. Two of them never touch.
    pub ranges: Vec<(u64, u64)>,
    /// What lies before this offset has been looked at; what lies behind it may be there or not.
    pub covered: u64,
    /// The slowest tier that would take part in reading them.
    pub slowest: TierName,
}

impl Runs {
    /// Adds what lies under a chunk that is there. False, and nothing is added, where that would make more than `most` runs.
    fn add(&mut self, bytes: Range<u64>, most: usize) -> bool {
        let (is_full, more) = (self.ranges.len() >= most, bytes.end - bytes.start);
        match self.ranges.last_mut() {
            Some((start, len)) if *start + *len == bytes.start => *len += more,
            _ if is_full => return false,
            _ => self.ranges.push((bytes.start, more)),
        }
        true
    }
}

impl Engine {
    /// Which bytes of a span of a value are there, in at most so many runs; `None` when a tier cannot say at the moment.
    pub async fn runs(self: &Arc<Self>, value: &Value, span: Span, most: usize) -> Option<Runs> {
        let mut runs = Runs { ranges: Vec::new(), covered: span.start(), slowest: value.tier };
        let Some(Chunked { owner, size, .. }) = value.chunked() else {
            if span.is_empty() || runs.add(span.start()..span.end(), most) {
                runs.covered = span.end();
            }
            return Some(runs);
        };
        let mut search = Search::new(self, owner, size).leaving_pages();
        let mut tally = Tally::of_some();
        for numbers in by_page(span.chunks()).take(PAGES) {
            let here = search.look_for(numbers.clone(), 1, &mut tally).await.ok()?;
            runs.slowest = tally.slowest.max(value.tier);
            for (number, here) in numbers.zip(here) {
                let bytes = under(span, number);
                if here && !runs.add(bytes.clone(), most) {
                    return Some(runs);
                }
                runs.covered = bytes.end;
            }
            tokio::task::yield_now().await;
        }
        Some(runs)
    }

    /// What of a span is there before the first byte that is missing, and the slowest tier that takes part; `None` when a tier cannot
    /// say at the moment.
    pub async fn beginning(self: &Arc<Self>, value: &Value, span: Span) -> Option<(Span, TierName)> {
        let Some(Chunked { owner, size, .. }) = value.chunked() else { return Some((span, value.tier)) };
        let mut search = Search::new(self, owner, size).leaving_pages();
        let mut slowest = value.tier;
        for numbers in by_page(span.chunks()) {
            let first = numbers.start;
            let (here, of_page) = look(&mut search, numbers).await.ok()?;
            if let Some(there) = here.iter().position(|here| !here) {
                let missing = first + there as u64;
                let (_, before) = look(&mut search, first..missing).await.ok()?;
                let end = under(span, missing).start;
                return Some((Span::new(span.start(), end)?, slowest.max(before)));
            }
            slowest = slowest.max(of_page);
            tokio::task::yield_now().await;
        }
        Some((span, slowest))
    }
}

async fn look(search: &mut Search<'_>, numbers: Range<u64>) -> Result<(Vec<bool>, TierName), NotNow> {
    let mut tally = Tally::of_some();
    let here = search.look_for(numbers, 1, &mut tally).await?;
    Ok((here, tally.slowest))
}

/// The bytes of a span that lie in a chunk which it touches.
fn under(span: Span, number: u64) -> Range<u64> {
    let start = number * CHUNK_SIZE;
    start.max(span.start())..(start + CHUNK_SIZE).min(span.end())
}
