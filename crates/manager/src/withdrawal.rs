//! When a task may be stopped: as soon as nobody leads traffic to it any more.
//!
//! Pure. A task ceases to serve in some view. Each node acknowledges what it has applied; once every
//! node that may lead traffic to the task has applied that view or a later one, the task is
//! withdrawn.
//!
//! Invariant: a node that is ready but has no session counts for a while as one that has not seen
//! anything, as its kernel goes on with what it knew. (Agents do not wait for ever either.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::View;
use types::{NetworkId, NodeId, Task, TaskId, Version};

/// Messages of a session that are remembered until they are acknowledged.
const UNACKNOWLEDGED: usize = 256;

/// What one session's node has seen of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Message and the newest view it stands for, oldest first.
    sent: VecDeque<(u64, Version)>,
    seen: Option<Version>,
}

impl Seen {
    /// Notes that `message` carries what follows from `view`.
    pub(crate) fn sent(&mut self, message: u64, view: Version) {
        if self.sent.len() >= UNACKNOWLEDGED {
            // It counts as seen with the newer one, no sooner.
            self.sent.pop_back();
        }
        self.sent.push_back((message, view));
    }

    /// Notes that nothing new follows from `view` for this node.
    pub(crate) fn unchanged(&mut self, view: Version) {
        match self.sent.back_mut() {
            Some((_, newest)) => *newest = view,
            None => self.seen = Some(view),
        }
    }

    /// Notes that the node has applied all messages up to `message`.
    pub(crate) fn acknowledged(&mut self, message: u64) {
        while let Some((sent, view)) = self.sent.front()
            && *sent <= message
        {
            self.seen = Some(*view);
            self.sent.pop_front();
        }
    }

    /// The newest view that the node has applied.
    pub(crate) fn seen(&self) -> Option<Version> {
        self.seen
    }

    /// Messages that the node has not applied yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.sent.len()
    }
}

/// Tasks that do not serve any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ceased(BTreeMap<TaskId, Cessation>);

/// Since which view a task does not serve, and who may still lead traffic to it.
#[derive(Clone, Debug)]
struct Cessation {
    since: Version,
    audience: Audience,
}

#[derive(Clone, Debug)]
enum Audience {
    /// Every node carries the routing mesh.
    All,
    /// Those with a task on one of its networks. A node that gets one later does not know the task
    /// as serving.
    Nodes(BTreeSet<NodeId>),
}

impl Ceased {
    /// Takes note of a view.
    pub(crate) fn observe(&mut self, view: &View) {
        let stopping: BTreeMap<&TaskId, &Task> = view
            .tasks()
            .filter(|task| task.is_stopping() && task.occupies())
            .map(|task| (&task.id, AsRef::as_ref(task)))
            .collect();
        self.0.retain(|id, _| stopping.contains_key(id));
        if self.0.len() == stopping.len() {
            return;
        }
        let hosts = hosts(view);
        for (id, task) in stopping {
            self.0.entry(id.clone()).or_insert_with(|| Cessation {
                since: view.version(),
                audience: audience(task, &hosts),
            });
        }
    }

    /// Says whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether this task is one.
    pub(crate) fn holds(&self, task: &TaskId) -> bool {
        self.0.contains_key(task)
    }

    /// The tasks that every node which may lead traffic to them has seen not serving. `seen` is
    /// what each node that counts has seen.
    pub(crate) fn withdrawn(&self, seen: &BTreeMap<NodeId, Option<Version>>) -> BTreeSet<TaskId> {
        let withdrawn = self.0.iter().filter(|(_, cessation)| {
            let knows = |seen: Option<Version>| seen.is_some_and(|seen| cessation.since <= seen);
            match &cessation.audience {
                Audience::All => seen.values().copied().all(knows),
                Audience::Nodes(nodes) => {
                    nodes.iter().filter_map(|node| seen.get(node).copied()).all(knows)
                }
            }
        });
        withdrawn.map(|(id, _)| id.clone()).collect()
    }
}

/// The nodes with tasks on each network.
fn hosts(view: &View) -> BTreeMap<&NetworkId, BTreeSet<&NodeId>> {
    let mut hosts: BTreeMap<&NetworkId, BTreeSet<&NodeId>> = BTreeMap::new();
    for task in view.tasks().filter(|task| task.occupies()) {
        for attachment in &task.attachments {
            hosts.entry(&attachment.network).or_default().extend(&task.node);
        }
    }
    hosts
}

fn audience(task: &Task, hosts: &BTreeMap<&NetworkId, BTreeSet<&NodeId>>) -> Audience {
    if task.ingress_address.is_some() {
        return Audience::All;
    }
    let networks = task.attachments.iter().filter_map(|it| hosts.get(&it.network));
    Audience::Nodes(networks.flatten().map(|node| NodeId::clone(node)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Attachment, DesiredState, TaskState, Timestamp};

    /// Running tasks on nodes with networks; the first one is wanted shut down.
    fn view(version: u64, tasks: &[(&str, &str)], mesh: bool) -> View {
        let mut tx = Tx::new(&View::default());
        for (index, (node, network)) in tasks.iter().enumerate() {
            let mut task = Task { id: format!("t{index}").as_str().into(), ..Task::default() };
            task.node = Some((*node).into());
            task.status.state = TaskState::Running;
            task.attachments = vec![Attachment {
                network: (*network).into(),
                address: [10, 0, 0, 1].into(),
                prefix: 24,
                aliases: Vec::new(),
            }];
            task.ingress_address = mesh.then_some([10, 255, 0, 1].into());
            if index == 0 {
                task.desired = DesiredState::Shutdown;
            }
            tx.put_task(task);
        }
        let mut view = View::default();
        view.apply(&tx.finish(), Version(version), Timestamp(1));
        view
    }

    /// 0: the node has seen nothing.
    fn is_withdrawn(view: &View, seen: &[(&str, u64)]) -> bool {
        let mut ceased = Ceased::default();
        ceased.observe(view);
        let seen = seen.iter().map(|(id, version)| {
            ((*id).into(), Some(Version(*version)).filter(|version| version.0 > 0))
        });
        ceased.withdrawn(&seen.collect()).contains(&"t0".into())
    }

    #[test]
    fn a_task_behind_the_mesh_is_withdrawn_once_every_node_has_seen_it() {
        let view = view(7, &[("a", "front")], true);
        assert!(!is_withdrawn(&view, &[("a", 7), ("b", 6)]));
        assert!(is_withdrawn(&view, &[("a", 7), ("b", 8)]));
        assert!(!is_withdrawn(&view, &[("a", 7), ("b", 0)]), "no session yet");
        assert!(is_withdrawn(&view, &[]), "nobody is there");
    }

    #[test]
    fn only_nodes_on_its_networks_are_waited_for_without_the_mesh() {
        let view = view(7, &[("a", "front"), ("b", "front"), ("c", "back")], false);
        assert!(is_withdrawn(&view, &[("a", 7), ("b", 7), ("c", 0), ("d", 0)]));
        assert!(!is_withdrawn(&view, &[("a", 7), ("b", 6), ("c", 7), ("d", 7)]));
    }

    #[test]
    fn an_unhealthy_task_is_withdrawn_as_one_that_is_not_wanted() {
        let mut unhealthy = view(7, &[("a", "front")], true);
        let mut tx = Tx::new(&unhealthy);
        tx.edit_task(&"t0".into(), |task| {
            task.desired = DesiredState::Running;
            task.status.unhealthy = true;
        });
        let changes = tx.finish();
        unhealthy.apply(&changes, Version(8), Timestamp(2));
        assert!(!is_withdrawn(&unhealthy, &[("b", 7)]));
        assert!(is_withdrawn(&unhealthy, &[("b", 8)]));
    }

    #[test]
    fn the_first_view_counts_also_when_others_follow() {
        let mut ceased = Ceased::default();
        ceased.observe(&view(7, &[("a", "front")], true));
        ceased.observe(&view(9, &[("a", "front")], true));
        assert_eq!(ceased.withdrawn(&[("a".into(), Some(Version(7)))].into()).len(), 1);
    }

    #[test]
    fn what_is_remembered_of_a_node_that_never_acknowledges_is_limited() {
        let mut seen = Seen::default();
        for message in 1..=1000 {
            seen.sent(message, Version(message));
        }
        assert_eq!(seen.unacknowledged(), UNACKNOWLEDGED);
        seen.acknowledged(999);
        assert!(seen.seen() < Some(Version(999)));
        seen.acknowledged(1000);
        assert_eq!(seen.seen(), Some(Version(1000)));
    }

    #[test]
    fn an_acknowledgement_covers_what_was_sent_before_and_what_changed_nothing_since() {
        let mut seen = Seen::default();
        seen.sent(1, Version(10));
        seen.unchanged(Version(11));
        seen.sent(2, Version(12));
        assert_eq!(seen.seen(), None);
        seen.acknowledged(1);
        assert_eq!(seen.seen(), Some(Version(11)));
        seen.acknowledged(2);
        seen.unchanged(Version(15));
        assert_eq!(seen.seen(), Some(Version(15)));
    }
}
