//! The task that looks after the directories: takes out what fails, and tries what is out.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::{HANGS, Shared};
use crate::io::TICK;

/// Ticks between two looks at a directory.
const LOOK: u64 = 10;
/// Ticks between two attempts to go on without what is out.
const LEAVE: u64 = 10;
/// Ticks between two attempts with a directory that is out.
const TRY: u64 = 50;

/// Runs until it is aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut ticks = interval(TICK);
    // Ticks that the process has missed are not time that a disk had.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        ticks.tick().await;
        while tasks.try_join_next().is_some() {}
        for number in 0..shared.seats.len() {
            shared.attend(number, &mut tasks);
        }
        let leaves = tick % LEAVE == 0 && shared.view().members.iter().any(|member| !member.serves());
        if leaves && !shared.leaving.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                shared.leave().await;
                shared.leaving.store(false, Ordering::Release);
            });
        }
    }
}

impl Shared {
    /// Looks how one directory is.
    fn attend(self: &Arc<Self>, number: usize, tasks: &mut JoinSet<()>) {
        let seat = &self.seats[number];
        let member = self.view().of_seat(number).cloned();
        // Of one that is in service nobody changes the gate meanwhile.
        let (gate, is_out) = {
            let life = seat.life.lock();
            (Arc::clone(&life.gate), life.out.is_some())
        };
        gate.tick(HANGS.min(self.patience));
        if self.closing.load(Ordering::Acquire) {
            return;
        }
        let member = member.filter(|member| Arc::ptr_eq(&member.disk.gate, &gate));
        if let Some(trouble) = member.as_ref().and_then(|member| member.tier.report().trouble) {
            gate.shut(trouble);
        }
        if let Some(why) = gate.why() {
            if !is_out {
                self.take_out(number, &why);
            }
            member.inspect(|member| member.disk.give_up_all());
        }
        let mut life = seat.life.lock();
        let is_out = life.out.is_some();
        life.ticks += 1;
        if life.busy || !life.ticks.is_multiple_of(if is_out { TRY } else { LOOK }) {
            return;
        }
        life.busy = true;
        drop(life);
        let shared = Arc::clone(self);
        tasks.spawn(async move {
            if is_out {
                shared.try_again(number).await;
            } else {
                shared.look_at(number).await;
            }
            shared.seats[number].life.lock().busy = false;
        });
    }

    /// Takes a directory out of service, if it is not yet.
    pub(super) fn take_out(&self, number: usize, why: &str) {
        let seat = &self.seats[number];
        let mut life = seat.life.lock();
        life.gate.shut(why);
        if life.out.is_some() {
            return;
        }
        tracing::error!(directory = %seat.name(), "the directory is out of service: {why}");
        life.out = Some(why.to_owned());
        life.ticks = 0;
        seat.counters.lost.fetch_add(1, Ordering::Release);
        life.missing = self.room.forget_permits(seat.promises());
        drop(life);
        self.tell();
    }
}
