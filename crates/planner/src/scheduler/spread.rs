//! Which of the nodes that can run a task gets it.

use super::place::Load;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use types::{Node, Task};

/// From so many failures on, a node comes after all others.
const FAILURES_MAX: usize = 5;

/// Chooses the node with the fewest tasks of the task's service, then with the fewest in all.
/// Preferences come first: each takes the group of nodes with the fewest tasks of the service.
pub(super) fn choose<'a>(fitting: &[&'a Load], task: &Task) -> Option<&'a Load> {
    let mut nodes = fitting.to_vec();
    for preference in &task.spec.placement.preferences {
        nodes = emptiest_group(&nodes, &preference.spread, task);
    }
    nodes.into_iter().min_by_key(|load| {
        let failures = load.failures.get(&task.service).copied().unwrap_or(0);
        let failures = if failures < FAILURES_MAX { 0 } else { failures };
        (failures, load.count(&task.service), load.tasks, &load.node.id)
    })
}

fn emptiest_group<'a>(nodes: &[&'a Load], spread: &str, task: &Task) -> Vec<&'a Load> {
    let mut groups: BTreeMap<&str, Vec<&'a Load>> = BTreeMap::new();
    for load in nodes {
        groups.entry(label(&load.node, spread)).or_default().push(load);
    }
    // Of two equal groups the larger one has more room.
    let rank = |group: &Vec<&Load>| {
        let tasks: usize = group.iter().map(|load| load.count(&task.service)).sum();
        (tasks, Reverse(group.len()))
    };
    groups.into_values().min_by_key(rank).unwrap_or_default()
}

/// The value of the label that a preference names. Nodes without it are a group of their own.
fn label<'a>(node: &'a Node, spread: &str) -> &'a str {
    let labels =
        [("node.labels.", &node.spec.labels), ("engine.labels.", &node.description.engine.labels)];
    let value = labels
        .into_iter()
        .find_map(|(prefix, labels)| spread.strip_prefix(prefix).map(|name| labels.get(name)));
    value.flatten().map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use crate::testing::check;
    use expect_test::expect;

    #[test]
    fn the_node_with_the_fewest_tasks_of_the_service_comes_first() {
        check(
            "
            node n1
            node n2
            node n3
            service a replicas=1
            service b replicas=2
            service web replicas=2
            task a.1 running n1
            task b.1 running n2
            task b.2 running n2
            task web.1 running n3
            ",
            &expect![[r#"
                + web.2 assigned running n1
            "#]],
        );
    }

    #[test]
    fn a_preference_spreads_over_the_values_of_a_label() {
        check(
            "
            node n1 zone=a
            node n2 zone=a
            node n3 zone=a
            node n4 zone=b
            service web replicas=4 spread=node.labels.zone
            ",
            &expect![[r#"
                + web.1 assigned running n1
                + web.2 assigned running n4
                + web.3 assigned running n2
                + web.4 assigned running n4
            "#]],
        );
    }

    #[test]
    fn a_node_where_tasks_keep_failing_comes_last() {
        check(
            "
            node n1
            node n2
            service other replicas=1
            service web replicas=1 delay=0
            task other.1 running n2
            task web.1 failed n1 desired=shutdown since=90
            task web.1 failed n1 desired=shutdown since=91
            task web.1 failed n1 desired=shutdown since=92
            task web.1 failed n1 desired=shutdown since=93
            task web.1 failed n1 since=94
            ",
            &expect![[r#"
                + web.1 assigned running n2
                ~ web.1 failed shutdown n1 since 94s
            "#]],
        );
    }
}
