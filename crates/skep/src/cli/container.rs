//! Containers of this node.

mod exec;
mod ps;

pub(crate) use exec::Exec;
pub(crate) use ps::Ps;

use super::lines::{Lines, since};
use super::{Host, say, show, streams};
use crate::client::{Client, Refusal, escape};
use anyhow::{Result, bail};
use bytes::Bytes;
use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::Value;

#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[arg(value_name = "CONTAINER")]
    name: String,
    #[command(flatten)]
    which: Lines,
    /// Show lines until a time
    #[arg(long, default_value = "", hide_default_value = true)]
    until: String,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
    /// Write objects by a template, or as `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Look for this kind alone
    #[arg(long, value_name = "KIND", value_parser = KINDS.map(|(kind, _)| kind))]
    r#type: Option<String>,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Stop {
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// The signal to send
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds until SIGKILL
    #[arg(
        short,
        long,
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// The signal to send
    #[arg(short, long, default_value = "SIGKILL")]
    signal: String,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Kill containers that run
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    host: Host,
}

/// The API's path of a thing of one kind.
type PathOf = fn(&str) -> String;

/// What `inspect` looks for, in this order.
const KINDS: [(&str, PathOf); 7] = [
    ("container", |name| format!("/containers/{}/json", escape(name))),
    ("image", |name| format!("/images/{}/json", super::image::escape_name(name))),
    ("network", |name| format!("/networks/{}", escape(name))),
    ("volume", |name| format!("/volumes/{}", escape(name))),
    ("service", |name| format!("/services/{}", escape(name))),
    ("task", |name| format!("/tasks/{}", escape(name))),
    ("node", |name| format!("/nodes/{}", escape(name))),
];

impl Logs {
    pub(crate) async fn run(self) -> Result<()> {
        let path = format!(
            "/containers/{}/logs?{}&until={}",
            escape(&self.name),
            self.which.query()?,
            escape(&since(&self.until)?),
        );
        let answer = self.host.client()?.send(Method::GET, &path, Bytes::new()).await?;
        streams::follow(answer, streams::emit).await
    }
}

impl Inspect {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.host.client()?;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &self.names {
            match find(&client, name, self.r#type.as_deref()).await? {
                Some(object) => found.push(object),
                None => missing.push(name),
            }
        }
        show::write(&found, self.format.as_deref())?;
        for name in &missing {
            let kind = self.r#type.as_deref().unwrap_or("object");
            super::warn(&format!("Error: No such {kind}: {name}"));
        }
        if !missing.is_empty() {
            bail!(super::Silent);
        }
        Ok(())
    }
}

/// The first thing of this name.
async fn find(client: &Client, name: &str, kind: Option<&str>) -> Result<Option<Value>> {
    for (own, path) in KINDS {
        if kind.is_some_and(|kind| kind != own) {
            continue;
        }
        let error = match client.get(&path(name)).await {
            Ok(object) => return Ok(Some(object)),
            Err(error) => error,
        };
        // A node that is no manager does not know the cluster's things.
        let refusal = error.downcast_ref::<Refusal>().map(|refusal| refusal.status);
        let elsewhere = [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE];
        if !refusal.is_some_and(|status| elsewhere.contains(&status)) {
            return Err(error);
        }
    }
    Ok(None)
}

/// Does something with each container, and says its name; fails where one failed.
async fn each(
    client: &Client,
    names: &[String],
    request: impl Fn(&str) -> (Method, String),
) -> Result<()> {
    let one = async |name: &str| {
        let (method, path) = request(&escape(name));
        client.send(method, &path, Bytes::new()).await?;
        say(name);
        Ok(())
    };
    super::each(names, one).await
}

impl Stop {
    pub(crate) async fn run(self) -> Result<()> {
        let mut query = Vec::new();
        query.extend(self.signal.as_ref().map(|signal| format!("signal={}", escape(signal))));
        query.extend(self.timeout.map(|seconds| format!("t={seconds}")));
        let query = query.join("&");
        let path = |name: &str| (Method::POST, format!("/containers/{name}/stop?{query}"));
        each(&self.host.client()?, &self.names, path).await
    }
}

impl Kill {
    pub(crate) async fn run(self) -> Result<()> {
        let signal = escape(&self.signal);
        let path = |name: &str| (Method::POST, format!("/containers/{name}/kill?signal={signal}"));
        each(&self.host.client()?, &self.names, path).await
    }
}

impl Rm {
    pub(crate) async fn run(self) -> Result<()> {
        let query = format!("force={}&v={}", self.force, self.volumes);
        let path = |name: &str| (Method::DELETE, format!("/containers/{name}?{query}"));
        each(&self.host.client()?, &self.names, path).await
    }
}
