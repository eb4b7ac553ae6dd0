//! Slots: where in a service a task stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use store::View;
pub(crate) use types::Slot;
use types::{
    Availability, Constraint, DesiredState, Node, NodeState, Placement, Service, ServiceMode, Task,
    TaskState, Version,
};

/// The tasks of one slot, each kind from old to new.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// Wanted to run, now or later. One that ended stays here when it is not restarted.
    pub(crate) wanted: Vec<Arc<Task>>,
    /// Not wanted any more, but not ended yet.
    pub(crate) leaving: Vec<Arc<Task>>,
    /// Not wanted any more, and ended.
    pub(crate) history: Vec<Arc<Task>>,
}

impl Held {
    /// Says whether a task that is wanted runs.
    pub(crate) fn runs(&self) -> bool {
        self.wanted.iter().any(|task| task.status.state == TaskState::Running)
    }
}

/// The slots of a service that have a task of any kind.
pub(crate) fn slots(view: &View, service: &Service) -> BTreeMap<Slot, Held> {
    let mut tasks: Vec<&Arc<Task>> = view.tasks_of_service(&service.id).collect();
    // A task that this plan makes has no version and no birthday yet: it is the newest.
    tasks.sort_by_key(|task| (task.meta.version == Version(0), task.meta.created_at));
    let mut slots: BTreeMap<Slot, Held> = BTreeMap::new();
    for task in tasks {
        let slot = match (service.spec.mode, &task.node) {
            (ServiceMode::Global, Some(node)) => Slot::Node(node.clone()),
            (ServiceMode::Global, None) | (ServiceMode::Replicated { .. }, _) => {
                Slot::Number(task.slot)
            }
        };
        let held = slots.entry(slot).or_default();
        let kind = if task.desired <= DesiredState::Running {
            &mut held.wanted
        } else if task.occupies() {
            &mut held.leaving
        } else {
            &mut held.history
        };
        kind.push(Arc::clone(task));
    }
    slots
}

/// Says whether tasks may stay on a node.
pub(crate) fn keeps_tasks(node: &Node) -> bool {
    let stays = match node.spec.availability {
        Availability::Active | Availability::Pause => true,
        Availability::Drain => false,
    };
    stays && !node.status.leaving && !is_down(node)
}

/// Says whether a node may get new tasks.
pub(crate) fn takes_tasks(node: &Node) -> bool {
    let ready = match node.status.state {
        NodeState::Ready => true,
        NodeState::Unknown | NodeState::Down | NodeState::Disconnected => false,
    };
    let active = match node.spec.availability {
        Availability::Active => true,
        Availability::Pause | Availability::Drain => false,
    };
    ready && active && !node.status.leaving
}

pub(crate) fn is_down(node: &Node) -> bool {
    match node.status.state {
        NodeState::Down => true,
        NodeState::Unknown | NodeState::Ready | NodeState::Disconnected => false,
    }
}

/// Says whether a node is of a platform that the image is made for, and fulfils all constraints.
/// One that cannot be read is fulfilled by no node.
pub(crate) fn matches(node: &Node, placement: &Placement) -> bool {
    let fulfils =
        |text: &String| Constraint::parse(text).is_ok_and(|constraint| constraint.matches(node));
    placement.suits(node) && placement.constraints.iter().all(fulfils)
}
