//! Random histories of drafts against a model, with values that come and go around them in little room, through crashes at random moments:
//! what is found then is what was acknowledged, and perhaps what was under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use elcache_core::staging::{Filling, FoundPage, FoundUpload, Fragment, Gone, Opening, Staging};
use elcache_core::tier::{ChunkRef, NewBody, Owner, PageRef, Tier};
use elcache_core::tree::{CHUNK_SIZE, PAGE_DIGESTS, merged};
use elcache_core::value::{Metadata, Version};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::disks::Rack;
use super::staging::{bytes, chunk, hit, opening, payload, pinned, stage};
use super::support::{Dice, Shape, Value, World, key};
use crate::config::Durability;
use crate::disks::Disks;

const DRAFTS: u64 = 3;
/// Chunks of a draft. They stand at the beginning of its second page.
const CHUNKS: u64 = 3;
const SIZE: u64 = (PAGE_DIGESTS + CHUNKS) * CHUNK_SIZE;
/// Contents that chunks may have: drafts share some.
const CONTENTS: u64 = 5;

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Opening,
    Closing,
    Writing(Fragment),
    /// The chunk with this number, with this serial, is to have this content.
    Filling(u64, u64, u64),
    Composing,
}

/// A page as it was written: its serial, and the contents of its chunks.
type Page = (u64, [u64; CHUNKS as usize]);

/// A draft as it should be.
struct Draft {
    name: String,
    open: Option<Opening>,
    fragments: BTreeSet<(u64, u64, u32, u32)>,
    forgotten: BTreeSet<(u64, u64, u32, u32)>,
    /// Serial and content.
    fillings: BTreeMap<u64, (u64, u64)>,
    page: Option<Page>,
    next_page: Option<Page>,
    serial: u64,
    doing: Doing,
}

struct Model {
    drafts: Vec<Mutex<Draft>>,
    sequence: AtomicU64,
    /// Steps that were done.
    done: AtomicU64,
}

fn plain(fragment: &Fragment) -> (u64, u64, u32, u32) {
    (fragment.chunk, fragment.serial, fragment.from, fragment.to)
}

/// A chunk of a draft with some content.
fn chunk_of(number: u64, content: u64) -> ChunkRef {
    chunk(1_000_000 + content, number)
}

fn number_of(place: u64) -> u64 {
    PAGE_DIGESTS + place
}

impl Draft {
    fn new(n: u64) -> Self {
        Self {
            name: format!("draft {n}"),
            open: None,
            fragments: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            fillings: BTreeMap::new(),
            page: None,
            next_page: None,
            serial: 0,
            doing: Doing::Nothing,
        }
    }

    fn owner(&self) -> Owner {
        self.open.as_ref().unwrap().owner()
    }

    fn fragment(&self, (chunk, serial, from, to): (u64, u64, u32, u32)) -> Fragment {
        Fragment { draft: self.owner(), chunk, serial, from, to }
    }

    fn page_ref(&self) -> PageRef {
        PageRef { owner: self.owner(), number: 1 }
    }

    /// Everything of it that is not in its page.
    fn held(&self) -> Vec<Gone> {
        let fragments = self.fragments.iter().map(|plain| Gone::Fragment(self.fragment(*plain)));
        let fillings = self.fillings.iter();
        let fillings = fillings.flat_map(|(number, (_, content))| {
            [Gone::Filling(*number), Gone::Chunk(chunk_of(*number, *content))]
        });
        fragments.chain(fillings).collect()
    }

    /// The page that its chunks come to.
    fn composed(&self) -> Option<Page> {
        let mut contents = [0; CHUNKS as usize];
        let mut serial = self.page.map_or(0, |page| page.0);
        for (place, content) in (0..).zip(&mut contents) {
            match (self.fillings.get(&number_of(place)), self.page) {
                (Some((of, filled)), _) => (*content, serial) = (*filled, serial.max(*of)),
                (None, Some(page)) => *content = page.1[place as usize],
                (None, None) => return None,
            }
        }
        Some((serial, contents))
    }

    fn clear(&mut self) {
        *self = Self { name: self.name.clone(), ..Self::new(0) };
    }
}

impl Model {
    fn new() -> Self {
        let drafts = (0..DRAFTS).map(|n| Mutex::new(Draft::new(n))).collect();
        Self { drafts, sequence: AtomicU64::new(1), done: AtomicU64::new(0) }
    }

    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    async fn step(&self, disks: &Disks, world: &World, n: usize, dice: &mut Dice) {
        let mut draft = self.drafts[n].lock().await;
        draft.serial += 1;
        let what = dice.below(20);
        if draft.open.is_none() {
            draft.clear();
            draft.open = Some(opening(&draft.name, self.next(), SIZE));
            self.open(disks, &mut draft).await;
            return;
        }
        match what {
            0 => self.open(disks, &mut draft).await,
            1 => self.close(disks, &mut draft, dice).await,
            2..=7 => self.write(disks, &mut draft, dice).await,
            8..=9 => {
                let Some(gone) = draft.fragments.pop_first() else { return };
                draft.forgotten.insert(gone);
                disks.forget(draft.owner(), &[Gone::Fragment(draft.fragment(gone))]);
            }
            10..=15 => self.fill(disks, world, &mut draft, dice).await,
            16..=17 => self.compose(disks, &mut draft).await,
            _ => self.read(disks, &draft).await,
        }
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    async fn open(&self, disks: &Disks, draft: &mut Draft) {
        draft.doing = Doing::Opening;
        if let Some(opening) = &mut draft.open {
            opening.touched_ms += 1;
        }
        let opening = draft.open.clone().unwrap();
        let opened = disks.open(&opening).get().await;
        assert_eq!(opened, Ok(()), "{:?} {:?}", disks.usage(), disks.condition());
        draft.doing = Doing::Nothing;
    }

    async fn close(&self, disks: &Disks, draft: &mut Draft, dice: &mut Dice) {
        let (opening, owner) = (draft.open.clone().unwrap(), draft.owner());
        if draft.page.is_some() && dice.below(2) == 0 {
            let version = Version { view: 2, sequence: self.next() };
            let meta = Metadata::new(SIZE, chunk(1, 1).digest, version, 1);
            let meta = Metadata { draft: Some(opening.draft), ..meta };
            // Its first page is not there.
            assert!(disks.commit(&opening.key, &meta, NewBody::Draft).get().await.is_err());
        }
        draft.doing = Doing::Closing;
        let closed = Staging::close(disks, &opening.key, opening.draft).get().await;
        assert_eq!(closed, Ok(()), "{:?} {:?}", disks.usage(), disks.condition());
        disks.forget(owner, &draft.held());
        disks.end(owner, SIZE);
        draft.clear();
    }

    async fn write(&self, disks: &Disks, draft: &mut Draft, dice: &mut Dice) {
        let from = dice.below(90_000) as u32;
        let len = if dice.below(3) == 0 { 1 + dice.below(80_000) } else { 1 + dice.below(4000) };
        let fragment = draft.fragment((number_of(dice.below(CHUNKS)), draft.serial, from, from + len as u32));
        draft.doing = Doing::Writing(fragment);
        let written = disks.write(fragment, payload(bytes(fragment.serial, len as u32))).get().await;
        assert_eq!(written, Ok(()));
        draft.fragments.insert(plain(&fragment));
        draft.doing = Doing::Nothing;
        if draft.fragments.len() > 12 {
            let gone = draft.fragments.pop_first().unwrap();
            draft.forgotten.insert(gone);
            disks.forget(draft.owner(), &[Gone::Fragment(draft.fragment(gone))]);
        }
    }

    async fn fill(&self, disks: &Disks, world: &World, draft: &mut Draft, dice: &mut Dice) {
        let (number, content) = (number_of(dice.below(CHUNKS)), dice.below(CONTENTS));
        let serial = draft.serial;
        draft.doing = Doing::Filling(number, serial, content);
        let staged = stage(disks, world, 1_000_000 + content, number).await.unwrap();
        let filling = Filling { draft: draft.owner(), chunk: number, serial, digest: staged.chunk.digest };
        assert_eq!(Staging::fill(disks, filling, staged).get().await, Ok(()));
        let before = draft.fillings.insert(number, (serial, content));
        draft.doing = Doing::Nothing;
        if let Some((_, content)) = before {
            disks.forget(draft.owner(), &[Gone::Chunk(chunk_of(number, content))]);
        }
    }

    async fn compose(&self, disks: &Disks, draft: &mut Draft) {
        let Some(page) = draft.composed().filter(|_| !draft.fillings.is_empty()) else { return };
        draft.next_page = Some(page);
        draft.doing = Doing::Composing;
        let digests = (0..).zip(page.1).flat_map(|(place, content)| chunk_of(place, content).digest.0);
        let digests = Bytes::from(digests.collect::<Vec<u8>>());
        let put = disks.put_page(draft.page_ref(), SIZE, page.0, digests).get().await;
        assert_eq!(put, Ok(()));
        draft.page = Some(page);
        draft.doing = Doing::Nothing;
        let gone: Vec<_> =
            draft.held().into_iter().filter(|gone| !matches!(gone, Gone::Fragment(_))).collect();
        disks.forget(draft.owner(), &gone);
        draft.fillings.clear();
    }

    async fn read(&self, disks: &Disks, draft: &Draft) {
        for fragment in draft.fragments.iter().map(|plain| draft.fragment(*plain)) {
            let expected = bytes(fragment.serial, fragment.to - fragment.from);
            hit("fragment", disks.read(&fragment, fragment.from, fragment.to).get().await, &expected);
            assert!(disks.has(draft.owner(), &Gone::Fragment(fragment)));
        }
        let of_page = draft.page.iter().flat_map(|page| (0..).zip(page.1));
        let chunks = of_page.map(|(place, content)| (number_of(place), content));
        let filled = draft.fillings.iter().map(|(number, (_, content))| (*number, *content));
        for (number, content) in chunks.chain(filled) {
            let chunk = chunk_of(number, content);
            let read = disks.read_chunk(draft.owner(), &chunk, 1, chunk.len).get().await;
            hit("chunk", read, &bytes(1_000_000 + content, chunk.len)[1..]);
        }
        if let Some(page) = draft.page {
            let digests = (0..).zip(page.1).flat_map(|(place, content)| chunk_of(place, content).digest.0);
            hit("page", disks.read_page(&draft.page_ref()).get().await, &digests.collect::<Vec<u8>>());
        }
    }

    /// Compares what has been found, and goes on with it.
    async fn compare(&self, disks: &Disks, found: Vec<FoundUpload>) {
        let mut found: BTreeMap<_, _> =
            found.into_iter().map(|found| (found.opening.key.as_bytes().to_vec(), found)).collect();
        for draft in &self.drafts {
            let mut draft = draft.lock().await;
            let found = found.remove(draft.name.as_bytes());
            let Some(mut opening) = draft.open.clone() else {
                assert_eq!(found, None, "closed, and open again");
                continue;
            };
            let Some(found) = found else {
                assert!(matches!(draft.doing, Doing::Opening | Doing::Closing), "an upload is lost");
                assert!(draft.doing == Doing::Closing || draft.serial <= 1, "an upload is lost");
                draft.clear();
                continue;
            };
            if draft.doing == Doing::Opening && found.opening != opening {
                opening.touched_ms -= 1;
            }
            assert_eq!(found.opening, opening);
            draft.open = Some(opening);
            self.compare_draft(disks, &mut draft, found);
            draft.doing = Doing::Nothing;
            self.read(disks, &draft).await;
        }
        assert_eq!(found.len(), 0, "unknown uploads");
    }

    fn compare_draft(&self, disks: &Disks, draft: &mut Draft, found: FoundUpload) {
        let owner = draft.owner();
        let mut gone = Vec::new();
        for fragment in &found.fragments {
            let is_known = draft.fragments.contains(&plain(fragment));
            if !is_known && draft.doing == Doing::Writing(*fragment) {
                draft.fragments.insert(plain(fragment));
            } else if !is_known {
                assert!(draft.forgotten.contains(&plain(fragment)), "{fragment:?} was never written");
                gone.push(Gone::Fragment(*fragment));
            }
        }
        for known in &draft.fragments {
            assert!(found.fragments.iter().any(|fragment| plain(fragment) == *known), "{known:?} is lost");
        }
        let of_page = |page: Page| {
            let digests = (0..).zip(page.1).map(|(place, content)| chunk_of(place, content).digest);
            FoundPage { number: 1, serial: page.0, merged: merged(digests).unwrap(), lost: Vec::new() }
        };
        if draft.doing == Doing::Composing && draft.next_page.map(of_page).as_ref() == found.pages.first() {
            draft.page = draft.next_page;
        }
        assert_eq!(found.pages, draft.page.map(of_page).into_iter().collect::<Vec<_>>());
        let floor = draft.page.map_or(0, |page| page.0);
        for filling in &found.fillings {
            let Filling { chunk: number, serial, digest, .. } = *filling;
            if draft.doing == (Doing::Filling(number, serial, self.content(digest))) {
                draft.fillings.insert(number, (serial, self.content(digest)));
            } else if serial <= floor {
                gone.extend([Gone::Filling(number), Gone::Chunk(ChunkRef { digest, number, len: 0 })]);
                draft.fillings.remove(&number);
            }
        }
        let fillings: BTreeMap<_, _> =
            found.fillings.iter().map(|filling| (filling.chunk, filling)).collect();
        draft.fillings.retain(|_, (serial, _)| *serial > floor);
        for (number, (serial, content)) in &draft.fillings {
            let filling = fillings.get(number).unwrap_or_else(|| panic!("the filling of {number} is lost"));
            assert_eq!((filling.serial, self.content(filling.digest)), (*serial, *content));
        }
        disks.forget(owner, &gone);
    }

    fn content(&self, digest: elcache_core::digest::Digest) -> u64 {
        (0..CONTENTS).find(|content| chunk_of(0, *content).digest == digest).expect("a content")
    }

    /// Ends everything.
    async fn end(&self, disks: &Disks) {
        for draft in &self.drafts {
            let mut draft = draft.lock().await;
            if draft.open.is_some() {
                self.close(disks, &mut draft, &mut Dice::new(1)).await;
            }
        }
    }
}

/// Values that take the room around the drafts, again and again.
async fn put_values(disks: Arc<Disks>, world: World, sequence: u64) {
    let mut dice = Dice::new(sequence);
    for n in 0.. {
        let shape = if dice.below(2) == 0 { Shape::Filled(90_000) } else { Shape::Borrowed(20_000) };
        let value = Value::new(&key(&format!("value {n}")), 1_000_000_000 + sequence + n, shape);
        let _ = value.put(&disks, &world.arena).await;
        sleep(Duration::from_millis(dice.below(15))).await;
    }
}

/// One history: rounds that end with a crash, and then everything ends.
async fn history(seed: u64, count: usize, durability: Durability, rounds: u64) {
    let mut dice = Dice::new(seed);
    let mut world = World::durable(durability);
    world.config.max_bytes = 14 << 20;
    let mut rack = Rack::of(world, count, seed);
    let model = Arc::new(Model::new());
    let mut disks = rack.open().await;
    assert_eq!(disks.found().get().await, Ok(Vec::new()));
    for round in 0..rounds {
        let mut tasks = JoinSet::new();
        for n in 0..DRAFTS as usize {
            let (model, disks, world) = (Arc::clone(&model), Arc::clone(&disks), rack.world.clone());
            let mut dice = Dice::new(seed * 1000 + round * 10 + n as u64);
            tasks.spawn(async move {
                loop {
                    timeout(Duration::from_secs(60), model.step(&disks, &world, n, &mut dice)).await.unwrap();
                    sleep(Duration::from_millis(dice.below(10))).await;
                }
            });
        }
        let values =
            tokio::spawn(put_values(Arc::clone(&disks), rack.world.clone(), seed * 1000 + round * 10_000));
        let end = sleep(Duration::from_micros(dice.below(4_000_000)));
        tokio::select! {
            () = end => {}
            failed = tasks.join_next() => panic!("{:?}", failed.map(|failed| failed.map_err(|error| error.to_string()))),
        }
        if durability == Durability::Power && dice.below(2) == 0 {
            rack.power_cut();
        } else {
            rack.kill();
        }
        tasks.abort_all();
        values.abort();
        while tasks.join_next().await.is_some() {}
        let _ = values.await;
        drop(disks);
        disks = rack.open().await;
        let found = disks.found().get().await.unwrap();
        model.compare(&disks, found).await;
    }
    model.end(&disks).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(pinned(&disks), 0, "seed {seed}");
    // Its room is free again: as much is put as there is room for.
    let put = tokio::spawn(put_values(Arc::clone(&disks), rack.world.clone(), 1));
    sleep(Duration::from_secs(2)).await;
    assert!(!put.is_finished());
    put.abort();
    drop(disks);
    rack.kill();
    let disks = rack.open().await;
    assert_eq!(disks.found().get().await, Ok(Vec::new()));
    assert_eq!(pinned(&disks), 0, "seed {seed}, after a restart");
    assert!(model.done.load(Ordering::Relaxed) > 20 * rounds, "{:?}", model.done);
}

#[tokio::test(start_paused = true)]
async fn what_is_found_after_a_crash_is_what_was_acknowledged() {
    for (count, durability) in [(1, Durability::Process), (1, Durability::Power), (2, Durability::Power)] {
        history(elcache_seed(), count, durability, 3).await;
    }
}

/// A seed that is always the same, unless somebody wants another.
fn elcache_seed() -> u64 {
    std::env::var("ELCACHE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[tokio::test(start_paused = true)]
async fn soak_many_histories_of_drafts() {
    for seed in 0..60 {
        let durability = if seed % 2 == 0 { Durability::Power } else { Durability::Process };
        history(elcache_seed() + 100 + seed, 1 + seed as usize % 3, durability, 5).await;
    }
}
