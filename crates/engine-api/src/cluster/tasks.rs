//! `/tasks`: what the cluster made of services.

use super::logs::{self, LogQuery};
use super::nodes::own;
use crate::error::ApiError;
use crate::json::task::render;
use crate::request::Query;
#[cfg(test)]
use crate::request::coverage::Served;
use crate::request::table::filters::{Filters, Wanted};
use crate::{Api, ListQuery};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use manager::find;
use serde_json::Value;
use std::collections::BTreeSet;
use store::View;
use types::{Fault, Labels, NodeId, ServiceId, Task};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{id}", get(inspect))
        .route("/tasks/{id}/logs", get(task_logs))
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Value>>, ApiError> {
    let filters = Filters::parse(query.filters.as_deref(), "GET /tasks")?;
    let view = api.view().await?;
    let here = api.member()?.node;
    let found = Found::find(&view, &here, &filters)?;
    let shown = view.tasks().filter(|task| matches(&view, task, &filters, &found));
    Ok(Json(shown.map(|task| show(&view, task)).collect()))
}

fn show(view: &View, task: &Task) -> Value {
    render(task, |id| view.network(id).map(|network| (**network).clone()))
}

/// Says whether a task is of its service's present spec; of a job, of its present iteration.
fn up_to_date(view: &View, task: &Task) -> bool {
    view.service(&task.service).is_some_and(|service| match &service.job {
        Some(job) => task.iteration == Some(job.iteration),
        None => service.spec.task.makes_same(&task.spec),
    })
}

/// What filters name beside the task itself. A service or a node that is not there is an error, as
/// with Docker.
#[derive(Debug, Default)]
struct Found {
    services: BTreeSet<ServiceId>,
    nodes: BTreeSet<NodeId>,
    fresh: Option<bool>,
}

impl Found {
    fn find(view: &View, here: &NodeId, filters: &Filters) -> Result<Self, Fault> {
        let values = |name| filters.get(name).into_iter().flat_map(Wanted::values);
        let services = values("service").map(|term| Ok(find::service(view, term)?.id.clone()));
        let nodes = values("node").map(|term| Ok(find::node(view, own(here, term))?.id.clone()));
        Ok(Self {
            services: services.collect::<Result<_, Fault>>()?,
            nodes: nodes.collect::<Result<_, Fault>>()?,
            fresh: filters.flag("_up-to-date")?,
        })
    }
}

fn matches(view: &View, task: &Task, filters: &Filters, found: &Found) -> bool {
    let labels: &Labels = &task.service_labels;
    filters.all(|name, wanted| match name {
        "id" => wanted.begins(task.id.as_str()),
        "name" => wanted.begins(&task.name()),
        "service" => found.services.contains(&task.service),
        "node" => task.node.as_ref().is_some_and(|node| found.nodes.contains(node)),
        "desired-state" => wanted.is(task.desired_word()),
        "runtime" => wanted.is("container"),
        "label" => wanted.labels(labels),
        "_up-to-date" => Some(up_to_date(view, task)) == found.fresh,
        _ => false,
    })
}

async fn inspect(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let view = api.view().await?;
    let task = find::task(&view, &id)?;
    Ok(Json(show(&view, &task)))
}

async fn task_logs(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let manager = api.manager()?;
    let task = find::task(&manager.fresh().await?, &id)?;
    let framed = !task.spec.container.tty;
    logs::answer(&manager, manager::LogSelector::Task(task.id.clone()), &query, framed).await
}

/// What the operations here read.
#[cfg(test)]
pub(super) fn served() -> Vec<Served> {
    vec![
        Served::new("GET /tasks").query::<ListQuery>(),
        Served::new("GET /tasks/{id}"),
        Served::new("GET /tasks/{id}/logs").query::<LogQuery>(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Tx;
    use types::{DesiredState, FaultKind, Service, ServiceSpec};

    #[test]
    fn a_task_is_found_by_the_desired_state_that_is_shown() {
        use DesiredState::{Ready, Remove, Running, Shutdown};
        for desired in [Ready, Running, Shutdown, Remove] {
            let task = Task { desired, ..Task::default() };
            for word in ["ready", "running", "shutdown", "remove"] {
                let text = serde_json::json!({ "desired-state": [word.to_uppercase()] });
                let filters = Filters::parse(Some(&text.to_string()), "GET /tasks").unwrap();
                let found = matches(&View::default(), &task, &filters, &Found::default());
                let shown = show(&View::default(), &task)["DesiredState"] == word;
                assert_eq!(found, shown, "{desired:?} {word}");
            }
        }
    }

    #[test]
    fn tasks_are_of_a_service_that_is_there_or_nothing_is_told() {
        let mut tx = Tx::new(&View::default());
        for (id, name) in [("abc1", "web"), ("abc2", "web-2")] {
            let spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
            tx.put_service(Service { id: id.into(), spec, ..Service::default() });
        }
        let mut view = View::default();
        view.apply(&tx.finish(), types::Version(1), types::Timestamp(1));
        let task = |service: &str| Task { service: service.into(), ..Task::default() };
        let shows = |name: &str, value: &str, task: &Task| {
            let text = serde_json::json!({ name: [value] }).to_string();
            let filters = Filters::parse(Some(&text), "GET /tasks")?;
            let found = Found::find(&view, &NodeId::default(), &filters)?;
            Ok::<_, Fault>(matches(&view, task, &filters, &found))
        };
        assert_eq!(shows("service", "web", &task("abc1")), Ok(true));
        assert_eq!(shows("service", "web", &task("abc2")), Ok(false));
        assert_eq!(shows("service", "abc2", &task("abc2")), Ok(true));
        for (name, message) in [("service", "service w not found"), ("node", "node w not found")] {
            let fault = shows(name, "w", &task("abc1")).unwrap_err();
            assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::NotFound, message));
        }
    }
}
