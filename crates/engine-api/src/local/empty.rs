//! Lists of what there is none of are empty: clients ask for them in passing. Those of the cluster
//! are its managers' to tell.

use crate::error::ApiError;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::{Api, ListQuery};
use axum::extract::{Request, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/secrets", get(of_the_cluster))
        .route("/configs", get(of_the_cluster))
        .route("/plugins", get(empty))
}

async fn of_the_cluster(
    State(api): State<Api>,
    query: Query<ListQuery>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    api.manager()?;
    empty(query, request).await
}

async fn empty(Query(query): Query<ListQuery>, request: Request) -> Result<Json<Value>, ApiError> {
    let operation = format!("GET {}", request.uri().path());
    Filters::parse(query.filters.as_deref(), &operation)?;
    Ok(Json(json!([])))
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /secrets").query::<ListQuery>(),
        Served::new("GET /configs").query::<ListQuery>(),
        Served::new("GET /plugins").query::<ListQuery>(),
    ]
}
