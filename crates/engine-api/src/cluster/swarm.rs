//! `/swarm`: create, join, leave, look at and change the cluster.

use crate::Api;
use crate::error::ApiError;
use crate::json;
use crate::port::{Init, Join};
use crate::request::JsonBody;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;
use types::{Fault, Version};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
        .route("/swarm/unlockkey", get(unlock_key))
        .route("/swarm/unlock", post(unlock))
}

async fn inspect(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let view = api.manager()?.view();
    let cluster = view.cluster().ok_or_else(|| Fault::unavailable("the cluster is starting"))?;
    Ok(Json(json::cluster::render(cluster)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "InitRequest", rename_all = "PascalCase", default)]
struct InitJson {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    data_path_port: u32,
    default_addr_pool: Vec<String>,
    subnet_size: u32,
    force_new_cluster: bool,
    spec: json::cluster::ClusterSpecJson,
    auto_lock_managers: bool,
    availability: String,
}

async fn init(
    State(api): State<Api>,
    JsonBody(request, _): JsonBody<InitJson>,
) -> Result<Json<Value>, ApiError> {
    if request.auto_lock_managers {
        return Err(Fault::not_implemented("autolock").into());
    }
    let pool = |text: &String| {
        text.parse().map_err(|_invalid| Fault::invalid(format!("invalid CIDR address: {text}")))
    };
    let data_path_port = match request.data_path_port {
        0 => 4789,
        port @ 1024..=49151 => u16::try_from(port).unwrap_or(4789),
        port => {
            let text = format!("invalid data path port {port}: use a number from 1024 to 49151");
            return Err(Fault::invalid(text).into());
        }
    };
    let subnet_prefix = match request.subnet_size {
        0 => 24,
        size @ 8..=29 => u8::try_from(size).unwrap_or(24),
        size => {
            let text = format!("invalid subnet size {size}: use a prefix length from 8 to 29");
            return Err(Fault::invalid(text).into());
        }
    };
    let init = Init {
        listen: request.listen_addr,
        advertise: request.advertise_addr,
        data_path: request.data_path_addr,
        data_path_port,
        address_pools: request.default_addr_pool.iter().map(pool).collect::<Result<_, Fault>>()?,
        subnet_prefix,
        force_new_cluster: request.force_new_cluster,
        spec: request.spec.parse()?,
        availability: json::node::availability(&request.availability)?,
    };
    let node = api.node.init(init).await?;
    Ok(Json(Value::String(node.to_string())))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "JoinRequest", rename_all = "PascalCase", default)]
struct JoinJson {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    remote_addrs: Vec<String>,
    join_token: String,
    availability: String,
}

async fn join(
    State(api): State<Api>,
    JsonBody(request, _): JsonBody<JoinJson>,
) -> Result<StatusCode, ApiError> {
    if request.remote_addrs.is_empty() {
        return Err(Fault::invalid("at least 1 RemoteAddr is required to join").into());
    }
    let join = Join {
        listen: request.listen_addr,
        advertise: request.advertise_addr,
        data_path: request.data_path_addr,
        remotes: request.remote_addrs,
        token: request.join_token,
        availability: json::node::availability(&request.availability)?,
    };
    api.node.join(join).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Deserialize)]
struct LeaveQuery {
    force: Option<String>,
}

async fn leave(
    State(api): State<Api>,
    Query(query): Query<LeaveQuery>,
) -> Result<StatusCode, ApiError> {
    api.node.leave(crate::flag(query.force.as_deref())).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateQuery {
    version: Option<u64>,
    rotate_worker_token: Option<String>,
    rotate_manager_token: Option<String>,
    rotate_manager_unlock_key: Option<String>,
}

async fn update(
    State(api): State<Api>,
    Query(query): Query<UpdateQuery>,
    JsonBody(spec, _): JsonBody<json::cluster::ClusterSpecJson>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    if crate::flag(query.rotate_manager_unlock_key.as_deref()) {
        return Err(Fault::not_implemented("autolock").into());
    }
    let version = crate::version(query.version)?;
    let rotate = manager::Rotate {
        worker: crate::flag(query.rotate_worker_token.as_deref()),
        manager: crate::flag(query.rotate_manager_token.as_deref()),
    };
    manager.update_cluster(Version(version), spec.parse()?, rotate).await?;
    Ok(StatusCode::OK)
}

async fn unlock_key(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    api.manager()?;
    Ok(Json(serde_json::json!({ "UnlockKey": "" })))
}

async fn unlock() -> Result<StatusCode, ApiError> {
    Err(Fault::conflict("swarm is not locked").into())
}
