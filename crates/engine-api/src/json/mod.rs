//! Docker's JSON: parsed into the cluster's words and rendered from them. Pure.
//!
//! It lives here and nowhere else. A field that a struct has is honoured; what becomes of Docker's
//! other fields stands in [`crate::request`]'s table.

pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod container_create;
pub(crate) mod container_options;
pub(crate) mod container_spec;
pub(crate) mod file;
pub(crate) mod generic;
pub(crate) mod image;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod node;
mod node_access;
pub(crate) mod privileges;
pub(crate) mod service;
pub(crate) mod task;
pub(crate) mod task_template;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;
use types::{FOREVER, Fault, Meta};

/// A command as Docker reads it: a list of words, or one word alone.
#[derive(Debug, Default)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_unit<E>(self) -> Result<Words, E> {
                Ok(Words::default())
            }

            fn visit_str<E>(self, word: &str) -> Result<Words, E> {
                Ok(Words(vec![word.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Words, A::Error> {
                let mut list = Vec::new();
                while let Some(word) = words.next_element()? {
                    list.push(word);
                }
                Ok(Words(list))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// Go's words for yes and no.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A duration from Go's nanoseconds; negative ones are zero.
pub(crate) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// A duration that must not be negative, refused in Docker's words otherwise, and with what was said.
pub(crate) fn not_negative(what: &str, nanos: i64) -> Result<Duration, Fault> {
    let negative = |_| Fault::invalid(format!("{what} cannot be negative: {nanos}"));
    u64::try_from(nanos).map(Duration::from_nanos).map_err(negative)
}

/// How long a container that was asked to end is waited for, in Go's nanoseconds; for a negative
/// time: for ever.
pub(crate) fn grace(nanos: i64) -> Duration {
    u64::try_from(nanos).map_or(FOREVER, Duration::from_nanos)
}

/// The same as Go has it.
pub(crate) fn grace_nanos(grace: Duration) -> i64 {
    if grace == FOREVER { -1_000_000_000 } else { nanos(grace) }
}

/// A duration as Go's nanoseconds.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Adds what every stored object shows: its version and times.
pub(crate) fn with_meta(mut object: Value, meta: &Meta) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("Version".into(), json!({ "Index": meta.version.0 }));
        map.insert("CreatedAt".into(), meta.created_at.rfc3339().into());
        map.insert("UpdatedAt".into(), meta.updated_at.rfc3339().into());
    }
    object
}
