//! Records of tasks that nobody needs any more.

use super::jobs;
use super::slot::SlotTasks;
use crate::Planning;
use std::time::Duration;
use store::View;
use types::{DesiredState, Service, ServiceMode, Task, TaskId, TaskState, Timestamp};

/// Forgets tasks of a slot whose node was removed: nothing will ever be heard of them. Those of a
/// service that was removed are to go. What a job has completed stays done, wherever that was.
pub(super) fn forget_lost(
    planning: &mut Planning<'_>,
    service: Option<&Service>,
    tasks: &mut SlotTasks,
) {
    let view = &planning.tx;
    let present = service.and_then(jobs::iteration);
    let is_done = |task: &Task| {
        present.is_some() && task.iteration == present && task.slot > 0 && jobs::is_over(task)
    };
    let is_away = |task: &Task| task.node.as_ref().is_some_and(|node| view.node(node).is_none());
    let is_lost = |task: &Task| is_away(task) && !is_done(task);
    let lost = tasks.ids(is_lost);
    remove(planning, tasks, lost);
    let stays = |task: &Task| service.is_none() && task.desired < DesiredState::Remove;
    for task in tasks.ids(stays) {
        if planning.is_full() {
            return;
        }
        tasks.want(planning, &task, DesiredState::Remove);
    }
}

/// Removes the records of tasks that are to go and have gone, and of history beyond the limit.
pub(super) fn reap(planning: &mut Planning<'_>, service: Option<&Service>, tasks: &mut SlotTasks) {
    let gone = tasks.ids(|task| is_gone(&planning.tx, planning.now, task));
    remove(planning, tasks, gone);
    let mode = service.map(|service| service.spec.mode);
    let old = mode.map(|mode| old_history(planning, mode, tasks)).unwrap_or_default();
    remove(planning, tasks, old);
    watch(planning, tasks);
}

fn remove(planning: &mut Planning<'_>, tasks: &mut SlotTasks, ids: Vec<TaskId>) {
    for task in ids {
        if planning.is_full() {
            return;
        }
        planning.remove_task(&task);
        tasks.remove(&task);
    }
}

fn is_gone(view: &View, now: Timestamp, task: &Task) -> bool {
    let never_ran = task.status.state < TaskState::Assigned;
    match task.desired {
        DesiredState::Ready | DesiredState::Running => false,
        DesiredState::Shutdown => never_ran,
        DesiredState::Remove => never_ran || !(task.occupies() || lingers(view, now, task)),
    }
}

/// What a node that is back may take, beside the grace of its tasks, to hear that they were given
/// up and to tear down what they had.
const BACK: Duration = Duration::from_mins(1);

/// Says whether a task that was given up may still run on its node, and use its addresses: the node
/// is away, or has not been back for long. Nothing more is reported of such a task.
fn lingers(view: &View, now: Timestamp, task: &Task) -> bool {
    lingers_until(view, task).is_some_and(|end| now < end)
}

/// Until when a task that was given up may still run: the far future while its node is away.
pub(crate) fn lingers_until(view: &View, task: &Task) -> Option<Timestamp> {
    let given_up = task.status.state == TaskState::Orphaned && task.has_addresses();
    let node = task.node.as_ref().filter(|_| given_up).and_then(|node| view.node(node))?;
    if node.has_left() {
        return None;
    }
    if node.is_down() {
        return Some(Timestamp(i64::MAX));
    }
    Some(node.status.since.after(task.spec.container.grace().saturating_add(BACK)))
}

/// Asks for another look when nodes that are back have let go of what they carried.
fn watch(planning: &Planning<'_>, tasks: &mut SlotTasks) {
    let ends = tasks.all().filter_map(|task| lingers_until(&planning.tx, task));
    let next = ends.filter(|end| planning.now < *end && *end < Timestamp(i64::MAX)).min();
    if let Some(next) = next {
        tasks.wake_at(next);
    }
}

fn old_history(planning: &Planning<'_>, mode: ServiceMode, tasks: &SlotTasks) -> Vec<TaskId> {
    let (view, now) = (&planning.tx, planning.now);
    let limit = view.cluster().map_or(5, |cluster| cluster.spec.task_history_limit);
    // A slot that was scaled away takes its history with it.
    let is_away = match mode {
        ServiceMode::Replicated { .. } => tasks.wanted.is_empty(),
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            tasks.history.iter().any(|task| total_completions < task.slot)
        }
        ServiceMode::Global | ServiceMode::GlobalJob => false,
    };
    let keep = if is_away { 0 } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let history = || tasks.history.iter().filter(|task| !lingers(view, now, task));
    let count = history().count().saturating_sub(keep);
    history().take(count).map(|task| task.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn five_ended_tasks_are_kept_for_each_slot() {
        check(
            "
            node n1
            service web replicas=2
            task web.1 running n1
            task web.1 failed n1 desired=shutdown since=10
            task web.1 failed n1 desired=shutdown since=11
            task web.1 failed n1 desired=shutdown since=12
            task web.1 failed n1 desired=shutdown since=13
            task web.1 failed n1 desired=shutdown since=14
            task web.1 failed n1 desired=shutdown since=15
            task web.2 running n1
            task web.2 failed n1 desired=shutdown since=9
            ",
            &expect![[r#"
                - web.1 failed shutdown n1 since 10s
            "#]],
        );
    }

    #[test]
    fn a_slot_that_was_scaled_away_takes_its_history_with_it() {
        check(
            "
            node n1
            service web replicas=1
            task web.1 running n1
            task web.2 shutdown n1 desired=remove
            task web.2 failed n1 desired=shutdown
            ",
            &expect![[r#"
                - web.2 failed shutdown n1
                - web.2 shutdown remove n1
            "#]],
        );
    }

    #[test]
    fn a_task_that_may_still_run_is_remembered_beyond_the_history_for_its_addresses() {
        let case = |node: &str| {
            format!(
                "
                cluster history=0
                node n1
                node n2 {node}
                network ingress ingress subnet=10.255.0.0/16 vni=4096 last=10.255.1.0
                service web replicas=1 ports=80:80 has-ports=80:80 vip=ingress=10.255.1.0
                task web.1 orphaned n2 desired=shutdown mesh=10.255.1.1
                task web.1 running n1 mesh=10.255.1.2
                service gone replicas=0
                task gone.1 orphaned n2 desired=remove mesh=10.255.1.3
                "
            )
        };
        check(&case("down"), &expect![[""]]);
        check(
            &case("since=-900"),
            &expect![[r#"
            - gone.1 orphaned remove n2 mesh 10.255.1.3
            - web.1 orphaned shutdown n2 mesh 10.255.1.1 ports 80:80/tcp
        "#]],
        );
    }
}
