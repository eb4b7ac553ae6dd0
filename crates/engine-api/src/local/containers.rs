//! `/containers`: this node's containers, of tasks and plain ones.

use super::{attach, now};
use crate::body::{self, LogForm};
use crate::cluster::LogQuery;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::json::container::{render, render_item};
use crate::json::container_create::CreateJson;
use crate::request::JsonBody;
use crate::{Api, flag};
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use engine::{AttachOptions, ContainerInfo, LogOptions, Size, WaitFor};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use types::Fault;

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
        .route("/containers/{id}/stats", get(stats))
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    all: Option<String>,
    limit: Option<i64>,
    filters: Option<String>,
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let allowed = ["ancestor", "exited", "health", "id", "is-task", "label", "name", "status"];
    let filters = Filters::parse(query.filters.as_deref(), &allowed)?;
    let limit =
        query.limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let all = flag(query.all.as_deref()) || limit.is_some() || filters.values("status").is_some();
    let containers = api.engine.list(all).await;
    let now = now();
    let is_task = filters.flag("is-task")?;
    let shown = containers.iter().filter(|info| matches(info, &filters)).filter(|info| {
        let task = info.config.spec.labels.contains_key(types::TASK_LABEL);
        is_task.is_none_or(|wanted| wanted == task)
    });
    Ok(Json(shown.take(limit.unwrap_or(usize::MAX)).map(|info| render_item(info, now)).collect()))
}

fn matches(info: &ContainerInfo, filters: &Filters) -> bool {
    let health = info.state.health.as_ref().map_or("none", |health| health.status.as_str());
    filters.any("id", |id| info.id.starts_with(id))
        && filters.any("name", |name| info.name.contains(name.trim_start_matches('/')))
        && filters.any("status", |status| info.state.status.as_str() == status)
        && filters.any("exited", |code| info.state.exit_code.to_string() == code)
        && filters.any("health", |wanted| wanted == health)
        && filters.any("ancestor", |image| {
            info.image == image
                || engine::Reference::parse(image)
                    .is_ok_and(|image| image.familiar() == short(&info.config.spec.image))
        })
        && filters.labels("label", &info.config.spec.labels)
}

/// The name of an image as Docker shows it.
fn short(image: &str) -> String {
    let parsed = engine::Reference::parse(image);
    parsed.map_or_else(|_| image.to_owned(), |image| image.familiar().to_owned())
}

#[derive(Debug, Deserialize)]
struct CreateQuery {
    name: Option<String>,
}

async fn create(
    State(api): State<Api>,
    Query(query): Query<CreateQuery>,
    JsonBody(request, warnings): JsonBody<CreateJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = query.name.unwrap_or_default().trim_start_matches('/').to_owned();
    make_bind_sources(&request).await?;
    let mut created = api.engine.create(request.parse(name)?).await?;
    created.warnings.extend(warnings);
    let body = json!({ "Id": created.id, "Warnings": created.warnings });
    Ok((StatusCode::CREATED, Json(body)))
}

/// Makes the directories that `-v` binds, as Docker does. (`--mount` refuses missing ones.)
async fn make_bind_sources(request: &CreateJson) -> Result<(), Fault> {
    for source in request.bind_sources() {
        let there = tokio::fs::try_exists(&source).await.unwrap_or(false);
        if !there && let Err(error) = tokio::fs::create_dir_all(&source).await {
            return Err(Fault::invalid(format!("cannot make the bind source {source}: {error}")));
        }
    }
    Ok(())
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(render(&api.engine.inspect(&id).await?)))
}

/// 304 says that nothing had to be done.
fn changed(done: bool) -> StatusCode {
    if done { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED }
}

async fn start(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    Ok(changed(api.engine.start(&id).await?))
}

#[derive(Debug, Deserialize)]
struct StopQuery {
    signal: Option<String>,
    t: Option<i64>,
}

impl StopQuery {
    /// The grace period; a negative one waits for ever, as with Docker.
    fn grace(&self) -> Option<Duration> {
        self.t.map(|secs| {
            u64::try_from(secs).map_or(Duration::from_hours(24 * 365), Duration::from_secs)
        })
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
    api.engine.stop(&id, query.signal.as_deref(), query.grace()).await?;
    api.engine.start(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StopQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.kill(&id, query.signal.as_deref().unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
struct RemoveQuery {
    force: Option<String>,
    v: Option<String>,
}

async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    api.engine.remove(&id, flag(query.force.as_deref()), flag(query.v.as_deref())).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
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
    let form =
        LogForm { framed: !info.config.spec.tty, timestamps: flag(query.timestamps.as_deref()) };
    let content_type = form.content_type();
    let lines = api.engine.logs(&id, options)?;
    let bytes = lines.map(move |entry| match entry {
        Ok(entry) => Ok(form.render(entry.stderr, entry.time, "", &entry.bytes)),
        Err(fault) => Err(std::io::Error::other(fault)),
    });
    Ok(body::stream(content_type, Body::from_stream(bytes)))
}

#[derive(Debug, Deserialize)]
struct AttachQuery {
    logs: Option<String>,
    stream: Option<String>,
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
}

async fn attach_streams(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<AttachQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let options = AttachOptions {
        logs: flag(query.logs.as_deref()),
        stream: flag(query.stream.as_deref()),
        stdin: flag(query.stdin.as_deref()),
        stdout: flag(query.stdout.as_deref()),
        stderr: flag(query.stderr.as_deref()),
    };
    let attached = api.engine.attach(&id, options).await?;
    Ok(attach::answer(request, attached))
}

/// The size of a terminal in a query.
#[derive(Debug, Deserialize)]
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

async fn top(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let (titles, processes) = api.engine.top(&id).await?;
    Ok(Json(json!({ "Titles": titles, "Processes": processes })))
}

#[derive(Debug, Deserialize)]
struct StatsQuery {
    stream: Option<String>,
}

async fn stats(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StatsQuery>,
) -> Result<Json<Value>, ApiError> {
    if flag(query.stream.as_deref()) {
        return Err(Fault::not_implemented("a stream of stats (use --no-stream)").into());
    }
    let info = api.engine.inspect(&id).await?;
    let usage = api.engine.usage(&id).await?;
    // Without a limit a container may take what the machine has.
    let machine = u64::try_from(api.node.about().memory_bytes).unwrap_or(0);
    let limit = if usage.memory_limit == 0 { machine } else { usage.memory_limit };
    Ok(Json(json!({
        "id": info.id,
        "name": format!("/{}", info.name),
        "read": now().rfc3339(),
        "cpu_stats": { "cpu_usage": { "total_usage": usage.cpu_nanos } },
        "precpu_stats": { "cpu_usage": { "total_usage": 0 } },
        "memory_stats": { "usage": usage.memory_bytes, "limit": limit, "stats": {} },
        "pids_stats": { "current": usage.pids },
    })))
}

async fn prune(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let mut deleted = Vec::new();
    for info in api.engine.list(true).await {
        let of_a_task = info.config.spec.labels.contains_key(types::TASK_LABEL);
        if info.state.status != engine::Status::Running && !of_a_task {
            api.engine.remove(&info.id, false, false).await?;
            deleted.push(info.id);
        }
    }
    Ok(Json(json!({ "ContainersDeleted": deleted, "SpaceReclaimed": 0 })))
}
