//! Tasks that cannot stay where they are: their node is lost, is drained at once, or does not fulfil their
//! constraints any more.

use super::slot::{Slot, SlotTasks, keeps_tasks, matches};
use super::{Start, create, is_emptied};
use crate::Planning;
use std::sync::Arc;
use store::View;
use types::{Amount, DesiredState, Node, Service, Task};

/// Gives up tasks that cannot stay where they are. Those of a replicated service start elsewhere at
/// once: it is the node's fault, so neither delay nor policy apply.
pub(crate) fn enforce(
    planning: &mut Planning<'_>,
    service: &Service,
    (slot, tasks): (&Slot, &mut SlotTasks),
) {
    let is_displaced = |task: &&Arc<Task>| is_displaced(&planning.tx, service, task);
    let displaced: Vec<Arc<Task>> = tasks.wanted.iter().filter(is_displaced).cloned().collect();
    let replace = match slot {
        Slot::Number(_) => displaced.len() == tasks.wanted.len(),
        Slot::Node(_) => false,
    };
    for task in &displaced {
        tasks.want(planning, &task.id, DesiredState::Shutdown);
    }
    if let Some(task) = displaced.last().filter(|_| replace) {
        // One that waited for its restart goes on waiting.
        let start = Start {
            desired: task.desired,
            not_before: task.not_before,
            restarts: task.restarts.clone(),
            ..Start::now()
        };
        create(planning, service, (slot, tasks), start);
    }
}

fn is_displaced(view: &View, service: &Service, task: &Task) -> bool {
    let Some(id) = task.node.as_ref().filter(|_| task.occupies()) else {
        return false;
    };
    let Some(node) = view.node(id) else {
        return true;
    };
    // What can go to this node alone waits for it, and has nothing there yet; as long as it is to.
    if 0 < task.slot && !task.is_placed() {
        return !service.is_sticky();
    }
    // Nothing could take over from it elsewhere.
    if service.is_sticky() && is_emptied(node) {
        return true;
    }
    // A task whose service has other constraints by now is the update's business.
    let fits = matches(node, &task.spec.placement) || matches(node, &service.spec.task.placement);
    !keeps_tasks(node) || !fits || lost_its_share(view, node, task)
}

/// Says whether a node has no more what a task was given of its generic resources: a name of those is
/// gone, or there are fewer than the tasks that were given some before it have together with it.
fn lost_its_share(view: &View, node: &Node, task: &Task) -> bool {
    task.generic.iter().any(|(kind, given)| match (given, node.description.generic.get(kind)) {
        (Amount::Names(given), Some(Amount::Names(has))) => !given.is_subset(has),
        (Amount::Count(_), Some(Amount::Count(has))) => {
            let others = view.tasks_of_node(&node.id).filter(|it| it.is_wanted() && it.is_placed());
            let first = others.filter(|it| it.id <= task.id);
            let counts = first.filter_map(|it| Some(it.generic.get(kind)?.count()));
            *has < counts.fold(0, u64::saturating_add)
        }
        (_, None)
        | (Amount::Names(_), Some(Amount::Count(_)))
        | (Amount::Count(_), Some(Amount::Names(_))) => true,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_task_of_a_lost_or_drained_node_is_replaced_at_once() {
        check(
            "
            node n1 down
            node n2 drain
            node n3
            node n4 leaving
            service web replicas=4
            task web.1 running n1
            task web.2 running n2
            task web.3 running n3
            task web.4 running n4
            ",
            &expect![[r#"
                + web.1 assigned running n3
                + web.2 assigned running n3
                + web.4 assigned running n3
                ~ web.1 running shutdown n1
                ~ web.2 running shutdown n2
                ~ web.4 running shutdown n4
            "#]],
        );
    }

    #[test]
    fn a_paused_node_keeps_its_tasks_and_takes_no_new_ones() {
        check(
            "
            node n1 pause
            service web replicas=2
            task web.1 running n1
            ",
            &expect![[r#"
                + web.2 pending running - error: no suitable node (1 node not available for new tasks). n1: is paused
            "#]],
        );
    }

    #[test]
    fn a_task_moves_when_its_node_loses_the_label_it_needs() {
        check(
            "
            node n1
            node n2 disk=ssd
            service db replicas=1 constraint=node.labels.disk==ssd
            task db.1 running n1
            ",
            &expect![[r#"
                + db.1 assigned running n2
                ~ db.1 running shutdown n1
            "#]],
        );
    }

    #[test]
    fn a_task_of_a_removed_node_is_forgotten() {
        check(
            "
            node n2
            service web replicas=1
            task web.1 running n1
            ",
            &expect![[r#"
                + web.1 assigned running n2
                - web.1 running running n1
            "#]],
        );
    }

    #[test]
    fn a_task_goes_where_its_node_has_no_more_what_it_was_given() {
        check(
            "
            node n1 generic=gpu=a
            node n2 generic=seat=3
            node n3 generic=gpu=3
            node n4 generic=seat=9
            service gpu replicas=3 generic=gpu=1
            service seat replicas=2 generic=seat=2
            service all global generic=seat=1
            task gpu.1 running n1 given=gpu=a
            task gpu.2 running n1 given=gpu=b
            task gpu.3 running n3 given=gpu=c
            task seat.1 running n2 given=seat=2
            task seat.2 running n2 given=seat=2
            task all.0 running n1 given=seat=1
            ",
            &expect![[r#"
                + all.0 assigned running n4 given seat=1
                + all.0 pending running n1 error: no suitable node (insufficient resources on 1 node). n1: has no seat
                + all.0 pending running n2 error: no suitable node (insufficient resources on 1 node). n2: 0 of 3 seat free
                + all.0 pending running n3 error: no suitable node (insufficient resources on 1 node). n3: has no seat
                + gpu.2 assigned running n3 given gpu=1
                + gpu.3 assigned running n3 given gpu=1
                + seat.2 assigned running n4 given seat=2
                ~ all.0 running shutdown n1 given seat=1
                ~ gpu.2 running shutdown n1 given gpu=b
                ~ gpu.3 running shutdown n3 given gpu=c
                ~ seat.2 running shutdown n2 given seat=2
            "#]],
        );
    }
}
