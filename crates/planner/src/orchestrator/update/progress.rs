//! How far an update is.

use super::{config, is_current, is_of, judge};
use crate::Planning;
use crate::index::{ServiceSlots, Standing};
use crate::orchestrator::restart;
use crate::orchestrator::slot::{Slot, SlotTasks};
use store::View;
use types::{Service, Task, TaskState, Timestamp, UpdateState, UpdateStatus};

/// How far an update is in the slots that it has begun with.
#[derive(Default)]
pub(super) struct Progress {
    /// Slots whose new task is on its way, and that are not lost.
    pub(super) flying: usize,
    /// Slots that rest for the update's delay after their new task runs, or was lost, and when the
    /// first of them has rested.
    pub(super) resting: usize,
    pub(super) rest_ends: Option<Timestamp>,
}

impl Progress {
    pub(super) fn of(
        planning: &Planning<'_>,
        (service, update): (&Service, &UpdateStatus),
        all: &ServiceSlots,
    ) -> Self {
        let standings = all.standings();
        let (now, delay) = (planning.now, config(service).delay);
        let mut progress = Self { flying: standings.flying.len(), ..Self::default() };
        let lost = update.failed.iter().filter(|(slot, _)| all.calm().contains_key(*slot));
        for (slot, since) in lost {
            progress.flying -= usize::from(standings.flying.contains(slot));
            progress.rest(now, since.after(delay));
        }
        let runs = standings.running.iter().rev();
        let ends = runs.map(|(since, slot)| (since.after(delay), slot));
        let resting = ends.take_while(|(end, _)| now < *end);
        for (end, _) in resting.filter(|(_, slot)| !update.failed.contains_key(*slot)) {
            progress.rest(now, end);
        }
        progress
    }

    fn rest(&mut self, now: Timestamp, end: Timestamp) {
        if now < end {
            self.resting += 1;
            self.rest_ends = Some(self.rest_ends.map_or(end, |ends| ends.min(end)));
        }
    }
}

/// Says of a slot what it is to the update that runs, or to one that begins now.
pub(in crate::orchestrator) fn stand(
    planning: &Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    if let Some(update) = service.update.as_ref().filter(|update| update.runs()) {
        stand_to(planning, (service, update), (slot, tasks));
    } else {
        let update = UpdateStatus::begun(UpdateState::Updating, planning.now, "");
        stand_to(planning, (service, &update), (slot, tasks));
    }
}

pub(super) fn stand_to(
    planning: &Planning<'_>,
    (service, update): (&Service, &UpdateStatus),
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    let view = &planning.tx;
    let is_old = tasks.is_filled()
        && restart::has_place(view, service, slot)
        && !tasks.wanted.iter().any(|it| is_current(view, service, it));
    tasks.standing = Standing {
        wake: tasks.standing.wake,
        old: is_old.then(|| tasks.runs()),
        flies: flies(planning, service, tasks, update),
        run_since: run_since(view, service, tasks, update),
        deadline: judge::deadline_in(planning, (service, update), tasks),
        is_open: false,
    };
}

/// Says whether a slot's new task is on its way to run, or runs beside the old one.
fn flies(
    planning: &Planning<'_>,
    service: &Service,
    tasks: &SlotTasks,
    update: &UpdateStatus,
) -> bool {
    let mut new = tasks.wanted.iter().filter(|task| {
        is_of(update, planning, tasks, task)
            && task.occupies()
            && is_current(&planning.tx, service, task)
    });
    new.any(|task| task.status.state < TaskState::Running || tasks.wanted.len() > 1)
}

/// Since when the new task of an update runs.
fn run_since(
    view: &View,
    service: &Service,
    tasks: &SlotTasks,
    update: &UpdateStatus,
) -> Option<Timestamp> {
    let mut new = tasks.wanted.iter().filter(|task| update.started_at <= task.meta.created_at);
    let runs = |task: &Task| task.status.state == TaskState::Running;
    new.find(|task| runs(task) && is_current(view, service, task)).map(|task| task.status.since)
}
