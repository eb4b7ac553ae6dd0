//! Which tasks exist, and what is wanted of each.
//!
//! Start with [`orchestrate`]: for each service, tasks that cannot stay where they are, tasks that
//! ended, tasks too many or too few, tasks of an old spec, and tasks whose time has come. A slot is
//! the unit of all of it: a number in a replicated service, a node in a global one.

mod enforce;
mod global;
mod reap;
mod replicated;
mod restart;
pub(crate) mod slot;
pub(crate) mod update;

pub(crate) use reap::lingers;
pub use replicated::REPLICAS_MAX;

use crate::Draft;
use slot::Slot;
use std::sync::Arc;
use std::time::Duration;
use types::{DesiredState, Service, ServiceMode, Task, TaskId, TaskState, TaskStatus, Timestamp};

/// Decides which tasks exist and what is wanted of each.
pub(crate) fn orchestrate(draft: &mut Draft<'_>) {
    reap::forget_lost(draft);
    let services: Vec<Arc<Service>> = draft.tx.services().cloned().collect();
    for service in &services {
        enforce::enforce(draft, service);
        restart::restart(draft, service);
        match service.spec.mode {
            ServiceMode::Replicated { replicas } => {
                replicated::reconcile(draft, service, replicas);
            }
            ServiceMode::Global => global::reconcile(draft, service),
        }
        update::advance(draft, service);
        restart::release(draft, service);
    }
    reap::reap(draft);
}

/// When a new task starts.
#[derive(Clone, Debug)]
struct Start {
    desired: DesiredState,
    not_before: Option<Timestamp>,
    restarts: Vec<Timestamp>,
    trial: Duration,
}

impl Start {
    fn now() -> Self {
        let (not_before, restarts, trial) = Default::default();
        Self { desired: DesiredState::Running, not_before, restarts, trial }
    }

    /// Prepared, and started by [`restart::release`].
    fn later() -> Self {
        Self { desired: DesiredState::Ready, ..Self::now() }
    }
}

/// Makes a task of the service's present spec.
fn create(draft: &mut Draft<'_>, service: &Service, slot: &Slot, start: Start) {
    let (number, node) = match slot {
        Slot::Number(number) => (*number, None),
        Slot::Node(node) => (0, Some(node.clone())),
    };
    let status = TaskStatus {
        state: TaskState::New,
        since: draft.now,
        message: "created".to_owned(),
        ..TaskStatus::default()
    };
    draft.tx.put_task(Task {
        id: TaskId::draw(draft.ids),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        slot: number,
        node,
        spec: service.spec.task.clone(),
        desired: start.desired,
        status,
        not_before: start.not_before,
        trial: start.trial,
        restarts: start.restarts,
        ..Task::default()
    });
}
