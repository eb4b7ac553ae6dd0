//! Services whose slots go back to the node that they were on, by their label: that is where the
//! slot's volumes are.
//!
//! The rule is hard: a slot waits for its node as long as the cluster knows it, whether it is down,
//! drained or full. `docker node rm` lets go.

use super::slot::SlotTasks;
use store::View;
use types::{Node, NodeId, Service, Task, TaskState};

/// The node that a new task of a slot has to go to; `None`: whichever takes it.
pub(super) fn home(
    view: &View,
    service: &Service,
    (number, tasks): (u64, &SlotTasks),
) -> Option<NodeId> {
    if !service.is_sticky() {
        return None;
    }
    let was_there = |task: &Task| TaskState::Assigned <= task.status.state;
    let placed = tasks.all().filter(|task| was_there(task));
    let newest = placed.max_by_key(|task| (task.meta.created_at, &task.id));
    let newest = newest.and_then(|task| task.node.clone());
    // What is kept is of the service as it is: this plan may have placed the slot.
    let kept = || view.service(&service.id)?.homes.get(&number).cloned();
    let exists = |id: &NodeId| view.node(id).is_some();
    newest.filter(exists).or_else(|| kept().filter(exists))
}

/// Says what a service is to remember when a task gets its node; nothing where it does already.
pub(crate) fn remembers(service: &Service, task: &Task, node: &Node) -> bool {
    let is_new = || service.homes.get(&task.slot) != Some(&node.id);
    service.is_sticky() && 0 < task.slot && is_new()
}

/// Why a task waits for one node alone, and what lets it go.
pub(crate) fn waits_for(service: &Service, task: &Task, node: &Node) -> Option<String> {
    let is_sticky = 0 < task.slot && service.is_sticky();
    let name = node.known_as();
    is_sticky.then(|| {
        format!(
            "the slot is sticky and was on {name}: `docker node rm {name}` lets it go elsewhere"
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn a_slot_goes_back_to_the_node_that_it_was_on() {
        check(
            "
            node n1
            node n2
            service db replicas=2 sticky
            ",
            &expect![[r#"
                + db.1 assigned running n1
                + db.2 assigned running n2
                ~ db homes 1:n1 2:n2
            "#]],
        );
        // The emptier node would be the better one.
        check(
            "
            node n1
            node n2
            service web replicas=0
            service db replicas=1 sticky
            task web.1 running n1
            task db.1 failed n1
            ",
            &expect![[r#"
                + db.1 assigned ready n1 at 105s
                ~ db homes 1:n1
                ~ db.1 failed shutdown n1
                ~ web.1 running remove n1
                wake 105s
            "#]],
        );
        // The history of the slot is gone, as it was scaled away.
        check(
            "
            node n1
            node n2
            service db replicas=2 sticky homes=1:n2,2:n2
            ",
            &expect![[r#"
                + db.1 assigned running n2
                + db.2 assigned running n2
            "#]],
        );
    }

    #[test]
    fn a_slot_waits_for_its_node_and_says_so_until_the_node_is_removed() {
        check(
            "
            node n1 down
            node n2
            service db replicas=1 sticky
            task db.1 running n1
            ",
            &expect![[r#"
                + db.1 pending running n1 error: no suitable node (1 node not available for new tasks). n1: is down; the slot is sticky and was on n1: `docker node rm n1` lets it go elsewhere
                ~ db.1 running shutdown n1
            "#]],
        );
        check(
            "
            node n1 drain
            node n2
            service db replicas=1 sticky homes=1:n1
            ",
            &expect![[r#"
                + db.1 pending running n1 error: no suitable node (1 node not available for new tasks). n1: is drained; the slot is sticky and was on n1: `docker node rm n1` lets it go elsewhere
            "#]],
        );
        check(
            "
            node n2
            service db replicas=1 sticky homes=1:n1
            ",
            &expect![[r#"
                + db.1 assigned running n2
                ~ db homes 1:n2
            "#]],
        );
    }

    #[test]
    fn what_is_not_sticky_goes_anywhere() {
        check(
            "
            node n1 down
            node n2
            service db replicas=1 homes=1:n1
            task db.1 running n1
            ",
            &expect![[r#"
                + db.1 assigned running n2
                ~ db.1 running shutdown n1
            "#]],
        );
    }

    #[test]
    fn a_slot_that_is_not_sticky_any_more_waits_for_no_node() {
        check(
            "
            node n1 drain
            node n2
            service db replicas=1 homes=1:n1
            task db.1 pending n1
            ",
            &expect![[r#"
                + db.1 assigned running n2
                - db.1 pending running n1
            "#]],
        );
    }

    #[test]
    fn what_is_sticky_is_stopped_by_a_drain_with_pace_as_by_any_other() {
        check(
            "
            node n1 drain paced
            node n2
            service db replicas=1 sticky homes=1:n1
            task db.1 running n1
            ",
            &expect![[r#"
                + db.1 pending running n1 error: no suitable node (1 node not available for new tasks). n1: is drained; the slot is sticky and was on n1: `docker node rm n1` lets it go elsewhere
                ~ db.1 running shutdown n1
            "#]],
        );
    }

    #[test]
    fn nothing_is_noted_that_a_manager_would_lose() {
        check(
            "
            node n1 manager log-format=2
            service db replicas=1 sticky
            ",
            &expect![[r#"
                + db.1 assigned running n1
            "#]],
        );
    }
}
