//! Specs as clients send and read them: what a client of ours needs so that Docker's JSON stays in
//! this crate.

use crate::json::service::ServiceSpecJson;
use serde_json::{Value, json};
use types::{Fault, FileSpec, ServiceSpec};

/// Renders a spec as `POST /services/create` takes it.
pub fn render_service_spec(spec: &ServiceSpec) -> Value {
    json!(ServiceSpecJson::render(spec))
}

/// Renders what `POST /secrets/create` and `POST /configs/create` take. Its bytes are in it.
pub fn render_file_spec(spec: &FileSpec) -> Value {
    crate::json::file::render_spec(spec)
}

/// Reads a spec as `GET /services/{id}` shows it.
pub fn parse_service_spec(spec: &Value) -> Result<ServiceSpec, Fault> {
    crate::request::read::<ServiceSpecJson>(spec.to_string().as_bytes())?.value.parse()
}
