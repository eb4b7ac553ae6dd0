//! What managers are to be told: of each task the newest status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use types::{TaskId, TaskStatus};

/// Statuses that wait to be sent. It holds at most one for each task of this node, so the worker
/// never waits for managers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    statuses: Mutex<BTreeMap<TaskId, TaskStatus>>,
    filled: Notify,
}

impl Outbox {
    /// Puts a status in; it takes the place of an older one.
    pub(crate) fn put(&self, task: TaskId, status: TaskStatus) {
        self.with(|statuses| statuses.insert(task, status.limited()));
        self.0.filled.notify_one();
    }

    /// Takes out what waits.
    pub(crate) fn take(&self) -> BTreeMap<TaskId, TaskStatus> {
        self.with(std::mem::take)
    }

    /// Puts back what could not be sent, unless there is something newer.
    pub(crate) fn put_back(&self, unsent: BTreeMap<TaskId, TaskStatus>) {
        self.with(|statuses| {
            for (task, status) in unsent {
                statuses.entry(task).or_insert(status);
            }
        });
        self.0.filled.notify_one();
    }

    /// Waits until something may have been put in.
    pub(crate) async fn filled(&self) {
        self.0.filled.notified().await;
    }

    fn with<R>(&self, run: impl FnOnce(&mut BTreeMap<TaskId, TaskStatus>) -> R) -> R {
        run(&mut self.0.statuses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::TaskState;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[test]
    fn what_could_not_be_sent_gives_way_to_what_is_newer() {
        let outbox = Outbox::default();
        outbox.put("a".into(), status(TaskState::Ready));
        outbox.put("b".into(), status(TaskState::Ready));
        let unsent = outbox.take();
        outbox.put("a".into(), status(TaskState::Running));
        outbox.put_back(unsent);
        let states = outbox.take().into_values().map(|status| status.state);
        assert_eq!(states.collect::<Vec<_>>(), [TaskState::Running, TaskState::Ready]);
    }
}
