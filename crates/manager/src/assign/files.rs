//! The secrets and configs that a node is given, and no others.

use crate::control::file::StoredFile;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::View;
use types::{
    Config, ConfigId, ContainerSpec, DesiredState, FileContent, GivenFile, Secret, SecretId, Task,
    TaskState,
};

/// Bytes for one node at a time. A task for which there is no place is rejected by the node, in words,
/// and tried again: by then others have started.
const BYTES_MAX: usize = 32 << 20;

/// What the tasks of a node need to start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    pub secrets: BTreeMap<SecretId, FileContent>,
    pub configs: BTreeMap<ConfigId, FileContent>,
    bytes: usize,
}

impl Files {
    /// What these tasks need, each all of it or nothing. Those that had theirs `before` keep them; of
    /// the others, those come first that are further on their way.
    pub(super) fn of<'a>(
        view: &View,
        tasks: impl Iterator<Item = &'a Arc<Task>>,
        before: &Self,
    ) -> Self {
        let mut waiting: Vec<&Task> =
            tasks.map(AsRef::as_ref).filter(|it| is_to_start(it)).collect();
        waiting.sort_by_cached_key(|task| {
            let had = before.has_all(&task.spec.container);
            (!had, Reverse(task.status.state), task.id.clone())
        });
        let mut files = Self::default();
        for task in waiting {
            files.add(view, &task.spec.container);
        }
        files
    }

    fn add(&mut self, view: &View, container: &ContainerSpec) {
        let secrets = lacking::<Secret>(&self.secrets, view, container);
        let configs = lacking::<Config>(&self.configs, view, container);
        let bytes = self.bytes + bytes(&secrets) + bytes(&configs);
        if bytes <= BYTES_MAX {
            self.secrets.extend(secrets);
            self.configs.extend(configs);
            self.bytes = bytes;
        }
    }

    /// Says whether all that a container needs is here.
    pub(super) fn has_all(&self, container: &ContainerSpec) -> bool {
        container.secrets.iter().all(|it| self.secrets.contains_key(&it.id))
            && container.configs.iter().all(|it| self.configs.contains_key(&it.id))
    }
}

/// One that has started has its files, unless others take their place, and one that is to stop gets none.
fn is_to_start(task: &Task) -> bool {
    match task.desired {
        DesiredState::Ready | DesiredState::Running => {
            let is_due =
                task.status.state < TaskState::Running || task.due_refresh(&task.status).is_some();
            task.spec.container.has_files() && is_due
        }
        DesiredState::Shutdown | DesiredState::Remove => false,
    }
}

/// What a container refers to and is not in `files`.
fn lacking<T: StoredFile>(
    files: &BTreeMap<<T as GivenFile>::Id, FileContent>,
    view: &View,
    container: &ContainerSpec,
) -> BTreeMap<<T as GivenFile>::Id, FileContent> {
    let all = T::references(container).iter().filter(|it| !files.contains_key(&it.id));
    let there = all.filter_map(|it| Some((it.id.clone(), view.get::<T>(&it.id)?)));
    there.map(|(id, file)| (id, file.spec().content.clone())).collect()
}

fn bytes<I>(contents: &BTreeMap<I, FileContent>) -> usize {
    contents.values().map(|content| content.data.len()).sum()
}
