//! A task's spec that many share, and its id.
//!
//! Where many tasks are written, each names its spec by the id alone, and the spec stands beside
//! them, once for all that are made from it: see [`Specs`]. A task that is written otherwise has its
//! whole spec in it, so that nobody loses one by carelessness.

use crate::{SpecId, Task, TaskSpec};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock, OnceLock};

/// What tasks are made from: a service has one, and its tasks share it with the service. A clone
/// costs nothing; one that is written to becomes a copy of its own first.
///
/// One of which only the id was read is empty until it is given: see [`Specs::give`].
#[derive(Clone, Default)]
pub struct SharedSpec(Arc<Content>);

#[derive(Clone)]
struct Content {
    /// Drawn from the spec when it is first asked for, or read with it.
    id: OnceLock<SpecId>,
    /// The id of what makes the same task, with every default written out.
    makes: OnceLock<SpecId>,
    /// `None`: only its id was read.
    spec: Option<TaskSpec>,
}

impl Default for Content {
    fn default() -> Self {
        let (id, makes) = Default::default();
        Self { id, makes, spec: Some(TaskSpec::default()) }
    }
}

impl SharedSpec {
    /// One of which only the id is known.
    fn named(id: SpecId) -> Self {
        Self(Arc::new(Content { id: id.into(), spec: None, ..Content::default() }))
    }

    /// The digest of its content. (One that was read has the id it was written with: another
    /// release may write the same content otherwise.)
    pub fn id(&self) -> &SpecId {
        self.0.id.get_or_init(|| SpecId::of(self))
    }

    /// Its id alone, to be written where the spec stands beside.
    #[must_use]
    pub fn by_id(&self) -> Self {
        Self::named(self.id().clone())
    }

    /// Says whether there is more than its id.
    pub fn is_known(&self) -> bool {
        self.0.spec.is_some()
    }

    /// Says whether both are one and the same object.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// As [`TaskSpec::makes_same`]. Each of them is spelled out once, however often this is asked.
    pub fn makes_same(&self, other: &Self) -> bool {
        self.is_shared_with(other) || self.makes() == other.makes()
    }

    fn makes(&self) -> &SpecId {
        self.0.makes.get_or_init(|| SpecId::of(&self.spelled_out()))
    }
}

impl fmt::Debug for SharedSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.spec {
            Some(spec) => spec.fmt(f),
            None => self.id().fmt(f),
        }
    }
}

impl Eq for SharedSpec {}

impl PartialEq for SharedSpec {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other)
            || match (&self.0.spec, &other.0.spec) {
                (Some(one), Some(two)) => one == two,
                (None, _) | (_, None) => self.id() == other.id(),
            }
    }
}

impl From<TaskSpec> for SharedSpec {
    fn from(spec: TaskSpec) -> Self {
        Self(Arc::new(Content { spec: Some(spec), ..Content::default() }))
    }
}

impl Deref for SharedSpec {
    type Target = TaskSpec;

    fn deref(&self) -> &TaskSpec {
        static EMPTY: LazyLock<TaskSpec> = LazyLock::new(TaskSpec::default);
        self.0.spec.as_ref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for SharedSpec {
    fn deref_mut(&mut self) -> &mut TaskSpec {
        let content = Arc::make_mut(&mut self.0);
        content.id.take();
        content.makes.take();
        content.spec.get_or_insert_default()
    }
}

/// With all that is in it, or, where only its id is known, as that.
impl Serialize for SharedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.spec {
            Some(spec) => spec.serialize(serializer),
            None => self.id().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SharedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpecOrId)
    }
}

struct SpecOrId;

impl<'de> Visitor<'de> for SpecOrId {
    type Value = SharedSpec;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a task's spec, or its id")
    }

    fn visit_str<E>(self, id: &str) -> Result<SharedSpec, E> {
        Ok(SharedSpec::named(id.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SharedSpec, A::Error> {
        TaskSpec::deserialize(MapAccessDeserializer::new(map)).map(SharedSpec::from)
    }
}

/// The specs that stand beside tasks, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Specs(BTreeMap<SpecId, SharedSpec>);

/// A task names a spec that is nowhere to be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} is made from the spec {spec}, which is not known here")]
pub struct UnknownSpec {
    pub task: crate::TaskId,
    pub spec: SpecId,
}

impl Specs {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, id: &SpecId) -> Option<&SharedSpec> {
        self.0.get(id)
    }

    /// Adds a spec that is known.
    pub fn add(&mut self, spec: &SharedSpec) {
        if spec.is_known() && !self.0.contains_key(spec.id()) {
            self.0.insert(spec.id().clone(), spec.clone());
        }
    }

    /// Gives a task of which only the spec's id was read the whole: one of these, or what `known`
    /// says.
    pub fn give<'a>(
        &'a self,
        task: &mut Task,
        known: impl FnOnce(&SpecId) -> Option<&'a SharedSpec>,
    ) -> Result<(), UnknownSpec> {
        if task.spec.is_known() {
            return Ok(());
        }
        let id = task.spec.id();
        let unknown = || UnknownSpec { task: task.id.clone(), spec: id.clone() };
        task.spec = self.get(id).or_else(|| known(id)).ok_or_else(unknown)?.clone();
        Ok(())
    }
}

/// Those of tasks that share one are one.
impl<'a> FromIterator<&'a SharedSpec> for Specs {
    fn from_iter<I: IntoIterator<Item = &'a SharedSpec>>(specs: I) -> Self {
        let mut all = Self::default();
        specs.into_iter().for_each(|spec| all.add(spec));
        all
    }
}

impl<'de> Deserialize<'de> for Specs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<SpecId, SharedSpec>::deserialize(deserializer).map(Self::from)
    }
}

/// They have these ids from now on, unless they have been asked for theirs.
impl From<BTreeMap<SpecId, SharedSpec>> for Specs {
    fn from(specs: BTreeMap<SpecId, SharedSpec>) -> Self {
        for (id, spec) in &specs {
            drop(spec.0.id.set(id.clone()));
        }
        Self(specs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(image: &str) -> SharedSpec {
        let mut spec = SharedSpec::default();
        spec.container.image = image.into();
        spec
    }

    #[test]
    fn a_clone_is_shared_until_it_is_written_to() {
        let spec = spec("one");
        let mut other = spec.clone();
        assert!(other.is_shared_with(&spec) && other == spec && other.id() == spec.id());
        other.container.image = "two".into();
        assert!(other != spec && !other.makes_same(&spec) && other.id() != spec.id());
        assert_eq!(spec.container.image, "one");
        other.container.image = "one".into();
        assert_eq!(other.id(), spec.id());
        assert!(other.makes_same(&spec) && !other.is_shared_with(&spec));
    }

    #[test]
    fn a_task_that_is_written_with_the_id_of_its_spec_gets_it_back() {
        let task = Task { id: "t1".into(), spec: spec("a very long name"), ..Task::default() };
        let bytes = msgpack::encode(&task.with_spec_by_id()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("a very long name"));
        let mut read: Task = msgpack::decode(&bytes).unwrap();
        assert!(!read.spec.is_known() && read.spec.id() == task.spec.id());
        let error = Specs::default().give(&mut read, |_| None).unwrap_err();
        assert_eq!(error.spec, *task.spec.id());
        let beside: Specs = [&task.spec].into_iter().collect();
        let beside = msgpack::encode(&beside).unwrap();
        let beside: Specs = msgpack::decode(&beside).unwrap();
        beside.give(&mut read, |_| None).unwrap();
        assert_eq!(read, task);
        assert_eq!(read.spec.container.image, "a very long name");
    }

    #[test]
    fn a_spec_keeps_the_id_that_it_was_written_with() {
        let written = BTreeMap::from([("another-digest", spec("one"))]);
        let bytes = msgpack::encode(&written).unwrap();
        let read: Specs = msgpack::decode(&bytes).unwrap();
        assert_eq!(read.get(&"another-digest".into()).unwrap().id().as_str(), "another-digest");
    }

    #[test]
    fn a_task_that_is_written_as_it_is_has_its_spec_inside() {
        let task = Task { id: "t1".into(), spec: spec("one"), ..Task::default() };
        let bytes = msgpack::encode(&task).unwrap();
        let read: Task = msgpack::decode(&bytes).unwrap();
        assert!(read.spec.is_known() && read == task);
    }
}
