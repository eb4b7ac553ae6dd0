//! The version of the API, which a request's path may begin with.

use crate::body::drain;
use crate::error::ApiError;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Uri;
use std::cmp::Ordering;
use types::Fault;

/// The newest version of the API that is spoken, and the oldest.
pub(crate) const NEWEST: &str = "1.50";
pub(crate) const OLDEST: &str = "1.24";

/// Turns `/v1.43/info` into `/info` before it is routed; refuses a version that is not spoken.
pub(crate) async fn stripped(mut request: Request, next: Next) -> Response {
    match strip(request.uri()) {
        Ok(Some(uri)) => *request.uri_mut() = uri,
        Ok(None) => {}
        Err(fault) => {
            drain(request.into_body()).await;
            return ApiError(fault).into_response();
        }
    }
    next.run(request).await
}

/// The address without its version; `None` where it has none.
fn strip(uri: &Uri) -> Result<Option<Uri>, Fault> {
    let versioned = uri.path().strip_prefix("/v").and_then(|rest| rest.split_once('/'));
    let Some((version, path)) = versioned else { return Ok(None) };
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok(None);
    }
    if compare(version, OLDEST) == Ordering::Less {
        return Err(Fault::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {OLDEST}, \
             please upgrade your client to a newer version"
        )));
    }
    if compare(version, NEWEST) == Ordering::Greater {
        return Err(Fault::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {NEWEST}"
        )));
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("/{path}{query}").parse().ok())
}

/// Compares part by part, as numbers.
fn compare(one: &str, other: &str) -> Ordering {
    let parts = |text: &str| -> Vec<u64> {
        // A part is empty, a number, or larger than any.
        let number =
            |part: &str| if part.is_empty() { 0 } else { part.parse().unwrap_or(u64::MAX) };
        let mut parts: Vec<u64> = text.split('.').map(number).collect();
        while parts.last() == Some(&0) {
            parts.pop();
        }
        parts
    };
    parts(one).cmp(&parts(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_stripped_and_nothing_else() {
        for (path, stripped_path) in [
            ("/v1.43/services?status=true", Some("/services?status=true")),
            ("/v1.50/_ping", Some("/_ping")),
            ("/v1.24.0/x", Some("/x")),
            ("/volumes", None),
            ("/volumes/v1.43/x", None),
            ("/version", None),
            ("/v1.43", None),
        ] {
            let uri = strip(&path.parse().unwrap()).unwrap().map(|uri| uri.to_string());
            assert_eq!(uri.as_deref(), stripped_path, "{path}");
        }
    }

    #[test]
    fn a_version_that_is_not_spoken_is_refused_in_dockers_words() {
        let new = "is too new. Maximum supported API version is 1.50";
        let old = "is too old. Minimum supported API version is 1.24, please upgrade your client \
                   to a newer version";
        for (version, reason) in [
            ("1.51", new),
            ("1.99", new),
            ("1.50.1", new),
            ("2", new),
            ("1.99999999999999999999999", new),
            ("1.23", old),
            ("1.9", old),
            ("1", old),
            ("0.0", old),
        ] {
            let fault = strip(&format!("/v{version}/info").parse().unwrap()).unwrap_err();
            assert_eq!(fault, Fault::invalid(format!("client version {version} {reason}")));
        }
    }
}
