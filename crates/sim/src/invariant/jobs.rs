//! Of a job never more slots run at once than it allows, among nodes that are connected; also not
//! while the tasks of a former iteration stop. After the calm all have completed that were asked for.

use super::displaced::Displaced;
use super::settled_tasks::eligible;
use super::{Invariant, Verdict, is_connected};
use crate::context::Happened;
use crate::world::World;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::View;
use types::{DesiredState, Service, ServiceMode, Task, TaskState};

#[derive(Debug, Default)]
pub(super) struct Jobs {
    displaced: Displaced,
}

impl Invariant for Jobs {
    fn name(&self) -> &'static str {
        "of a job no more run at once than may, and in the calm all complete"
    }

    fn happened(&mut self, world: &World, what: &Happened) -> Verdict {
        let view = world.view();
        let task = match what {
            Happened::Stored { .. } => {
                self.displaced.note(view);
                return Ok(());
            }
            Happened::Began { task, .. } => task,
            _ => return Ok(()),
        };
        let counts =
            |task: &Task| task.desired < DesiredState::Remove && !self.displaced.has(&task.id);
        let Some(task) = view.task(task).filter(|task| counts(task)) else { return Ok(()) };
        let service = view.service(&task.service);
        let Some(ServiceMode::ReplicatedJob { max_concurrent, .. }) =
            service.map(|service| service.spec.mode)
        else {
            return Ok(());
        };
        let runs = |other: &&Arc<Task>| {
            let node = other.node.as_ref().and_then(|node| world.node_of(node));
            let runs = node.is_some_and(|node| node.runs(&other.id) && is_connected(world, node));
            runs && !self.displaced.has(&other.id)
        };
        let beside = view.tasks_of_service(&task.service).filter(runs).map(|other| other.slot);
        let slots: BTreeSet<u64> = beside.chain([task.slot]).collect();
        if u64::try_from(slots.len()).is_ok_and(|slots| slots <= max_concurrent) {
            return Ok(());
        }
        Err(format!("{}: {} runs, with {slots:?} of {max_concurrent}", task.service_name, task.id))
    }

    fn settled(&mut self, world: &World) -> Verdict {
        let view = world.view();
        for service in view.services().filter(|it| it.allocation_error.is_empty()) {
            check(view, service).map_err(|why| format!("{}: {why}", service.spec.name))?;
        }
        Ok(())
    }
}

/// Every task that is wanted is of the present iteration and has completed, and none is missing.
fn check(view: &View, service: &Service) -> Verdict {
    let Some(job) = &service.job else { return Ok(()) };
    let tasks = view.tasks_of_service(&service.id).filter(|task| task.is_wanted());
    let wanted: Vec<&Arc<Task>> = tasks.collect();
    // What ended on a node that takes no tasks is not replaced there.
    let eligible = eligible(view, service);
    let has_place =
        |task: &Task| task.slot > 0 || eligible.iter().any(|it| task.node.as_ref() == Some(&it.id));
    let is_done = |task: &Task| {
        let is_over =
            task.status.state == TaskState::Complete || (!has_place(task) && !task.occupies());
        is_over && task.iteration == Some(job.iteration)
    };
    if let Some(task) = wanted.iter().find(|task| !is_done(task)) {
        return Err(format!("{} of {:?} is {:?}", task.id, task.iteration, task.status));
    }
    match service.spec.mode {
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            let slots: Vec<u64> = wanted.iter().map(|task| task.slot).collect();
            let distinct: BTreeSet<u64> = slots.iter().copied().collect();
            let is_whole =
                slots.len() == distinct.len() && distinct.into_iter().eq(1..=total_completions);
            if !is_whole {
                return Err(format!("{slots:?} of {total_completions} have completed"));
            }
        }
        ServiceMode::GlobalJob => {
            for node in &eligible {
                let on = wanted.iter().filter(|task| task.node.as_ref() == Some(&node.id)).count();
                if on != 1 {
                    return Err(format!("{on} tasks on {}", node.id));
                }
            }
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => {}
    }
    Ok(())
}
