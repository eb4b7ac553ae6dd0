//! `skep stack deploy`: makes the cluster have what the files ask for.

use super::files::Files;
use super::{needs, parts};
use crate::cli::query::{list, text};
use crate::cli::{file, progress, registry, say, service, warn};
use crate::client::{Client, Refusal, escape};
use anyhow::{Context, Result, bail};
use clap::Args;
use compose::{Project, StackNetwork};
use hyper::StatusCode;
use serde_json::Value;
use std::collections::BTreeSet;
use types::{NodeNetwork, ServiceSpec};

/// What is deployed.
#[derive(Args, Debug)]
pub(super) struct Target {
    #[arg(value_name = "STACK")]
    pub(super) name: String,
    #[command(flatten)]
    files: Files,
    /// Remove services that the files have no more
    #[arg(long)]
    pub(super) prune: bool,
    /// When a registry is asked for the digests of images
    #[arg(long, value_enum, default_value_t = Resolve::Always)]
    pub(super) resolve_image: Resolve,
}

impl Target {
    /// Reads the files.
    pub(super) fn load(&self) -> Result<Project> {
        check_name(&self.name)?;
        Ok(self.files.load(&self.name)?.project)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Deploy {
    #[command(flatten)]
    target: Target,
    /// Return at once; `--detach=false` waits until every service has converged
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_value_t = true,
        default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    detach: bool,
    /// Wait without showing progress
    #[arg(short, long)]
    quiet: bool,
    /// Send the credentials for registries to the nodes
    #[arg(long)]
    with_registry_auth: bool,
}

/// When a registry is asked what a tag stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Resolve {
    /// At every deploy
    Always,
    /// When the file names another image than before
    Changed,
    Never,
}

impl Resolve {
    /// Says whether the digest of an image is asked for; `changed`: the service has another one,
    /// or is new.
    fn asks(self, changed: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Changed => changed,
            Self::Never => false,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(flatten)]
    files: Files,
}

/// Checks files and shows the services that they ask for, as the API would get them.
pub(super) fn config(verb: &Config) -> Result<()> {
    let loaded = verb.files.load("STACK")?;
    let specs: Vec<Value> =
        loaded.project.services.iter().map(engine_api::render_service_spec).collect();
    crate::cli::show::write(&specs, None)
}

/// A stack's name is part of every name in the cluster.
fn check_name(stack: &str) -> Result<()> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if stack.is_empty() || !stack.bytes().all(known) {
        bail!("invalid stack name {stack:?}: use letters, digits, '-' and '_'");
    }
    Ok(())
}

pub(super) async fn run(client: &Client, verb: &Deploy) -> Result<()> {
    let Target { name: stack, prune: prunes, .. } = &verb.target;
    let project = verb.target.load()?;
    // A node that is no manager says so before anything is changed.
    let existing = parts(client, "services", stack).await?;
    if *prunes {
        prune(client, &existing, &project.services).await?;
    }
    file::put::<types::Secret>(client, &project.secrets).await?;
    file::put::<types::Config>(client, &project.configs).await?;
    networks(client, stack, &project.networks).await?;
    let mut ids = Vec::new();
    for spec in project.services {
        let is_new = !existing.iter().any(|service| text(service, "/Spec/Name") == spec.name);
        if let Some(needs) = project.dependencies.get(&spec.name).filter(|_| is_new) {
            needs::wait(client, &spec.name, needs).await?;
        }
        ids.push(put(client, verb, &existing, spec).await?);
    }
    if verb.detach {
        return Ok(());
    }
    progress::converge(client, &ids, !verb.quiet).await
}

/// The stack's services that the files have no more.
pub(super) fn unwanted<'a>(
    existing: &'a [Value],
    wanted: &[ServiceSpec],
) -> impl Iterator<Item = &'a Value> {
    let wanted: BTreeSet<String> = wanted.iter().map(|spec| spec.name.clone()).collect();
    existing.iter().filter(move |service| !wanted.contains(text(service, "/Spec/Name")))
}

async fn prune(client: &Client, existing: &[Value], wanted: &[ServiceSpec]) -> Result<()> {
    for service in unwanted(existing, wanted) {
        say(&format!("Removing service {}", text(service, "/Spec/Name")));
        client.delete(&format!("/services/{}", text(service, "/ID"))).await?;
    }
    Ok(())
}

/// Creates the stack's networks that are not there, and sees that the others are.
async fn networks(client: &Client, stack: &str, wanted: &[StackNetwork]) -> Result<()> {
    // Those of every node's own are there in any case.
    let is_looked_for = |network: &&StackNetwork| {
        network.external && NodeNetwork::named(&network.spec.name).is_none()
    };
    for network in wanted.iter().filter(is_looked_for) {
        let name = &network.spec.name;
        let found: Result<Value> = client.get(&format!("/networks/{}", escape(name))).await;
        match found {
            Ok(found) => {
                let scope = text(&found, "/Scope");
                if scope != "swarm" {
                    bail!(
                        "network {name:?} is declared as external, but it is not in the right scope: {scope:?} instead of \"swarm\""
                    );
                }
            }
            Err(error) if is_not_found(&error) => bail!(
                "network {name:?} is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed"
            ),
            Err(error) => return Err(error),
        }
    }
    let existing = parts(client, "networks", stack).await?;
    for network in wanted.iter().filter(|network| !network.external) {
        let name = network.spec.name.as_str();
        if existing.iter().any(|existing| text(existing, "/Name") == name) {
            continue;
        }
        say(&format!("Creating network {name}"));
        crate::cli::network::create_by_spec(client, &network.spec)
            .await
            .with_context(|| format!("failed to create network {name}"))?;
    }
    Ok(())
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND)
}

/// Names a service's image as it is sent: with the digest where a registry is to be asked, and as
/// it was where it has not changed. `before`: what the service is now.
pub(super) async fn image(
    client: &Client,
    resolve: Resolve,
    before: Option<&ServiceSpec>,
    spec: &mut ServiceSpec,
) {
    let changed = before.is_none_or(|before| {
        before.labels.get(compose::LABEL_IMAGE) != Some(&spec.task.container.image)
    });
    registry::name_tag(spec);
    if resolve.asks(changed) {
        registry::pin(client, spec).await;
    } else if let Some(before) = before.filter(|_| !changed) {
        // What was found out at an earlier deploy: otherwise every task would be replaced.
        spec.task.container.image.clone_from(&before.task.container.image);
        spec.task.placement.platforms.clone_from(&before.task.placement.platforms);
    }
}

/// Creates a service, or updates the one that is there; returns its id.
async fn put(
    client: &Client,
    verb: &Deploy,
    existing: &[Value],
    mut spec: ServiceSpec,
) -> Result<String> {
    let name = spec.name.clone();
    let authorised;
    let client = if verb.with_registry_auth {
        authorised = registry::authorised(client, &spec.task.container.image)?;
        &authorised
    } else {
        client
    };
    file::resolve(client, &mut spec.task.container).await?;
    let Some(service) = existing.iter().find(|service| text(service, "/Spec/Name") == name) else {
        say(&format!("Creating service {name}"));
        image(client, verb.target.resolve_image, None, &mut spec).await;
        let body = engine_api::render_service_spec(&spec);
        let created: Value = client
            .post("/services/create", &body)
            .await
            .with_context(|| format!("failed to create service {name}"))?;
        for warning in list(&created, "/Warnings") {
            warn(warning.as_str().unwrap_or_default());
        }
        return Ok(text(&created, "/ID").to_owned());
    };
    let id = text(service, "/ID").to_owned();
    say(&format!("Updating service {name} (id: {id})"));
    // Forced updates count up; starting again from zero would replace every task.
    let before = service::spec(service)?;
    spec.task.force_update = before.task.force_update;
    image(client, verb.target.resolve_image, Some(&before), &mut spec).await;
    service::write(client, service, &spec)
        .await
        .with_context(|| format!("failed to update service {name}"))?;
    Ok(id)
}
