//! Docker's JSON: parsed into the cluster's words and rendered from them. Pure.
//!
//! It lives here and nowhere else. Fields that Skep does not know are ignored on the way in, as
//! Docker does; features that it knows but does not have are refused by name.

pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod container_create;
pub(crate) mod container_spec;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod service;
pub(crate) mod task;
pub(crate) mod task_template;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::time::Duration;
use types::Meta;

/// Reads `null` as the default, as Go does.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A duration from Go's nanoseconds; negative ones are zero.
pub(crate) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
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
