//! Nodes that are drained with pace: their tasks move a few at a time, as their services' updates
//! would replace them.
//!
//! A slot *leaves* while its only task is on such a node. It *moves* while it has another task
//! beside that one, made of the same spec; none of this is written down, it shows in the tasks. The
//! task that leaves is not stopped before the other one serves (start-first), or has a node and is
//! prepared there (stop-first): where no node takes it, all stays as it is, and the task that waits
//! says why.

use super::slot::{Slot, SlotTasks, keeps_tasks};
use super::update::{is_current, trial};
use super::{Start, create, keep, restart};
use crate::Planning;
use crate::index::ServiceSlots;
use std::cmp::Reverse;
use std::sync::Arc;
use store::View;
use types::{
    DesiredState, Node, NodeId, Service, Task, TaskId, TaskState, Timestamp, UpdateOrder,
    UpdateStatus,
};

/// Says whether tasks leave a node with pace. They are given up at once where it is down or is
/// about to leave.
pub(crate) fn is_emptied(node: &Node) -> bool {
    node.is_drained_with_pace() && keeps_tasks(node)
}

/// Says whether a task of a slot is to move from its node, where it may stay meanwhile: the node is
/// drained, or there is one that takes over from it elsewhere.
pub(super) fn leaves(view: &View, service: &Service, (tasks, task): (&SlotTasks, &Task)) -> bool {
    // What is sticky has nowhere to move to.
    if !task.occupies() || service.is_sticky() {
        return false;
    }
    let replaces = |other: &Arc<Task>| other.replaces.as_ref() == Some(&task.id);
    let is_replaced = service.is_rebalanced() && tasks.wanted.iter().any(replaces);
    let node = task.node.as_ref().and_then(|node| view.node(node));
    is_replaced || node.is_some_and(|node| is_emptied(node))
}

/// Says whether two tasks of a slot are there because it moves, and not for an update.
pub(super) fn is_move(view: &View, service: &Service, tasks: &SlotTasks) -> bool {
    let [first, others @ ..] = tasks.wanted.as_slice() else { return false };
    let is_current = |task: &Task| is_current(view, service, task);
    !others.is_empty() && others.iter().all(|other| is_current(other) == is_current(first))
}

/// Says whether the next task of a slot has to wait until this one, which leaves, has stopped.
pub(super) fn goes_first(
    view: &View,
    service: &Service,
    (tasks, task): (&SlotTasks, &Task),
) -> bool {
    !stays_beside(service, task) && leaves(view, service, (tasks, task))
}

/// Says whether a task that leaves serves until the next one does.
fn stays_beside(service: &Service, task: &Task) -> bool {
    match service.spec.update.order {
        UpdateOrder::StopFirst => false,
        UpdateOrder::StartFirst => task.serves(),
    }
}

/// Ends what can be ended in a slot that is stirred: a move, or what is left of one that is not to
/// be any more. The task of a global service is the last one on its node.
pub(super) fn settle(
    planning: &mut Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    let ended = match slot {
        Slot::Number(_) if tasks.wanted.len() < 2 => return,
        Slot::Number(_) => needless(planning, service, tasks),
        Slot::Node(node) if is_last(&planning.tx, node) => {
            tasks.wanted.iter().filter(|task| task.occupies()).map(|task| task.id.clone()).collect()
        }
        Slot::Node(_) => return,
    };
    for task in ended {
        if planning.is_full() {
            return;
        }
        tasks.want(planning, &task, DesiredState::Shutdown);
    }
}

/// Says whether a node that is drained with pace has no task of a replicated service any more.
fn is_last(view: &View, node: &NodeId) -> bool {
    let is_replicated = |task: &Arc<Task>| 0 < task.slot && task.is_placed();
    view.node(node).is_some_and(|node| is_emptied(node))
        && !view.tasks_of_node(node).any(is_replicated)
}

/// The wanted tasks of a slot that are needed no more: of those of the same spec, one that stays is
/// enough, and one that leaves until the other one is there.
fn needless(planning: &Planning<'_>, service: &Service, tasks: &mut SlotTasks) -> Vec<TaskId> {
    let (view, now) = (&planning.tx, planning.now);
    let is_current = |task: &&Arc<Task>| is_current(view, service, task);
    let (current, old): (Vec<_>, Vec<_>) = tasks.wanted.iter().partition(is_current);
    let (mut needless, mut waits) = (Vec::new(), None);
    for alike in [current, old] {
        let leaves = |task: &&Arc<Task>| leaves(view, service, (tasks, task));
        let (leaving, staying): (Vec<_>, Vec<_>) = alike.into_iter().partition(leaves);
        let kept = [&leaving, &staying].map(|them| best(them));
        let all = leaving.into_iter().chain(staying);
        let others = all.filter(|it| !kept.iter().flatten().any(|kept| kept.id == it.id));
        needless.extend(others.map(|task| task.id.clone()));
        let [Some(leaving), Some(new)] = kept else { continue };
        let not_yet = new.not_before.filter(|time| now < *time);
        let is_there = if goes_first(view, service, (tasks, leaving)) {
            TaskState::Ready <= new.status.state && new.occupies()
        } else {
            new.serves()
        };
        match not_yet {
            Some(time) if is_there => waits = Some(time),
            None if is_there => needless.push(leaving.id.clone()),
            Some(_) | None => {}
        }
    }
    if let Some(time) = waits {
        tasks.wake_at(time);
    }
    needless
}

/// The task that stays where there are several: one that serves, or the one that is there longest.
fn best<'a>(tasks: &[&'a Arc<Task>]) -> Option<&'a Arc<Task>> {
    tasks.iter().copied().min_by_key(|task| (Reverse(task.serves()), Reverse(task.occupies())))
}

/// Lets as many slots move as the service's update allows. An update that runs goes first. What a job
/// has begun it ends where it is.
pub(super) fn advance(planning: &mut Planning<'_>, service: &Service, all: &mut ServiceSlots) {
    if service.spec.mode.is_job() {
        return;
    }
    let Some(service) = planning.tx.service(&service.id).cloned() else { return };
    let leaving = &all.standings().leaving;
    if leaving.is_empty() || service.update.as_ref().is_some_and(UpdateStatus::runs) {
        return;
    }
    // To move those that do not serve costs nothing.
    let idle = leaving.iter().take_while(|(serves, _)| !serves).take(planning.room());
    let idle: Vec<Slot> = idle.map(|(_, slot)| slot.clone()).collect();
    begin_all(planning, &service, all, idle);
    let parallelism = service.spec.update.parallelism;
    // One that rests takes no more when it moves.
    while !planning.is_full() {
        let (moving, rest_ends) = pace(planning, &service, all);
        let room = match usize::try_from(parallelism).unwrap_or(usize::MAX) {
            0 => usize::MAX,
            parallelism => parallelism.saturating_sub(moving),
        };
        let leaving = &all.standings().leaving;
        let next = leaving.iter().take(room.min(planning.room()));
        let next: Vec<Slot> = next.map(|(_, slot)| slot.clone()).collect();
        if next.is_empty() {
            if let Some(end) = rest_ends.filter(|_| !leaving.is_empty()) {
                planning.wake_at(end);
            }
            return;
        }
        begin_all(planning, &service, all, next);
    }
}

/// How many slots of a service are on their way, or rest for the delay of its update since they
/// serve; and when the first of those has rested.
pub(super) fn pace(
    planning: &Planning<'_>,
    service: &Service,
    all: &ServiceSlots,
) -> (usize, Option<Timestamp>) {
    let standings = all.standings();
    let delay = service.spec.update.delay;
    let ends = standings.fresh.iter().rev().map(|(since, _)| since.after(delay));
    let resting: Vec<Timestamp> = ends.take_while(|end| planning.now < *end).collect();
    (standings.on_their_way.len() + resting.len(), resting.last().copied())
}

fn begin_all(
    planning: &mut Planning<'_>,
    service: &Service,
    all: &mut ServiceSlots,
    slots: Vec<Slot>,
) {
    for slot in slots {
        if planning.is_full() {
            return;
        }
        let mut tasks = all.take_calm(&slot);
        let next = tasks.wanted.first().map(|task| start(service, task));
        if let Some(start) = next {
            create(planning, service, (&slot, &mut tasks), start);
        }
        keep(planning, Some(service), all, (slot, tasks));
    }
}

/// When the task starts that is made beside one that leaves.
pub(super) fn start(service: &Service, leaving: &Task) -> Start {
    // Restarts are counted wherever the slot is.
    let restarts = leaving.restarts.clone();
    if stays_beside(service, leaving) {
        return Start { trial: trial(service, true), restarts, ..Start::now() };
    }
    let not_before = leaving.not_before;
    Start { not_before, restarts, ..Start::later() }
}

/// Says of a slot what it is to a node that is drained with pace.
pub(super) fn stand(
    planning: &Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    let (Slot::Number(_), [first, others @ ..]) = (slot, tasks.wanted.as_slice()) else { return };
    let view = &planning.tx;
    let is_alone = others.is_empty();
    // Tasks of an old spec are the update's business.
    let may_move =
        is_alone && leaves(view, service, (tasks, first)) && is_current(view, service, first);
    // One that ended for good keeps its own slot where it is, and no other one.
    let may_run = tasks.wanted.iter().all(|task| restart::may_go_on(task));
    let is_on_its_way = may_run && !(is_alone && first.serves());
    let since = first.status.since;
    let rests =
        !is_on_its_way && first.serves() && planning.now < since.after(service.spec.update.delay);
    let serves = first.serves();
    let standing = &mut tasks.standing;
    standing.leaves = may_move.then_some(serves);
    standing.is_on_its_way = is_on_its_way;
    standing.fresh_since = rests.then_some(since);
}

#[cfg(test)]
mod tests;
