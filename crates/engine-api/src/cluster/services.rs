//! `/services`: what users want to keep running.

use super::logs::{self, LogQuery};
use crate::Api;
use crate::credentials::{RegistryAuth, credentials};
use crate::error::ApiError;
use crate::json::service::{Counts, ServiceSpecJson, render};
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::Filters;
use crate::request::{JsonBody, ParseBool, Query};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use manager::find;
use serde::Deserialize;
use serde_json::{Value, json};
use store::View;
use types::{
    DesiredState, Fault, NetworkId, NodeNetwork, PullCredentials, Service, ServiceMode,
    ServiceSpec, TaskState, Version,
};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{id}", get(inspect).delete(remove))
        .route("/services/{id}/update", post(update))
        .route("/services/{id}/logs", get(service_logs))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /services", default)]
struct ListQuery {
    filters: Option<String>,
    status: ParseBool,
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /services")?;
    let view = api.view().await?;
    let shown = view.services().filter(|service| matches(service, &filters));
    let status = |service: &Service| query.status.0.then(|| counts(&view, service));
    let network = |id: &NetworkId| view.network(id).map(AsRef::as_ref);
    Ok(Json(shown.map(|service| render(service, status(service), network)).collect()))
}

fn matches(service: &Service, filters: &Filters) -> bool {
    filters.all(|name, wanted| match name {
        "id" => wanted.begins(service.id.as_str()),
        "name" => wanted.begins(&service.spec.name),
        "mode" => wanted.is(service.spec.mode.as_str()),
        "runtime" => wanted.is("container"),
        "label" => wanted.labels(&service.spec.labels),
        _ => false,
    })
}

/// Counts a service's tasks as Docker's `ServiceStatus` does.
fn counts(view: &View, service: &Service) -> Counts {
    let iteration = service.job.as_ref().map(|job| job.iteration);
    let (mut running, mut wanted, mut completed) = (0, 0, 0);
    // (What is left of a job's former iterations counts for nothing.)
    for task in view.tasks_of_service(&service.id).filter(|task| task.iteration == iteration) {
        let lives = task.desired == DesiredState::Running || task.desired == DesiredState::Ready;
        // (One that completed on a node that was given up meanwhile has another in its place.)
        let done = lives && iteration.is_some() && task.status.state == TaskState::Complete;
        completed += u64::from(done);
        wanted += u64::from(lives && !done);
        running += u64::from(task.status.state == TaskState::Running && lives);
    }
    let desired = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::ReplicatedJob { max_concurrent, .. } => max_concurrent,
        ServiceMode::Global | ServiceMode::GlobalJob => wanted,
    };
    Counts { running, desired, completed }
}

/// Turns what the user wrote as networks (names or ids) into ids.
fn resolve_networks(view: &View, spec: &mut ServiceSpec) -> Result<(), Fault> {
    for attachment in &mut spec.task.networks {
        let wanted = attachment.target.as_str();
        attachment.target = match NodeNetwork::named(wanted) {
            Some(network) => network.id().into(),
            None => find::network(view, wanted)?.id.clone(),
        };
    }
    Ok(())
}

async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    JsonBody(spec, warnings): JsonBody<ServiceSpecJson>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let manager = api.manager()?;
    let mut spec = spec.parse()?;
    spec.task.container.pull_credentials = credentials(&headers)?;
    let view = manager.fresh().await?;
    resolve_networks(&view, &mut spec)?;
    if spec.name.is_empty() {
        spec.name = engine::draw_name(|name| view.service_named(name).is_some());
    }
    let id = manager.create_service(spec).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id, "Warnings": some(&warnings) }))))
}

/// Go's form of a list: null where there is nothing in it.
fn some(warnings: &[String]) -> Option<&[String]> {
    (!warnings.is_empty()).then_some(warnings)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "GET /services/{id}", default)]
struct InspectQuery {}

async fn inspect(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(InspectQuery {}): Query<InspectQuery>,
) -> Result<Json<Value>, ApiError> {
    let view = api.view().await?;
    let service = find::service(&view, &id)?;
    Ok(Json(render(&service, None, |id| view.network(id).map(AsRef::as_ref))))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename = "POST /services/{id}/update", rename_all = "camelCase", default)]
struct UpdateQuery {
    version: Option<u64>,
    rollback: Option<String>,
    registry_auth_from: Option<String>,
}

/// The credentials of a service after an update: where it says nothing of them, those of a spec
/// that there is.
fn credentials_after(
    said: RegistryAuth,
    service: &Service,
    from: Option<&str>,
) -> Result<Option<PullCredentials>, Fault> {
    if let RegistryAuth::Said(new) = said {
        return Ok(new);
    }
    let spec = match from {
        None | Some("" | "spec") => &service.spec,
        Some("previous-spec") => service.previous_spec.as_ref().ok_or_else(|| {
            Fault::invalid(format!("service {} does not have a previous spec", service.id))
        })?,
        Some(other) => {
            return Err(Fault::invalid(format!(
                "unsupported registryAuthFrom value {other}: use 'spec' or 'previous-spec'"
            )));
        }
    };
    Ok(spec.task.container.pull_credentials.clone())
}

/// Says whether an update is to bring back the previous spec. Clients say always what they want.
fn rolls_back(rollback: Option<&str>) -> Result<bool, Fault> {
    match rollback {
        None | Some("" | "none") => Ok(false),
        Some("previous") => Ok(true),
        Some(other) => {
            let text = format!("unrecognized rollback option {other}: use 'previous' or 'none'");
            Err(Fault::invalid(text))
        }
    }
}

async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<UpdateQuery>,
    headers: HeaderMap,
    JsonBody(spec, warnings): JsonBody<ServiceSpecJson>,
) -> Result<Json<Value>, ApiError> {
    let manager = api.manager()?;
    let view = manager.fresh().await?;
    let service = find::service(&view, &id)?;
    let version = Version(crate::version(query.version)?);
    let rollback = rolls_back(query.rollback.as_deref())?;
    let mut spec = spec.parse()?;
    let said = RegistryAuth::read(&headers)?;
    let from = query.registry_auth_from.as_deref();
    spec.task.container.pull_credentials = credentials_after(said, &service, from)?;
    resolve_networks(&view, &mut spec)?;
    manager.update_service(&service.id, version, spec, rollback).await?;
    Ok(Json(json!({ "Warnings": some(&warnings) })))
}

async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let manager = api.manager()?;
    let service = find::service(&manager.fresh().await?, &id)?;
    manager.remove_service(&service.id).await?;
    Ok(StatusCode::OK)
}

async fn service_logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let manager = api.manager()?;
    let service = find::service(&manager.fresh().await?, &id)?;
    let framed = !service.spec.task.container.tty;
    logs::answer(&manager, manager::LogSelector::Service(service.id.clone()), &query, framed).await
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    const FULL: &str = include_str!("../request/coverage/service.json");
    vec![
        Served::new("GET /services").query::<ListQuery>(),
        Served::new("POST /services/create").body(FULL, ServiceSpecJson::parse),
        Served::new("GET /services/{id}").query::<InspectQuery>(),
        Served::new("DELETE /services/{id}"),
        Served::new("POST /services/{id}/update")
            .query::<UpdateQuery>()
            .body(FULL, ServiceSpecJson::parse),
        Served::new("GET /services/{id}/logs").query::<LogQuery>(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_without_credentials_keeps_those_of_the_spec_that_it_names() {
        let with = |username: &str| {
            let mut spec = ServiceSpec::default();
            let username = username.to_owned();
            let credentials = PullCredentials { username, ..PullCredentials::default() };
            spec.task.container.pull_credentials = Some(credentials);
            spec
        };
        let mut service = Service { id: "s".into(), spec: with("new"), ..Service::default() };
        let kept = |service: &Service, from| {
            let kept = credentials_after(RegistryAuth::NotSaid, service, from);
            kept.map(|kept| kept.unwrap_or_default().username)
        };
        for from in [None, Some(""), Some("spec")] {
            assert_eq!(kept(&service, from).unwrap(), "new");
        }
        let fault = kept(&service, Some("previous-spec")).unwrap_err();
        assert_eq!(fault, Fault::invalid("service s does not have a previous spec"));
        service.previous_spec = Some(with("old"));
        assert_eq!(kept(&service, Some("previous-spec")).unwrap(), "old");
        assert!(kept(&service, Some("elsewhere")).is_err());
        // Who has logged out and says so takes them away.
        let said = |new| credentials_after(RegistryAuth::Said(new), &service, Some("spec"));
        assert_eq!(said(None), Ok(None));
        let other = PullCredentials { username: "other".to_owned(), ..PullCredentials::default() };
        assert_eq!(said(Some(other.clone())), Ok(Some(other)));
    }

    #[test]
    fn an_update_says_whether_it_goes_back_and_clients_say_always_that_it_does_not() {
        for (said, back) in [
            (None, Ok(false)),
            (Some(""), Ok(false)),
            // Every update of the docker CLI from 29.0 on.
            (Some("none"), Ok(false)),
            (Some("previous"), Ok(true)),
        ] {
            assert_eq!(rolls_back(said), back, "{said:?}");
        }
        assert_eq!(rolls_back(Some("next")).unwrap_err().kind, types::FaultKind::Invalid);
    }

    #[test]
    fn credentials_are_not_shown() {
        let mut service = Service::default();
        let credentials = PullCredentials {
            username: "alice".to_owned(),
            password: "secret".to_owned(),
            identity_token: String::new(),
        };
        service.spec.task.container.pull_credentials = Some(credentials);
        service.previous_spec = Some(service.spec.clone());
        let shown = render(&service, None, |_| None).to_string();
        assert!(!shown.contains("alice") && !shown.contains("secret"), "{shown}");
    }
}
