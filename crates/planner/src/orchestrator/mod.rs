//! Which tasks exist, and what is wanted of each.
//!
//! Start with [`orchestrate`]: for a service, tasks that cannot stay where they are, tasks that
//! ended, tasks too many or too few, tasks of an old spec, and tasks whose time has come. A slot is
//! the unit of all of it: a number in a replicated service, a node in a global one.

mod drain;
mod due;
mod enforce;
mod global;
mod jobs;
mod reap;
mod rebalance;
mod replicated;
mod restart;
pub(crate) mod slot;
pub(crate) mod sticky;
pub(crate) mod update;

pub(crate) use drain::is_emptied;
pub(crate) use reap::lingers_until;
pub use replicated::REPLICAS_MAX;
pub use update::is_current;

use crate::Planning;
use crate::index::{Basis, Index, ServiceSlots};
use slot::{Slot, SlotTasks};
use std::sync::Arc;
use std::time::Duration;
use types::{
    DesiredState, Service, ServiceId, ServiceMode, Task, TaskId, TaskState, TaskStatus, Timestamp,
};

/// Decides which tasks of a service exist and what is wanted of each. Of a service that was removed
/// there may be tasks, too. Stops where the plan is full: the rest is for the next one.
///
/// It looks at the slots that are stirred, and at others only to choose those that are too many, or
/// whose turn it is in an update.
pub(crate) fn orchestrate(
    planning: &mut Planning<'_>,
    id: &ServiceId,
    all: &mut ServiceSlots,
    index: &Index,
) {
    due::begin(planning, id, all);
    let service = planning.tx.service(id).cloned();
    all.follow(Basis::of(planning, id));
    all.stir_due(planning.now);
    if all.take_whole() && service.as_ref().is_some_and(|service| service.spec.mode.is_global()) {
        let nodes = planning.tx.nodes();
        nodes.for_each(|node| all.stir(&Slot::Node(node.id.clone())));
    }
    let mut free = Vec::new();
    while !planning.is_full()
        && let Some((slot, mut tasks)) = all.next_stirred()
    {
        reap::forget_lost(planning, service.as_deref(), &mut tasks);
        if let Some(service) = &service {
            mend(planning, service, (&slot, &mut tasks));
        }
        if tasks.is_filled() || !may_fill(planning, service.as_deref(), (&slot, &tasks)) {
            keep(planning, service.as_deref(), all, (slot, tasks));
        } else {
            free.push(slot.clone());
            all.keep(slot, tasks, true);
        }
    }
    if let Some(service) = &service {
        for step in [replicated::reconcile, update::advance, drain::advance, jobs::reconcile] {
            if !planning.is_full() {
                step(planning, service, all);
            }
        }
        if !planning.is_full() {
            rebalance::advance(planning, service, all, index);
        }
    }
    // What is left of them is needed no more where they were not filled.
    for slot in free {
        let tasks = all.take_calm(&slot);
        keep(planning, service.as_deref(), all, (slot, tasks));
    }
    all.looked_at(Basis::of(planning, id));
    if let Some((wake, _)) = all.standings().wakes.first() {
        planning.wake_at(*wake);
    }
}

/// What is to be done of a slot whatever the others are.
fn mend(planning: &mut Planning<'_>, service: &Service, (slot, tasks): (&Slot, &mut SlotTasks)) {
    type Step = fn(&mut Planning<'_>, &Service, (&Slot, &mut SlotTasks));
    let steps: [Step; 6] = [
        jobs::retire,
        enforce::enforce,
        restart::restart,
        global::reconcile,
        update::finish_overlap,
        drain::settle,
    ];
    for step in steps {
        if !planning.is_full() {
            step(planning, service, (slot, tasks));
        }
    }
}

/// Lets the tasks of a slot start whose turn it is, forgets what nobody needs, and gives the slot
/// back: where the plan had no room for all of that, it is to be looked at again.
fn keep(
    planning: &mut Planning<'_>,
    service: Option<&Service>,
    all: &mut ServiceSlots,
    (slot, mut tasks): (Slot, SlotTasks),
) {
    if !planning.is_full() {
        if let Some(service) = service {
            restart::release(planning, service, &mut tasks);
        }
        reap::reap(planning, service, &mut tasks);
    }
    if service.is_some_and(|service| service.spec.mode.is_job()) {
        jobs::stand(planning, &mut tasks);
    } else if let Some(service) = service {
        update::stand(planning, service, (&slot, &mut tasks));
        drain::stand(planning, service, (&slot, &mut tasks));
    }
    all.keep(slot, tasks, !planning.is_full());
}

/// Says whether a later step may make a task for a slot that has none: the lowest ones are filled.
fn may_fill(
    planning: &Planning<'_>,
    service: Option<&Service>,
    (slot, tasks): (&Slot, &SlotTasks),
) -> bool {
    let (Some(service), Slot::Number(number)) = (service, slot) else { return false };
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => *number <= replicas,
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            *number <= total_completions
                && jobs::is_begun(service)
                && !jobs::is_blocked(&planning.tx, tasks)
        }
        ServiceMode::Global | ServiceMode::GlobalJob => false,
    }
}

/// When a new task starts.
#[derive(Clone, Debug)]
struct Start {
    desired: DesiredState,
    not_before: Option<Timestamp>,
    restarts: Vec<Timestamp>,
    trial: Duration,
    replaces: Option<TaskId>,
}

impl Start {
    fn now() -> Self {
        let (not_before, restarts, trial, replaces) = Default::default();
        Self { desired: DesiredState::Running, not_before, restarts, trial, replaces }
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
        Slot::Number(number) => (*number, sticky::home(&planning.tx, service, (*number, tasks))),
        Slot::Node(node) => (0, Some(node.clone())),
    };
    let status = TaskStatus {
        state: TaskState::New,
        since: planning.now,
        message: "created".to_owned(),
        ..TaskStatus::default()
    };
    let says_log = service.spec.task.own_log().is_some();
    let cluster = planning.tx.cluster().filter(|_| !says_log);
    let default_log = cluster.and_then(|cluster| cluster.spec.log_driver.clone());
    let id = TaskId::draw(planning.ids);
    planning.put_task(Task {
        id: id.clone(),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        service_labels: service.spec.labels.clone(),
        slot: number,
        iteration: jobs::iteration(service),
        node,
        spec: service.spec.task.clone(),
        desired: start.desired,
        status,
        not_before: start.not_before,
        trial: start.trial,
        replaces: start.replaces,
        restarts: start.restarts,
        default_log,
        ..Task::default()
    });
    if let Some(task) = planning.tx.task(&id) {
        tasks.insert(Arc::clone(task));
    }
}

#[cfg(test)]
mod tests {
    use crate::plan;
    use crate::testing::Count;
    use store::{Tx, View};
    use types::{Cluster, LogDriver, Service, ServiceId, ServiceMode, Task, Timestamp, Version};

    fn log(name: &str) -> LogDriver {
        LogDriver { name: name.to_owned(), ..LogDriver::default() }
    }

    /// Where the output of a new task goes, and what its service says of it.
    fn log_of(cluster: Option<LogDriver>, service: &str) -> LogDriver {
        let mut view = View::default();
        let mut tx = Tx::new(&view);
        let mut whole = Cluster::default();
        whole.spec.log_driver = cluster;
        tx.put_cluster(whole);
        let mut web = Service { id: ServiceId::from("web"), ..Service::default() };
        web.spec.mode = ServiceMode::Replicated { replicas: 1 };
        service.clone_into(&mut web.spec.task.log_driver);
        tx.put_service(web);
        view.apply(&tx.finish(), Version(1), Timestamp(1));
        view.apply(&plan(&view, Timestamp(2), &mut Count(0)).changes, Version(2), Timestamp(2));
        let tasks: Vec<_> = view.tasks_of_service(&"web".into()).collect();
        assert_eq!(tasks.len(), 1);
        Task::log(tasks[0])
    }

    #[test]
    fn a_task_whose_service_says_nothing_of_its_log_gets_the_clusters_default() {
        assert_eq!(log_of(None, ""), log(""));
        assert_eq!(log_of(Some(log("local")), ""), log("local"));
        assert_eq!(log_of(Some(log("local")), "json-file"), log("json-file"));
    }
}
