//! Replicated services: as many slots as the user wants.

use super::slot::{Held, Slot, slots};
use super::{Start, create};
use crate::Draft;
use std::collections::BTreeMap;
use types::{DesiredState, NodeId, Service};

/// No service gets more tasks than this: a slip of the finger must not fill the managers' memory.
pub const REPLICAS_MAX: u64 = 20_000;

/// Makes tasks for free slots, or takes away slots that are too many.
pub(crate) fn reconcile(draft: &mut Draft<'_>, service: &Service, replicas: u64) {
    let mut slots = slots(&draft.tx, service);
    slots.retain(|_, held| !held.wanted.is_empty());
    let replicas = usize::try_from(replicas.min(REPLICAS_MAX)).unwrap_or(usize::MAX);
    if slots.len() < replicas {
        let free = (1..).map(Slot::Number).filter(|slot| !slots.contains_key(slot));
        for slot in free.take(replicas - slots.len()) {
            create(draft, service, &slot, Start::now());
        }
        return;
    }
    for held in surplus(&slots, slots.len() - replicas) {
        for task in &held.wanted {
            draft.want(&task.id, DesiredState::Remove);
        }
    }
}

/// Chooses the slots to give up: first those without a node or without a task that may ever run
/// again, then from the fullest node, and there a task that does not run yet: that costs no
/// capacity.
fn surplus(slots: &BTreeMap<Slot, Held>, count: usize) -> Vec<&Held> {
    let mut left: Vec<(&Slot, &Held)> = slots.iter().collect();
    let mut crowd: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for (_, held) in &left {
        if let Some(node) = node_of(held) {
            *crowd.entry(node).or_default() += 1;
        }
    }
    let mut chosen = Vec::new();
    for _ in 0..count {
        let rank = |(slot, held): &(&Slot, &Held)| {
            let crowd = node_of(held).and_then(|node| crowd.get(node)).copied();
            (crowd.is_none(), crowd, !held.runs(), (*slot).clone())
        };
        let Some(index) = (0..left.len()).max_by_key(|index| rank(&left[*index])) else {
            break;
        };
        let (_, held) = left.swap_remove(index);
        if let Some(crowd) = node_of(held).and_then(|node| crowd.get_mut(node)) {
            *crowd -= 1;
        }
        chosen.push(held);
    }
    chosen
}

/// The node on which a slot's task takes room.
fn node_of(held: &Held) -> Option<&NodeId> {
    held.wanted.iter().find(|task| task.occupies())?.node.as_ref()
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

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
}
