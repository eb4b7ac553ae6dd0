//! What follows for this node from what is known.

use crate::model::{
    Desired, Here, Interface, Knowledge, Mesh, MeshPort, MeshRules, NetworkView, Overlay, Place,
    PortRules, Sandbox, SandboxAttachment, SandboxRules, Vips,
};
use crate::names::{Names, Served};
use crate::zone::{Upstream, Zone};
use imbl::OrdSet;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use types::{Addresses, NetworkId, Subnet, TaskId};

/// The kernel state of this node and the names that its sandboxes see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    pub desired: Desired,
    /// By container id, for every sandbox.
    pub zones: BTreeMap<String, Zone>,
}

/// Computes what this node should hold and what its sandboxes are told.
pub fn project(known: &Knowledge, here: &Here) -> Projection {
    Projection { desired: desired(known, here), zones: zones(known, here) }
}

/// Computes what this node should hold. An endpoint that drains keeps its route and loses its
/// traffic, because routes look at all endpoints, balancers and names only at those that serve.
pub fn desired(known: &Knowledge, here: &Here) -> Desired {
    let views = views(known, here);
    let mut tables = Tables { views: &views, hidden: &here.hidden, shared: BTreeMap::new() };
    let sandboxes = here.sandboxes.iter();
    let overlays = views.iter();
    Desired {
        sandboxes: sandboxes
            .map(|(id, sandbox)| {
                (id.clone(), rules(id, sandbox, &networks(sandbox, &views), &mut tables))
            })
            .collect(),
        overlays: overlays.map(|(id, view)| ((*id).clone(), overlay(id, view, here))).collect(),
        mesh: mesh(&known.mesh, here),
    }
}

/// The VIPs of all sandboxes, worked out once for those on the same networks.
struct Tables<'a> {
    views: &'a Views<'a>,
    hidden: &'a OrdSet<TaskId>,
    /// By the networks, in the order of attachments.
    shared: BTreeMap<Vec<&'a NetworkId>, Vips>,
}

impl<'a> Tables<'a> {
    fn of(&mut self, networks: &[Attached<'a>]) -> Vips {
        let ids: Vec<&NetworkId> = networks.iter().map(|(to, _)| &to.network).collect();
        let (views, hidden) = (self.views, self.hidden);
        let table = self.shared.entry(ids).or_insert_with_key(|ids| {
            let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
            for view in ids.iter().filter_map(|id| views.get(id)) {
                let served = Served::new(view, hidden);
                v4.extend(served.vips_v4());
                v6.extend(served.vips_v6());
            }
            Vips { v4: v4.into(), v6: v6.into() }
        });
        table.clone()
    }
}

/// Computes the names that the sandboxes here see.
pub fn zones(known: &Knowledge, here: &Here) -> BTreeMap<String, Zone> {
    let views = views(known, here);
    let names: BTreeMap<&NetworkId, Arc<Names>> = views
        .iter()
        .map(|(id, view)| (*id, Arc::new(Names::new(&Served::new(view, &here.hidden)))))
        .collect();
    let subnets: Arc<[IpNet]> =
        known.networks.values().flat_map(|view| &view.subnets).map(|subnet| subnet.net).collect();
    let zone = |sandbox: &Sandbox| {
        let networks = networks(sandbox, &views);
        Zone {
            networks: networks
                .iter()
                .filter_map(|(attachment, _)| names.get(&attachment.network).map(Arc::clone))
                .collect(),
            stack: stack(sandbox, &networks).to_owned(),
            subnets: Arc::clone(&subnets),
            upstream: upstream(sandbox, &networks),
        }
    };
    here.sandboxes.iter().map(|(id, sandbox)| (id.clone(), zone(sandbox))).collect()
}

/// Where a sandbox is, as people look at it: its networks that are known here.
pub fn places(known: &Knowledge, sandbox: &Sandbox) -> Vec<Place> {
    let place = |to: &SandboxAttachment| {
        let view = known.networks.get(&to.network)?;
        let endpoint = sandbox.task.as_ref().and_then(|task| view.endpoints.get(task));
        let names =
            endpoint.into_iter().flat_map(|it| std::iter::once(&it.name).chain(&it.aliases));
        Some(Place {
            network: to.network.clone(),
            name: view.name.clone(),
            subnets: view.subnets.clone(),
            internal: view.internal,
            addresses: to.addresses,
            names: names.cloned().collect(),
        })
    };
    sandbox.attachments.iter().filter_map(place).collect()
}

type Views<'a> = BTreeMap<&'a NetworkId, &'a NetworkView>;

/// The networks that sandboxes here are on and that can be carried: one without its allocation, or
/// not known here, cannot be yet.
fn views<'a>(known: &'a Knowledge, here: &'a Here) -> Views<'a> {
    let attachments = here.sandboxes.values().flat_map(|sandbox| &sandbox.attachments);
    let wanted: BTreeSet<&NetworkId> = attachments.map(|attachment| &attachment.network).collect();
    wanted
        .into_iter()
        .filter_map(|id| Some((id, known.networks.get(id)?)))
        .filter(|(_, view)| view.vni != 0 && !view.subnets.is_empty())
        .collect()
}

/// An attachment with its network.
type Attached<'a> = (&'a SandboxAttachment, &'a NetworkView);

fn networks<'a>(sandbox: &'a Sandbox, views: &Views<'a>) -> Vec<Attached<'a>> {
    let attachments = sandbox.attachments.iter();
    attachments.filter_map(|to| Some((to, *views.get(&to.network)?))).collect()
}

/// Says whether a sandbox may begin connections to the outside: not on internal networks alone.
fn has_way_out(networks: &[Attached<'_>]) -> bool {
    networks.is_empty() || networks.iter().any(|(_, view)| !view.internal)
}

fn overlay(id: &NetworkId, view: &NetworkView, here: &Here) -> Overlay {
    let local: BTreeSet<IpAddr> = here
        .sandboxes
        .values()
        .flat_map(|sandbox| &sandbox.attachments)
        .filter(|attachment| attachment.network == *id)
        .flat_map(|attachment| attachment.addresses.iter())
        .collect();
    // What runs here is not elsewhere, even if managers have not heard of the move yet. A node
    // that joined anew may find its former self among the others.
    let remotes: BTreeMap<Addresses, IpAddr> = view
        .endpoints
        .values()
        .filter(|endpoint| endpoint.node != here.node && endpoint.vtep != here.address)
        .filter(|endpoint| !endpoint.addresses.iter().any(|address| local.contains(&address)))
        .map(|endpoint| (endpoint.addresses, endpoint.vtep))
        .collect();
    Overlay {
        vni: view.vni,
        local: here.address,
        port: here.data_path_port,
        subnets: view.subnets.clone(),
        mtu: view.mtu,
        peers: remotes.values().copied().collect(),
        remotes,
    }
}

/// A network's subnets say how long the prefixes of addresses on it are.
fn interface((attachment, view): &Attached<'_>) -> Interface {
    let net = |subnet: &Subnet| {
        let address = attachment.addresses.of_family(subnet.gateway)?;
        IpNet::new(address, subnet.net.prefix_len()).ok()
    };
    let addresses = view.subnets.iter().filter_map(net).collect();
    Interface { network: attachment.network.clone(), addresses }
}

fn rules<'a>(
    id: &str,
    sandbox: &Sandbox,
    networks: &[Attached<'a>],
    tables: &mut Tables<'a>,
) -> SandboxRules {
    SandboxRules {
        netns: sandbox.netns.clone(),
        gateway_addresses: sandbox.gateway_addresses,
        default_route: has_way_out(networks),
        interfaces: networks.iter().map(interface).collect(),
        dns_port: sandbox.dns_port,
        vips: tables.of(networks),
        turn: seed(id),
    }
}

/// The stack of a task's service; empty for none.
fn stack<'a>(sandbox: &Sandbox, networks: &[Attached<'a>]) -> &'a str {
    let service = |view: &'a NetworkView| {
        let service = &view.endpoints.get(sandbox.task.as_ref()?)?.service;
        Some(view.services.get(service)?.stack.as_str())
    };
    networks.iter().find_map(|(_, view)| service(view)).unwrap_or_default()
}

fn upstream(sandbox: &Sandbox, networks: &[Attached<'_>]) -> Upstream {
    if !sandbox.nameservers.is_empty() {
        return Upstream::Own(sandbox.nameservers.clone());
    }
    if has_way_out(networks) { Upstream::Node } else { Upstream::Nobody }
}

/// The routing mesh: own tasks are reached by their gateway address, others by their address on
/// the ingress network.
fn mesh(mesh: &Mesh, here: &Here) -> MeshRules {
    let host_ports = here.sandboxes.values().flat_map(host_ports).collect();
    let Some(me) = mesh.nodes.get(&here.node) else {
        // Tunnels of networks are guarded by the mesh's rules, whether there is a mesh or not.
        return MeshRules { host_ports, port: here.data_path_port, ..MeshRules::default() };
    };
    let gateways: BTreeMap<&TaskId, Addresses> = here
        .sandboxes
        .values()
        .filter_map(|sandbox| Some((sandbox.task.as_ref()?, sandbox.gateway_addresses)))
        .collect();
    let mut rules = MeshRules {
        ingress: me.ingress,
        local: Some(here.address),
        port: here.data_path_port,
        mtu: mesh.mtu,
        prefix: mesh.prefix,
        prefix_v6: mesh.prefix_v6,
        host_ports,
        ..MeshRules::default()
    };
    let others = mesh.nodes.iter().filter(|(node, _)| **node != here.node);
    rules.peers = others.map(|(_, node)| (node.ingress, node.address)).collect();
    // By task, the addresses that balancers send to.
    let mut targets: BTreeMap<&TaskId, Addresses> = BTreeMap::new();
    for (id, task) in &mesh.tasks {
        let target = if task.node == here.node {
            let Some(gateway) = gateways.get(id) else { continue };
            *gateway
        } else {
            let Some(node) = mesh.nodes.get(&task.node) else { continue };
            rules.remote_tasks.insert(task.ingress, node.ingress);
            task.ingress
        };
        if task.serving && !here.hidden.contains(id) {
            targets.insert(id, target);
        }
    }
    for ((protocol, _), port) in &mesh.ports {
        for id in &port.tasks {
            // Also one that serves no longer: others may not have heard of it.
            let Some(gateway) = gateways.get(id) else { continue };
            let Some(task) = mesh.tasks.get(id) else { continue };
            for address in task.ingress.iter() {
                let Some(gateway) = gateway.of_family(address) else { continue };
                rules.local_tasks.insert((address, *protocol, port.target), gateway);
            }
        }
    }
    let seed = seed(here.node.as_str());
    let ports = mesh.ports.iter().map(|(key, port)| (*key, port_rules(port, &targets, seed)));
    rules.ports = ports.collect();
    rules
}

type HostPort = ((types::Protocol, u16), (Addresses, u16));

fn host_ports(sandbox: &Sandbox) -> impl Iterator<Item = HostPort> {
    let addresses = sandbox.gateway_addresses;
    let ports = sandbox.host_ports.iter();
    ports.map(move |(protocol, published, target)| ((*protocol, *published), (addresses, *target)))
}

fn port_rules(port: &MeshPort, targets: &BTreeMap<&TaskId, Addresses>, seed: u64) -> PortRules {
    let backends = port.tasks.iter().filter_map(|task| targets.get(task));
    let backends: Vec<IpAddr> = backends.flat_map(|addresses| addresses.iter()).collect();
    PortRules { target: port.target, backends: in_turn(&backends, seed).collect() }
}

/// Every balancer begins with its first back end, and again after every change. Each has an order of
/// its own by its `turn`, so that many clients of one connection do not all meet at the same task.
pub fn in_turn<A: Copy>(backends: &[A], turn: u64) -> impl Iterator<Item = A> {
    let start = u64::try_from(backends.len()).ok().and_then(|len| turn.checked_rem(len));
    let start = start.and_then(|start| usize::try_from(start).ok()).unwrap_or(0);
    let (late, early) = backends.split_at_checked(start).unwrap_or_default();
    early.iter().chain(late).copied()
}

/// A number that differs from name to name (FNV-1a), folded so that small remainders differ too.
fn seed(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}
