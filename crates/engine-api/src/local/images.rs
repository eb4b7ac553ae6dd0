//! `/images`: this node's images.

use crate::body::json_lines;
use crate::credentials::credentials;
use crate::error::ApiError;
use crate::filters::Filters;
use crate::json::image::{render, render_item, render_progress, render_removed};
use crate::{Api, ListQuery, flag};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use engine::{Archive, Image, Reference};
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::io::StreamReader;
use types::{Fault, Labels};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/prune", post(prune))
        // Names of images have slashes in them, so that what follows is taken off by hand.
        .route("/images/{*rest}", get(inspect).post(tag))
        .route("/images/{*rest}", delete(remove))
        .route("/distribution/{*rest}", get(distribution))
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let allowed = ["before", "dangling", "label", "reference", "since", "until"];
    let filters = Filters::parse(query.filters.as_deref(), &allowed)?;
    for name in ["before", "since", "until"] {
        if filters.values(name).is_some() {
            return Err(Fault::not_implemented(&format!("the image filter '{name}'")).into());
        }
    }
    let dangling = filters.flag("dangling")?;
    let containers = api.engine.list(true).await;
    let images = api.engine.images().await?;
    let shown = images.iter().filter(|image| {
        let labels: Labels =
            serde_json::from_value(image.config["config"]["Labels"].clone()).unwrap_or_default();
        dangling.is_none_or(|dangling| image.names.is_empty() == dangling)
            && filters.any("reference", |wanted| is_named(image, wanted))
            && filters.labels("label", &labels)
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateQuery {
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

async fn load(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
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

/// `GET /images/{name}/json`, and what else hangs below a name.
async fn inspect(
    State(api): State<Api>,
    Path(rest): Path<String>,
) -> Result<Json<Value>, ApiError> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => Ok(Json(render(&api.engine.image(name).await?))),
        Some((_, "history")) => Err(Fault::not_implemented("docker history").into()),
        Some((_, "get")) => Err(Fault::not_implemented("docker save").into()),
        _ => Err(Fault::not_found(format!("/images/{rest} is not supported by skep")).into()),
    }
}

#[derive(Debug, Deserialize)]
struct TagQuery {
    repo: Option<String>,
    tag: Option<String>,
}

/// `POST /images/{name}/tag`, and `push`.
async fn tag(
    State(api): State<Api>,
    Path(rest): Path<String>,
    Query(query): Query<TagQuery>,
) -> Result<StatusCode, ApiError> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            let repository = query.repo.unwrap_or_default();
            let tag = query.tag.filter(|tag| !tag.is_empty()).unwrap_or_else(|| "latest".into());
            api.engine.tag(name, &format!("{repository}:{tag}")).await?;
            Ok(StatusCode::CREATED)
        }
        Some((_, "push")) => Err(Fault::not_implemented("docker push").into()),
        _ => Err(Fault::not_found(format!("/images/{rest} is not supported by skep")).into()),
    }
}

#[derive(Debug, Deserialize)]
struct RemoveQuery {
    force: Option<String>,
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let removed = api.engine.remove_image(&name, flag(query.force.as_deref())).await?;
    Ok(Json(removed.iter().map(render_removed).collect()))
}

async fn prune() -> Result<Json<Value>, ApiError> {
    Err(Fault::not_implemented("pruning images").into())
}

/// The CLI asks a registry for a digest before it makes a service; without an answer it goes on
/// with the tag and says so.
async fn distribution(Path(rest): Path<String>) -> Result<Json<Value>, ApiError> {
    let name = rest.trim_end_matches("/json");
    Err(Fault::not_implemented(&format!("resolving {name} to a digest")).into())
}
