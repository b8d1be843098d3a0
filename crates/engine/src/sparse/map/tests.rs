mod world;

use elcache_core::MAX_VALUE_SIZE;
use elcache_core::key::KeyHash;
use elcache_core::tree::{chunk_count, page_count};
use elcache_core::value::Version;
use proptest::prelude::*;

use super::*;
use world::{Act, CHUNK, Small, World, act};

const DRAFT: Owner = Owner { key: KeyHash([7; 16]), version: Version { view: 0, sequence: 9 } };

fn digest(number: u64) -> Digest {
    Digest(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn fragment(chunk: u64, serial: u64, from: u32, to: u32) -> Fragment {
    Fragment { draft: DRAFT, chunk, serial, from, to }
}

fn filling(chunk: u64, serial: u64) -> Filling {
    Filling { draft: DRAFT, chunk, serial, digest: digest(serial) }
}

fn page(number: u64, serial: u64) -> FoundPage {
    FoundPage { number, serial, merged: digest(serial), lost: Vec::new() }
}

fn map(size: u64) -> Map {
    Map::new(DRAFT, size)
}

impl<const CHUNK: u64, const PAGE: u64> Map<CHUNK, PAGE> {
    /// Panics unless its sums are those of what is listed, and its lists have no room to spare.
    fn check(&self) {
        let mut totals = Totals::default();
        let (mut capacity, mut untold) = (self.pages.capacity() * size_of::<Page>(), 0);
        for page in &self.pages {
            assert!(!page.is_empty());
            assert!(page.chunks.windows(2).all(|pair| pair[0].place < pair[1].place));
            untold += if page.merged.is_some() { self.untold(page.number) } else { 0 };
            capacity += page.chunks.capacity() * size_of::<Chunk>();
            for chunk in &page.chunks {
                totals.enter(chunk);
                totals.chunks += 1;
                capacity += chunk.layers.len() * size_of::<Layer>();
                assert!(chunk.floor >= page.serial);
                assert!(chunk.layers.windows(2).all(|pair| pair[0].serial < pair[1].serial));
            }
        }
        totals.written += untold;
        assert_eq!(self.totals, totals);
        assert_eq!(self.heap_bytes(), capacity as u64);
    }
}

/// Numbers that look random: splitmix64.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mix = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mix = (mix ^ (mix >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mix ^ (mix >> 31)) % sides
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_map_says_of_every_byte_where_it_is_and_gives_back_what_nobody_needs(
        size in prop_oneof![1 => 0..=CHUNK, 4 => CHUNK..5 * CHUNK, 2 => CHUNK..10 * CHUNK],
        acts in proptest::collection::vec((act(), any::<u64>(), any::<u64>(), 0_usize..6), 1..120),
        lossy in any::<bool>(),
    ) {
        let mut world = World::new(size);
        for (act, from, len, most) in acts {
            if lossy || !matches!(act, Act::LoseFragment(_) | Act::LosePage(_)) {
                world.do_it(act);
            }
            world.check(from % (1 << 40), len % (1 << 40), most);
        }
        world.restart(size);
    }

    /// Whatever is written, filling what is all there and composing what is full comes to a value that can be finished.
    #[test]
    fn what_is_all_written_comes_to_its_pages(
        size in CHUNK + 1..12 * CHUNK,
        acts in proptest::collection::vec((any::<u64>(), 0..CHUNK as u32, 1..=CHUNK as u32), 0..80),
    ) {
        let mut world = World::new(size);
        acts.into_iter().for_each(|(chunk, from, len)| world.do_it(Act::Write(chunk, from, len)));
        while let Some(&(start, _)) = world.map.missing(0, 1).ranges.first() {
            world.write(start / CHUNK, (start % CHUNK) as u32, 7);
        }
        let chunks: Vec<u64> = world.map.to_fill().collect();
        chunks.into_iter().for_each(|chunk| world.combine(chunk));
        let pages: Vec<u64> = world.map.to_compose().collect();
        for page in pages {
            world.begin_page(page);
            world.end_page();
        }
        world.check(0, size, 3);
        let merged: Vec<Digest> = world.map.merged().unwrap().collect();
        prop_assert_eq!(merged, world.pages.values().map(|page| page.0.merged).collect::<Vec<_>>());
        prop_assert_eq!((world.map.held().count(), world.map.fragments()), (0, 0));
    }
}

#[test]
fn a_listed_chunk_is_as_large_as_it_is_said_to_be() {
    assert_eq!((size_of::<Chunk>(), size_of::<Layer>()), (64, 24));
    assert!(size_of::<Page>() <= 100);
}

/// A fragment on a whole chunk was acknowledged and is lost. The chunk's own bytes are older: a value that has them there
/// would be one that nobody wrote.
#[test]
fn what_is_lost_is_missing_even_where_older_bytes_lie_under_it() {
    let mut map = map(3 * CHUNK_SIZE);
    map.fill(filling(1, 1));
    map.fragment(fragment(1, 2, 100, 200));
    assert_eq!(
        map.lose(Gone::Fragment(fragment(1, 2, 100, 200))),
        [Gone::Fragment(fragment(1, 2, 100, 200))]
    );
    assert_eq!(map.missing(CHUNK_SIZE, 1).ranges, [(CHUNK_SIZE + 100, CHUNK_SIZE + 200)]);
    assert_eq!(map.plan(1, 150, 250), [Piece { from: 200, to: 250, source: Source::Chunk(digest(1)) }]);
    // It is found again, or written again.
    let mut found = map.clone();
    assert_eq!(found.fragment(fragment(1, 2, 100, 200)), []);
    map.fragment(fragment(1, 3, 90, 210));
    for map in [found, map] {
        assert_eq!(map.written(), CHUNK_SIZE);
        map.check();
    }
}

/// A directory goes and comes back: what is found in it again is older than what was lost elsewhere in the meantime.
#[test]
fn what_is_found_again_does_not_shine_through_what_is_lost() {
    let mut map = map(3 * CHUNK_SIZE);
    let (older, newer) = (fragment(1, 2, 0, 150), fragment(1, 3, 100, 200));
    map.fill(filling(1, 1));
    map.fragment(older);
    map.fragment(newer);
    map.lose(Gone::Fragment(newer));
    map.lose(Gone::Fragment(older));
    map.lose(Gone::Filling(1));
    assert_eq!((map.written(), map.fragments()), (0, 2));
    map.fragment(older);
    assert_eq!(map.missing(CHUNK_SIZE, 1).ranges, [(CHUNK_SIZE + 100, 3 * CHUNK_SIZE)]);
    map.fill(filling(1, 1));
    assert_eq!(map.missing(CHUNK_SIZE, 1).ranges, [(CHUNK_SIZE + 100, CHUNK_SIZE + 200)]);
    assert_eq!(map.next_step(1), Step::Nothing);
    map.fragment(newer);
    assert_eq!(map.written(), CHUNK_SIZE);
    map.check();
}

#[test]
fn a_page_whose_record_is_lost_is_missing_until_it_is_found_again() {
    let mut map = Small::new(DRAFT, 7 * CHUNK);
    assert_eq!(map.page(&page(1, 9)), []);
    map.fragment(fragment(4, 10, 2, 5));
    assert_eq!((map.written(), map.plan(4, 0, 3).len()), (3 * CHUNK, 2));
    assert_eq!(map.lose_page(1), []);
    assert_eq!((map.written(), map.missing(0, 9).ranges), (3, vec![(0, 82), (85, 140)]));
    assert_eq!(
        map.fragment(fragment(3, 8, 0, 5)),
        [Gone::Fragment(fragment(3, 8, 0, 5))],
        "it is older than the page"
    );
    map.page(&FoundPage { lost: vec![2], ..page(1, 9) });
    assert_eq!((map.written(), map.missing(60, 1).ranges), (2 * CHUNK, vec![(100, 140)]));
    map.page(&page(1, 9));
    assert_eq!(map.written(), 3 * CHUNK);
    map.check();
}

#[test]
fn every_other_byte_of_a_chunk_is_refused_before_it_is_too_much() {
    let mut map = map(3 * CHUNK_SIZE);
    let admitted = (1..2000).find(|&serial| {
        let at = 2 * serial as u32;
        let admitted = map.admits(1, at, at + 1) == Ok(());
        if admitted {
            map.fragment(fragment(1, serial, at, at + 1));
            assert_eq!(map.next_step(1), Step::Nothing);
        }
        !admitted
    });
    assert_eq!((admitted, map.fragments()), (Some(MAX_LAYERS as u64), MAX_LAYERS as u64 - 1));
    assert_eq!(map.admits(1, 0, 1 << 20), Ok(()), "what closes the gaps is welcome");
    assert_eq!(map.admits(0, 1, 2), Ok(()), "and so are other chunks");
    assert!(map.heap_bytes() <= MAX_LAYERS as u64 * 24 + 200);
}

#[test]
fn many_layers_of_few_runs_are_joined() {
    for size in [CHUNK_SIZE, 3 * CHUNK_SIZE] {
        let mut map = map(size);
        // Pairs that touch: half as many runs as layers.
        let at = |n: u32| (n / 2 * 3 + n % 2) * 100;
        for n in 0..MAX_LAYERS as u32 {
            assert_eq!(map.next_step(0), Step::Nothing);
            assert_eq!(map.admits(0, at(n), at(n) + 100), Ok(()));
            map.fragment(fragment(0, u64::from(n) + 1, at(n), at(n) + 100));
        }
        assert_eq!(map.next_step(0), Step::Join);
        assert_eq!(map.admits(0, 0, 200), Ok(()), "joining has failed so far, but this hides two");
        assert_eq!(map.admits(0, 4_000_000, 4_000_001), Err(TooManyRanges));
        let runs = map.runs(0);
        assert_eq!(runs.len(), MAX_RUNS);
        let gone =
            (2000..).zip(&runs).flat_map(|(serial, run)| map.fragment(fragment(0, serial, run.0, run.1)));
        assert_eq!(gone.count(), MAX_LAYERS);
        assert_eq!((map.fragments(), map.next_step(0)), (MAX_RUNS as u64, Step::Nothing));
        assert_eq!(map.runs(0), runs);
        map.check();
    }
}

#[test]
fn blocks_of_4_kib_in_any_order_are_never_refused() {
    let mut dice = Dice(5);
    let mut blocks: Vec<u32> = (0..1024).collect();
    (1..blocks.len()).rev().for_each(|at| blocks.swap(at, dice.throw(at as u64 + 1) as usize));
    let mut map = map(3 * CHUNK_SIZE);
    for (serial, block) in (1..).zip(blocks) {
        assert_eq!(
            (map.next_step(1), map.admits(1, block << 12, (block + 1) << 12)),
            (Step::Nothing, Ok(()))
        );
        map.fragment(fragment(1, serial, block << 12, (block + 1) << 12));
    }
    assert_eq!(map.next_step(1), Step::Fill);
    assert_eq!(map.fill(filling(1, 1024)).len(), 1024);
    assert_eq!(
        (map.next_step(1), map.heap_bytes()),
        (Step::Nothing, (size_of::<Page>() + size_of::<Chunk>()) as u64)
    );
}

/// Two directories can have a record of the same chunk.
#[test]
fn an_older_filling_that_is_found_beside_a_newer_is_let_go_of_and_the_record_stays() {
    let mut map = Small::new(DRAFT, 3 * CHUNK);
    let chunk = |serial| Gone::Chunk(ChunkRef { digest: digest(serial), number: 1, len: CHUNK as u32 });
    map.fill(filling(1, 5));
    let before = map.clone();
    assert_eq!((map.fill(filling(1, 4)), &map), (vec![chunk(4)], &before));
    assert_eq!((map.fill(filling(1, 5)), &map), (vec![], &before));
    map.page(&page(0, 4));
    assert_eq!(
        map.fill(filling(1, 3)),
        [chunk(3)],
        "older than the page, but there is one record of them all"
    );
    assert_eq!(map.page(&page(0, 5)), [Gone::Filling(1), chunk(5)]);
    assert_eq!(map.fill(filling(1, 5)), [chunk(5), Gone::Filling(1)], "the page has it");
    assert_eq!(map.page(&page(0, 4)), [], "an older page says nothing");
    assert_eq!(map.plan(1, 0, 1), [Piece { from: 0, to: 1, source: Source::InPage }]);
    map.check();
}

#[test]
fn layers_on_whole_chunks_are_few() {
    let mut map = map(100 * CHUNK_SIZE);
    (0..99).for_each(|chunk| _ = map.fill(filling(chunk, chunk + 1)));
    let mut serial = 1000;
    let mut overlay = |map: &mut Map, chunk, at| {
        serial += 1;
        map.fragment(fragment(chunk, serial, at * 10, at * 10 + 1));
        map.next_step(chunk)
    };
    for at in 0..MAX_OVERLAYS as u32 {
        assert_eq!(overlay(&mut map, 0, at), Step::Nothing);
    }
    assert_eq!(overlay(&mut map, 0, 16), Step::Fill, "one too many on one chunk");
    for chunk in 1..MAX_OVERLAID {
        assert_eq!(overlay(&mut map, chunk, 0), Step::Nothing);
    }
    assert_eq!(overlay(&mut map, 80, 0), Step::Fill, "one chunk too many");
    assert_eq!(map.fill(filling(80, 5000)).len(), 2);
    assert_eq!(overlay(&mut map, 81, 0), Step::Fill);
    assert_eq!(map.to_fill().count() as u64, MAX_OVERLAID + 1);
}

#[test]
fn a_page_waits_for_layers_that_are_older_than_its_fillings() {
    let mut map = Small::new(DRAFT, 3 * CHUNK);
    map.fill(filling(0, 1));
    map.fragment(fragment(0, 2, 3, 5));
    map.fill(filling(1, 3));
    assert_eq!(map.next_step(1), Step::Nothing);
    map.fill(filling(2, 4));
    assert_eq!((map.next_step(2), map.composition(0)), (Step::Compose, Composition::First(0)));
    map.fill(filling(0, 2));
    map.fragment(fragment(2, 5, 0, 1));
    let all = vec![(0, digest(2)), (1, digest(3)), (2, digest(4))];
    assert_eq!(map.composition(0), Composition::Ready { serial: 4, digests: all });
    // Something is written while the page is.
    map.fill(filling(1, 6));
    let gone = map.page(&page(0, 4));
    assert_eq!(gone.iter().filter(|gone| matches!(gone, Gone::Filling(0 | 2))).count(), 2);
    assert_eq!((gone.len(), map.written()), (4, 3 * CHUNK));
    assert_eq!(map.plan(0, 0, 9), [Piece { from: 0, to: 9, source: Source::InPage }]);
    assert_eq!(map.plan(1, 0, 9), [Piece { from: 0, to: 9, source: Source::Chunk(digest(6)) }]);
    assert_eq!(map.composition(0), Composition::First(2), "again, and its layer is older now");
}

#[test]
fn twenty_terabytes_with_a_hundred_ranges_take_a_few_kilobytes() {
    let mut map = map(MAX_VALUE_SIZE);
    let mut dice = Dice(1);
    for serial in 1..=100 {
        let (chunk, from) = (dice.throw(chunk_count(MAX_VALUE_SIZE)), dice.throw(CHUNK_SIZE - 1000) as u32);
        let before = map.heap_bytes();
        map.fragment(fragment(chunk, serial, from, from + 1000));
        assert!(map.heap_bytes() - before <= Map::<CHUNK_SIZE, PAGE_DIGESTS>::GROWTH);
    }
    map.check();
    assert_eq!((map.written(), map.fragments()), (100_000, 100));
    assert!(map.heap_bytes() < 40 << 10, "{} bytes", map.heap_bytes());
    let missing = map.missing(0, 1000);
    assert_eq!((missing.ranges.len(), missing.truncated), (101, false));
    assert_eq!(missing.ranges.iter().map(|(from, to)| to - from).sum::<u64>(), MAX_VALUE_SIZE - 100_000);
    assert!(missing.ranges.iter().skip(1).all(|&(at, _)| map.covers(Span::new(at - 1000, at).unwrap())));
    // A bounded answer is gone on with from where it ended.
    let first = map.missing(0, 40);
    assert!(first.truncated);
    let next = map.missing(first.ranges[39].1, 100);
    assert_eq!([first.ranges, next.ranges].concat(), missing.ranges);
}

#[test]
fn twenty_terabytes_that_are_all_there_take_a_page_of_bookkeeping_a_page() {
    let mut map = map(MAX_VALUE_SIZE - 1);
    let pages = page_count(MAX_VALUE_SIZE);
    (0..pages).rev().for_each(|number| _ = map.page(&page(number, number + 1)));
    map.check();
    assert!(map.covers(Span::whole(map.size())));
    assert_eq!((map.written(), map.missing(0, 1)), (MAX_VALUE_SIZE - 1, Missing::default()));
    assert!(map.heap_bytes() <= pages * 100);
    assert!(map.merged().unwrap().eq((0..pages).map(|number| digest(number + 1))));
}

#[test]
fn the_last_bytes_of_the_largest_values_are_counted_right() {
    for size in [MAX_VALUE_SIZE - 1, MAX_VALUE_SIZE, u64::MAX - CHUNK_SIZE, u64::MAX] {
        let mut map = map(size);
        let last = chunk_count(size) - 1;
        let len = (size - last * CHUNK_SIZE) as u32;
        map.fragment(fragment(last, 1, len - 5, len));
        assert!(map.covers(Span::new(size - 5, size).unwrap()));
        assert!(!map.covers(Span::new(size - 6, size).unwrap()));
        assert_eq!(map.missing(0, 9).ranges, [(0, size - 5)]);
        assert_eq!(map.missing(size - 2, 9), Missing::default());
        map.fill(filling(last, 2));
        assert_eq!((map.written(), map.plan(last, 0, u32::MAX)[0].to), (u64::from(len), len));
        let number = last / PAGE_DIGESTS;
        map.page(&page(number, 3));
        assert_eq!(map.written(), size - number * PAGE_DIGESTS * CHUNK_SIZE);
        map.page(&FoundPage { lost: vec![(last % PAGE_DIGESTS) as u16], ..page(number, 3) });
        assert_eq!(map.missing(number * PAGE_DIGESTS * CHUNK_SIZE, 2).ranges, [(last * CHUNK_SIZE, size)]);
        map.check();
    }
}

/// Numbers come out of records, which may say anything.
#[test]
fn what_does_not_fit_the_value_is_given_back_and_changes_nothing() {
    let size = 2 * CHUNK_SIZE + 10;
    let mut map = map(size);
    for (chunk, from, to) in [(3, 0, 1), (u64::MAX, 0, 1), (2, 5, 11), (1, 7, 7), (1, 8, 7), (0, 0, u32::MAX)]
    {
        let fragment = fragment(chunk, 1, from, to);
        assert_eq!(map.fragment(fragment), [Gone::Fragment(fragment)]);
        assert_eq!(map.lose(Gone::Fragment(fragment)), []);
    }
    for chunk in [3, u64::MAX] {
        assert_eq!(map.fill(filling(chunk, 1)).len(), 2);
        assert_eq!((map.plan(chunk, 0, 9), map.next_step(chunk)), (Vec::new(), Step::Nothing));
        assert_eq!((map.runs(chunk), map.lose(Gone::Filling(chunk))), (Vec::new(), Vec::new()));
    }
    for number in [1, u64::MAX] {
        assert_eq!((map.page(&page(number, 1)), map.lose_page(number)), (Vec::new(), Vec::new()));
    }
    assert!(!map.covers(Span::new(size, size + 1).unwrap()));
    assert_eq!(map, self::map(size));
    map.page(&FoundPage { lost: vec![3, u16::MAX], ..page(0, 1) });
    assert_eq!(map.written(), size);
}

#[test]
fn a_value_of_at_most_one_chunk_is_made_of_fragments_alone() {
    let mut map = map(CHUNK_SIZE);
    assert_eq!(map.fill(filling(0, 1)).len(), 2);
    assert_eq!(map.page(&page(0, 1)), []);
    assert_eq!(map.fragment(fragment(0, 2, 5, CHUNK_SIZE as u32)), []);
    let first = fragment(0, 2, 5, CHUNK_SIZE as u32);
    assert_eq!(map.fragment(fragment(0, 3, 0, CHUNK_SIZE as u32)), [Gone::Fragment(first)]);
    assert_eq!((map.written(), map.next_step(0)), (CHUNK_SIZE, Step::Nothing));
    assert_eq!((map.to_fill().count(), map.to_compose().count(), map.merged().is_none()), (0, 0, true));
}

#[test]
fn an_empty_value_is_all_there() {
    let mut map = map(0);
    assert!(map.covers(Span::whole(0)) && !map.covers(Span::whole(1)));
    assert_eq!((map.missing(0, 5), map.written(), map.plan(0, 0, 9)), (Missing::default(), 0, Vec::new()));
    assert_eq!(map.fragment(fragment(0, 1, 0, 1)).len(), 1);
}
