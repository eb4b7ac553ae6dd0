//! When a task may be stopped: as soon as nobody leads traffic to it any more.
//!
//! Pure. A task ceases to serve in some view. Each node acknowledges what it has applied; once every
//! node that is there has applied that view or a later one, the task is withdrawn.
//!
//! Invariant: a node that is ready but has no session counts as one that has not seen anything, as
//! its kernel goes on with what it knew. (Agents do not wait for ever, so it holds nobody up.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::View;
use types::{DesiredState, NodeId, NodeState, TaskId, Version};

/// Messages of a session that are not acknowledged yet, beyond which a node is too slow.
pub(crate) const UNACKNOWLEDGED: usize = 256;

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

    /// Says whether the node is hopelessly behind.
    pub(crate) fn is_overrun(&self) -> bool {
        self.sent.len() > UNACKNOWLEDGED
    }
}

/// Since which view tasks do not serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ceased(BTreeMap<TaskId, Version>);

impl Ceased {
    /// Takes note of a view.
    pub(crate) fn observe(&mut self, view: &View) {
        let stopping: BTreeSet<&TaskId> = view
            .tasks()
            .filter(|task| task.desired > DesiredState::Running && task.occupies())
            .map(|task| &task.id)
            .collect();
        self.0.retain(|id, _| stopping.contains(id));
        for id in stopping {
            self.0.entry(id.clone()).or_insert_with(|| view.version());
        }
    }

    /// The tasks that every node which is there has seen not serving.
    pub(crate) fn withdrawn(
        &self,
        view: &View,
        seen: &BTreeMap<NodeId, Version>,
    ) -> BTreeSet<TaskId> {
        if self.0.is_empty() {
            return BTreeSet::new();
        }
        let ready = view.nodes().filter(|node| node.status.state == NodeState::Ready);
        let oldest = ready.map(|node| seen.get(&node.id).copied().unwrap_or_default()).min();
        let Some(oldest) = oldest else { return self.0.keys().cloned().collect() };
        let withdrawn = self.0.iter().filter(|(_, ceased)| **ceased <= oldest);
        withdrawn.map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{Node, NodeStatus, Task, TaskState, Timestamp};

    /// Nodes with their states, and one running task that is wanted shut down.
    fn view(version: u64, nodes: &[(&str, NodeState)]) -> View {
        let mut tx = Tx::new(&View::default());
        for (id, state) in nodes {
            let status = NodeStatus { state: *state, ..NodeStatus::default() };
            tx.put_node(Node { id: (*id).into(), status, ..Node::default() });
        }
        let mut task = Task { id: "t".into(), desired: DesiredState::Shutdown, ..Task::default() };
        task.status.state = TaskState::Running;
        tx.put_task(task);
        let mut view = View::default();
        view.apply(&tx.finish(), Version(version), Timestamp(1));
        view
    }

    fn withdrawn(view: &View, seen: &[(&str, u64)]) -> bool {
        let mut ceased = Ceased::default();
        ceased.observe(view);
        let seen = seen.iter().map(|(id, version)| ((*id).into(), Version(*version))).collect();
        ceased.withdrawn(view, &seen).contains(&"t".into())
    }

    #[test]
    fn a_task_is_withdrawn_once_every_ready_node_has_seen_it() {
        let view = view(7, &[("a", NodeState::Ready), ("b", NodeState::Ready)]);
        assert!(!withdrawn(&view, &[("a", 7), ("b", 6)]));
        assert!(withdrawn(&view, &[("a", 7), ("b", 8)]));
    }

    #[test]
    fn a_node_that_is_down_is_not_waited_for_but_one_without_session_is() {
        let view = view(7, &[("a", NodeState::Ready), ("b", NodeState::Down)]);
        assert!(withdrawn(&view, &[("a", 7)]));
        assert!(!withdrawn(&view, &[]));
    }

    #[test]
    fn the_first_view_counts_also_when_others_follow() {
        let mut ceased = Ceased::default();
        let nodes = [("a", NodeState::Ready)];
        ceased.observe(&view(7, &nodes));
        let later = view(9, &nodes);
        ceased.observe(&later);
        assert_eq!(ceased.withdrawn(&later, &[("a".into(), Version(7))].into()).len(), 1);
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
