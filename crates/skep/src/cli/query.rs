//! What the CLI asks with: filters, references, words out of JSON.

use crate::client::escape;
use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

/// Turns `--filter KEY=VALUE` into the query's `filters`; `more` are the CLI's own.
pub(crate) fn filters(wanted: &[String], more: &[(&str, &str)]) -> Result<String> {
    let mut map: Map<String, Value> = Map::new();
    let mut add = |key: &str, value: &str| {
        let values = map.entry(key.to_owned()).or_insert_with(|| json!({}));
        values[value] = true.into();
    };
    for filter in wanted {
        match filter.split_once('=') {
            Some((key, value)) => add(key.trim().to_lowercase().as_str(), value.trim()),
            None => bail!(
                "invalid argument {filter:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"
            ),
        }
    }
    for (key, value) in more {
        add(key, value);
    }
    Ok(escape(&Value::Object(map).to_string()))
}

/// A string out of JSON; empty where it is not there.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number out of JSON; 0 where it is not there.
pub(crate) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The items of a list in JSON; none where it is not there.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Names with values out of JSON, as `a=b,c=d`.
pub(crate) fn labels(value: &Value, pointer: &str) -> String {
    let Some(map) = value.pointer(pointer).and_then(Value::as_object) else {
        return String::new();
    };
    let pair =
        |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    map.iter().map(pair).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_the_apis_json() {
        let text = filters(&["name=web".into(), "label=a=b".into()], &[("name", "db")]).unwrap();
        let json = r#"{"name":{"web":true,"db":true},"label":{"a=b":true}}"#;
        assert_eq!(text, escape(json));
        assert!(filters(&["name".into()], &[]).is_err());
    }
}
