//! `/networks`: the cluster's networks, and the few that every node has of its own.

use crate::error::ApiError;
use crate::filters::Filters;
use crate::json::network::{CreateJson, render, render_local};
use crate::request::JsonBody;
use crate::{Api, ListQuery, port::Membership};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::find;
use serde_json::{Value, json};
use store::View;
use types::{Fault, Labels};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect).delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(connect))
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
    let allowed = ["dangling", "driver", "id", "label", "name", "scope", "type"];
    let filters = Filters::parse(query.filters.as_deref(), &allowed)?;
    let mut networks = local(&api);
    if let Some(view) = view(&api) {
        networks.extend(view.networks().map(|network| render(network, &json!({}))));
    }
    let word = |network: &Value, key: &str| network[key].as_str().unwrap_or_default().to_owned();
    networks.retain(|network| {
        let labels: Labels = serde_json::from_value(network["Labels"].clone()).unwrap_or_default();
        filters.any("driver", |driver| word(network, "Driver") == driver)
            && filters.any("id", |id| word(network, "Id").starts_with(id))
            && filters.any("name", |name| word(network, "Name").contains(name))
            && filters.any("scope", |scope| word(network, "Scope") == scope)
            && filters.any("type", |kind| (kind == "custom") == (word(network, "Scope") == "swarm"))
            && filters.labels("label", &labels)
    });
    Ok(Json(networks))
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    if let Some(view) = view(&api)
        && let Ok(network) = find::network(&view, &id)
    {
        return Ok(Json(render(&network, &json!({}))));
    }
    let own = local(&api).into_iter().find(|network| network["Name"] == id.as_str());
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

async fn prune() -> Result<Json<Value>, ApiError> {
    Err(Fault::not_implemented("pruning networks").into())
}

async fn connect() -> Result<StatusCode, ApiError> {
    Err(Fault::not_implemented("connecting a container to a network after it was made").into())
}
