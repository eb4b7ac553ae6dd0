//! A plan in the making.

use crate::Plan;
use std::collections::BTreeMap;
use store::{Tx, View};
use types::{DesiredState, IdSource, ServiceId, TaskId, TaskState, Timestamp};

/// A plan in the making: the transaction, the time, new ids and the next deadline.
pub(crate) struct Draft<'a> {
    pub(crate) tx: Tx,
    pub(crate) now: Timestamp,
    pub(crate) ids: &'a mut dyn IdSource,
    /// Services whose ports could not be given, and why.
    pub(crate) port_errors: BTreeMap<ServiceId, String>,
    wake: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(view: &View, now: Timestamp, ids: &'a mut dyn IdSource) -> Self {
        Self { tx: Tx::new(view), now, ids, port_errors: BTreeMap::new(), wake: None }
    }

    /// Asks for another plan at `time`, unless one is asked for before.
    pub(crate) fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// Raises what is wanted of a task; it is never lowered.
    pub(crate) fn want(&mut self, task: &TaskId, desired: DesiredState) {
        self.tx.edit_task(task, |task| task.desired = task.desired.max(desired));
    }

    /// Moves a task on to `state`.
    pub(crate) fn enter(&mut self, task: &TaskId, state: TaskState, message: &str) {
        let now = self.now;
        self.tx.edit_task(task, |task| {
            task.status.state = state;
            task.status.since = now;
            message.clone_into(&mut task.status.message);
            task.status.error.clear();
        });
    }

    /// Says why a task waits. Writes nothing when it says so already.
    pub(crate) fn excuse(&mut self, task: &TaskId, reason: &str) {
        if self.tx.task(task).is_some_and(|task| task.status.error != reason) {
            self.tx.edit_task(task, |task| reason.clone_into(&mut task.status.error));
        }
    }

    pub(crate) fn finish(self) -> Plan {
        Plan { changes: self.tx.finish(), wake: self.wake }
    }
}
