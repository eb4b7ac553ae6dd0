//! Parts of a message that are read one by one: one that this release does not understand (it has a
//! kind of mount, say, that came later) costs none of the others.

use crate::{decode, encode};
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

/// A map whose values are read one by one: it is written as a map from keys to bytes. As a map it is
/// of what was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<K, V> {
    understood: BTreeMap<K, V>,
    /// Why each of the others was not.
    others: BTreeMap<K, String>,
}

impl<K: Ord, V> Parts<K, V> {
    /// What was understood, and why the rest was not.
    pub fn divide(self) -> (BTreeMap<K, V>, BTreeMap<K, String>) {
        (self.understood, self.others)
    }

    /// Why this part was not understood, where it was not.
    pub fn why_not(&self, key: &K) -> Option<&str> {
        self.others.get(key).map(String::as_str)
    }

    /// Takes what is new or other, and forgets what has gone.
    pub fn apply(&mut self, changed: Self, gone: &BTreeSet<K>) {
        self.understood.retain(|key, _| !gone.contains(key) && !changed.others.contains_key(key));
        self.others.retain(|key, _| !gone.contains(key) && !changed.understood.contains_key(key));
        self.understood.extend(changed.understood);
        self.others.extend(changed.others);
    }
}

impl<K, V> Default for Parts<K, V> {
    fn default() -> Self {
        BTreeMap::new().into()
    }
}

impl<K, V> From<BTreeMap<K, V>> for Parts<K, V> {
    fn from(understood: BTreeMap<K, V>) -> Self {
        Self { understood, others: BTreeMap::new() }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Parts<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(parts: I) -> Self {
        parts.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<K, V> Deref for Parts<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.understood
    }
}

impl<K, V> DerefMut for Parts<K, V> {
    fn deref_mut(&mut self) -> &mut BTreeMap<K, V> {
        &mut self.understood
    }
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Octets(#[serde(with = "types::octets")] Vec<u8>);

impl<K: Serialize, V: Serialize> Serialize for Parts<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = self.understood.iter();
        let parts = parts.map(|(key, value)| encode(value).map(|bytes| (key, Octets(bytes))));
        let parts: Result<Vec<_>, _> = parts.collect();
        serializer.collect_map(parts.map_err(S::Error::custom)?)
    }
}

impl<'de, K, V> Deserialize<'de> for Parts<K, V>
where
    K: DeserializeOwned + Ord,
    V: DeserializeOwned,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut parts = Self::default();
        for (key, Octets(bytes)) in BTreeMap::<K, Octets>::deserialize(deserializer)? {
            match decode(&bytes) {
                Ok(value) => drop(parts.understood.insert(key, value)),
                Err(error) => drop(parts.others.insert(key, error.to_string())),
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Newer {
        kind: &'static str,
    }

    type Mounts = Parts<String, types::Mount>;

    fn read(kinds: &[(&str, &'static str)]) -> Mounts {
        let sent = kinds.iter().map(|(key, kind)| (*key, Newer { kind }));
        decode(&encode(&sent.collect::<Parts<_, _>>()).unwrap()).unwrap()
    }

    #[test]
    fn a_part_that_is_not_understood_costs_no_other() {
        let mounts = read(&[("a", "bind"), ("b", "cluster")]);
        assert_eq!(mounts["a"].kind, types::MountKind::Bind);
        let why = mounts.why_not(&"b".to_owned()).unwrap();
        assert!(why.contains("unknown variant `cluster`"), "{why}");
        assert_eq!(mounts.why_not(&"a".to_owned()), None);
    }

    #[test]
    fn what_changes_takes_the_place_of_what_was_there_understood_or_not() {
        let mut mounts = read(&[("a", "bind"), ("b", "cluster"), ("c", "bind"), ("d", "cluster")]);
        let gone = ["c", "d"].map(str::to_owned).into();
        mounts.apply(read(&[("a", "cluster"), ("b", "volume")]), &gone);
        let (understood, others) = mounts.divide();
        assert_eq!(understood.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(others.keys().collect::<Vec<_>>(), ["a"]);
    }
}
