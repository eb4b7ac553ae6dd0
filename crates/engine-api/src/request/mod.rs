//! What clients send, read in one place: JSON by Go's rules, queries by Docker's.

mod params;
mod reader;
pub(crate) mod table;
mod tree;

pub(crate) use params::ParseBool;
#[cfg(test)]
pub(crate) use params::read as query;
pub(crate) use reader::read;

use crate::error::ApiError;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;
use std::time::Duration;
use types::Fault;

/// The largest JSON body that is read, and how long its client may take for it.
pub(crate) const BODY_MAX: usize = 8 << 20;
const BODY_TIME: Duration = Duration::from_mins(1);

/// A JSON body, and what the user is told of its fields that have no effect. An empty body is the
/// default; any other must be said to be JSON.
pub(crate) struct JsonBody<T>(pub(crate) T, pub(crate) Vec<String>);

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Default,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = bytes_of(body, BODY_TIME).await?;
        said_to_be_json(&parts.headers, bytes.is_empty())?;
        let read = read(&bytes)?;
        Ok(Self(read.value, read.warnings))
    }
}

/// All of a body, where it comes in time.
async fn bytes_of(body: Body, limit: Duration) -> Result<Bytes, Fault> {
    tokio::time::timeout(limit, axum::body::to_bytes(body, BODY_MAX))
        .await
        .map_err(|_late| Fault::invalid("the request's body did not come in time"))?
        .map_err(|error| Fault::invalid(format!("cannot read the request's body: {error}")))
}

/// Refuses a body of another type, in Docker's words: what a form or a page of a browser sends is
/// no request.
fn said_to_be_json(headers: &HeaderMap, empty: bool) -> Result<(), Fault> {
    let kind = match headers.get(CONTENT_TYPE) {
        None if empty => return Ok(()),
        None => "",
        Some(kind) => kind.to_str().unwrap_or("?"),
    };
    let (media, _parameters) = kind.split_once(';').unwrap_or((kind, ""));
    if media.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let reason = format!("unsupported Content-Type header ({kind}): must be 'application/json'");
    Err(Fault::invalid(reason))
}

/// The query of a request.
pub(crate) struct Query<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Ok(Self(params::read(parts.uri.query().unwrap_or_default())?))
    }
}

#[cfg(test)]
pub(crate) mod coverage;
#[cfg(test)]
mod tests;
