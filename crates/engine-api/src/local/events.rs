//! `/events`: what happens on this node, as it happens.

use crate::Api;
use crate::body::json_lines;
use crate::error::ApiError;
use crate::filters::Filters;
use axum::Router;
use axum::extract::{Query, State};
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

#[derive(Debug, Deserialize)]
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
    let allowed = ["container", "event", "image", "label", "scope", "type", "volume"];
    let filters = Filters::parse(query.filters.as_deref(), &allowed)?;
    let events = api.engine.events(seconds(query.since.as_deref()));
    let shown = events
        .filter(move |event| std::future::ready(matches(event, &filters)))
        .map(|event| render(&event));
    let Some(until) = seconds(query.until.as_deref()) else { return Ok(json_lines(shown)) };
    let left = until.since(super::now());
    Ok(json_lines(shown.take_until(tokio::time::sleep(left))))
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let of = |kind: &'static str| {
        move |wanted: &str| {
            event.kind.as_str() == kind
                && (event.id.starts_with(wanted)
                    || event.attributes.get("name").is_some_and(|name| name == wanted))
        }
    };
    filters.any("type", |kind| event.kind.as_str() == kind)
        && filters.any("event", |action| {
            event.action == action || event.action.split(':').next() == Some(action)
        })
        && filters.any("scope", |scope| scope == "local")
        && filters.any("container", of("container"))
        && filters.any("image", of("image"))
        && filters.any("volume", of("volume"))
        && filters.labels("label", &event.attributes)
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
