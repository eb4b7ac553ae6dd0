//! Slots: where in a service a task stands.

use crate::Planning;
use crate::index::Standing;
use std::collections::BTreeMap;
use std::sync::Arc;
pub(crate) use types::Slot;
use types::{
    Availability, DesiredState, Node, NodeState, Placement, Task, TaskId, TaskState, Timestamp,
    Version,
};

/// Slots of a service, for all steps of a plan: what one step changes, the next one sees.
pub(crate) type Slots = BTreeMap<Slot, SlotTasks>;

/// The tasks of one slot, each kind from old to new.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SlotTasks {
    /// Wanted to run, now or later. One that ended stays here when it is not restarted.
    pub(crate) wanted: Vec<Arc<Task>>,
    /// Not wanted any more, but not ended yet.
    pub(crate) stopping: Vec<Arc<Task>>,
    /// Not wanted any more, and ended.
    pub(crate) history: Vec<Arc<Task>>,
    /// What is known of the slot where nobody looks at it.
    pub(crate) standing: Standing,
}

impl SlotTasks {
    /// Says whether a task that is wanted runs.
    pub(crate) fn runs(&self) -> bool {
        self.wanted.iter().any(|task| task.status.state == TaskState::Running)
    }

    /// Says whether it has a task that is wanted.
    pub(crate) fn is_filled(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Asks for another look at this slot at `time`, unless one is asked for before.
    pub(crate) fn wake_at(&mut self, time: Timestamp) {
        let wake = &mut self.standing.wake;
        *wake = Some(wake.map_or(time, |wake| wake.min(time)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Says whether it has a task, as this very object.
    pub(crate) fn has(&self, task: &Arc<Task>) -> bool {
        self.all().any(|other| Arc::ptr_eq(other, task))
    }

    /// The tasks of all kinds.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.wanted.iter().chain(&self.stopping).chain(&self.history)
    }

    /// Those of which this is so.
    pub(crate) fn ids(&self, is_so: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        self.all().filter(|task| is_so(task)).map(|task| task.id.clone()).collect()
    }

    /// Raises what is wanted of one of these tasks.
    pub(crate) fn want(&mut self, planning: &mut Planning<'_>, id: &TaskId, desired: DesiredState) {
        planning.want(id, desired);
        self.remove(id);
        if let Some(task) = planning.tx.task(id) {
            self.insert(Arc::clone(task));
        }
    }

    /// Takes a task out.
    pub(crate) fn remove(&mut self, id: &TaskId) {
        for kind in [&mut self.wanted, &mut self.stopping, &mut self.history] {
            kind.retain(|task| task.id != *id);
        }
    }

    /// Takes a task in among those of its kind.
    pub(crate) fn insert(&mut self, task: Arc<Task>) {
        let kind = if task.is_wanted() {
            &mut self.wanted
        } else if task.occupies() {
            &mut self.stopping
        } else {
            &mut self.history
        };
        let place = kind.partition_point(|other| age(other) < age(&task));
        kind.insert(place, task);
    }
}

/// Where a task stands among those of its kind, from old to new. One that this plan makes has no
/// version and no birthday yet: it is the newest.
fn age(task: &Task) -> (bool, Timestamp, &TaskId) {
    (task.meta.version == Version(0), task.meta.created_at, &task.id)
}

/// Where a task stands in its service. Slots of a replicated service have numbers from 1 on; a task
/// of a global one names its node.
pub(crate) fn slot_of(task: &Task) -> Slot {
    match (task.slot, &task.node) {
        (0, Some(node)) => Slot::Node(node.clone()),
        (number, _) => Slot::Number(number),
    }
}

/// Says whether tasks may stay on a node; where it is drained with pace, until they have moved.
pub(crate) fn keeps_tasks(node: &Node) -> bool {
    let stays = match node.spec.availability {
        Availability::Active | Availability::Pause => true,
        Availability::Drain => node.is_drained_with_pace(),
    };
    stays && !node.status.leaving && !node.is_down()
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

/// Says whether a node is of a platform that the image is made for, and fulfils all constraints.
/// One that cannot be read is fulfilled by no node.
pub(crate) fn matches(node: &Node, placement: &Placement) -> bool {
    placement.suits(node) && placement.is_fulfilled_by(node)
}
