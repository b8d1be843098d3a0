//! What of a draft is written.
//!
//! A page that is written has its digest here, and of its chunks only those that were written to since. So a value of 20 TB
//! that is all there takes as little as one of which there is hardly anything. Nothing that comes out of a record is trusted:
//! what does not fit the value is given back.

#[cfg(test)]
mod tests;

use elcache_core::digest::Digest;
use elcache_core::span::Span;
use elcache_core::staging::{Filling, FoundPage, Fragment, Gone};
use elcache_core::tier::{ChunkRef, Owner};
use elcache_core::tree::{CHUNK_SIZE, PAGE_DIGESTS};

use super::chunk::{Base, Chunk, Dropped, Layer};

/// A chunk has at most this many layers; when it has them, they are joined, a fragment for each of its runs.
pub(crate) const MAX_LAYERS: usize = 1024;
/// The most runs that joining may come to: it has to win something.
pub(crate) const MAX_RUNS: usize = 512;
/// A whole chunk that has more layers than these is written anew.
pub(crate) const MAX_OVERLAYS: usize = 16;
/// So is one that is written to when more whole chunks than these have layers.
pub(crate) const MAX_OVERLAID: u64 = 64;

/// What of a draft is written: a plain struct, all of whose operations are quick. Those that change it give back what the
/// draft counts on no more. A filling holds its chunk, and a page those that it names: what is given back of a filling that a
/// page has taken up is its own hold. `CHUNK` and `PAGE` are smaller in tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map<const CHUNK: u64 = CHUNK_SIZE, const PAGE: u64 = PAGE_DIGESTS> {
    draft: Owner,
    size: u64,
    /// By number. No room is left in this and other lists of a map: they are short, or many.
    pages: Vec<Page>,
    last_serial: u64,
    totals: Totals,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    number: u64,
    /// Its digests, merged, as long as there is a record of it.
    merged: Option<Digest>,
    /// That record's serial: older writes of its chunks count no more. It stays when the record is lost.
    serial: u64,
    /// By place: those that are not as [`Page::untouched`] has them.
    chunks: Vec<Chunk>,
}

/// Sums over all chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    /// Bytes that are there.
    written: u64,
    /// Chunks that are listed.
    chunks: u64,
    layers: u64,
    /// Whole chunks with layers on them.
    overlaid: u64,
}

/// The bytes `from..to` of a chunk, and where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Fragment(Fragment),
    Chunk(Digest),
    /// The chunk that the page's record names.
    InPage,
}

/// Ranges of which not every byte is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Start and end, in rising order; none touches the next.
    pub ranges: Vec<(u64, u64)>,
    /// There are more behind them.
    pub truncated: bool,
}

/// What is to be done after a write of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Write the chunk as a whole.
    Fill,
    /// Write a new fragment for each of [`Map::runs`].
    Join,
    /// Write its page, as far as [`Map::composition`] allows it.
    Compose,
}

/// What a page is written of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Composition {
    /// It is not all there, or its record says everything.
    Nothing,
    /// This chunk has to be filled first: a layer on it is older than another chunk's filling, and the page's serial can
    /// only be that of all or of none.
    First(u64),
    /// The page's record with this serial.
    Ready {
        serial: u64,
        /// Places and digests, rising: all of the page's, or those that differ from the record that there is.
        digests: Vec<(u16, Digest)>,
    },
}

/// A write of which too many separate ranges would come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyRanges;

/// Its size, and what of the value is where.
impl<const CHUNK: u64, const PAGE: u64> Map<CHUNK, PAGE> {
    /// The most by which one write makes a map larger.
    pub(crate) const GROWTH: u64 = (size_of::<Page>() + size_of::<Chunk>() + size_of::<Layer>()) as u64;

    pub(crate) fn new(draft: Owner, size: u64) -> Self {
        Self { draft, size, pages: Vec::new(), last_serial: 0, totals: Totals::default() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn written(&self) -> u64 {
        self.totals.written
    }

    /// The highest serial that it has been told of.
    pub(crate) fn last_serial(&self) -> u64 {
        self.last_serial
    }

    /// Fragments in it.
    pub(crate) fn fragments(&self) -> u64 {
        self.totals.layers
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        (self.pages.len() * size_of::<Page>()) as u64
            + self.totals.chunks * size_of::<Chunk>() as u64
            + self.totals.layers * size_of::<Layer>() as u64
    }

    fn chunk_count(&self) -> u64 {
        self.size.div_ceil(CHUNK)
    }

    /// A value of at most one chunk is one record: it has neither chunks nor pages that could be written.
    fn has_pages(&self) -> bool {
        self.size > CHUNK
    }

    /// The length of a chunk; 0 behind the end.
    fn len(&self, number: u64) -> u32 {
        self.size.saturating_sub(number.saturating_mul(CHUNK)).min(CHUNK) as u32
    }

    /// The chunks of a page; 0 behind the end.
    fn places(&self, page: u64) -> u64 {
        self.chunk_count().saturating_sub(page.saturating_mul(PAGE)).min(PAGE)
    }

    /// A listed chunk's number in the value.
    fn number(page: &Page, chunk: &Chunk) -> u64 {
        page.number * PAGE + u64::from(chunk.place)
    }

    /// The bytes of a page that is not behind the end.
    fn span_of(&self, page: u64) -> (u64, u64) {
        let start = page * PAGE * CHUNK;
        (start, start.saturating_add(PAGE * CHUNK).min(self.size))
    }
}

/// What changes it.
impl<const CHUNK: u64, const PAGE: u64> Map<CHUNK, PAGE> {
    /// Whether the bytes `from..to` of a chunk may be written now.
    pub(crate) fn admits(&self, number: u64, from: u32, to: u32) -> Result<(), TooManyRanges> {
        let mut chunk = self.chunk(number);
        if chunk.layers.len() + 1 < MAX_LAYERS {
            return Ok(());
        }
        chunk.lay(Layer { serial: u64::MAX, from, to, lost: false });
        chunk.settle(self.len(number), |_| ());
        let joinable = chunk.layers.len() < MAX_LAYERS
            || chunk.layers.len() == MAX_LAYERS && chunk.runs(self.len(number)).as_slice().len() <= MAX_RUNS;
        if joinable { Ok(()) } else { Err(TooManyRanges) }
    }

    /// A fragment is there.
    pub(crate) fn fragment(&mut self, fragment: Fragment) -> Vec<Gone> {
        let Fragment { chunk: number, serial, from, to, .. } = fragment;
        if from >= to || to > self.len(number) {
            return vec![Gone::Fragment(fragment)];
        }
        debug_assert_eq!(fragment.draft, self.draft, "a map is of one draft");
        self.last_serial = self.last_serial.max(serial);
        let mut gone = Vec::new();
        self.change(number, &mut gone, |chunk, _| chunk.lay(Layer { serial, from, to, lost: false }));
        gone
    }

    /// A chunk is there as a whole.
    pub(crate) fn fill(&mut self, filling: Filling) -> Vec<Gone> {
        let Filling { chunk: number, serial, digest, .. } = filling;
        let this = Gone::Chunk(ChunkRef { digest, number, len: self.len(number) });
        if !self.has_pages() || number >= self.chunk_count() {
            return vec![this, Gone::Filling(number)];
        }
        self.last_serial = self.last_serial.max(serial);
        let (old, of_page) = (self.chunk(number), self.page_serial(number / PAGE));
        if serial <= of_page {
            // Where there is a newer filling, that has taken the place of its record.
            let record = (old.floor <= of_page).then_some(Gone::Filling(number));
            return std::iter::once(this).chain(record).collect();
        }
        if serial < old.floor {
            return vec![this];
        }
        if serial == old.floor && old.base == Base::Filled(digest) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        self.change(number, &mut gone, |chunk, dropped| {
            chunk.rest_on(Base::Filled(digest), serial, dropped);
        });
        gone
    }

    /// A page's record is there, with chunks of it lost or found again.
    pub(crate) fn page(&mut self, found: &FoundPage) -> Vec<Gone> {
        let before = self.page_serial(found.number);
        if !self.has_pages() || self.places(found.number) == 0 || found.serial < before {
            return Vec::new();
        }
        self.last_serial = self.last_serial.max(found.serial);
        let mut gone = Vec::new();
        let elsewhere = self.untold(found.number);
        let page = self.page_mut(found.number);
        let added = if page.merged.is_none() { elsewhere } else { 0 };
        (page.merged, page.serial) = (Some(found.merged), found.serial);
        let listed: Vec<(u16, u64)> = page.chunks.iter().map(|chunk| (chunk.place, chunk.floor)).collect();
        self.totals.written += added;
        // From the last on: what is taken out of a list then moves nothing.
        for (place, floor) in listed.into_iter().rev().filter(|(_, floor)| *floor <= found.serial) {
            let number = found.number * PAGE + u64::from(place);
            gone.extend((floor > before).then_some(Gone::Filling(number)));
            self.change(number, &mut gone, |chunk, dropped| {
                chunk.rest_on(Base::InPage, found.serial, dropped);
            });
        }
        let places = self.places(found.number);
        for place in found.lost.iter().map(|place| u64::from(*place)).filter(|place| *place < places) {
            self.change(found.number * PAGE + place, &mut gone, |chunk, _| chunk.leave_page());
        }
        gone
    }

    /// Something that it counts on is lost. Its bytes are missing, also where older ones lie under them.
    pub(crate) fn lose(&mut self, what: Gone) -> Vec<Gone> {
        let mut gone = Vec::new();
        match what {
            Gone::Fragment(fragment) => self.change(fragment.chunk, &mut gone, |chunk, dropped| {
                let layer = chunk.layers.iter_mut().find(|layer| layer.serial == fragment.serial);
                if let Some(layer) = layer.filter(|layer| !layer.lost) {
                    dropped(Dropped::Layer(*layer));
                    layer.lost = true;
                }
            }),
            Gone::Filling(number) | Gone::Chunk(ChunkRef { number, .. }) => {
                self.change(number, &mut gone, |chunk, dropped| {
                    let lost = match (chunk.base, what) {
                        (Base::Filled(digest), Gone::Chunk(lost)) => lost.digest == digest,
                        (base, _) => matches!(base, Base::Filled(_)),
                    };
                    if lost {
                        chunk.rest_on(Base::Nothing, chunk.floor, dropped);
                    }
                });
            }
        }
        gone
    }

    /// A chunk that its page's record names is lost.
    pub(crate) fn lose_in_page(&mut self, number: u64) -> Vec<Gone> {
        let mut gone = Vec::new();
        self.change(number, &mut gone, |chunk, _| chunk.leave_page());
        gone
    }

    /// The record of a page is lost, and with it the chunks that only it named.
    pub(crate) fn lose_page(&mut self, number: u64) -> Vec<Gone> {
        if self.listed_page(number).is_none_or(|page| page.merged.is_none()) {
            return Vec::new();
        }
        self.totals.written -= self.untold(number);
        let page = self.page_mut(number);
        page.merged = None;
        let listed: Vec<u16> = page.chunks.iter().map(|chunk| chunk.place).collect();
        let mut gone = Vec::new();
        for place in listed.into_iter().rev() {
            self.change(number * PAGE + u64::from(place), &mut gone, |chunk, _| chunk.leave_page());
        }
        gone
    }

    /// Changes a chunk, and collects what it needs no more.
    fn change(
        &mut self,
        number: u64,
        gone: &mut Vec<Gone>,
        act: impl FnOnce(&mut Chunk, &mut dyn FnMut(Dropped)),
    ) {
        let (draft, len) = (self.draft, self.len(number));
        if len == 0 {
            return;
        }
        let mut dropped = |what| {
            gone.push(match what {
                Dropped::Base(digest) => Gone::Chunk(ChunkRef { digest, number, len }),
                Dropped::Layer(layer) => Gone::Fragment(layer.fragment(draft, number)),
            });
        };
        let mut chunk = self.chunk(number);
        self.totals.leave(&chunk);
        act(&mut chunk, &mut dropped);
        chunk.settle(len, &mut dropped);
        self.totals.enter(&chunk);
        let page = self.page_mut(number / PAGE);
        let listed = page.chunks.len();
        page.put(chunk, len);
        let (now, empty) = (page.chunks.len(), page.is_empty());
        self.totals.chunks = self.totals.chunks + now as u64 - listed as u64;
        if empty {
            self.pages.retain(|page| !page.is_empty());
            self.pages.shrink_to_fit();
        }
    }

    fn page_mut(&mut self, number: u64) -> &mut Page {
        let at = self.pages.partition_point(|page| page.number < number);
        if self.pages.get(at).is_none_or(|page| page.number != number) {
            self.pages.reserve_exact(1);
            self.pages.insert(at, Page { number, merged: None, serial: 0, chunks: Vec::new() });
        }
        &mut self.pages[at]
    }
}

/// What is asked of it.
impl<const CHUNK: u64, const PAGE: u64> Map<CHUNK, PAGE> {
    /// Whether every byte of the span is written.
    pub(crate) fn covers(&self, span: Span) -> bool {
        span.is_empty() || span.end() <= self.size && !self.gaps(span, 0).truncated
    }

    /// What is missing from offset `from` on, at most `most` ranges.
    pub(crate) fn missing(&self, from: u64, most: usize) -> Missing {
        Span::new(from, self.size).map_or_else(Missing::default, |span| self.gaps(span, most))
    }

    /// What of the span is missing, at most `most` ranges.
    pub(crate) fn missing_in(&self, span: Span, most: usize) -> Missing {
        let within = Span::new(span.start(), span.end().min(self.size));
        within.map_or_else(Missing::default, |span| self.gaps(span, most))
    }

    /// The serial of the last write that counts of a chunk.
    pub(crate) fn last_write(&self, number: u64) -> u64 {
        let chunk = self.chunk(number);
        chunk.layers.last().map_or(chunk.floor, |layer| layer.serial)
    }

    /// The pages of which there is a record.
    pub(crate) fn records(&self) -> impl Iterator<Item = u64> {
        self.pages.iter().filter(|page| page.merged.is_some()).map(|page| page.number)
    }

    /// Whether there is a record of the page.
    pub(crate) fn has_record(&self, number: u64) -> bool {
        self.listed_page(number).is_some_and(|page| page.merged.is_some())
    }

    /// Where the bytes `from..to` of a chunk are, in rising order; what no piece has is missing.
    pub(crate) fn plan(&self, number: u64, from: u32, to: u32) -> Vec<Piece> {
        let (chunk, draft) = (self.chunk(number), self.draft);
        let pieces = chunk.parts(self.len(number)).into_iter().filter_map(|part| {
            let source = match (part.layer, chunk.base) {
                (Some(layer), _) => Source::Fragment(layer.fragment(draft, number)),
                (None, Base::Filled(digest)) => Source::Chunk(digest),
                (None, Base::InPage) => Source::InPage,
                (None, Base::Nothing) => return None,
            };
            let piece = Piece { from: part.from.max(from), to: part.to.min(to), source };
            (piece.from < piece.to).then_some(piece)
        });
        pieces.collect()
    }

    /// The separate runs of a chunk that are written.
    pub(crate) fn runs(&self, number: u64) -> Vec<(u32, u32)> {
        self.chunk(number).runs(self.len(number)).as_slice().to_vec()
    }

    /// What is to be done after a write of this chunk.
    pub(crate) fn next_step(&self, number: u64) -> Step {
        let chunk = self.chunk(number);
        let whole = self.has_pages() && chunk.written > 0 && chunk.written == self.len(number);
        let crowded =
            chunk.is_overlaid() && (chunk.layers.len() > MAX_OVERLAYS || self.totals.overlaid > MAX_OVERLAID);
        if whole && (crowded || chunk.base == Base::Nothing) {
            return Step::Fill;
        }
        if chunk.layers.len() >= MAX_LAYERS {
            return Step::Join;
        }
        match self.composition(number / PAGE) {
            Composition::Nothing => Step::Nothing,
            Composition::First(_) | Composition::Ready { .. } => Step::Compose,
        }
    }

    /// What a page would be written of now. Its serial is that of its newest filling, so no write may be on its way. Chunks
    /// can be replaced while it is being written: whoever writes it takes a hold of each chunk that it names, or does not.
    pub(crate) fn composition(&self, number: u64) -> Composition {
        let Some(page) = self.listed_page(number).filter(|_| self.has_pages()) else {
            return Composition::Nothing;
        };
        let told = page.merged.is_some() || page.chunks.len() as u64 == self.places(number);
        let whole = |chunk: &Chunk| chunk.written == self.len(Self::number(page, chunk));
        if !told || !page.chunks.iter().all(whole) {
            return Composition::Nothing;
        }
        let filled = |chunk: &Chunk| match chunk.base {
            Base::Filled(digest) => Some((chunk.place, digest)),
            Base::Nothing | Base::InPage => None,
        };
        let digests: Vec<(u16, Digest)> = page.chunks.iter().filter_map(filled).collect();
        let fillings = page.chunks.iter().filter(|chunk| filled(chunk).is_some());
        let serial = fillings.map(|chunk| chunk.floor).max().unwrap_or(0);
        let holds_up = |chunk: &&Chunk| {
            chunk.base == Base::Nothing || chunk.layers.first().is_some_and(|layer| layer.serial <= serial)
        };
        match page.chunks.iter().find(holds_up) {
            Some(chunk) => Composition::First(Self::number(page, chunk)),
            None if digests.is_empty() => Composition::Nothing,
            None => Composition::Ready { serial, digests },
        }
    }

    /// Everything that it counts on besides pages and what they hold, in the order of the value.
    pub(crate) fn held(&self) -> impl Iterator<Item = Gone> {
        self.listed().flat_map(|(page, number, chunk)| {
            let (draft, len) = (self.draft, self.len(number));
            let layers = chunk.layers.iter().filter(|layer| !layer.lost);
            let fragments = layers.map(move |layer| Gone::Fragment(layer.fragment(draft, number)));
            let filled = match chunk.base {
                Base::Filled(digest) => Some(Gone::Chunk(ChunkRef { digest, number, len })),
                Base::Nothing | Base::InPage => None,
            };
            let record = (chunk.floor > page.serial).then_some(Gone::Filling(number));
            record.into_iter().chain(filled).chain(fragments)
        })
    }

    /// Chunks that are all there and have layers: they have to be filled before the value can be finished.
    pub(crate) fn to_fill(&self) -> impl Iterator<Item = u64> {
        let whole = |number, chunk: &Chunk| chunk.written == self.len(number) && !chunk.layers.is_empty();
        self.listed()
            .filter(|_| self.has_pages())
            .filter_map(move |(_, number, chunk)| whole(number, chunk).then_some(number))
    }

    /// Pages that are all there and whose record, if there is one, does not say everything.
    pub(crate) fn to_compose(&self) -> impl Iterator<Item = u64> {
        let numbers = self.pages.iter().map(|page| page.number);
        numbers.filter(|&number| self.composition(number) != Composition::Nothing)
    }

    /// The pages' merged digests in order, when they say everything: the value can be finished.
    pub(crate) fn merged(&self) -> Option<impl Iterator<Item = Digest>> {
        let all = self.totals.written == self.size && self.totals.chunks == 0;
        (all && self.has_pages()).then(|| self.pages.iter().filter_map(|page| page.merged))
    }

    fn gaps(&self, span: Span, most: usize) -> Missing {
        let mut gaps = Gaps { at: span.start(), end: span.end(), most, missing: Missing::default() };
        let first = self.pages.partition_point(|page| self.span_of(page.number).1 <= span.start());
        for page in self.pages.iter().skip(first) {
            let (mut at, end) = self.span_of(page.number);
            let skipped = page.chunks.partition_point(|chunk| {
                let number = Self::number(page, chunk);
                number * CHUNK + u64::from(self.len(number)) <= span.start()
            });
            for chunk in page.chunks.iter().skip(skipped) {
                let number = Self::number(page, chunk);
                let start = number * CHUNK;
                if page.merged.is_some() {
                    gaps.written(at, start);
                }
                for part in chunk.parts(self.len(number)) {
                    gaps.written(start + u64::from(part.from), start + u64::from(part.to));
                }
                at = start + u64::from(self.len(number));
                if gaps.is_done() {
                    return gaps.missing;
                }
            }
            if page.merged.is_some() {
                gaps.written(at, end);
            }
            if gaps.is_done() {
                return gaps.missing;
            }
        }
        gaps.missing_up_to(span.end());
        gaps.missing
    }

    fn listed_page(&self, number: u64) -> Option<&Page> {
        let at = self.pages.binary_search_by_key(&number, |page| page.number).ok()?;
        self.pages.get(at)
    }

    fn page_serial(&self, number: u64) -> u64 {
        self.listed_page(number).map_or(0, |page| page.serial)
    }

    /// A chunk, listed or not.
    fn chunk(&self, number: u64) -> Chunk {
        let place = (number % PAGE) as u16;
        let untouched = Page { number, merged: None, serial: 0, chunks: Vec::new() };
        self.listed_page(number / PAGE).unwrap_or(&untouched).chunk(place, self.len(number))
    }

    /// Everything that is listed, in order.
    fn listed(&self) -> impl Iterator<Item = (&Page, u64, &Chunk)> {
        self.pages
            .iter()
            .flat_map(|page| page.chunks.iter().map(move |chunk| (page, Self::number(page, chunk), chunk)))
    }

    /// The bytes of the chunks of a page that are not listed.
    fn untold(&self, number: u64) -> u64 {
        let (start, end) = self.span_of(number);
        let listed = self.listed_page(number).map_or(0, |page| {
            page.chunks.iter().map(|chunk| u64::from(self.len(Self::number(page, chunk)))).sum()
        });
        end - start - listed
    }
}

impl Page {
    /// A chunk of which its page says everything.
    fn untouched(&self, place: u16, len: u32) -> Chunk {
        let (base, written) = if self.merged.is_some() { (Base::InPage, len) } else { (Base::Nothing, 0) };
        Chunk { floor: self.serial, layers: Box::default(), written, place, base }
    }

    fn chunk(&self, place: u16, len: u32) -> Chunk {
        let listed = self.chunks.binary_search_by_key(&place, |chunk| chunk.place).ok();
        let listed = listed.and_then(|at| self.chunks.get(at));
        listed.map_or_else(|| self.untouched(place, len), Chunk::clone)
    }

    /// Lists a chunk if it has to be.
    fn put(&mut self, chunk: Chunk, len: u32) {
        let listed = self.chunks.binary_search_by_key(&chunk.place, |chunk| chunk.place);
        match (listed, chunk == self.untouched(chunk.place, len)) {
            (Ok(at), false) => self.chunks[at] = chunk,
            (Ok(at), true) => {
                self.chunks.remove(at);
                self.chunks.shrink_to_fit();
            }
            (Err(at), false) => {
                self.chunks.reserve_exact(1);
                self.chunks.insert(at, chunk);
            }
            (Err(_), true) => {}
        }
    }

    /// Whether it is as if it had never been written to.
    fn is_empty(&self) -> bool {
        self.merged.is_none() && self.serial == 0 && self.chunks.is_empty()
    }
}

impl Totals {
    fn leave(&mut self, chunk: &Chunk) {
        self.written -= u64::from(chunk.written);
        self.layers -= chunk.layers.len() as u64;
        self.overlaid -= u64::from(chunk.is_overlaid());
    }

    fn enter(&mut self, chunk: &Chunk) {
        self.written += u64::from(chunk.written);
        self.layers += chunk.layers.len() as u64;
        self.overlaid += u64::from(chunk.is_overlaid());
    }
}

/// Collects what lies between written ranges.
struct Gaps {
    /// Up to here it is known.
    at: u64,
    end: u64,
    most: usize,
    missing: Missing,
}

impl Gaps {
    /// The next range that is written; it begins where the last one ended or behind it.
    fn written(&mut self, from: u64, to: u64) {
        if from < to {
            self.missing_up_to(from.min(self.end));
            self.at = self.at.max(to);
        }
    }

    fn missing_up_to(&mut self, to: u64) {
        if self.at < to && !self.is_done() {
            self.missing.truncated = self.missing.ranges.len() == self.most;
            self.missing.ranges.extend((!self.missing.truncated).then_some((self.at, to)));
        }
    }

    fn is_done(&self) -> bool {
        self.missing.truncated || self.at >= self.end
    }
}
