//! What Docker has and Skep does not have yet: said by name.

use crate::Api;
use crate::error::ApiError;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use types::Fault;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        // Lists of what there is none of are empty: clients ask for them in passing.
        .route("/secrets", get(empty))
        .route("/configs", get(empty))
        .route("/plugins", get(empty))
        .route("/secrets/{*rest}", any(secrets))
        .route("/configs/{*rest}", any(configs))
        .route("/plugins/{*rest}", any(plugins))
        .route("/build", post(build))
        .route("/build/prune", post(build))
        .route("/commit", post(commit))
        .route("/session", post(session))
        .route("/grpc", post(session))
        .route("/system/df", get(usage))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(pause))
        .route("/containers/{id}/update", post(update))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/archive", any(archive))
        .route("/containers/{id}/export", get(export))
        .route("/containers/{id}/changes", get(changes))
        .route("/containers/{id}/checkpoints", any(checkpoints))
        .route("/images/search", get(search))
        .route("/images/get", get(save))
        .route_layer(axum::middleware::from_fn(crate::body::received))
}

async fn empty() -> Json<Value> {
    Json(json!([]))
}

fn refuse(feature: &str) -> Result<(), ApiError> {
    Err(Fault::not_implemented(feature).into())
}

async fn secrets() -> Result<(), ApiError> {
    refuse("secrets")
}

async fn configs() -> Result<(), ApiError> {
    refuse("configs")
}

async fn plugins() -> Result<(), ApiError> {
    refuse("plugins")
}

async fn build() -> Result<(), ApiError> {
    refuse("building images")
}

async fn commit() -> Result<(), ApiError> {
    refuse("docker commit")
}

async fn session() -> Result<(), ApiError> {
    refuse("a BuildKit session")
}

async fn usage() -> Result<(), ApiError> {
    refuse("docker system df")
}

async fn pause() -> Result<(), ApiError> {
    refuse("pausing a container")
}

async fn update() -> Result<(), ApiError> {
    refuse("docker update")
}

async fn rename() -> Result<(), ApiError> {
    refuse("renaming a container")
}

async fn archive() -> Result<(), ApiError> {
    refuse("docker cp")
}

async fn export() -> Result<(), ApiError> {
    refuse("docker export")
}

async fn changes() -> Result<(), ApiError> {
    refuse("docker diff")
}

async fn checkpoints() -> Result<(), ApiError> {
    refuse("checkpoints")
}

async fn search() -> Result<(), ApiError> {
    refuse("docker search")
}

async fn save() -> Result<(), ApiError> {
    refuse("docker save")
}
