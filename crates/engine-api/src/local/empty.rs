//! Lists of what there is none of are empty: clients ask for them in passing.

use crate::error::ApiError;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::{Api, ListQuery};
use axum::extract::Request;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/plugins", get(empty))
}

async fn empty(Query(query): Query<ListQuery>, request: Request) -> Result<Json<Value>, ApiError> {
    let operation = format!("GET {}", request.uri().path());
    Filters::parse(query.filters.as_deref(), &operation)?;
    Ok(Json(json!([])))
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![Served::new("GET /plugins").query::<ListQuery>()]
}
