//! `/containers`: this node's containers, of tasks and plain ones.

use super::container_filters::{Named, choose};
use super::time::{now, until};
use super::{attach, detach, of_this_platform};
use crate::Api;
use crate::body::{self, LogForm};
use crate::cluster::LogQuery;
use crate::error::ApiError;
use crate::json::container::{render, render_item};
use crate::json::container_create::{CreateJson, check_cpus};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use engine::{AttachOptions, ContainerInfo, DiskUse, LogOptions, Size, WaitFor};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use types::{FOREVER, Fault, FaultKind, Timestamp};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/attach", post(attach_streams))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/top", get(top))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /containers/json", default)]
struct ListQuery {
    all: bool,
    limit: Option<i64>,
    size: bool,
    filters: Option<String>,
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /containers/json")?;
    let limit =
        query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let all = ["before", "exited", "since", "status"].iter().any(|name| filters.has(name));
    let containers = api.engine.list(all || query.all || limit.is_some()).await;
    let (now, bridge) = (now(), api.bridge());
    let named = Named::find(&api, &filters).await?;
    let shown = choose(&containers, &filters, &named);
    let mut items = Vec::new();
    for info in shown.into_iter().take(limit.unwrap_or(usize::MAX)) {
        let mut item = render_item(info, now, bridge);
        if query.size {
            add_size(&api, &info.id, &mut item).await?;
        }
        items.push(item);
    }
    Ok(Json(items))
}

/// Adds what a container takes on the disk. One that goes meanwhile takes nothing.
async fn add_size(api: &Api, id: &str, object: &mut Value) -> Result<(), Fault> {
    let used = match api.engine.disk_use(id).await {
        Err(fault) if fault.kind == FaultKind::NotFound => DiskUse::default(),
        other => other?,
    };
    object["SizeRw"] = used.written.into();
    object["SizeRootFs"] = used.all.into();
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /containers/create", default)]
struct CreateQuery {
    name: Option<String>,
    platform: Option<String>,
}

async fn create(
    State(api): State<Api>,
    Query(query): Query<CreateQuery>,
    JsonBody(request, warnings): JsonBody<CreateJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = query.name.unwrap_or_default().trim_start_matches('/').to_owned();
    of_this_platform(&api, query.platform.as_deref())?;
    let sources = request.bind_sources();
    let config = request.parse(name, api.bridge().and_then(|bridge| bridge.hosts().next()))?;
    check_cpus(config.resources.limit_nano_cpus, api.node.about().cpus)?;
    make_bind_sources(sources).await?;
    let mut created = api.engine.create(config).await?;
    created.warnings.extend(warnings);
    let body = json!({ "Id": created.id, "Warnings": created.warnings });
    Ok((StatusCode::CREATED, Json(body)))
}

/// Makes the directories that `-v` binds, as Docker does. (`--mount` refuses missing ones.)
async fn make_bind_sources(sources: Vec<String>) -> Result<(), Fault> {
    for source in sources {
        let there = tokio::fs::try_exists(&source).await.unwrap_or(false);
        if !there && let Err(error) = tokio::fs::create_dir_all(&source).await {
            return Err(Fault::invalid(format!("cannot make the bind source {source}: {error}")));
        }
    }
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /containers/{id}/json", default)]
struct InspectQuery {
    size: bool,
}

async fn inspect(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Json<Value>, ApiError> {
    let info = api.engine.inspect(&id).await?;
    let mut object = render(&info, api.bridge());
    if query.size {
        add_size(&api, &info.id, &mut object).await?;
    }
    Ok(Json(object))
}

/// 304 says that nothing had to be done.
fn changed(done: bool) -> StatusCode {
    if done { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /containers/{id}/start", default)]
struct StartQuery {}

async fn start(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(StartQuery {}): Query<StartQuery>,
) -> Result<StatusCode, ApiError> {
    Ok(changed(api.engine.start(&id).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "StopQuery", default)]
struct StopQuery {
    signal: Option<String>,
    t: Option<i64>,
}

impl StopQuery {
    /// The grace period; a negative one waits for ever, as with Docker.
    fn grace(&self) -> Option<Duration> {
        self.t.map(|secs| u64::try_from(secs).map_or(FOREVER, Duration::from_secs))
    }
}

async fn stop(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StopQuery>,
) -> Result<StatusCode, ApiError> {
    Ok(changed(api.engine.stop(&id, query.signal.as_deref(), query.grace()).await?))
}

async fn restart(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StopQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.restart(&id, query.signal.as_deref(), query.grace()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /containers/{id}/kill", default)]
struct KillQuery {
    signal: Option<String>,
}

async fn kill(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<KillQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.kill(&id, query.signal.as_deref().unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "DELETE /containers/{id}", default)]
struct RemoveQuery {
    force: bool,
    v: bool,
}

async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.remove(&id, query.force, query.v).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /containers/{id}/wait", default)]
struct WaitQuery {
    condition: Option<String>,
}

async fn wait(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Response, ApiError> {
    let until = match query.condition.as_deref() {
        None | Some("" | "not-running") => WaitFor::NotRunning,
        Some("next-exit") => WaitFor::NextExit,
        Some("removed") => WaitFor::Removed,
        Some(other) => return Err(Fault::invalid(format!("invalid condition: \"{other}\"")).into()),
    };
    api.engine.inspect(&id).await?;
    // The head goes out at once: docker run waits for it before it starts the container.
    let engine = api.engine.clone();
    let line = futures_util::stream::once(async move {
        match engine.wait(&id, until).await {
            Ok(exit) => json!({ "StatusCode": exit.code }),
            Err(fault) => json!({ "StatusCode": -1, "Error": { "Message": fault.message } }),
        }
    });
    Ok(body::json_lines(line))
}

async fn logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let info = api.engine.inspect(&id).await?;
    let wanted = query.options()?;
    let options = LogOptions {
        follow: wanted.follow,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        tail: wanted.tail,
        since: wanted.since,
        until: wanted.until,
    };
    let form = LogForm { framed: !info.config.spec.tty, timestamps: query.timestamps };
    let content_type = form.content_type();
    let details = if query.details {
        Some(body::log_details(&api.engine.log_attributes(&id)?))
    } else {
        None
    };
    let lines = api.engine.logs(&id, options)?;
    let bytes = lines.map(move |entry| match entry {
        Ok(entry) => Ok(form.render(entry.stderr, entry.time, details.as_deref(), &entry.bytes)),
        Err(fault) => Err(std::io::Error::other(fault)),
    });
    Ok(body::stream(content_type, Body::from_stream(bytes)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /containers/{id}/attach", default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's query has them")]
struct AttachQuery {
    logs: bool,
    stream: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    #[serde(rename = "detachKeys")]
    detach_keys: String,
}

async fn attach_streams(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<AttachQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let keys = detach::parse(&query.detach_keys)?;
    let options = AttachOptions {
        logs: query.logs,
        stream: query.stream,
        stdin: query.stdin,
        stdout: query.stdout,
        stderr: query.stderr,
    };
    // It is connected before the head goes out: a client starts the container when it sees that.
    let attached = api.engine.attach(&id, options).await?;
    Ok(attach::answer(request, attached.tty, keys, std::future::ready(Ok(attached))))
}

/// The size of a terminal in a query.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "SizeQuery", default)]
pub(crate) struct SizeQuery {
    h: u16,
    w: u16,
}

impl SizeQuery {
    pub(crate) fn size(&self) -> Size {
        Size { width: self.w, height: self.h }
    }
}

async fn resize(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<SizeQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.resize(&id, query.size()).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /containers/{id}/top", default)]
struct TopQuery {}

async fn top(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(TopQuery {}): Query<TopQuery>,
) -> Result<Json<Value>, ApiError> {
    let top = api.engine.top(&id).await?;
    Ok(Json(json!({ "Titles": top.titles, "Processes": top.rows })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /containers/prune", default)]
struct PruneQuery {
    filters: Option<String>,
}

async fn prune(
    State(api): State<Api>,
    Query(query): Query<PruneQuery>,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "POST /containers/prune")?;
    let until = until(&filters)?;
    let mut deleted = Vec::new();
    for info in api.engine.list(true).await {
        let ended = info.state.status != engine::Status::Running && info.config.task().is_none();
        if ended && is_pruned(&info, &filters, until) {
            api.engine.remove(&info.id, false, false).await?;
            deleted.push(info.id);
        }
    }
    Ok(Json(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": 0 })))
}

fn is_pruned(info: &ContainerInfo, filters: &Filters, until: Option<Timestamp>) -> bool {
    let labels = &info.merged.labels;
    filters.all(|name, wanted| match name {
        "label" => wanted.labels(labels),
        "label!" => !wanted.labels(labels),
        "until" => until.is_some_and(|until| info.created < until),
        _ => false,
    })
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /containers/json").query::<ListQuery>(),
        Served::new("POST /containers/create")
            .query::<CreateQuery>()
            .body(include_str!("../request/coverage/container.json"), |it: CreateJson| {
                it.parse(String::new(), None)
            }),
        Served::new("POST /containers/prune").query::<PruneQuery>(),
        Served::new("DELETE /containers/{id}").query::<RemoveQuery>(),
        Served::new("GET /containers/{id}/json").query::<InspectQuery>(),
        Served::new("POST /containers/{id}/start").query::<StartQuery>(),
        Served::new("POST /containers/{id}/stop").query::<StopQuery>(),
        Served::new("POST /containers/{id}/restart").query::<StopQuery>(),
        Served::new("POST /containers/{id}/kill").query::<KillQuery>(),
        Served::new("POST /containers/{id}/wait").query::<WaitQuery>(),
        Served::new("GET /containers/{id}/logs").query::<LogQuery>(),
        Served::new("POST /containers/{id}/attach").query::<AttachQuery>(),
        Served::new("POST /containers/{id}/resize").query::<SizeQuery>(),
        Served::new("GET /containers/{id}/top").query::<TopQuery>(),
    ]
}
