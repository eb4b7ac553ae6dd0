//! The API's sockets: unix for this machine, TCP with mutual TLS for others.

use super::options::Options;
use anyhow::{Context, Result, bail};
use axum::extract::Request;
use axum::response::Response;
use engine_api::Caller;
use hyper_util::rt::{TokioIo, TokioTimer};
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
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Connections of one socket that are served at once; further ones wait in its queue, and take nothing
/// from other sockets.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
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
                let acceptor = acceptor(options)?;
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on tcp://{address}"))?;
                ApiListener::Tcp(listener, acceptor)
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
        scope.spawn("api", run(listener, api.clone(), scope.token()));
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
pub(crate) enum ApiListener {
    Unix(UnixListener),
    Tcp(TcpListener, TlsAcceptor),
}

/// A connection that was accepted; with TLS the handshake is still to come.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, TlsAcceptor),
}

impl ApiListener {
    async fn accept(&self) -> std::io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tcp(listener, acceptor) => {
                Ok(Accepted::Tcp(listener.accept().await?.0, acceptor.clone()))
            }
        }
    }
}

/// Accepts connections, as many at once as there are slots.
async fn run<S>(listener: ApiListener, api: S, token: CancellationToken) -> Result<(), BoxError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (connections, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let permit = Arc::clone(&slots).acquire_owned().await?;
        let accepted = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
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
            serve_accepted(accepted, api, token).await;
            drop(permit);
        });
    }
}

/// Serves one that was accepted, after the handshake where there is one.
async fn serve_accepted<S>(accepted: Accepted, api: S, token: CancellationToken)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (stream, acceptor) = match accepted {
        Accepted::Unix(stream) => {
            let caller = process(&stream);
            return serve(stream, (api, caller), IDLE_MAX, token).await;
        }
        Accepted::Tcp(stream, acceptor) => (stream, acceptor),
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let caller = client(&stream);
            serve(stream, (api, caller), IDLE_MAX, token).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// Who is at the other end of a socket of this machine.
fn process(stream: &UnixStream) -> Option<Caller> {
    let peer = stream.peer_cred().ok()?;
    Some(Caller::Process { uid: peer.uid(), pid: peer.pid() })
}

/// Whose certificate a client has shown.
fn client(stream: &TlsStream<TcpStream>) -> Option<Caller> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some(Caller::Client { subject: ca::subject(certificate).ok()? })
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
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConfig, RootCertStore};
    use std::path::PathBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[String]) -> Options {
        let name = "skep".to_owned();
        Line::parse_from([name].iter().chain(arguments)).options
    }

    /// A root, and a certificate of it for `localhost`, of `alice`; all as PEM files in `folder`.
    fn certificates(folder: &Path) -> [PathBuf; 3] {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        let leaf = leaf.signed_by(&key, &root).unwrap();
        let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
        for (file, text) in files.iter().zip([root.pem(), leaf.pem(), key.serialize_pem()]) {
            std::fs::write(file, text).unwrap();
        }
        files
    }

    /// Asks for `/_ping`; `None` where the server does not answer.
    async fn ask(port: u16, config: ClientConfig) -> Option<String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        let request = b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    #[tokio::test]
    async fn on_tcp_only_clients_with_a_certificate_are_answered() {
        let _installed_or_was_before = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let [ca, cert, key] = certificates(folder.path());
        let text = |path: &Path| path.display().to_string();
        let arguments = ["-H", "tcp://127.0.0.1:0"].map(str::to_owned);
        let files = [("--tlscacert", &ca), ("--tlscert", &cert), ("--tlskey", &key)];
        let files = files.map(|(flag, path)| [flag.to_owned(), text(path)]).concat();
        let listeners = open(&options(&[arguments.as_slice(), &files].concat())).await.unwrap();
        let Some(ApiListener::Tcp(listener, _)) = listeners.first() else {
            panic!("one listener on TCP")
        };
        let port = listener.local_addr().unwrap().port();
        let mut scope = Scope::new();
        let who = async |request: Request| format!("{:?}", request.extensions().get::<Caller>());
        let api = axum::Router::new().route("/_ping", get(who));
        start(listeners, &api, &mut scope);

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca).unwrap()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots);
        let chain = vec![CertificateDer::from_pem_file(&cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&key).unwrap();
        let known = client.clone().with_client_auth_cert(chain, key).unwrap();
        let answer = ask(port, known).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("CN=alice"), "{answer}");
        assert_eq!(ask(port, client.with_no_client_auth()).await, None);
        scope.cancel();
        scope.join().await.unwrap();
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
