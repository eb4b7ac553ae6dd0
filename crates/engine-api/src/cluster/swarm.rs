//! `/swarm`: create, join, leave, look at and change the cluster.

use crate::Api;
use crate::error::ApiError;
use crate::json;
use crate::port::{Init, Join};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::{JsonBody, ParseBool, Query};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ipnet::IpNet;
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
    let view = api.view().await?;
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
    availability: String,
}

impl InitJson {
    fn parse(self) -> Result<Init, Fault> {
        let pool = |text: &String| match text.parse() {
            Ok(pool @ IpNet::V4(_)) => Ok(pool),
            Ok(IpNet::V6(pool)) => {
                let text = format!("DefaultAddrPool={pool} (networks are of IPv4)");
                Err(Fault::not_implemented(&text))
            }
            Err(_) => Err(Fault::invalid(format!("invalid CIDR address: {text}"))),
        };
        let data_path_port = match self.data_path_port {
            0 => 4789,
            port @ 1024..=49151 => u16::try_from(port).unwrap_or(4789),
            port => {
                let text =
                    format!("invalid data path port {port}: use a number from 1024 to 49151");
                return Err(Fault::invalid(text));
            }
        };
        let subnet_prefix = match self.subnet_size {
            0 => 24,
            size @ 8..=29 => u8::try_from(size).unwrap_or(24),
            size => {
                let text = format!("invalid subnet size {size}: use a prefix length from 8 to 29");
                return Err(Fault::invalid(text));
            }
        };
        let (spec, root) = self.spec.parse()?;
        Ok(Init {
            listen: self.listen_addr,
            advertise: self.advertise_addr,
            data_path: self.data_path_addr,
            data_path_port,
            address_pools: self.default_addr_pool.iter().map(pool).collect::<Result<_, Fault>>()?,
            subnet_prefix,
            force_new_cluster: self.force_new_cluster,
            spec,
            root,
            availability: json::node::availability(&self.availability)?,
        })
    }
}

async fn init(
    State(api): State<Api>,
    JsonBody(request, _): JsonBody<InitJson>,
) -> Result<Json<Value>, ApiError> {
    let node = api.node.init(request.parse()?).await?;
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

impl JoinJson {
    fn parse(self) -> Result<Join, Fault> {
        if self.remote_addrs.is_empty() {
            return Err(Fault::invalid("at least 1 RemoteAddr is required to join"));
        }
        Ok(Join {
            listen: self.listen_addr,
            advertise: self.advertise_addr,
            data_path: self.data_path_addr,
            remotes: self.remote_addrs,
            token: self.join_token,
            availability: json::node::availability(&self.availability)?,
        })
    }
}

async fn join(
    State(api): State<Api>,
    JsonBody(request, _): JsonBody<JoinJson>,
) -> Result<StatusCode, ApiError> {
    api.node.join(request.parse()?).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /swarm/leave", default)]
struct LeaveQuery {
    force: bool,
}

async fn leave(
    State(api): State<Api>,
    Query(query): Query<LeaveQuery>,
) -> Result<StatusCode, ApiError> {
    api.node.leave(query.force).await?;
    Ok(StatusCode::OK)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /swarm/update", rename_all = "camelCase", default)]
struct UpdateQuery {
    version: Option<u64>,
    rotate_worker_token: ParseBool,
    rotate_manager_token: ParseBool,
    rotate_manager_unlock_key: ParseBool,
}

async fn update(
    State(api): State<Api>,
    Query(query): Query<UpdateQuery>,
    JsonBody(spec, _): JsonBody<json::cluster::ClusterSpecJson>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let version = crate::version(query.version)?;
    let (spec, root) = spec.parse()?;
    let rotate = manager::Rotate {
        worker: query.rotate_worker_token.0,
        manager: query.rotate_manager_token.0,
        unlock_key: query.rotate_manager_unlock_key.0,
        root,
    };
    manager.update_cluster(Version(version), spec, rotate).await?;
    Ok(StatusCode::OK)
}

async fn unlock_key(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    let view = api.view().await?;
    let key = view.cluster().map(|cluster| cluster.unlock_key.0.as_str());
    Ok(Json(serde_json::json!({ "UnlockKey": key.unwrap_or_default() })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "UnlockRequest", rename_all = "PascalCase", default)]
struct UnlockJson {
    unlock_key: String,
}

async fn unlock(
    State(api): State<Api>,
    JsonBody(request, _): JsonBody<UnlockJson>,
) -> Result<StatusCode, ApiError> {
    api.node.unlock(request.unlock_key).await?;
    Ok(StatusCode::OK)
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /swarm"),
        Served::new("POST /swarm/init").body(
            include_str!("../request/coverage/init.json"),
            |init: InitJson| {
                let init = init.parse()?;
                let root = init.root.clone().map(|root| (root.certificate, root.key));
                Ok((init, root))
            },
        ),
        Served::new("POST /swarm/join").body(
            r#"{"ListenAddr":"a","AdvertiseAddr":"b","DataPathAddr":"c","RemoteAddrs":["d"],
                "JoinToken":"e","Availability":"drain"}"#,
            JoinJson::parse,
        ),
        Served::new("POST /swarm/leave").query::<LeaveQuery>(),
        Served::new("POST /swarm/update").query::<UpdateQuery>().body(
            include_str!("../request/coverage/cluster.json"),
            |spec: json::cluster::ClusterSpecJson| {
                let (spec, root) = spec.parse()?;
                // A key prints as nothing.
                Ok((spec, root.map(|root| (root.certificate, root.key))))
            },
        ),
        Served::new("GET /swarm/unlockkey"),
        Served::new("POST /swarm/unlock").body(r#"{"UnlockKey":"a"}"#, |it: UnlockJson| Ok(it)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token that was replaced by mistake cannot be brought back.
    #[test]
    fn a_token_is_rotated_for_gos_words_of_yes_and_any_other_but_no_is_refused() {
        const ALL: [&str; 3] =
            ["rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey"];
        for name in ALL {
            let read = |word: &str| {
                let query = crate::request::query::<UpdateQuery>(&format!("{name}={word}"))?;
                let read = [
                    query.rotate_worker_token,
                    query.rotate_manager_token,
                    query.rotate_manager_unlock_key,
                ];
                let own = ALL.iter().position(|other| *other == name).unwrap();
                assert!((0..3).all(|at| at == own || !read[at].0), "{name}");
                Ok::<_, Fault>(read[own].0)
            };
            for yes in ["1", "t", "true", "True"] {
                assert_eq!(read(yes), Ok(true), "{name}={yes}");
            }
            for no in ["", "0", "f", "F", "false", "False"] {
                assert_eq!(read(no), Ok(false), "{name}={no}");
            }
            for nonsense in ["banana", "yes", "no", "none"] {
                let fault = Fault::invalid(format!("invalid value for {name}: {nonsense}"));
                assert_eq!(read(nonsense), Err(fault));
            }
        }
    }
}
