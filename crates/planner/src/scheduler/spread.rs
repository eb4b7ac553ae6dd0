//! Which of the nodes that can run a task gets it.

use crate::index::Carried;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use types::{Node, NodeId, Preference};

/// From so many failures on, a node comes after all others.
const FAILURES_MAX: usize = 5;

/// The place of a node among those that can run a task of a service: the one with the fewest of the
/// service's tasks comes first, then the one with the fewest in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank<'a> {
    /// Of the service's tasks here, lately; a few do not count.
    failures: usize,
    /// How many of its wishes for other services beside it do not come true here.
    unmet: usize,
    count: usize,
    tasks: usize,
    /// Its place among all nodes by their ids, which take longer to compare.
    at: usize,
    pub(super) node: &'a NodeId,
}

impl<'a> Rank<'a> {
    pub(super) fn of(
        (at, node): (usize, &'a NodeId),
        carried: Carried<'_>,
        (failures, unmet): (usize, usize),
    ) -> Self {
        let failures = if failures < FAILURES_MAX { 0 } else { failures };
        Self { failures, unmet, count: carried.count, tasks: carried.load.tasks, at, node }
    }

    /// The rank of the same node where it carries this.
    pub(super) fn with(self, carried: Carried<'_>) -> Self {
        Self { count: carried.count, tasks: carried.load.tasks, ..self }
    }

    /// Says whether nothing of the service speaks against the node: only what it has to do in all.
    pub(super) fn is_unburdened(&self) -> bool {
        self.failures == 0 && self.unmet == 0 && self.count == 0
    }
}

/// Nodes that can run tasks with the same requirements, in the order in which they get them: by
/// their ranks, and before that in groups by a label where the tasks prefer to be spread over its
/// values. It is made once, and follows what a task that is placed makes of its node.
#[derive(Debug)]
pub(super) enum Candidates<'a> {
    Nodes(BinaryHeap<Reverse<Rank<'a>>>),
    Groups(BTreeMap<&'a str, Group<'a>>),
}

#[derive(Debug)]
pub(super) struct Group<'a> {
    /// How many tasks of the service its nodes have.
    tasks: usize,
    nodes: usize,
    candidates: Candidates<'a>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(preferences: &[Preference]) -> Self {
        if preferences.is_empty() {
            Self::Nodes(BinaryHeap::new())
        } else {
            Self::Groups(BTreeMap::new())
        }
    }

    pub(super) fn insert(&mut self, preferences: &[Preference], node: &'a Node, rank: Rank<'a>) {
        match (self, preferences) {
            (Self::Groups(groups), [preference, rest @ ..]) => {
                let empty = || Group { tasks: 0, nodes: 0, candidates: Self::new(rest) };
                let group = groups.entry(label(node, &preference.spread)).or_insert_with(empty);
                group.tasks += rank.count;
                group.nodes += 1;
                group.candidates.insert(rest, node, rank);
            }
            (Self::Nodes(nodes), _) => nodes.push(Reverse(rank)),
            (Self::Groups(_), []) => {}
        }
    }

    /// The first node, in the group with the fewest tasks of the service: of two equal groups the
    /// larger one has more room.
    pub(super) fn first(&self) -> Option<Rank<'a>> {
        match self {
            Self::Nodes(nodes) => nodes.peek().map(|rank| rank.0),
            Self::Groups(groups) => first_of(groups)?.1.candidates.first(),
        }
    }

    /// Gives the first node another rank, or takes it out. Returns how many tasks of the service it
    /// had.
    pub(super) fn replace_first(&mut self, rank: Option<Rank<'a>>) -> usize {
        match self {
            Self::Nodes(nodes) => {
                let was = nodes.pop().map_or(0, |was| was.0.count);
                nodes.extend(rank.map(Reverse));
                was
            }
            Self::Groups(groups) => {
                let Some(value) = first_of(groups).map(|(value, _)| *value) else { return 0 };
                let Some(group) = groups.get_mut(value) else { return 0 };
                let was = group.candidates.replace_first(rank);
                group.tasks = group.tasks + rank.map_or(0, |rank| rank.count) - was;
                group.nodes -= usize::from(rank.is_none());
                if group.nodes == 0 {
                    groups.remove(value);
                }
                was
            }
        }
    }
}

fn first_of<'a, 'b>(
    groups: &'b BTreeMap<&'a str, Group<'a>>,
) -> Option<(&'b &'a str, &'b Group<'a>)> {
    groups.iter().min_by_key(|(_, group)| (group.tasks, Reverse(group.nodes)))
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
