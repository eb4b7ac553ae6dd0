//! `/secrets` and `/configs`: what users give containers as files. Both go the same way.

use crate::error::ApiError;
use crate::json::file::{FileSpecJson, render_config, render_secret};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, Query};
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::{StoredFile, find};
use serde::Deserialize;
use serde_json::{Value, json};
use types::{Config, GivenFile, Secret, Version};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/secrets", get(secrets))
        .route("/secrets/create", post(create_secret))
        .route("/secrets/{id}", get(secret).delete(remove_secret))
        .route("/secrets/{id}/update", post(update_secret))
        .route("/configs", get(configs))
        .route("/configs/create", post(create_config))
        .route("/configs/{id}", get(config).delete(remove_config))
        .route("/configs/{id}/update", post(update_config))
}

/// Those that the filters let through. As in swarmkit, names and ids widen the choice together, and
/// labels narrow it.
async fn list<T: StoredFile>(
    api: &Api,
    query: &ListQuery,
    operation: &'static str,
    render: fn(&T) -> Value,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), operation)?;
    let view = api.view().await?;
    let shown = view.all::<T>().filter(|file| matches(file.as_ref(), &filters));
    Ok(Json(shown.map(|file| render(file.as_ref())).collect()))
}

fn matches<T: GivenFile>(file: &T, filters: &Filters) -> bool {
    let (id, spec) = (file.id().to_string(), file.spec());
    let named = |name: &str| spec.name.eq_ignore_ascii_case(name);
    let choices = [
        filters.get("id").map(|ids| ids.any(|prefix| id.starts_with(prefix))),
        filters.get("name").map(|names| names.any(|prefix| spec.name.starts_with(prefix))),
        filters.get("names").map(|names| names.any(named)),
    ];
    let is_chosen = choices.contains(&Some(true)) || choices.iter().all(Option::is_none);
    is_chosen && filters.get("label").is_none_or(|labels| labels.labels(&spec.labels))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /secrets/{id}/update", default)]
struct UpdateQuery {
    version: Option<u64>,
}

async fn secrets(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    list::<Secret>(&api, &query, "GET /secrets", render_secret).await
}

async fn create_secret(
    State(api): State<Api>,
    JsonBody(spec, _): JsonBody<FileSpecJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let id = api.manager()?.create_secret(spec.parse()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id }))))
}

async fn secret(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let found = find::file::<Secret>(&api.view().await?, &id)?;
    Ok(Json(render_secret(&found)))
}

async fn remove_secret(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let found = find::file::<Secret>(&manager.fresh().await?, &id)?;
    manager.remove_secret(&found.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update_secret(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<UpdateQuery>,
    JsonBody(spec, _): JsonBody<FileSpecJson>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let found = find::file::<Secret>(&manager.fresh().await?, &id)?;
    let version = Version(crate::version(query.version)?);
    manager.update_secret(&found.id, version, spec.parse()?).await?;
    Ok(StatusCode::OK)
}

async fn configs(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    list::<Config>(&api, &query, "GET /configs", render_config).await
}

async fn create_config(
    State(api): State<Api>,
    JsonBody(spec, _): JsonBody<FileSpecJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let id = api.manager()?.create_config(spec.parse()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id }))))
}

async fn config(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let found = find::file::<Config>(&api.view().await?, &id)?;
    Ok(Json(render_config(&found)))
}

async fn remove_config(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let found = find::file::<Config>(&manager.fresh().await?, &id)?;
    manager.remove_config(&found.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn update_config(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<UpdateQuery>,
    JsonBody(spec, _): JsonBody<FileSpecJson>,
) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let found = find::file::<Config>(&manager.fresh().await?, &id)?;
    let version = Version(crate::version(query.version)?);
    manager.update_config(&found.id, version, spec.parse()?).await?;
    Ok(StatusCode::OK)
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    const FULL: &str = include_str!("../request/coverage/file.json");
    vec![
        Served::new("GET /secrets").query::<ListQuery>(),
        Served::new("POST /secrets/create").body(FULL, FileSpecJson::parse),
        Served::new("GET /secrets/{id}"),
        Served::new("DELETE /secrets/{id}"),
        Served::new("POST /secrets/{id}/update")
            .query::<UpdateQuery>()
            .body(FULL, FileSpecJson::parse),
        Served::new("GET /configs").query::<ListQuery>(),
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
        secret.spec.name = "db-key".into();
        secret.spec.labels = [("env".to_owned(), "dev".to_owned())].into();
        let matches = |filters: &str| {
            matches(&secret, &Filters::parse(Some(filters), "GET /secrets").unwrap())
        };
        for fits in [
            "{}",
            r#"{"id": ["ab"]}"#,
            r#"{"name": ["db"]}"#,
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
