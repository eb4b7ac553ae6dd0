//! `/images`: this node's images.

use super::time::{Bounds, now, until};
use super::{changes, of_this_platform};
use crate::body::{drain, json_lines};
use crate::credentials::credentials;
use crate::error::ApiError;
use crate::json::image::{created, render, render_item, render_progress, render_removed};
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::table::refusal;
use crate::{Api, unknown};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use engine::{Archive, Image, Reference};
use futures_util::{StreamExt, TryStreamExt, stream};
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

/// Says whether an image has a name of this pattern, with or without its tag.
fn is_named(image: &Image, pattern: &str) -> bool {
    let fits = |name: &str| glob(pattern, name);
    image.names.iter().map(|name| Reference::shorten(name)).any(|name| {
        let repository = name.split_once('@').or(name.rsplit_once(':'));
        fits(name) || repository.is_some_and(|(repository, _)| fits(repository))
    })
}

/// Matches a pattern as Go's `path.Match` does, without classes: `*` and `?` stand for anything but
/// a slash.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut parts, mut texts) = (pattern.split('/'), text.split('/'));
    loop {
        match (parts.next(), texts.next()) {
            (None, None) => return true,
            (Some(part), Some(text)) if part_fits(part.as_bytes(), text.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Where the text differs, the last star takes one letter more.
fn part_fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, read));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || *wanted == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                (at, read, star) = (after, taken + 1, Some((after, taken + 1)));
            }
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /images/create", rename_all = "camelCase", default)]
struct CreateQuery {
    platform: Option<String>,
    from_image: Option<String>,
    from_src: Option<String>,
    repo: Option<String>,
    tag: Option<String>,
    changes: Vec<String>,
    message: Option<String>,
}

/// Says whether an image is named without a tag and a digest: Docker pulls all that there are.
fn names_all_tags(name: &str) -> bool {
    !name.rsplit('/').next().unwrap_or_default().contains([':', '@'])
}

/// What `POST /images/create` is asked for.
enum Wanted {
    Pull(String),
    /// A name, and the image's configuration.
    Import(Option<String>, Value),
}

impl CreateQuery {
    fn wanted(self) -> Result<Wanted, Fault> {
        let tag = self.tag.unwrap_or_default();
        let with_tag = |name: String| match tag.as_str() {
            "" => name,
            digest if digest.contains(':') => format!("{name}@{digest}"),
            tag => format!("{name}:{tag}"),
        };
        if let Some(name) = self.from_image.filter(|name| !name.is_empty()) {
            let name = with_tag(name);
            if names_all_tags(&name) {
                let advice = format!("name one, as in {name}:latest");
                return Err(refusal("tag", "all of them", &advice));
            }
            return Ok(Wanted::Pull(name));
        }
        match self.from_src.as_deref() {
            Some("-") => {}
            None | Some("") => {
                return Err(Fault::invalid("the query needs fromImage=NAME, or fromSrc=-"));
            }
            Some(url) => return Err(refusal("fromSrc", url, "send the tar with the request")),
        }
        let name = self.repo.filter(|name| !name.is_empty()).map(with_tag);
        if let Some(name) = &name {
            Reference::parse(name)?;
        }
        let configuration = json!({
            "config": changes::parse(&self.changes)?,
            "created": now().rfc3339(),
            "comment": self.message.unwrap_or_else(|| "Imported from -".to_owned()),
        });
        Ok(Wanted::Import(name, configuration))
    }
}

/// `docker pull`, or `docker import` where the tar comes with the request.
async fn create(
    State(api): State<Api>,
    Query(query): Query<CreateQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let here = of_this_platform(&api, query.platform.as_deref());
    let (name, configuration) = match here.and_then(|()| query.wanted()) {
        Ok(Wanted::Import(name, configuration)) => (name, configuration),
        Ok(Wanted::Pull(name)) => {
            let mut progress = api.engine.pull(&name, credentials(&headers)?.map(Into::into))?;
            // What fails before anything was told has a status of its own, as with Docker.
            let first = progress.next().await.transpose()?;
            let all = stream::iter(first.map(Ok)).chain(progress);
            return Ok(json_lines(all.map(|item| match item {
                Ok(progress) => render_progress(&progress),
                Err(fault) => render_failure(&fault),
            })));
        }
        Err(fault) => {
            drain(request.into_body()).await;
            return Err(fault.into());
        }
    };
    let image = api.engine.import(archive(request), name.as_deref(), configuration).await?;
    Ok(json_lines(stream::iter([json!({ "status": image.id })])))
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
    let mut platforms = query.platform.iter();
    if let Err(fault) = platforms.try_for_each(|it| of_this_platform(&api, Some(it))) {
        drain(request.into_body()).await;
        return Err(fault.into());
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
    Ok(json_lines(stream::iter(lines)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_names_one_tag_or_digest() {
        let wanted = |query: &str| match crate::request::query::<CreateQuery>(query)?.wanted()? {
            Wanted::Pull(name) => Ok(name),
            Wanted::Import(..) => Err(Fault::internal("an import")),
        };
        for (query, name) in [
            ("fromImage=a&tag=b", "a:b"),
            ("fromImage=a:b", "a:b"),
            ("fromImage=reg:5000/a&tag=sha256:0", "reg:5000/a@sha256:0"),
        ] {
            assert_eq!(wanted(query).unwrap(), name);
        }
        for query in ["fromImage=a", "fromImage=reg:5000/a&tag="] {
            let fault = wanted(query).unwrap_err();
            assert_eq!(fault.kind, types::FaultKind::NotImplemented, "{fault}");
        }
    }

    #[test]
    fn an_image_is_found_by_a_pattern_of_its_name() {
        let image = Image {
            names: vec!["docker.io/library/busybox:1.36".into(), "reg.example/a/web:x".into()],
            ..Image::default()
        };
        for (pattern, found) in [
            ("busybox", true),
            ("busybox:1.36", true),
            ("busy*", true),
            ("busybox:1.*", true),
            ("*:x", false),
            ("*/*/web", true),
            ("*/*/w?b:x", true),
            ("*", true),
            ("reg.example/*", false),
            ("busy", false),
            ("?usybox:*6", true),
            ("busybox:2*", false),
        ] {
            assert_eq!(is_named(&image, pattern), found, "{pattern}");
        }
    }
}
