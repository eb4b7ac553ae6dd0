//! Images of this node.

use super::query::{filters, list, number, text};
use super::table::List;
use super::{Host, Listing, human, print, say};
use crate::client::escape;
use crate::images;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use engine::Reference;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Images {
    /// Show this repository alone
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Load {
    /// The tar; standard input where there is none
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Say nothing while loading
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Pull {
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// Say nothing while pulling
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    host: Host,
}

#[derive(Args, Debug)]
pub(crate) struct Rmi {
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
    /// Remove images that are in use, too
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    host: Host,
}

impl Images {
    pub(crate) async fn run(self) -> Result<()> {
        let more: Vec<(&str, &str)> =
            self.name.iter().map(|name| ("reference", name.as_str())).collect();
        let query = filters(&self.listing.filter, &more)?;
        let client = self.host.client()?;
        let images: Vec<Value> = client.get(&format!("/images/json?filters={query}")).await?;
        self.listing.print(&table(images, self.listing.no_trunc, human::now()))
    }
}

fn table(mut images: Vec<Value>, whole: bool, now: time::OffsetDateTime) -> List {
    let mut table = List::new(
        &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
        ],
        &[],
    );
    images.sort_by_key(|image| -number(image, "/Created"));
    for image in &images {
        let id = text(image, "/Id");
        let tags = list(image, "/RepoTags");
        let names: Vec<(&str, &str)> = if tags.is_empty() {
            vec![("<none>", "<none>")]
        } else {
            tags.iter().filter_map(|tag| tag.as_str()?.rsplit_once(':')).collect()
        };
        for (repository, tag) in names {
            table.row([
                repository.to_owned(),
                tag.to_owned(),
                human::id(id, whole),
                human::ago(&image["Created"], now),
                human::size(number(image, "/Size")),
            ]);
        }
    }
    table
}

impl Load {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.host.client()?;
        let text = match &self.input {
            Some(file) => images::load_file(&client, file).await?,
            None if std::io::stdin().is_terminal() => {
                bail!("requested load from stdin, but stdin is empty: use --input FILE")
            }
            None => images::load(&client, tokio::io::stdin()).await?,
        };
        if !self.quiet {
            print(&text);
        }
        Ok(())
    }
}

/// Hands over the JSON messages of a stream, one a line; an error among them is ours.
async fn messages(
    answer: hyper::Response<hyper::body::Incoming>,
    mut each: impl FnMut(&Value),
) -> Result<()> {
    let mut body = answer.into_body();
    let mut pending = Vec::new();
    loop {
        let part = body.frame().await.transpose()?;
        let ended = part.is_none();
        if let Some(Ok(data)) = part.map(hyper::body::Frame::into_data) {
            pending.extend_from_slice(&data);
        }
        let whole = if ended {
            pending.len()
        } else {
            pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
        };
        for line in pending.drain(..whole).collect::<Vec<u8>>().split(|byte| *byte == b'\n') {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let message: Value =
                serde_json::from_slice(line).context("the daemon's stream is broken")?;
            if let Some(error) = message["error"].as_str() {
                bail!("{error}");
            }
            each(&message);
        }
        if ended {
            return Ok(());
        }
    }
}

impl Pull {
    pub(crate) async fn run(self) -> Result<()> {
        Reference::parse(&self.name)?;
        let (name, tag) = split(&self.name);
        let path = format!("/images/create?fromImage={}&tag={}", escape(name), escape(tag));
        let client = super::registry::authorised(&self.host.client()?, &self.name)?;
        if !self.quiet && !self.name.contains(['@', ':']) {
            say("Using default tag: latest");
        }
        let answer = client.send(Method::POST, &path, Bytes::new()).await?;
        let mut last = String::new();
        messages(answer, |message| {
            let id = text(message, "/id");
            let status = text(message, "/status");
            let line = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
            // Progress in bytes repeats the same words.
            if !self.quiet && line != last {
                say(&line);
            }
            last = line;
        })
        .await?;
        if self.quiet {
            say(&self.name);
        }
        Ok(())
    }
}

/// A name and its tag or digest; `latest` where there is none.
fn split(name: &str) -> (&str, &str) {
    if let Some(parts) = name.split_once('@') {
        return parts;
    }
    match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        Some(_) | None => (name, "latest"),
    }
}

impl Rmi {
    pub(crate) async fn run(self) -> Result<()> {
        let client = self.host.client()?;
        let one = async |name: &str| {
            let path = format!("/images/{}?force={}", escape_name(name), self.force);
            let answer = client.send(Method::DELETE, &path, Bytes::new()).await?;
            let removed = answer.into_body().collect().await?.to_bytes();
            let removed: Vec<Value> = serde_json::from_slice(&removed)?;
            for item in &removed {
                for (key, what) in [("/Untagged", "Untagged"), ("/Deleted", "Deleted")] {
                    if !text(item, key).is_empty() {
                        say(&format!("{what}: {}", text(item, key)));
                    }
                }
            }
            Ok(())
        };
        super::each(&self.names, one).await
    }
}

/// Escapes an image's name for a path, which keeps its slashes.
pub(super) fn escape_name(name: &str) -> String {
    name.split('/').map(escape).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn names_have_tags_after_their_last_slash() {
        for (name, parts) in [
            ("nginx", ("nginx", "latest")),
            ("nginx:1.25", ("nginx", "1.25")),
            ("host:5000/nginx", ("host:5000/nginx", "latest")),
            ("nginx@sha256:ab", ("nginx", "sha256:ab")),
        ] {
            assert_eq!(split(name), parts);
        }
    }

    #[test]
    fn images_are_listed_as_docker_does() {
        let images = vec![
            json!({"Id": "sha256:0123456789abcdef", "RepoTags": ["nginx:latest", "nginx:1"],
                "Created": 1_767_225_600, "Size": 133_000_000}),
            json!({"Id": "sha256:fedcba9876543210", "RepoTags": [], "Created": 1_767_225_700, "Size": 5}),
        ];
        let now = time::macros::datetime!(2026-01-15 00:00:00 UTC);
        expect![[r"
            REPOSITORY   TAG       IMAGE ID       CREATED       SIZE
            <none>       <none>    fedcba987654   2 weeks ago   5B
            nginx        latest    0123456789ab   2 weeks ago   133MB
            nginx        1         0123456789ab   2 weeks ago   133MB
        "]]
        .assert_eq(&table(images, false, now).render(None).unwrap());
    }
}
