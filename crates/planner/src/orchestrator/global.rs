//! Global services: one task on every node that may run it.

use super::slot::{Slot, matches, slots, takes_tasks};
use super::{Start, create};
use crate::Draft;
use types::{DesiredState, Node, NodeId, Service};

/// Makes a task for each node that may run one and has none, and stops those on nodes that do not
/// fulfil the service's constraints.
pub(crate) fn reconcile(draft: &mut Draft<'_>, service: &Service) {
    let slots = slots(&draft.tx, service);
    let fits = |node: &Node| matches(node, &service.spec.task.placement);
    let missing: Vec<NodeId> = draft
        .tx
        .nodes()
        .filter(|node| takes_tasks(node) && fits(node))
        .filter(|node| {
            slots.get(&Slot::Node(node.id.clone())).is_none_or(|held| held.wanted.is_empty())
        })
        .map(|node| node.id.clone())
        .collect();
    for node in missing {
        create(draft, service, &Slot::Node(node), Start::now());
    }
    for task in slots.values().flat_map(|held| &held.wanted) {
        let node = task.node.as_ref().and_then(|node| draft.tx.node(node));
        if !node.is_some_and(|node| fits(node)) {
            draft.want(&task.id, DesiredState::Shutdown);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn every_node_that_may_run_it_gets_one_task() {
        check(
            "
            node n1
            node n2 disk=ssd
            node n3 drain disk=ssd
            node n4 disk=ssd
            service agent global constraint=node.labels.disk==ssd
            task agent.0 running n4
            ",
            &expect![[r#"
                + agent.0 assigned running n2
            "#]],
        );
    }

    #[test]
    fn a_drained_node_loses_its_task_and_gets_none() {
        check(
            "
            node n1 drain
            node n2 down
            service agent global
            task agent.0 running n1
            task agent.0 running n2
            ",
            &expect![[r#"
                ~ agent.0 running shutdown n1
                ~ agent.0 running shutdown n2
            "#]],
        );
    }

    #[test]
    fn a_task_that_ended_is_restarted_on_its_node() {
        check(
            "
            node n1
            node n2 pause
            service agent global
            task agent.0 failed n1
            task agent.0 failed n2
            ",
            &expect![[r#"
                + agent.0 assigned ready n1 at 105s
                ~ agent.0 failed shutdown n1
                wake 105s
            "#]],
        );
    }
}
