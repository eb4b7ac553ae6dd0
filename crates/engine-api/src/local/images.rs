//! `/images`: this node's images.

use super::of_this_platform;
use super::time::{Bounds, until};
use crate::body::json_lines;
use crate::credentials::credentials;
use crate::error::ApiError;
use crate::json::image::{created, render, render_item, render_progress, render_removed};
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::{Api, unknown};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use engine::{Archive, Image, Reference};
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::io::StreamReader;
use types::{Fault, Labels, Platform, Timestamp};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        // Names of images have slashes in them, so that what follows is taken off by hand.
        .route("/images/{*rest}", get(inspect).post(tag))
        .route("/images/{*rest}", delete(remove))
        .route("/distribution/{*rest}", get(distribution))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /images/json", default)]
struct ListQuery {
    filters: Option<String>,
}

fn created_at(image: &Image) -> Timestamp {
    Timestamp(created(image).saturating_mul(1_000_000_000))
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /images/json")?;
    let dangling = filters.flag("dangling")?;
    let mut bounds = Bounds::default();
    for name in filters.get("before").iter().flat_map(|wanted| wanted.values()) {
        bounds.before(created_at(&api.engine.image(name).await?));
    }
    for name in filters.get("since").iter().flat_map(|wanted| wanted.values()) {
        bounds.since(created_at(&api.engine.image(name).await?));
    }
    if let Some(until) = until(&filters)? {
        bounds.before(until);
    }
    let containers = api.engine.list(true).await;
    let images = api.engine.images().await?;
    let shown = images.iter().filter(|image| {
        let labels: Labels =
            serde_json::from_value(image.config["config"]["Labels"].clone()).unwrap_or_default();
        filters.all(|name, wanted| match name {
            "dangling" => Some(image.names.is_empty()) == dangling,
            "reference" => wanted.any(|wanted| is_named(image, wanted)),
            "label" => wanted.labels(&labels),
            "before" | "since" | "until" => bounds.holds(created_at(image)),
            _ => false,
        })
    });
    let used = |image: &Image| containers.iter().filter(|info| info.image == image.id).count();
    Ok(Json(shown.map(|image| render_item(image, used(image))).collect()))
}

/// Says whether an image has a name, with or without its tag.
fn is_named(image: &Image, wanted: &str) -> bool {
    image.names.iter().map(|name| Reference::shorten(name)).any(|name| {
        name == wanted || name.rsplit_once(':').is_some_and(|(repository, _)| repository == wanted)
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /images/create", rename_all = "camelCase", default)]
struct CreateQuery {
    platform: Option<String>,
    from_image: Option<String>,
    from_src: Option<String>,
    repo: Option<String>,
    tag: Option<String>,
    changes: Option<String>,
}

/// `docker pull`, or `docker import` where the tar comes with the request.
async fn create(
    State(api): State<Api>,
    Query(query): Query<CreateQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    if query.changes.is_some_and(|changes| !changes.is_empty()) {
        return Err(Fault::not_implemented("changes to an imported image (--change)").into());
    }
    of_this_platform(&api, query.platform.as_deref())?;
    let tag = query.tag.unwrap_or_default();
    let with_tag = |name: &str| match tag.as_str() {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    if let Some(name) = query.from_image.filter(|name| !name.is_empty()) {
        let progress = api.engine.pull(&with_tag(&name), credentials(&headers)?.map(Into::into))?;
        return Ok(json_lines(progress.map(|item| match item {
            Ok(progress) => render_progress(&progress),
            Err(fault) => render_failure(&fault),
        })));
    }
    if query.from_src.as_deref() != Some("-") {
        return Err(Fault::not_implemented("importing an image from a URL").into());
    }
    let name = query.repo.filter(|name| !name.is_empty()).map(|name| with_tag(&name));
    let image = api.engine.import(archive(request), name.as_deref(), json!({})).await?;
    Ok(json_lines(futures_util::stream::iter([json!({ "status": image.id })])))
}

fn render_failure(fault: &Fault) -> Value {
    json!({ "errorDetail": { "message": fault.message }, "error": fault.message })
}

/// The body as a stream of bytes.
fn archive(request: Request) -> Archive {
    let bytes = request.into_body().into_data_stream().map_err(std::io::Error::other);
    Box::pin(StreamReader::new(bytes))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /images/load", default)]
struct LoadQuery {
    platform: Vec<String>,
}

async fn load(
    State(api): State<Api>,
    Query(query): Query<LoadQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    for platform in &query.platform {
        of_this_platform(&api, Some(platform))?;
    }
    let images = api.engine.load(archive(request)).await?;
    let lines: Vec<Value> = images
        .iter()
        .flat_map(|image| {
            if image.names.is_empty() {
                vec![format!("Loaded image ID: {}\n", image.id)]
            } else {
                let short = |name: &String| Reference::shorten(name).to_owned();
                image.names.iter().map(|name| format!("Loaded image: {}\n", short(name))).collect()
            }
        })
        .map(|line| json!({ "stream": line }))
        .collect();
    Ok(json_lines(futures_util::stream::iter(lines)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /images/{name}/json", default)]
struct InspectQuery {
    platform: Option<String>,
}

/// `GET /images/{name}/json`, and what else hangs below a name.
async fn inspect(
    State(api): State<Api>,
    Path(rest): Path<String>,
    Query(query): Query<InspectQuery>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let Some(name) = rest.strip_suffix("/json") else {
        return Err(unknown(request.method().clone(), request.uri().clone()).await);
    };
    of_this_platform(&api, query.platform.as_deref())?;
    Ok(Json(render(&api.engine.image(name).await?)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /images/{name}/tag", default)]
struct TagQuery {
    repo: Option<String>,
    tag: Option<String>,
}

/// `POST /images/{name}/tag`, and `push`.
async fn tag(
    State(api): State<Api>,
    Path(rest): Path<String>,
    Query(query): Query<TagQuery>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let Some(name) = rest.strip_suffix("/tag") else {
        return Err(unknown(request.method().clone(), request.uri().clone()).await);
    };
    let repository = query.repo.unwrap_or_default();
    let tag = query.tag.unwrap_or_else(|| "latest".into());
    api.engine.tag(name, &format!("{repository}:{tag}")).await?;
    Ok(StatusCode::CREATED)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "DELETE /images/{name}", default)]
struct RemoveQuery {
    force: bool,
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let removed = api.engine.remove_image(&name, query.force).await?;
    Ok(Json(removed.iter().map(render_removed).collect()))
}

/// What a registry says of a name: clients ask before they make a service, and pin its image.
async fn distribution(
    State(api): State<Api>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let Some((name, "json")) = rest.rsplit_once('/') else {
        return Err(
            Fault::not_found(format!("/distribution/{rest} is not supported by skep")).into()
        );
    };
    let found = api.engine.distribution(name, credentials(&headers)?.map(Into::into)).await?;
    let platform = |it: &Platform| json!({ "architecture": it.architecture, "os": it.os });
    Ok(Json(json!({
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest,
            "size": found.size,
        },
        "Platforms": found.platforms.iter().map(platform).collect::<Vec<_>>(),
    })))
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /images/json").query::<ListQuery>(),
        Served::new("POST /images/create").query::<CreateQuery>(),
        Served::new("POST /images/load").query::<LoadQuery>(),
        Served::new("GET /images/{name}/json").query::<InspectQuery>(),
        Served::new("POST /images/{name}/tag").query::<TagQuery>(),
        Served::new("DELETE /images/{name}").query::<RemoveQuery>(),
        Served::new("GET /distribution/{name}/json"),
    ]
}
