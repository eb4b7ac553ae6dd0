//! `/events`: what happens on this node and, on a manager, in the cluster, as it happens.
//!
//! Start with [`events`]; `follow` joins the sources, `filter` says what is wanted, `told` what is shown.
//! Invariant: nothing that was asked for is left out in silence: where events are lost, or this node
//! has no part in the cluster's log any more, the answer ends with an event that says so and is broken off.

mod filter;
mod follow;
mod told;

use crate::Api;
use crate::audit::Audit;
use crate::body::unless_broken;
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
use filter::Sources;
use follow::Span;
use futures_util::StreamExt;
use http::HeaderValue;
use serde::Deserialize;
use types::{Fault, Timestamp};

/// After which moment, in the form of `since`, no event is missing of those that could be told.
const WHOLE_AFTER: &str = "Skep-Events-Whole-After";

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

fn span(since: Option<&str>, until: Option<&str>) -> Result<Span, Fault> {
    let (since, until) = (moment(since)?, moment(until)?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        let (since, until) = (since.0 / 1_000_000_000, until.0 / 1_000_000_000);
        let reason = format!("`since` time ({since}) cannot be after `until` time ({until})");
        return Err(Fault::invalid(reason));
    }
    // With an end alone, Docker shows all that is remembered up to there.
    Ok(Span { since: since.or(until.map(|_| Timestamp(0))), until })
}

async fn events(
    State(api): State<Api>,
    Extension(audit): Extension<Audit>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /events")?;
    let span = span(query.since.as_deref(), query.until.as_deref())?;
    let sources = Sources::of(&filters);
    let whole_after = follow::whole_after(&api, sources);
    let about = api.node.about();
    let (id, name) = (about.id.clone(), about.hostname.clone());
    let events = follow::follow(&api, &audit, (sources, span)).filter_map(move |event| {
        let line = match event {
            Ok(event) if !filter::matches(&event, &filters) => None,
            Ok(event) => Some(Ok(told::render(&event))),
            Err(fault) => Some(Err((told::end(&id, &name, &fault), fault))),
        };
        std::future::ready(line)
    });
    let mut response = unless_broken(events);
    let value = format!("{}.{:09}", whole_after.0 / 1_000_000_000, whole_after.0 % 1_000_000_000);
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(WHOLE_AFTER, value);
    }
    Ok(response)
}

/// What the operations here read.
#[cfg(test)]
pub(crate) fn served() -> Vec<Served> {
    vec![Served::new("GET /events").query::<EventsQuery>()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_number_of_seconds() {
        assert_eq!(moment(Some("0")), Ok(Some(Timestamp(0))));
        assert_eq!(moment(Some("2.5")), Ok(Some(Timestamp(2_500_000_000))));
        assert_eq!(moment(None), Ok(None));
        assert!(moment(Some("10m")).is_err());
    }

    #[test]
    fn an_end_alone_shows_all_that_is_remembered() {
        let all = Span { since: Some(Timestamp(0)), until: Some(Timestamp(2_000_000_000)) };
        assert_eq!(span(None, Some("2")), Ok(all));
        assert_eq!(span(None, None), Ok(Span { since: None, until: None }));
        let odd = span(Some("2"), Some("1")).unwrap_err();
        assert_eq!(odd.message, "`since` time (2) cannot be after `until` time (1)");
    }
}
