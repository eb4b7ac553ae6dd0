//! Rolling updates: tasks of an old spec are replaced, a few at a time.
//!
//! How far an update is shows in the tasks: a slot is *old* while none of its tasks is of the
//! present spec, and *busy* while its new task does not run, has not run for the update's delay, or
//! while an old one runs beside it. Only the start, what was lost ([`judge`]) and the outcome are
//! written into the service. What each slot is to the update is told once ([`stand`]) and kept, so
//! that what happens in one of them is no reason to look at the others.

mod judge;
mod progress;

pub(crate) use judge::{judge, watch};
pub(super) use progress::stand;

use super::slot::{Slot, SlotTasks, matches};
use super::{Start, create, drain, keep, restart};
use crate::Planning;
use crate::index::ServiceSlots;
use progress::{Progress, stand_to};
use std::time::Duration;
use store::View;
use types::{
    Affinity, DesiredState, FailureAction, PublishedPort, Service, ServiceSpec, Task, TaskId,
    TaskSpec, TaskState, Timestamp, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus, Version,
};

/// When a task was made: now, where this plan makes it.
fn birth(planning: &Planning<'_>, task: &Task) -> Timestamp {
    if task.meta.version == Version(0) { planning.now } else { task.meta.created_at }
}

/// Says whether a task is made by an update: since it began, or for the one before, whose work it
/// goes on with as long as the task stands beside the one that it is to replace. That a slot moves
/// is no update's work.
fn is_of(
    (service, update): (&Service, &UpdateStatus),
    planning: &Planning<'_>,
    tasks: &SlotTasks,
    task: &Task,
) -> bool {
    if drain::is_move(&planning.tx, service, tasks) {
        return false;
    }
    let is_beside = task.is_wanted() && task.occupies() && tasks.wanted.len() > 1;
    is_beside || update.started_at <= birth(planning, task)
}

fn rolls_back(service: &Service) -> bool {
    service.update.as_ref().is_some_and(UpdateStatus::is_rollback)
}

/// How tasks are replaced at present.
fn config(service: &Service) -> &UpdateConfig {
    if service.update.as_ref().is_some_and(|update| update.is_rollback() && update.runs()) {
        &service.spec.rollback
    } else {
        &service.spec.update
    }
}

/// Says whether a task is what the service's present spec asks for.
pub fn is_current(view: &View, service: &Service, task: &Task) -> bool {
    let ports = task.status.state == TaskState::New || has_ports(view, service, task);
    ports && (task.spec.makes_same(&service.spec.task) || differs_in_placement(view, service, task))
}

/// Published ports are the nodes' business but for two: those in host mode lead to one task, and a
/// task without an address on the ingress network cannot be reached through the mesh.
fn has_ports(view: &View, service: &Service, task: &Task) -> bool {
    let host = |port: &&PublishedPort| !port.in_mesh();
    let mesh = service.ports.iter().any(PublishedPort::in_mesh) && view.ingress_network().is_some();
    task.ports.iter().filter(host).eq(service.ports.iter().filter(host))
        && (!mesh || !task.ingress_addresses.is_empty())
}

/// Says whether only placement differs and the task's node fulfils the new one.
fn differs_in_placement(view: &View, service: &Service, task: &Task) -> bool {
    let placement = &service.spec.task.placement;
    let node = task.node.as_ref().and_then(|node| view.node(node));
    if task.spec.placement == *placement || !node.is_some_and(|node| matches(node, placement)) {
        return false;
    }
    // Whether it may be beside others was never asked.
    let asked: Vec<Affinity> = task.spec.placement.affinities().collect();
    if placement.affinities().any(|it| !asked.contains(&it)) {
        return false;
    }
    let spec = TaskSpec { placement: placement.clone(), ..TaskSpec::clone(&task.spec) };
    spec.makes_same(&service.spec.task)
}

/// Replaces as many old tasks as the update allows now, and writes how far it is.
pub(super) fn advance(planning: &mut Planning<'_>, service: &Service, all: &mut ServiceSlots) {
    // A job is run anew instead.
    if service.spec.mode.is_job() {
        return;
    }
    let old = all.standings().old.len();
    let Some(update) = begin(planning, service, old > 0) else {
        return;
    };
    if !service.update.as_ref().is_some_and(UpdateStatus::runs) {
        all.edit_under_way(|slot, tasks| stand_to(planning, (service, &update), (slot, tasks)));
    }
    let progress = Progress::of(planning, (service, &update), all);
    if old == 0 && progress.flying == 0 {
        let last = all.standings().running.last().map(|(since, _)| *since);
        finish(planning, service, last);
        return;
    }
    let room = match usize::try_from(config(service).parallelism).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        parallelism => parallelism.saturating_sub(progress.flying + progress.resting),
    };
    if let Some(end) = progress.rest_ends.filter(|_| room < old) {
        planning.wake_at(end);
    }
    // Each of them is a task that is written.
    let next = all.standings().old.iter().take(room.min(planning.room()));
    let next: Vec<Slot> = next.map(|(_, slot)| slot.clone()).collect();
    for slot in next {
        let mut tasks = all.take_calm(&slot);
        replace(planning, service, (&slot, &mut tasks));
        let service = planning.tx.service(&service.id).cloned();
        keep(planning, service.as_deref(), all, (slot, tasks));
    }
}

/// The update that runs; starts one where there is something to say of it. `None`: nothing to do.
fn begin(planning: &mut Planning<'_>, service: &Service, old: bool) -> Option<UpdateStatus> {
    let begun = service.update.as_ref().and_then(|update| match update.state {
        UpdateState::Updating
        | UpdateState::Paused
        | UpdateState::RollbackStarted
        | UpdateState::RollbackPaused => Some(update),
        UpdateState::Completed | UpdateState::RollbackCompleted => None,
    });
    if let Some(update) = begun {
        return Some(update.clone()).filter(UpdateStatus::runs);
    }
    // A change that replaces no task, such as another port, is an update too.
    let changed = |previous: &ServiceSpec| {
        previous.endpoint != service.spec.endpoint || previous.task != service.spec.task
    };
    let asked = service.update.is_none() && service.previous_spec.as_ref().is_some_and(changed);
    if !old && !asked {
        return None;
    }
    let update = UpdateStatus::begun(UpdateState::Updating, planning.now, "update in progress");
    planning.tx.edit_service(&service.id, |service| service.update = Some(update.clone()));
    Some(update)
}

/// Stops the old task of a slot whose new one runs (start-first).
pub(super) fn finish_overlap(
    planning: &mut Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    if tasks.wanted.len() < 2 {
        return;
    }
    let (current, old): (Vec<_>, Vec<_>) =
        tasks.wanted.iter().partition(|task| is_current(&planning.tx, service, task));
    let serving = current.iter().filter(|task| task.serves());
    let Some(since) = serving.map(|task| task.status.since).min() else { return };
    let Some(end) = proof(service, slot).map(|proof| since.after(proof)) else { return };
    if planning.now < end {
        tasks.wake_at(end);
        return;
    }
    let old: Vec<TaskId> = old.into_iter().map(|task| task.id.clone()).collect();
    for task in old {
        if planning.is_full() {
            return;
        }
        tasks.want(planning, &task, DesiredState::Shutdown);
    }
}

/// How long the new task of a slot has to run before the old one beside it may go; `None`: the old
/// one stays. An update that may roll back keeps it until the new one can cause that no more: what
/// is good is not replaced twice. Where a new task failed before, the next one has to run as long.
fn proof(service: &Service, slot: &Slot) -> Option<Duration> {
    let Some(update) = &service.update else { return Some(Duration::ZERO) };
    let lost = update.failed.contains_key(slot);
    let may_roll_back = config(service).failure_action == FailureAction::Rollback;
    match update.state {
        // The user is to decide.
        UpdateState::Paused | UpdateState::RollbackPaused if lost => None,
        UpdateState::Updating if may_roll_back => Some(config(service).monitor),
        UpdateState::Updating
        | UpdateState::RollbackStarted
        | UpdateState::Completed
        | UpdateState::RollbackCompleted
            if lost =>
        {
            Some(config(service).monitor)
        }
        UpdateState::Updating
        | UpdateState::Paused
        | UpdateState::Completed
        | UpdateState::RollbackStarted
        | UpdateState::RollbackPaused
        | UpdateState::RollbackCompleted => Some(Duration::ZERO),
    }
}

/// Completes an update once the last new task has run for the time it is monitored.
fn finish(planning: &mut Planning<'_>, service: &Service, last: Option<Timestamp>) {
    let config = config(service);
    let monitor = match config.failure_action {
        FailureAction::Pause | FailureAction::Rollback => config.monitor,
        FailureAction::Continue => Duration::ZERO,
    };
    let end = last.map(|since| since.max(planning.fair_from).after(monitor));
    if let Some(end) = end.filter(|end| planning.now < *end) {
        planning.wake_at(end);
        return;
    }
    let now = planning.now;
    let (state, message) = if rolls_back(service) {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    planning.tx.edit_service(&service.id, |service| {
        let Some(update) = &mut service.update else { return };
        update.state = state;
        update.completed_at = Some(now);
        message.clone_into(&mut update.message);
    });
}

/// Replaces the task of a slot. Stop-first: the new one is prepared, and starts when the old one has
/// stopped. Start-first: the old one stops when the new one runs.
fn replace(planning: &mut Planning<'_>, service: &Service, (slot, tasks): (&Slot, &mut SlotTasks)) {
    let running = tasks.wanted.iter().find(|task| task.serves());
    let kept = match config(service).order {
        UpdateOrder::StopFirst => None,
        UpdateOrder::StartFirst => running.map(|task| task.id.clone()),
    };
    let holds_back = |task| restart::holds_back(&planning.tx, task);
    let waits =
        kept.is_none() && tasks.wanted.iter().chain(&tasks.stopping).any(|it| holds_back(it));
    let old = tasks.wanted.iter().map(|task| task.id.clone());
    let old: Vec<TaskId> = old.filter(|task| kept.as_ref() != Some(task)).collect();
    for task in old {
        tasks.want(planning, &task, DesiredState::Shutdown);
    }
    let start = if waits { Start::later() } else { Start::now() };
    let trial = trial(service, kept.is_some());
    create(planning, service, (slot, tasks), Start { trial, ..start });
}

/// How long a new task that has no health check is watched until it serves beside another one: most
/// of those that cannot run end at once, and whoever asked one of them would have got no answer.
const TRIAL: Duration = Duration::from_secs(1);

/// The trial of a new task; none where nothing else serves in its slot.
pub(crate) fn trial(service: &Service, is_beside: bool) -> Duration {
    if is_beside { TRIAL.min(config(service).monitor) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn other_credentials_for_the_registry_replace_no_task() {
        let mut service = Service::default();
        let mut task = Task { spec: service.spec.task.clone(), ..Task::default() };
        task.status.state = TaskState::Running;
        service.spec.task.container.pull_credentials = Some(types::PullCredentials::default());
        assert!(is_current(&View::default(), &service, &task));
        service.spec.task.container.image = "another".into();
        assert!(!is_current(&View::default(), &service, &task));
    }

    #[test]
    fn an_update_replaces_one_slot_and_waits_for_it() {
        check(
            "
            node n1
            service web replicas=2 image=two
            task web.1 running n1 image=one
            task web.2 running n1 image=one
            ",
            &expect![[r#"
                + web.1 assigned ready n1 two
                ~ web update updating: update in progress
                ~ web.1 running shutdown n1 one
                wake 170s
            "#]],
        );
    }

    #[test]
    fn a_slot_whose_task_does_not_run_goes_first() {
        check(
            "
            node n1
            service web replicas=3 image=two
            task web.1 running n1 image=one
            task web.2 preparing n1 image=one
            task web.3 running n1 image=one
            ",
            &expect![[r#"
                + web.2 assigned ready n1 two
                ~ web update updating: update in progress
                ~ web.2 preparing shutdown n1 one
                wake 170s
            "#]],
        );
    }

    #[test]
    fn the_new_task_starts_when_the_old_one_has_stopped() {
        let case = |state: &str| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating
                task web.1 {state} n1 image=one desired=shutdown
                task web.1 ready n1 image=two born=55 desired=ready
                task web.2 running n1 image=one
                "
            )
        };
        check(
            &case("running"),
            &expect![[r#"
            wake 125s
        "#]],
        );
        check(
            &case("shutdown"),
            &expect![[r#"
                ~ web.1 ready running n1 two
                wake 965s
            "#]],
        );
    }

    #[test]
    fn the_next_slot_waits_for_the_delay_of_the_last_one() {
        let case = |since: u32| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating update-delay=10
                task web.1 running n1 image=two born=55 since={since}
                task web.2 running n1 image=one since=5
                "
            )
        };
        check(
            &case(95),
            &expect![[r#"
                wake 105s
            "#]],
        );
        check(
            &case(90),
            &expect![[r#"
                + web.2 assigned ready n1 two
                ~ web.2 running shutdown n1 one since 5s
                wake 170s
            "#]],
        );
    }

    #[test]
    fn an_update_completes_when_the_last_task_has_run_for_the_monitor_time() {
        let case = |since: u32| {
            format!(
                "
                node n1
                service web replicas=1 image=two update=updating
                task web.1 running n1 image=two born=55 since={since}
                "
            )
        };
        check(
            &case(96),
            &expect![[r#"
                wake 101s
            "#]],
        );
        check(
            &case(95),
            &expect![[r#"
                ~ web update completed: update completed
            "#]],
        );
    }

    #[test]
    fn start_first_keeps_the_old_task_until_the_new_one_runs() {
        let case = |state: &str| {
            format!(
                "
                node n1
                service web replicas=1 image=two update=updating order=start-first
                task web.1 running n1 image=one
                task web.1 {state} n1 image=two born=55 since=99
                "
            )
        };
        check(
            &case("starting"),
            &expect![[r#"
            wake 965s
        "#]],
        );
        check(
            &case("running"),
            &expect![[r#"
                ~ web.1 running shutdown n1 one
                wake 104s
            "#]],
        );
    }

    #[test]
    fn an_update_goes_on_with_what_the_one_before_has_begun() {
        // Another port, say, was asked for while no node took the new task.
        let case = |began: u32| {
            format!(
                "
                node n1 pause
                service web replicas=1 image=two update=updating began={began} order=start-first
                task web.1 running n1 image=one
                task web.1 pending - image=two born=20 error=no_suitable_node_(1_node_not_available_for_new_tasks)._n1:_is_paused
                "
            )
        };
        check(
            &case(31),
            &expect![[r#"
                wake 101s
            "#]],
        );
        check(
            &case(30),
            &expect![[r#"
                ~ web update paused lost 1: update paused because task web-1-2 does not come to run: no suitable node (1 node not available for new tasks). n1: is paused
            "#]],
        );
    }

    #[test]
    fn a_task_that_starts_beside_one_that_serves_is_on_trial() {
        let case = |service: &str, old: &str| {
            format!(
                "
                node n1
                service web replicas=1 image=two order=start-first {service}
                task web.1 {old} n1 image=one
                "
            )
        };
        check(
            &case("", "running"),
            &expect![[r#"
            + web.1 assigned running n1 two trial 1s
            ~ web update updating: update in progress
            wake 1010s
        "#]],
        );
        check(
            &case("monitor=0", "running"),
            &expect![[r#"
            + web.1 assigned running n1 two
            ~ web update updating: update in progress
            wake 1010s
        "#]],
        );
        check(
            &case("", "starting"),
            &expect![[r#"
            + web.1 assigned ready n1 two
            ~ web update updating: update in progress
            ~ web.1 starting shutdown n1 one
            wake 170s
        "#]],
        );
    }

    #[test]
    fn a_restart_beside_a_task_that_serves_is_on_trial_too() {
        check(
            "
            node n1
            service web replicas=1 image=two order=start-first update=paused lost=1
            task web.1 running n1 image=one
            task web.1 failed n1 image=two born=55 since=99
            ",
            &expect![[r#"
                + web.1 assigned ready n1 two at 105s trial 1s
                ~ web.1 failed shutdown n1 two since 99s
                wake 105s
            "#]],
        );
    }

    #[test]
    fn an_update_that_may_roll_back_keeps_the_old_task_for_the_monitor_time() {
        let case = |since: u32| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating order=start-first failure=rollback
                task web.1 running n1 image=one
                task web.1 running n1 image=two born=55 since={since}
                task web.2 running n1 image=one
                "
            )
        };
        check(
            &case(96),
            &expect![[r#"
            wake 101s
        "#]],
        );
        check(
            &case(95),
            &expect![[r#"
                + web.2 assigned running n1 two trial 1s
                ~ web.1 running shutdown n1 one
                wake 1010s
            "#]],
        );
    }

    #[test]
    fn a_start_first_update_that_rolls_back_leaves_the_good_tasks_alone() {
        check(
            "
            node n1
            service web replicas=2 image=two update=updating order=start-first failure=rollback previous=one parallelism=0
            task web.1 running n1 image=one
            task web.1 failed n1 image=two born=55 since=99 ran=99
            task web.2 running n1 image=one
            task web.2 running n1 image=two born=55 since=99
            ",
            &expect![[r#"
                ~ web image one
                ~ web previous none
                ~ web update rollbackcompleted: rollback completed
                ~ web.1 failed shutdown n1 two since 99s
                ~ web.2 running shutdown n1 two since 99s
            "#]],
        );
    }

    #[test]
    fn where_a_task_was_lost_the_old_one_goes_once_the_next_has_run_for_the_monitor_time() {
        let case = |state: &str, since: u32| {
            format!(
                "
                node n1
                service web replicas=1 image=two update={state} order=start-first failure=continue lost=1
                task web.1 running n1 image=one
                task web.1 running n1 image=two born=55 since={since}
                "
            )
        };
        let wakes = expect![[r#"
            wake 101s
        "#]];
        let goes = expect![[r#"
            ~ web.1 running shutdown n1 one
        "#]];
        for state in ["completed", "rolled-back"] {
            check(&case(state, 96), &wakes);
            check(&case(state, 95), &goes);
        }
        check(
            &case("updating", 96),
            &expect![[r#"
                ~ web update completed lost 1: update completed
                wake 101s
            "#]],
        );
        check(
            &case("rollback", 96),
            &expect![[r#"
                ~ web update rollbackcompleted lost 1: rollback completed
                wake 101s
            "#]],
        );
    }

    #[test]
    fn a_paused_update_keeps_the_good_task_beside_the_bad_one() {
        check(
            "
            node n1
            service web replicas=1 image=two update=paused order=start-first lost=1
            task web.1 running n1 image=one
            task web.1 running n1 image=two born=55 since=99
            ",
            &expect![""],
        );
    }

    #[test]
    fn another_port_or_a_default_spelled_out_replaces_no_task_and_completes() {
        check(
            "
            node n1
            network ingress ingress subnet=10.255.0.0/16 vni=4096
            service web replicas=1 ports=8080:80,8081:81 has-ports=8080:80 vip=ingress=10.255.1.1 had-ports=8080:80
            task web.1 running n1 mesh=10.255.1.0
            ",
            &expect![[r#"
                ~ web ports 8080:80/tcp 8081:81/tcp
                ~ web update completed: update completed
            "#]],
        );
        check(
            "
            node n1
            service web replicas=2 had-log=json-file
            task web.1 running n1
            task web.2 starting n1
            ",
            &expect![[r#"
                ~ web update completed: update completed
            "#]],
        );
    }

    #[test]
    fn another_number_of_replicas_is_no_update() {
        check(
            "
            node n1
            service web replicas=1 had-replicas=3
            task web.1 running n1
            ",
            &expect![""],
        );
    }

    #[test]
    fn an_update_whose_task_fails_is_paused_and_touches_no_other_slot() {
        check(
            "
            node n1
            service web replicas=2 image=two update=updating
            task web.1 failed n1 image=two born=55 since=99
            task web.2 running n1 image=one
            ",
            &expect![[r#"
                + web.1 assigned ready n1 two at 105s
                ~ web update paused lost 1: update paused due to failure or early termination of task web-1-1
                ~ web.1 failed shutdown n1 two since 99s
                wake 105s
            "#]],
        );
    }

    #[test]
    fn an_update_may_roll_back() {
        check(
            "
            node n1
            service web replicas=2 image=two update=updating failure=rollback previous=one
            task web.1 failed n1 image=two born=55 since=99
            task web.2 running n1 image=one
            ",
            &expect![[r#"
                + web.1 assigned ready n1 one at 105s
                ~ web image one
                ~ web previous none
                ~ web update rollbackstarted: update rolled back due to failure or early termination of task web-1-1
                ~ web.1 failed shutdown n1 two since 99s
                wake 105s
            "#]],
        );
    }

    #[test]
    fn a_rollback_that_fails_is_paused_and_never_goes_forward_again() {
        check(
            "
            node n1
            service web replicas=2 image=one update=rollback failure=rollback previous=two
            task web.1 failed n1 image=one born=55 since=99
            task web.2 running n1 image=two
            ",
            &expect![[r#"
                + web.1 assigned ready n1 one at 105s
                ~ web update rollbackpaused lost 1: rollback paused due to failure or early termination of task web-1-1
                ~ web.1 failed shutdown n1 one since 99s
                wake 105s
            "#]],
        );
    }

    #[test]
    fn a_rollback_goes_by_its_own_settings_and_completes_as_one() {
        check(
            "
            node n1
            service web replicas=2 image=one update=rollback rollback-parallelism=0
            task web.1 running n1 image=two
            task web.2 running n1 image=two
            ",
            &expect![[r#"
                + web.1 assigned ready n1 one
                + web.2 assigned ready n1 one
                ~ web.1 running shutdown n1 two
                ~ web.2 running shutdown n1 two
                wake 170s
            "#]],
        );
        check(
            "
            node n1
            service web replicas=1 image=one update=rollback
            task web.1 running n1 image=one born=55 since=90
            ",
            &expect![[r#"
                ~ web update rollbackcompleted: rollback completed
            "#]],
        );
    }

    #[test]
    fn parallelism_zero_replaces_all_at_once() {
        check(
            "
            node n1
            service web replicas=2 image=two parallelism=0
            task web.1 running n1 image=one
            task web.2 running n1 image=one
            ",
            &expect![[r#"
                + web.1 assigned ready n1 two
                + web.2 assigned ready n1 two
                ~ web update updating: update in progress
                ~ web.1 running shutdown n1 one
                ~ web.2 running shutdown n1 one
                wake 170s
            "#]],
        );
    }

    #[test]
    fn a_changed_constraint_leaves_tasks_whose_node_fulfils_it() {
        check(
            "
            node n1 disk=ssd
            node n2
            service web replicas=2 constraint=node.labels.disk==ssd
            task web.1 running n1 constraint=
            task web.2 running n2 constraint=
            ",
            &expect![[r#"
                + web.2 assigned ready n1
                ~ web update updating: update in progress
                ~ web.2 running shutdown n2
                wake 170s
            "#]],
        );
    }

    #[test]
    fn a_constraint_about_services_that_is_new_replaces_tasks_one_after_the_other() {
        check(
            "
            node n1
            node n2
            service db replicas=1 constraint=service!=web
            service web replicas=1
            task db.1 running n1 constraint=
            task web.1 running n1
            ",
            &expect![[r#"
                + db.1 assigned ready n2
                ~ db update updating: update in progress
                ~ db.1 running shutdown n1
                wake 170s
            "#]],
        );
        check(
            "
            node n1
            service db replicas=1
            task db.1 running n1 constraint=service!=web
            ",
            &expect![[r#""#]],
        );
    }
}
