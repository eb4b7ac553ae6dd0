//! The data plane's ports to namespaces and to sockets in them: each call is a thread of its own
//! that ends with it.

use crate::error::Error;
use crate::namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

/// Connections that may wait for the DNS server to accept them.
const BACKLOG: i32 = 128;

/// The namespaces of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespaces;

impl dataplane::Namespaces for Namespaces {
    async fn create(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || namespace::create(&path, namespace::Purpose::Container)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || namespace::remove(&path)).await
    }

    async fn exists(&self, path: &Path) -> bool {
        namespace::exists(path)
    }
}

impl dataplane::Sockets for Namespaces {
    async fn bind_udp(&self, path: &Path, address: SocketAddr) -> io::Result<UdpSocket> {
        open_in(path, Purpose::Datagrams, address).await.map(Into::into)
    }

    async fn bind_tcp(&self, path: &Path, address: SocketAddr) -> io::Result<TcpListener> {
        open_in(path, Purpose::Listen, address).await.map(Into::into)
    }

    async fn open_tcp(&self, path: &Path, to: SocketAddr) -> io::Result<TcpStream> {
        open_in(path, Purpose::Connect, to).await.map(Into::into)
    }
}

async fn open_in(path: &Path, purpose: Purpose, address: SocketAddr) -> io::Result<Socket> {
    let path = path.to_owned();
    blocking(move || {
        let opened = namespace::run_in(&path, || open(purpose, address))?;
        opened.map_err(|source| Error::system(&format!("open a socket for {address}"), source))
    })
    .await
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// UDP, bound.
    Datagrams,
    /// TCP, bound and listening.
    Listen,
    /// TCP, to be connected.
    Connect,
}

/// Opens a socket in the thread's namespace, ready for the asynchronous runtime.
pub(crate) fn open(purpose: Purpose, address: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match purpose {
        Purpose::Datagrams => (Type::DGRAM, Protocol::UDP),
        Purpose::Listen | Purpose::Connect => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    match purpose {
        Purpose::Datagrams => socket.bind(&address.into())?,
        Purpose::Listen => {
            // Two UDP sockets with this option would share a port, so only TCP has it.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
        }
        Purpose::Connect => {}
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The blocking pool's threads stay in their namespace: what enters one is a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(error) => Err(io::Error::other(error)),
    }
}
