//! Containers of this node.

mod exec;
mod ps;

pub(crate) use exec::Exec;
pub(crate) use ps::Ps;

use super::{Host, human, say, show, streams};
use crate::client::{Client, Refusal, escape};
use anyhow::{Result, bail};
use bytes::Bytes;
use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[arg(value_name = "CONTAINER")]
    name: String,
    /// Wait for more
    #[arg(short, long)]
    follow: bool,
    /// Show as many lines of the end
    #[arg(short = 'n', long, default_value = "all", value_name = "N")]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show lines since a time: 2026-01-02T15:04:05Z, or 10m
    #[arg(long, default_value = "", hide_default_value = true)]
    since: String,
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

/// A time that a user wrote as the API wants it: seconds since 1970. `10m` is ten minutes ago.
pub(super) fn since(text: &str) -> Result<String> {
    if text.is_empty() || text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Some(ago) = types::parse_duration(text) {
        let then = human::now() - ago;
        return Ok(format!("{}.{:09}", then.unix_timestamp(), then.nanosecond()));
    }
    let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) else {
        bail!("invalid time {text:?}: use 2026-01-02T15:04:05Z, or 10m for ten minutes ago");
    };
    Ok(format!("{}.{:09}", time.unix_timestamp(), time.nanosecond()))
}

impl Logs {
    pub(crate) async fn run(self) -> Result<()> {
        let path = format!(
            "/containers/{}/logs?stdout=true&stderr=true&follow={}&tail={}&timestamps={}&since={}&until={}",
            escape(&self.name),
            self.follow,
            escape(&self.tail),
            self.timestamps,
            escape(&since(&self.since)?),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_seconds_or_ages() {
        assert_eq!(since("").unwrap(), "");
        assert_eq!(since("12.5").unwrap(), "12.5");
        assert_eq!(since("2026-01-01T00:00:00Z").unwrap(), "1767225600.000000000");
        assert!(since("10m").unwrap().contains('.'));
        assert!(since("yesterday").is_err());
    }
}
