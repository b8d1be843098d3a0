//! A small draft byte by byte, and beside its map what a tier would have of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

pub(super) const CHUNK: u64 = 20;
const PAGE: u64 = 3;
pub(super) type Small = Map<CHUNK, PAGE>;

/// A draft as it is: each byte is the serial of the write that it is from, and beside it what is durable.
pub(super) struct World {
    pub(super) map: Small,
    bytes: Vec<Option<u64>>,
    serial: u64,
    digests: u64,
    /// With their bytes.
    fragments: BTreeMap<(u64, u64), (Fragment, Vec<u64>)>,
    fillings: BTreeMap<u64, Filling>,
    chunks: BTreeMap<Digest, Kept>,
    pub(super) pages: BTreeMap<u64, (FoundPage, Vec<Digest>)>,
    /// What has been forgotten, and may be found once more by a restart.
    garbage: Vec<Fragment>,
    old_fillings: BTreeMap<u64, Filling>,
    /// A page that is being written.
    composing: Option<(u64, u64, Vec<Digest>)>,
    /// A fragment or a page's record was lost: a restart does not know what it hid.
    lossy: bool,
    /// Pages whose record is lost.
    lost_pages: BTreeSet<u64>,
}

/// A chunk as the tier has it.
#[derive(Default)]
struct Kept {
    bytes: Vec<u64>,
    holds: u32,
    lost: bool,
}

/// Numbers are picked modulo what there is.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Write(u64, u32, u32),
    Fill(u64),
    Combine(u64),
    Join(u64),
    BeginPage(u64),
    EndPage,
    LoseFragment(usize),
    LoseFilling(usize),
    LoseInPage(u64, u16),
    LosePage(u64),
    Restart(u64),
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (any::<u64>(), 0..CHUNK as u32, 1..=CHUNK as u32).prop_map(|(chunk, from, len)| Act::Write(chunk, from, len)),
        8 => any::<u64>().prop_map(Act::Fill),
        4 => any::<u64>().prop_map(Act::Combine),
        1 => any::<u64>().prop_map(Act::Join),
        4 => any::<u64>().prop_map(Act::BeginPage),
        4 => Just(Act::EndPage),
        1 => any::<usize>().prop_map(Act::LoseFragment),
        1 => any::<usize>().prop_map(Act::LoseFilling),
        1 => (any::<u64>(), 0..PAGE as u16).prop_map(|(page, place)| Act::LoseInPage(page, place)),
        1 => any::<u64>().prop_map(Act::LosePage),
        2 => any::<u64>().prop_map(Act::Restart),
    ]
}

impl World {
    pub(super) fn new(size: u64) -> Self {
        World {
            map: Small::new(DRAFT, size),
            bytes: vec![None; size as usize],
            serial: 0,
            digests: 0,
            fragments: BTreeMap::new(),
            fillings: BTreeMap::new(),
            chunks: BTreeMap::new(),
            pages: BTreeMap::new(),
            garbage: Vec::new(),
            old_fillings: BTreeMap::new(),
            composing: None,
            lossy: false,
            lost_pages: BTreeSet::new(),
        }
    }

    pub(super) fn do_it(&mut self, act: Act) {
        let count = self.map.chunk_count();
        let pages = count.div_ceil(PAGE);
        if count == 0 {
            return;
        }
        match act {
            Act::Write(chunk, from, len) => self.write(chunk % count, from, len),
            Act::Fill(chunk) => self.write(chunk % count, 0, CHUNK as u32),
            Act::Combine(chunk) => self.combine(chunk % count),
            Act::Join(chunk) => self.join(chunk % count),
            Act::BeginPage(page) => self.begin_page(page % pages),
            Act::EndPage => self.end_page(),
            Act::LoseFragment(nth) => self.lose_fragment(nth),
            Act::LoseFilling(nth) => self.lose_filling(nth),
            Act::LoseInPage(page, place) => self.lose_in_page(page % pages, place),
            Act::LosePage(page) => self.lose_page(page % pages),
            Act::Restart(seed) => self.restart(seed),
        }
    }

    fn len(&self, chunk: u64) -> u32 {
        self.map.len(chunk)
    }

    fn of_chunk(&mut self, chunk: u64) -> &mut [Option<u64>] {
        let start = (chunk * CHUNK) as usize;
        let len = self.len(chunk) as usize;
        &mut self.bytes[start..start + len]
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn write(&mut self, chunk: u64, from: u32, len: u32) {
        let end = self.len(chunk);
        let (from, to) = (from % end, (from % end + len).min(end));
        let serial = self.next();
        assert_eq!(self.map.admits(chunk, from, to), Ok(()));
        self.of_chunk(chunk)[from as usize..to as usize].fill(Some(serial));
        if to - from == end && self.map.has_pages() {
            self.fill(chunk, serial, vec![serial; end as usize]);
        } else {
            self.lay(fragment(chunk, serial, from, to), vec![serial; (to - from) as usize]);
        }
    }

    fn lay(&mut self, fragment: Fragment, bytes: Vec<u64>) {
        self.fragments.insert((fragment.chunk, fragment.serial), (fragment, bytes));
        let gone = self.map.fragment(fragment);
        self.forget(gone);
    }

    fn fill(&mut self, chunk: u64, serial: u64, bytes: Vec<u64>) {
        self.digests += 1;
        let filling = Filling { digest: digest(self.digests), ..filling(chunk, serial) };
        self.chunks.insert(filling.digest, Kept { bytes, holds: 1, lost: false });
        self.fillings.insert(chunk, filling);
        let gone = self.map.fill(filling);
        self.forget(gone);
    }

    fn forget(&mut self, gone: Vec<Gone>) {
        for gone in gone {
            match gone {
                Gone::Fragment(fragment) => {
                    let of = (fragment.chunk, fragment.serial);
                    assert_eq!(self.fragments.remove(&of).expect("given back twice").0, fragment);
                    self.garbage.push(fragment);
                }
                Gone::Filling(chunk) => {
                    let old = self.fillings.remove(&chunk).expect("given back twice");
                    self.old_fillings.insert(chunk, old);
                }
                Gone::Chunk(chunk) => {
                    assert_eq!(chunk.len, self.len(chunk.number));
                    self.chunks.get_mut(&chunk.digest).unwrap().release();
                }
            }
        }
    }

    /// What a plan's pieces come to.
    fn read(&self, chunk: u64, pieces: &[Piece]) -> Vec<Option<u64>> {
        let mut bytes = vec![None; self.len(chunk) as usize];
        for &Piece { from, to, source } in pieces {
            let (from, to) = (from as usize, to as usize);
            assert!(from < to && bytes[from..].iter().all(Option::is_none), "in rising order");
            let source = match source {
                Source::Fragment(fragment) => {
                    let (kept, bytes) = &self.fragments[&(chunk, fragment.serial)];
                    assert_eq!(*kept, fragment);
                    &bytes[from - fragment.from as usize..to - fragment.from as usize]
                }
                Source::Chunk(digest) => self.chunks[&digest].read(from, to),
                Source::InPage => {
                    let digest = self.pages[&(chunk / PAGE)].1[(chunk % PAGE) as usize];
                    self.chunks[&digest].read(from, to)
                }
            };
            for (byte, serial) in bytes[from..to].iter_mut().zip(source) {
                *byte = Some(*serial);
            }
        }
        bytes
    }

    fn plan(&self, chunk: u64) -> Vec<Piece> {
        self.map.plan(chunk, 0, self.len(chunk))
    }

    pub(super) fn combine(&mut self, chunk: u64) {
        let pieces = self.plan(chunk);
        let serials = pieces.iter().filter_map(|piece| match piece.source {
            Source::Fragment(fragment) => Some(fragment.serial),
            _ => None,
        });
        let bytes: Option<Vec<u64>> = self.read(chunk, &pieces).into_iter().collect();
        if let (Some(serial), Some(bytes), true) = (serials.max(), bytes, self.map.has_pages()) {
            self.fill(chunk, serial, bytes);
        }
    }

    fn join(&mut self, chunk: u64) {
        let bytes = self.read(chunk, &self.plan(chunk));
        let runs = self.map.runs(chunk);
        for &(from, to) in &runs {
            let serial = self.next();
            let bytes = bytes[from as usize..to as usize].iter().map(|byte| byte.unwrap()).collect();
            self.lay(fragment(chunk, serial, from, to), bytes);
        }
        let fragments = self.fragments.range((chunk, 0)..(chunk + 1, 0)).count();
        assert_eq!(fragments, runs.len(), "nothing is left of what was there");
    }

    pub(super) fn begin_page(&mut self, number: u64) {
        match self.map.composition(number) {
            Composition::Nothing => {}
            Composition::First(chunk) => {
                self.combine(chunk);
                assert_ne!(self.map.composition(number), Composition::First(chunk));
            }
            Composition::Ready { serial, digests } => {
                let mut all = self.pages.get(&number).map(|page| page.1.clone());
                let all = all.get_or_insert_with(|| digests.iter().map(|(_, digest)| *digest).collect());
                digests.iter().for_each(|&(place, digest)| all[usize::from(place)] = digest);
                assert_eq!(all.len() as u64, self.map.places(number));
                self.composing = Some((number, serial, all.clone()));
            }
        }
    }

    pub(super) fn end_page(&mut self) {
        let Some((number, serial, digests)) = self.composing.take() else { return };
        // What was replaced or lost in the meantime is not written.
        if digests.iter().any(|digest| self.chunks[digest].holds == 0) {
            return;
        }
        let found = page(number, serial);
        digests.iter().for_each(|digest| self.chunks.get_mut(digest).unwrap().holds += 1);
        let mut lost = found.clone();
        lost.lost.extend(
            (0..).zip(&digests).filter(|(_, digest)| self.chunks[digest].lost).map(|(place, _)| place),
        );
        if let Some((_, old)) = self.pages.insert(number, (lost.clone(), digests)) {
            old.iter().for_each(|digest| self.chunks.get_mut(digest).unwrap().release());
        }
        self.lost_pages.remove(&number);
        let gone = self.map.page(&lost);
        self.forget(gone);
    }

    /// The bytes that plans take from this source are there no more.
    fn blot(&mut self, chunk: u64, lost: impl Fn(Source) -> bool) {
        for piece in self.plan(chunk).into_iter().filter(|piece| lost(piece.source)) {
            self.of_chunk(chunk)[piece.from as usize..piece.to as usize].fill(None);
        }
    }

    fn lose_fragment(&mut self, nth: usize) {
        let Some(&(fragment, _)) = self.fragments.values().nth(nth % self.fragments.len().max(1)) else {
            return;
        };
        self.blot(fragment.chunk, |source| source == Source::Fragment(fragment));
        let gone = self.map.lose(Gone::Fragment(fragment));
        assert!(gone.contains(&Gone::Fragment(fragment)));
        self.forget(gone);
        self.garbage.retain(|garbage| *garbage != fragment);
        self.lossy = true;
    }

    fn lose_filling(&mut self, nth: usize) {
        let Some(&Filling { chunk, digest, .. }) =
            self.fillings.values().nth(nth % self.fillings.len().max(1))
        else {
            return;
        };
        self.blot(chunk, |source| source == Source::Chunk(digest));
        self.chunks.get_mut(&digest).unwrap().lost = true;
        let gone = self.map.lose(Gone::Chunk(ChunkRef { digest, number: chunk, len: self.len(chunk) }));
        self.forget(gone);
        // An older page may name it too.
        let place = (chunk % PAGE) as usize;
        if self.pages.get(&(chunk / PAGE)).is_some_and(|page| page.1.get(place) == Some(&digest)) {
            self.lose_in_page(chunk / PAGE, place as u16);
        }
    }

    fn lose_in_page(&mut self, number: u64, place: u16) {
        let chunk = number * PAGE + u64::from(place);
        let Some((found, digests)) = self.pages.get_mut(&number) else { return };
        let Some(&digest) = digests.get(usize::from(place)) else { return };
        found.lost.push(place);
        let found = found.clone();
        self.blot(chunk, |source| source == Source::InPage || source == Source::Chunk(digest));
        self.chunks.get_mut(&digest).unwrap().lost = true;
        let gone = self.map.page(&found);
        self.forget(gone);
        let gone = self.map.lose(Gone::Chunk(ChunkRef { digest, number: chunk, len: self.len(chunk) }));
        self.forget(gone);
    }

    fn lose_page(&mut self, number: u64) {
        let Some((_, digests)) = self.pages.remove(&number) else { return };
        for chunk in number * PAGE..number * PAGE + digests.len() as u64 {
            self.blot(chunk, |source| source == Source::InPage);
        }
        digests.iter().for_each(|digest| self.chunks.get_mut(digest).unwrap().release());
        let gone = self.map.lose_page(number);
        self.forget(gone);
        self.composing.take_if(|composing| composing.0 == number);
        self.lossy = true;
        self.lost_pages.insert(number);
    }

    /// A map that is told in some order what is found comes to what this one is. Of what a lost fragment or page hid it cannot
    /// know: then it has at least everything that this one has.
    pub(super) fn restart(&mut self, seed: u64) {
        let mut dice = Dice(seed);
        let mut garbage: Vec<Fragment> = self.garbage.clone();
        let mut old: Vec<Filling> = self.old_fillings.values().copied().collect();
        garbage.retain(|_| dice.throw(2) == 0);
        old.retain(|old| !self.fillings.contains_key(&old.chunk) && dice.throw(2) == 0);
        let mut again = self.map.clone();
        self.tell(&mut again, &garbage, &old, &mut dice);
        assert_eq!(again, self.map, "what is found once more changes nothing");

        let mut map = Small::new(DRAFT, self.map.size());
        if self.lossy {
            (garbage, old) = (Vec::new(), Vec::new());
        }
        let gone = self.tell(&mut map, &garbage, &old, &mut dice);
        let (mut fragments, mut fillings) = (BTreeSet::new(), BTreeSet::new());
        for gone in gone {
            match gone {
                Gone::Fragment(fragment) => assert!(fragments.insert((fragment.chunk, fragment.serial))),
                Gone::Filling(chunk) => assert!(fillings.insert(chunk)),
                Gone::Chunk(_) => {}
            }
        }
        assert_eq!(fragments, garbage.iter().map(|garbage| (garbage.chunk, garbage.serial)).collect());
        assert_eq!(fillings, old.iter().map(|old| old.chunk).collect());
        assert!(map.last_serial() <= self.map.last_serial());
        map.last_serial = self.map.last_serial;
        if !self.lossy {
            assert_eq!(map, self.map);
        }
        for chunk in 0..map.chunk_count() {
            let found = map.plan(chunk, 0, self.len(chunk));
            let there = |piece: &Piece| {
                let mut over = found.iter().filter(|found| found.source == piece.source);
                over.any(|found| found.from <= piece.from && piece.to <= found.to)
            };
            assert!(self.plan(chunk).iter().all(there));
        }
    }

    /// Tells a map everything that is durable, in some order.
    fn tell(&self, map: &mut Small, garbage: &[Fragment], old: &[Filling], dice: &mut Dice) -> Vec<Gone> {
        let mut found: Vec<Found> = Vec::new();
        found.extend(self.fragments.values().map(|(fragment, _)| Found::Fragment(*fragment)));
        found.extend(garbage.iter().map(|fragment| Found::Fragment(*fragment)));
        found.extend(self.fillings.values().chain(old).map(|filling| Found::Filling(*filling)));
        found.extend(self.pages.values().map(|(page, _)| Found::Page(page.clone())));
        (1..found.len()).rev().for_each(|at| found.swap(at, dice.throw(at as u64 + 1) as usize));
        let mut gone = Vec::new();
        for found in found {
            gone.extend(match found {
                Found::Fragment(fragment) => map.fragment(fragment),
                Found::Page(ref page) => map.page(page),
                Found::Filling(filling) => map.fill(filling),
            });
            if let Found::Filling(Filling { chunk: number, digest, .. }) = found
                && self.chunks[&digest].lost
            {
                gone.extend(map.lose(Gone::Chunk(ChunkRef { digest, number, len: 1 })));
            }
            map.check();
        }
        gone
    }

    pub(super) fn check(&mut self, from: u64, len: u64, most: usize) {
        self.map.check();
        let (mut named, mut held) = (BTreeSet::new(), BTreeMap::<Digest, u32>::new());
        let mut expected_of_map = BTreeSet::new();
        for chunk in 0..self.map.chunk_count() {
            let pieces = self.plan(chunk);
            assert_eq!(self.read(chunk, &pieces), self.of_chunk(chunk), "chunk {chunk}");
            let (from, to) = ((from % CHUNK) as u32, (from % CHUNK + len % CHUNK) as u32);
            let cut = pieces.iter().map(|p| Piece { from: p.from.max(from), to: p.to.min(to), ..*p });
            let cut: Vec<Piece> = cut.filter(|piece| piece.from < piece.to).collect();
            assert_eq!(self.map.plan(chunk, from, to), cut);
            for piece in pieces {
                match piece.source {
                    Source::Fragment(fragment) => _ = named.insert((chunk, fragment.serial)),
                    Source::Chunk(digest) => assert_eq!(self.fillings[&chunk].digest, digest),
                    Source::InPage => {}
                }
            }
            let of_page = self.pages.get(&(chunk / PAGE)).map_or(0, |page| page.0.serial);
            if self.fillings.get(&chunk).is_some_and(|filling| filling.serial > of_page) {
                expected_of_map.insert(chunk);
            }
        }
        assert_eq!(
            named,
            self.fragments.keys().copied().collect(),
            "what no plan needs is given back, and no more"
        );
        if self.lost_pages.is_empty() {
            assert_eq!(expected_of_map, self.fillings.keys().copied().collect());
        }
        let there = self.fillings.values().filter(|filling| !self.chunks[&filling.digest].lost);
        held.extend(there.map(|filling| (filling.digest, 1)));
        self.check_held(&named, &held);
        for digest in self.pages.values().flat_map(|page| &page.1) {
            *held.entry(*digest).or_default() += 1;
        }
        let holds: BTreeMap<Digest, u32> = self
            .chunks
            .iter()
            .filter(|(_, kept)| kept.holds > 0)
            .map(|(digest, kept)| (*digest, kept.holds))
            .collect();
        assert_eq!(holds, held);
        self.check_ranges(from, len, most);
    }

    fn check_held(&self, fragments: &BTreeSet<(u64, u64)>, chunks: &BTreeMap<Digest, u32>) {
        let (mut listed, mut fillings, mut digests) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for held in self.map.held() {
            match held {
                Gone::Fragment(fragment) => assert!(listed.insert((fragment.chunk, fragment.serial))),
                Gone::Filling(chunk) => assert!(fillings.insert(chunk)),
                Gone::Chunk(chunk) => *digests.entry(chunk.digest).or_default() += 1,
            }
        }
        assert_eq!((&listed, &digests), (fragments, chunks));
        assert_eq!(fillings, self.fillings.keys().copied().collect());
    }

    fn check_ranges(&self, from: u64, len: u64, most: usize) {
        assert_eq!(self.map.written(), self.bytes.iter().flatten().count() as u64);
        let size = self.map.size();
        let from = from % (size + 2);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for at in (from..size).filter(|&at| self.bytes[at as usize].is_none()) {
            match ranges.last_mut().filter(|range| range.1 == at) {
                Some(range) => range.1 += 1,
                None => ranges.push((at, at + 1)),
            }
        }
        let truncated = ranges.len() > most;
        let all = ranges.clone();
        ranges.truncate(most);
        assert_eq!(self.map.missing(from, most), Missing { ranges, truncated });
        assert_eq!(self.map.missing(from, usize::MAX), Missing { ranges: all, truncated: false });
        let span = Span::new(from, from + len % (size + 2)).unwrap();
        let covered =
            (span.start()..span.end()).all(|at| self.bytes.get(at as usize).is_some_and(Option::is_some));
        assert_eq!(self.map.covers(span), covered);
        if self.map.written() < size {
            assert!(self.map.merged().is_none());
        }
    }
}

enum Found {
    Fragment(Fragment),
    Filling(Filling),
    Page(FoundPage),
}

impl Kept {
    fn read(&self, from: usize, to: usize) -> &[u64] {
        assert!(self.holds > 0 && !self.lost, "a plan names what is there");
        &self.bytes[from..to]
    }

    fn release(&mut self) {
        self.holds = self.holds.checked_sub(1).expect("a hold is given up once");
    }
}
