//! Connections of nodes, and of machines that want to become one, to a manager.
//!
//! Strangers are kept apart from nodes: they come by a stream of their own, which is served with
//! a smaller quota. Whoever opens many connections takes permits from nobody else (`permits`).

use crate::Peer;
use crate::peer::statement;
use crate::permits::{Limit, Permit, Permits};
use crate::refusals::Refusals;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

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
pub struct Incoming {
    stream: TlsStream<TcpStream>,
    connection: Connection,
    /// When the connection ends, whatever is going on; `None`: it has.
    end: Option<End>,
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connected for Incoming {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().is_none_or(|end| end.as_mut().poll(cx).is_ready()) {
            self.end = None;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Incoming {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

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

/// Accepts connections on `listener` until `token` is cancelled.
pub fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    token: CancellationToken,
) -> (impl Future<Output = io::Result<()>> + Send, Accepted) {
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
        tls: TlsAcceptor::from(config),
        strangers: Permits::new(STRANGERS),
        nodes: permits,
        to_nodes,
        to_strangers,
        refusals,
    };
    (run(listener, acceptor, token), accepted)
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
                    let permit = permits.take(remote.ip());
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
        let peer = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Some(statement(certificate).map_err(io::Error::other)?.peer),
            None => None,
        };
        let connection = Connection { peer: peer.clone(), remote };
        let (to, end) = if let Some(peer) = peer {
            (self.to_nodes, end(self.nodes.take(peer), None))
        } else {
            let permit = self.strangers.take(remote.ip());
            (self.to_strangers, end(permit, Some(STRANGER_LIMIT)))
        };
        let sent = to.send(Ok(Incoming { stream, connection, end: Some(end) })).await;
        sent.map_err(|_closed| io::Error::other("the server has ended"))
    }
}

/// Ends when the permit has to be given up, or the time is over; dropped, it frees the permit.
fn end<K>(permit: Permit<K>, limit: Option<Duration>) -> End
where
    K: Ord + Send + 'static,
{
    Box::pin(async move {
        let token = permit.token();
        match limit {
            Some(limit) => drop(tokio::time::timeout(limit, token.cancelled()).await),
            None => token.cancelled().await,
        }
    })
}
