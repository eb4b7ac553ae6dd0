//! `skep swarm ca`: show the root of trust, or put another one in its place.

use super::super::query::text;
use super::super::say;
use super::{Settings, duration, external};
use crate::client::Client;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(crate) struct Ca {
    /// Put another root certificate in the place of this one
    #[arg(long)]
    rotate: bool,
    /// The root certificate to rotate to (PEM); without one a new one is made
    #[arg(long = "ca-cert", value_name = "FILE", requires = "rotate")]
    certificate: Option<PathBuf>,
    /// Its key (PEM, PKCS #8); without it an external CA has it
    #[arg(long = "ca-key", value_name = "FILE", requires = "rotate", requires = "certificate")]
    key: Option<PathBuf>,
    /// How long nodes' certificates are valid
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "rotate")]
    cert_expiry: Option<Duration>,
    /// Who signs by the root certificate to rotate to: protocol=cfssl,url=URL
    #[arg(long = "external-ca", value_name = "SPEC", value_parser = external::parse, requires = "rotate")]
    external_cas: Vec<Value>,
    /// Do not wait until all nodes have certificates by it
    #[arg(short, long)]
    detach: bool,
    /// Do not tell which nodes are waited for
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(client: &Client, verb: &Ca) -> Result<()> {
    if verb.rotate {
        rotate(client, verb).await?;
        if verb.detach {
            return Ok(());
        }
        wait(client, verb.quiet).await?;
    }
    let swarm: Value = client.get("/swarm").await?;
    say(text(&swarm, "/TLSInfo/TrustRoot").trim());
    Ok(())
}

async fn rotate(client: &Client, verb: &Ca) -> Result<()> {
    let swarm: Value = client.get("/swarm").await?;
    let mut spec = swarm["Spec"].clone();
    let mut external_cas = verb.external_cas.clone();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path);
        text.with_context(|| format!("cannot read {}", path.display()))
    };
    if let Some(certificate) = &verb.certificate {
        let certificate = read(certificate)?;
        // As with Docker: they sign by the root that is to come.
        for external in &mut external_cas {
            external["CACert"] = certificate.as_str().into();
        }
        spec["CAConfig"]["SigningCACert"] = certificate.into();
    }
    if let Some(key) = &verb.key {
        spec["CAConfig"]["SigningCAKey"] = read(key)?.into();
    }
    if verb.certificate.is_none() {
        let last = spec["CAConfig"]["ForceRotate"].as_u64().unwrap_or_default();
        spec["CAConfig"]["ForceRotate"] = (last + 1).into();
    }
    let settings = Settings { cert_expiry: verb.cert_expiry, external_cas, ..Settings::default() };
    settings.write(&mut spec);
    let version = &swarm["Version"]["Index"];
    client.order(&format!("/swarm/update?version={version}"), &spec).await
}

/// Waits until every node has a certificate by the new root; says which have not.
async fn wait(client: &Client, quiet: bool) -> Result<()> {
    let mut said = BTreeSet::new();
    loop {
        let swarm: Value = client.get("/swarm").await?;
        let nodes: Vec<Value> = client.get("/nodes").await?;
        let has_it = |node: &&Value| node["Description"]["TLSInfo"] == swarm["TLSInfo"];
        let lacking = nodes.iter().filter(|node| !has_it(node));
        let lacking: BTreeSet<String> = lacking.map(named).collect();
        if swarm["RootRotationInProgress"] != true && lacking.is_empty() {
            return Ok(());
        }
        if !quiet && lacking != said && !lacking.is_empty() {
            let names: Vec<&str> = lacking.iter().map(String::as_str).collect();
            say(&format!("waiting for {}", names.join(", ")));
        }
        said = lacking;
        tokio::time::sleep(LOOK).await;
    }
}

/// A node's name, and its state where that is why it is waited for.
fn named(node: &Value) -> String {
    let (name, state) = (text(node, "/Description/Hostname"), text(node, "/Status/State"));
    if state == "ready" { name.to_owned() } else { format!("{name} ({state})") }
}
