//! What tasks need of secrets and configs, as managers have said it. It is in memory alone.

use std::collections::BTreeMap;
use types::{Config, ConfigId, ContainerSpec, FileContent, GivenFile, Secret, SecretId};
use wire::Parts;

/// What is in the files of a task, or of all tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub secrets: BTreeMap<SecretId, FileContent>,
    pub configs: BTreeMap<ConfigId, FileContent>,
}

impl Files {
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.configs.is_empty()
    }

    /// Says what of a container's is not there, if anything.
    pub fn missing(&self, container: &ContainerSpec) -> Option<String> {
        missing::<Secret>(&self.secrets, container)
            .or_else(|| missing::<Config>(&self.configs, container))
    }
}

fn missing<T: GivenFile>(
    known: &BTreeMap<T::Id, FileContent>,
    container: &ContainerSpec,
) -> Option<String> {
    let mut all = T::references(container).iter();
    let lost = all.find(|reference| !known.contains_key(&reference.id))?;
    let (word, name) = (T::WORD, &lost.name);
    Some(format!(
        "{word} {name} is not there: it was removed, or too much is to start on this node"
    ))
}

/// Those of `known` that a container refers to.
pub(crate) fn of_container<T: GivenFile>(
    known: &Parts<T::Id, FileContent>,
    container: &ContainerSpec,
) -> BTreeMap<T::Id, FileContent> {
    let all = T::references(container).iter();
    let found = all.filter_map(|it| Some((it.id.clone(), known.get(&it.id)?.clone())));
    found.collect()
}
