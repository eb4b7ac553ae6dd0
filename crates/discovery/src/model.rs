//! What is known of networks and endpoints (in), and what follows from it for this node (out).
//!
//! What is large and changes by little is kept in maps that share what they have in common: a copy
//! costs nothing, and what differs between two of them is found without a look at the rest.

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use types::{Addresses, NetworkId, NodeId, Protocol, ServiceId, Subnet, TaskId};

/// An address that is not known yet.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Everything a node must know to carry its networks: pushed whole by managers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Knowledge {
    /// The networks this node takes part in, with all their endpoints.
    pub networks: BTreeMap<NetworkId, NetworkView>,
    /// The routing mesh, on every node.
    pub mesh: Mesh,
}

impl Knowledge {
    /// Says whether a task is on a network here, or in the mesh.
    pub fn has_task(&self, task: &TaskId) -> bool {
        self.mesh.tasks.contains_key(task)
            || self.networks.values().any(|view| view.endpoints.contains_key(task))
    }
}

/// A network and all that is on it, on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkView {
    pub name: String,
    pub vni: u32,
    /// At most one of each family.
    #[serde(alias = "subnet", deserialize_with = "types::one_or_more")]
    pub subnets: Vec<Subnet>,
    /// No way out to other networks.
    pub internal: bool,
    /// The MTU of the underlay as the network's creator said it, in bytes; 0: as each node finds it.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub mtu: u32,
    pub endpoints: OrdMap<TaskId, Endpoint>,
    /// Services in VIP mode, also those without a task that serves.
    pub services: OrdMap<ServiceId, ServiceView>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_unsaid(mtu: &u32) -> bool {
    *mtu == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_as_of_old(prefix: &u8) -> bool {
    *prefix == 0
}

/// A service on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceView {
    pub name: String,
    /// The stack that it belongs to; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stack: String,
    pub aliases: BTreeSet<String>,
    /// None in DNS round-robin mode.
    #[serde(alias = "vip")]
    pub vips: Addresses,
}

/// A task's presence on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    #[serde(alias = "address")]
    pub addresses: Addresses,
    pub node: NodeId,
    /// The address of its node: the VXLAN end point.
    #[serde(with = "types::plain")]
    pub vtep: IpAddr,
    pub service: ServiceId,
    /// The container's name, e.g. `web.1.<task id>`; a plain container has its own.
    pub name: String,
    /// Further names of this endpoint alone (host name, aliases of a plain container); where one is a
    /// service's name, the service has it.
    pub aliases: BTreeSet<String>,
    /// Names and balancers lead to it. False while it starts or stops; its route stays.
    pub serving: bool,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            addresses: Addresses::default(),
            node: NodeId::default(),
            vtep: NOWHERE,
            service: ServiceId::default(),
            name: String::new(),
            aliases: BTreeSet::new(),
            serving: false,
        }
    }
}

/// Published ports and who serves them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mesh {
    /// As [`NetworkView::mtu`], of the ingress network.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub mtu: u32,
    /// The length of the prefix of the ingress network's IPv4 subnet; 0, as clusters of old say: 16.
    #[serde(skip_serializing_if = "is_as_of_old")]
    pub prefix: u8,
    /// That of its IPv6 subnet; 0 where it has none.
    #[serde(skip_serializing_if = "is_as_of_old")]
    pub prefix_v6: u8,
    /// Every node's addresses.
    pub nodes: OrdMap<NodeId, MeshNode>,
    pub tasks: OrdMap<TaskId, MeshTask>,
    /// By protocol and published port.
    pub ports: OrdMap<(Protocol, u16), MeshPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshNode {
    /// On the underlay.
    #[serde(with = "types::plain")]
    pub address: IpAddr,
    /// On the ingress network.
    pub ingress: Addresses,
}

impl Default for MeshNode {
    fn default() -> Self {
        Self { address: NOWHERE, ingress: Addresses::default() }
    }
}

/// A task that takes part in the routing mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshTask {
    pub node: NodeId,
    pub ingress: Addresses,
    pub serving: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshPort {
    pub service: ServiceId,
    /// The port in the containers.
    pub target: u16,
    pub tasks: OrdSet<TaskId>,
}

/// What this node itself knows: who it is and what is attached here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Here {
    pub node: NodeId,
    #[serde(with = "types::plain")]
    pub address: IpAddr,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// Containers on this node, also plain ones, by container id.
    pub sandboxes: OrdMap<String, Sandbox>,
    /// Tasks that names and balancers of this node lead to no more, whatever managers said last: a
    /// container here has ended. The set only grows until managers forget the task.
    #[serde(alias = "withdrawn")]
    pub hidden: OrdSet<TaskId>,
}

impl Default for Here {
    fn default() -> Self {
        Self {
            node: NodeId::default(),
            address: NOWHERE,
            data_path_port: 0,
            sandboxes: OrdMap::new(),
            hidden: OrdSet::new(),
        }
    }
}

/// A container's network namespace on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// The task it belongs to; `None` for a plain container.
    pub task: Option<TaskId>,
    /// Where the namespace is bind-mounted.
    pub netns: String,
    /// Its addresses on this node's gateway bridge.
    #[serde(alias = "gateway_address")]
    pub gateway_addresses: Addresses,
    /// Its addresses on cluster networks, in the order of eth0, eth1, …
    pub attachments: Vec<SandboxAttachment>,
    /// The port of 127.0.0.11 that this container's DNS server listens on; 0 until it does.
    pub dns_port: u16,
    /// Ports published in host mode: (protocol, published on the node, target).
    pub host_ports: Vec<(Protocol, u16, u16)>,
    /// DNS servers that the container wants asked, from within its namespace, for what is not ours.
    /// Empty: the node's.
    pub nameservers: Vec<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxAttachment {
    pub network: NetworkId,
    #[serde(alias = "address")]
    pub addresses: Addresses,
}

/// A container's place on a network of the cluster, as people look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    pub network: NetworkId,
    /// The network's.
    pub name: String,
    pub subnets: Vec<Subnet>,
    /// No way out to other networks.
    pub internal: bool,
    pub addresses: Addresses,
    /// Names that lead to this container alone: its own first.
    pub names: Vec<String>,
}

/// The kernel state of this node, whole. `Kernel::apply` makes it so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub overlays: BTreeMap<NetworkId, Overlay>,
    pub sandboxes: BTreeMap<String, SandboxRules>,
    pub mesh: MeshRules,
}

/// One overlay network on this node: VXLAN, bridge, FDB, neighbours. A MAC follows from addresses
/// ([`Addresses::mac`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub vni: u32,
    pub local: IpAddr,
    pub port: u16,
    /// The bridge has the gateways' addresses.
    pub subnets: Vec<Subnet>,
    /// The underlay's MTU as the network's creator said it, in bytes; 0: as this node finds it.
    pub mtu: u32,
    /// Remote nodes with an endpoint: all-zeros FDB entries (broadcast, multicast).
    pub peers: BTreeSet<IpAddr>,
    /// Remote endpoints: addresses -> VTEP.
    pub remotes: BTreeMap<Addresses, IpAddr>,
}

/// What is set in a container's namespace: interfaces and the balancer's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRules {
    pub netns: String,
    pub gateway_addresses: Addresses,
    /// A default route by the gateway bridge. False when all its networks are internal.
    pub default_route: bool,
    /// Each one's network is in [`Desired::overlays`]; a network not known yet is left out.
    pub interfaces: Vec<Interface>,
    pub dns_port: u16,
    pub vips: Vips,
    /// Where this sandbox's own turn begins, modulo how many there are: not every client shall start
    /// at the same one.
    pub turn: u64,
}

/// A container's interface on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub network: NetworkId,
    /// Its addresses, one of each family that the network has a subnet of, with the lengths of the
    /// subnets' prefixes.
    pub addresses: Vec<IpNet>,
}

/// VIP -> back ends, of each family, which are apart in kernels, too. A VIP without back ends refuses
/// at once. Sandboxes on the same networks share the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vips {
    pub v4: Arc<BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>>,
    pub v6: Arc<BTreeMap<Ipv6Addr, Vec<Ipv6Addr>>>,
}

/// The routing mesh on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshRules {
    /// This node's addresses on the ingress network; none: no mesh (yet), remove what is there.
    pub ingress: Addresses,
    pub local: Option<IpAddr>,
    pub port: u16,
    /// As [`Overlay::mtu`].
    pub mtu: u32,
    /// As [`Mesh::prefix`].
    pub prefix: u8,
    pub prefix_v6: u8,
    /// Other nodes: ingress addresses -> underlay address.
    pub peers: BTreeMap<Addresses, IpAddr>,
    /// Tasks elsewhere: ingress addresses of the task -> those of its node.
    pub remote_tasks: BTreeMap<Addresses, Addresses>,
    /// What tasks here publish: ingress address, protocol and target port -> address of the same
    /// family on the gateway bridge. Other nodes reach nothing else of them by the mesh.
    pub local_tasks: BTreeMap<(IpAddr, Protocol, u16), IpAddr>,
    /// Published port -> target port and back ends (a gateway-bridge address for a local task, an
    /// ingress address for a remote one). Without back ends: refused at once.
    pub ports: BTreeMap<(Protocol, u16), PortRules>,
    /// Ports published in host mode: published -> gateway addresses and target port of a container
    /// here. They are there without a mesh, too (without `ingress`).
    pub host_ports: BTreeMap<(Protocol, u16), (Addresses, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRules {
    pub target: u16,
    /// Of both families.
    pub backends: Vec<IpAddr>,
}

/// What of a [`Desired`] could not be made: for each object the reason, in plain words. All the rest
/// is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The gateway bridge, which every container of this node stands on.
    pub node: Option<String>,
    /// The routing mesh: published ports do not work here.
    pub mesh: Option<String>,
    pub networks: BTreeMap<NetworkId, String>,
    /// By container id.
    pub sandboxes: BTreeMap<String, String>,
    /// Published ports that are left to somebody else on this node.
    pub ports: BTreeMap<(Protocol, u16), String>,
    /// A firewall of others drops what containers send and receive, and cannot be told otherwise.
    pub firewall: Option<String>,
    /// A balancer that was there could not be changed: it may still lead to what was taken out.
    pub is_behind: bool,
}

impl Outcome {
    /// Says whether all of it is there.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// What users shall know of this node, in plain words; empty where all is well. What concerns a
    /// container alone is said by its task.
    pub fn trouble(&self) -> String {
        let ground = [&self.node, &self.mesh, &self.firewall].into_iter().flatten();
        let reasons = ground.chain(self.networks.values()).chain(self.ports.values());
        reasons.map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// How much an application believes of what is remembered, from all to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Touch what differs from what was applied last. What failed then, and shall be the same now,
    /// fails again for the same reason without a try.
    Change,
    /// Try what failed last time, too.
    Retry,
    /// Look at the node's own rules, too: others have changed some.
    Rules,
    /// Look at everything: others may have meddled with it.
    Repair,
}

/// The part of the kernel that carries the cluster's networks on this node.
pub trait Kernel: Send {
    type Error: std::error::Error + Send + Sync + 'static;

    /// Makes the kernel hold `desired`, whatever it holds now. Doing it twice changes nothing.
    /// A sandbox whose namespace has gone is skipped. What cannot be made fails alone. An error
    /// means that this kernel is of no use any more.
    fn apply(
        &mut self,
        desired: &Arc<Desired>,
        depth: Depth,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Waits until somebody else has changed rules of the node, so that [`Depth::Rules`] is due.
    /// Cancel-safe.
    fn disturbed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}
