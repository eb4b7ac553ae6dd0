//! Logs of services and tasks, gathered from the nodes by the manager.

use crate::body::{self, LogForm};
use crate::error::ApiError;
use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use manager::{LogSelector, Manager};
use serde::Deserialize;
use store::View;
use types::{Fault, Timestamp};
use wire::{LogLine, LogOptions};

/// The query of every logs endpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "LogQuery", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's query has them")]
pub(crate) struct LogQuery {
    follow: bool,
    stdout: bool,
    stderr: bool,
    since: Option<String>,
    until: Option<String>,
    pub(crate) timestamps: bool,
    tail: Option<String>,
    pub(crate) details: bool,
}

impl LogQuery {
    /// Reads the options; refuses a query that wants neither stream.
    pub(crate) fn options(&self) -> Result<LogOptions, Fault> {
        let options = LogOptions {
            follow: self.follow,
            stdout: self.stdout,
            stderr: self.stderr,
            tail: match self.tail.as_deref() {
                None | Some("" | "all") => None,
                // Docker takes what is no number for "all".
                Some(text) => text.parse().ok(),
            },
            since: unix_time(self.since.as_deref())?,
            until: unix_time(self.until.as_deref())?,
        };
        if !options.stdout && !options.stderr {
            return Err(Fault::invalid("Bad parameters: you must choose at least one stream"));
        }
        Ok(options)
    }
}

/// Reads a Unix time with an optional fraction; 0 and nothing mean no bound.
pub(crate) fn unix_time(text: Option<&str>) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = text.filter(|text| !text.is_empty() && *text != "0") else {
        return Ok(None);
    };
    let wrong = || Fault::invalid(format!("invalid time '{text}': use seconds since 1970"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds: i64 = seconds.parse().map_err(|_invalid| wrong())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: i64 = digits.parse().map_err(|_invalid| wrong())?;
    Ok(Some(Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))))
}

/// Answers with the logs that `selector` names.
pub(crate) async fn answer(
    manager: &Manager,
    selector: LogSelector,
    query: &LogQuery,
    framed: bool,
) -> Result<Response, ApiError> {
    let options = query.options()?;
    let form = LogForm { framed, timestamps: query.timestamps };
    let with_details = query.details;
    let view = manager.fresh().await?;
    let content_type = form.content_type();
    let lines = manager.logs(selector, options).await?;
    let bytes = lines.map(move |line| {
        let line = match line {
            Ok(line) => line,
            // A node's part is missing: the reader sees why, among the lines.
            Err(fault) => {
                let text = format!("{}\n", fault.message);
                return Ok(form.render(true, Timestamp::default(), None, text.as_bytes()));
            }
        };
        let details = with_details.then(|| details(&view, &line));
        let details = details.as_deref();
        Ok::<_, std::convert::Infallible>(form.render(line.stderr, line.time, details, &line.text))
    });
    Ok(body::stream(content_type, Body::from_stream(bytes)))
}

/// Where a line comes from, as `docker service logs` reads it.
fn details(view: &View, line: &LogLine) -> String {
    let service = view.task(&line.task).map(|task| task.service.to_string()).unwrap_or_default();
    format!(
        "com.docker.swarm.node.id={},com.docker.swarm.service.id={service},\
         com.docker.swarm.task.id={}",
        line.node, line.task
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(unix_time(Some("12.5")).unwrap(), Some(Timestamp(12_500_000_000)));
        assert_eq!(unix_time(Some("0")).unwrap(), None);
        assert!(unix_time(Some("yesterday")).is_err());
    }

    #[test]
    fn a_query_must_choose_a_stream() {
        assert!(LogQuery::default().options().is_err());
        let query = LogQuery { stdout: true, ..LogQuery::default() };
        assert!(query.options().unwrap().stdout);
    }
}
