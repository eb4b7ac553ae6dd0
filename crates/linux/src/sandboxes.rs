//! The data plane's port to namespaces: each call is a thread of its own that ends with it.

use crate::error::Error;
use crate::namespace::{self, Purpose};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::Path;

/// Connections that may wait for the DNS server to accept them.
const BACKLOG: i32 = 128;

/// The namespaces of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Namespaces;

impl dataplane::Namespaces for Namespaces {
    async fn create(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || namespace::create(&path, Purpose::Container)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking(move || namespace::remove(&path)).await
    }

    async fn exists(&self, path: &Path) -> bool {
        namespace::exists(path)
    }

    async fn bind_udp(&self, path: &Path, address: SocketAddrV4) -> io::Result<UdpSocket> {
        bind(path, Type::DGRAM, address).await.map(Into::into)
    }

    async fn bind_tcp(&self, path: &Path, address: SocketAddrV4) -> io::Result<TcpListener> {
        bind(path, Type::STREAM, address).await.map(Into::into)
    }
}

async fn bind(path: &Path, kind: Type, address: SocketAddrV4) -> io::Result<Socket> {
    let path = path.to_owned();
    blocking(move || {
        let bound = namespace::run_in(&path, || open(kind, address))?;
        bound.map_err(|source| Error::system(&format!("bind {address}"), source))
    })
    .await
}

/// Opens a socket in the thread's namespace, ready for the asynchronous runtime.
fn open(kind: Type, address: SocketAddrV4) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    if kind == Type::STREAM {
        // Two UDP sockets with this option would share a port, so only TCP has it.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::V4(address).into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
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
