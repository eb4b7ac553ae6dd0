//! Connections of nodes to a manager.

use crate::Peer;
use crate::peer::statement;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt, unfold};
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Handshakes at once; whoever comes then waits in the kernel's queue.
const HANDSHAKES: usize = 128;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Connections without a certificate, at once: they are for joining and soon over.
const STRANGERS: usize = 64;
/// After this a connection without a certificate is closed: it would keep others from joining.
const STRANGER_LIMIT: Duration = Duration::from_mins(1);
/// Connections of nodes, at once.
const NODES: usize = 10_000;
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
#[derive(Debug)]
pub struct Incoming {
    stream: TlsStream<TcpStream>,
    connection: Connection,
    /// When the connection ends, whatever is going on.
    end: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

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
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
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

type Handshake = Pin<Box<dyn Future<Output = io::Result<Incoming>> + Send>>;

struct Door {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: FuturesUnordered<Handshake>,
    places: Places,
}

#[derive(Clone)]
struct Places {
    strangers: Arc<Semaphore>,
    nodes: Arc<Semaphore>,
}

/// The connections that come in, each after its handshake: for tonic's `serve_with_incoming`.
/// It never ends and never fails: what goes wrong with one client is that client's alone.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> impl Stream<Item = io::Result<Incoming>> + Send {
    let door = Door {
        listener,
        acceptor: TlsAcceptor::from(config),
        handshakes: FuturesUnordered::new(),
        places: Places {
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            nodes: Arc::new(Semaphore::new(NODES)),
        },
    };
    unfold(door, |mut door| async move {
        let next = door.next().await;
        Some((Ok(next), door))
    })
    .boxed()
}

impl Door {
    async fn next(&mut self) -> Incoming {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.next() => match ended {
                    Ok(incoming) => return incoming,
                    Err(error) => tracing::debug!(%error, "a connection was not taken"),
                },
                accepted = self.listener.accept(), if self.handshakes.len() < HANDSHAKES => {
                    match accepted {
                        Ok((stream, remote)) => self.greet(stream, remote),
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept connections of nodes");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
        }
    }

    fn greet(&self, stream: TcpStream, remote: SocketAddr) {
        let (acceptor, places) = (self.acceptor.clone(), self.places.clone());
        self.handshakes.push(Box::pin(async move {
            let handshake = shake(acceptor, stream, remote, places);
            let late =
                |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
            tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await.map_err(late)?
        }));
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    places: Places,
) -> io::Result<Incoming> {
    // Without it every small answer waits for the client's delayed acknowledgement (40 ms).
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let peer = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => Some(statement(certificate).map_err(io::Error::other)?.peer),
        None => None,
    };
    let (places, end) = match &peer {
        Some(_) => (places.nodes, None),
        None => (places.strangers, Some(Box::pin(tokio::time::sleep(STRANGER_LIMIT)))),
    };
    let place = places
        .try_acquire_owned()
        .map_err(|_full| io::Error::other(format!("too many connections: {remote} is refused")))?;
    Ok(Incoming { stream, connection: Connection { peer, remote }, end, _place: place })
}
