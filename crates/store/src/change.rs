//! What a transaction changes: the content of a log entry.

use crate::index::is_job;
use crate::{Format, Key, Object, View};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use types::{Specs, UnknownSpec};

/// One object written or removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    Put(Object),
    Remove(Key),
}

impl Change {
    pub fn key(&self) -> Key {
        match self {
            Self::Put(object) => object.key(),
            Self::Remove(key) => key.clone(),
        }
    }

    /// The first format that has it.
    fn format(&self) -> Format {
        let since = self.key().since();
        match self {
            Self::Put(object) if is_job(object) => since.max(Format::JOBS),
            Self::Put(_) | Self::Remove(_) => since,
        }
    }
}

/// All that one transaction changes, in the order of kinds (a service comes before its tasks).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    pub changes: Vec<Change>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The format that they have in the log, where they change `view`: from the first object of a later
    /// one until the last of them is gone, nothing is written that a release reads which does not know it.
    pub fn format(&self, view: &View) -> Format {
        self.changes.iter().map(Change::format).fold(view.format(), Format::max)
    }

    /// The specs that tasks in it are made from and that `view`, which it changes, has not.
    pub fn new_specs(&self, view: &View) -> Specs {
        let tasks = self.changes.iter().filter_map(|change| match change {
            Change::Put(Object::Task(task)) => Some(&task.spec),
            Change::Put(
                Object::Cluster(_)
                | Object::Node(_)
                | Object::Network(_)
                | Object::Service(_)
                | Object::Secret(_)
                | Object::Config(_),
            )
            | Change::Remove(_) => None,
        });
        tasks.filter(|spec| view.spec(spec.id()).is_none()).collect()
    }

    /// The same, to be written where its [`new_specs`](Self::new_specs) stand beside: tasks have the
    /// id of their spec alone.
    #[must_use]
    pub fn with_specs_by_id(&self) -> Self {
        let changes = self.changes.iter().map(|change| match change {
            Change::Put(object) => Change::Put(object.with_spec_by_id()),
            Change::Remove(key) => Change::Remove(key.clone()),
        });
        Self { changes: changes.collect() }
    }

    /// Gives the tasks of which only the spec's id was read the whole: what stands `beside`, or what
    /// `view`, which it changes, has.
    pub fn give_specs(&mut self, beside: &Specs, view: &View) -> Result<(), UnknownSpec> {
        for change in &mut self.changes {
            if let Change::Put(object) = change {
                object.give_spec(beside, view)?;
            }
        }
        Ok(())
    }
}

impl Object {
    fn with_spec_by_id(&self) -> Self {
        match self {
            Self::Task(task) => Self::Task(Arc::new(task.with_spec_by_id())),
            Self::Cluster(_)
            | Self::Node(_)
            | Self::Network(_)
            | Self::Service(_)
            | Self::Secret(_)
            | Self::Config(_) => self.clone(),
        }
    }

    pub(crate) fn give_spec(&mut self, beside: &Specs, view: &View) -> Result<(), UnknownSpec> {
        match self {
            Self::Task(task) if !task.spec.is_known() => {
                beside.give(Arc::make_mut(task), |id| view.spec(id))
            }
            Self::Task(_)
            | Self::Cluster(_)
            | Self::Node(_)
            | Self::Network(_)
            | Self::Service(_)
            | Self::Secret(_)
            | Self::Config(_) => Ok(()),
        }
    }
}
