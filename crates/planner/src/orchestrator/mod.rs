//! Which tasks exist, and what is wanted of each.
//!
//! Start with [`orchestrate`]: for a service, tasks that cannot stay where they are, tasks that
//! ended, tasks too many or too few, tasks of an old spec, and tasks whose time has come. A slot is
//! the unit of all of it: a number in a replicated service, a node in a global one.

mod enforce;
mod global;
mod reap;
mod replicated;
mod restart;
pub(crate) mod slot;
pub(crate) mod update;

pub(crate) use reap::lingers_until;
pub use replicated::REPLICAS_MAX;

use crate::Planning;
use slot::{Slot, SlotTasks, Slots, slots};
use std::sync::Arc;
use std::time::Duration;
use types::{
    DesiredState, Service, ServiceId, ServiceMode, Task, TaskId, TaskState, TaskStatus, Timestamp,
};

/// Decides which tasks of a service exist and what is wanted of each. Of a service that was removed
/// there may be tasks, too. Stops where the plan is full: the rest is for the next one.
pub(crate) fn orchestrate(planning: &mut Planning<'_>, service: &ServiceId) {
    reap::forget_lost(planning, service);
    let mut slots = Slots::new();
    if let Some(service) = planning.tx.service(service).cloned() {
        slots = self::slots(&planning.tx, &service);
        reconcile(planning, &service, &mut slots);
    }
    if !planning.is_full() {
        reap::reap(planning, service, &slots);
    }
}

fn reconcile(planning: &mut Planning<'_>, service: &Arc<Service>, slots: &mut Slots) {
    type Step = fn(&mut Planning<'_>, &Service, &mut Slots);
    let scale: Step = match service.spec.mode {
        ServiceMode::Replicated { .. } => replicated::reconcile,
        ServiceMode::Global => global::reconcile,
    };
    let steps: [Step; 5] =
        [enforce::enforce, restart::restart, scale, update::advance, restart::release];
    for step in steps {
        if planning.is_full() {
            return;
        }
        step(planning, service, slots);
    }
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
fn create(
    planning: &mut Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
    start: Start,
) {
    let (number, node) = match slot {
        Slot::Number(number) => (*number, None),
        Slot::Node(node) => (0, Some(node.clone())),
    };
    let status = TaskStatus {
        state: TaskState::New,
        since: planning.now,
        message: "created".to_owned(),
        ..TaskStatus::default()
    };
    let id = TaskId::draw(planning.ids);
    planning.put_task(Task {
        id: id.clone(),
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
    if let Some(task) = planning.tx.task(&id) {
        tasks.insert(Arc::clone(task));
    }
}
