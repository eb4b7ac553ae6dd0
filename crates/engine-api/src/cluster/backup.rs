//! `/skep/backup` and `/skep/restore`: all that a cluster knows, as one file. Docker's API has nothing
//! like it.

use crate::Api;
use crate::body::stream;
use crate::error::ApiError;
use crate::port::Restore;
use crate::request::Query;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::backup;
use serde::Deserialize;
use serde_json::Value;
use types::Fault;

/// The largest backup: what a log may send is no larger.
const FILE_MAX: usize = 1 << 30;
/// What opens a backup of locked managers. It is no part of the address, which is told in logs.
const UNLOCK_KEY: &str = "X-Unlock-Key";

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/skep/backup", get(save)).route("/skep/restore", post(restore))
}

async fn save(State(api): State<Api>) -> Result<Response, ApiError> {
    let file = backup::write(&api.view().await?)?;
    Ok(stream("application/octet-stream", Body::from(file)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /skep/restore", rename_all = "camelCase", default)]
struct RestoreQuery {
    listen: String,
    advertise: String,
    data_path: String,
}

async fn restore(
    State(api): State<Api>,
    Query(query): Query<RestoreQuery>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let key = request.headers().get(UNLOCK_KEY).and_then(|key| key.to_str().ok());
    let key = key.unwrap_or_default().to_owned();
    let file = to_bytes(request.into_body(), FILE_MAX).await;
    let file = file.map_err(|error| Fault::invalid(format!("cannot read the backup: {error}")))?;
    let restore = Restore {
        listen: query.listen,
        advertise: query.advertise,
        data_path: query.data_path,
        // Nothing is changed before the whole of it was read.
        view: backup::read(&file, &key)?,
    };
    Ok(Json(api.node.restore(restore).await?.to_string().into()))
}
