//! Clients on TCP: only who has shown a certificate takes a slot.
//!
//! Until then they take one of the places for handshakes, where the oldest gives way: whoever opens
//! connections and says nothing keeps nobody out.

use super::super::options::Options;
use anyhow::{Context, Result, bail};
use ca::{Limit, Permit, Permits};
use engine_api::Caller;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Handshakes at once, from one address and from all.
const HANDSHAKES: Limit = Limit { each: 64, all: 1024 };
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How clients are greeted. Clones are the same.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    handshakes: Permits<IpAddr>,
}

/// A client that nothing is known of yet.
pub(super) struct Greeting {
    tls: Tls,
    stream: TcpStream,
    place: Permit<IpAddr>,
}

/// A client that has shown its certificate, and has a slot.
pub(super) struct Greeted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) caller: Option<Caller>,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Tls {
    /// Mutual TLS: without all three files there is no TCP.
    pub(super) fn new(options: &Options) -> Result<Self> {
        let (Some(cert), Some(key), Some(ca)) =
            (&options.tlscert, &options.tlskey, &options.tlscacert)
        else {
            bail!(
                "the API on TCP needs --tlscert, --tlskey and --tlscacert: it is never served open"
            );
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
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, handshakes: Permits::new(HANDSHAKES) })
    }

    /// Takes a place for the handshake of a client that comes from there.
    pub(super) fn greeting(&self, stream: TcpStream, from: IpAddr) -> Greeting {
        let place = self.handshakes.take(ca::origin(from));
        Greeting { tls: self.clone(), stream, place }
    }
}

impl Greeting {
    /// Makes the handshake, and waits for a slot.
    pub(super) async fn answer(self, slots: Arc<Semaphore>) -> io::Result<Greeted> {
        let Self { tls, stream, place } = self;
        let greeting = async {
            let handshake = tls.acceptor.accept(stream);
            let stream = tokio::time::timeout(HANDSHAKE_MAX, handshake).await??;
            let slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            Ok(Greeted { caller: client(&stream), stream, slot })
        };
        tokio::select! {
            greeted = greeting => greeted,
            () = place.token().cancelled_owned() => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "its address opens too many"))
            }
        }
    }
}

/// Whose certificate a client has shown.
fn client(stream: &TlsStream<TcpStream>) -> Option<Caller> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some(Caller::Client { subject: ca::subject(certificate).ok()? })
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::super::{ApiListener, open, run, start};
    use super::*;
    use axum::extract::Request;
    use axum::routing::get;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConfig, RootCertStore};
    use scope::Scope;
    use std::path::{Path, PathBuf};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

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

    /// The API's listener on a port that is free, and clients without and with a certificate.
    async fn listening(folder: &Path) -> (ApiListener, u16, [ClientConfig; 2]) {
        let _installed_or_was_before = rustls::crypto::ring::default_provider().install_default();
        let [ca, cert, key] = certificates(folder);
        let text = |path: &Path| path.display().to_string();
        let arguments = ["-H", "tcp://127.0.0.1:0"].map(str::to_owned);
        let files = [("--tlscacert", &ca), ("--tlscert", &cert), ("--tlskey", &key)];
        let files = files.map(|(flag, path)| [flag.to_owned(), text(path)]).concat();
        let mut listeners = open(&options(&[arguments.as_slice(), &files].concat())).await.unwrap();
        let Some(ApiListener::Tcp(listener, tls)) = listeners.pop() else {
            panic!("one listener on TCP")
        };
        let port = listener.local_addr().unwrap().port();

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca).unwrap()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots);
        let chain = vec![CertificateDer::from_pem_file(&cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&key).unwrap();
        let known = client.clone().with_client_auth_cert(chain, key).unwrap();
        (ApiListener::Tcp(listener, tls), port, [client.with_no_client_auth(), known])
    }

    fn api() -> axum::Router {
        let who = async |request: Request| format!("{:?}", request.extensions().get::<Caller>());
        axum::Router::new().route("/_ping", get(who))
    }

    #[tokio::test]
    async fn on_tcp_only_clients_with_a_certificate_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (listener, port, [stranger, known]) = listening(folder.path()).await;
        let mut scope = Scope::new();
        start(vec![listener], &api(), &mut scope);
        let answer = ask(port, known).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("CN=alice"), "{answer}");
        assert_eq!(ask(port, stranger).await, None);
        scope.cancel();
        scope.join().await.unwrap();
    }

    #[tokio::test]
    async fn whoever_connects_and_says_nothing_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let (listener, port, [_, known]) = listening(folder.path()).await;
        let mut scope = Scope::new();
        scope.spawn("api", run(listener, (api(), 2), scope.token()));
        let mut silent = Vec::new();
        for _ in 0..2 * HANDSHAKES.each {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        let answer = tokio::time::timeout(HANDSHAKE_MAX / 2, ask(port, known)).await;
        assert!(answer.is_ok_and(|answer| answer.is_some()), "{} say nothing", silent.len());
        scope.cancel();
        scope.join().await.unwrap();
    }
}
