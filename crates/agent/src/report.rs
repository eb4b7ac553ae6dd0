//! What managers are to be told: of each task the newest status.

use std::collections::BTreeMap;
use std::mem::replace;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use types::{TaskId, TaskStatus};

/// Statuses in one report: managers limit what a node may send at a time.
const REPORT: usize = 1000;

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

    /// Takes out what fits into a report; the rest wakes whoever waits.
    pub(crate) fn take(&self) -> BTreeMap<TaskId, TaskStatus> {
        let (taken, is_rest) = self.with(|statuses| {
            let rest = match statuses.keys().nth(REPORT).cloned() {
                Some(first) => statuses.split_off(&first),
                None => BTreeMap::new(),
            };
            let is_rest = !rest.is_empty();
            (replace(statuses, rest), is_rest)
        });
        if is_rest {
            self.0.filled.notify_one();
        }
        taken
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
    fn many_statuses_go_in_several_reports() {
        let outbox = Outbox::default();
        for task in 0..2500 {
            outbox.put(format!("{task}").as_str().into(), status(TaskState::Ready));
        }
        let reports: Vec<usize> = (0..4).map(|_| outbox.take().len()).collect();
        assert_eq!(reports, [1000, 1000, 500, 0]);
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
