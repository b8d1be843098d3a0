//! The format is held still: a small directory, byte by byte. `ELCACHE_GOLDEN=write` writes the files anew, after a change of
//! the version.

use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use elcache_core::digest::Digest;
use elcache_core::key::Key;
use elcache_core::staging::{Filling, Fragment, Opening};
use elcache_core::tier::{Body, ChunkRef, Lookup, NewBody, PageRef, Tier};
use elcache_core::tree::ChunkHasher;
use elcache_core::value::{KeptHeadersBuilder, Metadata, OperationId, Version};

use super::refused::{contents, write};
use super::support::{NOW_MS, World, is_gone, key, same};
use crate::config::Durability;
use crate::disk::Disk;
use crate::io::sim::Sim;
use crate::tier::DiskTier;

/// Bytes in a line of a golden file.
const LINE: usize = 32;

/// A payload that takes few lines: zeros, but for some bytes.
fn payload(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes.iter_mut().step_by(20_011).enumerate().for_each(|(n, byte)| *byte = n as u8 + 1);
    bytes
}

fn metadata(sequence: u64, size: usize) -> Metadata {
    let version = Version { view: 2, sequence };
    Metadata::new(size as u64, Digest([sequence as u8; 32]), version, NOW_MS + sequence)
}

/// One value with all fields, one with none, in the log and in extents.
fn small_values() -> Vec<(Key, Metadata, Vec<u8>)> {
    let mut values = Vec::new();
    for (sequence, len) in (1..).zip([0, 5, 1000, 40_000, 70_000]) {
        values.push((key(&format!("plain {len}")), metadata(sequence, len), payload(len)));
        let mut meta = metadata(sequence + 10, len);
        meta.expires_ms = Some(NOW_MS + 86_400_000);
        meta.flags = 0xDEAD_BEEF;
        meta.operation = OperationId::new(&b"operation"[..]);
        meta.created = true;
        meta.no_memory = true;
        let mut headers = KeptHeadersBuilder::default();
        headers.push("content-type", b"text/plain").unwrap();
        meta.headers = headers.finish();
        values.push((key(&format!("full {len}")), meta, payload(len)));
    }
    values
}

fn chunks() -> [(ChunkRef, Vec<u8>); 2] {
    [(0, 70_001), (1, 10)].map(|(number, len)| {
        let bytes = payload(len);
        let mut hasher = ChunkHasher::new(number);
        hasher.update(&bytes);
        (ChunkRef { digest: hasher.chunk().unwrap(), number, len: len as u32 }, bytes)
    })
}

fn page() -> Vec<u8> {
    chunks().iter().flat_map(|(chunk, _)| chunk.digest.0).collect()
}

/// A page that is too long for the log.
fn long_page() -> Vec<u8> {
    payload(2048 * 32)
}

/// Of the value in chunks; in the case of that name with a draft, under which its pages are.
fn chunked(case: &str) -> Metadata {
    let draft = (case == "draft").then_some(Version { view: 1, sequence: 29 });
    Metadata { draft, ..metadata(30, 70_011) }
}

fn opening(name: &str) -> Opening {
    let mut headers = KeptHeadersBuilder::default();
    headers.push("content-type", b"text/plain").unwrap();
    Opening {
        key: key(name),
        draft: Version { view: 2, sequence: 40 },
        size: 3 << 22,
        touched_ms: NOW_MS + 40,
        ttl_seconds: NonZeroU64::new(86_400),
        flags: 0xDEAD_BEEF,
        no_memory: true,
        no_disk: false,
        no_cluster: true,
        operation: OperationId::new(&b"operation"[..]),
        headers: headers.finish(),
    }
}

/// In the log, and too long for it.
fn fragments() -> [Fragment; 2] {
    let draft = opening("open").owner();
    [(7, 100, 1100), (8, 5000, 75_000)].map(|(serial, from, to)| Fragment {
        draft,
        chunk: 1,
        serial,
        from,
        to,
    })
}

fn filling() -> Filling {
    Filling { draft: opening("open").owner(), chunk: 2, serial: 9, digest: chunks()[0].0.digest }
}

fn draft_page() -> PageRef {
    PageRef { owner: opening("open").owner(), number: 0 }
}

/// Records of drafts: what one that is open has, and one that is not open any more.
async fn fill_drafts(disk: &Arc<Disk>) {
    disk.put_opening(&opening("open")).await.unwrap();
    for fragment in fragments() {
        let len = (fragment.to - fragment.from) as usize;
        disk.put_fragment(&fragment, Bytes::from(payload(len)).into()).await.unwrap();
    }
    disk.put_filling(&filling()).await.unwrap();
    disk.put_page(&draft_page(), 9, Bytes::from(page()).into(), NOW_MS).await.unwrap();
    disk.put_opening(&opening("closed")).await.unwrap();
    disk.put_closed(&key("closed"), opening("closed").draft).await.unwrap();
}

async fn read_drafts(disk: &Arc<Disk>) {
    let Lookup::Hit(found) = disk.found_opening(&key("open")).await else { panic!("no upload") };
    assert_eq!(found, opening("open"));
    assert!(matches!(disk.found_opening(&key("closed")).await, Lookup::Miss));
    for fragment in fragments() {
        let found = disk.find_fragment(&fragment, fragment.from, fragment.to).await;
        let Lookup::Hit(found) = found else { panic!("no fragment") };
        same("fragment", &found, &payload((fragment.to - fragment.from) as usize)).unwrap();
    }
    assert_eq!(disk.fillings().await, [filling()]);
    let found = disk.find_staged_page(&draft_page()).await;
    let Lookup::Hit((9, found)) = found else { panic!("no page") };
    same("page", &found, &page()).unwrap();
}

async fn fill(case: &str, world: &World, tier: &DiskTier) {
    if case == "drafts" {
        return fill_drafts(&tier.disk).await;
    }
    for (key, meta, bytes) in small_values() {
        tier.commit(&key, &meta, NewBody::Borrowed(&bytes)).get().await.unwrap();
    }
    let mut staged = Vec::new();
    for (chunk, bytes) in chunks() {
        staged.push(tier.stage(chunk, world.arena.filled(&bytes, chunk.number)).get().await.unwrap());
    }
    let meta = chunked(case);
    let owner = meta.owner(key("chunks").hash());
    let mut pages = Vec::new();
    world.clock.set_ms(meta.modified_ms);
    for (number, digests) in [(0, page()), (1, long_page())] {
        let (page, chunks) = (PageRef { owner, number }, std::mem::take(&mut staged));
        pages.push(tier.stage_page(page, digests.into(), chunks).get().await.unwrap());
    }
    world.clock.set_ms(NOW_MS);
    tier.commit(&key("chunks"), &meta, NewBody::Pages(pages)).get().await.unwrap();
    tier.commit(&key("deleted"), &metadata(31, 1), NewBody::Borrowed(b"x")).get().await.unwrap();
    assert_eq!(tier.remove(&key("deleted")).get().await, Ok(true));
}

async fn read_back(case: &str, tier: &DiskTier) {
    if case == "drafts" {
        return read_drafts(&tier.disk).await;
    }
    for (key, meta, bytes) in small_values() {
        let Lookup::Hit(root) = tier.root(&key).get().await else { panic!("{key:?} is gone") };
        assert_eq!(root.meta, meta);
        let found = match root.body {
            Body::Here(found) => found,
            Body::Apart(apart) => match apart.read_whole().get().await {
                Lookup::Hit(filled) => filled.payload(),
                _ => panic!("{key:?} cannot be read"),
            },
            Body::Chunks(_) => panic!("{key:?} is in chunks"),
        };
        same("value", &found, &bytes).unwrap();
    }
    let Lookup::Hit(root) = tier.root(&key("chunks")).get().await else { panic!("no root") };
    assert_eq!(root.meta, chunked(case));
    let owner = root.meta.owner(key("chunks").hash());
    for (number, digests) in [(0, page()), (1, long_page())] {
        let Lookup::Hit(found) = tier.page(&PageRef { owner, number }).get().await else { panic!("no page") };
        same("page", &found, &digests).unwrap();
    }
    for (chunk, bytes) in chunks() {
        let Lookup::Hit(part) = tier.chunk(&chunk, 0, chunk.len).get().await else { panic!("no chunk") };
        same("chunk", &part.bytes, &bytes).unwrap();
    }
    assert!(is_gone(tier, &key("deleted")).await);
    assert_eq!(tier.report().damaged, 0);
}

/// A file as text: its length, and its lines that are not all zeros.
fn dump(bytes: &[u8]) -> String {
    let mut text = format!("length {}\n", bytes.len());
    for (n, line) in bytes.chunks(LINE).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            let hex = line.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            writeln!(text, "{:08x} {hex}", n * LINE).unwrap();
        }
    }
    text
}

fn parse(text: &str) -> Vec<u8> {
    let mut lines = text.lines();
    let len = lines.next().and_then(|line| line.strip_prefix("length ")).unwrap();
    let mut bytes = vec![0; len.parse().unwrap()];
    for line in lines {
        let (at, hex) = line.split_once(' ').unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (n, digits) in hex.as_bytes().chunks(2).enumerate() {
            bytes[at + n] = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        }
    }
    bytes
}

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

fn golden_files(case: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(golden(case)).unwrap().map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        (name.trim_end_matches(".hex").to_owned(), parse(&std::fs::read_to_string(file.path()).unwrap()))
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

fn cases() -> [(&'static str, World, bool); 5] {
    [
        ("drafts", World::new(), true),
        ("draft", World::new(), false),
        ("sealed", World::new(), true),
        ("open", World::new(), false),
        ("power", World::durable(Durability::Power), false),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_the_golden_files_byte_by_byte() {
    for (case, world, close) in cases() {
        let sim = Arc::new(Sim::new(1));
        let tier = world.open(&sim).await;
        fill(case, &world, &tier).await;
        if close {
            tier.close().await;
        }
        drop(tier);
        let mut files: Vec<_> = contents(&sim.kill(1), &world).await.into_iter().map(named).collect();
        files.sort();
        if std::env::var("ELCACHE_GOLDEN").as_deref() == Ok("write") {
            std::fs::create_dir_all(golden(case)).unwrap();
            for (name, bytes) in &files {
                std::fs::write(golden(case).join(format!("{name}.hex")), dump(bytes)).unwrap();
            }
        }
        for (found, expected) in files.iter().zip(&golden_files(case)) {
            assert_eq!(found.0, expected.0, "{case}");
            let differ = found.1.iter().zip(&expected.1).position(|(a, b)| a != b);
            assert_eq!((found.1.len(), differ), (expected.1.len(), None), "{case}: {}", found.0);
        }
        assert_eq!(files.len(), golden_files(case).len(), "{case}");
    }
}

fn named((path, bytes): (PathBuf, Vec<u8>)) -> (String, Vec<u8>) {
    (path.file_name().unwrap().to_str().unwrap().to_owned(), bytes)
}

#[tokio::test(start_paused = true)]
async fn golden_files_are_read_back() {
    for (case, world, _) in cases() {
        let sim = Arc::new(Sim::new(1));
        for (name, bytes) in golden_files(case) {
            let directory = world.path.join(if name == "IDENTITY" { "" } else { "segments" });
            write(&sim, &directory.join(name), &bytes).await;
        }
        let tier = world.open(&sim).await;
        read_back(case, &tier).await;
        fill(case, &world, &tier).await;
        drop(tier);
        read_back(case, &*world.open(&Arc::new(sim.kill(1))).await).await;
    }
}
