//! Which events are wanted, and from which sources they can come.

use super::told::Told;
use crate::request::table::filters::Filters;

/// Whom to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    /// This node's engine.
    pub(super) local: bool,
    /// The cluster's log.
    pub(super) swarm: bool,
    /// Who did what. Not for those who follow everything: no tool of Docker's expects it.
    pub(super) audit: bool,
}

/// Kinds of each source.
const LOCAL: &[&str] = &["container", "image", "network", "volume"];
const SWARM: &[&str] = &["config", "network", "node", "secret", "service"];

impl Sources {
    pub(super) fn of(filters: &Filters) -> Self {
        let can_be = |scope: &str, kinds: &[&str]| {
            filters.all(|name, wanted| match name {
                "scope" => wanted.is(scope),
                "type" => wanted.any(|kind| kinds.contains(&kind)),
                // An object's name.
                "container" | "image" | "volume" | "network" | "config" | "node" | "secret"
                | "service" => kinds.contains(&name),
                _ => true,
            })
        };
        Self {
            local: can_be("local", LOCAL),
            swarm: can_be("swarm", SWARM),
            audit: filters.get("type").is_some_and(|kinds| kinds.is("audit")),
        }
    }
}

pub(super) fn matches(event: &Told, filters: &Filters) -> bool {
    // By how an id or a name begins, as with Docker.
    let of = |wanted: &str| {
        let name = event.attributes.get("name");
        event.id.starts_with(wanted) || name.is_some_and(|name| name.starts_with(wanted))
    };
    filters.all(|name, wanted| match name {
        "type" => wanted.is(event.kind),
        "event" => wanted
            .any(|action| event.action == action || event.action.split(':').next() == Some(action)),
        "scope" => wanted.is(event.scope),
        "image" => wanted.any(|wanted| is_of_image(event, wanted)),
        "container" | "volume" | "network" | "config" | "node" | "secret" | "service" => {
            event.kind == name && wanted.any(of)
        }
        "label" => wanted.labels(&event.attributes),
        _ => false,
    })
}

/// Says whether an event is of an image, or of a container that was made from it; the image is named
/// with or without its tag.
fn is_of_image(event: &Told, wanted: &str) -> bool {
    let attribute = match event.kind {
        "image" => "name",
        "container" => "image",
        _ => return false,
    };
    let name = event.attributes.get(attribute).map_or("", String::as_str);
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    name == wanted
        || repository == wanted
        || (event.kind == "image" && event.id.starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use types::Timestamp;

    fn event(kind: &'static str, id: &str, attribute: (&str, &str)) -> Told {
        Told {
            kind,
            action: "create".into(),
            id: id.into(),
            attributes: [(attribute.0.to_owned(), attribute.1.to_owned())].into(),
            scope: if SWARM.contains(&kind) { "swarm" } else { "local" },
            time: Timestamp(0),
        }
    }

    fn filters(filters: &serde_json::Value) -> Filters {
        Filters::parse(Some(&filters.to_string()), "GET /events").unwrap()
    }

    #[test]
    fn events_of_containers_are_of_their_image_too() {
        let made = event("container", "sha256:abc", ("image", "reg:5000/web:1"));
        let image = event("image", "sha256:abc", ("name", "web:1"));
        for (event, wanted, is) in [
            (&made, "reg:5000/web:1", true),
            (&made, "reg:5000/web", true),
            (&made, "reg", false),
            (&made, "sha256:abc", false),
            (&image, "web", true),
            (&image, "sha256:ab", true),
            (&event("volume", "sha256:abc", ("image", "web")), "web", false),
        ] {
            assert_eq!(is_of_image(event, wanted), is, "{event:?} {wanted}");
        }
    }

    #[test]
    fn events_of_an_object_are_found_by_how_its_name_or_id_begins() {
        for kind in ["container", "service", "node", "secret", "config", "network", "volume"] {
            let event = event(kind, "abc", ("name", "web-1"));
            for (wanted, is) in [("web", true), ("web-1", true), ("ab", true), ("eb", false)] {
                assert_eq!(matches(&event, &filters(&json!({ kind: [wanted] }))), is, "{wanted}");
            }
            assert!(!matches(&event, &filters(&json!({ "image": ["web"] }))));
        }
    }

    #[test]
    fn kinds_and_scopes_are_told_apart() {
        let service = event("service", "abc", ("name", "web"));
        for (wanted, is) in [
            (json!({ "type": ["service", "node"] }), true),
            (json!({ "type": ["node"] }), false),
            (json!({ "scope": ["swarm"] }), true),
            (json!({ "scope": ["local"] }), false),
            (json!({ "event": ["create"] }), true),
            (json!({ "event": ["update"] }), false),
            (json!({ "label": ["name=web"] }), true),
        ] {
            assert_eq!(matches(&service, &filters(&wanted)), is, "{wanted}");
        }
    }

    #[test]
    fn only_those_are_listened_to_who_can_tell_what_is_wanted() {
        let of = |wanted: serde_json::Value| {
            let Sources { local, swarm, audit } = Sources::of(&filters(&wanted));
            [local, swarm, audit]
        };
        assert_eq!(of(json!({})), [true, true, false]);
        assert_eq!(of(json!({ "type": ["network"] })), [true, true, false]);
        assert_eq!(of(json!({ "type": ["service"] })), [false, true, false]);
        assert_eq!(of(json!({ "type": ["container", "audit"] })), [true, false, true]);
        assert_eq!(of(json!({ "scope": ["local"] })), [true, false, false]);
        assert_eq!(of(json!({ "scope": ["swarm"] })), [false, true, false]);
        assert_eq!(of(json!({ "node": ["a"] })), [false, true, false]);
        assert_eq!(of(json!({ "image": ["a"] })), [true, false, false]);
        assert_eq!(of(json!({ "scope": ["local"], "type": ["node"] })), [false, false, false]);
    }
}
