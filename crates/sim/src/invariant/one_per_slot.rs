//! Never more tasks of a slot run than the update order allows, among nodes that are connected:
//! stop-first says that two of one database never run beside each other.
//!
//! Not meant are tasks that were replaced for their node's sake (it was lost, is drained at once, or
//! does not fit any more: nobody waits for those), and those that are on their way out for good.

use super::displaced::Displaced;
use super::{Invariant, Verdict, is_connected};
use crate::context::Happened;
use crate::world::World;
use std::collections::BTreeSet;
use store::View;
use types::{DesiredState, ServiceId, Task, UpdateOrder};

#[derive(Debug, Default)]
pub(super) struct OnePerSlot {
    displaced: Displaced,
    /// Services that were ever told to start the new one first.
    start_first: BTreeSet<ServiceId>,
}

impl OnePerSlot {
    fn note(&mut self, view: &View) {
        for service in view.services() {
            let orders = [service.spec.update.order, service.spec.rollback.order];
            if orders.contains(&UpdateOrder::StartFirst) {
                self.start_first.insert(service.id.clone());
            }
        }
        self.displaced.note(view);
    }

    fn counts(&self, task: &Task) -> bool {
        task.desired != DesiredState::Remove && !self.displaced.has(&task.id)
    }
}

impl Invariant for OnePerSlot {
    fn name(&self) -> &'static str {
        "never more tasks of a slot run than the update order allows"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        let view = world.view();
        let task = match what {
            Happened::Stored { .. } => {
                self.note(view);
                return Ok(());
            }
            Happened::Began { task, .. } => task,
            _ => return Ok(()),
        };
        let Some(task) = view.task(task).filter(|task| self.counts(task)) else { return Ok(()) };
        let is_beside = |other: &&std::sync::Arc<Task>| {
            let same_place = other.slot == task.slot && (task.slot > 0 || other.node == task.node);
            let runs = || {
                let node = other.node.as_ref().and_then(|node| world.node_of(node));
                node.is_some_and(|node| node.runs(&other.id) && is_connected(world, node))
            };
            other.id != task.id && same_place && self.counts(other) && runs()
        };
        let beside: Vec<_> = view.tasks_of_service(&task.service).filter(is_beside).collect();
        let is_allowed = if self.start_first.contains(&task.service) {
            beside.iter().filter(|it| it.desired <= DesiredState::Running).count() <= 1
        } else {
            beside.is_empty()
        };
        if is_allowed {
            return Ok(());
        }
        let (name, slot, id) = (&task.service_name, task.slot, &task.id);
        let beside: Vec<_> = beside.iter().map(|it| it.id.as_str()).collect();
        Err(format!("{name}.{slot} {id} begins beside {}", beside.join(", ")))
    }
}
