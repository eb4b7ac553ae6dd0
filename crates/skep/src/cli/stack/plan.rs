//! `skep stack plan`: what a deploy would do, before it is done.

use super::deploy::{self, Target};
use super::parts;
use crate::cli::plan::{Fate, Plan as Outcome};
use crate::cli::query::text;
use crate::cli::{file, service};
use crate::client::Client;
use anyhow::{Result, bail};
use clap::Args;
use compose::StackFile;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;
use types::{GivenFile, ServiceMode};

#[derive(Args, Debug)]
pub(crate) struct Plan {
    #[command(flatten)]
    target: Target,
}

/// Shows what would be created, changed and removed, in the order of the deploy. Nothing is changed.
pub(super) async fn run(client: &Client, verb: &Plan) -> Result<ExitCode> {
    let Target { name: stack, prune, resolve_image, .. } = &verb.target;
    let project = verb.target.load()?;
    let existing = parts(client, "services", stack).await?;
    let networks: Vec<Value> = client.get("/networks").await?;
    let named: BTreeMap<&str, &str> =
        networks.iter().map(|it| (text(it, "/Id"), text(it, "/Name"))).collect();
    let own = parts(client, "networks", stack).await?;
    let mut plan = Outcome::default();
    for service in deploy::unwanted(&existing, &project.services).filter(|_| *prune) {
        let effect = match service::spec(service)?.mode {
            ServiceMode::Replicated { replicas: 1 } => "its task stops".to_owned(),
            ServiceMode::Replicated { replicas } => format!("its {replicas} tasks stop"),
            ServiceMode::Global | ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
                "its tasks stop".to_owned()
            }
        };
        let name = format!("service {}", text(service, "/Spec/Name"));
        plan.add(Fate::Removed, &name, &effect, &[]);
    }
    files::<types::Secret>(client, &project.secrets, &mut plan).await?;
    files::<types::Config>(client, &project.configs, &mut plan).await?;
    for network in project.networks.iter().filter(|network| !network.external) {
        let name = network.spec.name.as_str();
        let is_there = own.iter().any(|network| text(network, "/Name") == name);
        let fate = if is_there { Fate::Kept } else { Fate::Created };
        plan.add(fate, &format!("network {name}"), "", &[]);
    }
    for mut spec in project.services {
        let found = existing.iter().find(|service| text(service, "/Spec/Name") == spec.name);
        let mut before = found.map(service::spec).transpose()?;
        file::resolve_known(client, &mut spec.task.container).await?;
        if let Some(before) = &mut before {
            // The cluster knows networks by their ids, the files by their names.
            for attachment in &mut before.task.networks {
                if let Some(name) = named.get(attachment.target.to_string().as_str()) {
                    attachment.target = (*name).into();
                }
            }
            spec.task.force_update = before.task.force_update;
        }
        deploy::image(client, *resolve_image, before.as_ref(), &mut spec).await;
        plan.service(before.as_ref(), &spec)?;
    }
    Ok(plan.print())
}

async fn files<T: GivenFile>(
    client: &Client,
    files: &[StackFile],
    plan: &mut Outcome,
) -> Result<()> {
    for file in files.iter().filter(|file| !file.external) {
        let (word, name) = (T::WORD, &file.spec.name);
        let Some(found) = file::named::<T>(client, name).await? else {
            plan.add(Fate::Created, &format!("{word} {name}"), "", &[]);
            continue;
        };
        let wanted = engine_api::render_file_spec(&file.spec);
        // (Nobody is told what is in a secret.)
        let data = &found["Spec"]["Data"];
        if !data.is_null() && *data != wanted["Data"] {
            bail!(
                "{word} {name} has other contents, which cannot be changed: give it another name"
            );
        }
        let labels = |spec: &Value| spec["Labels"].as_object().cloned().unwrap_or_default();
        let same = labels(&found["Spec"]) == labels(&wanted);
        let (fate, effect) =
            if same { (Fate::Kept, "") } else { (Fate::Changed, "its labels change") };
        plan.add(fate, &format!("{word} {name}"), effect, &[]);
    }
    Ok(())
}
