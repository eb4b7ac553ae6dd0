//! What leads a node from what it was sent last to what it should have now.
//!
//! Invariant: a node knows the specs of the tasks that it was sent last, and no other ones.

use super::{Assignments, Files, said};
use discovery::{KnowledgeDifference, Mesh, MeshDifference, NetworkDifference, NetworkView};
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{SpecId, Task, TaskState};
use wire::Difference;

/// Differences that were computed for one session and may be those of others: most have the same
/// old and the same new.
#[derive(Debug, Default)]
pub(crate) struct Alike {
    /// What a node knows of a network that is new to it.
    nothing: Arc<NetworkView>,
    networks: Computed<NetworkView, NetworkDifference>,
    mesh: Computed<Mesh, MeshDifference>,
}

/// By the places of both objects.
#[derive(Debug)]
struct Computed<T, D>(BTreeMap<[usize; 2], Known<T, D>>);

#[derive(Debug)]
struct Known<T, D> {
    /// While they are held, nothing else takes their places.
    _between: [Arc<T>; 2],
    difference: D,
}

impl<T, D> Default for Computed<T, D> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T, D: Clone> Computed<T, D> {
    fn between(&mut self, old: &Arc<T>, new: &Arc<T>, compute: fn(&T, &T) -> D) -> D {
        let places = [old, new].map(|it| Arc::as_ptr(it).addr());
        let known = self.0.entry(places).or_insert_with(|| Known {
            _between: [old, new].map(Arc::clone),
            difference: compute(old, new),
        });
        known.difference.clone()
    }
}

#[cfg(test)]
impl Alike {
    /// How many differences were computed.
    pub(crate) fn computed(&self) -> usize {
        self.networks.0.len() + self.mesh.0.len()
    }
}

/// What leads from `old` to `new`; `None` where a node would do nothing differently. The result
/// has the versions of both.
pub(crate) fn difference(
    old: &Assignments,
    new: &Assignments,
    alike: &mut Alike,
) -> Option<Difference> {
    let has_files = |them: &Assignments, task: &Task| {
        let container = &task.spec.container;
        container.has_files() && them.files.has_all(container)
    };
    let tasks = new.tasks.iter().filter(|(id, task)| {
        let same = |before: &Arc<Task>| Arc::ptr_eq(before, task) || asks_the_same(before, task);
        // A node takes files with the task that they are for.
        let is_given_files = || has_files(new, task) && !has_files(old, task);
        !old.tasks.get(*id).is_some_and(same) || is_given_files()
    });
    let removed_tasks = old.tasks.keys().filter(|id| !new.tasks.contains_key(*id));
    let mut difference = Difference {
        from: old.version,
        version: new.version,
        tasks: tasks.map(|(id, task)| (id.clone(), task.with_spec_by_id())).collect(),
        removed_tasks: removed_tasks.cloned().collect(),
        withdrawn: Some(&new.withdrawn).filter(|new| **new != old.withdrawn).cloned(),
        knowledge: knowledge(old, new, alike),
        ..Difference::default()
    };
    if !difference.tasks.is_empty() || !difference.removed_tasks.is_empty() {
        let (before, after) = (old.specs(), new.specs());
        let gone = absent(&before.0, &after.0).chain(absent(&before.1, &after.1));
        difference.removed_specs = gone.map(|id| SpecId::clone(id)).collect();
        difference.specs = said(unknown(after.0, &before.0));
        difference.specs_with_files = said(unknown(after.1, &before.1));
    }
    files(&old.files, &new.files, &mut difference);
    (!difference.is_empty()).then_some(difference)
}

/// What is in one of an id stays as it is.
fn files(old: &Files, new: &Files, difference: &mut Difference) {
    difference.removed_secrets = absent(&old.secrets, &new.secrets).cloned().collect();
    difference.removed_configs = absent(&old.configs, &new.configs).cloned().collect();
    difference.secrets = unknown(new.secrets.clone(), &old.secrets).into();
    difference.configs = unknown(new.configs.clone(), &old.configs).into();
}

/// The keys that are in `new` no more.
fn absent<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    old.keys().filter(|id| !new.contains_key(id))
}

/// What was not in `old`.
fn unknown<K: Ord, V>(mut new: BTreeMap<K, V>, old: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    new.retain(|id, _| !old.contains_key(id));
    new
}

fn knowledge(old: &Assignments, new: &Assignments, alike: &mut Alike) -> KnowledgeDifference {
    let mut difference = KnowledgeDifference::default();
    let nothing = Arc::clone(&alike.nothing);
    for (id, network) in &new.networks {
        let before = old.networks.get(id);
        if before.is_some_and(|before| Arc::ptr_eq(before, network)) {
            continue;
        }
        let compute = NetworkDifference::between;
        let changed = alike.networks.between(before.unwrap_or(&nothing), network, compute);
        if before.is_none() || !changed.is_empty() {
            difference.networks.insert(id.clone(), changed);
        }
    }
    let removed = old.networks.keys().filter(|id| !new.networks.contains_key(*id));
    difference.removed_networks = removed.cloned().collect();
    if !Arc::ptr_eq(&old.mesh, &new.mesh) {
        *difference.mesh = alike.mesh.between(&old.mesh, &new.mesh, MeshDifference::between);
    }
    difference
}

/// Says whether a node has the same to do. What it reported itself comes back in the status and
/// is no news to it, unless managers have given up on the task.
fn asks_the_same(old: &Task, new: &Task) -> bool {
    let given_up = |task: &Task| task.status.state == TaskState::Orphaned;
    old.desired == new.desired
        && old.not_before == new.not_before
        && given_up(old) == given_up(new)
        && old.spec.id() == new.spec.id()
        && old.attachments == new.attachments
        && old.ingress_addresses == new.ingress_addresses
        && old.ports == new.ports
        && old.service_labels == new.service_labels
        && old.refresh == new.refresh
}
