//! Specs as clients send and read them: what a client of ours needs so that Docker's JSON stays in
//! this crate.

use crate::json::service::ServiceSpecJson;
use serde_json::{Value, json};
use types::{Fault, ServiceSpec};

/// Renders a spec as `POST /services/create` takes it.
pub fn render_service_spec(spec: &ServiceSpec) -> Value {
    json!(ServiceSpecJson::render(spec))
}

/// Reads a spec as `GET /services/{id}` shows it.
pub fn parse_service_spec(spec: &Value) -> Result<ServiceSpec, Fault> {
    crate::request::read::<ServiceSpecJson>(spec.to_string().as_bytes())?.value.parse()
}
