//! `/volumes`: this node's volumes.

use crate::error::ApiError;
use crate::filters::Filters;
use crate::request::JsonBody;
use crate::{Api, ListQuery};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::Volume;
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Fault, Labels};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

fn render(volume: &Volume) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.path,
        "CreatedAt": volume.created.rfc3339(),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": null,
    })
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), &["driver", "label", "name"])?;
    let volumes = api.engine.volumes().await?;
    let shown = volumes.iter().filter(|volume| {
        filters.any("name", |name| volume.name.contains(name))
            && filters.any("driver", |driver| driver == "local")
            && filters.labels("label", &volume.labels)
    });
    Ok(Json(json!({ "Volumes": shown.map(render).collect::<Vec<_>>(), "Warnings": null })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "VolumeCreate", rename_all = "PascalCase", default)]
struct CreateJson {
    name: String,
    driver: String,
    driver_opts: Labels,
    labels: Labels,
}

async fn create(
    State(api): State<Api>,
    JsonBody(request, _): JsonBody<CreateJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if !matches!(request.driver.as_str(), "" | "local") || !request.driver_opts.is_empty() {
        return Err(Fault::not_implemented("a volume with a driver or driver options").into());
    }
    let volume = api.engine.create_volume(&request.name, request.labels).await?;
    Ok((StatusCode::CREATED, Json(render(&volume))))
}

async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(render(&api.engine.volume(&name).await?)))
}

async fn remove(State(api): State<Api>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    api.engine.remove_volume(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune() -> Result<Json<Value>, ApiError> {
    Err(Fault::not_implemented("pruning volumes").into())
}
