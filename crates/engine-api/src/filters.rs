//! The `filters` query parameter: which objects a list shows.

use std::collections::{BTreeMap, BTreeSet};
use types::{Fault, Labels};

/// Wanted values by filter name. Values of one name are alternatives, names are conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads `{"name":{"a":true}}`, or the older `{"name":["a"]}`; knows only `allowed` names.
    pub(crate) fn parse(text: Option<&str>, allowed: &[&str]) -> Result<Self, Fault> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let wrong = || Fault::invalid("invalid filters: use a JSON object of names and values");
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|_syntax| wrong())?;
        let mut filters = BTreeMap::new();
        for (name, values) in object {
            if !allowed.contains(&name.as_str()) {
                return Err(Fault::invalid(format!("invalid filter '{name}'")));
            }
            let values: BTreeSet<String> = match values {
                serde_json::Value::Object(map) => {
                    map.into_iter().filter(|(_, on)| on != false).map(|(value, _)| value).collect()
                }
                serde_json::Value::Array(list) => list
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect::<Result<_, _>>()?,
                _ => return Err(wrong()),
            };
            if !values.is_empty() {
                filters.insert(name, values);
            }
        }
        Ok(Self(filters))
    }

    /// The wanted values of a filter; `None` where it is not set.
    pub(crate) fn values(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.0.get(name)
    }

    /// Says whether the filter is not set, or `holds` for one of its values.
    pub(crate) fn any(&self, name: &str, holds: impl Fn(&str) -> bool) -> bool {
        self.values(name).is_none_or(|values| values.iter().any(|value| holds(value)))
    }

    /// Says whether all wanted `KEY` or `KEY=VALUE` are among `labels`.
    pub(crate) fn labels(&self, name: &str, labels: &Labels) -> bool {
        self.values(name).is_none_or(|values| {
            values.iter().all(|wanted| match wanted.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
                None => labels.contains_key(wanted),
            })
        })
    }

    /// The boolean value of a filter, as Docker reads it.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(values) = self.values(name) else { return Ok(None) };
        let read = |value: &String| match value.as_str() {
            "1" | "t" | "true" | "True" | "TRUE" => Ok(true),
            "0" | "f" | "false" | "False" | "FALSE" => Ok(false),
            other => Err(Fault::invalid(format!("invalid filter '{name}={other}'"))),
        };
        values.iter().next().map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_unknown_names_are_refused() {
        let map = Filters::parse(Some(r#"{"name":{"a":true,"b":true}}"#), &["name"]).unwrap();
        let list = Filters::parse(Some(r#"{"name":["a","b"]}"#), &["name"]).unwrap();
        assert_eq!(map, list);
        assert!(map.any("name", |value| value == "b"));
        assert!(!map.any("name", |value| value == "c"));
        let fault = Filters::parse(Some(r#"{"colour":["red"]}"#), &["name"]).unwrap_err();
        assert_eq!(fault.message, "invalid filter 'colour'");
        assert!(Filters::parse(Some("["), &[]).is_err());
    }

    #[test]
    fn labels_must_all_be_there() {
        let filters = Filters::parse(Some(r#"{"label":["a=1","b"]}"#), &["label"]).unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<Labels>()
        };
        assert!(filters.labels("label", &labels(&[("a", "1"), ("b", "x")])));
        assert!(!filters.labels("label", &labels(&[("a", "1")])));
        assert!(!filters.labels("label", &labels(&[("a", "2"), ("b", "x")])));
    }
}
