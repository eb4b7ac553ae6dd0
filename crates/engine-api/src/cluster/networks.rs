//! `/networks`: the cluster's networks, and the few that every node has of its own.

use crate::error::ApiError;
use crate::json::network::{CreateJson, render, render_local};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use crate::{Api, ListQuery, port::Membership};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::find;
use serde::Deserialize;
use serde_json::{Value, json};
use store::View;
use types::{Fault, Labels, Service};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/{id}", get(inspect).delete(remove))
}

/// The networks that a node has of its own.
fn local(api: &Api) -> Vec<Value> {
    let subnet = api.node.about().gateway_subnet.clone();
    vec![
        render_local("bridge", "bridge", Some(&subnet)),
        render_local("host", "host", None),
        render_local("none", "null", None),
    ]
}

/// The cluster's view, where this node is a manager.
fn view(api: &Api) -> Option<View> {
    match api.node.membership() {
        Membership::Active(member) => member.manager.map(|manager| manager.view()),
        Membership::Inactive | Membership::Pending { .. } => None,
    }
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /networks")?;
    let dangling = filters.flag("dangling")?;
    let mut networks = local(&api);
    let view = view(&api);
    if let Some(view) = &view {
        let there = view.networks().filter(|network| !network.removed);
        networks.extend(there.map(|network| render(network, &json!({}))));
    }
    networks.retain(|network| {
        matches(network, &filters, || {
            dangling == Some(view.as_ref().is_some_and(|view| is_dangling(view, network)))
        })
    });
    Ok(Json(networks))
}

/// Says whether no service has a network: those of the node's own and the ingress network never
/// dangle.
fn is_dangling(view: &View, network: &Value) -> bool {
    let id = network["Id"].as_str().unwrap_or_default();
    let used = |service: &Service| {
        service.spec.task.networks.iter().any(|attached| attached.target.as_str() == id)
    };
    network["Scope"] == "swarm"
        && network["Ingress"] != true
        && !view.services().any(|service| used(service))
}

/// `dangles` says whether the network is as the filter `dangling` wants it.
fn matches(network: &Value, filters: &Filters, dangles: impl Fn() -> bool) -> bool {
    let word = |key: &str| network[key].as_str().unwrap_or_default();
    let labels: Labels = serde_json::from_value(network["Labels"].clone()).unwrap_or_default();
    filters.all(|name, wanted| match name {
        "driver" => wanted.is(word("Driver")),
        "id" => wanted.any(|id| word("Id").starts_with(id)),
        "name" => wanted.any(|name| word("Name").contains(name)),
        "scope" => wanted.is(word("Scope")),
        "type" => wanted.any(|kind| (kind == "custom") == (word("Scope") == "swarm")),
        "label" => wanted.labels(&labels),
        "dangling" => dangles(),
        _ => false,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /networks/{id}", default)]
struct InspectQuery {
    scope: Option<String>,
}

async fn inspect(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Json<Value>, ApiError> {
    let of = |scope: &str| query.scope.as_ref().is_none_or(|wanted| wanted == scope);
    if of("swarm")
        && let Some(view) = view(&api)
        && let Ok(network) = find::network(&view, &id)
    {
        return Ok(Json(render(&network, &json!({}))));
    }
    let own = local(&api).into_iter().find(|network| network["Name"] == id.as_str());
    let own = own.filter(|_| of("local"));
    Ok(Json(own.ok_or_else(|| Fault::not_found(format!("network {id} not found")))?))
}

async fn create(
    State(api): State<Api>,
    JsonBody(request, warnings): JsonBody<CreateJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let spec = request.parse()?;
    let id = api.manager()?.create_network(spec).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id, "Warning": warnings.join("; ") }))))
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    if local(&api).iter().any(|network| network["Name"] == id.as_str()) {
        let text = format!("{id} is a pre-defined network and cannot be removed");
        return Err(Fault::forbidden(text).into());
    }
    let manager = api.manager()?;
    let network = find::network(&manager.view(), &id)?;
    manager.remove_network(&network.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /networks").query::<ListQuery>(),
        Served::new("POST /networks/create")
            .body(include_str!("../request/coverage/network.json"), CreateJson::parse),
        Served::new("GET /networks/{id}").query::<InspectQuery>(),
        Served::new("DELETE /networks/{id}"),
    ]
}
