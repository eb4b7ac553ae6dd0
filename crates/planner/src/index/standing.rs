//! What is known of slots where nobody looks at them.

use super::keep;
use crate::orchestrator::slot::SlotTasks;
use std::collections::BTreeSet;
use types::{Slot, Timestamp};

/// What is known of a slot where nobody looks at it: until when nothing is to be decided of it, and
/// what it is to the update of its service, while one runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Standing {
    /// When there is something to decide, though nothing changes before.
    pub(crate) wake: Option<Timestamp>,
    /// Its task is of an old spec; says whether it runs.
    pub(crate) old: Option<bool>,
    /// Its new task is on its way to run, or runs beside the old one.
    pub(crate) flies: bool,
    /// Since when its new task runs.
    pub(crate) run_since: Option<Timestamp>,
    /// When the update gives up on its new task.
    pub(crate) deadline: Option<Timestamp>,
    /// Its only task is on a node that is drained with pace; says whether it serves.
    pub(crate) leaves: Option<bool>,
    /// None of its tasks serves, or two of them are wanted.
    pub(crate) is_on_its_way: bool,
    /// Since when its task serves, where that is not longer than the delay of updates.
    pub(crate) fresh_since: Option<Timestamp>,
    /// Of a job: it counts as one of those that run at once.
    pub(crate) is_open: bool,
}

/// What is known of many slots, in the order in which it is asked for.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    /// How many have a task that is wanted.
    pub(crate) filled: usize,
    /// How many are open.
    pub(crate) open: usize,
    pub(crate) wakes: BTreeSet<(Timestamp, Slot)>,
    /// A slot whose task does not run comes first.
    pub(crate) old: BTreeSet<(bool, Slot)>,
    pub(crate) flying: BTreeSet<Slot>,
    pub(crate) running: BTreeSet<(Timestamp, Slot)>,
    pub(crate) deadlines: BTreeSet<(Timestamp, Slot)>,
    /// A slot whose task does not serve comes first.
    pub(crate) leaving: BTreeSet<(bool, Slot)>,
    pub(crate) on_their_way: BTreeSet<Slot>,
    pub(crate) fresh: BTreeSet<(Timestamp, Slot)>,
}

impl Standings {
    /// A slot whose time has come.
    pub(super) fn due(&self, now: Timestamp) -> Option<&Slot> {
        let first = [self.wakes.first(), self.deadlines.first()];
        first.into_iter().flatten().find(|(time, _)| *time <= now).map(|(_, slot)| slot)
    }

    /// Slots that are more to an update than old.
    pub(super) fn under_way(&self) -> BTreeSet<Slot> {
        let timed = self.running.iter().chain(&self.deadlines).map(|(_, slot)| slot);
        timed.chain(&self.flying).cloned().collect()
    }

    pub(super) fn add(&mut self, slot: &Slot, tasks: &SlotTasks) {
        self.filled += usize::from(tasks.is_filled());
        self.open += usize::from(tasks.standing.is_open);
        self.set(slot, &tasks.standing, true);
    }

    pub(super) fn take(&mut self, slot: &Slot, tasks: &SlotTasks) {
        self.filled -= usize::from(tasks.is_filled());
        self.open -= usize::from(tasks.standing.is_open);
        self.set(slot, &tasks.standing, false);
    }

    fn set(&mut self, slot: &Slot, standing: &Standing, is_there: bool) {
        let Standing { wake, old, flies, run_since, deadline, .. } = standing;
        let timed = [
            (&mut self.wakes, wake),
            (&mut self.fresh, &standing.fresh_since),
            (&mut self.running, run_since),
            (&mut self.deadlines, deadline),
        ];
        for (set, time) in timed {
            if let Some(time) = time {
                keep(set, &(*time, slot.clone()), is_there);
            }
        }
        for (set, first) in [(&mut self.old, old), (&mut self.leaving, &standing.leaves)] {
            if let Some(later) = first {
                keep(set, &(*later, slot.clone()), is_there);
            }
        }
        let marked = [(&mut self.flying, *flies), (&mut self.on_their_way, standing.is_on_its_way)];
        for (set, _) in marked.into_iter().filter(|(_, is_marked)| *is_marked) {
            keep(set, slot, is_there);
        }
    }
}
