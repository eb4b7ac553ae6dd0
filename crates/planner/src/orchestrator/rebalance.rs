//! Services that are spread anew where nodes have come: by their label, and one slot at a time.
//!
//! A slot moves from the node with the most tasks of the service to one that has two less or fewer,
//! so that each move makes the spread more even and there is an end to it. It moves as a slot leaves
//! a node that is drained with pace ([`drain`]): by the order of the service's updates, and not
//! before there is a place. That it moves is written in the task that takes over.

use super::drain;
use super::slot::{Slot, takes_tasks};
use super::update::is_current;
use super::{Start, create, keep, replicated};
use crate::Planning;
use crate::index::{Index, ServiceSlots};
use crate::scheduler;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::View;
use types::{NodeId, Service, Task, UpdateStatus};

/// From so many failures of the service's tasks on a node on, nothing moves there.
const FAILURES_MAX: usize = 5;

/// Lets a slot move where the spread differs by two or more and all others stand. An update that
/// runs goes first.
pub(super) fn advance(
    planning: &mut Planning<'_>,
    service: &Service,
    all: &mut ServiceSlots,
    index: &Index,
) {
    let Some(service) = planning.tx.service(&service.id).cloned() else { return };
    let is_asked_for = service.is_rebalanced() && replicated::replicas(&service).is_some();
    // Those that prefer a spread over labels, or other services beside them, are not spread by nodes.
    let placement = &service.spec.task.placement;
    let is_bound = || !placement.preferences.is_empty() || placement.affinities().next().is_some();
    // A leader that does not know moves would let both tasks run.
    if !is_asked_for || is_bound() || !store::readers::know_moves(&planning.tx) {
        return;
    }
    let standings = all.standings();
    let stand = standings.on_their_way.is_empty()
        && standings.leaving.is_empty()
        && standings.old.is_empty()
        && !service.update.as_ref().is_some_and(UpdateStatus::runs);
    let chosen = if stand { choose(&planning.tx, &service, all, index) } else { None };
    let Some((slot, old)) = chosen else { return };
    if let (_, Some(end)) = drain::pace(planning, &service, all) {
        planning.wake_at(end);
        return;
    }
    let mut tasks = all.take_calm(&slot);
    let replaces = Some(old.id.clone());
    let start = Start { replaces, ..drain::start(&service, &old) };
    create(planning, &service, (&slot, &mut tasks), start);
    keep(planning, Some(&service), all, (slot, tasks));
}

/// The slot that is to move, and its task. What counts is what the slots have, as this plan may have
/// changed them.
fn choose(
    view: &View,
    service: &Service,
    all: &ServiceSlots,
    index: &Index,
) -> Option<(Slot, Arc<Task>)> {
    let mut failures: BTreeMap<&NodeId, usize> = BTreeMap::new();
    let mut slots: BTreeMap<&NodeId, Vec<(&Slot, &Arc<Task>)>> = BTreeMap::new();
    for (slot, tasks) in all.calm() {
        let failed = tasks.all().filter(|task| task.status.state.is_failure());
        for node in failed.filter_map(|task| task.node.as_ref()) {
            *failures.entry(node).or_default() += 1;
        }
        let placed = tasks.wanted.iter().filter(|task| task.occupies());
        for (node, task) in placed.filter_map(|task| Some((task.node.as_ref()?, task))) {
            slots.entry(node).or_default().push((slot, task));
        }
    }
    let count = |node: &NodeId| slots.get(node).map_or(0, Vec::len);
    let gives = |node: &NodeId| view.node(node).is_some_and(|node| takes_tasks(node));
    let fullest = slots.keys().filter(|node| gives(node));
    let fullest = fullest.max_by_key(|node| (count(node), Reverse(**node)))?;
    if count(fullest) < 2 {
        return None;
    }
    let (slot, task) = *slots.get(*fullest)?.last()?;
    let is_emptier = |node: &NodeId| {
        count(node) + 2 <= count(fullest)
            && failures.get(node).is_none_or(|failures| *failures < FAILURES_MAX)
    };
    let has_place =
        scheduler::any_fits((view, index), task, |node| is_emptier(node).then(|| count(node)));
    let moves = is_current(view, service, task) && has_place;
    moves.then(|| (slot.clone(), Arc::clone(task)))
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn one_slot_moves_to_a_node_that_has_come() {
        let case = |service: &str| {
            format!(
                "
                node n1
                node n2
                node n3
                service web replicas=6 {service}
                task web.1 running n1
                task web.2 running n2
                task web.3 running n1
                task web.4 running n2
                task web.5 running n1
                task web.6 running n2
                "
            )
        };
        check(&case(""), &expect![[r#""#]]);
        check(
            &case("rebalance"),
            &expect![[r#"
            + web.5 assigned ready n3 replaces web-5-1
        "#]],
        );
        check(
            &case("rebalance order=start-first"),
            &expect![[r#"
            + web.5 assigned running n3 replaces web-5-1 trial 1s
        "#]],
        );
        check(&case("rebalance spread=node.labels.zone"), &expect![[r#""#]]);
    }

    #[test]
    fn a_spread_that_differs_by_one_or_cannot_be_better_stays() {
        let case = |n2: &str, n3: &str| {
            format!(
                "
                node n1 memory=100
                node n2 {n2}
                service web replicas=3 memory=10 rebalance
                task web.1 running n1
                task web.2 running n1
                task web.3 {n3}
                "
            )
        };
        check(&case("memory=100", "running n2"), &expect![[r#""#]]);
        check(&case("memory=5", "running n1"), &expect![[r#""#]]);
        check(&case("memory=100 pause", "running n1"), &expect![[r#""#]]);
        check(&case("memory=100", "starting n1"), &expect![[r#""#]]);
        check(
            &case("memory=100", "running n1"),
            &expect![[r#"
            + web.3 assigned ready n2 replaces web-3-1
        "#]],
        );
    }

    #[test]
    fn a_move_ends_when_the_next_task_is_there_and_the_label_taken_away_takes_it_back() {
        let case = |service: &str, new: &str| {
            format!(
                "
                node n1
                node n2
                service web replicas=4 {service}
                task web.1 running n1
                task web.2 running n1
                task web.3 running n1
                task web.4 running n1
                task web.4 {new} n2 replaces=web-4-1
                "
            )
        };
        check(
            &case("rebalance", "ready"),
            &expect![[r#"
            ~ web.4 running shutdown n1
        "#]],
        );
        check(&case("rebalance order=start-first", "ready"), &expect![[r#""#]]);
        check(
            &case("rebalance order=start-first", "running"),
            &expect![[r#"
            + web.3 assigned running n2 replaces web-3-1 trial 1s
            ~ web.4 running shutdown n1
        "#]],
        );
        check(
            &case("rebalance order=start-first", "failed"),
            &expect![[r#"
            + web.4 assigned ready n2 at 105s replaces web-4-1 trial 1s
            ~ web.4 failed shutdown n2 replaces web-4-1
            wake 105s
        "#]],
        );
        check(
            &case("", "running"),
            &expect![[r#"
            ~ web.4 running shutdown n2 replaces web-4-1
        "#]],
        );
    }

    #[test]
    fn nothing_moves_to_a_node_where_tasks_keep_failing() {
        check(
            "
            cluster history=9
            node n1
            node n2
            service web replicas=2 rebalance
            task web.1 running n1
            task web.1 failed n2 desired=shutdown since=90
            task web.1 failed n2 desired=shutdown since=91
            task web.1 failed n2 desired=shutdown since=92
            task web.1 failed n2 desired=shutdown since=93
            task web.1 failed n2 desired=shutdown since=94
            task web.2 running n1
            ",
            &expect![[r#""#]],
        );
    }
}
