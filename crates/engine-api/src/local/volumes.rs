//! `/volumes`: this node's volumes.

use crate::error::ApiError;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::{Volume, VolumeOrder};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{FaultKind, Labels, MountKind};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

/// Renders a volume as `GET /volumes/{name}` shows it.
pub(crate) fn render(volume: &Volume) -> Value {
    let mut object = json!({
        "Name": volume.name,
        "Driver": volume.driver(),
        "Mountpoint": volume.path,
        "CreatedAt": volume.created.rfc3339(),
        "Labels": volume.labels,
        "Scope": if volume.is_global { "global" } else { "local" },
        "Options": (!volume.options.is_empty()).then_some(&volume.options),
    });
    if let Some(status) = &volume.status {
        object["Status"] = status.clone();
    }
    object
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Value>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /volumes")?;
    let dangling = filters.flag("dangling")?;
    let containers = api.engine.list(true).await;
    let used = |volume: &Volume| {
        let mounts = containers.iter().flat_map(|info| &info.mounts).map(|point| &point.mount);
        let mut volumes = mounts.filter(|mount| mount.kind == MountKind::Volume);
        volumes.any(|mount| mount.source == volume.name)
    };
    let volumes = api.engine.volumes().await?;
    let shown = volumes
        .iter()
        .filter(|volume| matches(volume, &filters, || dangling == Some(!used(volume))));
    Ok(Json(json!({ "Volumes": shown.map(render).collect::<Vec<_>>(), "Warnings": null })))
}

/// `dangles` says whether the volume is as the filter `dangling` wants it.
fn matches(volume: &Volume, filters: &Filters, dangles: impl Fn() -> bool) -> bool {
    filters.all(|name, wanted| match name {
        "name" => wanted.fits(&volume.name),
        "driver" => wanted.is(volume.driver()),
        "label" => wanted.labels(&volume.labels),
        "dangling" => dangles(),
        _ => false,
    })
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
    let CreateJson { name, driver, driver_opts: options, labels } = request;
    let volume = api.engine.create_volume(VolumeOrder { name, driver, options, labels }).await?;
    Ok((StatusCode::CREATED, Json(render(&volume))))
}

async fn inspect(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(render(&api.engine.volume(&name).await?)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "DELETE /volumes/{name}", default)]
struct RemoveQuery {
    force: bool,
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    match api.engine.remove_volume(&name, query.force).await {
        // Forced, it is enough that the volume is gone.
        Err(fault) if !(query.force && fault.kind == FaultKind::NotFound) => Err(fault.into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /volumes").query::<ListQuery>(),
        Served::new("POST /volumes/create").body(
            r#"{"Name":"a","Driver":"local","DriverOpts":{"o":"ro"},"Labels":{"a":"b"}}"#,
            |it: CreateJson| Ok(it),
        ),
        Served::new("GET /volumes/{name}"),
        Served::new("DELETE /volumes/{name}").query::<RemoveQuery>(),
    ]
}
