//! Replicated services: as many slots as the user wants.

use super::slot::{Slot, SlotTasks, Slots};
use super::{Start, create, keep};
use crate::Planning;
use crate::index::ServiceSlots;
use std::collections::{BTreeMap, BinaryHeap};
use types::{DesiredState, NodeId, Service, ServiceMode, TaskId};

/// No service gets more tasks than this: a slip of the finger must not fill the managers' memory.
pub const REPLICAS_MAX: u64 = 20_000;

/// How many slots a service is to have; `None`: that is no matter of [`reconcile`].
pub(super) fn replicas(service: &Service) -> Option<usize> {
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            Some(usize::try_from(replicas.min(REPLICAS_MAX)).unwrap_or(usize::MAX))
        }
        ServiceMode::Global | ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => None,
    }
}

/// Makes tasks for free slots, or takes away slots that are too many.
pub(super) fn reconcile(planning: &mut Planning<'_>, service: &Service, all: &mut ServiceSlots) {
    let Some(replicas) = replicas(service) else { return };
    let filled = all.standings().filled;
    if filled < replicas {
        let free = |slot: &Slot| !all.calm().get(slot).is_some_and(SlotTasks::is_filled);
        let free = (1..).map(Slot::Number).filter(free);
        let free: Vec<Slot> = free.take(planning.room().min(replicas - filled)).collect();
        for slot in free {
            let mut tasks = all.take_calm(&slot);
            create(planning, service, (&slot, &mut tasks), Start::now());
            keep(planning, Some(service), all, (slot, tasks));
        }
    } else if replicas < filled {
        for slot in surplus(all.calm(), filled - replicas) {
            if planning.is_full() {
                return;
            }
            let mut tasks = all.take_calm(&slot);
            let wanted: Vec<TaskId> = tasks.wanted.iter().map(|task| task.id.clone()).collect();
            for task in wanted {
                tasks.want(planning, &task, DesiredState::Remove);
            }
            keep(planning, Some(service), all, (slot, tasks));
        }
    }
}

/// Chooses the slots to give up: first those without a node or without a task that may ever run
/// again, then from the fullest node, and there a task that does not run yet: that costs no
/// capacity.
fn surplus(slots: &Slots, count: usize) -> Vec<Slot> {
    // The slots of each node; those that go last come first.
    let mut crowds: BTreeMap<Option<&NodeId>, Vec<(bool, &Slot)>> = BTreeMap::new();
    for (slot, tasks) in slots.iter().filter(|(_, tasks)| tasks.is_filled()) {
        crowds.entry(node_of(tasks)).or_default().push((!tasks.runs(), slot));
    }
    for crowd in crowds.values_mut() {
        crowd.sort_unstable();
    }
    let nodeless = crowds.remove(&None).unwrap_or_default();
    let mut chosen: Vec<Slot> =
        nodeless.iter().rev().take(count).map(|(_, slot)| (*slot).clone()).collect();
    // The fullest node is on top; of those that are as full the one whose slot goes first.
    let mut heap: BinaryHeap<_> = crowds.into_values().filter_map(crowd_of).collect();
    while chosen.len() < count
        && let Some((_, (_, slot), mut crowd)) = heap.pop()
    {
        chosen.push(slot.clone());
        crowd.pop();
        heap.extend(crowd_of(crowd));
    }
    chosen
}

/// The slots of a node with what they are chosen by: how many there are, and the one that goes first.
fn crowd_of<T: Copy>(slots: Vec<T>) -> Option<(usize, T, Vec<T>)> {
    Some((slots.len(), *slots.last()?, slots))
}

/// The node on which a slot's task takes room.
fn node_of(tasks: &SlotTasks) -> Option<&NodeId> {
    tasks.wanted.iter().find(|task| task.occupies())?.node.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;
    use expect_test::expect;
    use proptest::prelude::*;
    use std::sync::Arc;
    use types::{Task, TaskState};

    #[test]
    fn a_new_service_gets_a_task_for_each_slot_spread_over_the_nodes() {
        check(
            "
            node n1
            node n2
            service web replicas=3
            ",
            &expect![[r#"
                + web.1 assigned running n1
                + web.2 assigned running n2
                + web.3 assigned running n1
            "#]],
        );
    }

    #[test]
    fn free_slots_are_filled_from_the_lowest() {
        check(
            "
            node n1
            service web replicas=4
            task web.2 running n1
            task web.5 running n1
            ",
            &expect![[r#"
                + web.1 assigned running n1
                + web.3 assigned running n1
            "#]],
        );
    }

    #[test]
    fn scaling_down_takes_the_idle_task_of_the_fullest_node() {
        check(
            "
            node n1
            node n2
            service web replicas=2
            task web.1 running n1
            task web.2 starting n2
            task web.3 starting n1
            ",
            &expect![[r#"
                ~ web.3 starting remove n1
            "#]],
        );
    }

    #[test]
    fn scaling_down_takes_tasks_without_a_node_first_and_forgets_them() {
        check(
            "
            node n1
            service web replicas=1
            task web.1 running n1
            task web.2 pending -
            task web.3 running n1
            ",
            &expect![[r#"
                - web.2 pending running -
                ~ web.3 running remove n1
            "#]],
        );
    }

    #[test]
    fn scaling_down_levels_the_nodes() {
        check(
            "
            node n1
            node n2
            service web replicas=2
            task web.1 running n1
            task web.2 running n1
            task web.3 running n1
            task web.4 running n2
            ",
            &expect![[r#"
                ~ web.2 running remove n1
                ~ web.3 running remove n1
            "#]],
        );
    }

    #[test]
    fn the_tasks_of_a_removed_service_go() {
        check(
            "
            node n1
            task web.1 running n1
            task web.2 failed n1
            task web.3 pending -
            ",
            &expect![[r#"
                - web.2 failed running n1
                - web.3 pending running -
                ~ web.1 running remove n1
            "#]],
        );
    }

    /// Looks at all slots for each one that goes.
    fn surplus_one_by_one(slots: &Slots, count: usize) -> Vec<Slot> {
        let mut left: Vec<(&Slot, &SlotTasks)> = slots.iter().collect();
        let mut chosen = Vec::new();
        for _ in 0..count.min(slots.len()) {
            let crowd =
                |node: &NodeId| left.iter().filter(|it| node_of(it.1) == Some(node)).count();
            let rank = |(slot, tasks): &(&Slot, &SlotTasks)| {
                let crowd = node_of(tasks).map(crowd);
                (crowd.is_none(), crowd, !tasks.runs(), (*slot).clone())
            };
            let index = (0..left.len()).max_by_key(|index| rank(&left[*index])).expect("one left");
            chosen.push(left.swap_remove(index).0.clone());
        }
        chosen
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_same_slots_go_as_by_looking_at_all_for_each(
            tasks in prop::collection::vec((0..5u8, 0..4u8), 0..30),
            count in 0..40usize,
        ) {
            let mut slots = Slots::new();
            for (slot, (node, state)) in (1..).zip(tasks) {
                let mut task = Task { id: format!("t{slot}").into(), slot, ..Task::default() };
                task.node = (node > 0).then(|| format!("n{node}").into());
                task.status.state = match state {
                    0 => TaskState::Starting,
                    1 => TaskState::Failed,
                    _ => TaskState::Running,
                };
                slots.entry(Slot::Number(slot)).or_default().insert(Arc::new(task));
            }
            prop_assert_eq!(surplus(&slots, count), surplus_one_by_one(&slots, count));
        }
    }
}
