//! `/networks`: the cluster's networks, and the few that every node has of its own.

use crate::error::ApiError;
use crate::json::container::{endpoint_id, is_on, mac_text, networks as render_networks};
use crate::json::network::{CreateJson, EndpointJson, render, render_local, render_predefined};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, ParseBool, Query};
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::ContainerInfo;
use ipnet::IpNet;
use manager::find;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use store::View;
use types::{Addresses, Fault, Labels, Network, NodeNetwork, Service, Task};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/{id}", get(inspect).delete(remove))
}

/// The networks that a node has of its own.
fn local(api: &Api) -> Vec<Value> {
    let subnet = |network| (network == NodeNetwork::Bridge).then(|| api.bridge()).flatten();
    let shown = |it: NodeNetwork| render_local(it.name(), it.driver(), subnet(it));
    NodeNetwork::ALL.map(shown).into()
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
        "id" => wanted.fits(word("Id")),
        "name" => wanted.fits(word("Name")),
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
    verbose: ParseBool,
}

async fn inspect(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<InspectQuery>,
) -> Result<Json<Value>, ApiError> {
    let of = |scope: &str| query.scope.as_ref().is_none_or(|wanted| wanted == scope);
    let mut missing = Fault::not_found(format!("network {id} not found"));
    if query.scope.as_deref() == Some("swarm")
        && let Some(network) = NodeNetwork::named(&id)
        && api.manager().is_ok()
    {
        return Ok(Json(render_predefined(network)));
    }
    if of("swarm")
        && let Some(view) = view(&api).await
    {
        match find::network(&view, &id) {
            Ok(network) => {
                let on_network = attached(&view, &network, &api.engine.list(false).await);
                let mut object = render(&network, &on_network);
                object["Peers"] = peers(&view, &network);
                if query.verbose.0 {
                    object["Services"] = services(&view, &network);
                }
                return Ok(Json(object));
            }
            Err(fault) => missing = fault,
        }
    }
    let own = find_local(local(&api), &id).filter(|_| of("local"));
    let mut own = own.ok_or(missing)?;
    own["Containers"] = on_own(&own, &api.engine.list(false).await);
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
        let task = view.task(&info.config.task()?)?;
        let own = task.attachments.iter().find(|attachment| attachment.network == network.id);
        let ingress = Some(task.ingress_addresses).filter(|_| network.spec.ingress);
        let addresses = own.map(|own| own.addresses).or(ingress).filter(|it| !it.is_empty())?;
        let shown = |address: Option<IpAddr>| {
            address.map(|address| network.with_prefix(address)).unwrap_or_default()
        };
        let (v4, v6) = (addresses.v4.map(IpAddr::V4), addresses.v6.map(IpAddr::V6));
        let endpoint = EndpointJson {
            name: &info.name,
            id: endpoint_id(&info.id, network.id.as_str()),
            mac: addresses.mac().map(mac_text).unwrap_or_default(),
            v4: &shown(v4),
            v6: &shown(v6),
        };
        Some((info.id.clone(), endpoint.render()))
    });
    Value::Object(rendered.collect())
}

/// The containers on one of the node's own networks.
fn on_own(network: &Value, containers: &[ContainerInfo]) -> Value {
    let word = |key: &str| network[key].as_str().unwrap_or_default();
    let on = containers.iter().filter(|info| is_on(info, word("Name")));
    let rendered = on.map(|info| {
        let shown = render_networks(info, subnet_of(network))[word("Name")].clone();
        let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
        let v4 = text("IPAddress");
        let v4 = if v4.is_empty() { v4 } else { format!("{v4}/{}", shown["IPPrefixLen"]) };
        let endpoint = EndpointJson {
            name: &info.name,
            id: text("EndpointID"),
            mac: text("MacAddress"),
            v4: &v4,
            v6: "",
        };
        (info.id.clone(), endpoint.render())
    });
    Value::Object(rendered.collect())
}

fn subnet_of(network: &Value) -> Option<IpNet> {
    network["IPAM"]["Config"][0]["Subnet"].as_str()?.parse().ok()
}

/// The tasks that are on a network, each with its address there.
fn tasks_on<'a>(
    view: &'a View,
    network: &'a Network,
) -> impl Iterator<Item = (&'a Task, Addresses)> {
    view.tasks().filter(|task| task.is_placed()).filter_map(|task| {
        let own = task.attachments.iter().find(|attachment| attachment.network == network.id);
        let ingress = Some(task.ingress_addresses).filter(|_| network.spec.ingress);
        let addresses = own.map(|own| own.addresses).or(ingress);
        addresses.filter(|it| !it.is_empty()).map(|addresses| (task.as_ref(), addresses))
    })
}

/// The nodes that carry a network.
fn peers(view: &View, network: &Network) -> Value {
    let nodes: BTreeSet<_> =
        tasks_on(view, network).filter_map(|(task, _)| task.node.as_ref()).collect();
    let nodes = nodes.into_iter().filter_map(|id| view.node(id));
    nodes.map(|node| json!({ "Name": node.id, "IP": node.status.address })).collect()
}

/// The services on a network with their tasks (`?verbose=true`).
fn services(view: &View, network: &Network) -> Value {
    let mut all: BTreeMap<&str, Value> = BTreeMap::new();
    for (task, addresses) in tasks_on(view, network) {
        let service = view.service(&task.service);
        let entry = all.entry(&task.service_name).or_insert_with(|| {
            let vips = service.into_iter().flat_map(|service| &service.vips);
            let mut on_it = vips.filter(|vip| vip.network == network.id);
            let vip = on_it.find_map(|vip| vip.addresses.primary());
            let ports = task.ports.iter().filter(|port| network.spec.ingress && port.in_mesh());
            let ports =
                ports.map(|port| format!("Target: {}, Publish: {}", port.target, port.published));
            json!({
                "VIP": vip.map(|vip| vip.to_string()).unwrap_or_default(),
                "Ports": ports.collect::<Vec<_>>(),
                "LocalLBIndex": 0,
                "Tasks": [],
            })
        });
        let node = task.node.as_ref().and_then(|id| view.node(id));
        let address = addresses.primary().map(|address| address.to_string());
        let container = task.status.container.as_ref().map_or("", |it| it.id.as_str());
        let shown = json!({
            "Name": task.name(),
            "EndpointID": endpoint_id(container, network.id.as_str()),
            "EndpointIP": address.unwrap_or_default(),
            "Info": { "Host IP": node.map(|node| node.status.address) },
        });
        if let Some(tasks) = entry["Tasks"].as_array_mut() {
            tasks.push(shown);
        }
    }
    json!(all)
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
