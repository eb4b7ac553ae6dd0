//! What every node should have: its tasks, and all it must know to carry its networks.
//!
//! Pure. A [`Picture`] is made once for each view; every session takes its [`Share`] of it. What is
//! as it was in the picture before is the same object, so that nobody compares or copies it.
//!
//! Invariants: what a node knows of endpoints and what it is told of tasks come from the same view;
//! nothing of a node that is down serves. Its place in the mesh and the routes to what is on it
//! stay, because its kernel may well carry on while its daemon is away: only a node that left or
//! was removed is forgotten.

mod hosts;
mod step;

pub(crate) use hosts::Hosts;
pub(crate) use step::Step;

use discovery::{
    Endpoint, Knowledge, KnowledgeDifference, Mesh, MeshNode, MeshPort, MeshTask, NetworkView,
    ServiceView,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::View;
use types::{
    EndpointMode, NetworkId, Node, NodeId, NodeState, PublishMode, STACK_LABEL, Service, Task,
    TaskId, TaskState,
};
use wire::{Assignments, Difference};

/// How much of a container's id is a name of it, as Docker has it.
const SHORT_ID: usize = 12;

/// All networks with all that is on them, and the routing mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    mesh: Arc<Mesh>,
}

/// What one node should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share {
    pub version: u64,
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    pub withdrawn: BTreeSet<TaskId>,
    pub networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    pub mesh: Arc<Mesh>,
}

impl Share {
    /// All of it, to be sent.
    pub fn assignments(&self) -> Assignments {
        let tasks = self.tasks.iter().map(|(id, task)| (id.clone(), Task::clone(task)));
        let networks = self.networks.iter();
        let networks = networks.map(|(id, network)| (id.clone(), NetworkView::clone(network)));
        let mut knowledge = Knowledge::default();
        knowledge.networks.extend(networks);
        knowledge.mesh.clone_from(&self.mesh);
        Assignments {
            version: self.version,
            tasks: tasks.collect(),
            withdrawn: self.withdrawn.clone(),
            knowledge,
        }
    }
}

impl Picture {
    /// Takes the picture of a view.
    pub fn of(view: &View) -> Self {
        let mut picture = Self::default();
        for network in view.networks() {
            if network.spec.ingress {
                let prefix = network.subnet.map_or(0, |subnet| subnet.net.prefix_len());
                // What nodes of old take for granted is not said.
                if ![0, 16].contains(&prefix) {
                    picture.mesh_mut().prefix = prefix;
                }
                if network.spec.mtu() != 0 {
                    picture.mesh_mut().mtu = network.spec.mtu();
                }
                continue;
            }
            let seen = NetworkView {
                name: network.spec.name.clone(),
                vni: network.vni,
                subnet: network.subnet,
                internal: network.spec.internal,
                mtu: network.spec.mtu(),
                ..NetworkView::default()
            };
            picture.networks.insert(network.id.clone(), Arc::new(seen));
        }
        for node in view.nodes().filter(|node| has_place(node)) {
            picture.add_node(node);
        }
        for task in view.tasks() {
            if let Some(node) = host(view, task) {
                picture.add_task(task, node);
            }
        }
        for service in view.services() {
            picture.add_service(service, view);
        }
        picture
    }

    /// Takes the picture of a view that follows on the one that `before` is of.
    pub fn after(before: &Self, view: &View) -> Self {
        let mut picture = Self::of(view);
        for (id, network) in &mut picture.networks {
            if let Some(before) = before.networks.get(id).filter(|before| *before == network) {
                network.clone_from(before);
            }
        }
        if picture.mesh == before.mesh {
            picture.mesh.clone_from(&before.mesh);
        }
        picture
    }

    fn add_node(&mut self, node: &Node) {
        let Some(ingress) = node.ingress_address else { return };
        let seen = MeshNode { address: node.status.vtep(), ingress };
        self.mesh_mut().nodes.insert(node.id.clone(), seen);
    }

    fn add_task(&mut self, task: &Task, node: &Node) {
        let serving = task.serves() && node.status.state != NodeState::Down;
        for attachment in &task.attachments {
            // The network may have been removed under a task that still stops.
            let Some(network) = self.networks.get_mut(&attachment.network) else { continue };
            let endpoint = Endpoint {
                address: attachment.address,
                node: node.id.clone(),
                vtep: node.status.vtep(),
                service: task.service.clone(),
                name: task.name(),
                aliases: short_id(task).into_iter().collect(),
                serving,
            };
            Arc::make_mut(network).endpoints.insert(task.id.clone(), endpoint);
        }
        if let Some(ingress) = task.ingress_address {
            let seen = MeshTask { node: node.id.clone(), ingress, serving };
            self.mesh_mut().tasks.insert(task.id.clone(), seen);
        }
    }

    fn add_service(&mut self, service: &Service, view: &View) {
        for attachment in &service.spec.task.networks {
            let Some(network) = self.networks.get_mut(&attachment.target) else { continue };
            let vip = match service.spec.endpoint.mode {
                EndpointMode::Vip => service
                    .vips
                    .iter()
                    .find(|vip| vip.network == attachment.target)
                    .map(|vip| vip.address),
                EndpointMode::Dnsrr => None,
            };
            let stack = service.spec.labels.get(STACK_LABEL).cloned();
            let seen = ServiceView {
                name: service.spec.name.clone(),
                stack: stack.unwrap_or_default(),
                aliases: attachment.aliases.iter().cloned().collect(),
                vip,
            };
            Arc::make_mut(network).services.insert(service.id.clone(), seen);
        }
        for port in &service.ports {
            match port.mode {
                PublishMode::Ingress if port.published != 0 => {}
                PublishMode::Ingress | PublishMode::Host => continue,
            }
            let tasks = view.tasks_of_service(&service.id).map(|task| &task.id);
            let seen = MeshPort {
                service: service.id.clone(),
                target: port.target,
                tasks: tasks.filter(|id| self.mesh.tasks.contains_key(*id)).cloned().collect(),
            };
            self.mesh_mut().ports.insert((port.protocol, port.published), seen);
        }
    }

    /// While it is made, nobody shares it.
    fn mesh_mut(&mut self) -> &mut Mesh {
        Arc::make_mut(&mut self.mesh)
    }

    /// What `node` should have.
    pub fn share(
        &self,
        view: &View,
        node: &NodeId,
        is_withdrawn: impl Fn(&TaskId) -> bool,
    ) -> Share {
        let mut share = Share { mesh: Arc::clone(&self.mesh), ..Share::default() };
        for task in view.tasks_of_node(node) {
            if task.status.state < TaskState::Assigned {
                continue;
            }
            if task.occupies() {
                for attachment in &task.attachments {
                    if let Some(network) = self.networks.get(&attachment.network) {
                        share.networks.insert(attachment.network.clone(), Arc::clone(network));
                    }
                }
            }
            if is_withdrawn(&task.id) {
                share.withdrawn.insert(task.id.clone());
            }
            share.tasks.insert(task.id.clone(), Arc::clone(task));
        }
        share
    }
}

/// The node that a task is on, if others may know of the task.
fn host<'a>(view: &'a View, task: &Task) -> Option<&'a Node> {
    let there = TaskState::Assigned <= task.status.state && task.occupies();
    let node = view.node(task.node.as_ref()?)?;
    (there && has_place(node)).then_some(node)
}

/// Says whether a node has a place in the mesh: it opened a session once and has not left since.
fn has_place(node: &Node) -> bool {
    !node.status.address.is_unspecified() && !node.has_left()
}

fn short_id(task: &Task) -> Option<String> {
    let container = task.status.container.as_ref()?;
    Some(container.id.get(..SHORT_ID)?.to_owned())
}

/// What leads from `old` to `new`; `None` where a node would do nothing differently. The result
/// has the versions of both.
pub fn difference(old: &Share, new: &Share) -> Option<Difference> {
    let mut difference =
        Difference { from: old.version, version: new.version, ..Difference::default() };
    for (id, task) in &new.tasks {
        let same = |before: &Arc<Task>| Arc::ptr_eq(before, task) || asks_the_same(before, task);
        if !old.tasks.get(id).is_some_and(same) {
            difference.tasks.insert(id.clone(), Task::clone(task));
        }
    }
    difference.removed_tasks = missing(&old.tasks, &new.tasks);
    if old.withdrawn != new.withdrawn {
        difference.withdrawn = Some(new.withdrawn.clone());
    }
    difference.knowledge =
        KnowledgeDifference::between_parts((&old.networks, &old.mesh), (&new.networks, &new.mesh));
    let nothing = Difference { from: old.version, version: new.version, ..Difference::default() };
    (difference != nothing).then_some(difference)
}

fn missing<K: Ord + Clone, T>(old: &BTreeMap<K, T>, new: &BTreeMap<K, T>) -> BTreeSet<K> {
    old.keys().filter(|id| !new.contains_key(*id)).cloned().collect()
}

/// Says whether a node has the same to do. What it reported itself comes back in the status and
/// is no news to it, unless managers have given up on the task.
fn asks_the_same(old: &Task, new: &Task) -> bool {
    let given_up = |task: &Task| task.status.state == TaskState::Orphaned;
    old.desired == new.desired
        && old.not_before == new.not_before
        && given_up(old) == given_up(new)
        && old.spec == new.spec
        && old.attachments == new.attachments
        && old.ingress_address == new.ingress_address
        && old.ports == new.ports
        && old.service_labels == new.service_labels
}

#[cfg(test)]
mod tests;
