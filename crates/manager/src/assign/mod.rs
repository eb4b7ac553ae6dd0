//! What every node should have: its tasks, and all it must know to carry its networks.
//!
//! Pure. The [`Topology`] follows the views; every session takes its [`Assignments`] of it, and is
//! sent by what they differ from those before. What is as it was is the same object, so that nobody
//! compares or copies it; what many sessions are told alike is computed once.
//!
//! Invariants: a node gets the bytes of a secret or a config only while a task of its own needs them to
//! start, and never later than the task; what a node knows of endpoints and what it is told of tasks come from the same view;
//! nothing of a node that is down serves. Its place in the mesh and the routes to what is on it
//! stay, because its kernel may well carry on while its daemon is away: only a node that left or
//! was removed is forgotten.

mod difference;
mod files;
mod hosts;
mod step;
#[cfg(test)]
mod tests;
mod topology;

pub(crate) use difference::{Alike, difference};
pub use files::Files;
pub(crate) use hosts::Hosts;
pub(crate) use step::Step;
pub use topology::Topology;

use discovery::{Knowledge, Mesh, NetworkView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::View;
use types::{NetworkId, NodeId, SharedSpec, SpecId, Task, TaskId, TaskState};
use wire::Parts;

/// What one node should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignments {
    /// Of the message that carries them.
    pub version: u64,
    pub tasks: BTreeMap<TaskId, Arc<Task>>,
    /// What is said beside the tasks, for those that need it.
    pub files: Files,
    pub withdrawn: BTreeSet<TaskId>,
    pub networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    pub mesh: Arc<Mesh>,
}

impl Assignments {
    /// All of them, to be sent.
    pub fn whole(&self) -> wire::Assignments {
        let (plain, with_files) = self.specs();
        let tasks = self.tasks.iter().map(|(id, task)| (id.clone(), task.with_spec_by_id()));
        let networks = self.networks.iter();
        let networks = networks.map(|(id, network)| (id.clone(), NetworkView::clone(network)));
        wire::Assignments {
            version: self.version,
            specs: said(plain),
            specs_with_files: said(with_files),
            secrets: self.files.secrets.clone().into(),
            configs: self.files.configs.clone().into(),
            tasks: tasks.collect(),
            withdrawn: self.withdrawn.clone(),
            knowledge: Knowledge { networks: networks.collect(), mesh: Mesh::clone(&self.mesh) },
        }
    }

    /// What the tasks are made from: without files, and with files.
    fn specs(&self) -> (Specs<'_>, Specs<'_>) {
        let specs = self.tasks.values().map(|task| (task.spec.id(), &task.spec));
        specs.partition(|(_, spec)| !spec.container.has_files())
    }
}

type Specs<'a> = BTreeMap<&'a SpecId, &'a SharedSpec>;

fn said(specs: Specs<'_>) -> Parts<SpecId, SharedSpec> {
    specs.into_iter().map(|(id, spec)| (id.clone(), spec.clone())).collect()
}

impl Topology {
    /// What `node` should have in the view that this topology is of, where it has been given these
    /// files.
    pub fn assignments(
        &self,
        view: &View,
        (node, files): (&NodeId, &Files),
        is_withdrawn: impl Fn(&TaskId) -> bool,
    ) -> Assignments {
        let mut assignments =
            Assignments { mesh: Arc::clone(&self.mesh), ..Assignments::default() };
        let there = |task: &&Arc<Task>| TaskState::Assigned <= task.status.state;
        for task in view.tasks_of_node(node).filter(there) {
            let attachments = task.attachments.iter().filter(|_| task.occupies());
            for id in attachments.map(|attachment| &attachment.network) {
                if let Some(network) = self.networks.get(id) {
                    assignments.networks.insert(id.clone(), Arc::clone(network));
                }
            }
            if is_withdrawn(&task.id) {
                assignments.withdrawn.insert(task.id.clone());
            }
            assignments.tasks.insert(task.id.clone(), Arc::clone(task));
        }
        assignments.files = Files::of(view, assignments.tasks.values(), files);
        assignments
    }
}
