//! From one view to the next.

use std::collections::BTreeSet;
use store::{Key, View};
use types::{NetworkId, NodeId, ServiceId, TaskId};

/// Two views and what differs between them.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) before: &'a View,
    pub(crate) view: &'a View,
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) networks: BTreeSet<NetworkId>,
    pub(crate) services: BTreeSet<ServiceId>,
    pub(crate) tasks: BTreeSet<TaskId>,
}

impl<'a> Step<'a> {
    pub(crate) fn between(before: &'a View, view: &'a View) -> Self {
        let (nodes, networks, services, tasks) = Default::default();
        let mut step = Self { before, view, nodes, networks, services, tasks };
        for key in view.changes_since(before) {
            match key {
                // What is in a secret or a config stays: it comes with the tasks.
                Key::Cluster(_) | Key::Secret(_) | Key::Config(_) => {}
                Key::Node(id) => drop(step.nodes.insert(id)),
                Key::Network(id) => drop(step.networks.insert(id)),
                Key::Service(id) => drop(step.services.insert(id)),
                Key::Task(id) => drop(step.tasks.insert(id)),
            }
        }
        step
    }

    /// The nodes whose tasks differ, as often as they do.
    pub(crate) fn nodes_of_tasks(&self) -> impl Iterator<Item = &NodeId> {
        let views = [self.before, self.view];
        let tasks = self.tasks.iter().flat_map(move |id| views.map(|view| view.task(id)));
        tasks.flatten().filter_map(|task| task.node.as_ref())
    }
}
