//! Tasks that ended by themselves, and tasks that wait for their time.

use super::slot::{Slot, SlotTasks, keeps_tasks, matches, takes_tasks};
use super::update::{is_current, trial};
use super::{Start, create, drain};
use crate::Planning;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use types::{DesiredState, RestartCondition, Service, Task, TaskId, TaskState};

/// So many restarts are remembered; a policy that allows more attempts allows any number.
const RESTARTS_KEPT: usize = 1000;

/// Replaces tasks that ended by themselves, as their restart policy says. A task that is not to be
/// restarted stays wanted and ended, and holds its slot.
pub(crate) fn restart(
    planning: &mut Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    if tasks.wanted.iter().all(|task| task.occupies()) {
        return;
    }
    let found = tasks.clone();
    for task in found.wanted.iter().filter(|task| !task.occupies()) {
        if is_superseded(&planning.tx, service, &found, task) {
            tasks.want(planning, &task.id, DesiredState::Shutdown);
        } else if may_restart(task) && has_place(&planning.tx, service, slot) {
            // One that could not even be prepared ended before its own delay was over. The
            // next one waits for that (`release` wakes): there is one try for each delay.
            if task.not_before.is_some_and(|time| planning.now < time) {
                continue;
            }
            let goes_first =
                |other: &Task| drain::goes_first(&planning.tx, service, (&found, other));
            let is_beside = found.wanted.iter().any(|it| it.serves() && !goes_first(it));
            let start = restart_of(planning, service, (task, is_beside));
            tasks.want(planning, &task.id, DesiredState::Shutdown);
            create(planning, service, (slot, tasks), start);
        }
    }
}

/// Says whether another task of its slot makes an ended task needless: an update started the other
/// one already, or the slot moves. (The other way round, the new task ends while the old one still
/// runs, the new one is restarted.)
fn is_superseded(view: &View, service: &Service, tasks: &SlotTasks, task: &Task) -> bool {
    let current = is_current(view, service, task);
    let place = |id: &TaskId| tasks.wanted.iter().position(|it| it.id == *id);
    // Of two that ended, the newer one goes on.
    let goes_on = |other: &Task| other.occupies() || place(&task.id) < place(&other.id);
    let makes_needless = |other: &Task| {
        !current
            || (is_current(view, service, other)
                && goes_on(other)
                && !drain::leaves(view, service, (tasks, other)))
    };
    tasks.wanted.iter().filter(|other| other.id != task.id).any(|other| makes_needless(other))
}

/// Says whether a slot can get a new task: one of a global service has to run on its node.
pub(crate) fn has_place(view: &View, service: &Service, slot: &Slot) -> bool {
    match slot {
        Slot::Number(_) => true,
        Slot::Node(id) => view
            .node(id)
            .is_some_and(|node| takes_tasks(node) && matches(node, &service.spec.task.placement)),
    }
}

/// Says whether a task runs, or may be replaced where it is over.
pub(super) fn may_go_on(task: &Task) -> bool {
    task.occupies() || may_restart(task)
}

/// Says whether a task that ended may be replaced, as its restart policy says. One of a job that
/// completed has done what it was made for.
pub(super) fn may_restart(task: &Task) -> bool {
    let policy = &task.spec.restart;
    let by_itself = match task.status.state {
        TaskState::Complete => {
            task.iteration.is_none() && policy.condition == RestartCondition::Any
        }
        TaskState::Failed | TaskState::Rejected => policy.condition != RestartCondition::None,
        // Its node stopped or lost it, that is not its own end.
        TaskState::Shutdown | TaskState::Orphaned => return true,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running => return false,
    };
    let attempts = u64::try_from(recent_restarts(task).count()).unwrap_or(u64::MAX);
    by_itself && (policy.max_attempts == 0 || attempts < policy.max_attempts)
}

/// The restarts that count when a task has ended: those within the window before its end. (Not
/// before now: a task that was given up stays given up.)
fn recent_restarts(task: &Task) -> impl Iterator<Item = types::Timestamp> {
    let (end, window) = (task.status.since, task.spec.restart.window);
    task.restarts
        .iter()
        .copied()
        .filter(move |restart| window == Duration::ZERO || end.since(*restart) < window)
}

fn restart_of(
    planning: &Planning<'_>,
    service: &Service,
    (task, is_beside): (&Task, bool),
) -> Start {
    let trial = trial(service, is_beside);
    let policy = &task.spec.restart;
    let replaces = task.replaces.clone();
    let mut restarts = Vec::new();
    // Attempts are counted for each spec.
    if policy.max_attempts > 0 && is_current(&planning.tx, service, task) {
        restarts.extend(recent_restarts(task));
        restarts.push(planning.now);
        restarts.drain(..restarts.len().saturating_sub(RESTARTS_KEPT));
    }
    if policy.delay == Duration::ZERO {
        // It is released at once where it has to wait for none.
        return Start { restarts, trial, replaces, ..Start::later() };
    }
    let not_before = Some(planning.now.after(policy.delay));
    Start { not_before, restarts, trial, replaces, ..Start::later() }
}

/// Starts tasks that were only prepared: when their delay is over, and when the tasks they replace
/// have stopped.
pub(crate) fn release(planning: &mut Planning<'_>, service: &Service, tasks: &mut SlotTasks) {
    let prepared = |task: &&Arc<Task>| task.desired == DesiredState::Ready;
    let prepared: Vec<Arc<Task>> = tasks.wanted.iter().filter(prepared).cloned().collect();
    if prepared.is_empty() {
        return;
    }
    let view = &planning.tx;
    let blocked = tasks.stopping.iter().any(|task| holds_back(view, task));
    let first = tasks.wanted.iter().filter(|it| drain::goes_first(view, service, (tasks, it)));
    let first: Vec<TaskId> = first.map(|it| it.id.clone()).collect();
    for task in prepared {
        match task.not_before.filter(|time| planning.now < *time) {
            Some(time) => tasks.wake_at(time),
            None if first.iter().any(|other| *other != task.id) => {}
            None if blocked || !task.occupies() || planning.is_full() => {}
            None => tasks.want(planning, &task.id, DesiredState::Running),
        }
    }
}

/// Says whether the next task of its slot has to wait for this one to stop. Nobody waits for a node
/// that is lost or drained: its tasks were replaced for that reason.
pub(crate) fn holds_back(view: &View, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| view.node(id));
    let here = node.is_some_and(|node| keeps_tasks(node));
    here && task.is_placed()
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_failed_task_is_prepared_again_at_once_and_starts_after_the_delay() {
        check(
            "
            node n1
            service web replicas=1
            task web.1 failed n1
            ",
            &expect![[r#"
                + web.1 assigned ready n1 at 105s
                ~ web.1 failed shutdown n1
                wake 105s
            "#]],
        );
    }

    #[test]
    fn a_task_starts_when_its_delay_is_over() {
        check(
            "
            node n1
            service web replicas=2
            task web.1 ready n1 desired=ready at=99
            task web.2 ready n1 desired=ready at=101
            ",
            &expect![[r#"
                ~ web.1 ready running n1 at 99s
                wake 101s
            "#]],
        );
    }

    #[test]
    fn a_task_that_is_rejected_while_it_waits_keeps_the_delay() {
        let case = |at: u32| {
            format!(
                "
                node n1
                service web replicas=1 delay=4
                task web.1 rejected n1 desired=ready at={at} since=98
                "
            )
        };
        check(
            &case(102),
            &expect![[r#"
            wake 102s
        "#]],
        );
        check(
            &case(100),
            &expect![[r#"
            + web.1 assigned ready n1 at 104s
            ~ web.1 rejected shutdown n1 at 100s since 98s
            wake 104s
        "#]],
        );
    }

    #[test]
    fn a_task_that_completed_is_left_on_failure_and_never_restarted_by_none() {
        check(
            "
            node n1
            service job replicas=2 restart=on-failure delay=0
            task job.1 complete n1
            task job.2 failed n1
            service once replicas=2 restart=none
            task once.1 complete n1
            task once.2 failed n1
            ",
            &expect![[r#"
                + job.2 assigned running n1
                ~ job.2 failed shutdown n1
            "#]],
        );
    }

    #[test]
    fn a_task_is_given_up_after_max_attempts_within_the_window() {
        check(
            "
            node n1
            service web replicas=3 attempts=2 window=30 delay=0
            task web.1 failed n1 since=90 restarts=70,80
            task web.2 failed n1 since=90 restarts=10,80
            task web.3 failed n1 since=90 restarts=10
            ",
            &expect![[r#"
                + web.2 assigned running n1 restarts 80,100
                + web.3 assigned running n1 restarts 100
                ~ web.2 failed shutdown n1 restarts 10,80 since 90s
                ~ web.3 failed shutdown n1 restarts 10 since 90s
            "#]],
        );
    }

    #[test]
    fn a_task_that_waits_for_its_restart_goes_on_waiting_elsewhere() {
        check(
            "
            node n1 down
            node n2
            service web replicas=1
            task web.1 ready n1 desired=ready at=104
            ",
            &expect![[r#"
                + web.1 assigned ready n2 at 104s
                ~ web.1 ready shutdown n1 at 104s
                wake 104s
            "#]],
        );
    }

    #[test]
    fn a_task_that_its_node_stopped_is_replaced_whatever_the_policy() {
        check(
            "
            node n1
            service once replicas=1 restart=none delay=0
            task once.1 shutdown n1
            ",
            &expect![[r#"
                + once.1 assigned running n1
                ~ once.1 shutdown shutdown n1
            "#]],
        );
    }
}
