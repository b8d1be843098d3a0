//! Every fault alone, and random sequences of five, on three directories and under load. The model knows what may be answered;
//! what has to be told is told in two seconds; and when all causes have gone, everything serves again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use elcache_core::tier::Tier;
use tokio::time::{sleep, timeout};

use super::disks::{LATER, Rack, SOON, in_service, there, troubles, until};
use super::disks_model::Model;
use super::refused::{contents, write};
use super::support::{Dice, NOW_MS, Shape, Value, World, key};
use crate::config::Durability;
use crate::directory::{IDENTITY, parse_name};
use crate::disks::Disks;
use crate::io::sim::{Call, Faults, Sim};
use crate::io::{Device, Entry};

const DIRECTORIES: usize = 3;
/// Longer than anything here lives.
const DAY_MS: u64 = 24 * 3600 * 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ReadsFail,
    WritesFail,
    SyncsFail,
    /// Somebody else takes what is left of the file system.
    Full,
    Removed,
    ReadOnly,
    Hangs,
    /// Reads and writes do a part of what they are asked for.
    Short,
    /// A segment of another node is copied in.
    Foreign,
    /// The machine's clock is set, by up to sixty days.
    Clock,
}

const FAULTS: [Fault; 10] = [
    Fault::ReadsFail,
    Fault::WritesFail,
    Fault::SyncsFail,
    Fault::Full,
    Fault::Removed,
    Fault::ReadOnly,
    Fault::Hangs,
    Fault::Short,
    Fault::Foreign,
    Fault::Clock,
];

impl Fault {
    /// Whether the directory cannot be used any more, which clients bring to light at once: that has to be told. Nothing is
    /// synced unless acknowledged writes survive the loss of power; and that reads fail shows where something is read.
    fn is_told(self, durability: Durability) -> bool {
        match self {
            Self::WritesFail | Self::Removed | Self::ReadOnly | Self::Hangs => true,
            Self::SyncsFail => durability == Durability::Power,
            Self::ReadsFail | Self::Full | Self::Short | Self::Foreign | Self::Clock => false,
        }
    }

    /// Whether the directory has to go on as if nothing were.
    fn is_borne(self) -> bool {
        matches!(self, Self::Full | Self::Short | Self::Clock)
    }

    async fn befalls(self, sim: &Sim, rack: &Rack, other: &[(PathBuf, Vec<u8>)], dice: &mut Dice) {
        let well = Faults::default();
        match self {
            Self::ReadsFail => sim.set_faults(Faults { failing: Some(Call::Read), ..well }),
            Self::WritesFail => sim.set_faults(Faults { failing: Some(Call::Write), ..well }),
            Self::SyncsFail => sim.set_faults(Faults { failing: Some(Call::Sync), ..well }),
            Self::Full => {
                let space = sim.space(&PathBuf::from("/")).map_or(0, |space| space.total - space.available);
                sim.set_faults(Faults { capacity: space + dice.below(200_000), ..well });
            }
            Self::Removed => {
                sim.remove_all();
                sim.set_faults(Faults { gone: true, ..well });
            }
            Self::ReadOnly => sim.set_faults(Faults { read_only: true, ..well }),
            Self::Hangs => sim.set_faults(Faults { hangs: true, ..well }),
            Self::Short => sim.set_faults(Faults { short: 0.3, ..well }),
            Self::Foreign => {
                sim.set_faults(well);
                copy_in(sim, rack, other, dice).await;
            }
            Self::Clock => {
                let to = NOW_MS - 30 * DAY_MS + dice.below(60 * DAY_MS);
                rack.world.clock.set_ms(to);
            }
        }
    }
}

/// The files of a segment of another node get the next numbers of this one's. Where there is no directory of this node's they are
/// for the operator to remove.
async fn copy_in(sim: &Sim, rack: &Rack, other: &[(PathBuf, Vec<u8>)], dice: &mut Dice) {
    let Some(number) = rack.sims.iter().position(|one| std::ptr::eq(&raw const **one, sim)) else { return };
    let is_there = |entry: &Entry| entry.name == IDENTITY;
    if !sim.list(&Rack::path(number)).unwrap_or_default().iter().any(is_there) {
        return;
    }
    let next = highest_segment(sim, number) + 1 + dice.below(3) as u32;
    copy_to(sim, &Rack::path(number), next, other).await;
}

fn highest_segment(sim: &Sim, number: usize) -> u32 {
    let own = sim.list(&Rack::path(number).join("segments")).unwrap_or_default();
    own.iter().filter_map(|entry| parse_name(&entry.name)).map(|(number, _)| number).max().unwrap_or(0)
}

async fn copy_to(sim: &Sim, directory: &Path, number: u32, other: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in other {
        let is = path.extension().and_then(|is| is.to_str()).unwrap_or_default();
        write(sim, &directory.join(format!("segments/{number:08x}.{is}")), bytes).await;
    }
}

/// A log and a data file of a node that has the same keys, with other values and higher versions.
async fn segment_of_another_node() -> Vec<(PathBuf, Vec<u8>)> {
    let mut other = Rack::of(World::new(), 1, 4711);
    let disks = other.open().await;
    other.fill(&disks, 24, 1_000_000).await;
    disks.close().await;
    drop(disks);
    let mut world = World::new();
    world.path = Rack::path(0);
    let mut files = contents(&other.sims[0], &world).await;
    files.retain(|(path, bytes)| path.starts_with(world.path.join("segments")) && !bytes.is_empty());
    files.truncate(2);
    assert_eq!(files.len(), 2, "{:?}", files.iter().map(|(path, _)| path).collect::<Vec<_>>());
    files
}

/// Faults one after the other; each lasts until the next one comes, or longer.
async fn sequence(faults: &[Fault], seed: u64, durability: Durability) {
    let what = format!("seed {seed}: {faults:?}");
    let mut dice = Dice::new(seed);
    let other = segment_of_another_node().await;
    let mut rack = Rack::of(World::durable(durability), DIRECTORIES, seed);
    let model = Model::new();
    let disks = rack.open().await;
    model.write_all(&disks, &rack.world, &mut dice).await;
    model.work(&disks, &rack.world, &mut dice, 1000).join_all().await;
    for fault in faults {
        let number = dice.below(DIRECTORIES as u64) as usize;
        let millis = 3000 + dice.below(20_000);
        let clients = model.work(&disks, &rack.world, &mut dice, millis);
        let before = troubles(&disks);
        let sim = Arc::clone(&rack.sims[number]);
        fault.befalls(&sim, &rack, &other, &mut dice).await;
        if fault.is_told(durability) {
            let path = format!("{}: ", Rack::path(number).display());
            until(SOON, &what, || troubles(&disks).contains(&path)).await;
            let others = in_service(&disks).iter().any(|serves| *serves);
            assert!(!others || disks.takes_values(), "{what}");
        }
        clients.join_all().await;
        if fault.is_borne() && before.is_empty() && faults.len() == 1 {
            assert_eq!(troubles(&disks), "", "{what}");
        }
        if dice.below(2) == 0 {
            sim.set_faults(Faults::default());
        }
    }
    is_well_in_the_end(&mut rack, &model, disks, &mut dice, &what).await;
}

/// All causes go; without a restart everything serves, stores and gives back, and after one too.
async fn is_well_in_the_end(rack: &mut Rack, model: &Model, disks: Arc<Disks>, dice: &mut Dice, what: &str) {
    rack.sims.iter().for_each(|sim| sim.set_faults(Faults::default()));
    rack.world.clock.set_ms(NOW_MS);
    let is_well = || in_service(&disks) == [true; DIRECTORIES] && troubles(&disks).is_empty();
    let told = timeout(LATER, async {
        while !is_well() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(told.await.is_ok(), "{what}: {:?}: {}", in_service(&disks), troubles(&disks));
    disks.recovered().await;
    model.check_all(&disks).await;
    let written = model.write_all(&disks, &rack.world, dice).await;
    assert_eq!(model.check_all(&disks).await, written, "{what}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(troubles(&disks), "", "{what}");
    drop(disks);
    rack.kill();
    let disks = rack.open().await;
    assert_eq!(model.check_all(&disks).await, written, "{what}");
    assert!(troubles(&disks).is_empty(), "{what}");
}

fn durability(seed: u64) -> Durability {
    if seed.is_multiple_of(2) { Durability::Process } else { Durability::Power }
}

#[tokio::test(start_paused = true)]
async fn every_fault_alone() {
    for (seed, fault) in FAULTS.iter().flat_map(|fault| [fault; 2]).enumerate() {
        sequence(&[*fault], seed as u64, durability(seed as u64)).await;
    }
}

async fn sequences_of_five(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut dice = Dice::new(!seed);
        let faults = [(); 5].map(|()| FAULTS[dice.below(FAULTS.len() as u64) as usize]);
        sequence(&faults, seed, durability(seed)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sequences_of_five_faults() {
    sequences_of_five(100..106).await;
}

#[tokio::test(start_paused = true)]
async fn soak_sequences_of_five_faults() {
    sequences_of_five(1000..1400).await;
}

/// It has the same keys, and newer versions of them: as the newest segment, in place of one, and while the node runs.
#[tokio::test(start_paused = true)]
async fn a_segment_of_another_node_counts_for_nothing() {
    let other = segment_of_another_node().await;
    for seed in 0..6 {
        let mut dice = Dice::new(seed);
        let mut rack = Rack::of(World::new(), 1, seed);
        let disks = rack.open().await;
        let values = rack.fill(&disks, 90, 1).await;
        drop(disks);
        rack.kill();
        copy_in(&rack.sims[0], &rack, &other, &mut dice).await;
        let disks = rack.open().await;
        assert_eq!(there(&disks, &values).await, 90, "seed {seed}");
        let later = rack.fill(&disks, 90, 1000).await;
        copy_in(&rack.sims[0], &rack, &other, &mut dice).await;
        assert_eq!(there(&disks, &later).await, 90, "seed {seed}");
        drop(disks);
        rack.kill();
        copy_to(&rack.sims[0], &Rack::path(0), 1 + seed as u32 % 3, &other).await;
        let disks = rack.open().await;
        let left = there(&disks, &later).await;
        assert!(left > 30, "{left} of 90, seed {seed}");
        let last = rack.fill(&disks, 90, 2000).await;
        assert_eq!(there(&disks, &last).await, 90, "seed {seed}");
        drop(disks);
        rack.kill();
        let disks = rack.open().await;
        assert_eq!(there(&disks, &last).await, 90, "seed {seed}");
        assert!(troubles(&disks).is_empty(), "seed {seed}");
    }
}

/// The next segment was to have its number: that could not be made, so that the directory was taken out of service and emptied.
#[tokio::test(start_paused = true)]
async fn files_in_the_place_of_the_next_segments_do_no_harm() {
    let other = segment_of_another_node().await;
    let mut rack = Rack::new(DIRECTORIES);
    let disks = rack.open().await;
    let values = rack.fill(&disks, 90, 1).await;
    for (number, sim) in rack.sims.iter().enumerate() {
        let highest = highest_segment(sim, number);
        for (above, files) in [(1, &other[..1]), (2, &other[1..]), (4, &other), (5, &other[..1])] {
            copy_to(sim, &Rack::path(number), highest + above, files).await;
        }
    }
    let mut later = Vec::new();
    for n in 0..300 {
        let value = Value::new(&key(&format!("later {n}")), 1000 + n, Shape::Filled(40_000));
        assert_eq!(value.put(&disks, &rack.world.arena).await, Ok(()), "{n}");
        later.push(value);
    }
    sleep(SOON).await;
    assert_eq!((in_service(&disks), troubles(&disks)), (vec![true; DIRECTORIES], String::new()));
    drop(disks);
    rack.kill();
    let disks = rack.open().await;
    assert_eq!(there(&disks, &values).await + there(&disks, &later).await, 390);
}
