//! `/events`: what happens on this node, as it happens.

use crate::Api;
use crate::audit::Audit;
use crate::body::json_lines;
use crate::cluster::unix_time;
use crate::error::ApiError;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use axum::Extension;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use engine::{Event, EventKind};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Fault, Timestamp};

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/events", get(events))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /events", default)]
struct EventsQuery {
    since: Option<String>,
    until: Option<String>,
    filters: Option<String>,
}

/// Reads seconds since 1970, here with 0 for that moment.
fn moment(text: Option<&str>) -> Result<Option<Timestamp>, Fault> {
    if text == Some("0") { Ok(Some(Timestamp(0))) } else { unix_time(text) }
}

async fn events(
    State(api): State<Api>,
    Extension(audit): Extension<Audit>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /events")?;
    let (since, until) = (moment(query.since.as_deref())?, moment(query.until.as_deref())?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        let (since, until) = (since.0 / 1_000_000_000, until.0 / 1_000_000_000);
        let reason = format!("`since` time ({since}) cannot be after `until` time ({until})");
        return Err(Fault::invalid(reason).into());
    }
    let mut events = api.engine.events(since, until);
    // Not to those who follow everything: no tool of Docker's expects it.
    if filters.get("type").is_some_and(|kinds| kinds.is("audit")) {
        events = stream::select(events, audit.events(since, until)).boxed();
    }
    let shown = events
        .filter(move |event| std::future::ready(matches(event, &filters)))
        .map(|event| render(&event));
    Ok(json_lines(shown))
}

fn matches(event: &Event, filters: &Filters) -> bool {
    // By how an id or a name begins, as with Docker.
    let of = |wanted: &str| {
        let name = event.attributes.get("name");
        event.id.starts_with(wanted) || name.is_some_and(|name| name.starts_with(wanted))
    };
    filters.all(|name, wanted| match name {
        "type" => wanted.is(event.kind.as_str()),
        "event" => wanted
            .any(|action| event.action == action || event.action.split(':').next() == Some(action)),
        "scope" => wanted.is("local"),
        "image" => wanted.any(|wanted| is_of_image(event, wanted)),
        "container" | "volume" => event.kind.as_str() == name && wanted.any(of),
        "label" => wanted.labels(&event.attributes),
        _ => false,
    })
}

/// Says whether an event is of an image, or of a container that was made from it; the image is named
/// with or without its tag.
fn is_of_image(event: &Event, wanted: &str) -> bool {
    let attribute = match event.kind {
        EventKind::Image => "name",
        EventKind::Container => "image",
        EventKind::Volume | EventKind::Audit => return false,
    };
    let name = event.attributes.get(attribute).map_or("", String::as_str);
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    let is_image = event.kind == EventKind::Image;
    name == wanted || repository == wanted || (is_image && event.id.starts_with(wanted))
}

fn render(event: &Event) -> Value {
    let mut object = json!({
        "Type": event.kind.as_str(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": event.time.0 / 1_000_000_000,
        "timeNano": event.time.0,
    });
    // Older clients read these.
    object["status"] = event.action.clone().into();
    object["id"] = event.id.clone().into();
    object
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![Served::new("GET /events").query::<EventsQuery>()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_containers_are_of_their_image_too() {
        let event = |kind, attribute: &str, name: &str| Event {
            kind,
            action: "create".into(),
            id: "sha256:abc".into(),
            attributes: [(attribute.to_owned(), name.to_owned())].into(),
            time: Timestamp(0),
        };
        let made = event(EventKind::Container, "image", "reg:5000/web:1");
        let image = event(EventKind::Image, "name", "web:1");
        for (event, wanted, is) in [
            (&made, "reg:5000/web:1", true),
            (&made, "reg:5000/web", true),
            (&made, "reg", false),
            (&made, "sha256:abc", false),
            (&image, "web", true),
            (&image, "sha256:ab", true),
            (&event(EventKind::Volume, "image", "web"), "web", false),
        ] {
            assert_eq!(is_of_image(event, wanted), is, "{event:?} {wanted}");
        }
    }

    #[test]
    fn events_of_a_container_are_found_by_how_its_name_or_id_begins() {
        let event = Event {
            kind: EventKind::Container,
            action: "start".into(),
            id: "abc".into(),
            attributes: [("name".to_owned(), "web-1".to_owned())].into(),
            time: Timestamp(0),
        };
        for (wanted, is) in [("web", true), ("web-1", true), ("ab", true), ("eb", false)] {
            let text = json!({ "container": [wanted] }).to_string();
            let filters = Filters::parse(Some(&text), "GET /events").unwrap();
            assert_eq!(matches(&event, &filters), is, "{wanted}");
        }
    }

    #[test]
    fn a_moment_is_a_number_of_seconds() {
        assert_eq!(moment(Some("0")), Ok(Some(Timestamp(0))));
        assert_eq!(moment(Some("2.5")), Ok(Some(Timestamp(2_500_000_000))));
        assert_eq!(moment(None), Ok(None));
        assert!(moment(Some("10m")).is_err());
    }
}
