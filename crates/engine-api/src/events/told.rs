//! One event of any source, and how it is shown.

use crate::json::network::local_id;
use engine::EventKind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Key;
use types::{Fault, Timestamp};

/// The object's `Version.Index` after the change, or the log's where it is gone: ours, beyond Docker.
const VERSION: &str = "version";

/// An event, whoever tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: &'static str,
    pub(super) action: String,
    pub(super) id: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) scope: &'static str,
    pub(super) time: Timestamp,
}

impl From<engine::Event> for Told {
    fn from(event: engine::Event) -> Self {
        let engine::Event { kind, action, id, attributes, time } = event;
        let id = match kind {
            // Those of the cluster have an id of their own.
            EventKind::Network if matches!(id.as_str(), "bridge" | "host" | "none") => {
                local_id(&id)
            }
            EventKind::Network
            | EventKind::Container
            | EventKind::Image
            | EventKind::Volume
            | EventKind::Audit => id,
        };
        Self { kind: kind.as_str(), action, id, attributes, scope: "local", time }
    }
}

impl From<Arc<store::Event>> for Told {
    fn from(event: Arc<store::Event>) -> Self {
        let (kind, id) = match &event.key {
            Key::Cluster(id) => ("cluster", id.to_string()),
            Key::Node(id) => ("node", id.to_string()),
            Key::Network(id) => ("network", id.to_string()),
            Key::Service(id) => ("service", id.to_string()),
            Key::Task(id) => ("task", id.to_string()),
            Key::Secret(id) => ("secret", id.to_string()),
            Key::Config(id) => ("config", id.to_string()),
        };
        let mut attributes = event.attributes.clone();
        attributes.insert(VERSION.to_owned(), event.version.0.to_string());
        let action = event.action.as_str().to_owned();
        Self { kind, action, id, attributes, scope: "swarm", time: event.time }
    }
}

pub(super) fn render(event: &Told) -> Value {
    let mut object = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": event.scope,
        "time": event.time.0 / 1_000_000_000,
        "timeNano": event.time.0,
    });
    // Older clients read these.
    if matches!(event.kind, "container" | "image") {
        object["status"] = event.action.clone().into();
        object["id"] = event.id.clone().into();
    }
    if event.kind == "container"
        && let Some(image) = event.attributes.get("image")
    {
        object["from"] = image.clone().into();
    }
    object
}

/// The last line of an answer that is broken off: an event that every client can read.
pub(super) fn end(node: &str, name: &str, fault: &Fault) -> Value {
    json!({
        "Type": "daemon",
        "Action": "watch_end",
        "Actor": { "ID": node, "Attributes": { "name": name, "reason": fault.message } },
        "scope": "local",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Action;
    use types::Version;

    #[test]
    fn an_event_of_the_cluster_is_shown_with_its_scope_and_version() {
        let event = store::Event {
            time: Timestamp(3_000_000_007),
            version: Version(9),
            key: Key::Service("s1".into()),
            action: Action::Update,
            attributes: [("name".to_owned(), "web".to_owned())].into(),
        };
        let expected = json!({
            "Type": "service",
            "Action": "update",
            "Actor": { "ID": "s1", "Attributes": { "name": "web", "version": "9" } },
            "scope": "swarm",
            "time": 3,
            "timeNano": 3_000_000_007_i64,
        });
        assert_eq!(render(&Arc::new(event).into()), expected);
    }

    #[test]
    fn an_event_of_a_container_has_what_older_clients_read() {
        let event = engine::Event {
            kind: EventKind::Container,
            action: "start".into(),
            id: "abc".into(),
            attributes: [("image".to_owned(), "web:1".to_owned())].into(),
            time: Timestamp(0),
        };
        let shown = render(&event.into());
        assert_eq!([&shown["status"], &shown["id"], &shown["from"]], ["start", "abc", "web:1"]);
        assert_eq!(shown["scope"], "local");
    }
}
