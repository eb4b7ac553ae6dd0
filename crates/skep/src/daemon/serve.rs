//! The API's sockets: unix for this machine, TCP with mutual TLS for others.

use super::options::Options;
use anyhow::{Context, Result, bail};
use axum::extract::Request;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scope::{BoxError, Scope};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Connections served at once; further ones wait in the socket's queue.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens every socket and serves the API on them in `scope`.
pub(crate) async fn start<S>(options: &Options, api: S, scope: &mut Scope) -> Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for address in options.addresses() {
        let server = Server { api: api.clone(), slots: Arc::clone(&slots), token: scope.token() };
        match address.split_once("://") {
            Some(("unix", path)) => {
                let listener = bind_unix(Path::new(path), &options.group)?;
                scope.spawn("api", server.unix(listener));
            }
            Some(("tcp", address)) => {
                let acceptor = acceptor(options)?;
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on tcp://{address}"))?;
                scope.spawn("api", server.tcp(listener, acceptor));
            }
            _ => bail!("cannot serve the API at {address}: use unix://PATH or tcp://ADDRESS:PORT"),
        }
        tracing::info!(address, "API listens");
    }
    Ok(())
}

/// Opens a unix socket that root and `group` may use. One left by a daemon that died is replaced.
fn bind_unix(path: &Path, group: &str) -> Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another daemon answers on {}: stop it first", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let gid = nix::unistd::Group::from_name(group).ok().flatten().map(|group| group.gid);
    nix::unistd::chown(path, None, gid).context("cannot give the socket to its group")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o660);
    std::fs::set_permissions(path, mode).context("cannot restrict the socket")?;
    Ok(listener)
}

/// Mutual TLS: without all three files there is no TCP.
fn acceptor(options: &Options) -> Result<TlsAcceptor> {
    let (Some(cert), Some(key), Some(ca)) = (&options.tlscert, &options.tlskey, &options.tlscacert)
    else {
        bail!("the API on TCP needs --tlscert, --tlskey and --tlscacert: it is never served open");
    };
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).context("cannot read --tlscacert")? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(cert)
        .context("cannot read --tlscert")?
        .collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key).context("cannot read --tlskey")?;
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Server<S> {
    api: S,
    slots: Arc<Semaphore>,
    token: CancellationToken,
}

impl<S> Server<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    async fn unix(self, listener: UnixListener) -> Result<(), BoxError> {
        let connections = TaskTracker::new();
        loop {
            let permit = Arc::clone(&self.slots).acquire_owned().await?;
            let stream = tokio::select! {
                biased;
                () = self.token.cancelled() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => { tracing::warn!(%error, "cannot accept"); continue }
                },
            };
            let serve = serve(stream, self.api.clone(), self.token.clone());
            connections.spawn(async move {
                serve.await;
                drop(permit);
            });
        }
    }

    async fn tcp(self, listener: TcpListener, acceptor: TlsAcceptor) -> Result<(), BoxError> {
        let connections = TaskTracker::new();
        loop {
            let permit = Arc::clone(&self.slots).acquire_owned().await?;
            let stream = tokio::select! {
                biased;
                () = self.token.cancelled() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => { tracing::warn!(%error, "cannot accept"); continue }
                },
            };
            let (api, token, acceptor) = (self.api.clone(), self.token.clone(), acceptor.clone());
            connections.spawn(async move {
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
                match handshake.await {
                    Ok(Ok(stream)) => serve(stream, api, token).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                }
                drop(permit);
            });
        }
    }
}

/// Serves one connection until it or the daemon ends.
async fn serve<I, S>(io: I, api: S, token: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let service =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            api.clone().call(request.map(axum::body::Body::new))
        });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        },
        () = token.cancelled() => {}
    }
}
