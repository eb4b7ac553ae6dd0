//! What tasks are made from, as a node was told it in a session.

use crate::{Assignments, Difference, Parts};
use std::mem::take;
use types::{ConfigId, FileContent, SecretId, SharedSpec, SpecId};

/// What a difference says of it is applied here alone: what managers are held to in their tests is
/// what nodes do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Materials {
    specs: Parts<SpecId, SharedSpec>,
    specs_with_files: Parts<SpecId, SharedSpec>,
    /// What tasks need that are to start.
    pub secrets: Parts<SecretId, FileContent>,
    pub configs: Parts<ConfigId, FileContent>,
}

impl Materials {
    /// Takes them out of the whole of what a node should have.
    pub fn take_from(whole: &mut Assignments) -> Self {
        Self {
            specs: take(&mut whole.specs),
            specs_with_files: take(&mut whole.specs_with_files),
            secrets: take(&mut whole.secrets),
            configs: take(&mut whole.configs),
        }
    }

    /// Takes what is new or other out of the difference, and forgets what has gone.
    pub fn apply(&mut self, it: &mut Difference) {
        self.specs.apply(take(&mut it.specs), &it.removed_specs);
        self.specs_with_files.apply(take(&mut it.specs_with_files), &it.removed_specs);
        self.secrets.apply(take(&mut it.secrets), &it.removed_secrets);
        self.configs.apply(take(&mut it.configs), &it.removed_configs);
    }

    /// The spec of this id, or why it is not known.
    pub fn spec(&self, id: &SpecId) -> Result<&SharedSpec, &str> {
        let all = [&self.specs, &self.specs_with_files];
        let why = || all.iter().find_map(|specs| specs.why_not(id));
        let known = all.iter().find_map(|specs| specs.get(id));
        known.ok_or_else(|| why().unwrap_or("what it is made from was not said"))
    }

    fn put_into(self, whole: &mut Assignments) {
        whole.specs = self.specs;
        whole.specs_with_files = self.specs_with_files;
        whole.secrets = self.secrets;
        whole.configs = self.configs;
    }
}

impl Difference {
    /// Makes of what a node should have by the version `from` what it should have now.
    pub fn apply(mut self, assignments: &mut Assignments) {
        let mut materials = Materials::take_from(assignments);
        materials.apply(&mut self);
        materials.put_into(assignments);
        assignments.version = self.version;
        assignments.tasks.apply(self.tasks, &self.removed_tasks);
        if let Some(withdrawn) = self.withdrawn {
            assignments.withdrawn = withdrawn;
        }
        self.knowledge.apply(&mut assignments.knowledge);
    }

    /// Says whether a node has all of it already.
    pub fn is_empty(&self) -> bool {
        let nothing = Self { from: self.from, version: self.version, ..Self::default() };
        *self == nothing
    }
}
