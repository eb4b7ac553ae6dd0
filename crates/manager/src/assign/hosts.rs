//! Which nodes have tasks on which network.

use std::collections::BTreeMap;
use types::{NetworkId, NodeId, Task};

/// The nodes with tasks on each network that have not ended, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts(BTreeMap<NetworkId, BTreeMap<NodeId, usize>>);

impl Hosts {
    /// A task that was `old` is `new` now.
    pub(crate) fn change(&mut self, old: Option<&Task>, new: Option<&Task>) {
        for (network, node) in places(new) {
            *self.0.entry(network.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        for (network, node) in places(old) {
            let Some(nodes) = self.0.get_mut(network) else { continue };
            let Some(tasks) = nodes.get_mut(node) else { continue };
            *tasks -= 1;
            if *tasks == 0 {
                nodes.remove(node);
            }
            if nodes.is_empty() {
                self.0.remove(network);
            }
        }
    }

    /// The nodes with a task on a network.
    pub(crate) fn of(&self, network: &NetworkId) -> impl Iterator<Item = &NodeId> {
        self.0.get(network).into_iter().flat_map(BTreeMap::keys)
    }
}

fn places(task: Option<&Task>) -> impl Iterator<Item = (&NetworkId, &NodeId)> {
    let there =
        task.filter(|task| task.occupies()).and_then(|task| Some((task, task.node.as_ref()?)));
    there
        .into_iter()
        .flat_map(|(task, node)| task.attachments.iter().map(move |it| (&it.network, node)))
}
