//! What managers observe of nodes, as changes to the store.

use crate::control::node::give_up_tasks;
use crate::liveness::Lost;
use std::collections::BTreeMap;
use store::{Changes, Tx, View};
use types::{NodeId, NodeState, Timestamp, Version};

/// Who is lost and who is there after all, as it was when it was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    lost: Lost,
    /// The versions of these nodes that were looked at.
    versions: BTreeMap<NodeId, Version>,
}

impl Observation {
    pub(crate) fn new(lost: Lost, view: &View) -> Self {
        let nodes = [&lost.down, &lost.back, &lost.given_up].into_iter().flatten();
        let nodes = nodes.filter_map(|id| view.node(id));
        let versions = nodes.map(|node| (node.id.clone(), node.meta.version)).collect();
        Self { lost, versions }
    }

    /// What is to be written. Of a node that changed since it was looked at, something newer is
    /// known.
    pub fn changes(&self, view: &View, now: Timestamp) -> Changes {
        let same =
            |id: &&NodeId| view.node(id).map(|node| &node.meta.version) == self.versions.get(*id);
        let mut tx = Tx::new(view);
        for id in self.lost.down.iter().filter(same) {
            tracing::warn!(node = %id, "node is down: three heartbeats missed");
            tx.edit_node(id, |node| node.status.enter(NodeState::Down, "heartbeat failure", now));
        }
        for id in self.lost.back.iter().filter(same) {
            tx.edit_node(id, |node| node.status.enter(NodeState::Ready, "", now));
        }
        for id in self.lost.given_up.iter().filter(same) {
            give_up_tasks(&mut tx, id, ("node is lost", now));
        }
        tx.finish()
    }
}
