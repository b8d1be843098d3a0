//! The start: whose the directories are, which of them are used as they are, and which begin anew.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use elcache_core::clock::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::epoch::{Fate, Says, Verdict, judge};
use super::staged::Leaving;
use super::staging::Drafts;
use super::view::View;
use super::{Access, DirectoryParts, DisksError, DisksParts, HANGS, Life, Seat, Shared};
use crate::directory::{DirectoryError, Reach, SEGMENTS, random_id, read_identity, write_identity};
use crate::disk::Counters;
use crate::format::identity::Identity;
use crate::io::{Gate, Pool};
use crate::pace::Pace;

/// A directory that can be read, and what it says of itself; nothing if it is new.
type Candidate = (usize, Reach, Option<Identity>);

/// Reads whose the directories are, and puts those to work that can be used.
pub(super) async fn open(parts: DisksParts) -> Result<Arc<Shared>, DisksError> {
    let DisksParts { directories, write_rate_max, pool, node_name, .. } = parts;
    let DisksParts { budget, buffers, clock, mut random, .. } = parts;
    let alone = directories.len() == 1;
    let mut errors = Vec::new();
    let seats: Box<[Seat]> = (0..)
        .zip(directories)
        .map(|(number, parts)| seat(number, parts, &pool, &*clock, &mut errors))
        .collect();
    let mut candidates: Vec<Candidate> = Vec::new();
    for (number, seat) in seats.iter().enumerate().filter(|(_, seat)| seat.life.lock().out.is_none()) {
        let reach = seat.reach(&seat.life.lock().gate);
        let late = |_| Err(DirectoryError::Io("it does not answer", io::ErrorKind::TimedOut.into()));
        match timeout(HANGS, read_identity(&reach, &seat.path)).await.unwrap_or_else(late) {
            Ok(identity) => candidates.push((number, reach, identity)),
            Err(error) => errors.push((number, error)),
        }
    }
    let path = |number: usize| seats[number].path.clone();
    // What is not a matter of reading and writing is for the operator to settle.
    if let Some(place) =
        errors.iter().position(|(_, error)| alone || !matches!(error, DirectoryError::Io(..)))
    {
        let (number, error) = errors.swap_remove(place);
        return Err(DisksError { path: path(number), error });
    }
    let latest = candidates.iter().filter_map(|(_, _, identity)| identity.as_ref()).max_by_key(|id| id.epoch);
    let (node, node_name) = match latest {
        Some(latest) => (latest.node, latest.node_name.clone()),
        None => (random_id(&mut random), node_name),
    };
    belong_together(&seats, &candidates)?;
    let room = candidates.iter().map(|(number, ..)| seats[*number].promises()).sum();
    let shared = Shared {
        patience: seats.first().map_or(HANGS, |seat| seat.config.patience),
        view: RwLock::new(Arc::new(View::default())),
        progress: watch::Sender::new(0),
        room: Arc::new(Semaphore::new(room)),
        leaving_pages: Leaving::default(),
        pace: Arc::new(Pace::new(write_rate_max, Arc::clone(&clock))),
        epoch: tokio::sync::Mutex::new(0),
        leaving: AtomicBool::new(false),
        started: AtomicBool::new(false),
        closing: AtomicBool::new(false),
        above: OnceLock::new(),
        drafts: Drafts::default(),
        seats,
        node,
        node_name,
        pool,
        budget,
        buffers,
        clock,
        random: Mutex::new(random),
    };
    for (number, error) in &errors {
        shared.take_out(*number, &error.to_string());
    }
    shared.settle(candidates, &mut errors).await;
    if shared.view().members.is_empty()
        && let Some((number, error)) = errors.into_iter().next()
    {
        return Err(DisksError { path: shared.seats[number].path.clone(), error });
    }
    Ok(Arc::new(shared))
}

fn seat(
    number: usize,
    parts: DirectoryParts,
    pool: &Pool,
    clock: &dyn Clock,
    errors: &mut Vec<(usize, DirectoryError)>,
) -> Seat {
    let DirectoryParts { config, device, path, access } = parts;
    let (lock, locks, out) = match access {
        Access::Locked(lock) => (Some(Arc::new(lock)), true, None),
        Access::Alone => (None, false, None),
        Access::Out(error) => {
            let why = error.to_string();
            errors.push((number, error));
            (None, true, Some(why))
        }
    };
    let life =
        Life { lock, gate: Gate::new(pool.clone()), out, ticks: 0, busy: false, claim: None, missing: 0 };
    Seat { config, device, path, locks, counters: Counters::new(clock), life: Mutex::new(life) }
}

/// Whether all directories are of one node, and none is a copy of another.
fn belong_together(seats: &[Seat], candidates: &[Candidate]) -> Result<(), DisksError> {
    let mut before: Vec<(&Path, &Identity)> = Vec::new();
    for (number, _, identity) in candidates {
        let (path, Some(identity)) = (&seats[*number].path, identity) else { continue };
        let refuse = |error| Err(DisksError { path: path.clone(), error });
        for (other, of) in &before {
            if of.node != identity.node {
                return refuse(DirectoryError::Foreign((*other).to_owned()));
            }
            if of.directory == identity.directory {
                return refuse(DirectoryError::Copy((*other).to_owned()));
            }
        }
        before.push((path, identity));
    }
    Ok(())
}

impl Shared {
    /// Finds out which directories are used as they are, has all of them know one another, and puts them to work. One that cannot
    /// be written is left out, and the others begin again.
    async fn settle(&self, mut candidates: Vec<Candidate>, errors: &mut Vec<(usize, DirectoryError)>) {
        let mut epoch = self.epoch.lock().await;
        let mut judged: Vec<Fate> = Vec::new();
        while !candidates.is_empty() {
            let says = |identity: &Identity| Says {
                id: identity.directory,
                epoch: identity.epoch,
                set: identity.siblings.clone(),
            };
            let known: Vec<_> =
                candidates.iter().map(|(_, _, identity)| identity.as_ref().map(says)).collect();
            let Verdict { epoch: highest, fates, settled } = judge(&known);
            // What has been judged once is not judged by what was written of it since.
            if judged.is_empty() {
                judged = fates;
            }
            *epoch = highest.max(*epoch);
            let failed = if settled && judged.iter().all(|fate| *fate == Fate::Kept) {
                None
            } else {
                *epoch += 1;
                self.introduce(&mut candidates, &judged, *epoch).await.err()
            };
            let Some((place, error)) = failed else { break };
            let (number, ..) = candidates.remove(place);
            judged.remove(place);
            let error = DirectoryError::Io("its IDENTITY cannot be written", error);
            self.take_out(number, &error.to_string());
            errors.push((number, error));
        }
        for (number, reach, identity) in candidates {
            let Some(identity) = identity else { continue };
            match self.start(number, reach, identity) {
                Ok(member) => self.change_view(|view| view.members.push(member)),
                Err(error) => {
                    self.take_out(number, &error.to_string());
                    errors.push((number, error));
                }
            }
        }
    }

    /// Has all of these know that they are the set of this epoch. Those that begin anew hear of it first: as long as one of the
    /// others has not, what it knows of the epoch before is true as well.
    async fn introduce(
        &self,
        candidates: &mut [Candidate],
        fates: &[Fate],
        epoch: u64,
    ) -> Result<(), (usize, io::Error)> {
        let mut identities: Vec<Identity> = Vec::new();
        for ((number, _, identity), fate) in candidates.iter().zip(fates) {
            identities.push(match (identity, fate) {
                (Some(identity), Fate::Kept) => Identity { epoch, ..identity.clone() },
                (before, fate) => {
                    if let (Some(_), Fate::Emptied(why)) = (before, fate) {
                        let directory = self.seats[*number].name();
                        tracing::warn!(%directory, "what is in this directory is given up: {why}");
                    }
                    self.new_identity(epoch)
                }
            });
        }
        let set: Vec<_> = identities.iter().map(|identity| identity.directory).collect();
        for anew in [true, false] {
            for (place, (identity, fate)) in identities.iter_mut().zip(fates).enumerate() {
                if (*fate != Fate::Kept) != anew {
                    continue;
                }
                identity.siblings.clone_from(&set);
                let (number, reach, known) = &mut candidates[place];
                let path = &self.seats[*number].path;
                let written = write_identity(reach, path, identity).await;
                written.map_err(|error| (place, error))?;
                *known = Some(identity.clone());
                if anew {
                    clear(reach, path).await.map_err(|error| (place, error))?;
                }
            }
        }
        Ok(())
    }
}

/// Removes the segments of a directory that has a new identity: none of their records is valid any more.
pub(super) async fn clear(reach: &Reach, path: &Path) -> io::Result<()> {
    let segments = path.join(SEGMENTS);
    let removed = reach.blocking(move |device| {
        for entry in device.list(&segments)? {
            if crate::directory::parse_name(&entry.name).is_some() {
                device.remove(&segments.join(&entry.name))?;
            }
        }
        device.sync_directory(&segments)
    });
    removed.await
}
