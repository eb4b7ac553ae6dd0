//! `/containers/{id}/stats`: what a container uses, once or every second.

use super::time::now;
use crate::Api;
use crate::body::json_lines;
use crate::error::ApiError;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use engine::Usage;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use types::{Fault, Timestamp};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/containers/{id}/stats", get(stats))
}

/// How far samples are apart, as with Docker.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(rename = "GET /containers/{id}/stats", default)]
struct StatsQuery {
    stream: bool,
    #[serde(rename = "one-shot")]
    one_shot: bool,
}

impl Default for StatsQuery {
    fn default() -> Self {
        Self { stream: true, one_shot: false }
    }
}

/// What a container used up to a moment.
#[derive(Clone, Debug, Default)]
struct Sample {
    time: Timestamp,
    usage: Usage,
}

async fn sample(api: &Api, id: &str) -> Result<Sample, Fault> {
    Ok(Sample { time: now(), usage: api.engine.usage(id).await? })
}

/// The container that is asked for, and the machine's size.
#[derive(Clone, Debug)]
struct Subject {
    id: String,
    name: String,
    cpus: i64,
    memory_bytes: i64,
}

async fn stats(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Result<Response, ApiError> {
    let info = api.engine.inspect(&id).await?;
    let about = api.node.about();
    let (cpus, memory_bytes) = (about.cpus, about.memory_bytes);
    let subject = Subject { id: info.id, name: info.name, cpus, memory_bytes };
    let first = sample(&api, &subject.id).await?;
    if query.stream {
        return Ok(json_lines(samples(api, subject, first)));
    }
    if query.one_shot {
        return Ok(Json(render(&subject, &Sample::default(), &first)).into_response());
    }
    // Clients reckon a share of the CPU from two samples.
    tokio::time::sleep(EVERY).await;
    let second = sample(&api, &subject.id).await?;
    Ok(Json(render(&subject, &first, &second)).into_response())
}

/// A sample every second, until the container ends or the client goes.
fn samples(
    api: Api,
    subject: Subject,
    first: Sample,
) -> impl futures_util::Stream<Item = Value> + Send + 'static {
    let start = (Sample::default(), Some(first));
    futures_util::stream::unfold(start, move |(before, next)| {
        let (api, subject) = (api.clone(), subject.clone());
        async move {
            let now = if let Some(first) = next {
                first
            } else {
                tokio::time::sleep(EVERY).await;
                sample(&api, &subject.id).await.ok()?
            };
            Some((render(&subject, &before, &now), (now, None)))
        }
    })
}

fn cpu(sample: &Sample, cpus: i64) -> Value {
    json!({
        "cpu_usage": { "total_usage": sample.usage.cpu_nanos },
        "system_cpu_usage": sample.usage.machine_cpu_nanos,
        "online_cpus": cpus,
    })
}

fn render(subject: &Subject, before: &Sample, sample: &Sample) -> Value {
    let usage = &sample.usage;
    // Without a limit a container may take what the machine has.
    let machine = u64::try_from(subject.memory_bytes).unwrap_or(0);
    let limit = if usage.memory_limit == 0 { machine } else { usage.memory_limit };
    json!({
        "id": subject.id,
        "name": format!("/{}", subject.name),
        "read": sample.time.rfc3339(),
        "preread": before.time.rfc3339(),
        "cpu_stats": cpu(sample, subject.cpus),
        "precpu_stats": cpu(before, subject.cpus),
        "memory_stats": { "usage": usage.memory_bytes, "limit": limit, "stats": {} },
        "pids_stats": { "current": usage.pids },
    })
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![Served::new("GET /containers/{id}/stats").query::<StatsQuery>()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_cpu_can_be_reckoned_from_a_sample() {
        let sample = |cpu_nanos, machine_cpu_nanos| Sample {
            usage: Usage { cpu_nanos, machine_cpu_nanos, ..Usage::default() },
            ..Sample::default()
        };
        let subject = Subject { id: "c".into(), name: "n".into(), cpus: 2, memory_bytes: 7 };
        let told = render(&subject, &sample(10, 100), &sample(60, 300));
        let number = |part: &str, path: &str| told[part].pointer(path).and_then(Value::as_u64);
        assert_eq!(number("precpu_stats", "/cpu_usage/total_usage"), Some(10));
        assert_eq!(number("cpu_stats", "/cpu_usage/total_usage"), Some(60));
        assert_eq!(number("cpu_stats", "/system_cpu_usage"), Some(300));
        assert_eq!(
            (&told["cpu_stats"]["online_cpus"], &told["memory_stats"]["limit"]),
            (&2.into(), &7.into())
        );
    }

    #[test]
    fn a_stream_is_what_is_asked_for_where_nothing_is_said() {
        let read = |query: &str| crate::request::query::<StatsQuery>(query).unwrap();
        assert!(read("").stream && !read("stream=0").stream);
        assert!(read("stream=false&one-shot=1").one_shot);
    }
}
