//! Connections of nodes, and of machines that want to become one, to a manager.
//!
//! Strangers are kept apart from nodes: they come by a stream of their own, which is served with
//! a smaller quota. Whoever opens many connections takes permits from nobody else (`permits`).

use crate::bounded::{Bounded, expired};
use crate::peer::statement;
use crate::permits::{Limit, Permit, Permits, origin};
use crate::refusals::Refusals;
use crate::{Error, Identity, Peer, clock, tls};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustls_pki_types::CertificateDer;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use types::Timestamp;

/// Handshakes at once, from one address and from all.
const HANDSHAKES: Limit = Limit { each: 64, all: 1024 };
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Connections without a certificate at once, from one address and from all: they are for joining
/// and soon over.
const STRANGERS: Limit = Limit { each: 64, all: 512 };
/// After this a connection without a certificate is closed.
const STRANGER_LIMIT: Duration = Duration::from_mins(1);
/// Connections at once, of one node (each log that it sends has one) and of all.
const NODES: Limit = Limit { each: 128, all: 20_000 };
/// Connections that wait to be served; their handshakes wait with them.
const QUEUE: usize = 64;
/// Before the next try, when no connection can be accepted (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is known of a connection: an extension of every request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who the client's certificate is for; `None`: it showed none.
    pub peer: Option<Peer>,
    pub remote: SocketAddr,
}

/// A connection after its handshake.
pub type Incoming = Bounded<TlsStream<TcpStream>, Connection>;

/// Connections after their handshakes: for tonic's `serve_with_incoming`. What goes wrong with one
/// client is that client's alone.
pub type Arrivals = ReceiverStream<io::Result<Incoming>>;

/// Who was let in, by whether they showed a certificate.
pub struct Accepted {
    pub nodes: Arrivals,
    pub strangers: Arrivals,
    pub connections: Connections,
    /// Of connections here; of calls by whoever serves them.
    pub refusals: Refusals,
}

/// The open connections of nodes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Connections(Permits<Peer>);

impl Connections {
    /// Ends the connections of everybody who is not to stay.
    pub fn retain(&self, stays: impl Fn(&Peer) -> bool) {
        self.0.retain(stays);
    }
}

/// Accepts connections on `listener`, as `identity`, until `token` is cancelled.
pub fn accept(
    listener: TcpListener,
    identity: &Identity,
    token: CancellationToken,
) -> Result<(impl Future<Output = io::Result<()>> + Send + use<>, Accepted), Error> {
    let (to_nodes, nodes) = mpsc::channel(QUEUE);
    let (to_strangers, strangers) = mpsc::channel(QUEUE);
    let (permits, refusals) = (Permits::new(NODES), Refusals::default());
    let accepted = Accepted {
        nodes: ReceiverStream::new(nodes),
        strangers: ReceiverStream::new(strangers),
        connections: Connections(permits.clone()),
        refusals: refusals.clone(),
    };
    let acceptor = Acceptor {
        tls: TlsAcceptor::from(tls::server_config(identity)?),
        identity: identity.clone(),
        strangers: Permits::new(STRANGERS),
        nodes: permits,
        to_nodes,
        to_strangers,
        refusals,
    };
    Ok((run(listener, acceptor, token), accepted))
}

async fn run(
    listener: TcpListener,
    acceptor: Acceptor,
    token: CancellationToken,
) -> io::Result<()> {
    let permits = Permits::new(HANDSHAKES);
    let mut handshakes = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            Some(()) = handshakes.next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    let permit = permits.take(origin(remote.ip()));
                    handshakes.push(handshake(acceptor.clone(), stream, remote, permit));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections of nodes");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn handshake(
    acceptor: Acceptor,
    stream: TcpStream,
    remote: SocketAddr,
    permit: Permit<IpAddr>,
) {
    let late = |what: &str| Err(io::Error::new(io::ErrorKind::TimedOut, what));
    let refusals = acceptor.refusals.clone();
    let taken = tokio::select! {
        taken = acceptor.take(stream, remote) => taken,
        () = permit.token().cancelled_owned() => late("its address opens too many"),
        () = tokio::time::sleep(HANDSHAKE_LIMIT) => late("the TLS handshake took too long"),
    };
    if let Err(error) = taken {
        refusals.connection(remote, &error);
    }
}

/// Sorts those who come in.
#[derive(Clone)]
struct Acceptor {
    tls: TlsAcceptor,
    identity: Identity,
    strangers: Permits<IpAddr>,
    nodes: Permits<Peer>,
    to_nodes: mpsc::Sender<io::Result<Incoming>>,
    to_strangers: mpsc::Sender<io::Result<Incoming>>,
    refusals: Refusals,
}

impl Acceptor {
    async fn take(self, stream: TcpStream, remote: SocketAddr) -> io::Result<()> {
        // Without it every small answer waits for the client's delayed acknowledgement (40 ms).
        stream.set_nodelay(true)?;
        let stream = self.tls.accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|it| it.clone().into_owned()).collect();
        let (to, bounded) = if let Some(own) = chain.first() {
            let said = statement(own).map_err(io::Error::other)?;
            let permit = self.nodes.take(said.peer.clone());
            let end = end(permit, trusted(self.identity, chain, said.expires_at));
            let connection = Connection { peer: Some(said.peer), remote };
            (self.to_nodes, Bounded::new(stream, connection, Box::pin(end)))
        } else {
            let permit = self.strangers.take(origin(remote.ip()));
            let end = end(permit, tokio::time::sleep(STRANGER_LIMIT));
            let connection = Connection { peer: None, remote };
            (self.to_strangers, Bounded::new(stream, connection, Box::pin(end)))
        };
        to.send(Ok(bounded)).await.map_err(|_closed| io::Error::other("the server has ended"))
    }
}

/// Ends when the permit has to be given up, or with what limits it; dropped, it frees the permit.
async fn end<K: Ord>(permit: Permit<K>, limit: impl Future<Output = ()>) {
    let token = permit.token();
    tokio::select! {
        () = token.cancelled() => {}
        () = limit => {}
    }
}

/// Waits until the certificates that a node has shown count no more: its own has expired, or its root
/// is trusted no more.
async fn trusted(identity: Identity, chain: Vec<CertificateDer<'static>>, expires_at: Timestamp) {
    let mut changes = identity.changes();
    let withdrawn = async {
        while identity.trusts(&chain, clock::now()) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = withdrawn => {}
        () = expired(expires_at) => {}
    }
}
