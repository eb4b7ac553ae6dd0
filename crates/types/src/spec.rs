//! A task's spec that many share.

use crate::TaskSpec;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// What tasks are made from: a service has one, and its tasks share it with the service. A clone
/// costs nothing; one that is written to becomes a copy of its own first.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SharedSpec(Arc<TaskSpec>);

impl fmt::Debug for SharedSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SharedSpec {
    /// Says whether both are one and the same object.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// As [`TaskSpec::makes_same`]; at once where both are one object.
    pub fn makes_same(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.0.makes_same(&other.0)
    }
}

impl From<TaskSpec> for SharedSpec {
    fn from(spec: TaskSpec) -> Self {
        Self(Arc::new(spec))
    }
}

impl Deref for SharedSpec {
    type Target = TaskSpec;

    fn deref(&self) -> &TaskSpec {
        &self.0
    }
}

impl DerefMut for SharedSpec {
    fn deref_mut(&mut self) -> &mut TaskSpec {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_shared_until_it_is_written_to() {
        let mut spec = SharedSpec::default();
        spec.container.image = "one".into();
        let mut other = spec.clone();
        assert!(other.is_shared_with(&spec) && other == spec);
        other.container.image = "two".into();
        assert!(other != spec && !other.makes_same(&spec));
        assert_eq!(spec.container.image, "one");
    }
}
