//! All networks with all that is on them, and the routing mesh, as managers see them.

use super::hosts::Hosts;
use super::step::Step;
use discovery::{
    Endpoint, Mesh, MeshNode, MeshPort, MeshTask, NetworkDifference, NetworkSettings, NetworkView,
    ServiceView,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use store::View;
use types::{
    EndpointMode, Network, NetworkId, Node, Protocol, PublishedPort, STACK_LABEL, Service,
    ServiceId, Task, TaskId, template,
};

/// How much of a container's id is a name of it, as Docker has it.
const SHORT_ID: usize = 12;

/// What there is in a view. What did not change since the view before is the same object, down to
/// the parts of its maps, so that a difference costs what differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    pub(super) networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    pub(super) mesh: Arc<Mesh>,
    hosts: Hosts,
}

/// What of a topology is not as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) networks: BTreeSet<NetworkId>,
    pub(crate) mesh: bool,
}

impl Topology {
    /// That of a view.
    pub fn of(view: &View) -> Self {
        let mut topology = Self::default();
        topology.follow(&Step::between(&View::default(), view));
        topology
    }

    /// Becomes that of the next view; says what it touched.
    pub(crate) fn follow(&mut self, step: &Step<'_>) -> Touched {
        for id in &step.tasks {
            let (old, new) = (step.before.task(id), step.view.task(id));
            self.hosts.change(old.map(AsRef::as_ref), new.map(AsRef::as_ref));
        }
        let mut edit = Edit {
            topology: self,
            step,
            tasks: step.tasks.clone(),
            services: step.services.clone(),
            touched: Touched::default(),
        };
        edit.networks();
        edit.nodes();
        edit.tasks();
        edit.services();
        edit.touched
    }

    /// Who has tasks on which network.
    pub(crate) fn hosts(&self) -> &Hosts {
        &self.hosts
    }
}

/// A step that is being followed.
struct Edit<'a> {
    topology: &'a mut Topology,
    step: &'a Step<'a>,
    /// What looks different now though it may not have changed itself, too.
    tasks: BTreeSet<TaskId>,
    services: BTreeSet<ServiceId>,
    touched: Touched,
}

impl Edit<'_> {
    /// A network, to be changed.
    fn network(&mut self, id: &NetworkId) -> Option<&mut NetworkView> {
        let network = self.topology.networks.get_mut(id)?;
        self.touched.networks.insert(id.clone());
        Some(Arc::make_mut(network))
    }

    /// The mesh, to be changed.
    fn mesh(&mut self) -> &mut Mesh {
        self.touched.mesh = true;
        Arc::make_mut(&mut self.topology.mesh)
    }

    fn networks(&mut self) {
        let (before, view) = (self.step.before, self.step.view);
        let step = self.step;
        for id in &step.networks {
            match view.network(id).filter(|network| !network.spec.ingress) {
                Some(network) => self.put_network(id, settings(network)),
                None if self.topology.networks.remove(id).is_some() => {
                    self.touched.networks.insert(id.clone());
                }
                None => {}
            }
        }
        let is_ingress = |view: &View, id| view.network(id).is_some_and(|it| it.spec.ingress);
        let mut changed = step.networks.iter();
        if changed.any(|id| is_ingress(before, id) || is_ingress(view, id)) {
            self.ingress();
        }
    }

    fn put_network(&mut self, id: &NetworkId, settings: NetworkSettings) {
        match self.topology.networks.get(id) {
            Some(known) if NetworkSettings::of(known) == settings => return,
            Some(_) => {}
            None => {
                self.topology.networks.insert(id.clone(), Arc::default());
                self.follow_what_is_on(id);
            }
        }
        if let Some(network) = self.network(id) {
            let settings = Some(settings);
            NetworkDifference { settings, ..NetworkDifference::default() }.apply(network);
        }
    }

    /// A network may be seen later than what is on it.
    fn follow_what_is_on(&mut self, network: &NetworkId) {
        let view = self.step.view;
        for node in self.topology.hosts.of(network) {
            let on_it =
                |task: &&Arc<Task>| task.attachments.iter().any(|it| it.network == *network);
            let tasks = view.tasks_of_node(node).filter(on_it);
            self.tasks.extend(tasks.map(|task| task.id.clone()));
        }
        let on_it = |service: &&Arc<Service>| {
            service.spec.task.networks.iter().any(|it| it.target == *network)
        };
        let services = view.services().filter(on_it);
        self.services.extend(services.map(|service| service.id.clone()));
    }

    fn ingress(&mut self) {
        let ingress = self.step.view.ingress_network();
        let subnets = ingress.into_iter().flat_map(|network| &network.subnets);
        let (mut prefix, mut prefix_v6) = (0, 0);
        for subnet in subnets {
            match subnet.net {
                // What nodes of old take for granted is not said.
                IpNet::V4(net) if net.prefix_len() == 16 => {}
                IpNet::V4(net) => prefix = net.prefix_len(),
                IpNet::V6(net) => prefix_v6 = net.prefix_len(),
            }
        }
        let mtu = ingress.map_or(0, |it| it.spec.mtu());
        let mesh = &self.topology.mesh;
        if (mesh.prefix, mesh.prefix_v6, mesh.mtu) != (prefix, prefix_v6, mtu) {
            let mesh = self.mesh();
            (mesh.prefix, mesh.prefix_v6, mesh.mtu) = (prefix, prefix_v6, mtu);
        }
    }

    fn nodes(&mut self) {
        let (before, view) = (self.step.before, self.step.view);
        let step = self.step;
        for id in &step.nodes {
            let (old, new) = (before.node(id), view.node(id));
            let placed = |node: &&Arc<Node>| has_place(node) && !node.ingress_addresses.is_empty();
            let seen = new.filter(placed).map(|node| MeshNode {
                address: node.status.vtep(),
                ingress: node.ingress_addresses,
            });
            if self.topology.mesh.nodes.get(id) != seen.as_ref() {
                let nodes = &mut self.mesh().nodes;
                match seen {
                    Some(seen) => nodes.insert(id.clone(), seen),
                    None => nodes.remove(id),
                };
            }
            if old.map(|node| matters(node)) != new.map(|node| matters(node)) {
                let tasks = view.tasks_of_node(id);
                self.tasks.extend(tasks.map(|task| task.id.clone()));
            }
        }
    }

    fn tasks(&mut self) {
        let step = self.step;
        for id in std::mem::take(&mut self.tasks) {
            let old = step.before.task(&id);
            let new =
                step.view.task(&id).and_then(|task| Some((task.as_ref(), host(step.view, task)?)));
            let endpoints = new.map(|(task, node)| endpoints(task, node)).unwrap_or_default();
            for network in old.into_iter().flat_map(|task| &task.attachments).map(|it| &it.network)
            {
                if !endpoints.contains_key(network) {
                    self.remove_endpoint(network, &id);
                }
            }
            for (network, endpoint) in endpoints {
                self.put_endpoint(network, &id, endpoint);
            }
            self.mesh_task(&id, new.and_then(|(task, node)| mesh_task(task, node)));
            let services = [old.map(AsRef::as_ref), new.map(|(task, _)| task)];
            for service in services.into_iter().flatten().map(|task| &task.service) {
                self.port_task(service, &id);
            }
        }
    }

    fn put_endpoint(&mut self, network: &NetworkId, task: &TaskId, endpoint: Endpoint) {
        // The network may have been removed under a task that still stops.
        let Some(known) = self.topology.networks.get(network) else { return };
        if known.endpoints.get(task) != Some(&endpoint)
            && let Some(network) = self.network(network)
        {
            network.endpoints.insert(task.clone(), endpoint);
        }
    }

    fn remove_endpoint(&mut self, network: &NetworkId, task: &TaskId) {
        let known = self.topology.networks.get(network);
        if known.is_some_and(|known| known.endpoints.contains_key(task))
            && let Some(network) = self.network(network)
        {
            network.endpoints.remove(task);
        }
    }

    fn mesh_task(&mut self, id: &TaskId, seen: Option<MeshTask>) {
        if self.topology.mesh.tasks.get(id) != seen.as_ref() {
            let tasks = &mut self.mesh().tasks;
            match seen {
                Some(seen) => tasks.insert(id.clone(), seen),
                None => tasks.remove(id),
            };
        }
    }

    /// Whether a task serves at a service's published ports, or did.
    fn port_task(&mut self, service: &ServiceId, task: &TaskId) {
        let view = self.step.view;
        let Some(ports) = view.service(service).map(|service| &service.ports) else { return };
        let is_there = self.topology.mesh.tasks.contains_key(task)
            && view.task(task).is_some_and(|task| task.service == *service);
        for port in ports.iter().filter_map(published) {
            let known = self.topology.mesh.ports.get(&port);
            let known = known.filter(|known| known.service == *service);
            if known.is_some_and(|known| known.tasks.contains(task) != is_there)
                && let Some(port) = self.mesh().ports.get_mut(&port)
            {
                if is_there {
                    port.tasks.insert(task.clone());
                } else {
                    port.tasks.remove(task);
                }
            }
        }
    }

    /// First what has gone, as another service may have taken a port.
    fn services(&mut self) {
        let (before, view) = (self.step.before, self.step.view);
        let step = self.step;
        for id in &step.services {
            if let Some(old) = before.service(id) {
                self.remove_service(old, view.service(id).map(AsRef::as_ref));
            }
        }
        for id in std::mem::take(&mut self.services) {
            if let Some(service) = view.service(&id) {
                self.put_service(service);
            }
        }
    }

    /// Removes what is of the service no more.
    fn remove_service(&mut self, old: &Service, new: Option<&Service>) {
        let kept = |network: &NetworkId| {
            new.is_some_and(|new| new.spec.task.networks.iter().any(|it| it.target == *network))
        };
        for network in old.spec.task.networks.iter().map(|it| &it.target) {
            let known = self.topology.networks.get(network);
            if !kept(network)
                && known.is_some_and(|known| known.services.contains_key(&old.id))
                && let Some(network) = self.network(network)
            {
                network.services.remove(&old.id);
            }
        }
        let kept = |port: &(Protocol, u16)| {
            new.is_some_and(|new| new.ports.iter().filter_map(published).any(|it| it == *port))
        };
        for port in old.ports.iter().filter_map(published) {
            let known = self.topology.mesh.ports.get(&port);
            if !kept(&port) && known.is_some_and(|known| known.service == old.id) {
                self.mesh().ports.remove(&port);
            }
        }
    }

    fn put_service(&mut self, service: &Service) {
        for attachment in &service.spec.task.networks {
            let Some(known) = self.topology.networks.get(&attachment.target) else { continue };
            let seen = service_view(service, &attachment.target, &attachment.aliases);
            if known.services.get(&service.id) != Some(&seen)
                && let Some(network) = self.network(&attachment.target)
            {
                network.services.insert(service.id.clone(), seen);
            }
        }
        for port in &service.ports {
            let Some(key) = published(port) else { continue };
            let known = self.topology.mesh.ports.get(&key);
            let known = known.filter(|known| known.service == service.id);
            if known.is_some_and(|known| known.target == port.target) {
                continue;
            }
            // Of one that is known, the tasks have been followed.
            let tasks = known.map(|known| known.tasks.clone());
            let tasks = tasks.unwrap_or_else(|| {
                let tasks = self.step.view.tasks_of_service(&service.id).map(|task| &task.id);
                let in_the_mesh = |id: &&TaskId| self.topology.mesh.tasks.contains_key(*id);
                tasks.filter(in_the_mesh).cloned().collect()
            });
            let seen = MeshPort { service: service.id.clone(), target: port.target, tasks };
            self.mesh().ports.insert(key, seen);
        }
    }
}

pub(super) fn settings(network: &Network) -> NetworkSettings {
    NetworkSettings {
        name: network.spec.name.clone(),
        vni: network.vni,
        subnets: network.subnets.clone(),
        internal: network.spec.internal,
        mtu: network.spec.mtu(),
    }
}

/// What of a node shows in its tasks.
fn matters(node: &Node) -> (bool, IpAddr, bool, &str) {
    (has_place(node), node.status.vtep(), node.is_down(), &node.description.hostname)
}

/// A task's presence on its networks.
pub(super) fn endpoints<'a>(task: &'a Task, node: &Node) -> BTreeMap<&'a NetworkId, Endpoint> {
    let own_name = || template::hostname(task, &node.id, &node.description);
    let endpoint = |addresses| Endpoint {
        addresses,
        node: node.id.clone(),
        vtep: node.status.vtep(),
        service: task.service.clone(),
        name: task.name(),
        aliases: short_id(task).into_iter().chain(own_name()).collect(),
        serving: serves(task, node),
    };
    task.attachments.iter().map(|it| (&it.network, endpoint(it.addresses))).collect()
}

pub(super) fn mesh_task(task: &Task, node: &Node) -> Option<MeshTask> {
    let ingress = task.ingress_addresses;
    let seen = || MeshTask { node: node.id.clone(), ingress, serving: serves(task, node) };
    (!ingress.is_empty()).then(seen)
}

fn serves(task: &Task, node: &Node) -> bool {
    task.serves() && !node.is_down()
}

pub(super) fn service_view(
    service: &Service,
    network: &NetworkId,
    aliases: &[String],
) -> ServiceView {
    let mut vips = service.vips.iter();
    let vip = match service.spec.endpoint.mode {
        EndpointMode::Vip => vips.find(|vip| vip.network == *network).map(|vip| vip.addresses),
        EndpointMode::Dnsrr => None,
    };
    let stack = service.spec.labels.get(STACK_LABEL).cloned();
    ServiceView {
        name: service.spec.name.clone(),
        stack: stack.unwrap_or_default(),
        aliases: aliases.iter().cloned().collect(),
        vips: vip.unwrap_or_default(),
    }
}

/// Where a port is published in the mesh, if it is.
pub(super) fn published(port: &PublishedPort) -> Option<(Protocol, u16)> {
    Some((port.protocol, port.published)).filter(|(_, it)| port.in_mesh() && *it != 0)
}

/// The node that a task is on, if others may know of the task.
pub(super) fn host<'a>(view: &'a View, task: &Task) -> Option<&'a Node> {
    let node = view.node(task.node.as_ref()?)?;
    (task.is_placed() && has_place(node)).then_some(node)
}

/// Says whether a node has a place in the mesh: it opened a session once and has not left since.
pub(super) fn has_place(node: &Node) -> bool {
    !node.status.address.is_unspecified() && !node.has_left()
}

fn short_id(task: &Task) -> Option<String> {
    let container = task.status.container.as_ref()?;
    Some(container.id.get(..SHORT_ID)?.to_owned())
}
