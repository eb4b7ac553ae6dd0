//! A plan in progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Changes, Tx, View};
use types::{DesiredState, IdSource, ServiceId, Task, TaskId, TaskState, Timestamp};

/// A plan in progress: the transaction, the time, new ids, the next deadline and how much more may
/// be written.
pub(crate) struct Planning<'a> {
    pub(crate) tx: Tx,
    pub(crate) now: Timestamp,
    /// How long something took counts from here on at the earliest.
    pub(crate) fair_from: Timestamp,
    pub(crate) ids: &'a mut dyn IdSource,
    /// Services whose ports could not be given, and why.
    pub(crate) port_errors: BTreeMap<ServiceId, String>,
    wake: Option<Timestamp>,
    /// Tasks that may still be written.
    room: usize,
    is_cut: bool,
    /// Services of which a task was written.
    written: BTreeSet<ServiceId>,
}

impl<'a> Planning<'a> {
    pub(crate) fn new(
        view: &View,
        (now, fair_from): (Timestamp, Timestamp),
        ids: &'a mut dyn IdSource,
    ) -> Self {
        let (port_errors, wake, room, is_cut, written) = Default::default();
        Self { tx: Tx::new(view), now, fair_from, ids, port_errors, wake, room, is_cut, written }
    }

    /// Asks for another plan at `time`, unless one is asked for before.
    pub(crate) fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// The deadline since this was asked last.
    pub(crate) fn take_wake(&mut self) -> Option<Timestamp> {
        self.wake.take()
    }

    /// From now on so many tasks may be written.
    pub(crate) fn make_room(&mut self, tasks: usize) {
        self.room = tasks;
    }

    /// How many tasks may still be written. A step may write a few more, so that no slot is left
    /// half done.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Says whether the rest is for the next plan.
    pub(crate) fn is_full(&self) -> bool {
        self.room == 0
    }

    /// Says whether a task may be written: for one that this plan has written already, that is no
    /// more than before. One that may not is for the next plan.
    pub(crate) fn admits(&mut self, task: &TaskId) -> bool {
        let admits = self.room > 0 || self.has_written(task);
        self.is_cut |= !admits;
        admits
    }

    /// Says whether there was more to do than may be done in one plan.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Says whether a task of a service may be written, as [`Planning::admits`] does of a task.
    pub(crate) fn admits_any_of(&mut self, service: &ServiceId) -> bool {
        let admits = self.room > 0 || self.written.contains(service);
        self.is_cut |= !admits;
        admits
    }

    fn has_written(&self, task: &TaskId) -> bool {
        match (self.tx.before().task(task), self.tx.task(task)) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
            (before, now) => before.is_some() != now.is_some(),
        }
    }

    /// Raises what is wanted of a task; it is never lowered.
    pub(crate) fn want(&mut self, task: &TaskId, desired: DesiredState) {
        if self.tx.task(task).is_some_and(|task| task.desired < desired) {
            self.edit_task(task, |task| task.desired = desired);
        }
    }

    /// Moves a task on to `state`, with what it got for that.
    pub(crate) fn enter(
        &mut self,
        task: &TaskId,
        (state, message): (TaskState, &str),
        edit: impl FnOnce(&mut Task),
    ) {
        let now = self.now;
        self.edit_task(task, |task| {
            task.status.state = state;
            task.status.since = now;
            message.clone_into(&mut task.status.message);
            task.status.error.clear();
            edit(task);
        });
    }

    /// Says why a task waits. Writes nothing when it says so already.
    pub(crate) fn excuse(&mut self, task: &TaskId, reason: &str) {
        let is_new = self.tx.task(task).is_some_and(|task| task.status.error != reason);
        if is_new && self.admits(task) {
            self.edit_task(task, |task| reason.clone_into(&mut task.status.error));
        }
    }

    fn edit_task(&mut self, task: &TaskId, edit: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tx.task(task).cloned() {
            self.note(&task);
        }
        self.tx.edit_task(task, edit);
    }

    pub(crate) fn put_task(&mut self, task: Task) {
        self.note(&task);
        self.tx.put_task(task);
    }

    pub(crate) fn remove_task(&mut self, task: &TaskId) {
        if let Some(task) = self.tx.task(task).cloned() {
            self.note(&task);
        }
        self.tx.remove_task(task);
    }

    fn note(&mut self, task: &Task) {
        if !self.has_written(&task.id) {
            self.room = self.room.saturating_sub(1);
            self.written.insert(task.service.clone());
        }
    }

    pub(crate) fn finish(self) -> Changes {
        self.tx.finish()
    }
}
