//! The Docker Engine HTTP API: parse, call, render.
//!
//! Docker's JSON lives here and nowhere else. The API decides nothing: it reads a request, calls
//! the manager (the cluster) or the engine (this node's containers), and renders the answer. It
//! does not know how either works, nor where it is served. Start with [`router`]; what the API
//! needs of the node besides is the port [`Node`].
//!
//! Invariant: nothing is accepted and forgotten. A field of a request is honoured, refused by name,
//! or of no effect by design: [`request`] reads all requests and has the table, which `docs/api.md`
//! shows.

#![recursion_limit = "256"]

#[cfg(test)]
mod answers;
mod audit;
mod body;
mod cluster;
mod credentials;
mod error;
mod events;
mod json;
mod local;
mod port;
mod request;
mod spec;
mod system;
mod version;

pub use audit::Caller;
pub use json::network::config_of as render_subnet;
pub use port::{A_WORKER, About, Init, Join, LOCKED, Member, Membership, Node, Restore};
pub use spec::{parse_service_spec, render_file_spec, render_service_spec};
pub use system::plugins;

use audit::Audit;
use axum::Extension;
use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use engine::Engine;
use error::ApiError;
use http::{Method, Uri};
use request::table::operations;
use serde::Deserialize;
use std::sync::Arc;
use tower::{Layer, Service};
use types::Fault;

/// What every handler has.
#[derive(Clone)]
pub struct Api {
    pub engine: Engine,
    pub node: Arc<dyn Node>,
}

impl Api {
    /// The subnet of the gateway bridge; its first address is this node's.
    pub(crate) fn bridge(&self) -> Option<ipnet::IpNet> {
        self.node.about().gateway_subnet.parse().ok()
    }
}

/// The query of lists.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "ListQuery", default)]
pub(crate) struct ListQuery {
    pub(crate) filters: Option<String>,
}

/// The whole API as a service for one connection or many.
pub fn router(
    api: Api,
) -> impl Service<Request, Response = Response, Error = std::convert::Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let audit = Audit::new();
    let router = Router::new()
        .merge(system::routes())
        .merge(cluster::routes())
        .merge(local::routes())
        .merge(events::routes())
        .fallback(unknown.layer(from_fn(body::received)))
        .method_not_allowed_fallback(unknown.layer(from_fn(body::received)))
        .layer(Extension(audit.clone()))
        .layer(from_fn_with_state(audit, audit::told))
        .with_state(api);
    // The version is a prefix of the path; stripped before routing, handlers never see it.
    map_response(with_headers).layer(from_fn(version::stripped).layer(router))
}

/// Answers what Skep does not have: it says what was asked for.
pub(crate) async fn unknown(method: Method, uri: Uri) -> ApiError {
    let (method, path) = (method.as_str(), uri.path());
    ApiError(match operations::refused(method, path) {
        Some(feature) => Fault::not_implemented(feature),
        None => Fault::not_found(format!("{method} {path} is not supported by skep")),
    })
}

/// Adds the headers by which clients know the API.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let value = http::HeaderValue::from_static;
    headers.insert("Api-Version", value(version::NEWEST));
    headers.insert("Ostype", value("linux"));
    headers.insert("Docker-Experimental", value("false"));
    headers.insert("Server", value(concat!("Skep/", env!("CARGO_PKG_VERSION"))));
    response
}

/// The object version that an update must name.
pub(crate) fn version(version: Option<u64>) -> Result<u64, Fault> {
    version.ok_or_else(|| {
        Fault::invalid("invalid version: the query needs version=N, the object's Version.Index")
    })
}
