//! Pending tasks get their nodes.

use super::explain::explain;
use super::filter::{Misfit, Wish, fit};
use super::spread::choose;
use crate::Draft;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::View;
use types::{
    DesiredState, Node, NodeId, Protocol, PublishMode, ServiceId, Task, TaskState, Timestamp,
};

/// Failures of a service's tasks on a node count for this long.
const FAILURES_WITHIN: Duration = Duration::from_mins(5);

/// What a node already carries.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) node: Arc<Node>,
    /// Reserved by tasks that have not ended.
    pub(super) nano_cpus: i64,
    pub(super) memory: i64,
    pub(super) host_ports: BTreeSet<(Protocol, u16)>,
    /// Tasks that are wanted, in all and of each service.
    pub(super) tasks: usize,
    pub(super) of_service: BTreeMap<ServiceId, usize>,
    /// Tasks of each service that failed here lately.
    pub(super) failures: BTreeMap<ServiceId, usize>,
}

impl Load {
    fn new(node: &Arc<Node>) -> Self {
        Self {
            node: Arc::clone(node),
            nano_cpus: 0,
            memory: 0,
            host_ports: BTreeSet::new(),
            tasks: 0,
            of_service: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    fn add(&mut self, task: &Task, now: Timestamp) {
        if !task.occupies() {
            let failed = match task.status.state {
                TaskState::Failed | TaskState::Rejected => true,
                TaskState::New
                | TaskState::Pending
                | TaskState::Assigned
                | TaskState::Accepted
                | TaskState::Preparing
                | TaskState::Ready
                | TaskState::Starting
                | TaskState::Running
                | TaskState::Complete
                | TaskState::Shutdown
                | TaskState::Orphaned => false,
            };
            if failed && now.since(task.status.since) < FAILURES_WITHIN {
                *self.failures.entry(task.service.clone()).or_default() += 1;
            }
            return;
        }
        self.nano_cpus = self.nano_cpus.saturating_add(task.spec.resources.reserve_nano_cpus);
        self.memory = self.memory.saturating_add(task.spec.resources.reserve_memory);
        let host = task.ports.iter().filter(|port| port.mode == PublishMode::Host);
        self.host_ports.extend(host.map(|port| (port.protocol, port.published)));
        if task.desired <= DesiredState::Running {
            self.tasks += 1;
            *self.of_service.entry(task.service.clone()).or_default() += 1;
        }
    }

    pub(super) fn count(&self, service: &ServiceId) -> usize {
        self.of_service.get(service).copied().unwrap_or(0)
    }
}

/// Gives pending tasks their nodes. A task that fits on none says why.
pub(crate) fn schedule(draft: &mut Draft<'_>) {
    let pending = |task: &&Arc<Task>| {
        task.status.state == TaskState::Pending && task.desired <= DesiredState::Running
    };
    let mut tasks: Vec<Arc<Task>> = draft.tx.tasks().filter(pending).cloned().collect();
    if tasks.is_empty() {
        return;
    }
    tasks.sort_by(|a, b| (&a.service, a.slot, &a.id).cmp(&(&b.service, b.slot, &b.id)));
    let mut loads = loads(&draft.tx, draft.now);
    let mut unplaced = Vec::new();
    for task in tasks {
        let Ok(node) = place(&loads, &task) else {
            unplaced.push(task);
            continue;
        };
        draft.enter(&task.id, TaskState::Assigned, "scheduler assigned task to node");
        draft.tx.edit_task(&task.id, |task| task.node = Some(node.clone()));
        if let Some(load) = loads.get_mut(&node) {
            load.add(&task, draft.now);
        }
    }
    // What one of them lacks may be what another one has just got.
    for task in unplaced {
        if let Err(misfits) = place(&loads, &task) {
            draft.excuse(&task.id, &explain(&misfits));
        }
    }
}

fn loads(view: &View, now: Timestamp) -> BTreeMap<NodeId, Load> {
    view.nodes()
        .map(|node| {
            let mut load = Load::new(node);
            // A task of a global service names its node before it is placed there.
            let placed = |task: &&Arc<Task>| TaskState::Assigned <= task.status.state;
            for task in view.tasks_of_node(&node.id).filter(placed) {
                load.add(task, now);
            }
            (node.id.clone(), load)
        })
        .collect()
}

/// The node a task goes to, or why it fits on none.
fn place(loads: &BTreeMap<NodeId, Load>, task: &Task) -> Result<NodeId, Vec<Misfit>> {
    let wish = Wish::of(task);
    let (mut fitting, mut misfits) = (Vec::new(), Vec::new());
    let fixed = task.node.as_ref();
    for (_, load) in loads.iter().filter(|(id, _)| fixed.is_none_or(|fixed| fixed == *id)) {
        match fit(load, &wish) {
            Ok(()) => fitting.push(load),
            Err(misfit) => misfits.push(misfit),
        }
    }
    choose(&fitting, task).map(|load| load.node.id.clone()).ok_or(misfits)
}
