//! After the calm, every service has the tasks that its spec asks for, of that spec, on nodes that
//! may run them, with the addresses they need; and no others.

use super::{Invariant, Verdict, fits, is_left};
use crate::world::World;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{Availability, DesiredState, Node, NodeState, Service, ServiceMode, Task, TaskState};

#[derive(Debug)]
pub(super) struct SettledTasks;

impl Invariant for SettledTasks {
    fn name(&self) -> &'static str {
        "after the calm every service has the tasks it asks for"
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.view();
        for service in view.services().filter(|it| it.allocation_error.is_empty()) {
            check(view, service).map_err(|why| format!("{}: {why}", service.spec.name))?;
        }
        let stuck = |task: &&Arc<Task>| task.desired > DesiredState::Running && task.occupies();
        match view.tasks().find(stuck) {
            Some(task) => Err(format!("task {} does not stop: {:?}", task.id, task.status)),
            None => Ok(()),
        }
    }
}

fn takes(node: &Node) -> bool {
    let is_ready = match node.status.state {
        NodeState::Ready => true,
        NodeState::Unknown | NodeState::Down | NodeState::Disconnected => false,
    };
    let is_active = match node.spec.availability {
        Availability::Active => true,
        Availability::Pause | Availability::Drain => false,
    };
    is_ready && is_active && !is_left(node)
}

/// The nodes that may run a service's tasks.
pub(super) fn eligible<'v>(view: &'v View, service: &Service) -> Vec<&'v Arc<Node>> {
    let model = Task { spec: service.spec.task.clone(), ..Task::default() };
    view.nodes().filter(|node| takes(node) && fits(node, &model)).collect()
}

fn check(view: &View, service: &Service) -> Verdict {
    let tasks = view.tasks_of_service(&service.id);
    let wanted: Vec<&Arc<Task>> = tasks.filter(|it| it.desired <= DesiredState::Running).collect();
    let eligible = eligible(view, service);
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            let slots: BTreeSet<u64> = wanted.iter().map(|task| task.slot).collect();
            let count = u64::try_from(slots.len()).unwrap_or(u64::MAX);
            if count != replicas || wanted.len() != slots.len() {
                return Err(format!("{} tasks in {count} slots of {replicas}", wanted.len()));
            }
        }
        // See `jobs`.
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => return Ok(()),
        ServiceMode::Global => {
            for node in &eligible {
                let on = wanted.iter().filter(|task| task.node.as_ref() == Some(&node.id)).count();
                if on != 1 {
                    return Err(format!("{on} tasks on {}", node.id));
                }
            }
        }
    }
    for task in wanted {
        // What ended on a node that takes no tasks is not replaced there.
        let on = |node: &&Arc<Node>| task.node.as_ref() == Some(&node.id);
        let is_over = service.spec.mode == ServiceMode::Global
            && !task.occupies()
            && !eligible.iter().any(on);
        if !is_over {
            check_task(view, service, task).map_err(|why| format!("{}: {why}", task.id))?;
        }
    }
    Ok(())
}

fn check_task(view: &View, service: &Service, task: &Task) -> Verdict {
    let (state, desired) = (task.status.state, task.desired);
    if state != TaskState::Running || desired != DesiredState::Running {
        return Err(format!("is {state:?} and wanted {desired:?}: {:?}", task.status));
    }
    let node = task.node.as_ref().and_then(|node| view.node(node));
    if node.is_none_or(|node| is_left(node) || !fits(node, task)) {
        return Err(format!("runs on {:?}", task.node));
    }
    // A task of a global service cannot be replaced on a node that takes no tasks.
    let stays = service.spec.mode == ServiceMode::Global && !node.is_some_and(|it| takes(it));
    let is_current = stays || task.spec.container.image == service.spec.task.container.image;
    let networks = task.attachments.iter().map(|it| &it.network);
    let asked = service.spec.task.networks.iter().map(|it| &it.target);
    if !is_current || (!stays && networks.ne(asked)) {
        return Err("is of another spec".to_owned());
    }
    if !stays && !service.ports.is_empty() && task.ingress_addresses.is_empty() {
        return Err("has no address in the mesh".to_owned());
    }
    Ok(())
}
