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
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Connections served at once; further ones wait in the socket's queue.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens every socket and serves the API on them in `scope`.
pub(crate) async fn start<S>(options: &Options, api: S, scope: &mut Scope) -> Result<()>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for address in options.addresses() {
        let door = match address.split_once("://") {
            Some(("unix", path)) => Door::Unix(bind_unix(Path::new(path), &options.group)?),
            Some(("tcp", address)) => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on tcp://{address}"))?;
                Door::Tcp(listener, acceptor(options)?)
            }
            _ => bail!("cannot serve the API at {address}: use unix://PATH or tcp://ADDRESS:PORT"),
        };
        scope.spawn("api", run(door, api.clone(), Arc::clone(&slots), scope.token()));
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

/// A socket that the API is served on.
enum Door {
    Unix(UnixListener),
    Tcp(TcpListener, TlsAcceptor),
}

/// A connection that was accepted; with TLS the handshake is still to come.
enum Guest {
    Unix(UnixStream),
    Tcp(TcpStream, TlsAcceptor),
}

impl Door {
    async fn accept(&self) -> std::io::Result<Guest> {
        match self {
            Self::Unix(listener) => Ok(Guest::Unix(listener.accept().await?.0)),
            Self::Tcp(listener, acceptor) => {
                Ok(Guest::Tcp(listener.accept().await?.0, acceptor.clone()))
            }
        }
    }
}

/// Accepts connections, as many at once as there are slots.
async fn run<S>(
    door: Door,
    api: S,
    slots: Arc<Semaphore>,
    token: CancellationToken,
) -> Result<(), BoxError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let connections = TaskTracker::new();
    loop {
        let permit = Arc::clone(&slots).acquire_owned().await?;
        let guest = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            accepted = door.accept() => match accepted {
                Ok(guest) => guest,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    // E.g. too many open files: the next attempt would fail as fast.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (api, token) = (api.clone(), token.clone());
        connections.spawn(async move {
            welcome(guest, api, token).await;
            drop(permit);
        });
    }
}

/// Serves a guest, after the handshake where there is one.
async fn welcome<S>(guest: Guest, api: S, token: CancellationToken)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (stream, acceptor) = match guest {
        Guest::Unix(stream) => return serve(stream, api, token).await,
        Guest::Tcp(stream, acceptor) => (stream, acceptor),
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, api, token).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
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
