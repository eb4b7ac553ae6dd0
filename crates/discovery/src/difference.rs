//! What leads from one [`Knowledge`] to another: it names what changed, endpoint by endpoint, so
//! its size follows the change and not the cluster.
//!
//! Invariants: `apply(between(old, new), old)` is `new`; between equal ones there is nothing. A
//! difference belongs to the knowledge that it was made from: whoever carries it (messages, the
//! name server's socket) carries versions, too, and applies it to no other.

use crate::model::{
    Endpoint, Knowledge, Mesh, MeshNode, MeshPort, MeshTask, NetworkView, ServiceView,
};
use imbl::ordmap::DiffItem;
use imbl::ordset::DiffItem as SetItem;
use imbl::{OrdMap, OrdSet};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use types::{NetworkId, NodeId, Protocol, ServiceId, Subnet, TaskId};

/// Of a map: what is new or other, and what has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound = "K: Serialize + DeserializeOwned + Ord, V: Serialize + DeserializeOwned")]
pub struct Difference<K, V> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub changed: BTreeMap<K, V>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<K>,
}

/// Of a set: what is new, and what has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound = "K: Serialize + DeserializeOwned + Ord")]
pub struct SetDifference<K> {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub added: BTreeSet<K>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<K>,
}

/// Of all that a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KnowledgeDifference {
    /// Networks that are new or of which something changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<NetworkId, NetworkDifference>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_networks: BTreeSet<NetworkId>,
    #[serde(skip_serializing_if = "MeshDifference::is_empty")]
    pub mesh: Box<MeshDifference>,
}

/// Of one network. For one that is new: from an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkDifference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<NetworkSettings>,
    #[serde(skip_serializing_if = "Difference::is_empty")]
    pub endpoints: Difference<TaskId, Endpoint>,
    #[serde(skip_serializing_if = "Difference::is_empty")]
    pub services: Difference<ServiceId, ServiceView>,
}

/// What is said of a network itself, as in [`NetworkView`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSettings {
    pub name: String,
    pub vni: u32,
    #[serde(alias = "subnet", deserialize_with = "types::one_or_more")]
    pub subnets: Vec<Subnet>,
    pub internal: bool,
    pub mtu: u32,
}

/// Of the routing mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshDifference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settings: Option<MeshSettings>,
    #[serde(skip_serializing_if = "Difference::is_empty")]
    pub nodes: Difference<NodeId, MeshNode>,
    #[serde(skip_serializing_if = "Difference::is_empty")]
    pub tasks: Difference<TaskId, MeshTask>,
    /// Ports that are new or of which something changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<(Protocol, u16), PortDifference>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_ports: BTreeSet<(Protocol, u16)>,
}

/// What is said of the mesh itself, as in [`Mesh`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshSettings {
    pub mtu: u32,
    pub prefix: u8,
    #[serde(skip_serializing_if = "crate::model::is_as_of_old")]
    pub prefix_v6: u8,
}

/// Of one published port: thousands of tasks may serve it, and one of them comes or goes. For one
/// that is new: from one without tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDifference {
    pub service: ServiceId,
    pub target: u16,
    #[serde(default, skip_serializing_if = "SetDifference::is_empty")]
    pub tasks: SetDifference<TaskId>,
}

impl<K, V> Default for Difference<K, V> {
    fn default() -> Self {
        Self { changed: BTreeMap::new(), gone: BTreeSet::new() }
    }
}

impl<K, V> Difference<K, V> {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty()
    }
}

impl<K: Clone + Ord, V: Clone + PartialEq> Difference<K, V> {
    /// What both maps share is not looked at.
    pub fn between(old: &OrdMap<K, V>, new: &OrdMap<K, V>) -> Self {
        let mut difference = Self::default();
        for item in old.diff(new) {
            match item {
                DiffItem::Add(key, value) | DiffItem::Update { new: (key, value), .. } => {
                    difference.changed.insert(key.clone(), value.clone());
                }
                DiffItem::Remove(key, _) => {
                    difference.gone.insert(key.clone());
                }
            }
        }
        difference
    }

    pub fn apply(self, map: &mut OrdMap<K, V>) {
        for key in &self.gone {
            map.remove(key);
        }
        map.extend(self.changed);
    }
}

impl<K> Default for SetDifference<K> {
    fn default() -> Self {
        Self { added: BTreeSet::new(), gone: BTreeSet::new() }
    }
}

impl<K> SetDifference<K> {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.gone.is_empty()
    }
}

impl<K: Clone + Ord> SetDifference<K> {
    pub fn between(old: &OrdSet<K>, new: &OrdSet<K>) -> Self {
        let mut difference = Self::default();
        for item in old.diff(new) {
            match item {
                SetItem::Add(key) => {
                    difference.added.insert(key.clone());
                }
                SetItem::Remove(key) => {
                    difference.gone.insert(key.clone());
                }
            }
        }
        difference
    }

    pub fn apply(self, set: &mut OrdSet<K>) {
        for key in &self.gone {
            set.remove(key);
        }
        set.extend(self.added);
    }
}

impl KnowledgeDifference {
    pub fn between(old: &Knowledge, new: &Knowledge) -> Self {
        let mesh = Box::new(MeshDifference::between(&old.mesh, &new.mesh));
        Self { mesh, ..Self::between_networks(&old.networks, &new.networks) }
    }

    /// Without the mesh.
    pub fn between_networks(
        old: &BTreeMap<NetworkId, NetworkView>,
        new: &BTreeMap<NetworkId, NetworkView>,
    ) -> Self {
        let nothing = NetworkView::default();
        let mut networks = BTreeMap::new();
        for (id, network) in new {
            let before = old.get(id);
            let difference = NetworkDifference::between(before.unwrap_or(&nothing), network);
            if before.is_none() || !difference.is_empty() {
                networks.insert(id.clone(), difference);
            }
        }
        let removed = old.keys().filter(|id| !new.contains_key(*id));
        Self { networks, removed_networks: removed.cloned().collect(), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.removed_networks.is_empty() && self.mesh.is_empty()
    }

    pub fn apply(self, knowledge: &mut Knowledge) {
        for network in &self.removed_networks {
            knowledge.networks.remove(network);
        }
        for (id, difference) in self.networks {
            difference.apply(knowledge.networks.entry(id).or_default());
        }
        self.mesh.apply(&mut knowledge.mesh);
    }
}

impl NetworkDifference {
    pub fn between(old: &NetworkView, new: &NetworkView) -> Self {
        Self {
            settings: changed(&NetworkSettings::of(old), NetworkSettings::of(new)),
            endpoints: Difference::between(&old.endpoints, &new.endpoints),
            services: Difference::between(&old.services, &new.services),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.settings.is_none() && self.endpoints.is_empty() && self.services.is_empty()
    }

    pub fn apply(self, network: &mut NetworkView) {
        if let Some(NetworkSettings { name, vni, subnets, internal, mtu }) = self.settings {
            *network = NetworkView {
                name,
                vni,
                subnets,
                internal,
                mtu,
                endpoints: std::mem::take(&mut network.endpoints),
                services: std::mem::take(&mut network.services),
            };
        }
        self.endpoints.apply(&mut network.endpoints);
        self.services.apply(&mut network.services);
    }
}

impl NetworkSettings {
    pub fn of(network: &NetworkView) -> Self {
        let NetworkView { name, vni, subnets, internal, mtu, endpoints: _, services: _ } = network;
        let (name, subnets) = (name.clone(), subnets.clone());
        Self { name, vni: *vni, subnets, internal: *internal, mtu: *mtu }
    }
}

impl MeshDifference {
    pub fn between(old: &Mesh, new: &Mesh) -> Self {
        let ports = Difference::between(&old.ports, &new.ports);
        let changed_ports = ports.changed.into_iter();
        Self {
            settings: changed(&MeshSettings::of(old), MeshSettings::of(new)),
            nodes: Difference::between(&old.nodes, &new.nodes),
            tasks: Difference::between(&old.tasks, &new.tasks),
            ports: changed_ports
                .map(|(key, port)| (key, PortDifference::between(old.ports.get(&key), &port)))
                .collect(),
            removed_ports: ports.gone,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.settings.is_none()
            && self.nodes.is_empty()
            && self.tasks.is_empty()
            && self.ports.is_empty()
            && self.removed_ports.is_empty()
    }

    pub fn apply(self, mesh: &mut Mesh) {
        if let Some(MeshSettings { mtu, prefix, prefix_v6 }) = self.settings {
            (mesh.mtu, mesh.prefix, mesh.prefix_v6) = (mtu, prefix, prefix_v6);
        }
        self.nodes.apply(&mut mesh.nodes);
        self.tasks.apply(&mut mesh.tasks);
        for port in &self.removed_ports {
            mesh.ports.remove(port);
        }
        for (key, PortDifference { service, target, tasks }) in self.ports {
            let mut all = mesh.ports.remove(&key).map(|port| port.tasks).unwrap_or_default();
            tasks.apply(&mut all);
            mesh.ports.insert(key, MeshPort { service, target, tasks: all });
        }
    }
}

impl MeshSettings {
    pub fn of(mesh: &Mesh) -> Self {
        let Mesh { mtu, prefix, prefix_v6, nodes: _, tasks: _, ports: _ } = mesh;
        Self { mtu: *mtu, prefix: *prefix, prefix_v6: *prefix_v6 }
    }
}

impl PortDifference {
    pub fn between(old: Option<&MeshPort>, new: &MeshPort) -> Self {
        let MeshPort { service, target, tasks } = new;
        let nobody = OrdSet::new();
        Self {
            service: service.clone(),
            target: *target,
            tasks: SetDifference::between(old.map_or(&nobody, |port| &port.tasks), tasks),
        }
    }
}

fn changed<T: PartialEq>(old: &T, new: T) -> Option<T> {
    Some(new).filter(|new| new != old)
}
