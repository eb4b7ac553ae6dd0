//! What holds in every run, one rule a file.

mod displaced;
mod jobs;
mod leaving;
mod managers;
mod one_per_slot;
mod only_rise;
mod plan_ends;
mod plan_keeps_rules;
mod replay;
mod serves;
mod settled_nodes;
mod settled_store;
mod settled_tasks;
mod settled_traffic;
mod unique;
mod versions_rise;
mod withdrawn_first;

use crate::context::Happened;
use crate::manager::Manager;
use crate::node::Node;
use crate::world::World;
use std::sync::Arc;
use store::View;
use types::{Availability, NodeState, Task};

/// Why a rule is broken.
pub type Verdict = Result<(), String>;

/// A rule.
pub trait Invariant {
    /// The rule in a few words.
    fn name(&self) -> &'static str;

    /// Asked whenever something has happened, right after it.
    fn happened(&mut self, _world: &World, _what: &Happened) -> Verdict {
        Ok(())
    }

    /// Asked every second.
    fn look(&mut self, _world: &World) -> Verdict {
        Ok(())
    }

    /// Asked in the calm, until every rule says yes; it may take minutes.
    fn settled(&mut self, _world: &World) -> Verdict {
        Ok(())
    }
}

/// Every rule.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(only_rise::OnlyRise::default()),
        Box::new(versions_rise::VersionsRise::default()),
        Box::new(plan_keeps_rules::PlanKeepsRules),
        Box::new(replay::Replay),
        Box::new(leaving::Leaving),
        Box::new(managers::Managers),
        Box::new(one_per_slot::OnePerSlot::default()),
        Box::new(jobs::Jobs::default()),
        Box::new(unique::Unique),
        Box::new(withdrawn_first::WithdrawnFirst::default()),
        Box::new(serves::Serves::default()),
        Box::new(plan_ends::PlanEnds::default()),
        Box::new(settled_store::SettledStore),
        Box::new(settled_tasks::SettledTasks),
        Box::new(settled_nodes::SettledNodes),
        Box::new(settled_traffic::SettledTraffic),
    ]
}

/// Says whether a node hears the manager that leads and is heard.
fn is_connected(world: &World, node: &Node) -> bool {
    let leads = |leader: &Manager| world.ctx.network.passes(node.number, leader.machine);
    world.session_of(node.number).is_some() && world.leader().is_some_and(leads)
}

/// Says whether a task's node fulfils what the task asks for.
fn fits(node: &types::Node, task: &Task) -> bool {
    task.spec.placement.is_fulfilled_by(node)
}

/// Says whether tasks are moved away from a node.
fn is_left(node: &types::Node) -> bool {
    is_left_at_once(node) || node.is_drained_with_pace()
}

/// Says whether tasks on a node are given up, and nobody waits for them.
fn is_left_at_once(node: &types::Node) -> bool {
    let drained = match node.spec.availability {
        Availability::Active | Availability::Pause => false,
        Availability::Drain => !node.is_drained_with_pace(),
    };
    let down = match node.status.state {
        NodeState::Down => true,
        NodeState::Unknown | NodeState::Ready | NodeState::Disconnected => false,
    };
    drained || down || node.status.leaving
}

/// What has changed from one view to the next, for people.
pub fn changes(before: &View, after: &View) -> Vec<String> {
    let mut lines = Vec::new();
    for task in after.tasks() {
        let was = before.task(&task.id);
        if was.is_some_and(|was| Arc::ptr_eq(was, task)) {
            continue;
        }
        let says = |task: &Task| {
            let node = task.node.as_ref().map_or("-", |node| node.as_str());
            let (state, desired) = (task.status.state.as_str(), task.desired.as_str());
            let image = &task.spec.container.image;
            format!("{state}/{desired} {node} {image} {}", task.status.error)
        };
        let now = says(task);
        if was.is_none_or(|was| says(was) != now) {
            let (name, slot, id) = (&task.service_name, task.slot, &task.id);
            lines.push(format!("  task {name}.{slot} {id}: {now}"));
        }
    }
    for task in before.tasks().filter(|task| after.task(&task.id).is_none()) {
        lines.push(format!("  task {}.{} {}: forgotten", task.service_name, task.slot, task.id));
    }
    for node in after.nodes() {
        let was = before.node(&node.id).map(|was| &was.status.state);
        if was != Some(&node.status.state) {
            lines.push(format!("  {}: {:?} {}", node.id, node.status.state, node.status.message));
        }
    }
    for service in after.services() {
        let was = before.service(&service.id).and_then(|was| was.update.as_ref());
        if let Some(update) = service.update.as_ref().filter(|update| Some(*update) != was) {
            lines.push(format!("  {}: {:?} {}", service.spec.name, update.state, update.message));
        }
    }
    lines
}
