//! The set of directories changes: the others go on without one that is out, and one that was out serves again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::epoch::may_leave;
use super::home::DirectoryId;
use super::opening::clear;
use super::view::Member;
use super::{HANGS, Shared, ids};
use crate::directory::{
    DirectoryError, IDENTITY, Reach, SEGMENTS, lock_again, read_file, read_identity, write_file,
    write_identity,
};
use crate::format::identity::Identity;
use crate::io::{BLOCK, Gate};

/// What is written into a directory, and read again, to find out whether it can be used.
const PROBE: &str = "PROBE";

impl Shared {
    /// Looks whether a directory is there still: what is open can be read and written long after it has gone.
    pub(super) async fn look_at(&self, number: usize) {
        let seat = &self.seats[number];
        let reach = seat.reach(&seat.life.lock().gate);
        let (path, segments) = (seat.path.clone(), seat.path.join(SEGMENTS));
        let looked = reach.blocking(move |device| {
            let is_there = device.list(&path)?.iter().any(|entry| entry.name == IDENTITY);
            Ok((is_there, device.space(&segments)?.read_only))
        });
        match looked.await {
            Ok((false, _)) => reach.gate.shut("its IDENTITY is gone; something else may be mounted there"),
            Ok((_, true)) => reach.gate.shut("its file system is read-only"),
            // The gate has seen it, and shuts where it has to.
            Ok((true, false)) | Err(_) => {}
        }
    }

    /// Has those that serve go on without what is out: no sooner than all of them know it is anything else written, or deleted,
    /// that the ones left behind have.
    pub(super) async fn leave(&self) {
        let mut epoch = self.epoch.lock().await;
        let view = self.view();
        let (serving, out): (Vec<_>, Vec<_>) =
            view.members.iter().cloned().partition(|member| member.serves());
        let set = ids(serving.iter());
        let mut known: Vec<Vec<DirectoryId>> =
            out.iter().flat_map(|member| member.sets.lock().clone()).collect();
        known.extend(self.seats.iter().filter_map(|seat| seat.life.lock().claim.clone()));
        if out.is_empty() || serving.is_empty() || !may_leave(known.iter().map(Vec::as_slice), &set) {
            return;
        }
        *epoch += 1;
        if self.tell_all(&serving, *epoch, &set).await.is_err() {
            return;
        }
        for member in &out {
            self.seats[member.seat].counters.lost.fetch_add(1, Ordering::Release);
        }
        self.change_view(|view| view.members.retain(|member| set.contains(&member.id)));
        for member in out {
            // The keeper may not have looked since its gate shut, and finds it in no view any more.
            member.disk.give_up_all();
            let directory = self.seats[member.seat].name();
            tracing::warn!(%directory, epoch = *epoch, "the other directories go on without this one; what is in it is given up");
        }
    }

    /// Has these directories know that this is the set of this epoch.
    async fn tell_all(&self, members: &[Arc<Member>], epoch: u64, set: &[DirectoryId]) -> io::Result<()> {
        for member in members {
            let identity = Identity { epoch, siblings: set.to_vec(), ..member.identity.lock().clone() };
            let reach =
                Reach { device: Arc::clone(&member.disk.device), gate: Arc::clone(&member.disk.gate) };
            member.sets.lock().push(identity.siblings.clone());
            let written = write_identity(&reach, &self.seats[member.seat].path, &identity).await;
            written.inspect_err(|error| {
                member.disk.failed("the directory's IDENTITY cannot be written", error)
            })?;
            member.disk.directory.epoch.store(epoch, Ordering::Relaxed);
            *member.sets.lock() = vec![identity.siblings.clone()];
            *member.identity.lock() = identity;
        }
        Ok(())
    }

    /// Tries a directory that is out. It serves again if it can be written and read.
    pub(super) async fn try_again(&self, number: usize) {
        let seat = &self.seats[number];
        let gate = {
            let mut life = seat.life.lock();
            if life.gate.under_way() > 0 {
                // What was begun before is not over: it could still write.
                return;
            }
            life.gate = Gate::new(self.pool.clone());
            Arc::clone(&life.gate)
        };
        match self.come_back(number, &seat.reach(&gate)).await {
            Ok(with) => {
                let mut life = seat.life.lock();
                life.out = None;
                self.room.add_permits(std::mem::take(&mut life.missing));
                drop(life);
                tracing::info!(directory = %seat.name(), "the directory is in service again, {with}");
            }
            Err(error) => {
                let why = gate.why().unwrap_or_else(|| error.to_string());
                gate.shut(&why);
                tracing::debug!(directory = %seat.name(), "the directory stays out of service: {why}");
                seat.life.lock().out = Some(why);
            }
        }
        self.tell();
    }

    async fn come_back(&self, number: usize, reach: &Reach) -> Result<&'static str, DirectoryError> {
        let seat = &self.seats[number];
        if seat.locks {
            let (path, held) = (seat.path.clone(), seat.life.lock().lock.clone());
            let locked = reach.gate.blocking(move || Ok(lock_again(&path, held))).await;
            let stops = |_| DirectoryError::Io("it cannot be locked", io::Error::other("the node stops"));
            let out = |error| DirectoryError::Io("it cannot be locked", error);
            let lock = locked.map_err(stops)?.map_err(out)??;
            seat.life.lock().lock = Some(lock);
        }
        probe(reach, seat)
            .await
            .map_err(|error| DirectoryError::Io("it cannot be written and read", error))?;
        let found = read_identity(reach, &seat.path).await?;
        let mut epoch = self.epoch.lock().await;
        let held = self.view().of_seat(number).cloned();
        match held {
            Some(held) => self.bring_back(number, reach, &held, found, *epoch).await,
            None => self.bring_in(number, reach, found, &mut epoch).await,
        }
    }

    /// A directory that was held: nothing that it has was written or deleted meanwhile.
    async fn bring_back(
        &self,
        number: usize,
        reach: &Reach,
        held: &Arc<Member>,
        found: Option<Identity>,
        epoch: u64,
    ) -> Result<&'static str, DirectoryError> {
        let path = &self.seats[number].path;
        let is_same = found.as_ref().is_none_or(|found| found.directory == held.id);
        if !is_same {
            return Err(DirectoryError::Other);
        }
        let view = self.view();
        let with = if found.is_some() { "with what was in it" } else { "empty" };
        let before = found.unwrap_or_else(|| held.identity.lock().clone());
        let mut siblings = ids(view.members.iter());
        siblings.sort_unstable();
        let mut known = before.siblings.clone();
        known.sort_unstable();
        let identity = Identity { epoch: epoch.max(before.epoch), siblings, ..before.clone() };
        if with == "empty" || known != identity.siblings || before.epoch != identity.epoch {
            let written = write_identity(reach, path, &identity).await;
            written.map_err(|error| DirectoryError::Io("its IDENTITY cannot be written", error))?;
        }
        let member = self.start(number, reach.clone(), identity)?;
        self.change_view(|view| {
            view.members.retain(|other| other.seat != number);
            view.members.push(member);
        });
        Ok(with)
    }

    /// A directory that has missed what happened: it begins anew, and all others know it before anything is written there.
    async fn bring_in(
        &self,
        number: usize,
        reach: &Reach,
        found: Option<Identity>,
        epoch: &mut u64,
    ) -> Result<&'static str, DirectoryError> {
        let path = &self.seats[number].path;
        if let Some(found) = found
            && found.node != self.node
        {
            let other = self.view().members.first().map_or(number, |member| member.seat);
            return Err(DirectoryError::Foreign(self.seats[other].path.clone()));
        }
        let io = |error| DirectoryError::Io("its IDENTITY cannot be written", error);
        *epoch += 1;
        let view = self.view();
        let mut identity = self.new_identity(*epoch);
        identity.siblings = ids(view.members.iter());
        identity.siblings.push(identity.directory);
        self.seats[number].life.lock().claim = Some(identity.siblings.clone());
        write_identity(reach, path, &identity).await.map_err(io)?;
        clear(reach, path).await.map_err(|error| DirectoryError::Io("it cannot be emptied", error))?;
        let serving: Vec<_> = view.serving().cloned().collect();
        self.tell_all(&serving, *epoch, &identity.siblings).await.map_err(io)?;
        let member = self.start(number, reach.clone(), identity)?;
        self.change_view(|view| view.members.push(member));
        self.seats[number].life.lock().claim = None;
        Ok("empty")
    }
}

/// Makes, writes, syncs, reads and removes a small file.
async fn probe(reach: &Reach, seat: &super::Seat) -> io::Result<()> {
    let path = seat.path.join(PROBE);
    let pattern = [0xe1_u8; BLOCK];
    let probing = async {
        write_file(reach, path.clone(), &pattern).await?;
        let read = read_file(reach, path.clone()).await?;
        if read != pattern {
            return Err(io::Error::other("what was written is not what is read"));
        }
        Ok(())
    };
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(HANGS, probing).await.unwrap_or_else(late)?;
    reach.blocking(move |device| device.remove(&path)).await
}
