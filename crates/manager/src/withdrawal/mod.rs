//! When a task may be stopped: as soon as nobody leads traffic to it any more.
//!
//! Pure. A task ceases to serve in some view. Each node acknowledges what it has applied; once every
//! node that may lead traffic to the task has applied all that follows from that view, the task is
//! withdrawn, and stays so.
//!
//! Tasks that cease in one view with the same audience are one group, which counts the nodes that
//! are still missing; each node has its groups in the order of views, and an acknowledgement takes
//! out those that it covers. So one costs what it brings about, however much there is.
//!
//! Invariant: a node that is ready but has no session counts for a while as one that has not seen
//! anything, as its kernel goes on with what it knew. (Agents do not wait for ever either.)

mod progress;
#[cfg(test)]
mod tests;

pub(crate) use progress::Progress;

use crate::assign::Hosts;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::View;
use types::{NetworkId, NodeId, Task, TaskId, Version};

/// Tasks that have ceased to serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Withdrawal {
    /// Those that some node may still lead traffic to.
    ceased: BTreeMap<TaskId, Group>,
    groups: BTreeMap<Group, Waiting>,
    /// The nodes that are waited for, each with the groups that it is missing in, oldest first.
    nodes: BTreeMap<NodeId, VecDeque<Group>>,
    /// Groups that there ever were.
    count: u64,
    withdrawn: BTreeSet<TaskId>,
    /// What was withdrawn since this was asked last.
    news: Vec<TaskId>,
}

/// Numbers tasks that ceased in one view with one audience; a later one comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group(u64);

/// Tasks that wait for the same nodes.
#[derive(Clone, Debug)]
struct Waiting {
    since: Version,
    audience: Audience,
    tasks: BTreeSet<TaskId>,
    /// Nodes that are waited for and have not applied that view.
    missing: usize,
}

/// Who may lead traffic to a task.
#[derive(Clone, Debug)]
enum Audience {
    /// Every node carries the routing mesh.
    All,
    /// Those with a task on one of its networks. A node that gets one later does not know the task
    /// as serving.
    Nodes(BTreeSet<NodeId>),
}

impl Audience {
    fn holds(&self, node: &NodeId) -> bool {
        match self {
            Self::All => true,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }
}

/// Says whether a node that lacks something from that view on has seen a task cease.
fn knows(lacks: Option<Version>, since: Version) -> bool {
    lacks.is_none_or(|lacks| since < lacks)
}

fn has_ceased(task: &Task) -> bool {
    task.is_stopping() && task.occupies()
}

impl Withdrawal {
    /// Takes note of what became of tasks in a view. `lacks` says from which view on a node lacks
    /// something, `hosts` who has a task on a network.
    pub(crate) fn observe(
        &mut self,
        view: &View,
        changed: &BTreeSet<TaskId>,
        hosts: &Hosts,
        lacks: impl Fn(&NodeId) -> Option<Version>,
    ) {
        let mut new: BTreeMap<Option<BTreeSet<&NetworkId>>, Group> = BTreeMap::new();
        for id in changed {
            match view.task(id).filter(|task| has_ceased(task)) {
                Some(task) if !self.holds(id) => {
                    let networks = task.attachments.iter().map(|it| &it.network);
                    let networks = Some(networks.collect());
                    let key = networks.filter(|_| task.ingress_addresses.is_empty());
                    let group = *new.entry(key).or_insert_with_key(|networks| {
                        self.begin(view.version(), audience(networks.as_ref(), hosts), &lacks)
                    });
                    self.join(id, group);
                }
                Some(_) => {}
                None => self.forget(id),
            }
        }
        for group in new.into_values() {
            self.check(group);
        }
    }

    /// A node is waited for, whether or not it was before; it lacks something from that view on.
    pub(crate) fn wait_for(&mut self, node: &NodeId, lacks: Option<Version>) {
        let missing = self
            .groups
            .iter_mut()
            .filter(|(_, waiting)| waiting.audience.holds(node) && !knows(lacks, waiting.since));
        let missing = missing.map(|(group, waiting)| {
            waiting.missing += 1;
            *group
        });
        let before = self.nodes.insert(node.clone(), missing.collect());
        self.pass(before.into_iter().flatten());
    }

    /// Nobody waits for this node any more.
    pub(crate) fn wait_no_more(&mut self, node: &NodeId) {
        let before = self.nodes.remove(node);
        self.pass(before.into_iter().flatten());
    }

    /// A node that is waited for, if it is, now lacks something only from that view on.
    pub(crate) fn applied(&mut self, node: &NodeId, lacks: Option<Version>) {
        let Some(groups) = self.nodes.get_mut(node) else { return };
        let waiting = &self.groups;
        let covered =
            |group: &Group| waiting.get(group).is_none_or(|waiting| knows(lacks, waiting.since));
        let covered: Vec<Group> =
            std::iter::from_fn(|| groups.pop_front_if(|it| covered(it))).collect();
        self.pass(covered);
    }

    /// Says whether there is a task that some node may still lead traffic to. (One that is
    /// withdrawn may go on for long: that of a node that is down ends when it is given up.)
    pub(crate) fn is_waiting(&self) -> bool {
        !self.ceased.is_empty()
    }

    /// Says whether nobody leads traffic to this task any more.
    pub(crate) fn is_withdrawn(&self, task: &TaskId) -> bool {
        self.withdrawn.contains(task)
    }

    /// Takes what was withdrawn since this was asked last.
    pub(crate) fn news(&mut self) -> Vec<TaskId> {
        std::mem::take(&mut self.news)
    }

    fn holds(&self, task: &TaskId) -> bool {
        self.ceased.contains_key(task) || self.withdrawn.contains(task)
    }

    fn begin(
        &mut self,
        since: Version,
        audience: Audience,
        lacks: impl Fn(&NodeId) -> Option<Version>,
    ) -> Group {
        self.count += 1;
        let group = Group(self.count);
        let mut missing = 0;
        each(&mut self.nodes, &audience, |node, groups| {
            if !knows(lacks(node), since) {
                groups.push_back(group);
                missing += 1;
            }
        });
        self.groups.insert(group, Waiting { since, audience, tasks: BTreeSet::new(), missing });
        group
    }

    fn join(&mut self, task: &TaskId, group: Group) {
        self.ceased.insert(task.clone(), group);
        if let Some(waiting) = self.groups.get_mut(&group) {
            waiting.tasks.insert(task.clone());
        }
    }

    /// One node is missing less in each of these groups.
    fn pass(&mut self, groups: impl IntoIterator<Item = Group>) {
        for group in groups {
            if let Some(waiting) = self.groups.get_mut(&group) {
                waiting.missing -= 1;
            }
            self.check(group);
        }
    }

    fn check(&mut self, group: Group) {
        if self.groups.get(&group).is_some_and(|waiting| waiting.missing > 0) {
            return;
        }
        for task in self.groups.remove(&group).into_iter().flat_map(|waiting| waiting.tasks) {
            self.ceased.remove(&task);
            self.news.push(task.clone());
            self.withdrawn.insert(task);
        }
    }

    /// A task has ended.
    fn forget(&mut self, task: &TaskId) {
        self.withdrawn.remove(task);
        let Some(group) = self.ceased.remove(task) else { return };
        let Some(waiting) = self.groups.get_mut(&group) else { return };
        waiting.tasks.remove(task);
        if !waiting.tasks.is_empty() {
            return;
        }
        let Some(Waiting { audience, .. }) = self.groups.remove(&group) else { return };
        each(&mut self.nodes, &audience, |_, groups| {
            if let Ok(index) = groups.binary_search(&group) {
                groups.remove(index);
            }
        });
    }
}

/// Calls `look` for each node of the audience that is waited for.
fn each(
    nodes: &mut BTreeMap<NodeId, VecDeque<Group>>,
    audience: &Audience,
    mut look: impl FnMut(&NodeId, &mut VecDeque<Group>),
) {
    match audience {
        Audience::All => nodes.iter_mut().for_each(|(node, groups)| look(node, groups)),
        Audience::Nodes(members) => {
            for node in members {
                if let Some(groups) = nodes.get_mut(node) {
                    look(node, groups);
                }
            }
        }
    }
}

fn audience(networks: Option<&BTreeSet<&NetworkId>>, hosts: &Hosts) -> Audience {
    match networks {
        None => Audience::All,
        Some(networks) => {
            Audience::Nodes(networks.iter().flat_map(|id| hosts.of(id)).cloned().collect())
        }
    }
}
