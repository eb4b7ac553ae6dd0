//! The secrets and configs that a node is given, and no others.

use crate::control::file::StoredFile;
use std::collections::BTreeMap;
use store::View;
use types::{
    Config, ConfigId, ContainerSpec, DesiredState, FileContent, GivenFile, Secret, SecretId, Task,
    TaskState,
};

/// Bytes for one node at a time. Tasks for which there is no place are rejected by the node, and
/// tried again: by then others have started.
const BYTES_MAX: usize = 32 << 20;

/// What the tasks of a node need to start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    pub secrets: BTreeMap<SecretId, FileContent>,
    pub configs: BTreeMap<ConfigId, FileContent>,
    bytes: usize,
}

impl Files {
    /// Adds what a task needs. One that has started has its files, and one that is to stop gets none.
    pub(super) fn add(&mut self, view: &View, task: &Task) {
        let is_to_start = match task.desired {
            DesiredState::Ready | DesiredState::Running => task.status.state < TaskState::Running,
            DesiredState::Shutdown | DesiredState::Remove => false,
        };
        if is_to_start {
            let container = &task.spec.container;
            add::<Secret>(&mut self.secrets, &mut self.bytes, view, container);
            add::<Config>(&mut self.configs, &mut self.bytes, view, container);
        }
    }
}

fn add<T: StoredFile>(
    files: &mut BTreeMap<<T as GivenFile>::Id, FileContent>,
    bytes: &mut usize,
    view: &View,
    container: &ContainerSpec,
) {
    for reference in T::references(container) {
        let Some(file) = view.get::<T>(&reference.id) else { continue };
        let content = &file.spec().content;
        let more = content.data.len();
        if !files.contains_key(&reference.id) && *bytes + more <= BYTES_MAX {
            *bytes += more;
            files.insert(reference.id.clone(), content.clone());
        }
    }
}
