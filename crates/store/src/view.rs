//! Everything that is stored, at one version.

use crate::{Change, Changes, Key, Object};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use types::{
    Cluster, Meta, Network, NetworkId, Node, NodeId, Service, ServiceId, Task, TaskId, Timestamp,
    Version,
};

/// Everything that is stored, at one version. A clone shares all objects and costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct View {
    version: Version,
    time: Timestamp,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(crate) services: OrdMap<ServiceId, Arc<Service>>,
    pub(crate) tasks: OrdMap<TaskId, Arc<Task>>,
    // Indexes. Names are in lower case: swarmkit compares names without case.
    service_names: OrdMap<String, ServiceId>,
    network_names: OrdMap<String, NetworkId>,
    tasks_by_service: OrdMap<ServiceId, OrdMap<TaskId, Arc<Task>>>,
    tasks_by_node: OrdMap<NodeId, OrdMap<TaskId, Arc<Task>>>,
}

impl View {
    /// The index of the last log entry that this view holds.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The time of the newest log entry that this view holds.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// `None` before the first entry of the log.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// All networks, also those that were removed and are still carried.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(id)
    }

    /// The network of this id, also where it was removed and is still carried.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(id)
    }

    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)
    }

    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// The service of this name, compared without case.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(self.service_names.get(&name.to_lowercase())?)
    }

    /// The network of this name, compared without case. One that was removed has none.
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks.get(self.network_names.get(&name.to_lowercase())?)
    }

    /// The network of the routing mesh.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.networks.values().find(|network| network.spec.ingress)
    }

    /// The tasks that were made for a service, ended ones included.
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_service.get(id).into_iter().flat_map(OrdMap::values)
    }

    /// The tasks that were placed on a node, ended ones included.
    pub fn tasks_of_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_node.get(id).into_iter().flat_map(OrdMap::values)
    }

    /// The object of this key.
    pub fn object(&self, key: &Key) -> Option<Object> {
        match key {
            Key::Cluster(id) => {
                let cluster = self.cluster.as_ref().filter(|cluster| cluster.id == *id);
                cluster.cloned().map(Object::Cluster)
            }
            Key::Node(id) => self.nodes.get(id).cloned().map(Object::Node),
            Key::Network(id) => self.networks.get(id).cloned().map(Object::Network),
            Key::Service(id) => self.services.get(id).cloned().map(Object::Service),
            Key::Task(id) => self.tasks.get(id).cloned().map(Object::Task),
        }
    }

    /// Makes `changes`, which the log entry `index` of time `now` holds, part of this view.
    pub fn apply(&mut self, changes: &Changes, index: Version, now: Timestamp) {
        for change in &changes.changes {
            match change {
                Change::Put(object) => {
                    let before = self.object(&object.key());
                    let created_at = before.map_or(now, |before| before.meta().created_at);
                    let meta = Meta { version: index, created_at, updated_at: now };
                    self.insert(object.clone().with_meta(meta));
                }
                Change::Remove(key) => self.remove(key),
            }
        }
        self.version = index;
        self.time = self.time.max(now);
    }

    /// Stores an object as it is and keeps the indexes.
    pub(crate) fn insert(&mut self, object: Object) {
        match object {
            Object::Cluster(cluster) => self.cluster = Some(cluster),
            Object::Node(node) => {
                self.nodes.insert(node.id.clone(), node);
            }
            Object::Network(network) => {
                let (id, name) = (network.id.clone(), network.spec.name.to_lowercase());
                let removed = network.removed;
                if let Some(before) = self.networks.insert(id.clone(), network) {
                    forget_name(&mut self.network_names, &before.spec.name, &id);
                }
                if !removed {
                    self.network_names.insert(name, id);
                }
            }
            Object::Service(service) => {
                let (id, name) = (service.id.clone(), service.spec.name.to_lowercase());
                if let Some(before) = self.services.insert(id.clone(), service) {
                    forget_name(&mut self.service_names, &before.spec.name, &id);
                }
                self.service_names.insert(name, id);
            }
            Object::Task(mut task) => {
                self.share_spec(&mut task);
                if let Some(before) = self.tasks.insert(task.id.clone(), Arc::clone(&task)) {
                    self.forget_task(&before);
                }
                let of_service = self.tasks_by_service.entry(task.service.clone()).or_default();
                of_service.insert(task.id.clone(), Arc::clone(&task));
                if let Some(node) = &task.node {
                    let of_node = self.tasks_by_node.entry(node.clone()).or_default();
                    of_node.insert(task.id.clone(), task);
                }
            }
        }
    }

    /// Removes an object, if it is there, and keeps the indexes.
    pub(crate) fn remove(&mut self, key: &Key) {
        match key {
            Key::Cluster(id) => self.cluster = self.cluster.take().filter(|it| it.id != *id),
            Key::Node(id) => {
                self.nodes.remove(id);
            }
            Key::Network(id) => {
                if let Some(before) = self.networks.remove(id) {
                    forget_name(&mut self.network_names, &before.spec.name, id);
                }
            }
            Key::Service(id) => {
                if let Some(before) = self.services.remove(id) {
                    forget_name(&mut self.service_names, &before.spec.name, id);
                }
            }
            Key::Task(id) => {
                if let Some(before) = self.tasks.remove(id) {
                    self.forget_task(&before);
                }
            }
        }
    }

    /// Gives a task the very spec that it had, that its service has or that another task of its
    /// service has, where it is an equal one: what was read from a log has one for each task.
    fn share_spec(&self, task: &mut Arc<Task>) {
        let before = self.tasks.get(&task.id).map(|before| &before.spec);
        let service = self.services.get(&task.service).map(|service| &service.spec.task);
        let others = self.tasks_by_service.get(&task.service);
        let other = others.and_then(OrdMap::get_max).map(|(_, other)| &other.spec);
        let mut known = [before, service, other].into_iter().flatten();
        if known.clone().any(|spec| spec.is_shared_with(&task.spec)) {
            return;
        }
        if let Some(spec) = known.find(|spec| **spec == task.spec) {
            Arc::make_mut(task).spec = spec.clone();
        }
    }

    fn forget_task(&mut self, task: &Task) {
        forget_entry(&mut self.tasks_by_service, &task.service, &task.id);
        if let Some(node) = &task.node {
            forget_entry(&mut self.tasks_by_node, node, &task.id);
        }
    }
}

/// Takes a name out of an index, unless another object has it by now.
fn forget_name<I: Clone + PartialEq>(names: &mut OrdMap<String, I>, name: &str, id: &I) {
    let name = name.to_lowercase();
    if names.get(&name) == Some(id) {
        names.remove(&name);
    }
}

/// Takes a task out of an index, which keeps no empty rows.
fn forget_entry<I: Clone + Ord>(
    index: &mut OrdMap<I, OrdMap<TaskId, Arc<Task>>>,
    row: &I,
    task: &TaskId,
) {
    if let Some(tasks) = index.get_mut(row) {
        tasks.remove(task);
        if tasks.is_empty() {
            index.remove(row);
        }
    }
}

/// A view as it is written to disk or sent to another manager: all objects and the version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub version: Version,
    pub time: Timestamp,
    pub cluster: Option<Arc<Cluster>>,
    pub nodes: Vec<Arc<Node>>,
    pub networks: Vec<Arc<Network>>,
    pub services: Vec<Arc<Service>>,
    pub tasks: Vec<Arc<Task>>,
}

impl From<&View> for Snapshot {
    fn from(view: &View) -> Self {
        Self {
            version: view.version,
            time: view.time,
            cluster: view.cluster.clone(),
            nodes: view.nodes.values().cloned().collect(),
            networks: view.networks.values().cloned().collect(),
            services: view.services.values().cloned().collect(),
            tasks: view.tasks.values().cloned().collect(),
        }
    }
}

impl From<Snapshot> for View {
    fn from(snapshot: Snapshot) -> Self {
        let mut view = Self { version: snapshot.version, time: snapshot.time, ..Self::default() };
        view.cluster = snapshot.cluster;
        for node in snapshot.nodes {
            view.insert(Object::Node(node));
        }
        for network in snapshot.networks {
            view.insert(Object::Network(network));
        }
        for service in snapshot.services {
            view.insert(Object::Service(service));
        }
        for task in snapshot.tasks {
            view.insert(Object::Task(task));
        }
        view
    }
}
