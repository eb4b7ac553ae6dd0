//! What must survive the daemon: what is attached here, and what was known last.
//!
//! Endpoint by endpoint, so a change costs what changed: what is to be kept is compared with what
//! was kept last, and both share what they have in common.

mod former;

use crate::error::Error;
use crate::handle::Identity;
use discovery::{
    Difference, Endpoint, Knowledge, KnowledgeDifference, MeshDifference, MeshNode, MeshPort,
    MeshSettings, MeshTask, NetworkDifference, NetworkSettings, NetworkView, OrdMap, OrdSet,
    Sandbox, ServiceView, SetDifference,
};
use journal::Kind;
use serde::Serialize;
use std::path::Path;
use types::{NetworkId, NodeId, Protocol, ServiceId, TaskId};

const FILE: &str = "journal.redb";

const IDENTITY: Kind<(), Identity> = Kind::new("identity");
const SANDBOXES: Kind<String, Sandbox> = Kind::new("sandboxes");
const HIDDEN: Kind<TaskId, ()> = Kind::new("hidden");
const NETWORKS: Kind<NetworkId, NetworkSettings> = Kind::new("networks");
const ENDPOINTS: Kind<(NetworkId, TaskId), Endpoint> = Kind::new("endpoints");
const SERVICES: Kind<(NetworkId, ServiceId), ServiceView> = Kind::new("services");
const MESH: Kind<(), MeshSettings> = Kind::new("mesh");
const MESH_NODES: Kind<NodeId, MeshNode> = Kind::new("mesh nodes");
const MESH_TASKS: Kind<TaskId, MeshTask> = Kind::new("mesh tasks");
/// Without their tasks.
const PORTS: Kind<(Protocol, u16), MeshPort> = Kind::new("ports");
const PORT_TASKS: Kind<((Protocol, u16), TaskId), ()> = Kind::new("tasks of ports");

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct Kept {
    pub(crate) identity: Option<Identity>,
    pub(crate) sandboxes: OrdMap<String, Sandbox>,
    pub(crate) hidden: OrdSet<TaskId>,
    pub(crate) known: Knowledge,
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: journal::Journal,
    /// What the file holds once it is saved.
    kept: Kept,
}

impl Journal {
    pub(crate) async fn open(dir: &Path) -> Result<Self, Error> {
        let mut journal = Self::taken_over(dir).await?;
        journal.file.remove_former(former::paths(dir)).await?;
        Ok(journal)
    }

    /// With what a former release has left, which is not removed yet.
    async fn taken_over(dir: &Path) -> Result<Self, Error> {
        let file = journal::Journal::open(&dir.join(FILE)).await?;
        let kept = load(&file).await?;
        let mut journal = Self { file, kept };
        if !journal.file.has_taken_over()
            && let Some(former) = former::read(dir).await?
        {
            journal.file.take_over()?;
            journal.keep(former).await?;
        }
        Ok(journal)
    }

    /// What was kept last.
    pub(crate) fn load(&self) -> Kept {
        self.kept.clone()
    }

    /// Keeps this from now on; it is on disk when this returns.
    pub(crate) async fn keep(&mut self, new: Kept) -> Result<(), Error> {
        self.note(&new)?;
        self.kept = new;
        Ok(self.file.save().await?)
    }

    fn note(&mut self, new: &Kept) -> Result<(), journal::Error> {
        let Self { file, kept: old } = self;
        if old.identity != new.identity {
            match &new.identity {
                Some(identity) => file.put(&IDENTITY, &(), identity)?,
                None => file.remove(&IDENTITY, &())?,
            }
        }
        let sandboxes = Difference::between(&old.sandboxes, &new.sandboxes);
        note(file, &SANDBOXES, &sandboxes, String::clone)?;
        let hidden = SetDifference::between(&old.hidden, &new.hidden);
        note_set(file, &HIDDEN, &hidden, TaskId::clone)?;
        let known = KnowledgeDifference::between(&old.known, &new.known);
        for (id, network) in &known.networks {
            note_network(file, id, network, !old.known.networks.contains_key(id))?;
        }
        for id in &known.removed_networks {
            let Some(network) = old.known.networks.get(id) else { continue };
            let gone = NetworkDifference::between(network, &NetworkView::default());
            note_network(file, id, &gone, false)?;
            file.remove(&NETWORKS, id)?;
        }
        note_mesh(file, &known.mesh, &old.known)
    }
}

fn note_network(
    file: &mut journal::Journal,
    id: &NetworkId,
    network: &NetworkDifference,
    is_new: bool,
) -> Result<(), journal::Error> {
    if is_new || network.settings.is_some() {
        file.put(&NETWORKS, id, &network.settings.clone().unwrap_or_default())?;
    }
    note(file, &ENDPOINTS, &network.endpoints, |task| (id.clone(), task.clone()))?;
    note(file, &SERVICES, &network.services, |service| (id.clone(), service.clone()))
}

fn note_mesh(
    file: &mut journal::Journal,
    mesh: &MeshDifference,
    old: &Knowledge,
) -> Result<(), journal::Error> {
    if let Some(settings) = &mesh.settings {
        file.put(&MESH, &(), settings)?;
    }
    note(file, &MESH_NODES, &mesh.nodes, NodeId::clone)?;
    note(file, &MESH_TASKS, &mesh.tasks, TaskId::clone)?;
    for (port, it) in &mesh.ports {
        let (service, target) = (it.service.clone(), it.target);
        file.put(&PORTS, port, &MeshPort { service, target, tasks: OrdSet::new() })?;
        note_set(file, &PORT_TASKS, &it.tasks, |task| (*port, task.clone()))?;
    }
    for port in &mesh.removed_ports {
        file.remove(&PORTS, port)?;
        for task in old.mesh.ports.get(port).into_iter().flat_map(|port| &port.tasks) {
            file.remove(&PORT_TASKS, &(*port, task.clone()))?;
        }
    }
    Ok(())
}

/// Notes what differs of a map. `key` says what its keys are called in the file.
fn note<K, V: Serialize, F: Serialize>(
    file: &mut journal::Journal,
    kind: &Kind<F, V>,
    difference: &Difference<K, V>,
    key: impl Fn(&K) -> F,
) -> Result<(), journal::Error> {
    for (it, value) in &difference.changed {
        file.put(kind, &key(it), value)?;
    }
    difference.gone.iter().try_for_each(|it| file.remove(kind, &key(it)))
}

fn note_set<K, F: Serialize>(
    file: &mut journal::Journal,
    kind: &Kind<F, ()>,
    difference: &SetDifference<K>,
    key: impl Fn(&K) -> F,
) -> Result<(), journal::Error> {
    for it in &difference.added {
        file.put(kind, &key(it), &())?;
    }
    difference.gone.iter().try_for_each(|it| file.remove(kind, &key(it)))
}

async fn load(file: &journal::Journal) -> Result<Kept, journal::Error> {
    let mut known = Knowledge::default();
    for (id, settings) in file.load(&NETWORKS).await? {
        let said = NetworkDifference { settings: Some(settings), ..NetworkDifference::default() };
        said.apply(known.networks.entry(id).or_default());
    }
    for ((network, task), endpoint) in file.load(&ENDPOINTS).await? {
        known.networks.entry(network).or_default().endpoints.insert(task, endpoint);
    }
    for ((network, id), service) in file.load(&SERVICES).await? {
        known.networks.entry(network).or_default().services.insert(id, service);
    }
    if let Some(MeshSettings { mtu, prefix, prefix_v6 }) = file.load(&MESH).await?.remove(&()) {
        (known.mesh.mtu, known.mesh.prefix) = (mtu, prefix);
        known.mesh.prefix_v6 = prefix_v6;
    }
    known.mesh.nodes = file.load(&MESH_NODES).await?.into_iter().collect();
    known.mesh.tasks = file.load(&MESH_TASKS).await?.into_iter().collect();
    known.mesh.ports = file.load(&PORTS).await?.into_iter().collect();
    for ((port, task), ()) in file.load(&PORT_TASKS).await? {
        if let Some(port) = known.mesh.ports.get_mut(&port) {
            port.tasks.insert(task);
        }
    }
    Ok(Kept {
        identity: file.load(&IDENTITY).await?.remove(&()),
        sandboxes: file.load(&SANDBOXES).await?.into_iter().collect(),
        hidden: file.load(&HIDDEN).await?.into_keys().collect(),
        known,
    })
}

#[cfg(test)]
mod tests;
