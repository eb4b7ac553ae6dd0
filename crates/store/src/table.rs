//! The kinds of stored objects: here stands, once, all that is the same for each of them.
//!
//! A further kind is one line in `tables!`. Where kinds differ, the compiler asks for it: what only
//! one object may have is in `claim`, what is looked up otherwise than by id in `index`.

use crate::diff::differing;
use crate::{Format, StoredHistory};
use imbl::OrdMap;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;
use types::{
    Cluster, ClusterId, Config, ConfigId, Meta, Network, NetworkId, Node, NodeId, Secret, SecretId,
    Service, ServiceId, Specs, Task, TaskId, Timestamp, Version,
};

/// A kind of stored object.
pub trait Record: Clone + PartialEq + 'static {
    type Id: Clone + Ord + 'static;

    fn id(&self) -> &Self::Id;
    /// The key of the object of this id.
    fn key(id: &Self::Id) -> Key;
    /// The id in a key, if it is one of this kind.
    fn id_in(key: &Key) -> Option<&Self::Id>;
    fn object(self: Arc<Self>) -> Object;
    #[doc(hidden)]
    fn table(tables: &Tables) -> &Table<Self>;
}

/// All objects of one kind.
pub(crate) type Table<T> = OrdMap<<T as Record>::Id, Arc<T>>;

/// Writes out what has an arm or a field for each kind.
macro_rules! tables {
    ($($kind:ident($id:ident) in $(#[$stored:meta])* $table:ident, named $word:literal, since $since:literal;)*) => {
        /// Names a stored object.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Key {
            $($kind($id),)*
        }

        impl Key {
            /// What people read of the object: its kind and its id.
            pub fn name(&self) -> String {
                match self {
                    $(Self::$kind(id) => format!(concat!($word, " {}"), id),)*
                }
            }

            /// The first format that has objects of this kind.
            pub(crate) fn since(&self) -> Format {
                match self {
                    $(Self::$kind(_) => Format($since),)*
                }
            }
        }

        impl Object {
            /// The first format that has objects of its kind.
            pub(crate) fn kind_since(&self) -> Format {
                match self {
                    $(Self::$kind(_) => Format($since),)*
                }
            }
        }

        /// A stored object.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Object {
            $($kind(Arc<$kind>),)*
        }

        impl Object {
            pub fn key(&self) -> Key {
                match self {
                    $(Self::$kind(object) => Key::$kind(object.id.clone()),)*
                }
            }

            pub fn meta(&self) -> &Meta {
                match self {
                    $(Self::$kind(object) => &object.meta,)*
                }
            }

            /// One of each kind, of this id and with nothing else.
            #[cfg(test)]
            pub(crate) fn one_of_each(id: &str) -> Vec<Self> {
                vec![$(Self::$kind(Arc::new($kind { id: id.into(), ..$kind::default() })),)*]
            }

            /// The same object with another meta.
            #[must_use]
            pub(crate) fn with_meta(mut self, meta: Meta) -> Self {
                match &mut self {
                    $(Self::$kind(object) => Arc::make_mut(object).meta = meta,)*
                }
                self
            }
        }

        $(
            impl Record for $kind {
                type Id = $id;

                fn id(&self) -> &$id {
                    &self.id
                }

                fn key(id: &$id) -> Key {
                    Key::$kind(id.clone())
                }

                fn id_in(key: &Key) -> Option<&$id> {
                    if let Key::$kind(id) = key { Some(id) } else { None }
                }

                fn object(self: Arc<Self>) -> Object {
                    Object::$kind(self)
                }

                fn table(tables: &Tables) -> &Table<Self> {
                    &tables.$table
                }
            }
        )*

        /// All objects of all kinds.
        #[derive(Clone, Debug, Default)]
        pub struct Tables {
            $($table: Table<$kind>,)*
        }

        impl Tables {
            pub(crate) fn get(&self, key: &Key) -> Option<Object> {
                match key {
                    $(Key::$kind(id) => self.$table.get(id).cloned().map(Object::$kind),)*
                }
            }

            /// Stores an object and returns the one that had its id.
            pub(crate) fn insert(&mut self, object: Object) -> Option<Object> {
                match object {
                    $(Object::$kind(object) => {
                        self.$table.insert(object.id.clone(), object).map(Object::$kind)
                    })*
                }
            }

            /// The keys of the objects that differ, in the order of kinds.
            pub(crate) fn changes_since<'a>(
                &'a self,
                before: &'a Self,
            ) -> impl Iterator<Item = Key> {
                let keys = std::iter::empty();
                $(let keys = keys.chain(differing::<$kind>(&before.$table, &self.$table));)*
                keys
            }

            #[cfg(test)]
            pub(crate) fn objects(&self) -> impl Iterator<Item = Object> {
                let objects = std::iter::empty();
                $(let objects = objects.chain(self.$table.values().cloned().map(Object::$kind));)*
                objects
            }

            pub(crate) fn remove(&mut self, key: &Key) -> Option<Object> {
                match key {
                    $(Key::$kind(id) => self.$table.remove(id).map(Object::$kind),)*
                }
            }
        }

        /// A view as it is written to disk or sent to another manager: all objects and the version.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Snapshot {
            pub format: Format,
            pub version: Version,
            pub time: Timestamp,
            /// What the tasks are made from, which name it by its id alone.
            pub specs: Specs,
            /// `None`: a release wrote it that kept none.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub history: Option<StoredHistory>,
            $($(#[$stored])* $table: Vec<Arc<$kind>>,)*
        }

        impl Snapshot {
            pub(crate) fn new(
                format: Format,
                (version, time): (Version, Timestamp),
                specs: Specs,
                (history, tables): (Option<StoredHistory>, &Tables),
            ) -> Self {
                Self { format, version, time, specs, history, $($table: tables.$table.values().cloned().collect(),)* }
            }

            pub(crate) fn objects(self) -> impl Iterator<Item = Object> {
                let objects = std::iter::empty();
                $(let objects = objects.chain(self.$table.into_iter().map(Object::$kind));)*
                objects
            }
        }
    };
}

// In the order in which they are written: a service comes before its tasks.
tables! {
    Cluster(ClusterId) in #[serde(rename = "cluster", with = "one_or_none")] clusters, named "cluster", since 1;
    Node(NodeId) in nodes, named "node", since 1;
    Network(NetworkId) in networks, named "network", since 1;
    Service(ServiceId) in services, named "service", since 1;
    Task(TaskId) in #[serde(serialize_with = "with_specs_by_id")] tasks, named "task", since 1;
    Secret(SecretId) in secrets, named "secret", since 3;
    Config(ConfigId) in configs, named "config", since 3;
}

/// One after the other, so that there is never a second list of all tasks.
fn with_specs_by_id<S: Serializer>(tasks: &[Arc<Task>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tasks.iter().map(|task| task.with_spec_by_id()))
}

/// There is one cluster: it is stored by itself, not as a list.
mod one_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T, S>(list: &[T], serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        list.first().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Option::deserialize(deserializer)?.into_iter().collect())
    }
}
