//! Global services: one task on every node that may run it.

use super::restart::has_place;
use super::slot::{Slot, SlotTasks, matches};
use super::{Start, create, jobs};
use crate::Planning;
use types::{DesiredState, Service, TaskId};

/// Makes a task for a node that may run one and has none, and stops those on a node that does not
/// fulfil the service's constraints. What a job has completed there stays done.
pub(super) fn reconcile(
    planning: &mut Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    if !service.spec.mode.is_global() || !jobs::is_begun(service) {
        return;
    }
    let is_node = match slot {
        Slot::Node(_) => true,
        Slot::Number(_) => false,
    };
    if is_node && !tasks.is_filled() && has_place(&planning.tx, service, slot) {
        let is_job = service.spec.mode.is_job();
        let waits = is_job && jobs::is_blocked(&planning.tx, tasks);
        let start = if waits { Start::later() } else { Start::now() };
        create(planning, service, (slot, tasks), start);
    }
    let view = &planning.tx;
    let fits =
        |node| view.node(node).is_some_and(|node| matches(node, &service.spec.task.placement));
    let misplaced = tasks.wanted.iter().filter(|it| !it.node.as_ref().is_some_and(fits));
    let misplaced = misplaced.filter(|it| !jobs::is_over(it));
    let misplaced: Vec<TaskId> = misplaced.map(|task| task.id.clone()).collect();
    for task in misplaced {
        if planning.is_full() {
            return;
        }
        tasks.want(planning, &task, DesiredState::Shutdown);
    }
}

#[cfg(test)]
mod tests {
    use crate::plan;
    use crate::testing::{Count, NOW, check, read, seconds};
    use expect_test::expect;

    #[test]
    fn every_node_that_may_run_it_gets_one_task() {
        check(
            "
            node n1
            node n2 disk=ssd
            node n3 drain disk=ssd
            node n4 disk=ssd
            service agent global constraint=node.labels.disk==ssd
            task agent.0 running n4
            ",
            &expect![[r#"
                + agent.0 assigned running n2
            "#]],
        );
    }

    #[test]
    fn only_a_node_is_a_place_of_its_own() {
        // With what is left of a replicated service of this id.
        let view = read(
            "
            node n1
            service agent global
            task agent.0 running n1
            task agent.1 running n1 desired=remove
            ",
        );
        let mut ids = Count(0);
        assert!(plan(&view, seconds(NOW), &mut ids).changes.is_empty());
        assert_eq!(ids.0, 0, "no task is made and taken back");
    }

    #[test]
    fn a_drained_node_loses_its_task_and_gets_none() {
        check(
            "
            node n1 drain
            node n2 down
            service agent global
            task agent.0 running n1
            task agent.0 running n2
            ",
            &expect![[r#"
                ~ agent.0 running shutdown n1
                ~ agent.0 running shutdown n2
            "#]],
        );
    }

    #[test]
    fn a_task_that_ended_is_restarted_on_its_node() {
        check(
            "
            node n1
            node n2 pause
            service agent global
            task agent.0 failed n1
            task agent.0 failed n2
            ",
            &expect![[r#"
                + agent.0 assigned ready n1 at 105s
                ~ agent.0 failed shutdown n1
                wake 105s
            "#]],
        );
    }
}
