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
use engine::{Traffic, Usage};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use types::{Fault, FaultKind, Timestamp};

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
#[derive(Clone, Debug, Default, PartialEq)]
struct Sample {
    time: Timestamp,
    usage: Usage,
}

/// What a container used up to now; nothing at no time, as with Docker, while it does not run.
async fn sample(api: &Api, id: &str) -> Result<Sample, Fault> {
    match api.engine.usage(id).await {
        Ok(usage) => Ok(Sample { time: now(), usage }),
        Err(fault) if fault.kind == FaultKind::Conflict => {
            api.engine.inspect(id).await?;
            Ok(Sample::default())
        }
        Err(fault) => Err(fault),
    }
}

/// The container that is asked for, and the machine's size.
#[derive(Clone, Debug)]
struct Subject {
    id: String,
    name: String,
    cpus: i64,
    memory_bytes: i64,
    cgroup_version: &'static str,
}

async fn stats(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Result<Response, ApiError> {
    let info = api.engine.inspect(&id).await?;
    let about = api.node.about();
    let subject = Subject {
        id: info.id,
        name: info.name,
        cpus: about.cpus,
        memory_bytes: about.memory_bytes,
        cgroup_version: about.cgroup_version,
    };
    if query.stream && query.one_shot {
        return Err(Fault::invalid("cannot have stream=true and one-shot=true").into());
    }
    let first = sample(&api, &subject.id).await?;
    if query.stream {
        return Ok(json_lines(samples(api, subject, first)));
    }
    if query.one_shot {
        return Ok(Json(render(&subject, &Sample::default(), &first)).into_response());
    }
    if first == Sample::default() {
        return Ok(Json(render(&subject, &first, &first)).into_response());
    }
    // Clients reckon a share of the CPU from two samples.
    tokio::time::sleep(EVERY).await;
    let second = sample(&api, &subject.id).await?;
    Ok(Json(render(&subject, &first, &second)).into_response())
}

/// A sample every second, until the container is removed or the client goes.
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
        "cpu_usage": {
            "total_usage": sample.usage.cpu_nanos,
            "usage_in_kernelmode": sample.usage.kernel_nanos,
            "usage_in_usermode": sample.usage.user_nanos,
        },
        "system_cpu_usage": sample.usage.machine_cpu_nanos,
        "online_cpus": cpus,
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

/// Clients take the file cache that is not in use off; its name tells them the cgroups' version.
fn memory(subject: &Subject, usage: &Usage) -> Value {
    let idle_cache =
        if subject.cgroup_version == "2" { "inactive_file" } else { "total_inactive_file" };
    // Without a limit a container may take what the machine has.
    let machine = u64::try_from(subject.memory_bytes).unwrap_or(0);
    let limit = if usage.memory_limit == 0 { machine } else { usage.memory_limit };
    json!({
        "usage": usage.memory_bytes,
        "limit": limit,
        "stats": { idle_cache: usage.idle_cache_bytes },
    })
}

fn network(traffic: &Traffic) -> Value {
    let Traffic { received, sent } = traffic;
    json!({
        "rx_bytes": received.bytes,
        "rx_packets": received.packets,
        "rx_errors": received.errors,
        "rx_dropped": received.dropped,
        "tx_bytes": sent.bytes,
        "tx_packets": sent.packets,
        "tx_errors": sent.errors,
        "tx_dropped": sent.dropped,
    })
}

fn devices(usage: &Usage) -> Value {
    let entries = usage.devices.iter().flat_map(|device| {
        [("read", device.read_bytes), ("write", device.written_bytes)].map(|(op, value)| {
            json!({ "major": device.major, "minor": device.minor, "op": op, "value": value })
        })
    });
    let mut all: serde_json::Map<String, Value> =
        DEVICES.map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
    all["io_service_bytes_recursive"] = entries.collect();
    Value::Object(all)
}

/// What may be told of devices.
const DEVICES: [&str; 8] = [
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
];

/// A time, or Go's zero time for never.
fn time(time: Timestamp) -> String {
    if time.0 == 0 { "0001-01-01T00:00:00Z".to_owned() } else { time.rfc3339() }
}

/// What is told of a container that does not run.
fn nothing(subject: &Subject, before: &Sample) -> Value {
    let none = json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    });
    let mut told = json!({
        "id": subject.id,
        "name": format!("/{}", subject.name),
        "read": time(Timestamp(0)),
        "preread": time(before.time),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": none,
        "precpu_stats": none,
        "memory_stats": {},
        "blkio_stats": DEVICES.map(|name| (name.to_owned(), Value::Null))
            .into_iter()
            .collect::<serde_json::Map<_, _>>(),
        "pids_stats": {},
    });
    if *before != Sample::default() {
        told["precpu_stats"] = cpu(before, subject.cpus);
    }
    told
}

fn render(subject: &Subject, before: &Sample, sample: &Sample) -> Value {
    if *sample == Sample::default() {
        return nothing(subject, before);
    }
    let usage = &sample.usage;
    let mut pids = json!({ "current": usage.pids });
    if usage.pids_limit != 0 {
        pids["limit"] = usage.pids_limit.into();
    }
    let mut told = json!({
        "id": subject.id,
        "name": format!("/{}", subject.name),
        "read": time(sample.time),
        "preread": time(before.time),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(sample, subject.cpus),
        "precpu_stats": cpu(before, subject.cpus),
        "memory_stats": memory(subject, usage),
        "blkio_stats": devices(usage),
        "pids_stats": pids,
    });
    if !usage.networks.is_empty() {
        told["networks"] =
            usage.networks.iter().map(|(name, it)| (name.clone(), network(it))).collect();
    }
    told
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![Served::new("GET /containers/{id}/stats").query::<StatsQuery>()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{DeviceUse, Packets};

    fn subject() -> Subject {
        let (id, name) = ("c".into(), "n".into());
        Subject { id, name, cpus: 2, memory_bytes: 7, cgroup_version: "2" }
    }

    #[test]
    fn a_share_of_the_cpu_can_be_reckoned_from_a_sample() {
        let sample = |cpu_nanos, machine_cpu_nanos| Sample {
            time: Timestamp(1),
            usage: Usage { cpu_nanos, machine_cpu_nanos, ..Usage::default() },
        };
        let told = render(&subject(), &sample(10, 100), &sample(60, 300));
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
    fn networks_devices_and_cache_are_told_as_docker_tells_them() {
        let received = Packets { bytes: 1, packets: 2, errors: 3, dropped: 4 };
        let sent = Packets { bytes: 5, packets: 6, errors: 7, dropped: 8 };
        let device = DeviceUse { major: 8, minor: 1, read_bytes: 11, written_bytes: 22 };
        let usage = Usage {
            memory_bytes: 100,
            idle_cache_bytes: 40,
            networks: [("eth0".to_owned(), Traffic { received, sent })].into(),
            devices: vec![device],
            ..Usage::default()
        };
        let sample = Sample { usage, ..Sample::default() };
        let told = render(&subject(), &Sample::default(), &sample);
        let eth0 = json!({"rx_bytes": 1, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4,
            "tx_bytes": 5, "tx_packets": 6, "tx_errors": 7, "tx_dropped": 8});
        assert_eq!(told["networks"], json!({ "eth0": eth0 }));
        let both = json!([{"major": 8, "minor": 1, "op": "read", "value": 11},
            {"major": 8, "minor": 1, "op": "write", "value": 22}]);
        assert_eq!(told["blkio_stats"]["io_service_bytes_recursive"], both);
        assert_eq!(told["memory_stats"]["stats"], json!({ "inactive_file": 40 }));
    }

    #[test]
    fn a_container_that_does_not_run_uses_nothing() {
        let none = render(&subject(), &Sample::default(), &Sample::default());
        assert_eq!(none.get("networks"), None);
        assert_eq!((&none["id"], &none["name"]), (&json!("c"), &json!("/n")));
        assert_eq!(none["read"], "0001-01-01T00:00:00Z");
        assert_eq!(none["cpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert_eq!(none["cpu_stats"].get("system_cpu_usage"), None);
        assert_eq!((&none["memory_stats"], &none["pids_stats"]), (&json!({}), &json!({})));
        assert!(none["blkio_stats"]["io_service_bytes_recursive"].is_null());
    }

    #[test]
    fn a_stream_is_what_is_asked_for_where_nothing_is_said() {
        let read = |query: &str| crate::request::query::<StatsQuery>(query).unwrap();
        assert!(read("").stream && !read("stream=0").stream);
        assert!(read("stream=false&one-shot=1").one_shot);
    }
}
