//! All that a cluster knows, saved and restored.

use super::super::say;
use super::Addresses;
use super::lock::read_key;
use crate::client::{Client, Refusal, escape};
use crate::process::leave_no_core;
use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// Where to write it; root alone can read it
    file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// What `skep swarm backup` has written
    file: PathBuf,
    #[command(flatten)]
    addresses: Addresses,
}

pub(super) async fn save(client: &Client, verb: &Backup) -> Result<()> {
    leave_no_core()?;
    let answer = client.send(Method::GET, "/skep/backup", Bytes::new()).await?;
    let bytes = answer.into_body().collect().await?.to_bytes();
    host::replace(&verb.file, &bytes, 0o600)
        .with_context(|| format!("cannot write {}", verb.file.display()))?;
    say(&format!("{}: {} bytes", verb.file.display(), bytes.len()));
    Ok(())
}

pub(super) async fn restore(client: &Client, verb: &Restore) -> Result<()> {
    leave_no_core()?;
    let file = std::fs::read(&verb.file);
    let file = Bytes::from(file.with_context(|| format!("cannot read {}", verb.file.display()))?);
    let answered = send(client, verb, (file.clone(), "")).await;
    let is_locked = |error: &anyhow::Error| {
        let refusal = error.downcast_ref::<Refusal>();
        refusal.is_some_and(|refusal| refusal.status == StatusCode::UNAUTHORIZED)
    };
    let node = match answered {
        Err(error) if is_locked(&error) => send(client, verb, (file, &read_key()?)).await?,
        answered => answered?,
    };
    say(&format!("The cluster is restored: current node ({node}) is now its only manager."));
    Ok(())
}

async fn send(client: &Client, verb: &Restore, (file, key): (Bytes, &str)) -> Result<String> {
    let path = format!(
        "/skep/restore?listen={}&advertise={}&dataPath={}",
        escape(&verb.addresses.listen),
        escape(&verb.addresses.advertise),
        escape(&verb.addresses.data_path)
    );
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("Host", "skep")
        .header("Content-Type", "application/octet-stream")
        .header("X-Unlock-Key", key)
        .body(Full::new(file))?;
    let answer = client.request(request).await?.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&answer)?)
}
