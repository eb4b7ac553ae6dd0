//! What a registry is told and asked for a user's images: the credentials of whoever has logged in
//! with docker, and what a tag stands for.

use super::query::{list, text};
use super::warn;
use crate::client::Client;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use clap::Args;
use engine::Reference;
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use types::{Platform, ServiceSpec};

/// Docker's name for docker.io in its file.
const DOCKER_IO: &str = "https://index.docker.io/v1/";
/// What a credential helper has for a user name where the secret is an identity token.
const TOKEN: &str = "<token>";

/// How the images of services are treated.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Images {
    /// Do not ask the registry for the image's digest
    #[arg(long)]
    no_resolve_image: bool,
    /// Send the credentials for the registry to the nodes
    #[arg(long)]
    with_registry_auth: bool,
}

impl Images {
    /// Names the image of a new spec whole, with its digest unless the user does not want that.
    /// The result is the client to send the spec by.
    pub(crate) async fn prepare(self, client: &Client, spec: &mut ServiceSpec) -> Result<Client> {
        let client = self.client(client, &spec.task.container.image)?;
        name_tag(spec);
        if !self.no_resolve_image {
            pin(&client, spec).await;
        }
        Ok(client)
    }

    /// The client that sends the credentials for an image along, where the user wants that.
    pub(crate) fn client(self, client: &Client, image: &str) -> Result<Client> {
        if self.with_registry_auth { authorised(client, image) } else { Ok(client.clone()) }
    }
}

/// The client that sends the credentials along that docker has kept for the image's registry.
pub(crate) fn authorised(client: &Client, image: &str) -> Result<Client> {
    let registry = match Reference::parse(image) {
        Ok(reference) if reference.registry() == "docker.io" => DOCKER_IO.to_owned(),
        Ok(reference) => reference.registry().to_owned(),
        // The daemon says what is wrong with it.
        Err(_) => return Ok(client.clone()),
    };
    let auth = kept(&file()?, &registry)?;
    Ok(client.authorised(&URL_SAFE.encode(auth.to_string())))
}

/// Writes the tag out that a name without one stands for.
pub(crate) fn name_tag(spec: &mut ServiceSpec) {
    let image = &mut spec.task.container.image;
    if let Ok(reference) = Reference::parse(image)
        && !reference.is_pinned()
    {
        reference.familiar().clone_into(image);
    }
}

/// Asks what the image's tag stands for and writes that down. Where nobody can tell, each node
/// finds out by itself, and the user is told so in Docker's words.
pub(crate) async fn pin(client: &Client, spec: &mut ServiceSpec) {
    let image = &mut spec.task.container.image;
    if Reference::parse(image).is_ok_and(|reference| reference.is_pinned()) {
        return;
    }
    let path = format!("/distribution/{}/json", super::image::escape_name(image));
    let found = client.get::<Value>(&path).await.unwrap_or_default();
    let digest = text(&found, "/Descriptor/digest");
    if digest.is_empty() {
        return warn(&format!(
            "image {image} could not be accessed on a registry to record\nits digest. Each node \
             will access {image} independently,\npossibly leading to different nodes running \
             different\nversions of the image.\n"
        ));
    }
    *image = format!("{image}@{digest}");
    let platform = |entry: &Value| Platform {
        os: text(entry, "/os").to_owned(),
        // As docker does: an image for one kind of arm runs on others.
        architecture: Some(text(entry, "/architecture"))
            .filter(|it| *it != "arm")
            .map_or_else(String::new, str::to_owned),
    };
    spec.task.placement.platforms = list(&found, "/Platforms").iter().map(platform).collect();
}

/// Docker's file of credentials, empty where there is none.
fn file() -> Result<Value> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(json!({})) };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not valid JSON", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(json!({})),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// What is kept for a registry, in the words of the API.
fn kept(file: &Value, registry: &str) -> Result<Value> {
    let helper = file["credHelpers"][registry].as_str().or_else(|| file["credsStore"].as_str());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
        return helped(helper, registry);
    }
    let entry = &file["auths"][registry];
    let token = text(entry, "/identitytoken");
    let coded = text(entry, "/auth");
    let plain = STANDARD.decode(coded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let plain = plain.with_context(|| format!("the credentials kept for {registry} are broken"))?;
    let (username, password) = plain.split_once(':').unwrap_or_default();
    let mut auth = auth(registry, (username, password), token);
    auth["registrytoken"] = text(entry, "/registrytoken").into();
    Ok(auth)
}

fn auth(registry: &str, (username, password): (&str, &str), token: &str) -> Value {
    json!({ "username": username, "password": password, "identitytoken": token,
        "serveraddress": registry })
}

/// `docker-credential-HELPER get`: the registry goes in, JSON comes out.
#[expect(clippy::disallowed_methods, reason = "docker's credential helpers are programs")]
fn helped(helper: &str, registry: &str) -> Result<Value> {
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(registry.as_bytes())?;
    }
    let said = child.wait_with_output()?;
    if !said.status.success() {
        let reason = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        if reason.contains("credentials not found") {
            return Ok(json!({}));
        }
        bail!("{program} has no credentials for {registry}: {reason}");
    }
    let found: Value = serde_json::from_slice(&said.stdout)
        .with_context(|| format!("the answer of {program} is not valid JSON"))?;
    let (username, secret) = (text(&found, "/Username"), text(&found, "/Secret"));
    Ok(match username {
        TOKEN => auth(registry, ("", ""), secret),
        username => auth(registry, (username, secret), ""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_login_kept_is_found() {
        let coded = STANDARD.encode("alice:se:cret");
        let file = json!({ "auths": { "localhost:5000": { "auth": coded },
            DOCKER_IO: { "identitytoken": "t" }, "r:1": { "registrytoken": "b" } } });
        let found = kept(&file, "localhost:5000").unwrap();
        assert_eq!((text(&found, "/username"), text(&found, "/password")), ("alice", "se:cret"));
        assert_eq!(text(&kept(&file, DOCKER_IO).unwrap(), "/identitytoken"), "t");
        // The daemon refuses it by name, rather than asking as nobody.
        assert_eq!(text(&kept(&file, "r:1").unwrap(), "/registrytoken"), "b");
        assert_eq!(text(&kept(&file, "other").unwrap(), "/username"), "");
        let missing = json!({ "credsStore": "there-is-no-such-helper" });
        assert!(kept(&missing, "other").is_err());
    }

    #[test]
    fn a_name_without_a_tag_is_written_out() {
        let named = |image: &str| {
            let mut spec = ServiceSpec::default();
            image.clone_into(&mut spec.task.container.image);
            name_tag(&mut spec);
            spec.task.container.image.clone()
        };
        let digest = format!("nginx:1@sha256:{}", "0".repeat(64));
        assert_eq!(named("nginx"), "nginx:latest");
        assert_eq!(named(&digest), digest);
        assert_eq!(named("Not A Name"), "Not A Name");
    }
}
