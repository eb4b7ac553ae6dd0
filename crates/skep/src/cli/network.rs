//! `skep network`: networks of the cluster.

use super::query::{filters, labels, text};
use super::table::List;
use super::{Listing, human, say, show};
use crate::client::{Client, Refusal, escape};
use anyhow::Result;
use clap::{Args, Subcommand};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use types::NetworkSpec;

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Create a network
    Create(Create),
    /// Show networks as JSON
    Inspect(Inspect),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    name: String,
    /// What it is made of; overlay is the only one
    #[arg(short, long, default_value = "overlay")]
    driver: String,
    /// Let plain containers attach to it, too
    #[arg(long)]
    attachable: bool,
    /// Let its containers reach nothing outside
    #[arg(long)]
    internal: bool,
    /// The subnet, e.g. 10.5.0.0/24
    #[arg(long, value_name = "NET", default_value = "", hide_default_value = true)]
    subnet: String,
    /// Its address that is no task's; the first of the subnet where there is none
    #[arg(long, value_name = "IP", default_value = "", hide_default_value = true)]
    gateway: String,
    /// Hand out addresses of this part of the subnet only
    #[arg(long, value_name = "NET", default_value = "", hide_default_value = true)]
    ip_range: String,
    /// Never hand out this address of the subnet
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// Label the network
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// An option of the driver
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// How far it reaches; swarm, which is the whole cluster, is the only one
    #[arg(long, default_value = "swarm")]
    scope: String,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
    /// Write objects by a template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
    /// Do not fail where a network is gone already
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<()> {
    match verb {
        Verb::Create(verb) => create(client, &verb).await,
        Verb::Inspect(verb) => {
            let read = async |name: &str| client.get(&format!("/networks/{}", escape(name))).await;
            let several = super::several(&verb.names, read).await;
            show::write(&several.found, verb.format.as_deref())?;
            several.end()
        }
        Verb::Ls(verb) => ls(client, &verb).await,
        Verb::Rm(verb) => rm(client, &verb).await,
    }
}

async fn create(client: &Client, verb: &Create) -> Result<()> {
    let pairs = |words: &[String]| -> Map<String, Value> {
        let pair = |word: &String| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            (key.to_owned(), value.into())
        };
        words.iter().map(pair).collect()
    };
    let mut config = Map::new();
    let words = [("Subnet", &verb.subnet), ("Gateway", &verb.gateway), ("IPRange", &verb.ip_range)];
    for (key, value) in words.into_iter().filter(|(_, value)| !value.is_empty()) {
        config.insert(key.into(), value.as_str().into());
    }
    if !verb.aux_address.is_empty() {
        config.insert("AuxiliaryAddresses".into(), pairs(&verb.aux_address).into());
    }
    let configs: Vec<Value> =
        if config.is_empty() { Vec::new() } else { vec![Value::Object(config)] };
    let request = json!({
        "Name": verb.name,
        "Driver": verb.driver,
        "Scope": verb.scope,
        "Attachable": verb.attachable,
        "Internal": verb.internal,
        "Labels": pairs(&verb.label),
        "Options": pairs(&verb.opt),
        "IPAM": { "Driver": "default", "Config": configs },
    });
    let created: Value = client.post("/networks/create", &request).await?;
    say(text(&created, "/Id"));
    Ok(())
}

/// Asks for a network that a spec describes.
pub(super) async fn create_by_spec(client: &Client, spec: &NetworkSpec) -> Result<()> {
    let config: Vec<Value> =
        spec.subnets.iter().map(|subnet| engine_api::render_subnet(spec, subnet)).collect();
    let request = json!({
        "Name": spec.name,
        "Driver": spec.driver,
        "Scope": "swarm",
        "Attachable": spec.attachable,
        "Internal": spec.internal,
        "Labels": spec.labels,
        "Options": spec.driver_options,
        "IPAM": { "Driver": "default", "Config": config },
    });
    client.order("/networks/create", &request).await
}

async fn ls(client: &Client, verb: &Listing) -> Result<()> {
    let query = filters(&verb.filter, &[])?;
    let mut networks: Vec<Value> = client.get(&format!("/networks?filters={query}")).await?;
    networks.sort_by_key(|network| human::natural(text(network, "/Name")));
    let mut table = List::new(
        &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")],
        &[("Labels", "LABELS"), ("Internal", "INTERNAL"), ("CreatedAt", "CREATED AT")],
    );
    for network in &networks {
        table.row([
            human::id(text(network, "/Id"), verb.no_trunc),
            text(network, "/Name").to_owned(),
            text(network, "/Driver").to_owned(),
            text(network, "/Scope").to_owned(),
            labels(network, "/Labels"),
            network["Internal"].to_string(),
            text(network, "/Created").to_owned(),
        ]);
    }
    verb.print(&table)
}

async fn rm(client: &Client, verb: &Rm) -> Result<()> {
    let one = async |name: &str| {
        match client.delete(&format!("/networks/{}", escape(name))).await {
            Err(error) if verb.force && is_missing(&error) => return Ok(()),
            other => other?,
        }
        say(name);
        Ok(())
    };
    super::each(&verb.names, one).await
}

fn is_missing(error: &anyhow::Error) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND)
}
