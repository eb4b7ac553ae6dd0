//! Rolling updates: tasks of an old spec are replaced, a few at a time.
//!
//! How far an update is shows in the tasks: a slot is *old* while none of its tasks is of the
//! present spec, and *in flight* while its new task does not run, or has not run for the update's
//! delay. Only the start and the outcome are written into the service.

use super::slot::{Held, Slot, matches, slots};
use super::{Start, create, restart};
use crate::Draft;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::View;
use types::{
    DesiredState, FailureAction, PublishMode, PublishedPort, RestartCondition, Service, Task,
    TaskState, Timestamp, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};

/// Pauses or rolls back updates whose new tasks fail.
///
/// A new task's end counts for as long as the update runs, which is until the last new task has run
/// for the update's `monitor` time.
pub(crate) fn judge(draft: &mut Draft<'_>) {
    let updating =
        |service: &&Arc<Service>| service.update.as_ref().is_some_and(UpdateStatus::runs);
    let services: Vec<Arc<Service>> = draft.tx.services().filter(updating).cloned().collect();
    for service in services {
        let Some(task) = failure(&draft.tx, &service) else {
            continue;
        };
        let (now, rolls_back) = (draft.now, rolls_back(&service));
        let previous = match config(&service).failure_action {
            FailureAction::Continue => continue,
            FailureAction::Pause => None,
            // There is nothing to go back to when going back fails.
            FailureAction::Rollback => service.previous_spec.clone().filter(|_| !rolls_back),
        };
        let why = format!("due to failure or early termination of task {}", task.id);
        draft.tx.edit_service(&service.id, |service| {
            let Some(update) = &mut service.update else { return };
            if let Some(spec) = previous {
                service.spec = spec;
                service.previous_spec = None;
                update.state = UpdateState::RollbackStarted;
                update.started_at = now;
                update.message = format!("update rolled back {why}");
            } else if rolls_back {
                update.state = UpdateState::RollbackPaused;
                update.message = format!("rollback paused {why}");
            } else {
                update.state = UpdateState::Paused;
                update.message = format!("update paused {why}");
            }
        });
    }
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

/// A failed task of the update, if more slots failed than the update may lose.
fn failure(view: &View, service: &Service) -> Option<Arc<Task>> {
    let started_at = service.update.as_ref()?.started_at;
    let slots = slots(view, service);
    let failed = |task: &&Arc<Task>| {
        task.spec.makes_same(&service.spec.task)
            && is_failure(task)
            && started_at <= task.meta.created_at
    };
    let mut failures = slots
        .values()
        .filter_map(|held| held.wanted.iter().chain(&held.history).find(failed).map(Arc::clone));
    let first = failures.next()?;
    let (lost, all) = (1 + failures.count(), slots.values().filter(|held| !held.wanted.is_empty()));
    let all = all.count().max(1);
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two small numbers")]
    let ratio = lost as f32 / all as f32;
    (ratio > config(service).max_failure_ratio).then_some(first)
}

fn is_failure(task: &Task) -> bool {
    match task.status.state {
        TaskState::Failed | TaskState::Rejected => true,
        TaskState::Complete => task.spec.restart.condition == RestartCondition::Any,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Shutdown
        | TaskState::Orphaned => false,
    }
}

/// Says whether a task is what the service's present spec asks for.
pub(crate) fn is_current(view: &View, service: &Service, task: &Task) -> bool {
    let ports = task.status.state == TaskState::New || has_ports(view, service, task);
    ports && (task.spec.makes_same(&service.spec.task) || differs_in_placement(view, service, task))
}

/// Published ports are the nodes' business but for two: those in host mode lead to one task, and a
/// task without an address on the ingress network cannot be reached through the mesh.
fn has_ports(view: &View, service: &Service, task: &Task) -> bool {
    let host = |port: &&PublishedPort| port.mode == PublishMode::Host;
    let mesh = service.ports.iter().any(|port| port.mode == PublishMode::Ingress)
        && view.ingress_network().is_some();
    task.ports.iter().filter(host).eq(service.ports.iter().filter(host))
        && (!mesh || task.ingress_address.is_some())
}

/// Says whether only placement differs and the task's node fulfils the new one.
fn differs_in_placement(view: &View, service: &Service, task: &Task) -> bool {
    let placement = &service.spec.task.placement;
    let node = task.node.as_ref().and_then(|node| view.node(node));
    if task.spec.placement == *placement || !node.is_some_and(|node| matches(node, placement)) {
        return false;
    }
    let mut spec = task.spec.clone();
    spec.placement.clone_from(placement);
    spec.makes_same(&service.spec.task)
}

/// Replaces as many old tasks as the update allows now, and writes how far it is.
pub(crate) fn advance(draft: &mut Draft<'_>, service: &Service) {
    finish_overlap(draft, service);
    let slots = slots(&draft.tx, service);
    let mut old: Vec<(&Slot, &Held)> = slots
        .iter()
        .filter(|(_, held)| !held.wanted.is_empty())
        .filter(|(slot, _)| restart::has_place(&draft.tx, service, slot))
        .filter(|(_, held)| !held.wanted.iter().any(|it| is_current(&draft.tx, service, it)))
        .collect();
    let Some(started_at) = begin(draft, service, !old.is_empty()) else {
        return;
    };
    let flying = slots.values().filter(|held| flies(draft, service, held)).count();
    if old.is_empty() && flying == 0 {
        finish(draft, service, &slots, started_at);
        return;
    }
    // A slot rests for the update's delay after its new task runs.
    let delay = config(service).delay;
    let rests: Vec<Timestamp> = run_since(&draft.tx, service, &slots, started_at)
        .map(|since| since.after(delay))
        .filter(|end| draft.now < *end)
        .collect();
    let room = match usize::try_from(config(service).parallelism).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        parallelism => parallelism.saturating_sub(flying + rests.len()),
    };
    if let Some(end) = rests.into_iter().min().filter(|_| room < old.len()) {
        draft.wake_at(end);
    }
    // A slot whose task does not run goes first: that costs no capacity.
    old.sort_by_key(|(_, held)| held.runs());
    for (slot, held) in old.into_iter().take(room) {
        replace(draft, service, slot, held);
    }
}

/// The start of the update that runs; starts one where there are old tasks. `None`: nothing to do.
fn begin(draft: &mut Draft<'_>, service: &Service, old: bool) -> Option<Timestamp> {
    let begun = service.update.as_ref().and_then(|update| match update.state {
        UpdateState::Updating
        | UpdateState::Paused
        | UpdateState::RollbackStarted
        | UpdateState::RollbackPaused => Some(update),
        UpdateState::Completed | UpdateState::RollbackCompleted => None,
    });
    match begun {
        Some(update) => Some(update.started_at).filter(|_| update.runs()),
        None if old => {
            let started_at = draft.now;
            let update = UpdateStatus {
                state: UpdateState::Updating,
                started_at,
                completed_at: None,
                message: "update in progress".to_owned(),
            };
            draft.tx.edit_service(&service.id, |service| service.update = Some(update));
            Some(started_at)
        }
        None => None,
    }
}

/// Stops the old task of a slot whose new one runs (start-first).
fn finish_overlap(draft: &mut Draft<'_>, service: &Service) {
    for held in slots(&draft.tx, service).values().filter(|held| held.wanted.len() > 1) {
        let (current, old): (Vec<_>, Vec<_>) =
            held.wanted.iter().partition(|task| is_current(&draft.tx, service, task));
        if current.iter().any(|task| task.serves()) {
            for task in old {
                draft.want(&task.id, DesiredState::Shutdown);
            }
        }
    }
}

/// Says whether a slot's new task is on its way to run.
fn flies(draft: &Draft<'_>, service: &Service, held: &Held) -> bool {
    let mut wanted = held.wanted.iter().filter(|task| task.occupies());
    wanted
        .any(|task| task.status.state < TaskState::Running && is_current(&draft.tx, service, task))
}

/// Since when the new tasks of an update run.
fn run_since(
    view: &View,
    service: &Service,
    slots: &BTreeMap<Slot, Held>,
    started_at: Timestamp,
) -> impl Iterator<Item = Timestamp> {
    slots
        .values()
        .flat_map(|held| &held.wanted)
        .filter(move |task| started_at <= task.meta.created_at)
        .filter(|task| task.status.state == TaskState::Running && is_current(view, service, task))
        // The node's clock may differ from ours: a task runs after it was made, and before we heard
        // of it.
        .map(|task| task.status.since.min(task.meta.updated_at).max(task.meta.created_at))
}

/// Completes an update once the last new task has run for the time it is monitored.
fn finish(
    draft: &mut Draft<'_>,
    service: &Service,
    slots: &BTreeMap<Slot, Held>,
    started_at: Timestamp,
) {
    let config = config(service);
    let monitor = match config.failure_action {
        FailureAction::Pause | FailureAction::Rollback => config.monitor,
        FailureAction::Continue => Duration::ZERO,
    };
    let last = run_since(&draft.tx, service, slots, started_at).max();
    let end = last.map(|since| since.after(monitor));
    if let Some(end) = end.filter(|end| draft.now < *end) {
        draft.wake_at(end);
        return;
    }
    let now = draft.now;
    let (state, message) = if rolls_back(service) {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    draft.tx.edit_service(&service.id, |service| {
        let Some(update) = &mut service.update else { return };
        update.state = state;
        update.completed_at = Some(now);
        message.clone_into(&mut update.message);
    });
}

/// Replaces the task of a slot. Stop-first: the new one is prepared, and starts when the old one has
/// stopped. Start-first: the old one stops when the new one runs.
fn replace(draft: &mut Draft<'_>, service: &Service, slot: &Slot, held: &Held) {
    let running = held.wanted.iter().find(|task| task.serves());
    let kept = match config(service).order {
        UpdateOrder::StopFirst => None,
        UpdateOrder::StartFirst => running,
    };
    for task in held.wanted.iter().filter(|task| kept.is_none_or(|kept| kept.id != task.id)) {
        draft.want(&task.id, DesiredState::Shutdown);
    }
    let waits = kept.is_none()
        && held.wanted.iter().chain(&held.leaving).any(|it| restart::holds_back(&draft.tx, it));
    create(draft, service, slot, if waits { Start::later() } else { Start::now() });
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
        check(&case("running"), &expect![""]);
        check(
            &case("shutdown"),
            &expect![[r#"
                ~ web.1 ready running n1 two
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
        check(&case("starting"), &expect![""]);
        check(
            &case("running"),
            &expect![[r#"
                ~ web.1 running shutdown n1 one
                wake 104s
            "#]],
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
                ~ web update paused: update paused due to failure or early termination of task web-1-1
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
                ~ web update rollbackpaused: rollback paused due to failure or early termination of task web-1-1
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
            "#]],
        );
    }
}
