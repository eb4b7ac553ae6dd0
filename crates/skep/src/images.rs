//! Sending image tars to a daemon: shared by `skep load` and `skep lab load`.

use crate::client::Client;
use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use std::path::Path;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// Sends the tar of a file and returns what the daemon says it loaded.
pub(crate) async fn load_file(client: &Client, file: &Path) -> Result<String> {
    let tar = tokio::fs::File::open(file)
        .await
        .with_context(|| format!("cannot read {}", file.display()))?;
    load(client, tar).await
}

/// Sends a tar and returns what the daemon says it loaded.
pub(crate) async fn load(
    client: &Client,
    tar: impl AsyncRead + Send + Unpin + 'static,
) -> Result<String> {
    let body = StreamBody::new(ReaderStream::with_capacity(tar, 1 << 20).map_ok(Frame::data));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/images/load?quiet=1")
        .header("Host", "skep")
        .header("Content-Type", "application/x-tar")
        .body(body)?;
    let answer = client.request(request).await?.into_body().collect().await?.to_bytes();
    let mut text = String::new();
    for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: serde_json::Value = serde_json::from_slice(line)?;
        if let Some(error) = message["error"].as_str() {
            anyhow::bail!("{error}");
        }
        text.push_str(message["stream"].as_str().unwrap_or_default());
    }
    Ok(text)
}
