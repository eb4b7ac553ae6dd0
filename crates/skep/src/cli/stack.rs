//! `skep stack`: services and networks that belong together, from a file.

mod deploy;
mod files;
mod needs;
mod plan;

use super::query::{filters, text};
use super::table::List;
use super::{Listing, human, print, say, service, tasks};
use crate::client::Client;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use compose::LABEL_NAMESPACE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// How often the cluster is asked whether a stack is gone.
const PERIOD: Duration = Duration::from_millis(250);

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Check a stack file and show what it asks for
    Config(deploy::Config),
    /// Deploy a stack, or bring it up to date
    #[command(visible_alias = "up")]
    Deploy(deploy::Deploy),
    /// List stacks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show what a deploy would do; the exit code is 3 where it would do anything
    #[command(visible_alias = "diff")]
    Plan(plan::Plan),
    /// List the tasks of a stack
    Ps(Ps),
    /// Remove stacks
    #[command(visible_aliases = ["remove", "down"])]
    Rm(Rm),
    /// List the services of a stack
    Services(Services),
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// Write the list by a template, or as `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    #[arg(value_name = "STACK")]
    name: String,
    #[command(flatten)]
    tasks: tasks::Tasks,
}

#[derive(Args, Debug)]
pub(crate) struct Services {
    #[arg(value_name = "STACK")]
    name: String,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[arg(required = true, value_name = "STACK")]
    names: Vec<String>,
    /// Return at once; `--detach=false` waits until every task is gone
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, default_value_t = true,
        default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    detach: bool,
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Plan(verb) => return plan::run(client, &verb).await,
        Verb::Config(verb) => deploy::config(&verb),
        Verb::Deploy(verb) => deploy::run(client, &verb).await,
        Verb::Ls(verb) => ls(client, &verb).await,
        Verb::Ps(verb) => {
            let label = label(&verb.name);
            if !tasks::ls_some(client, &verb.tasks, &[("label", &label)]).await? {
                bail!("nothing found in stack: {}", verb.name);
            }
            Ok(())
        }
        Verb::Rm(verb) => {
            super::each(&verb.names, async |name| rm(client, name, verb.detach).await).await
        }
        Verb::Services(verb) => {
            let label = label(&verb.name);
            if !service::ls(client, &verb.listing, &[("label", &label)]).await? {
                super::warn(&format!("Nothing found in stack: {}", verb.name));
            }
            Ok(())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The filter for what belongs to a stack.
fn label(stack: &str) -> String {
    format!("{LABEL_NAMESPACE}={stack}")
}

/// What of a kind belongs to a stack.
async fn parts(client: &Client, kind: &str, stack: &str) -> Result<Vec<Value>> {
    let query = filters(&[], &[("label", &label(stack))])?;
    client.get(&format!("/{kind}?filters={query}")).await
}

async fn ls(client: &Client, verb: &Ls) -> Result<()> {
    let query = filters(&[], &[("label", LABEL_NAMESPACE)])?;
    let services: Vec<Value> = client.get(&format!("/services?filters={query}")).await?;
    let mut stacks: BTreeMap<&str, usize> = BTreeMap::new();
    for service in &services {
        let stack = service["Spec"]["Labels"][LABEL_NAMESPACE].as_str().unwrap_or_default();
        *stacks.entry(stack).or_default() += 1;
    }
    let mut stacks: Vec<(&str, usize)> = stacks.into_iter().collect();
    stacks.sort_by_key(|(stack, _)| human::natural(stack));
    let mut table = List::new(&[("Name", "NAME"), ("Services", "SERVICES")], &[]);
    for (stack, services) in stacks {
        table.row([stack.to_owned(), services.to_string()]);
    }
    print(&table.render(verb.format.as_deref())?);
    Ok(())
}

async fn rm(client: &Client, stack: &str, detach: bool) -> Result<()> {
    let mut services = parts(client, "services", stack).await?;
    let secrets = parts(client, "secrets", stack).await?;
    let configs = parts(client, "configs", stack).await?;
    let networks = parts(client, "networks", stack).await?;
    if [&services, &secrets, &configs, &networks].into_iter().all(Vec::is_empty) {
        super::warn(&format!("Nothing found in stack: {stack}"));
        return Ok(());
    }
    services.sort_by_key(|service| text(service, "/Spec/Name").to_owned());
    let mut failed = false;
    for service in &services {
        say(&format!("Removing service {}", text(service, "/Spec/Name")));
        let gone = client.delete(&format!("/services/{}", text(service, "/ID"))).await;
        failed |= complained(&gone);
    }
    for (word, files) in [("secret", &secrets), ("config", &configs)] {
        for file in files {
            say(&format!("Removing {word} {}", text(file, "/Spec/Name")));
            let gone = client.delete(&format!("/{word}s/{}", text(file, "/ID"))).await;
            failed |= complained(&gone);
        }
    }
    for network in &networks {
        say(&format!("Removing network {}", text(network, "/Name")));
        let gone = client.delete(&format!("/networks/{}", text(network, "/Id"))).await;
        failed |= complained(&gone);
    }
    if failed {
        bail!("Failed to remove some resources from stack: {stack}");
    }
    if detach { Ok(()) } else { until_gone(client, stack).await }
}

fn complained(result: &Result<()>) -> bool {
    if let Err(error) = result {
        super::complain(error);
    }
    result.is_err()
}

/// Waits until no task of a stack runs any more. They are found by their label, as the services are
/// gone.
async fn until_gone(client: &Client, stack: &str) -> Result<()> {
    loop {
        let tasks = parts(client, "tasks", stack).await?;
        let ended = ["complete", "shutdown", "failed", "rejected", "orphaned", "remove"];
        if tasks.iter().all(|task| ended.contains(&text(task, "/Status/State"))) {
            return Ok(());
        }
        tokio::time::sleep(PERIOD).await;
    }
}
