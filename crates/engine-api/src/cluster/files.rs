//! `/secrets` and `/configs`: what users give containers as files. Both go the same way.

use crate::Api;
use crate::error::ApiError;
use crate::json::file::{FileSpecJson, render_config, render_secret};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::{StoredFile, find};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Config, Fault, GivenFile, Secret, Version};

pub(crate) fn routes() -> Router<Api> {
    routes_of::<Secret>("/secrets").merge(routes_of::<Config>("/configs"))
}

fn routes_of<T: ShownFile>(path: &str) -> Router<Api> {
    Router::new()
        .route(path, get(list::<T>))
        .route(&format!("{path}/create"), post(create::<T>))
        .route(&format!("{path}/{{id}}"), get(inspect::<T>).delete(remove::<T>))
        .route(&format!("{path}/{{id}}/update"), post(update::<T>))
}

/// A secret or a config, as users see it.
trait ShownFile: StoredFile + Send + Sync {
    /// The operation that lists them, by which their filters are known.
    const LIST: &'static str;

    fn render(&self) -> Value;
}

impl ShownFile for Secret {
    const LIST: &'static str = "GET /secrets";

    fn render(&self) -> Value {
        render_secret(self)
    }
}

impl ShownFile for Config {
    const LIST: &'static str = "GET /configs";

    fn render(&self) -> Value {
        render_config(self)
    }
}

/// Those that the filters let through. As in swarmkit, names and ids widen the choice together,
/// labels narrow it, and names are compared without regard to case, as they are single without it.
async fn list<T: ShownFile>(
    State(api): State<Api>,
    Query(query): Query<FilesQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), T::LIST)?;
    let with_former = flag("revisions", query.revisions.as_deref())?;
    let view = api.view().await?;
    let shown = view.all::<T>().filter(|file| with_former || !file.spec().former);
    let shown = shown.filter(|file| matches(file.as_ref(), &filters));
    Ok(Json(shown.map(|file| file.render()).collect()))
}

fn flag(name: &str, value: Option<&str>) -> Result<bool, Fault> {
    match value.unwrap_or_default() {
        "" | "0" | "false" => Ok(false),
        "1" | "true" => Ok(true),
        other => Err(Fault::invalid(format!("{name}={other} is neither true nor false"))),
    }
}

fn matches<T: GivenFile>(file: &T, filters: &Filters) -> bool {
    let (id, spec) = (file.id().to_string(), file.spec());
    let named = |name: &str| spec.name.eq_ignore_ascii_case(name);
    let name = spec.name.to_ascii_lowercase();
    let begins = |prefix: &str| name.starts_with(&prefix.to_ascii_lowercase());
    let choices = [
        filters.get("id").map(|ids| ids.any(|prefix| id.starts_with(prefix))),
        filters.get("name").map(|names| names.any(begins)),
        filters.get("names").map(|names| names.any(named)),
    ];
    let is_chosen = choices.contains(&Some(true)) || choices.iter().all(Option::is_none);
    is_chosen && filters.get("label").is_none_or(|labels| labels.labels(&spec.labels))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /secrets/{id}/update", default)]
struct UpdateQuery {
    version: Option<u64>,
    /// Not Docker's: `new` where a new content is meant, `labels` (and nothing) where labels are.
    data: Option<String>,
}

/// The query of lists.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "ListQuery", default)]
struct FilesQuery {
    filters: Option<String>,
    /// Not Docker's: former revisions, too.
    revisions: Option<String>,
}

async fn create<T: ShownFile>(
    State(api): State<Api>,
    JsonBody(spec, _): JsonBody<FileSpecJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let id = api.manager()?.create_file::<T>(spec.parse()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id }))))
}

async fn inspect<T: ShownFile>(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(find::file::<T>(&api.view().await?, &id)?.render()))
}

async fn remove<T: ShownFile>(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let found = find::file::<T>(&manager.fresh().await?, &id)?;
    manager.remove_file::<T>(GivenFile::id(found.as_ref()).clone()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update<T: ShownFile>(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<UpdateQuery>,
    JsonBody(spec, _): JsonBody<FileSpecJson>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let found = find::file::<T>(&manager.fresh().await?, &id)?;
    let version = Version(crate::version(query.version)?);
    let id = GivenFile::id(found.as_ref()).clone();
    let mut spec = spec.parse()?;
    match query.data.as_deref() {
        None | Some("labels") => {}
        Some("new") => spec.revision = found.spec().revision + 1,
        Some(other) => {
            let text = format!("data={other} is not known: use new, or leave it out");
            return Err(Fault::invalid(text).into());
        }
    }
    manager.update_file::<T>(id, version, spec).await?;
    Ok(StatusCode::OK)
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    const FULL: &str = include_str!("../request/coverage/file.json");
    vec![
        Served::new("GET /secrets").query::<FilesQuery>(),
        Served::new("POST /secrets/create").body(FULL, FileSpecJson::parse),
        Served::new("GET /secrets/{id}"),
        Served::new("DELETE /secrets/{id}"),
        Served::new("POST /secrets/{id}/update")
            .query::<UpdateQuery>()
            .body(FULL, FileSpecJson::parse),
        Served::new("GET /configs").query::<FilesQuery>(),
        Served::new("POST /configs/create").body(FULL, FileSpecJson::parse),
        Served::new("GET /configs/{id}"),
        Served::new("DELETE /configs/{id}"),
        Served::new("POST /configs/{id}/update")
            .query::<UpdateQuery>()
            .body(FULL, FileSpecJson::parse),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_widen_the_choice_and_labels_narrow_it() {
        let mut secret = Secret { id: "abc".into(), ..Secret::default() };
        secret.spec.name = "db-Key".into();
        secret.spec.labels = [("env".to_owned(), "dev".to_owned())].into();
        let matches = |filters: &str| {
            matches(&secret, &Filters::parse(Some(filters), "GET /secrets").unwrap())
        };
        for fits in [
            "{}",
            r#"{"id": ["ab"]}"#,
            r#"{"name": ["db"]}"#,
            r#"{"name": ["DB-"]}"#,
            r#"{"names": ["DB-key"]}"#,
            r#"{"id": ["x"], "name": ["db-key"]}"#,
            r#"{"label": ["env=dev"], "names": ["x", "db-key"]}"#,
        ] {
            assert!(matches(fits), "{fits}");
        }
        for other in [
            r#"{"id": ["bc"]}"#,
            r#"{"name": ["key"]}"#,
            r#"{"names": ["db"]}"#,
            r#"{"label": ["env=prod"]}"#,
            r#"{"label": ["other"], "names": ["db-key"]}"#,
        ] {
            assert!(!matches(other), "{other}");
        }
    }
}
