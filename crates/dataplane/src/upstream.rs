//! Questions that are not ours go to the DNS servers of this machine, from its own namespace, or to
//! those that the container names, from its namespace: there it is known who can be reached.

use crate::message::{Transport, fit};
use crate::port::Sockets;
use arc_swap::ArcSwap;
use domain::base::Message;
use domain::base::iana::Rcode;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Questions that wait for the node's servers, of all containers together.
const FOR_THE_NODES: usize = 1024;
/// Questions that wait for containers' own servers: these take nothing from the others.
const FOR_THEIR_OWN: usize = 4096;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// More servers are not asked (resolv.conf(5): MAXNS).
const SERVERS: usize = 3;
const DNS_PORT: u16 = 53;

pub(crate) struct Upstreams<S> {
    sockets: S,
    resolv_conf: PathBuf,
    /// The node's.
    servers: ArcSwap<Vec<SocketAddr>>,
    for_the_nodes: Arc<Semaphore>,
    for_their_own: Arc<Semaphore>,
}

/// Whom a container's questions go to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// The node's servers, from the namespace of this process.
    Node,
    /// The container's own, from its namespace.
    Own { netns: &'a Path, servers: &'a [IpAddr] },
}

impl<S: Sockets> Upstreams<S> {
    pub(crate) async fn open(sockets: S, resolv_conf: &Path) -> Self {
        let upstreams = Self {
            sockets,
            resolv_conf: resolv_conf.to_owned(),
            servers: ArcSwap::default(),
            for_the_nodes: Arc::new(Semaphore::new(FOR_THE_NODES)),
            for_their_own: Arc::new(Semaphore::new(FOR_THEIR_OWN)),
        };
        upstreams.reload().await;
        upstreams
    }

    /// Opens sockets for the name server itself, too.
    pub(crate) fn sockets(&self) -> &S {
        &self.sockets
    }

    /// Reads the node's list of servers again. A file that is not there lists none.
    pub(crate) async fn reload(&self) {
        match self.sockets.resolv_conf(&self.resolv_conf).await {
            Ok(text) => self.servers.store(Arc::new(servers(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.servers.store(Arc::default());
            }
            Err(error) => {
                let path = self.resolv_conf.display();
                tracing::warn!(%path, %error, "cannot read the list of name servers");
            }
        }
    }

    /// Says whether there is nobody to ask.
    pub(crate) fn is_empty(&self, way: Way<'_>) -> bool {
        match way {
            Way::Node => self.servers.load().is_empty(),
            Way::Own { servers, .. } => servers.is_empty(),
        }
    }

    /// Takes a common slot for a container that has `held` of them. Nobody gets more than are left
    /// for others: n containers that ask without end come to have 1/(n + 1) of them each.
    pub(crate) fn slot(&self, way: Way<'_>, held: usize) -> Option<OwnedSemaphorePermit> {
        let slots = match way {
            Way::Node => &self.for_the_nodes,
            Way::Own { .. } => &self.for_their_own,
        };
        let has_room = held < slots.available_permits();
        has_room.then(|| Arc::clone(slots).try_acquire_owned().ok()).flatten()
    }

    /// Asks one server after the other. `None`: none of them answered.
    pub(crate) async fn ask(
        &self,
        way: Way<'_>,
        packet: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        // An id of our own: a guesser of answers must guess it together with the port.
        let mut query = packet.to_vec();
        query.get_mut(..2)?.copy_from_slice(&rand::random::<u16>().to_be_bytes());
        let servers: Vec<SocketAddr> = match way {
            Way::Node => self.servers.load().to_vec(),
            Way::Own { servers, .. } => {
                let servers = servers.iter().take(SERVERS);
                servers.map(|server| SocketAddr::new(*server, DNS_PORT)).collect()
            }
        };
        let mut failure = None;
        for server in std::iter::repeat_n(servers.iter(), ROUNDS).flatten() {
            let reply = match transport {
                Transport::Udp => timeout(PATIENCE, self.ask_udp(way, *server, &query)).await,
                Transport::Tcp => timeout(PATIENCE, self.ask_tcp(way, *server, &query)).await,
            };
            let mut reply = match reply {
                Ok(Ok(reply)) => reply,
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "name server failed");
                    continue;
                }
                Err(_) => continue,
            };
            reply.get_mut(..2)?.copy_from_slice(packet.get(..2)?);
            let reply = fit(packet, transport, reply);
            if !failed(&reply) {
                return Some(reply);
            }
            failure = Some(reply);
        }
        failure
    }

    async fn ask_udp(&self, way: Way<'_>, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A new socket has a new port; connected, it hears this server only.
        let socket = match way {
            Way::Node => UdpSocket::bind((any, 0)).await?,
            Way::Own { netns, .. } => {
                let socket = self.sockets.bind_udp(netns, (any, 0).into()).await?;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)?
            }
        };
        socket.connect(server).await?;
        socket.send(query).await?;
        let mut reply = vec![0; usize::from(u16::MAX)];
        loop {
            let len = socket.recv(&mut reply).await?;
            if is_answer(&reply[..len], query) {
                reply.truncate(len);
                return Ok(reply);
            }
        }
    }

    async fn ask_tcp(&self, way: Way<'_>, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = match way {
            Way::Node => TcpStream::connect(server).await?,
            Way::Own { netns, .. } => {
                let socket = self.sockets.open_tcp(netns, server).await?;
                socket.set_nonblocking(true)?;
                TcpSocket::from_std_stream(socket).connect(server).await?
            }
        };
        stream.set_nodelay(true)?;
        stream.write_all(&framed(query)?).await?;
        let len = stream.read_u16().await?;
        let mut reply = vec![0; len.into()];
        stream.read_exact(&mut reply).await?;
        if is_answer(&reply, query) {
            return Ok(reply);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question"))
    }
}

/// Says whether another server may know better.
fn failed(reply: &[u8]) -> bool {
    Message::from_slice(reply).map_or(true, |message| {
        matches!(message.header().rcode(), Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP)
    })
}

/// A message as it goes over TCP: behind its length.
pub(crate) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    Ok(framed)
}

fn is_answer(reply: &[u8], query: &[u8]) -> bool {
    match (Message::from_slice(reply), Message::from_slice(query)) {
        (Ok(reply), Ok(query)) => reply.is_answer(query),
        _ => false,
    }
}

/// Reads the servers of a resolv.conf(5); what cannot be read is passed over, as libc does.
fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // An address with an optional port, which only our own configuration has.
        let plain = address.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
        plain.or_else(|_| address.parse()).ok()
    };
    text.lines().filter_map(server).take(SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_libc_does() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 192.0.2.1\n\
                    nameserver  2001:db8::1 # two\nnameserver broken\nnameserver 127.0.0.1:5353\n\
                    nameserver 192.0.2.9\n";
        let expected: Vec<SocketAddr> = ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:5353"]
            .map(|s| s.parse().unwrap())
            .into();
        assert_eq!(servers(text), expected);
    }
}
