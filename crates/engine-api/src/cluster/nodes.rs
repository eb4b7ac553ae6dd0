//! `/nodes`: the machines of the cluster.

use crate::error::ApiError;
use crate::json::node::{ManagerView, NodeSpecJson, render};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::{Managers, find};
use serde::Deserialize;
use serde_json::Value;
use types::{Node, NodeId, Version};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{id}", get(inspect).delete(remove))
        .route("/nodes/{id}/update", post(update))
}

/// The id behind what the user typed: `self` is the node that is asked.
pub(super) fn own<'a>(here: &'a NodeId, wanted: &'a str) -> &'a str {
    if wanted == "self" { here.as_str() } else { wanted }
}

/// What a manager is besides a node.
fn manager_view(node: &Node, managers: &Managers) -> Option<ManagerView> {
    let status = node.manager.as_ref()?;
    Some(ManagerView {
        address: status.address.clone(),
        leader: managers.leader.as_ref() == Some(&node.id),
        reachable: !managers.unreachable.contains(&node.id),
    })
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /nodes")?;
    let manager = api.manager()?;
    let (managers, view) = (manager.managers().await?, manager.view());
    let shown = view.nodes().filter(|node| matches(node, &filters));
    Ok(Json(shown.map(|node| render(node, manager_view(node, &managers).as_ref())).collect()))
}

fn matches(node: &Node, filters: &Filters) -> bool {
    filters.all(|name, wanted| match name {
        "id" => wanted.begins(node.id.as_str()),
        "name" => wanted.begins(&node.description.hostname),
        "role" => wanted.is(node.role.as_str()),
        "membership" => wanted.is("accepted"),
        "node.label" => wanted.labels(&node.spec.labels),
        "label" => wanted.labels(&node.description.engine.labels),
        _ => false,
    })
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let manager = api.manager()?;
    let (managers, view) = (manager.managers().await?, manager.view());
    let node = find::node(&view, own(&api.member()?.node, &id))?;
    Ok(Json(render(&node, manager_view(&node, &managers).as_ref())))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /nodes/{id}/update", default)]
struct UpdateQuery {
    version: Option<u64>,
}

async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<UpdateQuery>,
    JsonBody(spec, _): JsonBody<NodeSpecJson>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let node = find::node(&manager.fresh().await?, own(&api.member()?.node, &id))?;
    let version = Version(crate::version(query.version)?);
    manager.update_node(&node.id, version, spec.parse()?).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "DELETE /nodes/{id}", default)]
struct RemoveQuery {
    force: bool,
}

async fn remove(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let node = find::node(&manager.fresh().await?, own(&api.member()?.node, &id))?;
    manager.remove_node(&node.id, query.force).await?;
    Ok(StatusCode::OK)
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /nodes").query::<ListQuery>(),
        Served::new("GET /nodes/{id}"),
        Served::new("DELETE /nodes/{id}").query::<RemoveQuery>(),
        Served::new("POST /nodes/{id}/update").query::<UpdateQuery>().body(
            r#"{"Name":"a","Labels":{"a":"b"},"Role":"manager","Availability":"drain"}"#,
            NodeSpecJson::parse,
        ),
    ]
}
