//! Everything that is stored, at one version.

use crate::claim::Claim;
use crate::event::meaning;
use crate::index::Indexes;
use crate::table::Tables;
use crate::{Change, Changes, Format, History, Key, Object, Record, Snapshot};
use imbl::OrdSet;
use std::sync::Arc;
use types::{
    Cluster, Config, Meta, Network, NetworkId, Node, NodeId, Secret, Service, ServiceId,
    SharedSpec, SpecId, Task, TaskId, Timestamp, UnknownSpec, Version,
};

/// Everything that is stored, at one version. A clone shares all objects and costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct View {
    version: Version,
    time: Timestamp,
    /// The newest that anything has had that was ever part of it.
    format: Format,
    pub(crate) history: History,
    pub(crate) tables: Tables,
    pub(crate) indexes: Indexes,
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

    /// The oldest format that has everything that it was ever made of. It only rises: what has gone
    /// again is still in the log, and in the snapshots, of managers.
    pub fn format(&self) -> Format {
        self.format.max(Format::LEAST)
    }

    /// The object of this id; also a network that was removed and is still carried.
    pub fn get<T: Record>(&self, id: &T::Id) -> Option<&Arc<T>> {
        T::table(&self.tables).get(id)
    }

    /// All objects of a kind, by id.
    pub fn all<T: Record>(&self) -> impl ExactSizeIterator<Item = &Arc<T>> {
        T::table(&self.tables).values()
    }

    /// The object of this key.
    pub fn object(&self, key: &Key) -> Option<Object> {
        self.tables.get(key)
    }

    /// `None` before the first entry of the log.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.all().next()
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.all()
    }

    /// All networks, also those that were removed and are still carried.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Arc<Network>> {
        self.all()
    }

    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.all()
    }

    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.all()
    }

    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.get(id)
    }

    /// The network of this id, also where it was removed and is still carried.
    pub fn network(&self, id: &NetworkId) -> Option<&Arc<Network>> {
        self.get(id)
    }

    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.get(id)
    }

    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.get(id)
    }

    /// The service of this name, compared without case.
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.held(Claim::service_name(name)).next()
    }

    /// The network of this name, compared without case. One that was removed has none.
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.held(Claim::network_name(name)).next()
    }

    /// The secret of this name, compared without case.
    pub fn secret_named(&self, name: &str) -> Option<&Arc<Secret>> {
        self.held(Claim::secret_name(name)).next()
    }

    /// The config of this name, compared without case.
    pub fn config_named(&self, name: &str) -> Option<&Arc<Config>> {
        self.held(Claim::config_name(name)).next()
    }

    /// The network of the routing mesh.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.get(self.indexes.ingress.get_min()?)
    }

    /// What tasks are made from, by its id; one that no task is made from is not kept.
    pub fn spec(&self, id: &SpecId) -> Option<&SharedSpec> {
        self.indexes.specs.get(id).map(|made| &made.spec)
    }

    /// The tasks that were made for a service, ended ones included.
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_of(self.indexes.tasks_by_service.get(id))
    }

    /// The tasks that were placed on a node, ended ones included.
    pub fn tasks_of_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_of(self.indexes.tasks_by_node.get(id))
    }

    fn tasks_of<'a>(
        &'a self,
        row: Option<&'a OrdSet<TaskId>>,
    ) -> impl Iterator<Item = &'a Arc<Task>> {
        row.into_iter().flatten().filter_map(|id| self.task(id))
    }

    /// The objects of one kind that have what is claimed.
    fn held<T: Record>(&self, claim: Claim) -> impl Iterator<Item = &Arc<T>> {
        self.holders(claim).filter_map(|key| self.get(T::id_in(key)?))
    }

    /// Who has what is claimed: one object, unless something is wrong.
    pub(crate) fn holders(&self, claim: Claim) -> impl Iterator<Item = &Key> {
        let alias = self.alias(&claim);
        let aliased = alias.into_iter().flat_map(|alias| self.indexes.claims.holders(alias));
        self.indexes.claims.holders(claim).chain(aliased)
    }

    /// What says the same: an address on the mesh's network is one of the mesh.
    pub(crate) fn alias(&self, claim: &Claim) -> Option<Claim> {
        match claim {
            Claim::Address { network, address } => {
                let in_mesh = self.indexes.ingress.get_min() == Some(network);
                in_mesh.then_some(Claim::MeshAddress(*address))
            }
            Claim::MeshAddress(address) => {
                let network = self.indexes.ingress.get_min()?.clone();
                Some(Claim::Address { network, address: *address })
            }
            Claim::ServiceName(_)
            | Claim::NetworkName(_)
            | Claim::SecretName(_)
            | Claim::ConfigName(_)
            | Claim::MeshPort { .. } => None,
        }
    }

    /// Makes `changes`, which the log entry `index` of time `now` holds, part of this view.
    pub fn apply(&mut self, changes: &Changes, index: Version, now: Timestamp) {
        for change in &changes.changes {
            let key = change.key();
            let before = self.object(&key);
            if let Some(event) = meaning(before.as_ref(), change) {
                self.history.add(key, event, (index, now));
            }
            match change {
                Change::Put(object) => {
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
    pub(crate) fn insert(&mut self, mut object: Object) {
        self.format = self.format.max(object.since());
        self.share_spec(&mut object);
        let key = object.key();
        let was = self.tables.insert(object.clone());
        self.indexes.replace(&key, was.as_ref(), Some(&object));
    }

    /// Removes an object, if it is there, and keeps the indexes.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.format = self.format.max(key.since());
        let was = self.tables.remove(key);
        self.indexes.replace(key, was.as_ref(), None);
    }

    /// Gives a task or a service the very spec that tasks have which are made from an equal one, or
    /// that the task's service has: what was read from a log has one each.
    fn share_spec(&self, object: &mut Object) {
        match object {
            Object::Task(task) => {
                let service = self.service(&task.service).map(|service| &service.spec.task);
                let own = || service.filter(|own| own.id() == task.spec.id());
                let known = self.spec(task.spec.id()).or_else(own);
                if let Some(spec) = known.filter(|spec| !spec.is_shared_with(&task.spec)) {
                    Arc::make_mut(task).spec = spec.clone();
                }
            }
            Object::Service(service) => {
                let spec = &service.spec.task;
                let known = self.spec(spec.id());
                if let Some(spec) = known.filter(|known| !known.is_shared_with(spec)) {
                    Arc::make_mut(service).spec.task = spec.clone();
                }
            }
            Object::Cluster(_)
            | Object::Node(_)
            | Object::Network(_)
            | Object::Secret(_)
            | Object::Config(_) => {}
        }
    }
}

impl From<&View> for Snapshot {
    fn from(view: &View) -> Self {
        let specs = view.indexes.specs.values().map(|made| &made.spec).collect();
        let history = Some((&view.history).into());
        Self::new(view.format(), (view.version, view.time), specs, (history, &view.tables))
    }
}

impl TryFrom<Snapshot> for View {
    type Error = UnknownSpec;

    fn try_from(mut snapshot: Snapshot) -> Result<Self, UnknownSpec> {
        let Snapshot { version, time, format, .. } = snapshot;
        let specs = std::mem::take(&mut snapshot.specs);
        let history = match snapshot.history.take() {
            Some(stored) => stored.into(),
            None => History::unknown_before(time),
        };
        let mut view = Self { version, time, format, history, ..Self::default() };
        for mut object in snapshot.objects() {
            object.give_spec(&specs, &Self::default())?;
            view.insert(object);
        }
        Ok(view)
    }
}
