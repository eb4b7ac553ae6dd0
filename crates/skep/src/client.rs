//! A client of the Engine API: what the CLI and the lab speak to daemons with.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long a daemon may take to begin its answer. Pulls and convergence stream theirs.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);

/// A daemon's API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    /// Sent along for the daemon to show it to a registry.
    registry_auth: Option<String>,
}

/// An error that the daemon answered.
#[derive(Debug, thiserror::Error)]
#[error("Error response from daemon: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Client {
    /// The API at a unix socket.
    pub(crate) fn unix(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), registry_auth: None }
    }

    /// The same API; credentials for a registry (base64 of JSON) go along with every request.
    pub(crate) fn authorised(&self, registry_auth: &str) -> Self {
        Self { registry_auth: Some(registry_auth.to_owned()), ..self.clone() }
    }

    /// The API that `-H` or `DOCKER_HOST` names.
    pub(crate) fn at(host: &str) -> Result<Self> {
        match host.strip_prefix("unix://") {
            Some(path) => Ok(Self::unix(Path::new(path))),
            None => bail!("cannot use the API at {host}: use unix://PATH"),
        }
    }

    /// Sends a request and returns the answer once its head is there. Faults are errors.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "skep")
            .header("Content-Type", "application/json");
        if let Some(auth) = &self.registry_auth {
            request = request.header("X-Registry-Auth", auth);
        }
        self.request(request.body(Full::new(body.into()))?).await
    }

    /// Sends any request, e.g. one that streams a body or asks for an upgrade.
    pub(crate) async fn request<B>(&self, request: Request<B>) -> Result<Response<Incoming>>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "cannot connect to the skep daemon at unix://{}: is it running?",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection lives as long as the answer; it ends by itself.
        drop(tokio_util::task::TaskTracker::new().spawn(async move {
            let _ended = connection.with_upgrades().await;
        }));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
            .await
            .map_err(|_elapsed| anyhow!("the daemon did not answer within {ANSWER_TIMEOUT:?}"))??;
        if answer.status().as_u16() < 400 {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let message = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|body| body["message"].as_str().map(str::to_owned))
            .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned());
        Err(Refusal { status, message }.into())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        read(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        read(self.send(Method::POST, path, serde_json::to_vec(body)?).await?).await
    }

    /// Posts and expects no answer but success.
    pub(crate) async fn order(&self, path: &str, body: &impl Serialize) -> Result<()> {
        let answer = self.send(Method::POST, path, serde_json::to_vec(body)?).await?;
        answer.into_body().collect().await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        let answer = self.send(Method::DELETE, path, Bytes::new()).await?;
        answer.into_body().collect().await?;
        Ok(())
    }

    /// Says whether the daemon answers.
    pub(crate) async fn answers(&self) -> bool {
        self.send(Method::GET, "/_ping", Bytes::new()).await.is_ok()
    }
}

async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T> {
    let bytes = answer.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&bytes).context("the daemon's answer is no JSON of the expected form")
}

/// Escapes a value for a query or a path.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
