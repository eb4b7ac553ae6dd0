//! What a transaction changes: the content of a log entry.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use types::{
    Cluster, ClusterId, Meta, Network, NetworkId, Node, NodeId, Service, ServiceId, Task, TaskId,
};

/// Names a stored object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    Cluster(ClusterId),
    Node(NodeId),
    Network(NetworkId),
    Service(ServiceId),
    Task(TaskId),
}

impl Key {
    /// What an error calls the object: its kind and its id.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Cluster(id) => format!("cluster {id}"),
            Self::Node(id) => format!("node {id}"),
            Self::Network(id) => format!("network {id}"),
            Self::Service(id) => format!("service {id}"),
            Self::Task(id) => format!("task {id}"),
        }
    }
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    Cluster(Arc<Cluster>),
    Node(Arc<Node>),
    Network(Arc<Network>),
    Service(Arc<Service>),
    Task(Arc<Task>),
}

impl Object {
    pub fn key(&self) -> Key {
        match self {
            Self::Cluster(cluster) => Key::Cluster(cluster.id.clone()),
            Self::Node(node) => Key::Node(node.id.clone()),
            Self::Network(network) => Key::Network(network.id.clone()),
            Self::Service(service) => Key::Service(service.id.clone()),
            Self::Task(task) => Key::Task(task.id.clone()),
        }
    }

    pub fn meta(&self) -> &Meta {
        match self {
            Self::Cluster(cluster) => &cluster.meta,
            Self::Node(node) => &node.meta,
            Self::Network(network) => &network.meta,
            Self::Service(service) => &service.meta,
            Self::Task(task) => &task.meta,
        }
    }

    /// The same object with another meta.
    #[must_use]
    pub(crate) fn with_meta(mut self, meta: Meta) -> Self {
        match &mut self {
            Self::Cluster(cluster) => Arc::make_mut(cluster).meta = meta,
            Self::Node(node) => Arc::make_mut(node).meta = meta,
            Self::Network(network) => Arc::make_mut(network).meta = meta,
            Self::Service(service) => Arc::make_mut(service).meta = meta,
            Self::Task(task) => Arc::make_mut(task).meta = meta,
        }
        self
    }
}

/// One object written or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    Put(Object),
    Remove(Key),
}

impl Change {
    pub fn key(&self) -> Key {
        match self {
            Self::Put(object) => object.key(),
            Self::Remove(key) => key.clone(),
        }
    }
}

/// All that one transaction changes, in the order of kinds (a service comes before its tasks).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    pub changes: Vec<Change>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
