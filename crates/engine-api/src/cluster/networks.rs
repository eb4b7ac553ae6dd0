//! `/networks`: the cluster's networks, and the few that every node has of its own.

use crate::error::ApiError;
use crate::json::network::{CreateJson, render, render_endpoint, render_local};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::{ContainerInfo, NetworkMode};
use manager::find;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use store::View;
use types::{Fault, Labels, Network, Service};

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

/// The cluster's view, where this node is a manager. Where there is no leader, networks are shown as
/// this manager knows them: those of the node itself are among them.
async fn view(api: &Api) -> Option<View> {
    let manager = api.manager().ok()?;
    Some(manager.fresh().await.unwrap_or_else(|_no_leader| manager.view()))
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /networks")?;
    let dangling = filters.flag("dangling")?;
    let mut networks = local(&api);
    let view = view(&api).await;
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
    let mut missing = Fault::not_found(format!("network {id} not found"));
    if of("swarm")
        && let Some(view) = view(&api).await
    {
        match find::network(&view, &id) {
            Ok(network) => {
                let on_network = attached(&view, &network, &api.engine.list(false).await);
                return Ok(Json(render(&network, &on_network)));
            }
            Err(fault) => missing = fault,
        }
    }
    let own = find_local(local(&api), &id).filter(|_| of("local"));
    let mut own = own.ok_or(missing)?;
    own["Containers"] = on_bridge(own["Name"] == "bridge", &api.engine.list(false).await);
    Ok(Json(own))
}

/// How much of an id is shown; less of one may be a name.
const SHORT_ID: usize = 12;

/// Finds one of the node's own networks by its name, its id or the beginning of its id.
fn find_local(networks: Vec<Value>, wanted: &str) -> Option<Value> {
    let is = |network: &Value| {
        let begins = network["Id"].as_str().is_some_and(|id| id.starts_with(wanted));
        network["Name"] == wanted || (SHORT_ID <= wanted.len() && begins)
    };
    networks.into_iter().find(is)
}

/// The containers of this node that have an address on a network of the cluster.
fn attached(view: &View, network: &Network, containers: &[ContainerInfo]) -> Value {
    let rendered = containers.iter().filter_map(|info| {
        let task = view.task(&info.config.spec.labels.get(types::TASK_LABEL)?.as_str().into())?;
        let own = task.attachments.iter().find(|attachment| attachment.network == network.id);
        let ingress = Some(task.ingress_addresses).filter(|_| network.spec.ingress);
        let addresses = own.map(|own| own.addresses).or(ingress).filter(|it| !it.is_empty())?;
        let shown = |address: Option<IpAddr>| {
            address.map(|address| network.with_prefix(address)).unwrap_or_default()
        };
        let (v4, v6) = (addresses.v4.map(IpAddr::V4), addresses.v6.map(IpAddr::V6));
        Some((info.id.clone(), render_endpoint(&info.name, &shown(v4), &shown(v6))))
    });
    Value::Object(rendered.collect())
}

/// The containers on the gateway bridge.
fn on_bridge(is_bridge: bool, containers: &[ContainerInfo]) -> Value {
    let plain =
        containers.iter().filter(|info| is_bridge && info.config.network == NetworkMode::Bridge);
    let rendered = plain.filter_map(|info| {
        Some((info.id.clone(), render_endpoint(&info.name, &info.address?.to_string(), "")))
    });
    Value::Object(rendered.collect())
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
    if let Some(own) = find_local(local(&api), &id) {
        let name = own["Name"].as_str().unwrap_or_default();
        let text = format!("{name} is a pre-defined network and cannot be removed");
        return Err(Fault::forbidden(text).into());
    }
    let manager = api.manager()?;
    let network = find::network(&manager.fresh().await?, &id)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_the_nodes_own_is_found_by_its_name_and_its_id() {
        let found = |wanted: &str| {
            let networks = ["bridge", "host"].map(|name| render_local(name, name, None));
            Some(find_local(networks.into(), wanted)?["Name"].as_str()?.to_owned())
        };
        let id = render_local("bridge", "bridge", None)["Id"].as_str().unwrap().to_owned();
        for wanted in ["bridge", &id, &id[..12]] {
            assert_eq!(found(wanted).as_deref(), Some("bridge"), "{wanted}");
        }
        assert_eq!(found("bri").or(found(&id[..2])).or(found("")), None);
    }
}
