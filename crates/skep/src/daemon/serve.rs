//! The API's sockets: unix for this machine, TCP with mutual TLS for others.

mod tcp;

use super::options::Options;
use anyhow::{Context, Result, bail};
use axum::extract::Request;
use axum::response::Response;
use engine_api::Caller;
use hyper_util::rt::{TokioIo, TokioTimer};
use scope::{BoxError, Scope};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tcp::{Greeted, Greeting, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Connections of one socket that are served at once; further ones wait, and take nothing from other
/// sockets.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take until it has said what it asks for, also after an answer. Clients keep
/// connections for later; other servers close them after as long.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens every socket. Clients that come early wait until the API is served.
pub(crate) async fn open(options: &Options) -> Result<Vec<ApiListener>> {
    let mut listeners = Vec::new();
    for address in options.addresses() {
        listeners.push(match address.split_once("://") {
            Some(("unix", path)) => ApiListener::Unix(bind_unix(Path::new(path), &options.group)?),
            Some(("tcp", address)) => {
                let tls = Tls::new(options)?;
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on tcp://{address}"))?;
                ApiListener::Tcp(listener, tls)
            }
            _ => bail!("cannot serve the API at {address}: use unix://PATH or tcp://ADDRESS:PORT"),
        });
        tracing::info!(address, "API listens");
    }
    Ok(listeners)
}

/// Serves the API on open sockets in `scope`.
pub(crate) fn start<S>(listeners: Vec<ApiListener>, api: &S, scope: &mut Scope)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    for listener in listeners {
        scope.spawn("api", run(listener, (api.clone(), CONNECTIONS_MAX), scope.token()));
    }
}

/// Opens a unix socket that root and `group` may use. One left by a daemon that died is replaced.
fn bind_unix(path: &Path, group: &str) -> Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another daemon answers on {}: stop it first", path.display());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let gid = nix::unistd::Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw());
    let listener = host::listen_at(path, 0o660, gid)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener)?)
}

/// A socket that the API is served on.
pub(crate) enum ApiListener {
    Unix(UnixListener),
    Tcp(TcpListener, Tls),
}

/// A connection that was accepted, with its slot; with TLS the handshake and the slot are still to
/// come.
enum Accepted {
    Unix(UnixStream, OwnedSemaphorePermit),
    Tcp(Greeting),
}

impl ApiListener {
    async fn accept(&self, slots: &Arc<Semaphore>) -> std::io::Result<Accepted> {
        match self {
            Self::Unix(listener) => {
                let slot = Arc::clone(slots).acquire_owned().await;
                let slot = slot.map_err(std::io::Error::other)?;
                Ok(Accepted::Unix(listener.accept().await?.0, slot))
            }
            Self::Tcp(listener, tls) => {
                let (stream, remote) = listener.accept().await?;
                Ok(Accepted::Tcp(tls.greeting(stream, remote.ip())))
            }
        }
    }
}

/// Accepts connections, as many at once as there are slots.
async fn run<S>(
    listener: ApiListener,
    (api, slots): (S, usize),
    token: CancellationToken,
) -> Result<(), BoxError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (connections, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(slots)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept(&slots) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    // E.g. too many open files: the next attempt would fail as fast.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (api, slots, token) = (api.clone(), Arc::clone(&slots), token.clone());
        connections.spawn(serve_accepted(accepted, slots, api, token));
    }
}

/// Serves one that was accepted, after the handshake where there is one.
async fn serve_accepted<S>(
    accepted: Accepted,
    slots: Arc<Semaphore>,
    api: S,
    token: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    match accepted {
        Accepted::Unix(stream, _slot) => {
            let caller = process(&stream);
            serve(stream, (api, caller), IDLE_MAX, token).await;
        }
        Accepted::Tcp(greeting) => match greeting.answer(slots).await {
            Ok(Greeted { stream, caller, slot: _slot }) => {
                serve(stream, (api, caller), IDLE_MAX, token).await;
            }
            Err(error) => tracing::debug!(%error, "no client"),
        },
    }
}

/// Who is at the other end of a socket of this machine.
fn process(stream: &UnixStream) -> Option<Caller> {
    let peer = stream.peer_cred().ok()?;
    Some(Caller::Process { uid: peer.uid(), pid: peer.pid() })
}

/// Serves one connection until it or the daemon ends, or the client asks for nothing for so long.
async fn serve<I, S>(
    io: I,
    (api, caller): (S, Option<Caller>),
    idle_max: Duration,
    token: CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let service =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let mut request = request.map(axum::body::Body::new);
            if let Some(caller) = caller.clone() {
                request.extensions_mut().insert(caller);
            }
            api.clone().call(request)
        });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_max)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        },
        () = token.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    pub(super) fn options(arguments: &[String]) -> Options {
        let name = "skep".to_owned();
        Line::parse_from([name].iter().chain(arguments)).options
    }

    #[tokio::test]
    async fn on_a_socket_of_this_machine_it_is_known_who_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let listener = bind_unix(&path, "no such group").unwrap();
        let mut scope = Scope::new();
        let who = async |request: Request| format!("{:?}", request.extensions().get::<Caller>());
        let api = axum::Router::new().route("/_ping", get(who));
        start(vec![ApiListener::Unix(listener)], &api, &mut scope);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (uid, pid) = (nix::unistd::getuid(), std::process::id());
        let own = format!("Some(Process {{ uid: {uid}, pid: Some({pid}) }})");
        assert!(answer.ends_with(&own), "{answer}");
        scope.cancel();
        scope.join().await.unwrap();
    }

    #[tokio::test]
    async fn without_certificates_there_is_no_tcp() {
        let arguments = ["-H", "tcp://127.0.0.1:0"].map(str::to_owned);
        let error = open(&options(&arguments)).await.err().unwrap().to_string();
        assert!(error.contains("--tlscert") && error.contains("never served open"), "{error}");
        let arguments = ["-H", "ssh://somewhere"].map(str::to_owned);
        let error = open(&options(&arguments)).await.err().unwrap().to_string();
        assert!(error.contains("use unix://PATH"), "{error}");
    }

    const IDLE: Duration = Duration::from_millis(200);

    /// What a client hears that says this and waits.
    async fn heard(says: &str) -> String {
        let piece = |number| async move {
            tokio::time::sleep(IDLE).await;
            (number < 3).then_some((Ok::<_, Infallible>(format!("piece {number}")), number + 1))
        };
        let stream = move || async move {
            axum::body::Body::from_stream(futures_util::stream::unfold(0, piece))
        };
        let api = axum::Router::new()
            .route("/_ping", get(|| async { "OK" }))
            .route("/events", get(stream));
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = serve(server, (api, None), IDLE, CancellationToken::new());
        let asking = async {
            client.write_all(says.as_bytes()).await.unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let done = async { tokio::join!(serving, asking) };
        tokio::time::timeout(100 * IDLE, done).await.expect("the connection is closed").1
    }

    #[tokio::test]
    async fn a_client_that_asks_for_nothing_is_let_go_and_one_that_listens_is_not() {
        assert_eq!(heard("").await, "");
        assert_eq!(heard("GET /_ping HTTP/1.1\r\nHost: lo").await, "");
        assert!(heard("GET /_ping HTTP/1.1\r\nHost: local\r\n\r\n").await.ends_with("OK"));
        let events = heard("GET /events HTTP/1.1\r\nHost: local\r\n\r\n").await;
        assert!(events.contains("piece 2"), "{events}");
    }
}
