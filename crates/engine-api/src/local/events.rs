//! `/events`: what happens on this node, as it happens.

use crate::Api;
use crate::body::json_lines;
use crate::error::ApiError;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use engine::Event;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use types::Timestamp;

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

/// Reads whole seconds since 1970; fractions are dropped.
fn seconds(text: Option<&str>) -> Option<Timestamp> {
    let seconds: i64 = text?.split('.').next()?.parse().ok()?;
    Some(Timestamp(seconds.saturating_mul(1_000_000_000)))
}

async fn events(
    State(api): State<Api>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /events")?;
    let events = api.engine.events(seconds(query.since.as_deref()));
    let shown = events
        .filter(move |event| std::future::ready(matches(event, &filters)))
        .map(|event| render(&event));
    let Some(until) = seconds(query.until.as_deref()) else { return Ok(json_lines(shown)) };
    let left = until.since(super::time::now());
    Ok(json_lines(shown.take_until(tokio::time::sleep(left))))
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let of = |wanted: &str| {
        event.id.starts_with(wanted)
            || event.attributes.get("name").is_some_and(|name| name == wanted)
    };
    filters.all(|name, wanted| match name {
        "type" => wanted.is(event.kind.as_str()),
        "event" => wanted
            .any(|action| event.action == action || event.action.split(':').next() == Some(action)),
        "scope" => wanted.is("local"),
        "container" | "image" | "volume" => event.kind.as_str() == name && wanted.any(of),
        "label" => wanted.labels(&event.attributes),
        _ => false,
    })
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
