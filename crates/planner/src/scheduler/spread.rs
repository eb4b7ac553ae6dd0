//! Which of the nodes that can run a task gets it.

use super::filter::{Requirements, fit};
use crate::index::Load;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use types::{Node, NodeId, Preference, ServiceId};

/// From so many failures on, a node comes after all others.
const FAILURES_MAX: usize = 5;

/// The place of a node among those that can run a task of a service: the one with the fewest of the
/// service's tasks comes first, then the one with the fewest in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Of the service's tasks here, lately; a few do not count.
    failures: usize,
    count: usize,
    tasks: usize,
    node: NodeId,
}

impl Rank {
    pub(super) fn of(node: &Node, load: &Load, service: &ServiceId, failures: usize) -> Self {
        let failures = if failures < FAILURES_MAX { 0 } else { failures };
        let (count, tasks) = (load.count(service), load.tasks);
        Self { failures, count, tasks, node: node.id.clone() }
    }

    /// Says whether nothing of the service speaks against the node: only what it has to do in all.
    pub(super) fn is_unburdened(&self) -> bool {
        self.failures == 0 && self.count == 0
    }
}

/// The nodes that can run tasks of one service with the same requirements, in the order in which
/// they get them. It is made once, and follows what a task that is placed makes of its node.
#[derive(Debug)]
pub(super) struct Candidates {
    pub(super) requirements: Requirements,
    /// `None`: nobody has looked at all nodes yet.
    crowd: Option<Crowd>,
}

/// Nodes that can run a task, by their ranks, or in groups by a label where the task prefers to be
/// spread over its values.
#[derive(Debug)]
enum Crowd {
    Nodes(BTreeSet<Rank>),
    Groups(BTreeMap<String, Group>),
}

#[derive(Debug)]
struct Group {
    /// How many tasks of the service its nodes have.
    tasks: usize,
    nodes: usize,
    crowd: Crowd,
}

impl Candidates {
    pub(super) fn new(requirements: Requirements) -> Self {
        Self { requirements, crowd: None }
    }

    pub(super) fn are_gathered(&self) -> bool {
        self.crowd.is_some()
    }

    /// Takes in those of all nodes that fit.
    pub(super) fn gather(&mut self, nodes: Vec<(&Node, &Load, Rank)>) {
        let asked = &self.requirements;
        let preferences = &asked.placement.preferences;
        let fitting = nodes.into_iter().filter(|(node, load, _)| fit(node, load, asked).is_ok());
        self.crowd = Some(if preferences.is_empty() {
            Crowd::Nodes(fitting.map(|(_, _, rank)| rank).collect())
        } else {
            let mut crowd = Crowd::new(preferences);
            fitting.for_each(|(node, _, rank)| crowd.insert(preferences, node, rank));
            crowd
        });
    }

    /// The node that gets the next task.
    pub(super) fn first(&self) -> Option<&NodeId> {
        self.crowd.as_ref()?.first()
    }

    /// Follows what became of a node that had the rank `was`.
    pub(super) fn follow(&mut self, node: &Node, was: &Rank, (load, is): (&Load, Rank)) {
        let preferences = &self.requirements.placement.preferences;
        let Some(crowd) = &mut self.crowd else { return };
        if crowd.remove(preferences, node, was) && fit(node, load, &self.requirements).is_ok() {
            crowd.insert(preferences, node, is);
        }
    }
}

impl Crowd {
    fn new(preferences: &[Preference]) -> Self {
        if preferences.is_empty() {
            Self::Nodes(BTreeSet::new())
        } else {
            Self::Groups(BTreeMap::new())
        }
    }

    fn insert(&mut self, preferences: &[Preference], node: &Node, rank: Rank) {
        match (self, preferences) {
            (Self::Groups(groups), [preference, rest @ ..]) => {
                let empty = || Group { tasks: 0, nodes: 0, crowd: Self::new(rest) };
                let value = label(node, &preference.spread).to_owned();
                let group = groups.entry(value).or_insert_with(empty);
                group.tasks += rank.count;
                group.nodes += 1;
                group.crowd.insert(rest, node, rank);
            }
            (Self::Nodes(nodes), _) => {
                nodes.insert(rank);
            }
            (Self::Groups(_), []) => {}
        }
    }

    /// Takes a node out; says whether it was here.
    fn remove(&mut self, preferences: &[Preference], node: &Node, rank: &Rank) -> bool {
        match (self, preferences) {
            (Self::Groups(groups), [preference, rest @ ..]) => {
                let value = label(node, &preference.spread);
                let Some(group) = groups.get_mut(value) else { return false };
                if !group.crowd.remove(rest, node, rank) {
                    return false;
                }
                group.tasks -= rank.count;
                group.nodes -= 1;
                if group.nodes == 0 {
                    groups.remove(value);
                }
                true
            }
            (Self::Nodes(nodes), _) => nodes.remove(rank),
            (Self::Groups(_), []) => false,
        }
    }

    /// The first node, in the group with the fewest tasks of the service: of two equal groups the
    /// larger one has more room.
    fn first(&self) -> Option<&NodeId> {
        match self {
            Self::Nodes(nodes) => nodes.first().map(|rank| &rank.node),
            Self::Groups(groups) => {
                let group = groups.values().min_by_key(|it| (it.tasks, Reverse(it.nodes)))?;
                group.crowd.first()
            }
        }
    }
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
