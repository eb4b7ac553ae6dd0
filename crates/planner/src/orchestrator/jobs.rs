//! Jobs: services whose tasks are run until they have completed.
//!
//! A job is run as a whole, again and again: each time is an *iteration*, and a task says of which
//! one it is. In an iteration a replicated job has a slot for each completion that is asked for. At
//! most as many slots as it allows are *open* at once: they have a task that has not come to its end,
//! or one of a former iteration that has not stopped. A slot whose task has completed stays filled by
//! it. So does one whose task failed and is not to be restarted: the job is not complete then.

use super::slot::{Slot, SlotTasks};
use super::{Start, create, keep, restart};
use crate::Planning;
use crate::index::ServiceSlots;
use store::View;
use types::{DesiredState, Service, ServiceMode, Task, TaskId};

/// Says whether a service's present iteration makes tasks: one with a schedule waits for its time.
pub(super) fn is_begun(service: &Service) -> bool {
    service.job.as_ref().is_none_or(|job| job.last_execution.is_some())
}

/// The iteration that tasks are of; `None`: the service is no job.
pub(super) fn iteration(service: &Service) -> Option<u64> {
    service.job.as_ref().map(|job| job.iteration)
}

/// Says whether a task of a job has come to its end, and nothing takes its place.
pub(super) fn is_over(task: &Task) -> bool {
    task.iteration.is_some() && !restart::may_go_on(task)
}

/// Gives up tasks of former iterations: those that run stop and are forgotten, those that ended are
/// history.
pub(super) fn retire(
    planning: &mut Planning<'_>,
    service: &Service,
    (_, tasks): (&Slot, &mut SlotTasks),
) {
    let present = iteration(service);
    let former = tasks.wanted.iter().filter(|task| task.iteration != present);
    let former: Vec<(TaskId, bool)> =
        former.map(|task| (task.id.clone(), task.occupies())).collect();
    for (task, runs) in former {
        if planning.is_full() {
            return;
        }
        let desired = if runs { DesiredState::Remove } else { DesiredState::Shutdown };
        tasks.want(planning, &task, desired);
    }
}

/// Says whether a slot counts as one of those that run at once.
fn is_open(view: &View, tasks: &SlotTasks) -> bool {
    tasks.wanted.iter().any(|task| !is_over(task)) || is_blocked(view, tasks)
}

/// Says whether a task of a slot is still stopping, and the next one has to wait for it.
pub(super) fn is_blocked(view: &View, tasks: &SlotTasks) -> bool {
    tasks.stopping.iter().any(|task| restart::holds_back(view, task))
}

/// Says of a slot whether it is open.
pub(super) fn stand(planning: &Planning<'_>, tasks: &mut SlotTasks) {
    tasks.standing.is_open = is_open(&planning.tx, tasks);
}

/// Makes tasks for the lowest free slots, as many as may run beside those that are open.
pub(super) fn reconcile(planning: &mut Planning<'_>, service: &Service, all: &mut ServiceSlots) {
    let ServiceMode::ReplicatedJob { max_concurrent, total_completions } = service.spec.mode else {
        return;
    };
    if !is_begun(service) {
        return;
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let missing = count(total_completions).saturating_sub(all.standings().filled);
    let more = count(max_concurrent).saturating_sub(all.standings().open);
    let is_free =
        |slot: &Slot| !all.calm().get(slot).is_some_and(|it| it.is_filled() || it.standing.is_open);
    let free = (1..=total_completions).map(Slot::Number).filter(is_free);
    let free: Vec<Slot> = free.take(missing.min(more).min(planning.room())).collect();
    for slot in free {
        let mut tasks = all.take_calm(&slot);
        create(planning, service, (&slot, &mut tasks), Start::now());
        keep(planning, Some(service), all, (slot, tasks));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_job_begins_with_as_many_tasks_as_may_run_at_once_from_the_lowest_slot() {
        check(
            "
            node n1
            node n2
            service job job=5 concurrent=2
            ",
            &expect![[r#"
                + job.1 assigned running n1
                + job.2 assigned running n2
            "#]],
        );
    }

    #[test]
    fn a_task_that_completed_makes_way_for_the_next_one_and_is_kept() {
        check(
            "
            node n1
            service job job=4 concurrent=2
            task job.1 complete n1
            task job.2 running n1
            ",
            &expect![[r#"
                + job.3 assigned running n1
            "#]],
        );
    }

    #[test]
    fn no_more_are_made_than_are_to_complete() {
        check(
            "
            node n1
            service job job=3 concurrent=2
            task job.1 complete n1
            task job.2 complete n1
            task job.3 running n1
            service done job=2 concurrent=2
            task done.1 complete n1
            task done.2 complete n1
            ",
            &expect![[""]],
        );
    }

    #[test]
    fn a_task_that_failed_is_restarted_in_its_slot_and_counts_while_it_waits() {
        check(
            "
            node n1
            service job job=4 concurrent=2
            task job.1 failed n1
            task job.2 running n1
            service other job=4 concurrent=2 restart=on-failure
            task other.1 ready n1 desired=ready at=103
            task other.2 complete n1
            task other.3 running n1
            ",
            &expect![[r#"
                + job.1 assigned ready n1 at 105s
                ~ job.1 failed shutdown n1
                wake 103s
            "#]],
        );
    }

    #[test]
    fn a_task_that_is_not_restarted_holds_its_slot_and_lets_others_run() {
        check(
            "
            node n1
            service job job=3 concurrent=1 restart=none
            task job.1 failed n1
            service tried job=2 concurrent=1 attempts=1 delay=0
            task tried.1 failed n1 restarts=90
            ",
            &expect![[r#"
                + job.2 assigned running n1
                + tried.2 assigned running n1
            "#]],
        );
    }

    #[test]
    fn another_iteration_stops_what_runs_and_waits_for_it() {
        check(
            "
            node n1
            service job job=4 concurrent=2 iteration=1
            task job.1 complete n1 iteration=0
            task job.2 complete n1 iteration=0
            task job.3 running n1 iteration=0
            task job.4 failed n1 iteration=0
            ",
            &expect![[r#"
                + job.1 assigned running n1 iteration 1
                ~ job.1 complete shutdown n1
                ~ job.2 complete shutdown n1
                ~ job.3 running remove n1
                ~ job.4 failed shutdown n1
            "#]],
        );
    }

    #[test]
    fn what_completed_stays_done_where_its_node_is_drained_lost_or_removed() {
        check(
            "
            node n1 drain
            node n2 down
            node n4
            service job job=4
            task job.1 complete n1
            task job.2 complete n2
            task job.3 complete n3
            task job.4 running n2
            ",
            &expect![[r#"
                + job.4 assigned running n4
                ~ job.4 running shutdown n2
            "#]],
        );
    }

    #[test]
    fn a_global_job_runs_once_on_each_node_that_may_run_it() {
        check(
            "
            node n1
            node n2
            node n3 drain
            node n4 disk=ssd
            node n5
            service job global-job constraint=node.labels.disk!=ssd iteration=2
            task job.0 complete n1
            task job.0 failed n2
            task job.0 running n3
            task job.0 complete n4
            task job.0 running n5 iteration=1
            ",
            &expect![[r#"
                + job.0 assigned ready n2 iteration 2 at 105s
                + job.0 assigned ready n5 iteration 2
                ~ job.0 failed shutdown n2 iteration 2
                ~ job.0 running remove n5 iteration 1
                ~ job.0 running shutdown n3 iteration 2
                wake 105s
            "#]],
        );
    }

    #[test]
    fn former_iterations_are_history_as_long_as_it_is_kept() {
        check(
            "
            cluster history=1
            node n1
            service job job=1 iteration=3
            task job.1 complete n1 iteration=0 desired=shutdown since=20
            task job.1 complete n1 iteration=1 desired=shutdown since=30
            task job.1 complete n1 iteration=2
            task job.2 complete n1 iteration=2
            ",
            &expect![[r#"
                + job.1 assigned running n1 iteration 3
                - job.1 complete shutdown n1 iteration 1 since 30s
                - job.1 complete shutdown n1 since 20s
                - job.2 complete running n1 iteration 2
                ~ job.1 complete shutdown n1 iteration 2
            "#]],
        );
    }

    #[test]
    fn a_job_whose_time_has_not_come_makes_no_task() {
        check(
            "
            node n1
            service job job=2 waits
            service all global-job waits
            ",
            &expect![[""]],
        );
    }
}
