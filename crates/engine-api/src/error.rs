//! Faults as HTTP: the one place that maps kinds to status codes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use types::{Fault, FaultKind};

/// A fault on its way to a client.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Fault);

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

/// The status code of a kind of fault.
pub(crate) fn status(kind: FaultKind) -> StatusCode {
    match kind {
        FaultKind::Invalid => StatusCode::BAD_REQUEST,
        FaultKind::Unauthorized => StatusCode::UNAUTHORIZED,
        FaultKind::Forbidden => StatusCode::FORBIDDEN,
        FaultKind::NotFound => StatusCode::NOT_FOUND,
        FaultKind::Conflict => StatusCode::CONFLICT,
        FaultKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultKind::NotImplemented | FaultKind::Incompatible => StatusCode::NOT_IMPLEMENTED,
        FaultKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "message": self.0.message });
        (status(self.0.kind), Json(body)).into_response()
    }
}
