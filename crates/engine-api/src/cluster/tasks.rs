//! `/tasks`: what the cluster made of services.

use super::logs::{self, LogQuery};
use crate::error::ApiError;
use crate::json::task::render;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use manager::find;
use serde_json::Value;
use store::View;
use types::{DesiredState, Labels, NodeId, Task};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(inspect))
        .route("/tasks/{id}/logs", get(task_logs))
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /tasks")?;
    let view = api.view().await?;
    let here = api.member()?.node;
    let fresh = filters.flag("_up-to-date")?;
    let shown = view.tasks().filter(|task| matches(&view, &here, task, &filters, fresh));
    Ok(Json(shown.map(|task| show(&view, task)).collect()))
}

fn show(view: &View, task: &Task) -> Value {
    render(task, |id| view.network(id).map(|network| (**network).clone()))
}

/// Says whether a task is of its service's present spec.
fn up_to_date(view: &View, task: &Task) -> bool {
    view.service(&task.service).is_some_and(|service| service.spec.task.makes_same(&task.spec))
}

fn matches(
    view: &View,
    here: &NodeId,
    task: &Task,
    filters: &Filters,
    fresh: Option<bool>,
) -> bool {
    let service =
        |wanted: &str| task.service_name == wanted || task.service.as_str().starts_with(wanted);
    let node = |wanted: &str| {
        let Some(id) = &task.node else { return false };
        let wanted = if wanted == "self" { here.as_str() } else { wanted };
        id.as_str().starts_with(wanted)
            || view.node(id).is_some_and(|node| node.description.hostname == wanted)
    };
    let desired = |wanted: &str| match task.desired {
        DesiredState::Ready => wanted == "ready",
        // Docker's users ask for "running" to see what is wanted, and for "shutdown" and
        // "accepted" to see the rest.
        DesiredState::Running => wanted == "running",
        DesiredState::Shutdown | DesiredState::Remove => wanted == "shutdown",
    };
    let labels: &Labels = &task.service_labels;
    filters.all(|name, wanted| match name {
        "id" => wanted.any(|id| task.id.as_str().starts_with(id)),
        "name" => wanted.any(|name| task.name().starts_with(name)),
        "service" => wanted.any(service),
        "node" => wanted.any(node),
        "desired-state" => wanted.any(desired),
        "runtime" => wanted.is("container"),
        "label" => wanted.labels(labels),
        "_up-to-date" => Some(up_to_date(view, task)) == fresh,
        _ => false,
    })
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let view = api.view().await?;
    let task = find::task(&view, &id)?;
    Ok(Json(show(&view, &task)))
}

async fn task_logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let manager = api.manager()?;
    let task = find::task(&manager.fresh().await?, &id)?;
    let framed = !task.spec.container.tty;
    logs::answer(&manager, manager::LogSelector::Task(task.id.clone()), &query, framed).await
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /tasks").query::<ListQuery>(),
        Served::new("GET /tasks/{id}"),
        Served::new("GET /tasks/{id}/logs").query::<LogQuery>(),
    ]
}
