//! Generic resources, as services ask for them, tasks were given them and nodes have them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use types::{Amount, Fault, GenericReservations, GenericResources};

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "GenericResource", rename_all = "PascalCase", default)]
pub(super) struct GenericJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    discrete_resource_spec: Option<DiscreteJson>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename = "DiscreteGenericResource", rename_all = "PascalCase", default)]
struct DiscreteJson {
    kind: String,
    value: i64,
}

/// What a service asks for: so many of a kind. Which ones they are it cannot say, as in Docker.
pub(super) fn parse(all: Vec<GenericJson>) -> Result<GenericReservations, Fault> {
    let mut wanted = GenericReservations::new();
    for one in all {
        let Some(DiscreteJson { kind, value }) = one.discrete_resource_spec else {
            return Err(Fault::invalid("invalid argument for resource : it has no kind"));
        };
        if kind.is_empty() || kind.contains(['=', '\n', '\0']) {
            return Err(Fault::invalid(format!("invalid generic resource kind {kind:?}")));
        }
        let count = u64::try_from(value).map_err(|_negative| {
            Fault::invalid(format!("cannot ask for negative resource {kind}: {value}"))
        })?;
        let sum = wanted.entry(kind).or_default();
        *sum = sum.saturating_add(count);
    }
    Ok(wanted)
}

pub(super) fn render_wanted(wanted: &GenericReservations) -> Vec<GenericJson> {
    let one = |(kind, count): (&String, &u64)| GenericJson {
        discrete_resource_spec: Some(DiscreteJson {
            kind: kind.clone(),
            value: i64::try_from(*count).unwrap_or(i64::MAX),
        }),
    };
    wanted.iter().map(one).collect()
}

/// What a node has or a task was given; nothing is `null`.
pub(crate) fn render(resources: &GenericResources) -> Value {
    let mut all = Vec::new();
    for (kind, amount) in resources {
        match amount {
            Amount::Count(count) => {
                all.push(json!({ "DiscreteResourceSpec": { "Kind": kind, "Value": count } }));
            }
            Amount::Names(names) => all.extend(
                names
                    .iter()
                    .map(|name| json!({ "NamedResourceSpec": { "Kind": kind, "Value": name } })),
            ),
        }
    }
    if all.is_empty() { Value::Null } else { Value::Array(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GenericReservations, String> {
        parse(serde_json::from_str(text).unwrap()).map_err(|fault| fault.message)
    }

    #[test]
    fn a_service_asks_for_numbers_and_is_shown_them() {
        let gpu = r#"{"DiscreteResourceSpec":{"Kind":"gpu","Value":2}}"#;
        let wanted = read(&format!("[{gpu}]")).unwrap();
        assert_eq!(wanted, GenericReservations::from([("gpu".to_owned(), 2)]));
        assert_eq!(serde_json::to_string(&render_wanted(&wanted)).unwrap(), format!("[{gpu}]"));
        assert_eq!(read(&format!("[{gpu},{gpu}]")).unwrap()["gpu"], 4);
        for (text, said) in [
            (r#"{"DiscreteResourceSpec":{"Kind":"gpu","Value":-1}}"#, "negative resource gpu: -1"),
            (r#"{"DiscreteResourceSpec":{"Kind":"","Value":1}}"#, "kind \"\""),
            (r#"{"DiscreteResourceSpec":{"Kind":"a=b","Value":1}}"#, "kind \"a=b\""),
            ("{}", "it has no kind"),
        ] {
            let refused = read(&format!("[{text}]")).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }

    #[test]
    fn nodes_and_tasks_show_each_name() {
        let has = types::generic::parse(&["gpu=b", "gpu=a", "seat=3"]).unwrap();
        let named = |name: &str| json!({ "NamedResourceSpec": { "Kind": "gpu", "Value": name } });
        let seats = json!({ "DiscreteResourceSpec": { "Kind": "seat", "Value": 3 } });
        assert_eq!(render(&has), json!([named("a"), named("b"), seats]));
        assert_eq!(render(&GenericResources::new()), Value::Null);
    }
}
