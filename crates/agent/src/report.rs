//! What managers are to be told: of each task the newest status. What a session has taken and could
//! not send, the next one has.

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

    /// Waits until something may have been put in.
    pub(crate) async fn filled(&self) {
        self.0.filled.notified().await;
    }

    fn with<R>(&self, run: impl FnOnce(&mut BTreeMap<TaskId, TaskStatus>) -> R) -> R {
        run(&mut self.0.statuses.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
