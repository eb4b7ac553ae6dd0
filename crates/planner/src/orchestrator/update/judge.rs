//! Updates whose new tasks fail, or never come to run.
//!
//! An update loses a slot when its new task ends before it has run for the update's `monitor` time,
//! or does not come to run at all. What was lost is written into the update's status: how many
//! ended tasks are kept is another matter. An update that loses more than its ratio allows ends by
//! its failure action; one that may lose them goes on without them.

use super::{birth, config, is_of};
use crate::Planning;
use crate::index::{AllSlots, Basis};
use crate::orchestrator::restart::holds_back;
use crate::orchestrator::slot::{Slot, SlotTasks, Slots};
use std::sync::Arc;
use std::time::Duration;
use types::{
    DesiredState, FailureAction, RestartCondition, Service, ServiceId, Task, TaskState, Timestamp,
    UpdateState, UpdateStatus,
};

/// How long a new task may wait for addresses and a node, or for the one before it when that one's
/// grace is over. Nobody works on it meanwhile, but a node may be on its way back.
const UNPLACED: Duration = Duration::from_mins(1);
/// How long a node may take to make a new task run: large images come over slow lines.
const UNPREPARED: Duration = Duration::from_mins(15);

/// A slot that an update lost, and why.
struct Loss {
    slot: Slot,
    why: String,
}

/// Notes which slots a service's update has lost, and pauses it or rolls it back where those are too
/// many. It looks at the slots that are stirred: of the others it is known when they may be lost.
pub(crate) fn judge(planning: &mut Planning<'_>, id: &ServiceId, slots: &mut AllSlots) {
    let Some(service) = updating(planning, id) else { return };
    let mut all = slots.take(id);
    all.follow(Basis::of(planning, id));
    all.stir_due(planning.now);
    let losses = losses(planning, &service, all.stirred());
    let filled = all.stirred().values().filter(|tasks| tasks.is_filled());
    let wanted = filled.count() + all.standings().filled;
    slots.put(id, all);
    let first = losses.first();
    let Some(first) = first.map(|loss| loss.why.clone()) else { return };
    let (now, mut lost) = (planning.now, 0);
    planning.tx.edit_service(&service.id, |service| {
        let Some(update) = &mut service.update else { return };
        update.failed.extend(losses.into_iter().map(|loss| (loss.slot, now)));
        lost = update.failed.len();
    });
    #[expect(clippy::cast_precision_loss, reason = "a ratio of two small numbers")]
    let ratio = lost as f32 / wanted.max(1) as f32;
    if ratio > config(&service).max_failure_ratio {
        end(planning, &service, &first);
    }
}

/// The service, where its update runs.
fn updating(planning: &Planning<'_>, service: &ServiceId) -> Option<Arc<Service>> {
    let service = planning.tx.service(service)?;
    service.update.as_ref().is_some_and(UpdateStatus::runs).then(|| Arc::clone(service))
}

/// What an update has lost of these slots since it was last looked at, in order.
fn losses(planning: &Planning<'_>, service: &Service, slots: &Slots) -> Vec<Loss> {
    let Some(update) = &service.update else { return Vec::new() };
    let mut losses = Vec::new();
    for (slot, tasks) in slots {
        if update.failed.contains_key(slot) {
            continue;
        }
        let is_new = |task: &&Arc<Task>| {
            is_of((service, update), planning, tasks, task)
                && task.spec.makes_same(&service.spec.task)
        };
        let mut new = tasks.wanted.iter().chain(&tasks.history).filter(is_new);
        if let Some(why) = new.find_map(|task| why_lost(planning, service, tasks, task)) {
            losses.push(Loss { slot: slot.clone(), why });
        }
    }
    losses
}

/// Says why the update lost a new task; `None`: it did not, or not yet.
fn why_lost(
    planning: &Planning<'_>,
    service: &Service,
    tasks: &SlotTasks,
    task: &Task,
) -> Option<String> {
    if is_failure(task) {
        let ran = task.running_since.map(|since| task.status.since.since(since));
        let early = ran.is_none_or(|ran| ran <= config(service).monitor);
        return early.then(|| format!("due to failure or early termination of task {}", task.id));
    }
    if deadline(planning, service, tasks, task).is_none_or(|deadline| planning.now < deadline) {
        return None;
    }
    if let Some(old) = before(planning, tasks, task) {
        return Some(format!("because task {} does not stop", old.id));
    }
    let status = &task.status;
    let what = if status.error.is_empty() { &status.message } else { &status.error };
    Some(format!("because task {} does not come to run: {what}", task.id))
}

/// When an update gives up on a task that is on its way to run. What was before the clock leapt
/// forward is no time that it had.
fn deadline(
    planning: &Planning<'_>,
    service: &Service,
    tasks: &SlotTasks,
    task: &Task,
) -> Option<Timestamp> {
    let begun = service.update.as_ref().map(|update| update.started_at);
    let start = birth(planning, task).max(begun.unwrap_or_default());
    let start = task.not_before.map_or(start, |time| time.max(start)).max(planning.fair_from);
    let old = before(planning, tasks, task);
    let patience = match old {
        Some(old) => {
            UNPLACED.max(config(service).monitor).saturating_add(old.spec.container.grace())
        }
        None => patience(service, task),
    };
    (task.status.state < TaskState::Running).then(|| start.after(patience))
}

/// The task that has to stop before a new one may start.
fn before<'a>(planning: &Planning<'_>, tasks: &'a SlotTasks, task: &Task) -> Option<&'a Arc<Task>> {
    let mut old = tasks.stopping.iter().filter(|_| task.desired == DesiredState::Ready);
    old.find(|old| holds_back(&planning.tx, old))
}

/// Asks for another plan when a service's update gives up on tasks that are on their way to run.
pub(crate) fn watch(planning: &mut Planning<'_>, service: &ServiceId, slots: &AllSlots) {
    let Some(service) = updating(planning, service) else { return };
    let (Some(update), Some(all)) = (&service.update, slots.of(&service.id)) else { return };
    let stirred = all.stirred().values();
    let stirred = stirred.filter_map(|it| deadline_in(planning, (&service, update), it)).min();
    let calm = all.standings().deadlines.iter().map(|(deadline, _)| *deadline);
    let calm = calm.into_iter().find(|deadline| planning.now < *deadline);
    if let Some(deadline) = [stirred, calm].into_iter().flatten().min() {
        planning.wake_at(deadline);
    }
}

/// When an update gives up next on a task of a slot that is on its way to run.
pub(super) fn deadline_in(
    planning: &Planning<'_>,
    (service, update): (&Service, &UpdateStatus),
    tasks: &SlotTasks,
) -> Option<Timestamp> {
    let is_new = |task: &&Arc<Task>| {
        is_of((service, update), planning, tasks, task) && task.spec.makes_same(&service.spec.task)
    };
    let new = tasks.wanted.iter().filter(is_new);
    let deadlines = new.filter_map(|task| deadline(planning, service, tasks, task));
    deadlines.filter(|it| planning.now < *it).min()
}

/// How long a new task may take to run. It may have to wait for the one before it, which may take
/// its time to stop.
fn patience(service: &Service, task: &Task) -> Duration {
    let container = &task.spec.container;
    let health = container.health.as_ref().map(|health| health.start_period);
    let time = match task.status.state {
        TaskState::New | TaskState::Pending => UNPLACED.max(config(service).monitor),
        TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Orphaned => UNPREPARED + health.unwrap_or_default(),
    };
    time.saturating_add(container.grace())
}

fn is_failure(task: &Task) -> bool {
    let has_to_run = task.spec.restart.condition == RestartCondition::Any;
    let state = task.status.state;
    state.is_failure() || (has_to_run && state == TaskState::Complete)
}

/// Ends an update by its failure action.
fn end(planning: &mut Planning<'_>, service: &Service, why: &str) {
    let rolls_back = super::rolls_back(service);
    let previous = match config(service).failure_action {
        FailureAction::Continue => return,
        FailureAction::Pause => None,
        // There is nothing to go back to when going back fails.
        FailureAction::Rollback => service.previous_spec.clone().filter(|_| !rolls_back),
    };
    let now = planning.now;
    planning.tx.edit_service(&service.id, |service| {
        let Some(update) = &mut service.update else { return };
        if let Some(spec) = previous {
            service.spec = spec;
            service.previous_spec = None;
            let message = format!("update rolled back {why}");
            *update = UpdateStatus::begun(UpdateState::RollbackStarted, now, &message);
        } else if rolls_back {
            update.state = UpdateState::RollbackPaused;
            update.message = format!("rollback paused {why}");
        } else {
            update.state = UpdateState::Paused;
            update.message = format!("update paused {why}");
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_task_that_fails_after_its_monitor_time_is_no_failure_of_the_update() {
        let case = |ran: u32| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating
                task web.1 failed n1 image=two born=55 since=99 ran={ran}
                task web.2 running n1 image=one
                "
            )
        };
        check(
            &case(94),
            &expect![[r#"
            + web.1 assigned ready n1 two at 105s
            ~ web update paused lost 1: update paused due to failure or early termination of task web-1-1
            ~ web.1 failed shutdown n1 two since 99s
            wake 105s
        "#]],
        );
        check(
            &case(93),
            &expect![[r#"
            + web.1 assigned ready n1 two at 105s
            ~ web.1 failed shutdown n1 two since 99s
            wake 105s
        "#]],
        );
    }

    #[test]
    fn a_slot_is_lost_once_also_where_its_task_has_been_replaced() {
        let case = |lost: &str| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating update-delay=60 failure=continue {lost}
                task web.1 failed n1 image=two born=55 since=99 desired=shutdown
                task web.1 ready n1 image=two born=99 desired=ready at=104
                task web.2 running n1 image=one
                "
            )
        };
        check(
            &case(""),
            &expect![[r#"
            ~ web update updating lost 1: 
            wake 104s
        "#]],
        );
        // It was lost at 90 s, and rests since then.
        check(
            &case("lost=1"),
            &expect![[r#"
            wake 104s
        "#]],
        );
    }

    #[test]
    fn what_an_update_did_not_make_is_no_loss_of_it() {
        let case = |task: &str, restart: &str| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating restart={restart}
                task web.1 {task} since=99
                task web.2 running n1 image=two born=56
                "
            )
        };
        // Of before the update, and of a spec that came between.
        check(
            &case("failed n1 image=two born=40", "any"),
            &expect![[r#"
            + web.1 assigned ready n1 two at 105s
            ~ web.1 failed shutdown n1 two since 99s
            wake 105s
        "#]],
        );
        check(
            &case("failed n1 image=one born=55", "any"),
            &expect![[r#"
            + web.1 assigned ready n1 two at 105s
            ~ web.1 failed shutdown n1 one since 99s
            wake 105s
        "#]],
        );
        // One that is done is lost where it has to run for ever.
        check(
            &case("complete n1 image=two born=55", "any"),
            &expect![[r#"
            + web.1 assigned ready n1 two at 105s
            ~ web update paused lost 1: update paused due to failure or early termination of task web-1-1
            ~ web.1 complete shutdown n1 two since 99s
            wake 105s
        "#]],
        );
        check(
            &case("complete n1 image=two born=55", "on-failure"),
            &expect![[r#"
            ~ web update completed: update completed
        "#]],
        );
    }

    #[test]
    fn nobody_waits_for_what_an_update_did_not_make() {
        check(
            "
            node n1 pause
            service web replicas=2 image=two update=updating
            task web.1 pending - image=two born=40 error=no_suitable_node_(1_node_not_available_for_new_tasks)._n1:_is_paused
            task web.2 running n1 image=one
            ",
            &expect![[r#"
                + web.2 pending ready - two error: no suitable node (1 node not available for new tasks). n1: is paused
                ~ web.2 running shutdown n1 one
                wake 170s
            "#]],
        );
    }

    #[test]
    fn failures_count_though_their_tasks_are_forgotten() {
        check(
            "
            node n1
            service web replicas=4 image=two update=updating ratio=0.3 lost=1 parallelism=2
            task web.1 running n1 image=two born=56 since=60
            task web.2 failed n1 image=two born=57 since=99
            task web.3 running n1 image=one
            task web.4 running n1 image=one
            ",
            &expect![[r#"
                + web.2 assigned ready n1 two at 105s
                ~ web update paused lost 1,2: update paused due to failure or early termination of task web-2-1
                ~ web.2 failed shutdown n1 two since 99s
                wake 105s
            "#]],
        );
        check(
            "
            cluster history=0
            node n1
            service web replicas=4 image=two update=updating ratio=0.3
            task web.1 failed n1 image=two born=57 since=99
            task web.2 running n1 image=one
            task web.3 running n1 image=one
            task web.4 running n1 image=one
            ",
            &expect![[r#"
                + web.1 assigned ready n1 two at 105s
                + web.2 assigned ready n1 two
                - web.1 failed running n1 two since 99s
                ~ web update updating lost 1: 
                ~ web.2 running shutdown n1 one
                wake 105s
            "#]],
        );
    }

    #[test]
    fn an_update_that_continues_goes_on_without_the_slots_it_lost() {
        let case = |state: &str, since: u32| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating failure=continue
                task web.1 {state} n1 image=two born=55 since={since}
                task web.2 running n1 image=one
                "
            )
        };
        check(
            &case("rejected", 99),
            &expect![[r#"
            + web.1 assigned ready n1 two at 105s
            + web.2 assigned ready n1 two
            ~ web update updating lost 1: 
            ~ web.1 rejected shutdown n1 two since 99s
            ~ web.2 running shutdown n1 one
            wake 105s
        "#]],
        );
        // Its restart is on its way and may fail for ever.
        check(
            "
            node n1
            service web replicas=2 image=two update=updating failure=continue lost=1,2
            task web.1 preparing n1 image=two born=95 at=99
            task web.2 ready n1 image=two born=98 desired=ready at=103
            ",
            &expect![[r#"
                ~ web update completed lost 1,2: update completed
                wake 103s
            "#]],
        );
    }

    #[test]
    fn a_slot_that_was_lost_rests_for_the_delay_too() {
        check(
            "
            node n1
            service web replicas=2 image=two update=updating update-delay=60 failure=continue lost=1
            task web.1 ready n1 image=two born=98 desired=ready at=103
            task web.2 running n1 image=one
            ",
            &expect![[r#"
                wake 103s
            "#]],
        );
    }

    #[test]
    fn an_update_whose_task_finds_no_node_ends_by_its_failure_action() {
        let case = |born: i32, failure: &str| {
            format!(
                "
                node n1 pause
                service web replicas=2 image=two update=updating began=-900 failure={failure} previous=one
                task web.1 pending - image=two born={born} error=no_suitable_node_(1_node_not_available_for_new_tasks)._n1:_is_paused
                task web.2 running n1 image=one
                "
            )
        };
        check(
            &case(31, "pause"),
            &expect![[r#"
                wake 101s
            "#]],
        );
        // A longer monitor time is more patient, and so is a task that has to wait for its restart.
        check(
            &case(30, "pause").replace("began", "monitor=120 began"),
            &expect![[r#"
                wake 160s
            "#]],
        );
        check(
            &case(30, "pause").replace("born", "at=35 born"),
            &expect![[r#"
                wake 105s
            "#]],
        );
        check(
            &case(30, "pause"),
            &expect![[r#"
                ~ web update paused lost 1: update paused because task web-1-1 does not come to run: no suitable node (1 node not available for new tasks). n1: is paused
            "#]],
        );
        check(
            &case(30, "continue"),
            &expect![[r#"
                + web.2 pending ready - two error: no suitable node (1 node not available for new tasks). n1: is paused
                ~ web update updating lost 1: 
                ~ web.2 running shutdown n1 one
                wake 170s
            "#]],
        );
        check(
            &case(30, "rollback"),
            &expect![[r#"
                + web.1 pending running - one error: no suitable node (1 node not available for new tasks). n1: is paused
                - web.1 pending running - two error: no suitable node (1 node not available for new tasks). n1: is paused
                ~ web image one
                ~ web previous none
                ~ web update rollbackstarted: update rolled back because task web-1-1 does not come to run: no suitable node (1 node not available for new tasks). n1: is paused
                wake 170s
            "#]],
        );
    }

    #[test]
    fn an_update_is_not_judged_by_time_that_a_leap_of_the_clock_has_taken() {
        let case = |leapt: i32| {
            format!(
                "
                clock leapt={leapt}
                node n1
                service web replicas=1 image=two update=updating began=-900
                task web.1 preparing n1 image=two born=-810 since=-800
                "
            )
        };
        check(
            &case(90),
            &expect![[r"
            wake 1000s
        "]],
        );
        // One that runs is monitored for its whole time.
        check(
            "
            clock leapt=98
            node n1
            service web replicas=1 image=two update=updating began=-900
            task web.1 running n1 image=two born=-810 since=-800
            ",
            &expect![[r"
            wake 103s
        "]],
        );
    }

    #[test]
    fn an_update_gives_up_on_a_slot_whose_old_task_does_not_stop() {
        let case = |born: i32| {
            format!(
                "
                node n1
                service web replicas=2 image=two update=updating began=-900 failure=continue
                task web.1 running n1 image=one desired=shutdown
                task web.1 ready n1 image=two born={born} desired=ready
                task web.2 running n1 image=one
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
            &case(31).replace("began", "monitor=120 began"),
            &expect![[r#"
            wake 161s
        "#]],
        );
        check(
            &case(29).replace("continue", "pause"),
            &expect![[r#"
            ~ web update paused lost 1: update paused because task web-1-1 does not stop
        "#]],
        );
        // One that is not held back has the time that it takes to be prepared.
        check(
            &case(29).replace("desired=ready", "desired=running"),
            &expect![[r#"
            wake 939s
        "#]],
        );
        check(
            &case(29),
            &expect![[r#"
            + web.2 assigned ready n1 two
            ~ web update updating lost 1: 
            ~ web.2 running shutdown n1 one
            wake 170s
        "#]],
        );
    }

    #[test]
    fn a_task_whose_turn_comes_when_its_time_is_over_is_lost_at_once() {
        check(
            "
            node n1 pause
            service web replicas=1 image=two update=updating began=-900
            task web.1 shutdown n1 image=one desired=shutdown
            task web.1 pending - image=two born=29 desired=ready error=no_suitable_node_(1_node_not_available_for_new_tasks)._n1:_is_paused
            ",
            &expect![[r#"
                ~ web update paused lost 1: update paused because task web-1-2 does not come to run: no suitable node (1 node not available for new tasks). n1: is paused
                ~ web.1 pending running - two error: no suitable node (1 node not available for new tasks). n1: is paused
            "#]],
        );
    }

    #[test]
    fn an_update_waits_longer_for_a_task_that_is_being_prepared() {
        let case = |born: i32| {
            format!(
                "
                node n1
                service web replicas=1 image=two update=updating began=-900
                task web.1 preparing n1 image=two born={born} since=-800
                "
            )
        };
        check(
            &case(-809),
            &expect![[r#"
            wake 101s
        "#]],
        );
        // It may take its time to become healthy, too.
        check(
            &case(-810).replace("began", "start-period=30 began"),
            &expect![[r#"
            wake 130s
        "#]],
        );
        check(
            &case(-810),
            &expect![[r#"
            ~ web update paused lost 1: update paused because task web-1-1 does not come to run: 
        "#]],
        );
    }
}
