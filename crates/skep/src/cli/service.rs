//! `skep service`: what users want to keep running.

mod create;
mod flags;
mod logs;
mod parse;
pub(super) mod pretty;
mod update;

use super::query::{filters, list, number, text};
use super::table::List;
use super::{Listing, Several, human, progress, say, several, show, tasks};
use crate::client::{Client, escape};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::process::ExitCode;
use types::ServiceSpec;

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create a service
    Create(Box<create::Create>),
    /// Show services as JSON, or for people
    Inspect(Inspect),
    /// Show the logs of a service, or of a task
    Logs(logs::Logs),
    /// List services
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show what an update would do; the exit code is 3 where it would do anything
    Plan(Box<update::Update>),
    /// List the tasks of services
    Ps(Ps),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Go back to the spec before the last update
    Rollback(Rollback),
    /// Set how many tasks services have
    Scale(Scale),
    /// Change a service
    Update(Box<update::Update>),
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "SERVICE")]
    names: Vec<String>,
    #[command(flatten)]
    show: show::Show,
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    #[arg(required = true, value_name = "SERVICE")]
    names: Vec<String>,
    #[command(flatten)]
    tasks: tasks::Tasks,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[arg(required = true, value_name = "SERVICE")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Rollback {
    #[arg(value_name = "SERVICE")]
    name: String,
    #[command(flatten)]
    waiting: progress::Waiting,
}

#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// Services and how many tasks each has
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    scales: Vec<String>,
    /// Return at once instead of waiting until the services have converged
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_value_t = false,
        default_missing_value = "true", require_equals = true, hide_default_value = true,
        hide_possible_values = true, action = clap::ArgAction::Set)]
    detach: bool,
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Plan(verb) => return update::plan(client, &verb).await,
        Verb::Create(verb) => create::run(client, *verb).await,
        Verb::Inspect(verb) => {
            let mut several = of_names(client, &verb.names).await;
            if verb.show.is_pretty() {
                name_networks(client, &mut several.found).await?;
            }
            verb.show.print(&several.found, pretty::service)?;
            several.end()
        }
        Verb::Logs(verb) => logs::run(client, &verb).await,
        Verb::Ls(verb) => ls(client, &verb, &[]).await.map(drop),
        Verb::Ps(verb) => {
            let several = of_names(client, &verb.names).await;
            tasks::ls_of(client, &verb.tasks, "service", several).await
        }
        Verb::Rm(verb) => {
            let one = async |name: &str| {
                client.delete(&format!("/services/{}", escape(name))).await?;
                say(name);
                Ok(())
            };
            super::each(&verb.names, one).await
        }
        Verb::Rollback(verb) => rollback(client, &verb).await,
        Verb::Scale(verb) => scale(client, &verb).await,
        Verb::Update(verb) => update::run(client, *verb).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Puts names in the place of networks' ids.
async fn name_networks(client: &Client, services: &mut [Value]) -> Result<()> {
    let networks: Vec<Value> = client.get("/networks").await?;
    for service in services {
        let attachments = service.pointer_mut("/Spec/TaskTemplate/Networks");
        for attachment in attachments.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(network) = networks.iter().find(|net| net["Id"] == attachment["Target"]) {
                attachment["Target"] = network["Name"].clone();
            }
        }
    }
    Ok(())
}

async fn of_names(client: &Client, names: &[String]) -> Several<Value> {
    several(names, async |name| read(client, name).await).await
}

async fn read(client: &Client, name: &str) -> Result<Value> {
    client.get(&format!("/services/{}?insertDefaults=true", escape(name))).await
}

/// A service's spec in the cluster's words.
pub(crate) fn spec(service: &Value) -> Result<ServiceSpec> {
    engine_api::parse_service_spec(&service["Spec"]).context("cannot read the service's spec")
}

/// Writes a changed spec back.
pub(crate) async fn write(client: &Client, service: &Value, spec: &ServiceSpec) -> Result<()> {
    let (id, version) = (text(service, "/ID"), &service["Version"]["Index"]);
    let path = format!("/services/{id}/update?version={version}");
    client.order(&path, &engine_api::render_service_spec(spec)).await
}

/// Prints the services that fit; says whether there are any.
pub(crate) async fn ls(client: &Client, verb: &Listing, more: &[(&str, &str)]) -> Result<bool> {
    let query = filters(&verb.filter, more)?;
    let mut services: Vec<Value> =
        client.get(&format!("/services?status=true&filters={query}")).await?;
    if services.is_empty() && !more.is_empty() {
        return Ok(false);
    }
    services.sort_by_key(|service| human::natural(text(service, "/Spec/Name")));
    verb.print(&table(&services, verb.no_trunc))?;
    Ok(true)
}

fn table(services: &[Value], whole: bool) -> List {
    let mut table = List::new(
        &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Mode", "MODE"),
            ("Replicas", "REPLICAS"),
            ("Image", "IMAGE"),
            ("Ports", "PORTS"),
        ],
        &[],
    );
    for service in services {
        table.row([
            human::id(text(service, "/ID"), whole),
            text(service, "/Spec/Name").to_owned(),
            mode(service).to_owned(),
            replicas(service),
            human::image(text(service, "/Spec/TaskTemplate/ContainerSpec/Image")).to_owned(),
            ports(service),
        ]);
    }
    table
}

/// The word for a service's mode in lists.
fn mode(service: &Value) -> &'static str {
    let words = [
        ("/Spec/Mode/Global", "global"),
        ("/Spec/Mode/ReplicatedJob", "replicated job"),
        ("/Spec/Mode/GlobalJob", "global job"),
    ];
    let is_it = |path: &str| service.pointer(path).is_some();
    words.into_iter().find(|(path, _)| is_it(path)).map_or("replicated", |(_, word)| word)
}

/// How many tasks run of how many, and of a job how many have completed.
fn replicas(service: &Value) -> String {
    let running = number(service, "/ServiceStatus/RunningTasks");
    let desired = number(service, "/ServiceStatus/DesiredTasks");
    let completed = number(service, "/ServiceStatus/CompletedTasks");
    let most = number(service, "/Spec/TaskTemplate/Placement/MaxReplicas");
    let total = match mode(service) {
        "replicated job" => number(service, "/Spec/Mode/ReplicatedJob/TotalCompletions"),
        "global job" => desired + completed,
        _ if most > 0 => return format!("{running}/{desired} (max {most} per node)"),
        _ => return format!("{running}/{desired}"),
    };
    format!("{running}/{desired} ({completed}/{total} completed)")
}

/// The ports that a service publishes on every node.
fn ports(service: &Value) -> String {
    list(service, "/Endpoint/Ports")
        .iter()
        .filter(|port| text(port, "/PublishMode") != "host")
        .map(|port| {
            format!(
                "*:{}->{}/{}",
                number(port, "/PublishedPort"),
                number(port, "/TargetPort"),
                text(port, "/Protocol")
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

async fn rollback(client: &Client, verb: &Rollback) -> Result<()> {
    let service = read(client, &verb.name).await?;
    let (id, version) = (text(&service, "/ID"), &service["Version"]["Index"]);
    let path = format!("/services/{id}/update?version={version}&rollback=previous");
    client.order(&path, &service["Spec"]).await?;
    say(&verb.name);
    verb.waiting.wait(client, id).await
}

async fn scale(client: &Client, verb: &Scale) -> Result<()> {
    for scale in &verb.scales {
        if !matches!(scale.split_once('='), Some((name, to)) if !name.is_empty() && !to.is_empty())
        {
            bail!("invalid scale specifier '{scale}': expected SERVICE=REPLICAS");
        }
    }
    let one = async |scale: &str| {
        let (name, replicas) = scale.split_once('=').unwrap_or_default();
        scale_one(client, name, replicas).await.with_context(|| name.to_owned())
    };
    // Those that could be scaled are waited for, whatever became of the others.
    let mut scaled = several(&verb.scales, one).await;
    if !verb.detach && !scaled.found.is_empty() {
        let waited = progress::converge(client, &scaled.found, true).await;
        scaled.wrong.extend(waited.err());
    }
    scaled.end()
}

/// Sets how many tasks a service has; returns its id.
async fn scale_one(client: &Client, name: &str, replicas: &str) -> Result<String> {
    let replicas: u64 = replicas
        .parse()
        .with_context(|| format!("invalid replicas value {replicas}: use a number"))?;
    let service = read(client, name).await?;
    let mut spec = spec(&service)?;
    if spec.mode.is_global() {
        bail!("scale can only be used with replicated or replicated-job mode");
    }
    spec.mode = flags::with_replicas(spec.mode, replicas)?;
    write(client, &service, &spec).await?;
    say(&format!("{name} scaled to {replicas}"));
    Ok(text(&service, "/ID").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn services_are_listed_as_docker_does() {
        let service = |name: &str, mode: Value, ports: Value| {
            json!({"ID": "0123456789abcdefghijklmno", "Endpoint": {"Ports": ports},
                "Spec": {"Name": name, "Mode": mode, "TaskTemplate": {
                    "ContainerSpec": {"Image": "wordpress:php7.1-apache"}}},
                "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2, "CompletedTasks": 3}})
        };
        let port = |number: i64, mode: &str| json!({"PublishedPort": number, "TargetPort": 80, "Protocol": "tcp", "PublishMode": mode});
        let services = [
            service("db", json!({"Global": {}}), Value::Null),
            service("each", json!({"GlobalJob": {}}), Value::Null),
            service("import", json!({"ReplicatedJob": {"TotalCompletions": 7}}), Value::Null),
            service(
                "wordpress_wordpress",
                json!({"Replicated": {}}),
                json!([port(8080, "ingress"), port(9090, "host"), port(8081, "ingress")]),
            ),
        ];
        let text = table(&services, false).render(None).unwrap();
        expect![[r"
            ID             NAME                  MODE             REPLICAS              IMAGE                     PORTS
            0123456789ab   db                    global           1/2                   wordpress:php7.1-apache   
            0123456789ab   each                  global job       1/2 (3/5 completed)   wordpress:php7.1-apache   
            0123456789ab   import                replicated job   1/2 (3/7 completed)   wordpress:php7.1-apache   
            0123456789ab   wordpress_wordpress   replicated       1/2                   wordpress:php7.1-apache   *:8080->80/tcp, *:8081->80/tcp
        "]].assert_eq(&text);
    }
}
