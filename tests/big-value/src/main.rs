//! Writes a value into a directory of the disk tier, of any size: all pages of its manifest, and a few of its chunks, as if the others had been
//! evicted. A node that is started on the directory then has it.
//!
//! `elcache-big-value DIR DISK_BYTES KEY SIZE SEED CHUNKS` writes the numbers of the chunks that are there, one a line. Their bytes are
//! `Content::new(SEED)`; the digests of the others are of nothing that there is.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::clock::{Clock, SystemClock};
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::tier::{ChunkRef, Evicted, PageRef, Tier};
use elcache_core::tree::{self, CHUNK_SIZE, ChunkHasher, PAGE_DIGESTS, TreeHasher};
use elcache_core::value::{Metadata, Version};
use elcache_disk::io::{Engine, start};
use elcache_disk::{Access, DirectoryParts, DiskConfig, Disks, DisksParts, lock};
use elcache_memory::{MemoryConfig, MemoryTier};
use elcache_tests::content::Content;
use elcache_tests::random::Random;

type Outcome<T> = Result<T, Box<dyn Error>>;

const MEMORY: u64 = 64 << 20;

struct Wanted {
    dir: PathBuf,
    disk_bytes: u64,
    key: Key,
    size: u64,
    seed: u64,
    chunks: u64,
}

fn main() -> Outcome<()> {
    let wanted = Wanted::parse(std::env::args().skip(1)).ok_or("DIR DISK_BYTES KEY SIZE SEED CHUNKS")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let here = runtime.block_on(write(&wanted))?;
    let mut out = std::io::stdout().lock();
    here.iter().try_for_each(|number| writeln!(out, "{number}"))?;
    Ok(())
}

impl Wanted {
    fn parse(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let dir = args.next()?.into();
        let disk_bytes = args.next()?.parse().ok()?;
        let key = Key::new(args.next()?).ok()?;
        let mut number = || args.next()?.parse::<u64>().ok();
        let (size, seed, chunks) = (number()?, number()?, number()?);
        let is_possible = size > CHUNK_SIZE && chunks <= tree::chunk_count(size);
        is_possible.then_some(Self { dir, disk_bytes, key, size, seed, chunks })
    }

    /// The chunks that are to be there: some that lie together, others scattered, the first and the last.
    fn here(&self) -> BTreeSet<u64> {
        let count = tree::chunk_count(self.size);
        let mut random = Random::new(self.seed);
        let mut here: BTreeSet<u64> = [0, count - 1].into_iter().take(self.chunks as usize).collect();
        while (here.len() as u64) < self.chunks {
            let number = random.below(count);
            here.insert(number);
            if (here.len() as u64) < self.chunks {
                here.insert((number + 1).min(count - 1));
            }
        }
        here
    }
}

async fn write(wanted: &Wanted) -> Outcome<BTreeSet<u64>> {
    let disks = open(wanted).await?;
    let highest = disks.ready().get().await.map_err(|refusal| refusal.to_string())?;
    let version = Version { sequence: highest.sequence + 1, ..highest };
    let here = wanted.here();
    let mut meta = Metadata::new(wanted.size, Digest([0; 32]), version, SystemClock.now_ms());
    let owner = meta.owner(wanted.key.hash());
    let count = tree::chunk_count(wanted.size);
    let mut pages = TreeHasher::new();
    let mut last_page = Vec::new();
    for page in 0..tree::page_count(wanted.size) {
        let mut digests = Vec::new();
        for number in page * PAGE_DIGESTS..count.min((page + 1) * PAGE_DIGESTS) {
            digests.push(match here.contains(&number) {
                true => write_chunk(&disks, wanted, number).await?,
                false => {
                    Digest(*blake3::hash(&[wanted.seed, number].map(u64::to_le_bytes).concat()).as_bytes())
                }
            });
        }
        let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
        demote(&disks, Evicted::Page(PageRef { owner, number: page }, Bytes::from(bytes).into())).await?;
        tree::merged(digests.iter().copied()).into_iter().for_each(|digest| pages.push(digest));
        last_page = digests;
    }
    meta.digest = match pages.clone().root() {
        Some(root) => root,
        // One page: its last merge is another one.
        None => {
            let mut chunks = TreeHasher::new();
            last_page.iter().for_each(|digest| chunks.push(*digest));
            chunks.root().ok_or("there are two chunks or more")?
        }
    };
    demote(&disks, Evicted::Root(wanted.key.clone(), meta)).await?;
    disks.close().await;
    Ok(here)
}

async fn write_chunk(disks: &Disks, wanted: &Wanted, number: u64) -> Outcome<Digest> {
    let len = tree::chunk_len(wanted.size, number);
    let mut bytes = vec![0; len as usize];
    Content::new(wanted.seed).fill(number * CHUNK_SIZE, &mut bytes);
    let mut hasher = ChunkHasher::new(number);
    hasher.update(&bytes);
    let digest = hasher.chunk().ok_or("a chunk has a byte")?;
    let chunk = ChunkRef { digest, number, len: len as u32 };
    demote(disks, Evicted::Chunk(chunk, Bytes::from(bytes).into())).await?;
    Ok(digest)
}

async fn demote(disks: &Disks, evicted: Evicted) -> Outcome<()> {
    Ok(disks.demote(evicted).get().await.map_err(|refusal| refusal.to_string())?)
}

async fn open(wanted: &Wanted) -> Outcome<Arc<Disks>> {
    let clock = Arc::new(SystemClock);
    let budget = Budget::new(MEMORY);
    let memory = MemoryTier::new(MemoryConfig::default(), &budget, clock.clone(), 1)?;
    let mut random = Random::new(wanted.seed);
    let directory = DirectoryParts {
        config: DiskConfig { max_bytes: wanted.disk_bytes, ..DiskConfig::default() },
        device: start(Engine::Auto, 64)?.device,
        path: wanted.dir.clone(),
        access: Access::Locked(lock(&wanted.dir)?),
    };
    let parts = DisksParts {
        directories: vec![directory],
        write_rate_max: None,
        pool: tokio::runtime::Handle::current(),
        node_name: "big-value".to_owned(),
        budget,
        buffers: memory,
        clock,
        random: Box::new(move || random.number()),
    };
    Ok(Disks::open(parts).await?)
}
